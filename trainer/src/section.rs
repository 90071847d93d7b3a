//! A run of blocks and a head as a burn module, between a cut and the logits.

use crate::checkpoint::{Weights, WeightsError};
use crate::network::{BN_EPSILON, Block, Conv, Node, convs, inception_v3};
use crate::nn::{Layout, Pool, Window};
use crate::quantise_aware::{Exact, Tap};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData, activation::relu};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::str::FromStr;

/// Where the network is cut: what lies before is frozen and computed once, what lies behind is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut(usize);

/// No block has this name.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no cut: write Input, Stem, Mixed_5b, 5c, 5d, 6a to 6e, or Mixed_7a, 7b, 7c")]
pub struct UnknownCut(String);

impl Cut {
    /// The frozen blocks.
    pub fn frozen(self) -> Vec<Block> {
        inception_v3(3).drain(..self.0).collect()
    }

    /// The trained blocks.
    pub fn trained(self) -> Vec<Block> {
        inception_v3(3).drain(self.0..).collect()
    }

    /// Shape at the cut: rows, columns, channels.
    pub fn shape(self) -> [usize; 3] {
        match self.frozen().last() {
            Some(block) => [block.side, block.side, block.channels],
            None => [fovea::prepare::SIDE, fovea::prepare::SIDE, 1],
        }
    }

    /// The name of the last frozen block, or `Input`.
    pub fn name(self) -> &'static str {
        self.frozen().last().map_or("Input", |block| block.name)
    }
}

impl FromStr for Cut {
    type Err = UnknownCut;
    fn from_str(text: &str) -> Result<Self, UnknownCut> {
        if text.eq_ignore_ascii_case("input") {
            return Ok(Cut(0));
        }
        inception_v3(3)
            .iter()
            .position(|b| b.name.eq_ignore_ascii_case(text) || b.name.trim_start_matches("Mixed_") == text)
            .map(|i| Cut(i + 1))
            .ok_or_else(|| UnknownCut(text.into()))
    }
}

/// The kind of head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum HeadKind {
    /// Global average, dense 64, ReLU, dense 4.
    Gap,
    /// 1x1 convolution to 64, batch norm, ReLU, dropout, dense 4 over all positions.
    Conv,
}

impl HeadKind {
    /// The name in files.
    pub fn name(self) -> &'static str {
        if self == HeadKind::Gap { "gap" } else { "conv" }
    }

    /// Inputs of the last dense layer.
    fn width(self) -> usize {
        if self == HeadKind::Gap { 64 } else { 64 * 64 }
    }
}

/// Weight `[output, kernel row · kernel column · input]` and shift (the batch norm's beta less mean · scale).
#[derive(Module, Debug)]
pub struct ConvParams {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

/// The two layers of a head.
#[derive(Module, Debug)]
pub struct HeadParams {
    hidden: Param<Tensor<2>>,
    hidden_bias: Param<Tensor<1>>,
    dense: Param<Tensor<2>>,
    dense_bias: Param<Tensor<1>>,
}

/// All that is trained.
#[derive(Module, Debug)]
pub struct Params {
    convs: Vec<ConvParams>,
    head: HeadParams,
}

/// Running statistics of the `conv` head's batch norm.
#[derive(Clone, Debug)]
pub struct Norm {
    mean: Vec<f32>,
    variance: Vec<f32>,
}

/// Blocks behind a cut, with what stays fixed beside the parameters.
#[derive(Clone, Debug)]
pub struct Section {
    blocks: Vec<Block>,
    /// Batch norm's `1 / sqrt(variance + epsilon)` (times gamma) of each convolution; frozen.
    scales: Vec<Tensor<1>>,
    layout: Layout,
    device: Device,
    /// The kind of head.
    pub head: HeadKind,
}

/// `[O, I, kh, kw]` to `[O, kh, kw, I]`, or back with the sizes given in the order of the source.
fn turn(values: &[f32], [o, a, b, c]: [usize; 4], back: bool) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for n in 0..o {
        for i in 0..a {
            for y in 0..b {
                for x in 0..c {
                    // Forward: (i, y, x) are (I, kh, kw). Back: they are (kh, kw, I).
                    let to = if back { (x * a + i) * b + y } else { (y * c + x) * a + i };
                    out[n * a * b * c + to] = values[((n * a + i) * b + y) * c + x];
                }
            }
        }
    }
    out
}

fn given<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn list<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap_or_default()
}

/// A parameter whose identity is its number, so that an optimizer's state finds it again in another run.
fn numbered<const D: usize>(id: &mut u64, value: Tensor<D>) -> Param<Tensor<D>> {
    *id += 1;
    let mut param = Param::from_tensor(value);
    param.id = (*id).into();
    param
}

/// A convolution's weights `[output, kernel row, kernel column, input]` with its batch norm as scale and shift.
pub(crate) struct Folded {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) scale: Vec<f32>,
}

/// Reads a convolution.
pub(crate) fn folded(weights: &Weights, conv: &Conv) -> Result<Folded, WeightsError> {
    let (o, [kh, kw]) = (conv.output, conv.kernel);
    let get = |part: &str| weights.get(&format!("{}.bn.{part}", conv.name), &[o]);
    let weight = weights.get(&format!("{}.conv.weight", conv.name), &[o, conv.input, kh, kw])?;
    let (beta, mean, variance) = (get("bias")?, get("running_mean")?, get("running_var")?);
    let ones = vec![1.0; o];
    // Keras trains without a scale; one that is there must fit.
    let has_scale = weights.tensors.contains_key(&format!("{}.bn.weight", conv.name));
    let gamma = if has_scale { get("weight")? } else { &ones };
    let scale: Vec<f32> = (0..o).map(|c| gamma[c] / (variance[c] + BN_EPSILON).sqrt()).collect();
    let bias = (0..o).map(|c| beta[c] - mean[c] * scale[c]).collect();
    Ok(Folded { weight: turn(weight, [o, conv.input, kh, kw], false), bias, scale })
}

/// The convolutions of blocks, in the order of the parameters.
pub(crate) fn convs_of(blocks: &[Block]) -> impl Iterator<Item = &Conv> {
    blocks.iter().flat_map(|block| convs(&block.nodes))
}

impl Section {
    /// The blocks from `weights`, and a head: that of the weights where they have one of this kind, else a new one.
    ///
    /// # Errors
    /// [`WeightsError::Missing`].
    pub fn load(
        blocks: &[Block],
        weights: &Weights,
        head: HeadKind,
        seed: u64,
        layout: Layout,
        device: &Device,
    ) -> Result<(Self, Params, Norm), WeightsError> {
        let (mut scales, mut params, mut id) = (Vec::new(), Vec::new(), 0);
        for conv in convs_of(blocks) {
            let f = folded(weights, conv)?;
            let width = f.weight.len() / conv.output;
            scales.push(given(f.scale, [conv.output], device));
            params.push(ConvParams {
                weight: numbered(&mut id, given(f.weight, [conv.output, width], device)),
                bias: numbered(&mut id, given(f.bias, [conv.output], device)),
            });
        }
        let mut random = StdRng::seed_from_u64(seed);
        // Glorot's uniform range, as Keras has it.
        let mut fresh = |rows: usize, columns: usize| -> Vec<f32> {
            let limit = (6.0 / (rows + columns) as f32).sqrt();
            (0..rows * columns).map(|_| random.random_range(-limit..limit)).collect()
        };
        let (hidden, dense) = (fresh(64, 2048), fresh(4, head.width()));
        let known = weights.notes.get("head").is_some_and(|name| name == head.name());
        let pick = |name: &str, shape: &[usize], fresh: Vec<f32>| {
            if known { weights.get(name, shape).map(<[f32]>::to_vec) } else { Ok(fresh) }
        };
        let w = head.width();
        let (hidden, bias, dense, dense_bias, norm) = match head {
            HeadKind::Gap => (
                pick("head.fc1.weight", &[64, 2048], hidden)?,
                pick("head.fc1.bias", &[64], vec![0.0; 64])?,
                pick("head.fc2.weight", &[4, w], dense)?,
                pick("head.fc2.bias", &[4], vec![0.0; 4])?,
                Norm { mean: vec![], variance: vec![] },
            ),
            HeadKind::Conv => (
                pick("head.conv.weight", &[64, 2048, 1, 1], hidden)?,
                pick("head.conv.bn.bias", &[64], vec![0.0; 64])?,
                pick("head.fc.weight", &[4, w], dense)?,
                pick("head.fc.bias", &[4], vec![0.0; 4])?,
                Norm {
                    mean: pick("head.conv.bn.running_mean", &[64], vec![0.0; 64])?,
                    variance: pick("head.conv.bn.running_var", &[64], vec![1.0; 64])?,
                },
            ),
        };
        let head_params = HeadParams {
            hidden: numbered(&mut id, given(hidden, [64, 2048], device)),
            hidden_bias: numbered(&mut id, given(bias, [64], device)),
            dense: numbered(&mut id, given(dense, [4, w], device)),
            dense_bias: numbered(&mut id, given(dense_bias, [4], device)),
        };
        let section = Self { blocks: blocks.to_vec(), scales, layout, device: device.clone(), head };
        Ok((section, Params { convs: params, head: head_params }, norm))
    }

    /// A batch `[count, rows, columns, channels]` in the section's layout.
    pub fn batch(&self, values: Vec<f32>, shape: [usize; 4]) -> Tensor<4> {
        let x = given(values, shape, &self.device);
        if self.layout == Layout::Nhwc { x } else { x.permute([0, 3, 1, 2]) }
    }

    /// The batch through all blocks.
    pub fn forward(&self, params: &Params, x: Tensor<4>) -> Tensor<4> {
        self.forward_with(params, x, "", &mut Exact)
    }

    /// As [`Self::forward`], with `tap` on every weight and activation; `entry` is the name of what comes in.
    pub fn forward_with(&self, params: &Params, x: Tensor<4>, entry: &str, tap: &mut dyn Tap) -> Tensor<4> {
        let mut walk = Walk { section: self, params, next: 0, tap };
        let (mut x, mut name) = (walk.tap.activation(entry, x), entry.to_string());
        for block in &self.blocks {
            (x, name) = walk.steps(&block.nodes, x, name, block.forks());
            if block.forks() {
                // The branches share one scale: it is enough to look at them together.
                (x, name) = (walk.tap.activation(block.name, x), block.name.into());
            }
        }
        x
    }

    /// Features to logits `[count, 4]`. `dropout` holds the factors for the last layer's inputs in training; with it the
    /// `conv` head normalises by the batch and moves `norm` towards it.
    pub fn logits(
        &self,
        params: &Params,
        norm: &mut Norm,
        features: Tensor<4>,
        dropout: Option<Tensor<2>>,
    ) -> Tensor<2> {
        let x = if self.layout == Layout::Nhwc { features } else { features.permute([0, 2, 3, 1]) };
        let [count, rows, columns, channels] = x.dims();
        let head = &params.head;
        let dense = |x: Tensor<2>, w: &Param<Tensor<2>>, b: &Param<Tensor<1>>| {
            let bias = b.val();
            let width = bias.dims()[0];
            x.matmul(w.val().transpose()) + bias.reshape([1, width])
        };
        let mut hidden = match self.head {
            HeadKind::Gap => {
                let mean: Tensor<2> =
                    x.reshape([count, rows * columns, channels]).mean_dim(1).reshape([count, channels]);
                relu(dense(mean, &head.hidden, &head.hidden_bias))
            }
            HeadKind::Conv => {
                let z = x.reshape([count * rows * columns, channels]).matmul(head.hidden.val().transpose());
                let (mean, variance) = if dropout.is_some() {
                    let mean = z.clone().mean_dim(0);
                    let off = z.clone() - mean.clone();
                    let variance = (off.clone() * off).mean_dim(0);
                    norm.follow(&list(mean.clone()), &list(variance.clone()));
                    (mean, variance)
                } else {
                    (
                        given(norm.mean.clone(), [1, 64], &self.device),
                        given(norm.variance.clone(), [1, 64], &self.device),
                    )
                };
                let z = (z - mean) / variance.add_scalar(BN_EPSILON).sqrt();
                relu(z + head.hidden_bias.val().reshape([1, 64])).reshape([count, self.head.width()])
            }
        };
        if let Some(factors) = dropout {
            hidden = hidden * factors;
        }
        dense(hidden, &head.dense, &head.dense_bias)
    }

    /// All parameters as plain lists, in a fixed order.
    pub fn snapshot(&self, params: &Params) -> Vec<Vec<f32>> {
        let mut all = Vec::new();
        for p in &params.convs {
            all.push(list(p.weight.val()));
            all.push(list(p.bias.val()));
        }
        let h = &params.head;
        all.extend([
            list(h.hidden.val()),
            list(h.hidden_bias.val()),
            list(h.dense.val()),
            list(h.dense_bias.val()),
        ]);
        all
    }

    /// Parameters from [`Self::snapshot`]'s lists; `like` gives the shapes and identities.
    pub fn restore(&self, like: &Params, lists: &[Vec<f32>]) -> Params {
        let mut lists = lists.iter().cloned();
        let mut next = || lists.next().unwrap_or_default();
        let device = &self.device;
        let two = |p: &Param<Tensor<2>>, v: Vec<f32>| {
            Param::initialized(p.id, given(v, p.dims(), device).require_grad())
        };
        let one = |p: &Param<Tensor<1>>, v: Vec<f32>| {
            Param::initialized(p.id, given(v, p.dims(), device).require_grad())
        };
        let convs = like
            .convs
            .iter()
            .map(|p| ConvParams { weight: two(&p.weight, next()), bias: one(&p.bias, next()) })
            .collect();
        let h = &like.head;
        let head = HeadParams {
            hidden: two(&h.hidden, next()),
            hidden_bias: one(&h.hidden_bias, next()),
            dense: two(&h.dense, next()),
            dense_bias: one(&h.dense_bias, next()),
        };
        Params { convs, head }
    }

    /// Writes what was trained into `weights`, which hold the rest of the network.
    pub fn store(&self, lists: &[Vec<f32>], norm: &Norm, weights: &mut Weights) {
        let all: Vec<&Conv> = convs_of(&self.blocks).collect();
        for (i, conv) in all.iter().enumerate() {
            let (weight, bias, scale) = (&lists[2 * i], &lists[2 * i + 1], list(self.scales[i].clone()));
            let (o, [kh, kw]) = (conv.output, conv.kernel);
            weights.set(
                format!("{}.conv.weight", conv.name),
                &[o, conv.input, kh, kw],
                turn(weight, [o, kh, kw, conv.input], true),
            );
            let mean =
                weights.tensors.get(&format!("{}.bn.running_mean", conv.name)).map(|w| w.values.clone());
            let beta = (0..o).map(|c| bias[c] + mean.as_ref().map_or(0.0, |m| m[c]) * scale[c]).collect();
            weights.set(format!("{}.bn.bias", conv.name), &[o], beta);
        }
        weights.tensors.retain(|name, _| !name.starts_with("head."));
        let [hidden, bias, dense, dense_bias] = [0, 1, 2, 3].map(|k| lists[2 * all.len() + k].clone());
        match self.head {
            HeadKind::Gap => {
                weights.set("head.fc1.weight", &[64, 2048], hidden);
                weights.set("head.fc1.bias", &[64], bias);
                weights.set("head.fc2.weight", &[4, 64], dense);
                weights.set("head.fc2.bias", &[4], dense_bias);
            }
            HeadKind::Conv => {
                weights.set("head.conv.weight", &[64, 2048, 1, 1], hidden);
                weights.set("head.conv.bn.bias", &[64], bias);
                weights.set("head.conv.bn.running_mean", &[64], norm.mean.clone());
                weights.set("head.conv.bn.running_var", &[64], norm.variance.clone());
                weights.set("head.fc.weight", &[4, self.head.width()], dense);
                weights.set("head.fc.bias", &[4], dense_bias);
            }
        }
        weights.notes.insert("head".into(), self.head.name().into());
    }
}

/// A pass through a section: which convolution comes next, and what is done on the way.
struct Walk<'a> {
    section: &'a Section,
    params: &'a Params,
    next: usize,
    tap: &'a mut dyn Tap,
}

impl Walk<'_> {
    /// `nodes` over the activation `name`; where they end a branch (`ends`), what comes out has no name yet.
    fn steps(
        &mut self,
        nodes: &[Node],
        mut x: Tensor<4>,
        mut name: String,
        ends: bool,
    ) -> (Tensor<4>, String) {
        for (i, node) in nodes.iter().enumerate() {
            let last = ends && i + 1 == nodes.len();
            x = match node {
                Node::Conv(conv) => {
                    x = self.conv(conv, x);
                    if last {
                        x
                    } else {
                        name.clone_from(&conv.name);
                        self.tap.activation(&name, x)
                    }
                }
                // The largest of rounded values is one of them.
                Node::MaxPool => self.section.layout.pool(x, Pool::Max),
                Node::AveragePool => self.tap.averaged(&name, self.section.layout.pool(x, Pool::Average)),
                Node::Fork(branches) => {
                    let parts =
                        branches.iter().map(|b| self.steps(b, x.clone(), name.clone(), true).0).collect();
                    Tensor::cat(parts, self.section.layout.axis())
                }
            };
        }
        (x, name)
    }

    fn conv(&mut self, conv: &Conv, x: Tensor<4>) -> Tensor<4> {
        let (p, scale) = (&self.params.convs[self.next], self.section.scales[self.next].clone());
        self.next += 1;
        let window = Window { kernel: conv.kernel, stride: conv.stride, padding: conv.padding };
        let weight = p.weight.val();
        // Of three equal input channels the export rounds the sum.
        let weight = if conv.input == 3 { weight } else { self.tap.weight(weight) };
        self.section.layout.convolve(x, weight, p.bias.val(), scale, window)
    }
}

impl Norm {
    /// A tenth of the way to a batch's statistics, as torchvision's momentum 0.1 does.
    fn follow(&mut self, mean: &[f32], variance: &[f32]) {
        let step =
            |old: &mut Vec<f32>, new: &[f32]| old.iter_mut().zip(new).for_each(|(a, b)| *a += 0.1 * (b - *a));
        step(&mut self.mean, mean);
        step(&mut self.variance, variance);
    }

    /// Mean, then variance, as lists.
    pub fn lists(&self) -> [&[f32]; 2] {
        [&self.mean, &self.variance]
    }

    /// From the lists of [`Self::lists`].
    pub fn of(mean: Vec<f32>, variance: Vec<f32>) -> Self {
        Self { mean, variance }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Random weights for `blocks`, seeded.
    pub(crate) fn random_weights(blocks: &[Block]) -> Weights {
        let mut random = StdRng::seed_from_u64(3);
        let mut weights = Weights::default();
        for conv in convs_of(blocks) {
            let (o, i, [kh, kw]) = (conv.output, conv.input, conv.kernel);
            let mut noise = |n: usize, from: f32, to: f32| {
                (0..n).map(|_| random.random_range(from..to)).collect::<Vec<f32>>()
            };
            let limit = (6.0 / (i * kh * kw) as f32).sqrt();
            weights.set(
                format!("{}.conv.weight", conv.name),
                &[o, i, kh, kw],
                noise(o * i * kh * kw, -limit, limit),
            );
            weights.set(format!("{}.bn.bias", conv.name), &[o], noise(o, -0.1, 0.1));
            weights.set(format!("{}.bn.running_mean", conv.name), &[o], noise(o, -0.1, 0.1));
            weights.set(format!("{}.bn.running_var", conv.name), &[o], noise(o, 0.5, 1.5));
        }
        weights
    }

    // What is loaded is what is stored, and both layouts compute the same logits, for both heads.
    #[test]
    fn weights_survive_and_layouts_agree() {
        let blocks = inception_v3(3).split_off(11);
        let weights = random_weights(&blocks);
        let device = Device::flex();
        for head in [HeadKind::Gap, HeadKind::Conv] {
            let mut answers = Vec::new();
            for layout in [Layout::Nhwc, Layout::Nchw] {
                let (section, params, mut norm) =
                    Section::load(&blocks, &weights, head, 9, layout, &device).unwrap();
                let x: Vec<f32> = (0..2 * 64 * 2048).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
                let features = section.forward(&params, section.batch(x, [2, 8, 8, 2048]));
                answers.push(list(section.logits(&params, &mut norm, features, None)));
                let mut stored = weights.clone();
                section.store(&section.snapshot(&params), &norm, &mut stored);
                for (name, weight) in &weights.tensors {
                    for (a, b) in weight.values.iter().zip(&stored.tensors[name].values) {
                        assert!((a - b).abs() < 1e-5, "{name}");
                    }
                }
                let (again, params, mut norm) =
                    Section::load(&blocks, &stored, head, 1, layout, &device).unwrap();
                let x: Vec<f32> = (0..2 * 64 * 2048).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
                let features = again.forward(&params, again.batch(x, [2, 8, 8, 2048]));
                answers.push(list(again.logits(&params, &mut norm, features, None)));
            }
            for other in &answers[1..] {
                for (a, b) in other.iter().zip(&answers[0]) {
                    assert!((a - b).abs() < 1e-3 * (1.0 + b.abs()), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn a_scale_of_a_wrong_shape_is_refused() {
        let blocks = inception_v3(3).split_off(11);
        let mut weights = random_weights(&blocks);
        let load = |w: &Weights| Section::load(&blocks, w, HeadKind::Gap, 1, Layout::Nhwc, &Device::flex());
        let name = "Mixed_7c.branch1x1.bn.weight";
        weights.set(name, &[320], vec![2.0; 320]);
        assert!(load(&weights).is_ok());
        weights.set(name, &[319], vec![2.0; 319]);
        assert!(load(&weights).unwrap_err().to_string().contains(name));
    }

    #[test]
    fn cuts_have_names() {
        assert_eq!("input".parse::<Cut>().unwrap().shape(), [299, 299, 1]);
        assert_eq!("6e".parse::<Cut>().unwrap().name(), "Mixed_6e");
        assert_eq!("Mixed_7c".parse::<Cut>().unwrap().trained().len(), 0);
        assert!("Mixed_8a".parse::<Cut>().is_err());
    }
}
