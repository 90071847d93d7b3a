//! Where an answer comes from, without automatic differentiation: both heads are linear in the features once their ReLU
//! gates are known, so one forward pass gives contributions that sum to the logit, and Grad-CAM too. The occlusion test
//! asks the engine again and again and is the independent check.

pub mod light;
mod occlusion;
mod paint;

pub use occlusion::{Occlusion, OcclusionError, occlusion};
pub use paint::{colour, overlay};

use crate::Class;
use crate::engine::{FEATURE_CHANNELS, FEATURE_SIDE};
use crate::model::Head;

/// Positions of the feature map.
const CELLS: usize = FEATURE_SIDE * FEATURE_SIDE;

/// How a picture is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Contributions of the 64 positions; they sum to the logit less a constant.
    Contribution,
    /// Grad-CAM as in Selvaraju et al., ICCV 2017.
    GradCam,
    /// Fall of the logit under a grey patch (Zeiler and Fergus, ECCV 2014).
    Occlusion,
}

impl Method {
    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        ["contribution", "gradcam", "occlusion"][self as usize]
    }
}

/// A grid of values over the network's square input.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Values row by row.
    pub values: Vec<f32>,
    /// Centre of the first cell, both ways, as a share of the input's side.
    pub first: f32,
    /// From centre to centre, as a share of the input's side.
    pub step: f32,
}

impl Map {
    /// A map over the 8x8 positions of the features.
    pub fn of_features(values: &[f32; CELLS]) -> Self {
        let step = 1.0 / FEATURE_SIDE as f32;
        Self { rows: FEATURE_SIDE, columns: FEATURE_SIDE, values: values.to_vec(), first: step / 2.0, step }
    }

    /// The map as a heat from 0 to 1: negative values are cut off, the largest becomes 1 (an empty map stays empty).
    pub fn heat(&self) -> Self {
        let top = self.values.iter().copied().fold(0.0, f32::max);
        let scale = if top > 0.0 && top.is_finite() { 1.0 / top } else { 0.0 };
        let values = self.values.iter().map(|v| (v.max(0.0) * scale).min(1.0)).collect();
        Self { values, ..*self }
    }

    /// Bilinear between the centres of the cells, constant outside them; `x` and `y` from 0 to 1.
    pub fn sample(&self, x: f32, y: f32) -> f32 {
        let place = |at: f32, count: usize| {
            let at = ((at - self.first) / self.step).clamp(0.0, (count - 1) as f32);
            let low = (at as usize).min(count.saturating_sub(2));
            (low, (low + 1).min(count - 1), at - low as f32)
        };
        let (x0, x1, fx) = place(x, self.columns);
        let (y0, y1, fy) = place(y, self.rows);
        let row = |y: usize| {
            self.values[y * self.columns + x0] * (1.0 - fx) + self.values[y * self.columns + x1] * fx
        };
        row(y0) * (1.0 - fy) + row(y1) * fy
    }
}

/// What each position adds to a logit.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// 8x8, row by row.
    pub map: [f32; CELLS],
    /// The biases seen through the open gates: `sum of map + constant = logit`.
    pub constant: f32,
}

/// Contributions of the positions to a class's logit; `features` is `[2048, 8, 8]`.
///
/// `gap`: `C[i,j] = (1/64) Σ_k w[k] F[k,i,j]` with `w[k] = Σ_m W1[m,k] [h_m > 0] W2[c,m]`.
/// `conv`: `C[i,j] = Σ_m Wd[c,i,j,m] R[i,j,m]` with `R` the hidden layer after ReLU.
pub fn contribution(head: &Head, features: &[f32], class: Class) -> Contribution {
    let c = class.index();
    let hidden = head.hidden(features);
    match head {
        Head::Gap { fc1_bias, fc2, fc2_bias, .. } => {
            let row = &fc2[c * hidden.len()..(c + 1) * hidden.len()];
            let weights = gap_weights(head, &hidden, c);
            let mut sums = [0.0; CELLS];
            for (w, plane) in weights.iter().zip(features.chunks_exact(CELLS)) {
                sums.iter_mut().zip(plane).for_each(|(sum, v)| *sum += w * f64::from(*v));
            }
            let open = row.iter().zip(fc1_bias).zip(&hidden).filter(|(_, h)| **h > 0.0);
            let through: f64 = open.map(|((w, b), _)| f64::from(*w) * f64::from(*b)).sum();
            Contribution {
                map: sums.map(|sum| (sum / CELLS as f64) as f32),
                constant: (through + f64::from(fc2_bias[c])) as f32,
            }
        }
        Head::Conv { fc, fc_bias, .. } => {
            let units = hidden.len() / CELLS;
            let weights = &fc[c * hidden.len()..(c + 1) * hidden.len()];
            let cell = |i: usize| -> f64 {
                let range = i * units..(i + 1) * units;
                weights[range.clone()].iter().zip(&hidden[range]).map(|(w, r)| f64::from(*w) * r).sum()
            };
            Contribution { map: std::array::from_fn(|i| cell(i) as f32), constant: fc_bias[c] }
        }
    }
}

/// `w[k] = Σ_m W1[m,k] [h_m > 0] W2[c,m]` of a `gap` head; a `conv` head has none and gives zeros.
fn gap_weights(head: &Head, hidden: &[f64], c: usize) -> Vec<f64> {
    let mut weights = vec![0.0; FEATURE_CHANNELS];
    if let Head::Gap { fc1, fc2, .. } = head {
        let rows = fc1.chunks_exact(FEATURE_CHANNELS).zip(&fc2[c * hidden.len()..]);
        for ((row, w2), _) in rows.zip(hidden).filter(|(_, h)| **h > 0.0) {
            weights.iter_mut().zip(row).for_each(|(w, w1)| *w += f64::from(*w1) * f64::from(*w2));
        }
    }
    weights
}

/// Gradient of a class's logit with respect to the features, `[2048, 8, 8]`.
pub fn gradient(head: &Head, features: &[f32], class: Class) -> Vec<f32> {
    let c = class.index();
    let hidden = head.hidden(features);
    match head {
        Head::Gap { .. } => gap_weights(head, &hidden, c)
            .into_iter()
            .flat_map(|w| std::iter::repeat_n((w / CELLS as f64) as f32, CELLS))
            .collect(),
        Head::Conv { conv, fc, .. } => {
            let units = hidden.len() / CELLS;
            let weights = &fc[c * hidden.len()..(c + 1) * hidden.len()];
            let mut gradient = vec![0.0; FEATURE_CHANNELS * CELLS];
            for i in 0..CELLS {
                for m in (0..units).filter(|m| hidden[i * units + m] > 0.0) {
                    let row = &conv[m * FEATURE_CHANNELS..(m + 1) * FEATURE_CHANNELS];
                    for (k, w) in row.iter().enumerate() {
                        gradient[k * CELLS + i] += weights[i * units + m] * w;
                    }
                }
            }
            gradient
        }
    }
}

/// Grad-CAM (Selvaraju et al., ICCV 2017): channel weights are the gradient averaged over the positions; the map is the
/// weighted sum of the channels, cut off below 0.
pub fn grad_cam(head: &Head, features: &[f32], class: Class) -> [f32; CELLS] {
    let gradient = gradient(head, features, class);
    let mut sums = [0.0; CELLS];
    for (slope, plane) in gradient.chunks_exact(CELLS).zip(features.chunks_exact(CELLS)) {
        let alpha = slope.iter().map(|g| f64::from(*g)).sum::<f64>() / CELLS as f64;
        sums.iter_mut().zip(plane).for_each(|(sum, v)| *sum += alpha * f64::from(*v));
    }
    sums.map(|sum| sum.max(0.0) as f32)
}

#[cfg(test)]
mod tests;
