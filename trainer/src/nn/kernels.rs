//! Convolution and pooling on the CPU, forward and backward, over `[batch, row, column, channel]` in f32: patches are
//! gathered into a matrix and multiplied, a group of pictures to a thread.

use super::product::{Matrix, multiply};
use rayon::prelude::*;

/// A window that slides over `[batch, rows, columns, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Stride, both ways.
    pub stride: usize,
    /// Zeros above and below, left and right.
    pub padding: [usize; 2],
}

/// The 3x3 pooling windows of InceptionV3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Maximum, stride 2, no padding.
    Max,
    /// Average, stride 1, padding 1 that is not counted.
    Average,
}

impl Pool {
    fn window(self) -> Window {
        match self {
            Pool::Max => Window { kernel: [3, 3], stride: 2, padding: [0, 0] },
            Pool::Average => Window { kernel: [3, 3], stride: 1, padding: [1, 1] },
        }
    }

    /// Shape after pooling `[batch, rows, columns, channels]`.
    pub fn output(self, shape: [usize; 4]) -> [usize; 4] {
        self.window().output(shape, shape[3])
    }
}

impl Window {
    /// Shape after the window slid over `[batch, rows, columns, _]`, with `channels` made.
    pub fn output(self, [batch, h, w, _]: [usize; 4], channels: usize) -> [usize; 4] {
        let side = |size, axis: usize| (size + 2 * self.padding[axis] - self.kernel[axis]) / self.stride + 1;
        [batch, side(h, 0), side(w, 1), channels]
    }

    /// A matrix of the patches is the input itself.
    fn is_plain(self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.padding == [0, 0]
    }

    /// Calls `f(output pixel, tap, input pixel)` for every tap inside the picture.
    fn taps(self, [_, h, w, c]: [usize; 4], mut f: impl FnMut(usize, usize, usize)) {
        let [_, oh, ow, _] = self.output([1, h, w, c], c);
        for oy in 0..oh {
            for ox in 0..ow {
                for ky in 0..self.kernel[0] {
                    let y = (oy * self.stride + ky).wrapping_sub(self.padding[0]);
                    if y >= h {
                        continue;
                    }
                    for kx in 0..self.kernel[1] {
                        let x = (ox * self.stride + kx).wrapping_sub(self.padding[1]);
                        if x < w {
                            f(oy * ow + ox, ky * self.kernel[1] + kx, y * w + x);
                        }
                    }
                }
            }
        }
    }

    fn patches(self, pictures: &[f32], shape: [usize; 4]) -> Vec<f32> {
        let [_, h, w, c] = shape;
        let [_, oh, ow, _] = self.output(shape, c);
        let width = self.kernel[0] * self.kernel[1] * c;
        let mut rows = vec![0.0; pictures.len() / (h * w * c) * oh * ow * width];
        for (picture, rows) in pictures.chunks_exact(h * w * c).zip(rows.chunks_exact_mut(oh * ow * width)) {
            self.taps(shape, |to, tap, from| {
                rows[to * width + tap * c..][..c].copy_from_slice(&picture[from * c..][..c]);
            });
        }
        rows
    }

    fn scatter(self, rows: &[f32], pictures: &mut [f32], shape: [usize; 4]) {
        let [_, h, w, c] = shape;
        let [_, oh, ow, _] = self.output(shape, c);
        let width = self.kernel[0] * self.kernel[1] * c;
        for (picture, rows) in pictures.chunks_exact_mut(h * w * c).zip(rows.chunks_exact(oh * ow * width)) {
            self.taps(shape, |from, tap, to| {
                let source = &rows[from * width + tap * c..][..c];
                picture[to * c..][..c].iter_mut().zip(source).for_each(|(a, b)| *a += b);
            });
        }
    }

    /// Pictures whose patches stay within 16 MiB.
    fn group(self, shape: [usize; 4]) -> usize {
        let [_, oh, ow, _] = self.output(shape, 1);
        let bytes = oh * ow * self.kernel[0] * self.kernel[1] * shape[3] * 4;
        ((16 << 20) / bytes.max(1)).max(1)
    }
}

fn share(batch: usize) -> usize {
    batch.div_ceil(rayon::current_num_threads()).max(1)
}

/// `relu(scale · conv(x, weight) + bias)`; `weight` is `[output, kernel row, kernel column, input]`.
pub fn convolve(
    x: &[f32],
    shape: [usize; 4],
    weight: &[f32],
    bias: &[f32],
    scale: &[f32],
    window: Window,
) -> Vec<f32> {
    let channels = bias.len();
    let [batch, oh, ow, _] = window.output(shape, channels);
    let picture = shape[1] * shape[2] * shape[3];
    let weights = Matrix::rows(weight, weight.len() / channels).turned();
    let mut y = vec![0.0; batch * oh * ow * channels];
    let group = window.group(shape).min(share(batch));
    y.par_chunks_mut(group * oh * ow * channels).zip(x.par_chunks(group * picture)).for_each(|(y, x)| {
        let gathered = if window.is_plain() { Vec::new() } else { window.patches(x, shape) };
        let rows = if window.is_plain() { x } else { &gathered };
        multiply(y, false, Matrix::rows(rows, weights.size[0]), weights);
        for pixel in y.chunks_exact_mut(channels) {
            for ((v, s), b) in pixel.iter_mut().zip(scale).zip(bias) {
                *v = (*v * s + b).max(0.0);
            }
        }
    });
    y
}

/// Gradients of [`convolve`]: with respect to `x` (where `wanted`), `weight` and `bias`.
#[allow(clippy::too_many_arguments, reason = "all that the forward pass had, and its gradient")]
pub fn convolve_backward(
    x: &[f32],
    shape: [usize; 4],
    weight: &[f32],
    scale: &[f32],
    window: Window,
    y: &[f32],
    grad: &[f32],
    wanted: bool,
) -> (Option<Vec<f32>>, Vec<f32>, Vec<f32>) {
    let channels = scale.len();
    let [batch, oh, ow, _] = window.output(shape, channels);
    let (picture, made) = (shape[1] * shape[2] * shape[3], oh * ow * channels);
    let weights = Matrix::rows(weight, weight.len() / channels);
    let mut grad_x = if wanted { vec![0.0; x.len()] } else { Vec::new() };
    let part = share(batch);
    let group = window.group(shape).min(part);
    // One piece of the batch a thread; each piece has its own sums, added at the end.
    let mut targets: Vec<&mut [f32]> = if wanted {
        grad_x.chunks_mut(part * picture).collect()
    } else {
        (0..batch.div_ceil(part)).map(|_| Default::default()).collect()
    };
    let sums: Vec<(Vec<f32>, Vec<f32>)> = targets
        .par_iter_mut()
        .enumerate()
        .map(|(i, grad_x)| {
            let range = i * part..((i + 1) * part).min(batch);
            let (mut grad_w, mut grad_b) = (vec![0.0; weight.len()], vec![0.0; channels]);
            for start in range.clone().step_by(group) {
                let end = (start + group).min(range.end);
                let x = &x[start * picture..end * picture];
                let mut grad_z = vec![0.0; (end - start) * made];
                let (y, grad) = (&y[start * made..end * made], &grad[start * made..end * made]);
                for ((z, y), g) in grad_z
                    .chunks_exact_mut(channels)
                    .zip(y.chunks_exact(channels))
                    .zip(grad.chunks_exact(channels))
                {
                    for c in 0..channels {
                        let open = if y[c] > 0.0 { g[c] } else { 0.0 };
                        grad_b[c] += open;
                        z[c] = open * scale[c];
                    }
                }
                let gathered = if window.is_plain() { Vec::new() } else { window.patches(x, shape) };
                let rows = Matrix::rows(if window.is_plain() { x } else { &gathered }, weights.size[1]);
                let grad_z = Matrix::rows(&grad_z, channels);
                multiply(&mut grad_w, true, grad_z.turned(), rows);
                if wanted {
                    let to = &mut grad_x[(start - range.start) * picture..(end - range.start) * picture];
                    if window.is_plain() {
                        multiply(to, false, grad_z, weights);
                    } else {
                        let mut back = vec![0.0; rows.values.len()];
                        multiply(&mut back, false, grad_z, weights);
                        window.scatter(&back, to, shape);
                    }
                }
            }
            (grad_w, grad_b)
        })
        .collect();
    let mut sums = sums.into_iter();
    let (mut grad_w, mut grad_b) =
        sums.next().unwrap_or_else(|| (vec![0.0; weight.len()], vec![0.0; channels]));
    for (w, b) in sums {
        grad_w.par_iter_mut().zip(w).for_each(|(a, b)| *a += b);
        grad_b.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    }
    (wanted.then_some(grad_x), grad_w, grad_b)
}

/// Pools `[batch, rows, columns, channels]`.
pub fn pool(x: &[f32], shape: [usize; 4], kind: Pool) -> Vec<f32> {
    let [batch, oh, ow, c] = kind.output(shape);
    let start = if kind == Pool::Max { f32::NEG_INFINITY } else { 0.0 };
    let mut y = vec![start; batch * oh * ow * c];
    let counts = counts(shape, kind);
    y.par_chunks_mut(oh * ow * c).zip(x.par_chunks(shape[1] * shape[2] * c)).for_each(|(y, x)| {
        kind.window().taps(shape, |to, _, from| {
            let pairs = y[to * c..][..c].iter_mut().zip(&x[from * c..][..c]);
            match kind {
                Pool::Max => pairs.for_each(|(a, b)| *a = a.max(*b)),
                Pool::Average => pairs.for_each(|(a, b)| *a += b),
            }
        });
        if kind == Pool::Average {
            for (pixel, count) in y.chunks_exact_mut(c).zip(&counts) {
                pixel.iter_mut().for_each(|v| *v /= count);
            }
        }
    });
    y
}

/// Gradient of [`pool`] with respect to `x`; of equal maxima the first takes it.
pub fn pool_backward(x: &[f32], shape: [usize; 4], kind: Pool, y: &[f32], grad: &[f32]) -> Vec<f32> {
    let [_, oh, ow, c] = kind.output(shape);
    let (picture, made) = (shape[1] * shape[2] * c, oh * ow * c);
    let counts = counts(shape, kind);
    let mut grad_x = vec![0.0; x.len()];
    grad_x.par_chunks_mut(picture).enumerate().for_each(|(i, grad_x)| {
        let (x, y, grad) = (&x[i * picture..], &y[i * made..], &grad[i * made..]);
        let mut taken = vec![false; if kind == Pool::Max { made } else { 0 }];
        kind.window().taps(shape, |from, _, to| match kind {
            Pool::Average => {
                let source = &grad[from * c..][..c];
                grad_x[to * c..][..c].iter_mut().zip(source).for_each(|(a, g)| *a += g / counts[from]);
            }
            Pool::Max => {
                for k in 0..c {
                    let o = from * c + k;
                    if !taken[o] && x[to * c + k] == y[o] {
                        taken[o] = true;
                        grad_x[to * c + k] += grad[o];
                    }
                }
            }
        });
    });
    grad_x
}

/// Taps inside the picture, for each output pixel.
fn counts(shape: [usize; 4], kind: Pool) -> Vec<f32> {
    let [_, oh, ow, _] = kind.output(shape);
    let mut counts = vec![0.0; oh * ow];
    kind.window().taps(shape, |to, _, _| counts[to] += 1.0);
    counts
}
