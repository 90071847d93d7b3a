//! The head's weights (batch norm folded) and the gate's feature statistics, from safetensors.

use super::{HeadKind, ModelError};
use crate::engine::{FEATURE_CHANNELS, FEATURE_SIDE};
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// Hidden units of both heads.
pub const HIDDEN: usize = 64;
/// Positions of the feature map.
pub const CELLS: usize = FEATURE_SIDE * FEATURE_SIDE;

/// A head in f32; weights row by row in the shapes given.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// `logit = fc2 · relu(fc1 · mean(features) + b1) + b2`.
    Gap {
        /// `[64, 2048]`
        fc1: Vec<f32>,
        /// `[64]`
        fc1_bias: Vec<f32>,
        /// `[4, 64]`
        fc2: Vec<f32>,
        /// `[4]`
        fc2_bias: [f32; 4],
    },
    /// `logit = Σ over positions of fc · relu(conv · features + b) + bias`.
    Conv {
        /// `[64, 2048]`
        conv: Vec<f32>,
        /// `[64]`
        conv_bias: Vec<f32>,
        /// `[4, 8, 8, 64]`: class, row, column, channel.
        fc: Vec<f32>,
        /// `[4]`
        fc_bias: [f32; 4],
    },
}

/// Mean and scale of the globally averaged features over the training pictures, `[2048]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Means.
    pub mean: Vec<f32>,
    /// Scales, all above 0.
    pub scale: Vec<f32>,
}

/// Reads one f32 tensor of a known shape.
fn tensor(file: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let view = file.tensor(name).map_err(|_| format!("no tensor {name}"))?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        return Err(format!("{name} is {:?} {:?}, not F32 {shape:?}", view.dtype(), view.shape()));
    }
    let values: Vec<f32> = view
        .data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(format!("{name} is not finite"))
    }
}

fn four(file: &SafeTensors<'_>, name: &str) -> Result<[f32; 4], String> {
    let v = tensor(file, name, &[4])?;
    Ok([v[0], v[1], v[2], v[3]])
}

impl Head {
    /// Reads `head.safetensors`; `path` is for messages.
    ///
    /// # Errors
    /// [`ModelError::Weights`].
    pub fn decode(bytes: &[u8], kind: HeadKind, path: &Path) -> Result<Self, ModelError> {
        let read = || -> Result<Self, String> {
            let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
            Ok(match kind {
                HeadKind::Gap => Head::Gap {
                    fc1: tensor(&file, "fc1.weight", &[HIDDEN, FEATURE_CHANNELS])?,
                    fc1_bias: tensor(&file, "fc1.bias", &[HIDDEN])?,
                    fc2: tensor(&file, "fc2.weight", &[4, HIDDEN])?,
                    fc2_bias: four(&file, "fc2.bias")?,
                },
                HeadKind::Conv => Head::Conv {
                    conv: tensor(&file, "conv.weight", &[HIDDEN, FEATURE_CHANNELS])?,
                    conv_bias: tensor(&file, "conv.bias", &[HIDDEN])?,
                    fc: tensor(&file, "fc.weight", &[4, FEATURE_SIDE, FEATURE_SIDE, HIDDEN])?,
                    fc_bias: four(&file, "fc.bias")?,
                },
            })
        };
        read().map_err(|reason| ModelError::Weights { path: path.into(), reason })
    }

    /// Which of the two it is.
    pub fn kind(&self) -> HeadKind {
        match self {
            Head::Gap { .. } => HeadKind::Gap,
            Head::Conv { .. } => HeadKind::Conv,
        }
    }

    /// Logits of features `[2048, 8, 8]`, summed in f64: the reference for the engines' heads.
    pub fn logits(&self, features: &[f32]) -> [f32; 4] {
        self.exact(features).map(|logit| logit as f32)
    }

    /// As [`Self::logits`], not rounded.
    pub fn exact(&self, features: &[f32]) -> [f64; 4] {
        let hidden = self.hidden(features);
        let (weights, bias) = match self {
            Head::Gap { fc2, fc2_bias, .. } => (fc2, fc2_bias),
            Head::Conv { fc, fc_bias, .. } => (fc, fc_bias),
        };
        std::array::from_fn(|c| {
            let row = &weights[c * hidden.len()..(c + 1) * hidden.len()];
            let sum: f64 = row.iter().zip(&hidden).map(|(w, v)| f64::from(*w) * v).sum();
            sum + f64::from(bias[c])
        })
    }

    /// The hidden layer: `[64]` after ReLU for `gap`, `[8, 8, 64]` (row, column, channel) after ReLU for `conv`.
    pub fn hidden(&self, features: &[f32]) -> Vec<f64> {
        match self {
            Head::Gap { fc1, fc1_bias, .. } => {
                let mean = pooled(features);
                let unit = |(row, bias): (&[f32], &f32)| (dot(row, &mean) + f64::from(*bias)).max(0.0);
                fc1.chunks_exact(FEATURE_CHANNELS).zip(fc1_bias).map(unit).collect()
            }
            Head::Conv { conv, conv_bias, .. } => {
                let mut hidden = vec![0.0; CELLS * HIDDEN];
                for (m, (row, bias)) in conv.chunks_exact(FEATURE_CHANNELS).zip(conv_bias).enumerate() {
                    let mut sums = [f64::from(*bias); CELLS];
                    for (w, plane) in row.iter().zip(features.chunks_exact(CELLS)) {
                        sums.iter_mut().zip(plane).for_each(|(s, v)| *s += f64::from(*w) * f64::from(*v));
                    }
                    sums.iter().enumerate().for_each(|(i, s)| hidden[i * HIDDEN + m] = s.max(0.0));
                }
                hidden
            }
        }
    }
}

impl Gate {
    /// Reads `gate.safetensors`; `path` is for messages.
    ///
    /// # Errors
    /// [`ModelError::Weights`].
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self, ModelError> {
        let read = || -> Result<Self, String> {
            let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
            let mean = tensor(&file, "mean", &[FEATURE_CHANNELS])?;
            let scale = tensor(&file, "scale", &[FEATURE_CHANNELS])?;
            if scale.iter().any(|s| *s <= 0.0) {
                return Err("a scale is not above 0".into());
            }
            Ok(Self { mean, scale })
        };
        read().map_err(|reason| ModelError::Weights { path: path.into(), reason })
    }

    /// Mean squared distance of the averaged features from those of the training pictures, in scales; 1 is usual.
    pub fn distance(&self, features: &[f32]) -> f32 {
        let sum: f64 = pooled(features)
            .iter()
            .zip(self.mean.iter().zip(&self.scale))
            .map(|(v, (mean, scale))| ((v - f64::from(*mean)) / f64::from(*scale)).powi(2))
            .sum();
        (sum / FEATURE_CHANNELS as f64) as f32
    }
}

/// Eight sums side by side, so that the compiler may use vector units and every machine adds in the same order.
fn dot(a: &[f32], b: &[f64]) -> f64 {
    let mut sums = [0.0f64; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += f64::from(*a) * b);
    }
    sums.iter().sum()
}

/// Global average of each channel, `[2048]`.
pub fn pooled(features: &[f32]) -> Vec<f64> {
    features
        .chunks_exact(CELLS)
        .map(|plane| {
            let mut sums = [0.0f64; 8];
            let (rows, _) = plane.as_chunks::<8>();
            rows.iter().for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v)));
            sums.iter().sum::<f64>() / CELLS as f64
        })
        .collect()
}
