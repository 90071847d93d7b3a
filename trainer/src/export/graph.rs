//! The network as an ONNX graph: in f32 for calibration and reference, in int8 (QDQ) for the package. One walk writes
//! both, so they cannot differ in shape.
//!
//! Names: a convolution's activation is called like the convolution (`Mixed_5b.branch5x5_1`), a block's output like the
//! block; the last block's is the output `features`. In QDQ form `NAME/q` are the quantised bytes.

use super::fold::{Checkpoint, Folded, HIDDEN, Head};
use super::quantise::{bias_shift, quantise};
use crate::network::{Block, Conv, Node, convs, inception_v3};
use fovea::engine::{FEATURE_CHANNELS, FEATURE_SIDE};
use fovea::model::onnx;
use fovea::prepare::SIDE;
use std::collections::BTreeMap;

/// Scale of the input: the byte itself.
pub const INPUT_SCALE: f32 = 1.0 / 255.0;

/// Activation scales by name: of `image`, of each convolution inside a block, of each block's output (shared by all of
/// its branches).
pub type Scales = BTreeMap<String, f32>;

/// Mean of each channel by name of the activation.
pub type Means = BTreeMap<String, Vec<f64>>;

/// The int8 form of a network.
#[derive(Clone, Copy, Debug)]
pub struct Quantisation<'a> {
    /// Activation scales.
    pub scales: &'a Scales,
    /// Where given, what rounding the weights adds on average is taken off the biases.
    pub means: Option<&'a Means>,
}

/// The last block: its output is the graph's output `features`.
const LAST: &str = "Mixed_7c";

/// Names of the activations that need a scale, in order, `image` left out.
pub fn scaled() -> Vec<String> {
    fn inner(nodes: &[Node], ends_block: bool, out: &mut Vec<String>) {
        for (i, node) in nodes.iter().enumerate() {
            let last = ends_block && i + 1 == nodes.len();
            match node {
                Node::Conv(conv) if !last => out.push(conv.name.clone()),
                Node::Fork(branches) => branches.iter().for_each(|branch| inner(branch, last, out)),
                _ => {}
            }
        }
    }
    let mut names = Vec::new();
    for block in inception_v3(1) {
        let forks = block.forks();
        inner(&block.nodes, forks, &mut names);
        if forks {
            names.push(block.name.into());
        }
    }
    names
}

/// The network in f32. With `expose` its outputs are, after `logits` and `features`, everything that calibration looks
/// at: see [`exposed`].
pub fn float(checkpoint: &Checkpoint, expose: bool) -> onnx::Model {
    Builder::new(checkpoint, None).build(expose)
}

/// The network in int8 as QuantizeLinear and DequantizeLinear around f32 operators; `expose` as for [`float`].
pub fn int8(checkpoint: &Checkpoint, quantisation: Quantisation<'_>, expose: bool) -> onnx::Model {
    Builder::new(checkpoint, Some(quantisation)).build(expose)
}

/// Names of a graph's outputs after `logits` and `features` when it is built with `expose`: every activation that needs
/// a scale (the last block's is `features` itself), and the pools before convolutions, whose means the biases need.
pub fn exposed() -> Vec<String> {
    let mut names = scaled();
    names.retain(|name| name != LAST);
    for block in inception_v3(1) {
        for pair in block.nodes.windows(2) {
            if let [Node::Conv(conv), Node::MaxPool] = pair {
                names.push(format!("{}.pool", conv.name));
            }
        }
        if let Some(Node::Fork(branches)) = block.nodes.last()
            && branches.iter().any(|branch| branch[0] == Node::AveragePool)
        {
            names.push(format!("{}.pool", block.name));
        }
    }
    names
}

/// Channels of every output that [`exposed`] names, and of `features`.
pub fn channels() -> BTreeMap<String, usize> {
    let mut channels = BTreeMap::from([("features".to_owned(), FEATURE_CHANNELS)]);
    let mut input = 1;
    for block in inception_v3(1) {
        for conv in convs(&block.nodes) {
            channels.insert(conv.name.clone(), conv.output);
            channels.insert(format!("{}.pool", conv.name), conv.output);
        }
        channels.insert(format!("{}.pool", block.name), input);
        channels.insert(block.name.into(), block.channels);
        input = block.channels;
    }
    channels
}

/// An activation on its way through the graph.
#[derive(Clone, Debug)]
struct Wire {
    /// The f32 tensor.
    name: String,
    /// Under which name its scale stands.
    scale: String,
}

struct Builder<'a> {
    checkpoint: &'a Checkpoint,
    quantisation: Option<Quantisation<'a>>,
    graph: onnx::Graph,
}

impl<'a> Builder<'a> {
    fn new(checkpoint: &'a Checkpoint, quantisation: Option<Quantisation<'a>>) -> Self {
        Self { checkpoint, quantisation, graph: onnx::Graph::default() }
    }

    fn node(&mut self, op: &str, input: &[&str], output: &str, attributes: Vec<onnx::Attribute>) {
        self.graph.node.push(onnx::Node::new(op, input, output, attributes));
    }

    fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        self.graph.initializer.push(onnx::Tensor::of_f32(name, dims, values));
    }

    fn scale(&self, name: &str) -> f32 {
        // Scales come from `scaled()`; one that is left out would be a bug of the caller, seen at once as NaN.
        self.quantisation.and_then(|q| q.scales.get(name).copied()).unwrap_or(f32::NAN)
    }

    /// QuantizeLinear and DequantizeLinear from `raw` to `name`; in f32 only the names differ and no node is needed.
    fn requantise(&mut self, raw: &str, name: &str, scale: &str) {
        let scale_name = format!("{scale}.scale");
        if !self.graph.initializer.iter().any(|t| t.name.as_deref() == Some(&scale_name)) {
            let value = self.scale(scale);
            self.floats(&scale_name, &[], &[value]);
        }
        let bytes = format!("{name}/q");
        self.node("QuantizeLinear", &[raw, &scale_name, "zero"], &bytes, vec![]);
        self.node("DequantizeLinear", &[&bytes, &scale_name, "zero"], name, vec![]);
    }

    /// Where to write what becomes `name`: in QDQ form a raw tensor first.
    fn raw(&self, name: &str) -> String {
        if self.quantisation.is_some() { format!("{name}/f") } else { name.into() }
    }

    fn conv(&mut self, conv: &Conv, from: &Wire, name: &str, scale: &str) {
        let folded = &self.checkpoint.convs[&conv.name];
        let (weight, bias) = (format!("{}.weight", conv.name), format!("{}.bias", conv.name));
        match self.quantisation {
            None => {
                self.floats(&weight, &folded.shape, &folded.weight);
                self.floats(&bias, &folded.shape[..1], &folded.bias);
            }
            Some(quantisation) => self.quantised_weights(folded, quantisation, from, &weight, &bias),
        }
        let [ph, pw] = conv.padding.map(|p| p as i64);
        let attributes = vec![
            onnx::Attribute::ints("dilations", &[1, 1]),
            onnx::Attribute::int("group", 1),
            onnx::Attribute::ints("kernel_shape", &conv.kernel.map(|k| k as i64)),
            onnx::Attribute::ints("pads", &[ph, pw, ph, pw]),
            onnx::Attribute::ints("strides", &[conv.stride as i64; 2]),
        ];
        let sum = format!("{}/sum", conv.name);
        self.node("Conv", &[&from.name, &weight, &bias], &sum, attributes);
        let raw = self.raw(name);
        self.node("Relu", &[&sum], &raw, vec![]);
        if self.quantisation.is_some() {
            self.requantise(&raw, name, scale);
        }
    }

    /// Initialisers and DequantizeLinear of a convolution's weights (per output channel) and bias.
    fn quantised_weights(
        &mut self,
        folded: &Folded,
        quantisation: Quantisation<'_>,
        from: &Wire,
        weight: &str,
        bias: &str,
    ) {
        let input_scale = self.scale(&from.scale);
        let mut quantised = quantise(folded, input_scale);
        if let Some(mean) = quantisation.means.and_then(|means| means.get(&from.name)) {
            let shift = bias_shift(folded, &quantised, mean);
            for ((q, s), shift) in quantised.bias.iter_mut().zip(&quantised.bias_scale).zip(shift) {
                *q -= (shift / s).round_ties_even() as i32;
            }
        }
        let channels = &folded.shape[..1];
        let zeros = vec![0; folded.shape[0]];
        let name = |of: &str, part: &str| format!("{of}_{part}");
        self.graph.initializer.extend([
            onnx::Tensor::of_i8(&name(weight, "q"), &folded.shape, &quantised.weight),
            onnx::Tensor::of_f32(&name(weight, "scale"), channels, &quantised.weight_scale),
            onnx::Tensor::of_i8(&name(weight, "zero"), channels, &vec![0; folded.shape[0]]),
            onnx::Tensor::of_i32(&name(bias, "q"), channels, &quantised.bias),
            onnx::Tensor::of_f32(&name(bias, "scale"), channels, &quantised.bias_scale),
            onnx::Tensor::of_i32(&name(bias, "zero"), channels, &zeros),
        ]);
        for tensor in [weight, bias] {
            let inputs = [name(tensor, "q"), name(tensor, "scale"), name(tensor, "zero")];
            let axis = vec![onnx::Attribute::int("axis", 0)];
            self.node("DequantizeLinear", &inputs.each_ref().map(String::as_str), tensor, axis);
        }
    }

    fn max_pool(&mut self, from: &Wire, name: &str, scale: &str) {
        let attributes = vec![
            onnx::Attribute::ints("kernel_shape", &[3, 3]),
            onnx::Attribute::ints("pads", &[0; 4]),
            onnx::Attribute::ints("strides", &[2, 2]),
        ];
        let raw = self.raw(name);
        self.node("MaxPool", &[&from.name], &raw, attributes);
        if self.quantisation.is_some() {
            self.requantise(&raw, name, scale);
        }
    }

    /// 3x3, stride 1; the padding is not counted. Keeps the scale of its input: an average leaves its range never.
    fn average_pool(&mut self, from: &Wire, name: &str) {
        let attributes = vec![
            onnx::Attribute::int("count_include_pad", 0),
            onnx::Attribute::ints("kernel_shape", &[3, 3]),
            onnx::Attribute::ints("pads", &[1; 4]),
            onnx::Attribute::ints("strides", &[1, 1]),
        ];
        let raw = self.raw(name);
        self.node("AveragePool", &[&from.name], &raw, attributes);
        if self.quantisation.is_some() {
            self.requantise(&raw, name, &from.scale);
        }
    }

    /// Writes `nodes` and returns what they end in: one wire, or several that await concatenation. `block` is set where
    /// the last node is a branch's end: its output has the block's scale.
    fn steps(&mut self, nodes: &[Node], from: Wire, block: &str, ends: bool) -> Vec<Wire> {
        let mut wires = vec![from];
        for (i, node) in nodes.iter().enumerate() {
            let from = wires[0].clone();
            let shared = ends && i + 1 == nodes.len();
            wires = match node {
                Node::Conv(conv) => {
                    let scale = if shared { block } else { &conv.name };
                    self.conv(conv, &from, &conv.name, scale);
                    vec![Wire { name: conv.name.clone(), scale: scale.into() }]
                }
                Node::MaxPool => {
                    let scale = if shared { block } else { &from.scale };
                    let name = format!("{}.pool", if shared { block } else { &from.name });
                    self.max_pool(&from, &name, scale);
                    vec![Wire { name, scale: scale.into() }]
                }
                Node::AveragePool => {
                    let name = format!("{block}.pool");
                    self.average_pool(&from, &name);
                    vec![Wire { name, scale: from.scale }]
                }
                Node::Fork(branches) => {
                    branches.iter().flat_map(|branch| self.steps(branch, from.clone(), block, true)).collect()
                }
            };
        }
        wires
    }

    fn block(&mut self, block: &Block, from: Wire) -> Wire {
        let ends = block.forks();
        let mut wires = self.steps(&block.nodes, from, block.name, ends);
        if !ends {
            return wires.swap_remove(0);
        }
        let name = if block.name == LAST { "features" } else { block.name };
        let raw = self.raw(name);
        let inputs: Vec<&str> = wires.iter().map(|wire| wire.name.as_str()).collect();
        self.node("Concat", &inputs, &raw, vec![onnx::Attribute::int("axis", 1)]);
        if self.quantisation.is_some() {
            // The bytes are the branches' own; said once more so that a runtime sees an int8 concatenation.
            self.requantise(&raw, name, block.name);
        }
        Wire { name: name.into(), scale: block.name.into() }
    }

    fn head(&mut self) {
        let dense = |builder: &mut Self, from: &str, weight: &str, bias: &str, to: &str| {
            builder.node("Gemm", &[from, weight, bias], to, vec![onnx::Attribute::int("transB", 1)]);
        };
        let flatten = vec![onnx::Attribute::int("axis", 1)];
        match &self.checkpoint.head {
            Head::Gap { fc1, fc1_bias, fc2, fc2_bias } => {
                self.floats("head.fc1.weight", &[HIDDEN, FEATURE_CHANNELS], fc1);
                self.floats("head.fc1.bias", &[HIDDEN], fc1_bias);
                self.floats("head.fc2.weight", &[4, HIDDEN], fc2);
                self.floats("head.fc2.bias", &[4], fc2_bias);
                self.node("GlobalAveragePool", &["features"], "head.mean", vec![]);
                self.node("Flatten", &["head.mean"], "head.flat", flatten);
                dense(self, "head.flat", "head.fc1.weight", "head.fc1.bias", "head.sum");
                self.node("Relu", &["head.sum"], "head.hidden", vec![]);
                dense(self, "head.hidden", "head.fc2.weight", "head.fc2.bias", "logits");
            }
            Head::Conv { conv, conv_bias, fc, fc_bias } => {
                self.floats("head.conv.weight", &[HIDDEN, FEATURE_CHANNELS, 1, 1], conv);
                self.floats("head.conv.bias", &[HIDDEN], conv_bias);
                self.floats("head.fc.weight", &[4, FEATURE_SIDE * FEATURE_SIDE * HIDDEN], fc);
                self.floats("head.fc.bias", &[4], fc_bias);
                let kernel = vec![onnx::Attribute::ints("kernel_shape", &[1, 1])];
                self.node("Conv", &["features", "head.conv.weight", "head.conv.bias"], "head.sum", kernel);
                self.node("Relu", &["head.sum"], "head.hidden", vec![]);
                // Weights of the dense layer run over rows, columns, channels, as Keras flattens.
                let perm = vec![onnx::Attribute::ints("perm", &[0, 2, 3, 1])];
                self.node("Transpose", &["head.hidden"], "head.turned", perm);
                self.node("Flatten", &["head.turned"], "head.flat", flatten);
                dense(self, "head.flat", "head.fc.weight", "head.fc.bias", "logits");
            }
        }
    }

    fn build(mut self, expose: bool) -> onnx::Model {
        let mut wire = Wire { name: "image".into(), scale: "image".into() };
        if self.quantisation.is_some() {
            self.graph.initializer.push(onnx::Tensor::of_u8("zero", &[], &[0]));
            wire.name = "pixels".into();
            self.requantise("image", "pixels", "image");
        }
        for block in inception_v3(1) {
            wire = self.block(&block, wire);
        }
        self.head();
        let output = onnx::ValueInfo::of_f32;
        self.graph.output = vec![
            output("logits", &[1, 4]),
            output("features", &[1, FEATURE_CHANNELS, FEATURE_SIDE, FEATURE_SIDE]),
        ];
        if expose {
            // Without a shape: only our own runner reads these.
            self.graph
                .output
                .extend(exposed().into_iter().map(|name| onnx::ValueInfo { name: Some(name), r#type: None }));
        }
        self.graph.input = vec![output("image", &[1, 1, SIDE, SIDE])];
        self.graph.name = Some("inception_v3".into());
        onnx::Model {
            ir_version: Some(8),
            producer_name: Some("fovea-train".into()),
            producer_version: Some(env!("CARGO_PKG_VERSION").into()),
            doc_string: None,
            graph: Some(self.graph),
            opset_import: vec![onnx::OperatorSet { domain: Some(String::new()), version: Some(13) }],
            metadata_props: vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing;
    use std::collections::BTreeSet;

    #[test]
    fn names_of_scales() {
        let names = scaled();
        // 94 convolutions less the branch ends (4 a block; 3 and 2 in the reductions' convolutions; 6 in 7b and 7c),
        // and 11 blocks.
        assert_eq!(names.len(), 94 - (3 * 4 + 2 + 4 * 4 + 2 + 2 * 6) + 11);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert!(names.contains(&"Mixed_7c".into()) && !names.contains(&"Stem".into()));
        assert!(
            names.contains(&"Mixed_7b.branch3x3_1".into())
                && !names.contains(&"Mixed_7b.branch3x3_2a".into())
        );
    }

    // Every value that a node reads was made before, nothing is made twice, and every constant is read.
    #[test]
    fn graphs_are_whole() {
        let scales: Scales = scaled().into_iter().chain(["image".into()]).map(|name| (name, 0.05)).collect();
        for kind in ["gap", "conv"] {
            let checkpoint = testing::checkpoint(kind);
            let quantisation = Quantisation { scales: &scales, means: None };
            for model in [float(&checkpoint, true), int8(&checkpoint, quantisation, true)] {
                let graph = model.graph.unwrap();
                let constants: BTreeSet<String> =
                    graph.initializer.iter().map(|t| t.name.clone().unwrap()).collect();
                assert_eq!(constants.len(), graph.initializer.len());
                let mut known = constants.clone();
                let mut read = BTreeSet::new();
                known.insert("image".into());
                for node in &graph.node {
                    for input in &node.input {
                        assert!(known.contains(input), "{input} is read before it is made");
                        read.insert(input.clone());
                    }
                    assert!(known.insert(node.output[0].clone()), "{} is made twice", node.output[0]);
                }
                assert!(graph.output.iter().all(|o| known.contains(o.name.as_ref().unwrap())));
                assert!(constants.is_subset(&read));
                assert!(
                    graph.initializer.iter().filter(|t| t.data_type == Some(1)).all(|t| t
                        .f32s()
                        .unwrap()
                        .iter()
                        .all(|v| v.is_finite()))
                );
            }
        }
    }
}
