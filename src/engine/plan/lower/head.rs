//! The head's layers, in the order in which the graph has them; and the nodes with weights, which both parts have.

use super::super::PoolKind;
use super::super::head::{Grid, Layer};
use super::network::{Bias, Network, Real, Waiting};
use super::values::{Failure, Failure::Reason, Value, window};
use super::{Lowering, onnx};

/// A head on its way.
#[derive(Default)]
pub struct Builder {
    pub layers: Vec<Layer>,
    /// The tensor that it reads.
    start: Option<usize>,
    begun: bool,
    /// Channels, and positions that each has.
    shape: [usize; 2],
    flat: bool,
}

impl Builder {
    /// The tensor at which the head starts.
    pub fn start(&self) -> Option<usize> {
        self.start
    }

    /// The head will start at this tensor.
    pub fn start_at(&mut self, tensor: usize) -> Result<(), Failure> {
        if self.start.is_some_and(|known| known != tensor) {
            return Err(Reason("the head must start at one tensor".into()));
        }
        self.start = Some(tensor);
        Ok(())
    }

    /// Values after the layers so far.
    pub fn values(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// The value is where the head goes on; the features are its start.
    fn enter(&mut self, from: &Value, network: &mut Network) -> Result<(), Failure> {
        match from {
            Value::Real(real) if !self.begun => {
                let tensor = network.bytes(*real)?;
                self.start_at(tensor)?;
                let [h, w, c] = network.tensors[tensor].shape;
                (self.shape, self.begun) = ([c, h * w], true);
                Ok(())
            }
            Value::Head(n) if *n == self.layers.len() => Ok(()),
            Value::Head(_) | Value::Real(_) => Err(Reason("the head branches".into())),
            _ => Err(Reason("what it reads is not of the head".into())),
        }
    }

    /// Adds a layer that keeps the shape.
    pub fn layer(&mut self, from: &Value, layer: Layer, network: &mut Network) -> Result<Value, Failure> {
        self.enter(from, network)?;
        self.layers.push(layer);
        Ok(Value::Head(self.layers.len()))
    }

    /// Adds a layer on `[channel, row, column]` that leaves `shape`.
    fn square(
        &mut self,
        from: &Value,
        layer: Layer,
        network: &mut Network,
        shape: impl Fn([usize; 2]) -> [usize; 2],
    ) -> Result<Value, Failure> {
        self.enter(from, network)?;
        if self.flat {
            return Err(Reason("the head is flat here".into()));
        }
        self.shape = shape(self.shape);
        self.layer(&Value::Head(self.layers.len()), layer, network)
    }

    pub fn mean(&mut self, from: &Value, network: &mut Network) -> Result<Value, Failure> {
        self.square(from, Layer::Mean, network, |[c, _]| [c, 1])
    }

    /// After it only the order of the values counts, so nothing else may ask for channels.
    pub fn turn(&mut self, from: &Value, network: &mut Network) -> Result<Value, Failure> {
        let value = self.square(from, Layer::Turn, network, |shape| shape)?;
        self.flat = true;
        Ok(value)
    }

    pub fn flatten(&mut self, from: &Value, network: &mut Network) -> Result<Value, Failure> {
        self.enter(from, network)?;
        self.flat = true;
        Ok(Value::Head(self.layers.len()))
    }

    /// The last of `count` layers rounds on this grid.
    pub fn is_on(&self, count: usize, grid: &Grid) -> bool {
        count.checked_sub(1).and_then(|i| self.layers.get(i)) == Some(&Layer::Steps(*grid))
    }
}

impl Lowering<'_> {
    /// Shape and real values of a constant, quantised or not.
    fn floats(&mut self, value: Option<&Value>) -> Result<(Vec<usize>, Vec<f32>), Failure> {
        let (shape, values) = match value {
            Some(Value::Weights(weights)) => {
                (weights.shape.clone(), weights.floats(&self.constants[weights.constant])?)
            }
            value => {
                let tensor = self.constant(value)?;
                (tensor.shape()?, tensor.f32s()?)
            }
        };
        self.network.keep(4 * values.len())?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err(Reason("weights that are not finite".into()));
        }
        Ok((shape, values))
    }

    pub fn convolution(
        &mut self,
        node: &onnx::Node,
        inputs: &[Value],
        output: &str,
    ) -> Result<Value, Failure> {
        if node.ints("group").is_some_and(|g| g != [1]) {
            return Err(Reason("groups".into()));
        }
        let weights = match (inputs.first(), inputs.get(1)) {
            (Some(Value::Real(real)), Some(Value::Weights(weights))) => {
                let of_head = self.network.plain(*real).is_some_and(|t| self.head.start() == Some(t));
                if of_head {
                    return self.point(node, inputs);
                }
                weights.clone()
            }
            (Some(Value::Real(_)), Some(Value::Constant(_))) | (Some(Value::Head(_)), _) => {
                return self.point(node, inputs);
            }
            _ => return Err(Reason("a convolution needs a quantised input and quantised weights".into())),
        };
        let Some(Value::Real(real)) = inputs.first() else { return Err(Reason("no input".into())) };
        let from = self.network.bytes(*real)?;
        let channels = self.network.tensors[from].shape[2];
        let shape = &weights.shape;
        let &[o, c, kh, kw] = &shape[..] else { return Err(Reason(format!("weights of {shape:?}"))) };
        if c != channels || kh * kw == 0 || o == 0 || kh > 64 || kw > 64 {
            return Err(Reason(format!("weights of {shape:?} for {channels} channels")));
        }
        let scales = weights.by_output()?;
        let weight = weights.steps(&self.constants[weights.constant])?;
        self.network.keep(weight.len())?;
        let given = self.network.tensors[from].scale;
        let bias = match inputs.get(2) {
            None | Some(Value::Absent) => Bias::Steps(vec![0; o]),
            Some(Value::Weights(bias)) => {
                let near = |(u, s): (&f32, &f32)| (u - given * s).abs() <= 1e-4 * u;
                let units = bias.by_output()?;
                if units.len() != o || !units.iter().zip(&scales).all(near) {
                    return Err(Reason("the bias must have the scale input · weight".into()));
                }
                Bias::Steps(self.constants[bias.constant].i32s()?)
            }
            bias => Bias::Real(self.constant(bias)?.f32s()?),
        };
        let length = match &bias {
            Bias::Steps(b) => b.len(),
            Bias::Real(b) if b.iter().any(|b| !b.is_finite()) => {
                return Err(Reason("a bias that is not finite".into()));
            }
            Bias::Real(b) => b.len(),
        };
        if length != o {
            return Err(Reason(format!("{length} biases for {o} channels")));
        }
        let real = self.network.wait(Waiting {
            node: node.name.clone().unwrap_or_else(|| output.into()),
            name: output.into(),
            from,
            window: window(node, [kh, kw])?,
            weight,
            scales,
            bias,
        })?;
        Ok(Value::Real(real))
    }

    pub fn pool(
        &mut self,
        node: &onnx::Node,
        input: &Value,
        kind: PoolKind,
        output: &str,
    ) -> Result<Value, Failure> {
        let &Value::Real(of) = input else {
            return Err(Reason("what it reads is not of the quantised network".into()));
        };
        let kernel = match node.ints("kernel_shape").as_deref() {
            Some(&[h, w]) if (1..=64).contains(&h) && (1..=64).contains(&w) => [h as usize, w as usize],
            _ => return Err(Reason("a kernel of two sides is needed".into())),
        };
        let window = window(node, kernel)?;
        let padded = window.padding.iter().any(|&p| p > 0);
        if kind == PoolKind::Average && padded && node.ints("count_include_pad").is_some_and(|v| v != [0]) {
            return Err(Reason("the padding is counted".into()));
        }
        Ok(Value::Real(self.network.real(Real::Pool { name: output.into(), of, window, kind })?))
    }

    /// A 1x1 convolution of the head.
    fn point(&mut self, node: &onnx::Node, inputs: &[Value]) -> Result<Value, Failure> {
        let (shape, values) = self.floats(inputs.get(1))?;
        let bias = self.floats(inputs.get(2))?.1;
        self.head.enter(&inputs[0], &mut self.network)?;
        let channels = self.head.shape[0];
        if shape != [bias.len(), channels, 1, 1] || bias.is_empty() {
            return Err(Reason(format!(
                "weights of {shape:?} and {} biases for {channels} channels in the head: a 1x1 is needed",
                bias.len()
            )));
        }
        let window = window(node, [1, 1])?;
        if window.stride != [1, 1] {
            return Err(Reason("a stride in the head".into()));
        }
        let outputs = bias.len();
        let layer = Layer::Point(values, bias);
        self.head
            .square(&Value::Head(self.head.layers.len()), layer, &mut self.network, |[_, p]| [outputs, p])
    }

    pub fn dense(&mut self, node: &onnx::Node, inputs: &[Value]) -> Result<Value, Failure> {
        let is = |name: &str, value: i64| node.ints(name).unwrap_or_else(|| vec![0]) == [value];
        let plain = |name: &str| node.float(name).is_none_or(|v| v == 1.0);
        if !is("transA", 0) || !plain("alpha") || !plain("beta") {
            return Err(Reason("transA, alpha or beta".into()));
        }
        let (shape, mut values) = self.floats(inputs.get(1))?;
        let bias = self.floats(inputs.get(2))?.1;
        self.head.enter(&inputs[0], &mut self.network)?;
        let count = self.head.values();
        let turned = is("transB", 1);
        let expected = if turned { [bias.len(), count] } else { [count, bias.len()] };
        if shape != expected || bias.is_empty() {
            return Err(Reason(format!("weights of {shape:?} and {} biases for {count} values", bias.len())));
        }
        let outputs = bias.len();
        if !turned {
            values = (0..values.len()).map(|i| values[i % count * outputs + i / count]).collect();
        }
        (self.head.shape, self.head.flat) = ([outputs, 1], true);
        self.head.layer(&Value::Head(self.head.layers.len()), Layer::Dense(values, bias), &mut self.network)
    }
}
