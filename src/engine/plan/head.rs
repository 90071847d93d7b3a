//! The head: from dequantised features to logits, in f32. One implementation serves every engine.

/// An operation on `[channel, row, column]` or on a plain vector.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    /// The mean over all positions.
    Mean,
    /// Matrix `[output, input]` and bias, over the vector.
    Dense(Vec<f32>, Vec<f32>),
    /// Matrix `[output, input]` and bias, at each position: a 1x1 convolution.
    Point(Vec<f32>, Vec<f32>),
    /// Negative values become 0.
    Relu,
    /// `[channel, row, column]` becomes `[row, column, channel]`.
    Turn,
    /// Rounded to whole steps, as a head that was quantised too has it.
    Steps(Grid),
}

/// The values that a quantised number can have: `(q - zero) · scale` with `q` from `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Value of a step.
    pub scale: f32,
    /// Zero point.
    pub zero: f32,
    /// Lowest number.
    pub low: f32,
    /// Highest number.
    pub high: f32,
}

impl Grid {
    /// The nearest value of the grid.
    pub fn round(&self, value: f32) -> f32 {
        let q = ((value / self.scale).round_ties_even() + self.zero).clamp(self.low, self.high);
        (q - self.zero) * self.scale
    }
}

/// The layers in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// Layers.
    pub layers: Vec<Layer>,
}

impl Head {
    /// Logits of `features` `[channels, positions]`.
    pub fn logits(&self, features: &[f32], channels: usize) -> [f32; 4] {
        let mut x = features.to_vec();
        let mut rows = channels;
        for layer in &self.layers {
            let positions = x.len() / rows.max(1);
            x = match layer {
                Layer::Mean => {
                    rows = x.len() / positions.max(1);
                    x.chunks_exact(positions.max(1))
                        .map(|c| c.iter().sum::<f32>() / positions as f32)
                        .collect()
                }
                Layer::Dense(weight, bias) => {
                    rows = bias.len();
                    let inputs = weight.len() / bias.len().max(1);
                    weight.chunks_exact(inputs.max(1)).zip(bias).map(|(w, b)| dot(w, &x) + b).collect()
                }
                Layer::Point(weight, bias) => {
                    let inputs = rows;
                    rows = bias.len();
                    let mut out = Vec::with_capacity(rows * positions);
                    for (w, b) in weight.chunks_exact(inputs.max(1)).zip(bias) {
                        let mut sums = vec![*b; positions];
                        for (w, x) in w.iter().zip(x.chunks_exact(positions.max(1))) {
                            sums.iter_mut().zip(x).for_each(|(s, x)| *s += w * x);
                        }
                        out.extend(sums);
                    }
                    out
                }
                Layer::Relu => x.into_iter().map(|v| v.max(0.0)).collect(),
                Layer::Steps(grid) => x.into_iter().map(|v| grid.round(v)).collect(),
                Layer::Turn => (0..x.len()).map(|i| x[(i % rows) * positions + i / rows]).collect(),
            };
        }
        let at = |k: usize| x.get(k).copied().unwrap_or(f32::NAN);
        [at(0), at(1), at(2), at(3)]
    }
}

/// Eight partial sums, so that the compiler may use vector units and every machine adds in the same order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for (s, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *s += a * b;
        }
    }
    sums.iter().sum()
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "head, in f32:")?;
        for layer in &self.layers {
            match layer {
                Layer::Mean => write!(f, " mean")?,
                Layer::Dense(w, b) => write!(f, " dense {}x{}", w.len() / b.len().max(1), b.len())?,
                Layer::Point(w, b) => write!(f, " 1x1 {}x{}", w.len() / b.len().max(1), b.len())?,
                Layer::Relu => write!(f, " relu")?,
                Layer::Steps(grid) => write!(f, " steps of {:.6}", grid.scale)?,
                Layer::Turn => write!(f, " to rows, columns, channels")?,
            }
        }
        writeln!(f)
    }
}
