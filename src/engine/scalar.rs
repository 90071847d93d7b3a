//! The plan in plain loops: slow, obvious, and the oracle of every other engine.

use super::plan::{Convolution, Plan, PlanError, Pool, PoolKind, Step, Tensor, to_byte};
use super::{Engine, EngineError, Output};
use crate::prepare::NetworkInput;
use prost::bytes::Bytes;

/// The engine's name.
pub const NAME: &str = "scalar";

/// The scalar engine.
#[derive(Debug)]
pub struct Scalar {
    plan: Plan,
    arena: Vec<u8>,
}

impl Scalar {
    /// An engine for a model's ONNX bytes.
    ///
    /// # Errors
    /// As [`Plan::read`].
    pub fn new(onnx: &Bytes) -> Result<Self, PlanError> {
        Ok(Self::of(Plan::read(onnx)?))
    }

    /// An engine for a plan.
    pub fn of(plan: Plan) -> Self {
        Self { arena: vec![0; plan.arena], plan }
    }

    /// Runs all steps over the input tensor's bytes and gives the features' bytes, `[row, column, channel]`.
    pub fn run_bytes(&mut self, input: &[u8]) -> Vec<u8> {
        write_input(&self.plan, &mut self.arena, input);
        for step in &self.plan.steps {
            run_step(&self.plan, step, &mut self.arena);
        }
        read_bytes(&self.plan, &self.arena)
    }

    /// The plan that it follows.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

impl Engine for Scalar {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run(&mut self, input: &NetworkInput) -> Result<Output, EngineError> {
        self.run_bytes(&input.0[..]);
        Ok(read_output(&self.plan, &self.arena))
    }
}

/// Puts the picture's bytes in their place, as the plan wants them.
pub(super) fn write_input(plan: &Plan, arena: &mut [u8], input: &[u8]) {
    let bytes = &mut arena[plan.tensors[plan.input].place..][..input.len()];
    bytes.copy_from_slice(input);
    if let Some(levels) = &plan.levels {
        bytes.iter_mut().for_each(|byte| *byte = levels[usize::from(*byte)]);
    }
}

/// The features' bytes in an arena, `[row, column, channel]`.
pub fn read_bytes(plan: &Plan, arena: &[u8]) -> Vec<u8> {
    let tensor = &plan.tensors[plan.features];
    let [h, w, c] = tensor.shape;
    (0..h * w).flat_map(|pixel| &arena[tensor.place + pixel * tensor.step..][..c]).copied().collect()
}

/// Dequantised features and the head's logits.
pub fn read_output(plan: &Plan, arena: &[u8]) -> Output {
    let tensor = &plan.tensors[plan.features];
    let [h, w, c] = tensor.shape;
    let mut features = vec![0.0; h * w * c];
    for pixel in 0..h * w {
        let bytes = &arena[tensor.place + pixel * tensor.step..][..c];
        for (k, &byte) in bytes.iter().enumerate() {
            features[k * h * w + pixel] = f32::from(byte) * tensor.scale;
        }
    }
    Output { logits: plan.head.logits(&features, c), features }
}

/// Computes one step.
pub fn run_step(plan: &Plan, step: &Step, arena: &mut [u8]) {
    let (from, to) = step.tensors();
    let (from, to) = (&plan.tensors[from], &plan.tensors[to]);
    match step {
        Step::Convolution(c) => convolve(c, from, to, arena),
        Step::Pool(p) => pool(p, from, to, arena),
    }
}

/// First byte of the pixel that a tap reads, or none beside the picture.
fn tap(
    from: &Tensor,
    window: &super::plan::Window,
    [oy, ox]: [usize; 2],
    [ky, kx]: [usize; 2],
) -> Option<usize> {
    let [h, w, _] = from.shape;
    let y = (oy * window.stride[0] + ky).checked_sub(window.padding[0]).filter(|y| *y < h)?;
    let x = (ox * window.stride[1] + kx).checked_sub(window.padding[1]).filter(|x| *x < w)?;
    Some(from.place + (y * w + x) * from.step)
}

fn convolve(conv: &Convolution, from: &Tensor, to: &Tensor, arena: &mut [u8]) {
    let ([kh, kw], c) = (conv.window.kernel, from.shape[2]);
    let [oh, ow, outputs] = to.shape;
    for oy in 0..oh {
        for ox in 0..ow {
            for o in 0..outputs {
                let mut acc = conv.bias[o];
                for ky in 0..kh {
                    for kx in 0..kw {
                        let Some(place) = tap(from, &conv.window, [oy, ox], [ky, kx]) else { continue };
                        let weights = &conv.weight[((o * kh + ky) * kw + kx) * c..][..c];
                        for (byte, weight) in arena[place..place + c].iter().zip(weights) {
                            acc += i32::from(*byte) * i32::from(*weight);
                        }
                    }
                }
                arena[to.place + (oy * ow + ox) * to.step + o] = to_byte(acc as f32 * conv.multiplier[o]);
            }
        }
    }
}

fn pool(pool: &Pool, from: &Tensor, to: &Tensor, arena: &mut [u8]) {
    let [kh, kw] = pool.window.kernel;
    let [oh, ow, channels] = to.shape;
    for oy in 0..oh {
        for ox in 0..ow {
            let places: Vec<usize> =
                (0..kh * kw).filter_map(|k| tap(from, &pool.window, [oy, ox], [k / kw, k % kw])).collect();
            for c in 0..channels {
                let bytes = places.iter().map(|place| u32::from(arena[place + c]));
                let (value, multiplier) = match pool.kind {
                    PoolKind::Max => (bytes.max().unwrap_or(0), pool.multiplier),
                    PoolKind::Average => (bytes.sum(), pool.multiplier / places.len() as f32),
                };
                arena[to.place + (oy * ow + ox) * to.step + c] = to_byte(value as f32 * multiplier);
            }
        }
    }
}
