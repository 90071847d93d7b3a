//! From the ONNX graph to the plan: one walk over the nodes, which ONNX keeps in an order that can run.

use super::head::Layer;
use super::{Convolution, Head, Plan, PlanError, Pool, PoolKind, Step, Tensor, Window};
use crate::model::onnx::{self, data_type};
use prost::Message;
use std::collections::HashMap;

/// What a name in the graph stands for.
#[derive(Clone)]
enum Value {
    /// The f32 picture.
    Image,
    /// A constant, by its number among the initialisers.
    Constant(usize),
    /// A dequantised constant.
    Weights(usize, Vec<f32>),
    /// A tensor's bytes.
    Bytes(usize),
    /// A tensor's dequantised values.
    Real(usize),
    /// A step that awaits its requantisation, by its place in `waiting`.
    Waiting(usize),
    /// Tensors one after the other by channel.
    Parts(Vec<usize>),
    /// Within the head, after so many layers.
    Head(usize),
}

enum Waiting {
    Convolution { from: usize, window: Window, weight: Vec<i8>, scales: Vec<f32>, bias: Bias },
    Pool { from: usize, window: Window, kind: PoolKind },
}

enum Bias {
    Steps(Vec<i32>),
    Real(Vec<f32>),
}

struct Lowering<'a> {
    graph: &'a onnx::Graph,
    values: HashMap<String, Value>,
    waiting: Vec<Option<Waiting>>,
    tensors: Vec<Tensor>,
    steps: Vec<Step>,
    input: Option<usize>,
    features: Option<usize>,
    head: Vec<Layer>,
}

/// The largest side and number of channels that a tensor may have.
const LIMIT: usize = 1 << 14;

pub fn lower(bytes: &[u8]) -> Result<Plan, PlanError> {
    let model = onnx::Model::decode(bytes).map_err(|e| PlanError::Decode(e.to_string()))?;
    let graph = model.graph.ok_or_else(|| PlanError::Decode("no graph in it".into()))?;
    let mut values = HashMap::new();
    for (i, tensor) in graph.initializer.iter().enumerate() {
        let name = tensor.name.clone().unwrap_or_default();
        if values.insert(name.clone(), Value::Constant(i)).is_some() {
            return Err(PlanError::Graph(format!("has two constants named '{name}'")));
        }
    }
    let inputs: Vec<&onnx::ValueInfo> =
        graph.input.iter().filter(|i| !values.contains_key(i.name.as_deref().unwrap_or_default())).collect();
    let [input] = inputs[..] else {
        return Err(PlanError::Graph(format!("has {} inputs where one picture is needed", inputs.len())));
    };
    values.insert(input.name.clone().unwrap_or_default(), Value::Image);
    let shape = picture_shape(input)?;
    let mut lowering = Lowering {
        graph: &graph,
        values,
        waiting: Vec::new(),
        tensors: Vec::new(),
        steps: Vec::new(),
        input: None,
        features: None,
        head: Vec::new(),
    };
    for node in &graph.node {
        lowering.node(node, shape)?;
    }
    lowering.finish()
}

fn picture_shape(input: &onnx::ValueInfo) -> Result<[usize; 3], PlanError> {
    let dims: Option<Vec<usize>> = input
        .r#type
        .as_ref()
        .and_then(|t| t.tensor_type.as_ref())
        .and_then(|t| t.shape.as_ref()?.dim.iter().map(|d| usize::try_from(d.dim_value?).ok()).collect());
    match dims.as_deref() {
        Some(&[1, c, h, w]) if [c, h, w].iter().all(|d| (1..=LIMIT).contains(d)) => Ok([h, w, c]),
        other => {
            Err(PlanError::Graph(format!("takes {other:?} where [1, channels, rows, columns] is needed")))
        }
    }
}

impl Lowering<'_> {
    fn node(&mut self, node: &onnx::Node, picture: [usize; 3]) -> Result<(), PlanError> {
        let op = node.op_type.as_deref().unwrap_or_default();
        let fail = |reason: String| PlanError::Node {
            node: node.name.clone().unwrap_or_else(|| node.output.first().cloned().unwrap_or_default()),
            op: op.into(),
            reason,
        };
        let [output] = &node.output[..] else { return Err(fail("has several outputs".into())) };
        let mut inputs = Vec::new();
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            let known = self.values.get(name).cloned();
            inputs.push(known.ok_or_else(|| fail(format!("reads '{name}', which nothing before it makes")))?);
        }
        let value = match op {
            "QuantizeLinear" => self.quantise(&inputs, output, picture),
            "DequantizeLinear" => self.dequantise(node, &inputs),
            "Conv" => self.convolution(node, &inputs),
            "MaxPool" => self.pool(node, &inputs, PoolKind::Max),
            "AveragePool" => self.pool(node, &inputs, PoolKind::Average),
            "Relu" => match &inputs[..] {
                // Requantisation with zero point 0 is a ReLU.
                [Value::Waiting(i)] if matches!(self.waiting[*i], Some(Waiting::Convolution { .. })) => {
                    Ok(inputs[0].clone())
                }
                [Value::Real(_)] => Ok(inputs[0].clone()),
                [Value::Head(_)] => self.head_layer(&inputs[0], Layer::Relu),
                _ => Err(Reason("what it reads is no convolution".into())),
            },
            "Concat" => self.concatenate(node, &inputs),
            "GlobalAveragePool" => self.head_layer(&inputs[0], Layer::Mean),
            "Flatten" => self.flatten(node, &inputs),
            "Transpose" if node.ints("perm").as_deref() == Some(&[0, 2, 3, 1]) => {
                self.head_layer(&inputs[0], Layer::Turn)
            }
            "Gemm" => self.dense(node, &inputs),
            _ => Err(Reason("this operator is not known here".into())),
        };
        let value = value.map_err(|error| match error {
            Failure::Reason(reason) => fail(reason),
            Failure::Tensor(error) => PlanError::Tensor(error),
        })?;
        if self.values.insert(output.clone(), value).is_some() {
            return Err(fail(format!("makes '{output}' a second time")));
        }
        Ok(())
    }

    fn constant(&self, value: Option<&Value>) -> Result<&onnx::Tensor, Failure> {
        match value {
            Some(Value::Constant(i)) => Ok(&self.graph.initializer[*i]),
            _ => Err(Reason("a constant is missing".into())),
        }
    }

    /// The scale of an activation; its zero point must be 0.
    fn scale(&self, inputs: &[Value]) -> Result<f32, Failure> {
        let scales = self.constant(inputs.get(1))?.f32s()?;
        let &[scale] = &scales[..] else { return Err(Reason("an activation needs one scale".into())) };
        if !scale.is_normal() || scale <= 0.0 {
            return Err(Reason(format!("a scale of {scale}")));
        }
        if inputs.len() > 2 && self.constant(inputs.get(2))?.u8s()?.iter().any(|&z| z != 0) {
            return Err(Reason("activations must be u8 with zero point 0".into()));
        }
        Ok(scale)
    }

    fn tensor(&mut self, name: &str, shape: [usize; 3], scale: f32) -> Result<usize, Failure> {
        if shape.iter().any(|&d| d == 0 || d > LIMIT) || shape.iter().product::<usize>() > 1 << 26 {
            return Err(Reason(format!("a tensor of {shape:?}")));
        }
        self.tensors.push(Tensor { name: name.into(), shape, scale, part_of: None, place: 0, step: 0 });
        Ok(self.tensors.len() - 1)
    }

    fn copy(&mut self, from: usize, name: &str, scale: f32) -> Result<usize, Failure> {
        let to = self.tensor(name, self.tensors[from].shape, scale)?;
        let window = Window { kernel: [1; 2], stride: [1; 2], padding: [0; 4] };
        let multiplier = self.tensors[from].scale / scale;
        self.steps.push(Step::Pool(Pool {
            name: name.into(),
            from,
            to,
            window,
            kind: PoolKind::Max,
            multiplier,
        }));
        Ok(to)
    }

    fn quantise(&mut self, inputs: &[Value], name: &str, picture: [usize; 3]) -> Result<Value, Failure> {
        let scale = self.scale(inputs)?;
        let to = match &inputs[0] {
            Value::Image => {
                if (scale * 255.0 - 1.0).abs() > 1e-6 || self.input.is_some() {
                    return Err(Reason("the picture must be quantised once, with scale 1/255".into()));
                }
                let to = self.tensor(name, picture, scale)?;
                self.input = Some(to);
                to
            }
            Value::Real(from) if self.tensors[*from].scale == scale => *from,
            Value::Real(from) => self.copy(*from, name, scale)?,
            Value::Parts(parts) => self.join(&parts.clone(), name, scale)?,
            Value::Waiting(i) => {
                let waiting =
                    self.waiting[*i].take().ok_or_else(|| Reason("it is quantised twice".into()))?;
                self.settle(waiting, name, scale)?
            }
            _ => return Err(Reason("what it reads cannot be quantised here".into())),
        };
        Ok(Value::Bytes(to))
    }

    /// Makes the parts one tensor; a part that cannot be written in place is copied.
    fn join(&mut self, parts: &[usize], name: &str, scale: f32) -> Result<usize, Failure> {
        let [h, w, _] = self.tensors[parts[0]].shape;
        let channels = parts.iter().map(|&p| self.tensors[p].shape[2]).sum();
        let to = self.tensor(name, [h, w, channels], scale)?;
        let mut first = 0;
        for &part in parts {
            let known = &self.tensors[part];
            let fits = known.scale == scale && known.part_of.is_none() && self.input != Some(part);
            let part = if fits { part } else { self.copy(part, &format!("{name}/{first}"), scale)? };
            self.tensors[part].part_of = Some((to, first));
            first += self.tensors[part].shape[2];
        }
        Ok(to)
    }

    fn settle(&mut self, waiting: Waiting, name: &str, scale: f32) -> Result<usize, Failure> {
        let (from, window) = match &waiting {
            Waiting::Convolution { from, window, .. } | Waiting::Pool { from, window, .. } => {
                (*from, *window)
            }
        };
        let Tensor { shape: [h, w, c], scale: given, .. } = self.tensors[from];
        let [oh, ow] = window
            .output([h, w])
            .ok_or_else(|| Reason(format!("the window {:?} does not fit {h}x{w}", window.kernel)))?;
        let name = name.strip_suffix("/q").unwrap_or(name);
        match waiting {
            Waiting::Pool { kind, .. } => {
                let to = self.tensor(name, [oh, ow, c], scale)?;
                let multiplier = given / scale;
                self.steps.push(Step::Pool(Pool { name: name.into(), from, to, window, kind, multiplier }));
                Ok(to)
            }
            Waiting::Convolution { weight, scales, bias, .. } => {
                let to = self.tensor(name, [oh, ow, scales.len()], scale)?;
                let unit = |s: f32| f64::from(given) * f64::from(s);
                let bias: Vec<i32> = match bias {
                    Bias::Steps(bias) => bias,
                    Bias::Real(bias) => bias
                        .iter()
                        .zip(&scales)
                        .map(|(&b, &s)| (f64::from(b) / unit(s)).round_ties_even() as i32)
                        .collect(),
                };
                let multiplier: Vec<f32> =
                    scales.iter().map(|&s| (unit(s) / f64::from(scale)) as f32).collect();
                if multiplier.iter().any(|m| !m.is_finite()) {
                    return Err(Reason("scales whose ratio is not finite".into()));
                }
                let taps = weight.len() / scales.len();
                bounded(&weight, taps, &bias)?;
                let pairs_fit =
                    weight.chunks_exact(taps).all(|row| row.iter().all(|&w| (-63..=63).contains(&w)));
                self.steps.push(Step::Convolution(Convolution {
                    name: name.into(),
                    from,
                    to,
                    window,
                    weight,
                    bias,
                    multiplier,
                    pairs_fit,
                }));
                Ok(to)
            }
        }
    }

    fn dequantise(&mut self, node: &onnx::Node, inputs: &[Value]) -> Result<Value, Failure> {
        match inputs.first() {
            Some(Value::Bytes(tensor)) => {
                let scale = self.scale(inputs)?;
                if scale != self.tensors[*tensor].scale {
                    return Err(Reason("quantised with another scale".into()));
                }
                Ok(Value::Real(*tensor))
            }
            Some(Value::Constant(i)) => {
                let tensor = &self.graph.initializer[*i];
                let scales = self.constant(inputs.get(1))?.f32s()?;
                if scales.iter().any(|s| !s.is_finite() || *s <= 0.0) {
                    return Err(Reason("a scale that is 0, negative or not finite".into()));
                }
                let axis = node.ints("axis").map_or(1, |a| a.first().copied().unwrap_or(1));
                if scales.len() > 1 && axis != 0 {
                    return Err(Reason("weights must have a scale for each output channel".into()));
                }
                if let Some(zero) = inputs.get(2) {
                    let zero = self.constant(Some(zero))?;
                    let zeros = match zero.data_type {
                        Some(data_type::INT8) => zero.i8s()?.iter().all(|&z| z == 0),
                        Some(data_type::INT32) => zero.i32s()?.iter().all(|&z| z == 0),
                        _ => false,
                    };
                    if !zeros {
                        return Err(Reason("weights must be s8 with zero point 0".into()));
                    }
                }
                if !matches!(tensor.data_type, Some(data_type::INT8 | data_type::INT32)) {
                    return Err(Reason("a constant that is neither s8 nor s32".into()));
                }
                Ok(Value::Weights(*i, scales))
            }
            _ => Err(Reason("what it reads is not quantised".into())),
        }
    }

    fn window(node: &onnx::Node, kernel: [usize; 2]) -> Result<Window, Failure> {
        let numbers = |name: &str, count: usize, missing: usize| -> Result<Vec<usize>, Failure> {
            let Some(list) = node.ints(name) else { return Ok(vec![missing; count]) };
            let list: Option<Vec<usize>> =
                list.iter().map(|&v| usize::try_from(v).ok().filter(|&v| v <= 64)).collect();
            list.filter(|l| l.len() == count).ok_or_else(|| Reason(format!("'{name}' is not understood")))
        };
        let (stride, pads) = (numbers("strides", 2, 1)?, numbers("pads", 4, 0)?);
        let auto = node.attribute.iter().find(|a| a.name.as_deref() == Some("auto_pad"));
        if numbers("dilations", 2, 1)? != [1, 1]
            || stride.contains(&0)
            || numbers("ceil_mode", 1, 0)? != [0]
            || auto.is_some_and(|a| a.s.as_deref().is_some_and(|s| s != b"NOTSET"))
        {
            return Err(Reason("dilation, stride 0, ceil_mode or auto_pad".into()));
        }
        let [top, left, bottom, right] = pads[..] else { return Err(Reason("four pads are needed".into())) };
        if top.max(bottom) >= kernel[0] || left.max(right) >= kernel[1] {
            return Err(Reason("padding as wide as the kernel".into()));
        }
        Ok(Window { kernel, stride: [stride[0], stride[1]], padding: [top, left, bottom, right] })
    }

    fn convolution(&mut self, node: &onnx::Node, inputs: &[Value]) -> Result<Value, Failure> {
        if node.ints("group").is_some_and(|g| g != [1]) {
            return Err(Reason("groups".into()));
        }
        if let Some(Value::Constant(_)) = inputs.get(1) {
            return self.point(inputs);
        }
        let (Some(&Value::Real(from)), Some(Value::Weights(i, scales))) = (inputs.first(), inputs.get(1))
        else {
            return Err(Reason("a convolution needs a quantised input and quantised weights".into()));
        };
        let tensor = &self.graph.initializer[*i];
        let (shape, values) = (tensor.shape()?, tensor.i8s()?);
        let &[o, c, kh, kw] = &shape[..] else { return Err(Reason(format!("weights of {shape:?}"))) };
        if c != self.tensors[from].shape[2] || kh * kw == 0 || o == 0 || kh > 64 || kw > 64 {
            return Err(Reason(format!("weights of {shape:?} for {} channels", self.tensors[from].shape[2])));
        }
        let scales = if scales.len() == 1 { vec![scales[0]; o] } else { scales.clone() };
        if scales.len() != o {
            return Err(Reason(format!("{} scales for {o} channels", scales.len())));
        }
        let taps = kh * kw;
        let mut weight = vec![0; values.len()];
        for (n, filter) in values.chunks_exact(c * taps).enumerate() {
            for (k, &w) in filter.iter().enumerate() {
                weight[(n * taps + k % taps) * c + k / taps] = w;
            }
        }
        let given = self.tensors[from].scale;
        let bias = match inputs.get(2) {
            None => Bias::Steps(vec![0; o]),
            Some(Value::Weights(b, units)) => {
                let near = |(u, s): (&f32, &f32)| (u - given * s).abs() <= 1e-4 * u;
                let units = if units.len() == 1 { vec![units[0]; o] } else { units.clone() };
                if units.len() != o || !units.iter().zip(&scales).all(near) {
                    return Err(Reason("the bias must have the scale input · weight".into()));
                }
                Bias::Steps(self.graph.initializer[*b].i32s()?)
            }
            Some(value) => Bias::Real(self.constant(Some(value))?.f32s()?),
        };
        let length = match &bias {
            Bias::Steps(b) => b.len(),
            Bias::Real(b) => b.len(),
        };
        if length != o {
            return Err(Reason(format!("{length} biases for {o} channels")));
        }
        let window = Self::window(node, [kh, kw])?;
        self.waiting.push(Some(Waiting::Convolution { from, window, weight, scales, bias }));
        Ok(Value::Waiting(self.waiting.len() - 1))
    }

    fn pool(&mut self, node: &onnx::Node, inputs: &[Value], kind: PoolKind) -> Result<Value, Failure> {
        let Some(&Value::Real(from)) = inputs.first() else {
            return Err(Reason("what it reads is not quantised".into()));
        };
        let kernel = match node.ints("kernel_shape").as_deref() {
            Some(&[h, w]) if (1..=64).contains(&h) && (1..=64).contains(&w) => [h as usize, w as usize],
            _ => return Err(Reason("a kernel of two sides is needed".into())),
        };
        let window = Self::window(node, kernel)?;
        let padded = window.padding.iter().any(|&p| p > 0);
        if kind == PoolKind::Average && padded && node.ints("count_include_pad").is_some_and(|v| v != [0]) {
            return Err(Reason("the padding is counted".into()));
        }
        self.waiting.push(Some(Waiting::Pool { from, window, kind }));
        Ok(Value::Waiting(self.waiting.len() - 1))
    }

    fn concatenate(&mut self, node: &onnx::Node, inputs: &[Value]) -> Result<Value, Failure> {
        if node.ints("axis").as_deref() != Some(&[1]) || inputs.is_empty() {
            return Err(Reason("only channels can be concatenated".into()));
        }
        let mut parts = Vec::new();
        for value in inputs {
            match value {
                Value::Real(t) => parts.push(*t),
                Value::Parts(more) => parts.extend(more),
                _ => return Err(Reason("what it reads is not quantised".into())),
            }
        }
        let side = |t: usize| [self.tensors[t].shape[0], self.tensors[t].shape[1]];
        if parts.iter().any(|&t| side(t) != side(parts[0])) {
            return Err(Reason("parts of different sizes".into()));
        }
        Ok(Value::Parts(parts))
    }

    /// The layer number at which the head goes on; features become its start.
    fn head_layer(&mut self, from: &Value, layer: Layer) -> Result<Value, Failure> {
        let at = match from {
            Value::Real(t) if self.features.is_none_or(|f| f == *t) && self.head.is_empty() => {
                self.features = Some(*t);
                0
            }
            Value::Head(n) => *n,
            _ => return Err(Reason("the head must start at one tensor".into())),
        };
        if at != self.head.len() {
            return Err(Reason("the head branches".into()));
        }
        self.head.push(layer);
        Ok(Value::Head(self.head.len()))
    }

    /// Rows of the head's value so far, where that is known.
    fn width(&self) -> usize {
        let [h, w, c] = self.features.map_or([0; 3], |f| self.tensors[f].shape);
        self.head.iter().fold(c * h * w, |width, layer| match layer {
            Layer::Mean => width / (h * w).max(1),
            Layer::Dense(_, b) => b.len(),
            Layer::Point(_, b) => b.len() * h * w,
            Layer::Relu | Layer::Turn => width,
        })
    }

    fn point(&mut self, inputs: &[Value]) -> Result<Value, Failure> {
        let weight = self.constant(inputs.get(1))?;
        let (shape, values) = (weight.shape()?, weight.f32s()?);
        let bias = self.constant(inputs.get(2))?.f32s()?;
        let channels = if let Some(Value::Real(t)) = inputs.first() { self.tensors[*t].shape[2] } else { 0 };
        if shape != [bias.len(), channels, 1, 1] || bias.is_empty() {
            return Err(Reason(format!("f32 weights of {shape:?}: only a head's first 1x1 may be f32")));
        }
        self.head_layer(&inputs[0], Layer::Point(values, bias))
    }

    fn flatten(&mut self, node: &onnx::Node, inputs: &[Value]) -> Result<Value, Failure> {
        match inputs.first() {
            Some(Value::Head(n)) if node.ints("axis").is_none_or(|a| a == [1]) => Ok(Value::Head(*n)),
            _ => Err(Reason("only the head is flattened".into())),
        }
    }

    fn dense(&mut self, node: &onnx::Node, inputs: &[Value]) -> Result<Value, Failure> {
        let turned =
            node.ints("transB").is_some_and(|t| t == [1]) && node.ints("transA").is_none_or(|t| t == [0]);
        let weight = self.constant(inputs.get(1))?;
        let (shape, values) = (weight.shape()?, weight.f32s()?);
        let bias = self.constant(inputs.get(2))?.f32s()?;
        if !turned || bias.is_empty() || shape != [bias.len(), self.width()] {
            return Err(Reason(format!("weights of {shape:?} for {} values", self.width())));
        }
        self.head_layer(&inputs[0], Layer::Dense(values, bias))
    }

    fn finish(self) -> Result<Plan, PlanError> {
        let lacks = |what: &str| PlanError::Graph(format!("lacks {what}"));
        let input = self.input.ok_or_else(|| lacks("a quantised picture"))?;
        let features = self.features.ok_or_else(|| lacks("a head"))?;
        let logits = self.values.get("logits");
        if !matches!(logits, Some(Value::Head(n)) if *n == self.head.len()) || self.width() != 4 {
            return Err(lacks("an output 'logits' of four values"));
        }
        if self.tensors[features].shape != [8, 8, 2048] || self.tensors[input].shape != [299, 299, 1] {
            return Err(lacks("a grey picture of 299x299 or features of 8x8x2048"));
        }
        Ok(Plan {
            tensors: self.tensors,
            steps: self.steps,
            input,
            features,
            head: Head { layers: self.head },
            arena: 0,
            zeros: 0,
        })
    }
}

/// No sum, in whatever order it is made, leaves 32 bits.
fn bounded(weight: &[i8], taps: usize, bias: &[i32]) -> Result<(), Failure> {
    for (row, &bias) in weight.chunks_exact(taps).zip(bias) {
        let all: i64 = row.iter().map(|&w| 255 * i64::from(w).abs()).sum();
        if all + i64::from(bias).abs() > i64::from(i32::MAX) {
            return Err(Reason("sums may leave 32 bits".into()));
        }
    }
    Ok(())
}

enum Failure {
    Reason(String),
    Tensor(onnx::TensorError),
}
use Failure::Reason;

impl From<onnx::TensorError> for Failure {
    fn from(error: onnx::TensorError) -> Self {
        Failure::Tensor(error)
    }
}
