//! Quantisation-aware fine-tuning (Jacob et al., CVPR 2018): the forward pass rounds weights and activations as the int8
//! model will, the backward pass takes the rounding for the identity (the straight-through estimator of Bengio et al.,
//! 2013) and stops where a value was clipped.
//!
//! Biases are left exact: their steps are thousands of times finer than those of the sums that they join.

use crate::export::calibrate::{Histogram, Method};
use crate::export::graph::Scales;
use crate::export::quantise::WEIGHT_MAX;
use burn::tensor::Tensor;

/// What is done to weights and activations on their way through a section; nothing, where a method is left out. Names are those of the export's scales: a
/// convolution's for what stays inside a block, the block's for its output.
pub trait Tap {
    /// Weights `[output, width]` before they are used.
    fn weight(&mut self, weight: Tensor<2>) -> Tensor<2> {
        weight
    }

    /// An activation after its ReLU, or a block's whole output.
    fn activation(&mut self, _name: &str, x: Tensor<4>) -> Tensor<4> {
        x
    }

    /// The average of the activation `of`, which keeps its scale.
    fn averaged(&mut self, _of: &str, x: Tensor<4>) -> Tensor<4> {
        x
    }
}

/// Nothing is done: training in floats.
#[derive(Clone, Copy, Debug)]
pub struct Exact;

impl Tap for Exact {}

/// Counts the values of every activation; [`Watch::scales`] reads the scales from the counts.
#[derive(Debug, Default)]
pub struct Watch {
    histograms: std::collections::BTreeMap<String, Histogram>,
    failed: Option<String>,
}

impl Watch {
    /// The scale of each activation that was seen: that of the least mean squared error.
    ///
    /// # Errors
    /// When an activation was not finite.
    pub fn scales(self) -> anyhow::Result<Scales> {
        match self.failed {
            Some(why) => anyhow::bail!("quantisation-aware training cannot start: {why}"),
            None => {
                Ok(self.histograms.iter().map(|(name, h)| (name.clone(), Method::Mse.scale(h))).collect())
            }
        }
    }
}

impl Tap for Watch {
    fn activation(&mut self, name: &str, x: Tensor<4>) -> Tensor<4> {
        let values = x.clone().into_data().try_to_vec::<f32>().unwrap_or_default();
        if let Err(why) = self.histograms.entry(name.into()).or_default().add(&values) {
            self.failed.get_or_insert(format!("{name}: {why}"));
        }
        x
    }
}

/// Rounds as the int8 model does.
#[derive(Clone, Copy, Debug)]
pub struct Rounded<'a>(pub &'a Scales);

impl Tap for Rounded<'_> {
    fn weight(&mut self, weight: Tensor<2>) -> Tensor<2> {
        weights(weight)
    }

    fn activation(&mut self, name: &str, x: Tensor<4>) -> Tensor<4> {
        match self.0.get(name) {
            Some(scale) => activation(x, *scale),
            None => x,
        }
    }

    fn averaged(&mut self, of: &str, x: Tensor<4>) -> Tensor<4> {
        self.activation(of, x)
    }
}

/// `x`, with the value of `rounded` and the gradient of `x`.
fn straight<const D: usize>(x: Tensor<D>, rounded: Tensor<D>) -> Tensor<D> {
    x.clone() + (rounded - x).detach()
}

/// Values in whole steps of `scale` from 0 to 255; no gradient where they are clipped.
pub fn activation<const D: usize>(x: Tensor<D>, scale: f32) -> Tensor<D> {
    let inside = x.clamp(0.0, 255.0 * scale);
    let rounded = inside.clone().div_scalar(scale).round().mul_scalar(scale);
    straight(inside, rounded)
}

/// Each row in whole steps of its largest magnitude's 63rd part.
pub fn weights(weight: Tensor<2>) -> Tensor<2> {
    // A row of zeros stays one.
    let step = weight.clone().abs().max_dim(1).detach().div_scalar(WEIGHT_MAX).clamp_min(1e-12);
    let rounded = (weight.clone() / step.clone()).round() * step;
    straight(weight, rounded)
}

#[cfg(test)]
mod tests;
