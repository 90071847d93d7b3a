//! The matrix product in f32: our own kernel where the CPU has AVX-512, the `gemm` crate elsewhere.
//!
//! The right operand is packed in panels of 32 columns by 256 rows, which stay in the first cache while 12 rows of the left
//! operand at a time run over them; the left operand is read in place, an element to all lanes.

#[cfg(target_arch = "x86_64")]
use crate::tiles;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// A matrix in a slice: element (row, column) at `row * step[0] + column * step[1]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The elements.
    pub values: &'a [f32],
    /// Rows and columns.
    pub size: [usize; 2],
    step: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Rows of `width` elements, one behind another.
    pub fn rows(values: &'a [f32], width: usize) -> Self {
        Self { values, size: [values.len() / width, width], step: [width, 1] }
    }

    /// Elements from row to row and from column to column.
    pub fn step(self) -> [usize; 2] {
        self.step
    }

    /// Transposed, in place.
    pub fn turned(self) -> Self {
        Self { size: [self.size[1], self.size[0]], step: [self.step[1], self.step[0]], ..self }
    }
}

/// Whether products are computed in mixed precision; of the whole process, since burn's operations carry no settings.
static MIXED: AtomicBool = AtomicBool::new(false);

/// Asks for mixed precision in this process, where the CPU has tile units; true when products are in it from now on.
pub fn choose(mixed: bool) -> bool {
    let mixed = mixed && has_tiles();
    MIXED.store(mixed, Ordering::Relaxed);
    mixed
}

#[cfg(target_arch = "x86_64")]
fn has_tiles() -> bool {
    tiles::are_here()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_tiles() -> bool {
    false
}

/// Products are in mixed precision.
pub(crate) fn is_mixed() -> bool {
    MIXED.load(Ordering::Relaxed)
}

/// `out = lhs · rhs`, or `out += lhs · rhs` where `add`; `out` is row by row.
pub fn multiply(out: &mut [f32], add: bool, lhs: Matrix, rhs: Matrix) {
    let ([m, k], [rows, n]) = (lhs.size, rhs.size);
    assert!(k == rows && out.len() == m * n && lhs.values.len() == m * k && rhs.values.len() == k * n);
    #[cfg(target_arch = "x86_64")]
    if k > 0 && is_mixed() {
        // SAFETY: mixed precision is only set where the units are; the sizes were checked above.
        return unsafe { tiles::multiply(out, add, lhs, rhs) };
    }
    #[cfg(target_arch = "x86_64")]
    if k > 0 && is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has AVX-512; the sizes were checked above.
        return unsafe { panels(out, add, lhs, rhs) };
    }
    generic(out, add, lhs, rhs);
}

fn generic(out: &mut [f32], add: bool, lhs: Matrix, rhs: Matrix) {
    let ([m, k], [_, n]) = (lhs.size, rhs.size);
    let step = |v: usize| v as isize;
    // SAFETY: both operands hold exactly size[0] * size[1] values (asserted) and are dense in rows or columns, `out`
    // holds m * n, so every index that gemm forms lies inside; `out` is borrowed mutably, hence overlaps neither.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            step(n),
            add,
            lhs.values.as_ptr(),
            step(lhs.step[1]),
            step(lhs.step[0]),
            rhs.values.as_ptr(),
            step(rhs.step[1]),
            step(rhs.step[0]),
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Rows of the left operand at a time, columns of a panel, and its rows.
#[cfg(target_arch = "x86_64")]
const ROWS: usize = 12;
#[cfg(target_arch = "x86_64")]
const COLUMNS: usize = 32;
#[cfg(target_arch = "x86_64")]
const DEPTH: usize = 256;

/// The product by panels.
///
/// # Safety
/// The CPU has AVX-512; `lhs` and `rhs` hold what their sizes say, `out` holds rows times columns.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn panels(out: &mut [f32], add: bool, lhs: Matrix, rhs: Matrix) {
    let ([m, k], n) = (lhs.size, rhs.size[1]);
    let mut panel = vec![0.0f32; DEPTH * COLUMNS];
    for start in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - start);
        for column in (0..n).step_by(COLUMNS) {
            let width = COLUMNS.min(n - column);
            pack(&mut panel, rhs, [start, depth], [column, width]);
            let masks = [half(width), half(width.saturating_sub(16))];
            for row in (0..m).step_by(ROWS) {
                let rows = ROWS.min(m - row);
                let more = add || start > 0;
                // SAFETY: element (row + r, start + d) lies in `lhs` for r below `rows` and d below `depth`; the output's
                // `width` columns from `column` lie in its rows; the panel holds `depth` rows.
                unsafe {
                    let a = lhs.values.as_ptr().add(row * lhs.step[0] + start * lhs.step[1]);
                    let c = out.as_mut_ptr().add(row * n + column);
                    macro_rules! tile {
                        ($($count:literal)*) => {
                            match rows {
                                $($count => tile::<$count>(a, lhs.step, &panel[..depth * COLUMNS], c, n, masks, more),)*
                                _ => {}
                            }
                        };
                    }
                    tile!(1 2 3 4 5 6 7 8 9 10 11 12);
                }
            }
        }
    }
}

/// The mask of the first `width` of 16 lanes.
#[cfg(target_arch = "x86_64")]
fn half(width: usize) -> u16 {
    if width >= 16 { u16::MAX } else { (1 << width) - 1 }
}

/// Copies rows `start..start + depth` of the columns `column..column + width`, with zeros up to a whole panel.
#[cfg(target_arch = "x86_64")]
fn pack(panel: &mut [f32], rhs: Matrix, [start, depth]: [usize; 2], [column, width]: [usize; 2]) {
    let from = start * rhs.step[0] + column * rhs.step[1];
    if rhs.step[1] == 1 {
        for (d, to) in panel.chunks_exact_mut(COLUMNS).take(depth).enumerate() {
            to[..width].copy_from_slice(&rhs.values[from + d * rhs.step[0]..][..width]);
            to[width..].fill(0.0);
        }
        return;
    }
    panel.fill(0.0);
    for c in 0..width {
        let column = rhs.values[from + c * rhs.step[1]..].iter().step_by(rhs.step[0]).take(depth);
        panel[c..].iter_mut().step_by(COLUMNS).zip(column).for_each(|(to, v)| *to = *v);
    }
}

/// `R` rows of the output times the panel.
///
/// # Safety
/// As [`panels`]: `a` points to `R` rows of the panel's depth with these steps, `c` to `R` rows of `n` with room for the
/// lanes of the masks.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize>(
    a: *const f32,
    step: [usize; 2],
    panel: &[f32],
    c: *mut f32,
    n: usize,
    masks: [u16; 2],
    more: bool,
) {
    // SAFETY: as this function's.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        let mut at = a;
        for b in panel.chunks_exact(COLUMNS) {
            let b = [_mm512_loadu_ps(b.as_ptr()), _mm512_loadu_ps(b.as_ptr().add(16))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let v = _mm512_set1_ps(*at.add(r * step[0]));
                sums[0] = _mm512_fmadd_ps(v, b[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(v, b[1], sums[1]);
            }
            at = at.wrapping_add(step[1]);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (h, &mask) in masks.iter().enumerate().filter(|(_, mask)| **mask != 0) {
                let to = c.add(r * n + 16 * h);
                let sum =
                    if more { _mm512_add_ps(sums[h], _mm512_maskz_loadu_ps(mask, to)) } else { sums[h] };
                _mm512_mask_storeu_ps(to, mask, sum);
            }
        }
    }
}

/// What every product is tested with.
#[cfg(test)]
pub mod testing {
    use super::Matrix;

    fn noise(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    /// Holds a product, over operands of these sizes (rows, depth, columns) in both orders, added and not, against sums in
    /// f64 of operands that went through `round`.
    pub fn check(
        sizes: &[(usize, usize, usize)],
        round: impl Fn(f32) -> f32,
        product: impl Fn(&mut [f32], bool, Matrix, Matrix),
    ) {
        for &(m, k, n) in sizes {
            let (a, b, start) = (noise(m * k, 1), noise(k * n, 2), noise(m * n, 3));
            for turned in 0..4 {
                let lhs = if turned & 1 == 0 { Matrix::rows(&a, k) } else { Matrix::rows(&a, m).turned() };
                let rhs = if turned & 2 == 0 { Matrix::rows(&b, n) } else { Matrix::rows(&b, k).turned() };
                let at =
                    |x: Matrix, r: usize, c: usize| f64::from(round(x.values[r * x.step[0] + c * x.step[1]]));
                for add in [false, true] {
                    let mut out = start.clone();
                    product(&mut out, add, lhs, rhs);
                    for (i, got) in out.iter().enumerate() {
                        let sum: f64 = (0..k).map(|d| at(lhs, i / n, d) * at(rhs, d, i % n)).sum();
                        let expected = sum + if add { f64::from(start[i]) } else { 0.0 };
                        assert!(
                            (f64::from(*got) - expected).abs() < 3e-6 * (k + 3) as f64,
                            "{m} {k} {n} {turned} {add}: {got} {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Odd sizes, our kernel and the crate's.
    #[test]
    fn products_equal_sums_in_f64() {
        let sizes = [(1, 1, 1), (12, 256, 32), (13, 257, 33), (25, 600, 47), (3, 5, 100), (40, 31, 16)];
        testing::check(&sizes, |v| v, multiply);
        testing::check(&sizes, |v| v, generic);
    }
}
