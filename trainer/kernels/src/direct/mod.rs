//! Convolution without a matrix of patches: kernels read the window's pixels where they lie.
//!
//! A picture is cut into strips whose inputs fit the second cache; the weights of one or two panels of sixteen outputs pass
//! over all tiles of a strip. One call computes one picture on the calling thread; callers work on several at once.

mod lanes;
mod tile;

use crate::Window;
use rayon::prelude::*;
use tile::{Isa, PANEL, ROWS, TAPS, Tile, compute};

/// Inputs of a strip, in values: half a MiB.
const STRIP: usize = 1 << 17;
/// Longest patch that is gathered: 5x5 taps of four inputs.
const GATHERED: usize = 100;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; PANEL]);

/// `scale · conv(x, weight) + bias`, with ReLU or without, its weights laid out for the kernels.
#[derive(Clone, Debug)]
pub struct Convolution {
    window: Window,
    inputs: usize,
    outputs: usize,
    isa: Isa,
    /// Few inputs: patches are copied, so that the kernel walks over one long tap.
    gathers: bool,
    /// `[group][tap][input][panel]`.
    weight: Vec<Line>,
    bias: Vec<Line>,
    relu: bool,
    /// What a window reads beside the picture.
    zeros: Vec<f32>,
}

impl Convolution {
    /// From weights `[output, kernel row, kernel column, input]`, a scale and a bias for each output; with ReLU.
    ///
    /// # Panics
    /// When the sizes do not fit each other, or the window has more than 25 taps.
    pub fn new(weight: &[f32], scale: &[f32], bias: &[f32], window: Window) -> Self {
        let taps = window.kernel[0] * window.kernel[1];
        let inputs = weight.len() / (taps * bias.len());
        let at = |o: usize, tap: usize, i: usize| weight[(o * taps + tap) * inputs + i] * scale[o];
        Self::pack(Isa::best(), window, [inputs, bias.len()], at, bias, true)
    }

    /// Turns the gradient of a stride-1 convolution's output (before bias and ReLU) into that of its input: a convolution of
    /// the gradient with the weights, turned by half a circle. `weight` is as for [`Self::new`], scaled or not; without ReLU.
    ///
    /// # Panics
    /// As [`Self::new`], and when the stride is not 1.
    pub fn backward(weight: &[f32], outputs: usize, window: Window) -> Self {
        assert!(window.stride == 1);
        let [kh, kw] = window.kernel;
        let taps = kh * kw;
        let inputs = weight.len() / (taps * outputs);
        let padding = [kh - 1 - window.padding[0], kw - 1 - window.padding[1]];
        let at = |i: usize, tap: usize, o: usize| weight[(o * taps + taps - 1 - tap) * inputs + i];
        let window = Window { padding, ..window };
        Self::pack(Isa::best(), window, [outputs, inputs], at, &vec![0.0; inputs], false)
    }

    /// Lays out weights, of which `at(output, tap, input)` gives each.
    fn pack(
        isa: Isa,
        window: Window,
        [inputs, outputs]: [usize; 2],
        at: impl Fn(usize, usize, usize) -> f32 + Sync,
        bias: &[f32],
        relu: bool,
    ) -> Self {
        let taps = window.kernel[0] * window.kernel[1];
        assert!(taps <= TAPS && bias.len() == outputs && inputs > 0);
        let panels = outputs.div_ceil(PANEL);
        let (group, deep) = (isa.tile().1, taps * inputs);
        let mut packed = vec![Line([0.0; PANEL]); panels * deep];
        packed.par_chunks_mut(group * deep).enumerate().for_each(|(number, lines)| {
            let wide = lines.len() / deep;
            for (place, line) in lines.iter_mut().enumerate() {
                let (panel, input) = (number * group + place % wide, place / wide);
                let lanes = line.0.iter_mut().zip(panel * PANEL..outputs);
                lanes.for_each(|(lane, o)| *lane = at(o, input / inputs, input % inputs));
            }
        });
        let mut lines = vec![Line([0.0; PANEL]); panels];
        bias.iter().enumerate().for_each(|(o, b)| lines[o / PANEL].0[o % PANEL] = *b);
        let gathers = taps > 1 && inputs * taps <= GATHERED && inputs <= 4;
        let zeros = vec![0.0; if window.padding == [0, 0] { 0 } else { inputs }];
        Self { window, inputs, outputs, isa, gathers, weight: packed, bias: lines, relu, zeros }
    }

    /// Rows, columns and channels that are made of a picture `[rows, columns, channels]`.
    pub fn output(&self, [h, w, c]: [usize; 3]) -> [usize; 3] {
        let [_, rows, columns, channels] = self.window.output([1, h, w, c], self.outputs);
        [rows, columns, channels]
    }

    /// Convolves one picture `x` of `shape` (rows, columns, channels) into `to`, whose pixels lie `step` values apart.
    ///
    /// # Panics
    /// When the sizes do not fit each other.
    pub fn run(&self, x: &[f32], shape: [usize; 3], to: &mut [f32], step: usize) {
        let [h, w, c] = shape;
        let [oh, ow, _] = self.output(shape);
        let pixels = oh * ow;
        assert!(c == self.inputs && x.len() >= h * w * c && step >= self.outputs && pixels > 0);
        assert!(to.len() >= (pixels - 1) * step + self.outputs);
        let (rows, group) = self.isa.tile();
        let deep = self.window.kernel[0] * self.window.kernel[1] * c;
        let panels = self.bias.len();
        let tiles = pixels.div_ceil(rows);
        // Strips of about equal size.
        let strips = (h * w * c).div_ceil(STRIP).min(tiles);
        let mut gathered = [0.0; ROWS * GATHERED];
        let mut tile = Tile {
            rows: [std::ptr::null(); ROWS * TAPS],
            next: 0,
            offsets: [0; TAPS],
            count: 0,
            taps: 0,
            depth: 0,
            weight: std::ptr::null(),
            bias: std::ptr::null(),
            out: std::ptr::null_mut(),
            across: step,
            width: 0,
            relu: self.relu,
        };
        for strip in 0..strips {
            for first in (0..panels).step_by(group) {
                let wide = group.min(panels - first);
                tile.weight = self.weight[first * deep..].as_ptr().cast();
                tile.bias = self.bias[first..].as_ptr().cast();
                tile.width = (self.outputs - first * PANEL).min(wide * PANEL);
                for number in tiles * strip / strips..tiles * (strip + 1) / strips {
                    let from = pixels * number / tiles;
                    tile.count = pixels * (number + 1) / tiles - from;
                    self.point(x, [h, w, ow], from, &mut tile, &mut gathered);
                    tile.out = to[from * step + first * PANEL..].as_mut_ptr();
                    // SAFETY: the CPU has `isa`. The rows point to `taps` times `depth` values of `x`, of the zeros or of
                    // `gathered` (`point`); weights and bias hold `wide` panels of all of them; the outputs of `count`
                    // pixels lie in `to` as asserted above, `width` of them each.
                    unsafe { compute(self.isa, &tile, wide) };
                }
            }
        }
    }

    /// Points a tile's rows to what `tile.count` pixels from `first` on read.
    fn point(
        &self,
        x: &[f32],
        [h, w, across]: [usize; 3],
        first: usize,
        tile: &mut Tile,
        gathered: &mut [f32; ROWS * GATHERED],
    ) {
        let (c, window, count) = (self.inputs, self.window, tile.count);
        let [kh, kw] = window.kernel;
        // The first pixel of each row's window, where negative numbers are large ones, and whether all of it is there.
        let mut corners = [[0; 2]; ROWS];
        let (mut oy, mut ox, mut inside) = (first / across, first % across, true);
        for corner in &mut corners[..count] {
            let top = (oy * window.stride).wrapping_sub(window.padding[0]);
            let left = (ox * window.stride).wrapping_sub(window.padding[1]);
            inside &= top < h && top + kh <= h && left < w && left + kw <= w;
            *corner = [top, left];
            ox += 1;
            if ox == across {
                (ox, oy) = (0, oy + 1);
            }
        }
        let corners = corners[..count].iter();
        if self.gathers {
            for (row, patch) in corners.zip(gathered.chunks_exact_mut(GATHERED)) {
                self.gather(x, [h, w], *row, patch);
            }
            for (row, pointer) in tile.rows[..count].iter_mut().enumerate() {
                *pointer = gathered[row * GATHERED..].as_ptr();
            }
            (tile.next, tile.taps, tile.depth, tile.offsets[0]) = (0, 1, kh * kw * c, 0);
        } else if inside {
            // A row of the window lies in one piece.
            for ([top, left], pointer) in corners.zip(&mut tile.rows) {
                *pointer = x[(top * w + left) * c..].as_ptr();
            }
            (tile.next, tile.taps, tile.depth) = (0, kh, kw * c);
            tile.offsets[..kh].iter_mut().enumerate().for_each(|(ky, offset)| *offset = ky * w * c);
        } else {
            for (row, [top, left]) in corners.enumerate() {
                for tap in 0..kh * kw {
                    let (y, x_) = (top.wrapping_add(tap / kw), left.wrapping_add(tap % kw));
                    let there = y < h && x_ < w;
                    let from = if there { &x[(y * w + x_) * c..] } else { &self.zeros };
                    tile.rows[tap * count + row] = from.as_ptr();
                }
            }
            (tile.next, tile.taps, tile.depth) = (count, kh * kw, c);
            tile.offsets[..kh * kw].fill(0);
        }
    }

    /// Copies one window.
    fn gather(&self, x: &[f32], [h, w]: [usize; 2], [top, left]: [usize; 2], patch: &mut [f32]) {
        let (c, [kh, kw]) = (self.inputs, self.window.kernel);
        for ky in 0..kh {
            let y = top.wrapping_add(ky);
            let line = &mut patch[ky * kw * c..][..kw * c];
            if y < h && left < w && left + kw <= w {
                line.copy_from_slice(&x[(y * w + left) * c..][..kw * c]);
                continue;
            }
            for (kx, to) in line.chunks_exact_mut(c).enumerate() {
                let column = left.wrapping_add(kx);
                if y < h && column < w {
                    to.copy_from_slice(&x[(y * w + column) * c..][..c]);
                } else {
                    to.fill(0.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    /// Sums in f64, by the definition.
    fn reference(
        x: &[f32],
        [h, w, c]: [usize; 3],
        at: &dyn Fn(usize, usize, usize) -> f32,
        bias: &[f32],
        window: Window,
    ) -> Vec<f64> {
        let [_, oh, ow, o] = window.output([1, h, w, c], bias.len());
        let mut y: Vec<f64> = (0..oh * ow * o).map(|i| f64::from(bias[i % o])).collect();
        window.taps([1, h, w, c], |to, tap, from| {
            for k in 0..o {
                for i in 0..c {
                    y[to * o + k] += f64::from(x[from * c + i]) * f64::from(at(k, tap, i));
                }
            }
        });
        y
    }

    const WINDOWS: [([usize; 2], usize, [usize; 2]); 8] = [
        ([1, 1], 1, [0, 0]),
        ([3, 3], 2, [0, 0]),
        ([3, 3], 1, [1, 1]),
        ([1, 7], 1, [0, 3]),
        ([7, 1], 1, [3, 0]),
        ([5, 5], 1, [2, 2]),
        ([1, 3], 1, [0, 1]),
        ([2, 2], 2, [1, 0]),
    ];

    // Every instruction set of this CPU, every window, few inputs and many, whole panels and not, beside other channels.
    #[test]
    fn convolutions_equal_sums_in_f64() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
            for (kernel, stride, padding) in WINDOWS {
                for ([h, w, c], outputs) in
                    [([9, 11, 1], 32), ([8, 7, 3], 20), ([12, 9, 5], 80), ([150, 40, 24], 33)]
                {
                    let window = Window { kernel, stride, padding };
                    let taps = kernel[0] * kernel[1];
                    let (x, weight) = (noise(h * w * c, 1), noise(outputs * taps * c, 2));
                    let bias = noise(outputs, 3);
                    let at = |o: usize, tap: usize, i: usize| weight[(o * taps + tap) * c + i];
                    let expected = reference(&x, [h, w, c], &at, &bias, window);
                    for relu in [true, false] {
                        let conv = Convolution::pack(isa, window, [c, outputs], at, &bias, relu);
                        let [oh, ow, o] = conv.output([h, w, c]);
                        let step = outputs + 3;
                        let mut to = vec![7.0; oh * ow * step];
                        conv.run(&x, [h, w, c], &mut to, step);
                        for (pixel, expected) in to.chunks_exact(step).zip(expected.chunks_exact(o)) {
                            for (got, expected) in pixel.iter().zip(expected) {
                                let expected = if relu { expected.max(0.0) } else { *expected };
                                let bound = 3e-6 * (taps * c + 3) as f64;
                                assert!(
                                    (f64::from(*got) - expected).abs() < bound,
                                    "{isa:?} {window:?} {c} {outputs}: {got} {expected}"
                                );
                            }
                            assert_eq!(pixel[outputs..], [7.0; 3], "{isa:?} {window:?}");
                        }
                    }
                }
            }
        }
    }

    // <conv(x), g> = <x, backward(g)> for all x and g, which is what a gradient is.
    #[test]
    fn backward_is_the_adjoint() {
        for (kernel, stride, padding) in WINDOWS.into_iter().filter(|(_, stride, _)| *stride == 1) {
            let (shape, outputs, window) = ([9, 10, 19], 21, Window { kernel, stride, padding });
            let taps = kernel[0] * kernel[1];
            let (x, weight) = (noise(9 * 10 * 19, 1), noise(outputs * taps * 19, 2));
            let at = |o: usize, tap: usize, i: usize| weight[(o * taps + tap) * 19 + i];
            let y = reference(&x, shape, &at, &vec![0.0; outputs], window);
            let conv = Convolution::backward(&weight, outputs, window);
            let [_, oh, ow, _] = window.output([1, 9, 10, 19], outputs);
            let grad = noise(y.len(), 5);
            let mut back = vec![0.0; x.len()];
            conv.run(&grad, [oh, ow, outputs], &mut back, 19);
            let dot = |a: &[f64], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
            let back: Vec<f64> = back.iter().map(|v| f64::from(*v)).collect();
            let (left, right) = (dot(&y, &grad), dot(&back, &x));
            assert!((left - right).abs() < 1e-4 * (1.0 + left.abs()), "{window:?}: {left} {right}");
        }
    }
}
