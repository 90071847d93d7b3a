//! Convolution and pooling over `[batch, row, column, channel]`, forward and backward, pictures side by side on all threads.
//! What [`crate::direct`] does not do (gradients of weights, of strided convolutions, and mixed precision) gathers patches
//! into a matrix and multiplies it.

use crate::direct::Convolution;
use crate::product::{self, Matrix, multiply};
use crate::{Pool, Window};
use rayon::prelude::*;

impl Window {
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
    let mut y = vec![0.0; batch * oh * ow * channels];
    if !product::is_mixed() {
        let conv = Convolution::new(weight, scale, bias, window);
        y.par_chunks_mut(oh * ow * channels)
            .zip(x.par_chunks(picture))
            .for_each(|(y, x)| conv.run(x, [shape[1], shape[2], shape[3]], y, channels));
        return y;
    }
    let weights = Matrix::rows(weight, weight.len() / channels).turned();
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
    let direct = (wanted && window.stride == 1 && !product::is_mixed())
        .then(|| Convolution::backward(weight, channels, window));
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
                if let Some(direct) = &direct {
                    let to = grad_x[(start - range.start) * picture..].chunks_exact_mut(picture);
                    for (grad, to) in grad_z.chunks_exact(made).zip(to) {
                        direct.run(grad, [oh, ow, channels], to, shape[3]);
                    }
                }
                let grad_z = Matrix::rows(&grad_z, channels);
                multiply(&mut grad_w, true, grad_z.turned(), rows);
                if wanted && direct.is_none() {
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
    let mut y = vec![0.0; batch * oh * ow * c];
    y.par_chunks_mut(oh * ow * c)
        .zip(x.par_chunks(shape[1] * shape[2] * c))
        .for_each(|(y, x)| kind.picture(x, [shape[1], shape[2], c], y, c));
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
