//! Windows that slide over a picture.

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

impl Window {
    /// Shape after the window slid over `[batch, rows, columns, _]`, with `channels` made.
    pub fn output(self, [batch, h, w, _]: [usize; 4], channels: usize) -> [usize; 4] {
        let side = |size, axis: usize| (size + 2 * self.padding[axis] - self.kernel[axis]) / self.stride + 1;
        [batch, side(h, 0), side(w, 1), channels]
    }

    /// A matrix of the patches is the input itself.
    pub(crate) fn is_plain(self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.padding == [0, 0]
    }

    /// Calls `f(output pixel, tap, input pixel)` for every tap inside the picture.
    #[inline(always)]
    pub(crate) fn taps(self, [_, h, w, c]: [usize; 4], mut f: impl FnMut(usize, usize, usize)) {
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
    pub(crate) fn window(self) -> Window {
        match self {
            Pool::Max => Window { kernel: [3, 3], stride: 2, padding: [0, 0] },
            Pool::Average => Window { kernel: [3, 3], stride: 1, padding: [1, 1] },
        }
    }

    /// Shape after pooling `[batch, rows, columns, channels]`.
    pub fn output(self, shape: [usize; 4]) -> [usize; 4] {
        self.window().output(shape, shape[3])
    }

    /// Pools one picture `[rows, columns, channels]` into `to`, whose pixels lie `step` apart.
    pub fn picture(self, x: &[f32], [h, w, c]: [usize; 3], to: &mut [f32], step: usize) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has AVX2.
            return unsafe { wide(self, x, [1, h, w, c], to, step) };
        }
        slide(self, x, [1, h, w, c], to, step);
    }
}

/// [`slide`] in vectors of eight.
///
/// # Safety
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn wide(kind: Pool, x: &[f32], shape: [usize; 4], to: &mut [f32], step: usize) {
    slide(kind, x, shape, to, step);
}

#[inline(always)]
fn slide(kind: Pool, x: &[f32], shape: [usize; 4], to: &mut [f32], step: usize) {
    let ([_, h, w, c], window) = (shape, kind.window());
    let [_, oh, ow, _] = kind.output(shape);
    let inside = |at: usize, axis: usize, size: usize| {
        let first = at * window.stride;
        let [kernel, padding] = [window.kernel[axis], window.padding[axis]];
        first.saturating_sub(padding)..(first + kernel - padding).min(size)
    };
    for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
        let (rows, columns) = (inside(oy, 0, h), inside(ox, 1, w));
        let share = 1.0 / (rows.len() * columns.len()) as f32;
        let pixel = &mut to[(oy * ow + ox) * step..][..c];
        // Sixteen channels at a time stay in registers.
        for (block, to) in pixel.chunks_mut(16).enumerate() {
            let mut all = [if kind == Pool::Max { f32::NEG_INFINITY } else { 0.0 }; 16];
            for y in rows.clone() {
                for x_ in columns.clone() {
                    let from = &x[(y * w + x_) * c + 16 * block..][..to.len()];
                    let pairs = all.iter_mut().zip(from);
                    match kind {
                        Pool::Max => pairs.for_each(|(a, b)| *a = if *b > *a { *b } else { *a }),
                        Pool::Average => pairs.for_each(|(a, b)| *a += b),
                    }
                }
            }
            let factor = if kind == Pool::Max { 1.0 } else { share };
            to.iter_mut().zip(all).for_each(|(to, v)| *to = v * factor);
        }
    }
}
