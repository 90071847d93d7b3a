//! From the ONNX graph to the plan: one walk over the nodes, which ONNX keeps in an order that can run.
//!
//! What is lowered, exactly as QuantizeLinear and DequantizeLinear define it:
//! - networks as `fovea-train`, onnxruntime's `quantize_static` (QDQ) and NNCF write them: convolutions (no groups, no
//!   dilation) with or without Relu, maximum and average pools, concatenations by channel, a head of global mean, 1x1
//!   convolution, Gemm and Relu that may itself be quantised;
//! - activations u8 with zero point 0, or s8 with -128, which is the same; the picture may have any scale and zero point,
//!   the latter only where the first convolution has no padding;
//! - weights s8 or u8 of any range and zero point that fit s8 together, with a scale for the tensor or each channel;
//! - biases s32 of scale input · weight, or f32.
//!
//! Parts of a concatenation that has no scale of its own and whose parts differ take the largest of their scales: the one
//! place where rounding is added. Where a graph gives `features` in f32, they are what the head reads: quantised.

mod constants;
mod filter;
mod head;
mod network;
mod values;

use super::{Head, Plan, PlanError, PoolKind};
use crate::model::onnx;
use constants::Weights;
use network::{Network, Real};
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use values::{Failure, Failure::Reason, Value};

/// The largest side and number of channels that a tensor may have.
const LIMIT: usize = 1 << 14;
/// The most nodes of a graph.
const NODES: usize = 1 << 13;

struct Lowering<'a> {
    constants: Vec<onnx::Tensor>,
    values: HashMap<String, Value>,
    network: Network,
    head: head::Builder,
    /// Names of the features in f32 and in bytes.
    features: HashSet<&'a str>,
    picture: [usize; 3],
}

/// Lowers a model's bytes, whatever the size of its picture and features.
pub fn lower(bytes: &Bytes) -> Result<Plan, PlanError> {
    let model = onnx::Model::read(bytes).map_err(PlanError::Decode)?;
    let mut graph = model.graph.ok_or_else(|| PlanError::Decode("no graph in it".into()))?;
    if graph.node.len() > NODES {
        return Err(PlanError::Graph(format!("has {} nodes, more than {NODES}", graph.node.len())));
    }
    let constants = std::mem::take(&mut graph.initializer);
    let graph = &graph;
    let mut values = HashMap::new();
    for (i, tensor) in constants.iter().enumerate() {
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
    let mut lowering = Lowering {
        constants,
        values,
        network: Network::default(),
        head: head::Builder::default(),
        features: features(graph),
        picture: picture_shape(input)?,
    };
    for node in &graph.node {
        lowering.node(node)?;
    }
    lowering.finish()
}

/// The output `features`, and where it is dequantised the bytes behind it.
fn features(graph: &onnx::Graph) -> HashSet<&str> {
    let mut names = HashSet::new();
    if graph.output.iter().any(|o| o.name.as_deref() == Some("features")) {
        names.insert("features");
        let made = graph.node.iter().find(|n| n.output.first().is_some_and(|o| o == "features"));
        if let Some(node) = made.filter(|n| n.op_type.as_deref() == Some("DequantizeLinear")) {
            names.extend(node.input.first().map(String::as_str));
        }
    }
    names
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

impl<'a> Lowering<'a> {
    fn node(&mut self, node: &'a onnx::Node) -> Result<(), PlanError> {
        let op = node.op_type.as_deref().unwrap_or_default();
        let fail = |reason: String| PlanError::Node {
            node: node.name.clone().unwrap_or_else(|| node.output.first().cloned().unwrap_or_default()),
            op: op.into(),
            reason,
        };
        let [output] = &node.output[..] else { return Err(fail("has several outputs".into())) };
        let mut inputs = Vec::new();
        for name in &node.input {
            inputs.push(match name.as_str() {
                "" => Value::Absent,
                name => self
                    .values
                    .get(name)
                    .cloned()
                    .ok_or_else(|| fail(format!("reads '{name}', which nothing before it makes")))?,
            });
        }
        let value = self.value(op, node, &inputs, output).map_err(|error| match error {
            Failure::Reason(reason) => fail(reason),
            Failure::Tensor(error) => PlanError::Tensor(error),
        })?;
        if self.values.insert(output.clone(), value).is_some() {
            return Err(fail(format!("makes '{output}' a second time")));
        }
        Ok(())
    }

    fn value(
        &mut self,
        op: &str,
        node: &'a onnx::Node,
        inputs: &[Value],
        output: &'a str,
    ) -> Result<Value, Failure> {
        let first = inputs.first().unwrap_or(&Value::Absent);
        match op {
            "Constant" => {
                let given = node.attribute.iter().find(|a| a.name.as_deref() == Some("value"));
                let tensor = given.and_then(|a| a.t.as_ref());
                self.constants.push(tensor.cloned().ok_or_else(|| Reason("it has no tensor".into()))?);
                Ok(Value::Constant(self.constants.len() - 1))
            }
            "Identity" => Ok(first.clone()),
            "QuantizeLinear" => self.quantise(node, inputs, output),
            "DequantizeLinear" => self.dequantise(node, inputs),
            "Conv" => self.convolution(node, inputs, output),
            "MaxPool" => self.pool(node, first, PoolKind::Max, output),
            "AveragePool" => self.pool(node, first, PoolKind::Average, output),
            // Every quantised activation has its zero point at 0, so that quantising is a ReLU.
            "Relu" if matches!(first, Value::Real(_)) => Ok(first.clone()),
            "Relu" => self.head.layer(first, super::head::Layer::Relu, &mut self.network),
            "Clip" => self.clip(node, inputs),
            "Concat" => self.concatenate(node, inputs, output),
            "GlobalAveragePool" => self.head.mean(first, &mut self.network),
            "Flatten" if node.ints("axis").is_none_or(|a| a == [1]) => {
                self.head.flatten(first, &mut self.network)
            }
            "Transpose" if node.ints("perm").as_deref() == Some(&[0, 2, 3, 1]) => {
                self.head.turn(first, &mut self.network)
            }
            "Gemm" => self.dense(node, inputs),
            _ => Err(Reason("this operator is not known here".into())),
        }
    }

    fn quantise(&mut self, node: &'a onnx::Node, inputs: &[Value], name: &'a str) -> Result<Value, Failure> {
        let grid = self.grid(inputs)?;
        let reads = node.input.first().map_or("", String::as_str);
        match &inputs[0] {
            Value::Image => Ok(Value::Bytes(self.network.picture(name, self.picture, &grid)?)),
            Value::Head(n) => {
                let layer = super::head::Layer::Steps(grid);
                self.head.layer(&Value::Head(*n), layer, &mut self.network).map(|_| Value::HeadBytes(n + 1))
            }
            Value::Real(real) => {
                if grid.zero != grid.low || grid.high - grid.low != 255.0 {
                    return Err(Reason(
                        "an activation must be u8 with zero point 0 or s8 with zero point -128".into(),
                    ));
                }
                let tensor = self.network.settle(*real, grid.scale, Some(name))?;
                if self.features.contains(name) || self.features.contains(reads) {
                    self.head.start_at(tensor)?;
                }
                Ok(Value::Bytes(tensor))
            }
            _ => Err(Reason("what it reads cannot be quantised here".into())),
        }
    }

    fn dequantise(&mut self, node: &onnx::Node, inputs: &[Value]) -> Result<Value, Failure> {
        match inputs.first() {
            Some(Value::Bytes(tensor)) => {
                let grid = self.grid(inputs)?;
                if !self.network.is_on(*tensor, &grid) {
                    return Err(Reason("quantised with another scale or zero point".into()));
                }
                Ok(Value::Real(self.network.real(Real::Tensor(*tensor))?))
            }
            Some(Value::HeadBytes(n)) => {
                if !self.head.is_on(*n, &self.grid(inputs)?) {
                    return Err(Reason("quantised with another scale or zero point".into()));
                }
                Ok(Value::Head(*n))
            }
            Some(Value::Constant(i)) => {
                let scales = self.constant(inputs.get(1))?;
                let zeros = match inputs.get(2) {
                    None | Some(Value::Absent) => None,
                    zeros => Some(self.constant(zeros)?),
                };
                let axis = node.ints("axis").map_or(1, |a| a.first().copied().unwrap_or(1));
                Ok(Value::Weights(Rc::new(Weights::new(&self.constants[*i], *i, scales, zeros, axis)?)))
            }
            _ => Err(Reason("what it reads is not quantised".into())),
        }
    }

    fn concatenate(&mut self, node: &onnx::Node, inputs: &[Value], name: &str) -> Result<Value, Failure> {
        if node.ints("axis").as_deref() != Some(&[1]) || inputs.is_empty() {
            return Err(Reason("only channels can be concatenated".into()));
        }
        let parts: Option<Vec<usize>> =
            inputs.iter().map(|value| if let Value::Real(r) = value { Some(*r) } else { None }).collect();
        let parts = parts.ok_or_else(|| Reason("what it reads is not of the quantised network".into()))?;
        Ok(Value::Real(self.network.real(Real::Concat { name: name.into(), parts })?))
    }

    fn clip(&mut self, node: &onnx::Node, inputs: &[Value]) -> Result<Value, Failure> {
        let limit = |place: usize, name: &str, missing: f32| match inputs.get(place) {
            None | Some(Value::Absent) => Ok(node.float(name).unwrap_or(missing)),
            value => self.number(value),
        };
        let (low, high) = (limit(1, "min", f32::NEG_INFINITY)?, limit(2, "max", f32::INFINITY)?);
        match inputs.first() {
            Some(&Value::Real(real)) if low <= 0.0 && high > 0.0 => {
                Ok(Value::Real(self.network.real(Real::Clip { of: real, high })?))
            }
            _ => Err(Reason(format!(
                "a cut to {low}..{high}; only one from 0 in the quantised network is known"
            ))),
        }
    }

    fn finish(mut self) -> Result<Plan, PlanError> {
        let lacks = |what: &str| PlanError::Graph(format!("lacks {what}"));
        let picture = self.network.picture.take().ok_or_else(|| lacks("a quantised picture"))?;
        let features = self.head.start().ok_or_else(|| lacks("a head"))?;
        let ends = matches!(self.values.get("logits"), Some(Value::Head(n)) if *n == self.head.layers.len());
        if !ends || self.head.values() != 4 {
            return Err(lacks("an output 'logits' of four values"));
        }
        let (tensors, steps) = self.network.finish()?;
        Ok(Plan {
            tensors,
            steps,
            waves: Vec::new(),
            input: picture.tensor,
            levels: picture.levels,
            features,
            head: Head { layers: self.head.layers },
            arena: 0,
            zeros: 0,
        })
    }
}
