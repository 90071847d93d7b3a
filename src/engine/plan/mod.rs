//! The network as an integer program: `model.onnx` in QDQ form, lowered to fused convolutions, pools and a head in f32.
//!
//! Tensors are bytes, `[row, column, channel]`, value = byte · scale. A concatenation costs nothing: its parts are written
//! straight into their channels of the whole. All tensors live in one arena; the plan gives their places.
//!
//! A step computes `q = clamp(round_half_even(acc as f32 · m), 0, 255)` with an s32 `acc` (bias included) and one f32
//! multiplier `m = s_in · s_w / s_out` per channel; pools likewise. Every engine that follows this is exact to the bit.

pub mod head;
mod lower;
mod memory;
mod waves;

use super::{FEATURE_CHANNELS, FEATURE_SIDE};
use crate::prepare::SIDE;
pub use head::Head;
use prost::bytes::Bytes;
use std::fmt::Write as _;

/// Kernel, stride and padding of a window that slides over a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal step.
    pub stride: [usize; 2],
    /// Padding above, left, below, right.
    pub padding: [usize; 4],
}

impl Window {
    /// Rows and columns after the window slid over `[rows, columns]`; `None` where it does not fit.
    pub fn output(&self, [rows, columns]: [usize; 2]) -> Option<[usize; 2]> {
        let [top, left, bottom, right] = self.padding;
        let side =
            |size: usize, axis: usize| Some(size.checked_sub(self.kernel[axis])? / self.stride[axis] + 1);
        Some([side(rows + top + bottom, 0)?, side(columns + left + right, 1)?])
    }
}

/// A quantised tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name in the graph.
    pub name: String,
    /// Rows, columns, channels.
    pub shape: [usize; 3],
    /// Value of one step of the byte.
    pub scale: f32,
    /// The concatenation that it is a part of, and its first channel there.
    pub part_of: Option<(usize, usize)>,
    /// First byte in the arena; of a part, of its first channel.
    pub place: usize,
    /// Bytes from pixel to pixel: the channels of the whole.
    pub step: usize,
}

/// A convolution with bias, ReLU and requantisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Convolution {
    /// Its name in the graph.
    pub name: String,
    /// Number of the tensor read.
    pub from: usize,
    /// Number of the tensor written.
    pub to: usize,
    /// The window.
    pub window: Window,
    /// `[output, kernel row, kernel column, input]`.
    pub weight: Vec<i8>,
    /// A bias for each output, in steps of `s_in · s_w`.
    pub bias: Vec<i32>,
    /// `s_in · s_w / s_out` for each output.
    pub multiplier: Vec<f32>,
    /// No sum of two products of a byte and a weight leaves 16 bits.
    pub pairs_fit: bool,
}

/// What a pool makes of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The largest byte.
    Max,
    /// The mean of the bytes inside the picture.
    Average,
}

/// A pool with requantisation; a 1x1 maximum is a copy.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name in the graph.
    pub name: String,
    /// Number of the tensor read.
    pub from: usize,
    /// Number of the tensor written.
    pub to: usize,
    /// The window.
    pub window: Window,
    /// Maximum or mean.
    pub kind: PoolKind,
    /// `s_in / s_out`; a mean's sum is multiplied by this over the count, computed in f32.
    pub multiplier: f32,
}

/// A step of the program.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A convolution.
    Convolution(Convolution),
    /// A pool.
    Pool(Pool),
}

impl Step {
    /// Numbers of the tensors read and written.
    pub fn tensors(&self) -> (usize, usize) {
        match self {
            Step::Convolution(c) => (c.from, c.to),
            Step::Pool(p) => (p.from, p.to),
        }
    }

    /// Its name in the graph.
    pub fn name(&self) -> &str {
        match self {
            Step::Convolution(c) => &c.name,
            Step::Pool(p) => &p.name,
        }
    }
}

/// The program.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// All steps in order.
    pub steps: Vec<Step>,
    /// How many steps each wave has: steps of a wave may run at the same time, waves one after the other.
    pub waves: Vec<usize>,
    /// The tensor of the picture's bytes.
    pub input: usize,
    /// The byte that stands for each grey level of the picture; `None` where it is the grey level itself.
    pub levels: Option<Box<[u8; 256]>>,
    /// The tensor of the features.
    pub features: usize,
    /// From features to logits.
    pub head: Head,
    /// Bytes of the arena.
    pub arena: usize,
    /// The arena's first bytes, which stay 0: what a window reads beside the picture.
    pub zeros: usize,
}

/// Why a model is no integer program.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not an ONNX file.
    #[error("the model is no ONNX file ({0}); copy it again and compare its checksum")]
    Decode(String),
    /// A constant does not hold what it says.
    #[error(transparent)]
    Tensor(#[from] crate::model::onnx::TensorError),
    /// A node cannot be lowered.
    #[error("node {node} ({op}): {reason}; the integer engines cannot run this model, tract may")]
    Node {
        /// The node's name.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong.
        reason: String,
    },
    /// The graph lacks something.
    #[error("the model's graph {0}; the integer engines cannot run it")]
    Graph(String),
}

impl Plan {
    /// Lowers an ONNX file's bytes: a grey picture of 299x299, features of 8x8x2048, four logits.
    ///
    /// # Errors
    /// See [`PlanError`]; no input makes it panic or take more than 1 GiB beside the input.
    pub fn read(bytes: &Bytes) -> Result<Self, PlanError> {
        let plan = Self::read_any(bytes)?;
        let (input, features) = (plan.tensors[plan.input].shape, plan.tensors[plan.features].shape);
        if input != [SIDE, SIDE, 1] || features != [FEATURE_SIDE, FEATURE_SIDE, FEATURE_CHANNELS] {
            let what = format!(
                "reads {input:?} into features of {features:?} where [299, 299, 1] becomes [8, 8, 2048]"
            );
            return Err(PlanError::Graph(what));
        }
        Ok(plan)
    }

    /// As [`Self::read`], whatever the size of picture and features.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_any(bytes: &Bytes) -> Result<Self, PlanError> {
        let mut plan = lower::lower(bytes)?;
        waves::arrange(&mut plan);
        memory::assign(&mut plan)?;
        Ok(plan)
    }

    /// A plan of these tensors and steps, with places in the arena; `head` turns the features into logits.
    ///
    /// # Errors
    /// [`PlanError::Graph`] where the arena would be too large.
    pub fn of(
        tensors: Vec<Tensor>,
        steps: Vec<Step>,
        input: usize,
        features: usize,
        head: Head,
    ) -> Result<Self, PlanError> {
        let waves = Vec::new();
        let mut plan =
            Plan { tensors, steps, waves, input, levels: None, features, head, arena: 0, zeros: 0 };
        waves::arrange(&mut plan);
        memory::assign(&mut plan)?;
        Ok(plan)
    }

    /// Multiply-accumulates of a step; 0 for pools.
    pub fn macs(&self, step: &Step) -> u64 {
        match step {
            Step::Convolution(c) => {
                let [h, w, o] = self.tensors[c.to].shape;
                (h * w) as u64 * (c.weight.len() / o.max(1)) as u64 * o as u64
            }
            Step::Pool(_) => 0,
        }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        let mut all = 0;
        for step in &self.steps {
            let (from, to) = step.tensors();
            let (from, to) = (&self.tensors[from], &self.tensors[to]);
            let (what, window) = match step {
                Step::Convolution(c) => ("conv", &c.window),
                Step::Pool(Pool { kind: PoolKind::Max, window, .. }) => ("max", window),
                Step::Pool(Pool { kind: PoolKind::Average, window, .. }) => ("mean", window),
            };
            let ([kh, kw], [sh, sw]) = (window.kernel, window.stride);
            let macs = self.macs(step);
            all += macs;
            let shape = |t: &Tensor| format!("{}x{}x{}", t.shape[0], t.shape[1], t.shape[2]);
            writeln!(
                text,
                "{:<28} {what:<4} {kh}x{kw}/{sh}{} {:>12} -> {:<12} {:>9.2} Mmac {:>8} bytes at {:<8} scale {:.6} -> {:.6}",
                step.name(),
                if sw == sh { String::new() } else { format!(",{sw}") },
                shape(from),
                shape(to),
                macs as f64 / 1e6,
                to.shape.iter().product::<usize>(),
                to.place,
                from.scale,
                to.scale
            )?;
        }
        let weights: usize =
            self.steps.iter().map(|s| if let Step::Convolution(c) = s { c.weight.len() } else { 0 }).sum();
        write!(
            f,
            "{text}{} steps in {} waves, {:.1} Mmac, {:.1} MB of weights, arena {:.2} MB\n{}",
            self.steps.len(),
            self.waves.len(),
            all as f64 / 1e6,
            weights as f64 / 1e6,
            self.arena as f64 / 1e6,
            self.head
        )
    }
}

/// `clamp(round_half_even(value), 0, 255)`.
pub fn to_byte(value: f32) -> u8 {
    value.round_ties_even().clamp(0.0, 255.0) as u8
}
