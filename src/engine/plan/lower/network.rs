//! The quantised network: values wait for the scale at which they are quantised, then become steps.

use super::super::head::Grid;
use super::super::{Convolution, PlanError, Pool, PoolKind, Step, Tensor, Window};
use super::LIMIT;
use super::filter::Unfilled;
use super::values::{Failure, Failure::Reason};
use prost::bytes::Bytes;
use rayon::prelude::*;
use std::collections::HashMap;

/// The most bytes of weights, in the network and in the head.
const WEIGHTS: usize = 256 << 20;
/// The most bytes of a tensor.
const BYTES: usize = 1 << 26;
/// The most tensors.
const TENSORS: usize = 1 << 12;

/// The most operators in a row that await one quantisation.
const DEPTH: usize = 32;

/// Values of the quantised network. All are cut at 0 when they are quantised, so a Relu is nowhere written down.
#[derive(Clone)]
pub enum Real {
    /// A tensor's dequantised bytes.
    Tensor(usize),
    /// A convolution, by its number, that awaits its scale.
    Convolution(usize),
    Pool {
        name: String,
        of: usize,
        window: Window,
        kind: PoolKind,
    },
    Concat {
        name: String,
        parts: Vec<usize>,
    },
    /// Cut at `high`.
    Clip {
        of: usize,
        high: f32,
    },
}

/// A value with what follows from it.
struct Known {
    real: Real,
    /// The scale at which it is quantised already, if any.
    scale: Option<f32>,
    depth: usize,
}

/// A convolution without its output's scale.
pub struct Waiting {
    /// The node's name, for messages.
    pub node: String,
    /// The step's name where its output is not quantised by itself.
    pub name: String,
    pub from: usize,
    pub window: Window,
    /// `[output, input, kernel row, kernel column]`, two's complements.
    pub weight: Bytes,
    /// A scale for each output.
    pub scales: Vec<f32>,
    pub bias: Bias,
}

pub enum Bias {
    /// In steps of input scale · weight scale.
    Steps(Vec<i32>),
    /// As it is.
    Real(Vec<f32>),
}

/// The quantised picture.
pub struct Picture {
    pub tensor: usize,
    /// What a pixel becomes; `None` as it is.
    pub levels: Option<Box<[u8; 256]>>,
    /// The number that stands for black.
    zero: u8,
}

#[derive(Default)]
pub struct Network {
    pub tensors: Vec<Tensor>,
    steps: Vec<Step>,
    /// The convolutions among the steps without their weights.
    unfilled: Vec<Unfilled>,
    pub picture: Option<Picture>,
    waiting: Vec<Option<Waiting>>,
    reals: Vec<Known>,
    settled: HashMap<usize, (f32, usize)>,
    weights: usize,
}

impl Network {
    /// Adds a value and gives its number.
    pub fn real(&mut self, real: Real) -> Result<usize, Failure> {
        let (scale, depth) = self.judge(&real);
        if depth > DEPTH {
            return Err(Reason(format!("more than {DEPTH} operators in a row without quantisation")));
        }
        self.reals.push(Known { real, scale, depth });
        Ok(self.reals.len() - 1)
    }

    /// The tensor whose dequantised bytes a value is.
    pub fn plain(&self, real: usize) -> Option<usize> {
        if let Real::Tensor(tensor) = self.reals[real].real { Some(tensor) } else { None }
    }

    pub fn wait(&mut self, waiting: Waiting) -> Result<usize, Failure> {
        self.waiting.push(Some(waiting));
        self.real(Real::Convolution(self.waiting.len() - 1))
    }

    /// Counts weights that are kept.
    pub fn keep(&mut self, bytes: usize) -> Result<(), Failure> {
        self.weights = self.weights.saturating_add(bytes);
        if self.weights > WEIGHTS {
            return Err(Reason(format!("weights of more than {} MB", WEIGHTS >> 20)));
        }
        Ok(())
    }

    fn tensor(&mut self, name: &str, shape: [usize; 3], scale: f32) -> Result<usize, Failure> {
        if shape.iter().any(|&d| d == 0 || d > LIMIT) || shape.iter().product::<usize>() > BYTES {
            return Err(Reason(format!("a tensor of {shape:?}")));
        }
        if self.tensors.len() == TENSORS {
            return Err(Reason(format!("more than {TENSORS} tensors")));
        }
        // The names that our trainer, onnxruntime and NNCF give to the bytes of what they quantise.
        let name =
            name.strip_suffix("/q").or_else(|| name.strip_suffix("_QuantizeLinear_Output")).unwrap_or(name);
        let name = name.strip_prefix("q_output_").unwrap_or(name);
        self.tensors.push(Tensor { name: name.into(), shape, scale, part_of: None, place: 0, step: 0 });
        Ok(self.tensors.len() - 1)
    }

    /// The picture, quantised on `grid`.
    pub fn picture(&mut self, name: &str, shape: [usize; 3], grid: &Grid) -> Result<usize, Failure> {
        if self.picture.is_some() {
            return Err(Reason("the picture must be quantised once".into()));
        }
        let tensor = self.tensor(name, shape, grid.scale)?;
        let level = |pixel: usize| {
            let value = grid.round(pixel as f32 / 255.0) / grid.scale;
            (value.round_ties_even() + grid.zero - grid.low) as u8
        };
        let levels: Box<[u8; 256]> = Box::new(std::array::from_fn(level));
        let plain = levels.iter().enumerate().all(|(i, &v)| i == usize::from(v));
        let zero = (grid.zero - grid.low) as u8;
        self.picture = Some(Picture { tensor, levels: (!plain).then_some(levels), zero });
        Ok(tensor)
    }

    /// Black's number in a tensor: 0, but in the picture.
    fn zero(&self, tensor: usize) -> u8 {
        self.picture.as_ref().filter(|p| p.tensor == tensor).map_or(0, |p| p.zero)
    }

    /// The tensor is quantised on this grid.
    pub fn is_on(&self, tensor: usize, grid: &Grid) -> bool {
        self.tensors[tensor].scale == grid.scale && f32::from(self.zero(tensor)) == grid.zero - grid.low
    }

    /// The scale at which a value is quantised already, if any; and how many values it is made of one after the other.
    fn judge(&self, real: &Real) -> (Option<f32>, usize) {
        let known = |real: usize| (self.reals[real].scale, self.reals[real].depth + 1);
        match real {
            Real::Tensor(tensor) => (Some(self.tensors[*tensor].scale), 1),
            Real::Convolution(_) => (None, 1),
            Real::Pool { of, kind: PoolKind::Max, .. } => known(*of),
            Real::Pool { of, .. } | Real::Clip { of, .. } => (None, known(*of).1),
            Real::Concat { parts, .. } => {
                parts.iter().map(|&part| known(part)).fold((Some(0.0), 1), |(scale, depth), (s, d)| {
                    (scale.zip(s).map(|(a, b): (f32, f32)| a.max(b)), depth.max(d))
                })
            }
        }
    }

    /// The bytes of a value that no further quantisation follows.
    pub fn bytes(&mut self, real: usize) -> Result<usize, Failure> {
        match self.reals[real].scale {
            Some(scale) => self.settle(real, scale, None),
            None => Err(Reason("what it reads was never quantised".into())),
        }
    }

    /// The tensor of a value, quantised at `scale`; `name` is that of the bytes where they have one.
    pub fn settle(&mut self, real: usize, scale: f32, name: Option<&str>) -> Result<usize, Failure> {
        match self.settled.get(&real) {
            Some(&(known, tensor)) if known == scale => return Ok(tensor),
            Some(&(known, _)) if self.plain(real).is_none() => {
                return Err(Reason(format!("the same value is quantised at {known} and at {scale}")));
            }
            _ => {}
        }
        let tensor = match self.reals[real].real.clone() {
            Real::Tensor(tensor) if self.tensors[tensor].scale == scale => tensor,
            Real::Tensor(tensor) => {
                let own = format!("{} at {scale}", self.tensors[tensor].name);
                self.copy(tensor, name.unwrap_or(&own), scale)?
            }
            Real::Convolution(number) => {
                let waiting = self.waiting[number].take();
                self.convolution(waiting.ok_or_else(|| Reason("it is quantised twice".into()))?, name, scale)?
            }
            Real::Pool { name: own, of, window, kind } => {
                // A maximum commutes with quantisation; a mean needs bytes to begin with.
                let from = match self.reals[of].scale {
                    None if kind == PoolKind::Max => self.settle(of, scale, None)?,
                    _ => self.bytes(of)?,
                };
                self.pool(from, name.unwrap_or(&own), window, kind, scale)?
            }
            Real::Concat { name: own, parts } => {
                let mut tensors = Vec::with_capacity(parts.len());
                for part in parts {
                    // Parts that have a scale are rounded to it first, as the graph says.
                    let own = self.reals[part].scale.unwrap_or(scale);
                    tensors.push(self.settle(part, own, None)?);
                }
                self.join(&tensors, name.unwrap_or(&own), scale)?
            }
            Real::Clip { of, high } => {
                if high / scale <= 254.5 {
                    return Err(Reason(format!(
                        "a cut at {high} below the {} that its bytes reach",
                        255.0 * scale
                    )));
                }
                self.settle(of, scale, name)?
            }
        };
        self.settled.insert(real, (scale, tensor));
        Ok(tensor)
    }

    fn copy(&mut self, from: usize, name: &str, scale: f32) -> Result<usize, Failure> {
        let window = Window { kernel: [1; 2], stride: [1; 2], padding: [0; 4] };
        self.pool(from, name, window, PoolKind::Max, scale)
    }

    fn pool(
        &mut self,
        from: usize,
        name: &str,
        window: Window,
        kind: PoolKind,
        scale: f32,
    ) -> Result<usize, Failure> {
        if self.zero(from) != 0 {
            return Err(Reason(
                "a picture whose zero point is not 0 is read by something else than a convolution".into(),
            ));
        }
        let Tensor { shape: [h, w, c], scale: given, .. } = self.tensors[from];
        let to = self.tensor(name, placed(&window, [h, w], c)?, scale)?;
        let multiplier = given / scale;
        if !multiplier.is_finite() {
            return Err(Reason("scales whose ratio is not finite".into()));
        }
        let name = self.tensors[to].name.clone();
        self.steps.push(Step::Pool(Pool { name, from, to, window, kind, multiplier }));
        Ok(to)
    }

    /// Makes the parts one tensor; a part that cannot be written in place is copied.
    fn join(&mut self, parts: &[usize], name: &str, scale: f32) -> Result<usize, Failure> {
        let [h, w, _] = self.tensors[parts[0]].shape;
        if parts.iter().any(|&p| self.tensors[p].shape[..2] != [h, w]) {
            return Err(Reason("parts of different sizes".into()));
        }
        let channels = parts.iter().map(|&p| self.tensors[p].shape[2]).sum();
        let to = self.tensor(name, [h, w, channels], scale)?;
        let mut first = 0;
        for &part in parts {
            let known = &self.tensors[part];
            let input = self.picture.as_ref().is_some_and(|p| p.tensor == part);
            let fits = known.scale == scale && known.part_of.is_none() && !input;
            let own = format!("{}/{first}", self.tensors[to].name);
            let part = if fits { part } else { self.copy(part, &own, scale)? };
            self.tensors[part].part_of = Some((to, first));
            first += self.tensors[part].shape[2];
        }
        Ok(to)
    }

    fn convolution(&mut self, waiting: Waiting, name: Option<&str>, scale: f32) -> Result<usize, Failure> {
        let Tensor { shape: [h, w, _], scale: given, .. } = self.tensors[waiting.from];
        let (from, window) = (waiting.from, waiting.window);
        let shape = placed(&window, [h, w], waiting.scales.len())?;
        let to = self.tensor(name.unwrap_or(&waiting.name), shape, scale)?;
        let zero = self.zero(from);
        self.unfilled.push(Unfilled { step: self.steps.len(), waiting, given, scale, zero });
        self.steps.push(Step::Convolution(Convolution {
            name: self.tensors[to].name.clone(),
            from,
            to,
            window,
            weight: Vec::new(),
            bias: Vec::new(),
            multiplier: Vec::new(),
            pairs_fit: false,
        }));
        Ok(to)
    }

    /// Tensors and steps, these with their weights: most of the work of a start, so all processors share it.
    pub fn finish(self) -> Result<(Vec<Tensor>, Vec<Step>), PlanError> {
        let mut steps = self.steps;
        let filled: Vec<_> = self.unfilled.into_par_iter().map(Unfilled::fill).collect();
        for filled in filled {
            let (step, filters) = filled?;
            if let Step::Convolution(convolution) = &mut steps[step] {
                convolution.weight = filters.weight;
                convolution.bias = filters.bias;
                convolution.multiplier = filters.multiplier;
                convolution.pairs_fit = filters.pairs_fit;
            }
        }
        Ok((self.tensors, steps))
    }
}

/// The shape of a step's output.
fn placed(window: &Window, [h, w]: [usize; 2], channels: usize) -> Result<[usize; 3], Failure> {
    let [oh, ow] = window
        .output([h, w])
        .ok_or_else(|| Reason(format!("the window {:?} does not fit {h}x{w}", window.kernel)))?;
    Ok([oh, ow, channels])
}
