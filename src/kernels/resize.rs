//! The two passes of an antialiased resize in integers: 14-bit weights, each pass rounded half up, `(sum + 8192) >> 14`.

use std::sync::{Arc, Mutex, PoisonError};

/// Fixed-point one of the weights.
const ONE: i64 = 1 << 14;
/// Taps of a group: a row's taps are padded to whole groups.
const GROUP: usize = 8;
/// Outputs that are made at once.
const CHUNK: usize = 8;
/// Filters that are kept; a source of pictures has one size, and the band around the retina a few heights.
const KEPT: usize = 12;

/// A triangle filter from `from` pixels to `to`, widened by the ratio when it shrinks.
#[derive(Debug)]
pub struct Filter {
    from: usize,
    to: usize,
    /// First source pixel and weights of each output.
    taps: Vec<(usize, Vec<i16>)>,
    /// Where each output's groups start; padded to whole chunks.
    starts: Vec<u32>,
    /// Groups of an output.
    groups: usize,
    /// `[chunk][group][4]`: the group's weights of output `j` and of output `j + 4` of the chunk.
    weights: Vec<[[i16; GROUP]; 2]>,
}

impl Filter {
    /// The filter between two sizes, from a few that are kept.
    pub fn between(from: usize, to: usize) -> Arc<Self> {
        static FILTERS: Mutex<Vec<Arc<Filter>>> = Mutex::new(Vec::new());
        let mut filters = FILTERS.lock().unwrap_or_else(PoisonError::into_inner);
        let found = filters.iter().position(|filter| (filter.from, filter.to) == (from, to));
        let filter = match found {
            Some(at) => filters.remove(at),
            None => Arc::new(Self::new(from, to)),
        };
        // The one used longest ago is last.
        filters.insert(0, Arc::clone(&filter));
        filters.truncate(KEPT);
        filter
    }

    fn new(from: usize, to: usize) -> Self {
        let taps = taps(from, to);
        let most = taps.iter().map(|(_, weights)| weights.len()).max().unwrap_or(0).next_multiple_of(GROUP);
        let groups = most / GROUP;
        let chunks = to.div_ceil(CHUNK);
        let mut starts = vec![0; chunks * CHUNK];
        let mut weights = vec![[[0; GROUP]; 2]; chunks * groups * CHUNK / 2];
        for (o, (first, own)) in taps.iter().enumerate() {
            // The last groups must not leave the row.
            let start = (*first).min(from.saturating_sub(most));
            starts[o] = start as u32;
            for (k, w) in own.iter().enumerate() {
                let (group, k) = ((first - start + k) / GROUP, (first - start + k) % GROUP);
                let (chunk, j) = (o / CHUNK, o % CHUNK);
                weights[(chunk * groups + group) * CHUNK / 2 + j % 4][j / 4][k] = *w;
            }
        }
        Self { from, to, taps, starts, groups, weights }
    }

    /// First source pixel and 14-bit weights of each output; a row's weights sum to exactly 16384.
    #[cfg(test)]
    pub fn taps(&self) -> &[(usize, Vec<i16>)] {
        &self.taps
    }

    /// Whether rows are long enough for whole groups.
    fn fits(&self) -> bool {
        self.groups * GROUP <= self.from
    }
}

/// First source pixel and weights of each of `to` output pixels over `from` input pixels.
fn taps(from: usize, to: usize) -> Vec<(usize, Vec<i16>)> {
    // All positions in units of 1/(2·to) source pixel, so that everything is an integer.
    let (from_i, to_i) = (from as i64, to as i64);
    let support = from_i.max(to_i); // half-width of the triangle: one output or one input pixel, whichever is larger
    (0..to_i)
        .map(|o| {
            let centre = (2 * o + 1) * from_i;
            let first = ((centre - 2 * support) / (2 * to_i)).max(0);
            let last = ((centre + 2 * support) / (2 * to_i)).min(from_i - 1);
            let raw = (first..=last).map(|i| (2 * support - (centre - (2 * i + 1) * to_i).abs()).max(0));
            let sum: i64 = raw.clone().sum();
            let mut weights: Vec<i16> = raw.map(|w| ((w * ONE * 2 + sum) / (2 * sum)) as i16).collect();
            // What rounding left over goes to the heaviest tap, the first of equals.
            let rest = ONE as i32 - weights.iter().map(|w| i32::from(*w)).sum::<i32>();
            let heaviest = (0..weights.len()).rev().max_by_key(|&i| weights[i]).unwrap_or(0);
            weights[heaviest] += rest as i16;
            (first as usize, weights)
        })
        .collect()
}

fn round(sum: i32) -> u8 {
    ((sum + 8192) >> 14).clamp(0, 255) as u8
}

/// Resizes rows: `out` has `filter.to` bytes a row, `pixels` `filter.from`.
pub fn rows(pixels: &[u8], filter: &Filter, out: &mut [u8]) {
    let each = pixels.chunks_exact(filter.from.max(1)).zip(out.chunks_exact_mut(filter.to.max(1)));
    if !filter.fits() {
        each.for_each(|(row, out)| short_row(row, filter, out));
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if super::avx2() {
        // SAFETY: the CPU has AVX2, and `fits` says that no group leaves a row.
        each.for_each(|(row, out)| unsafe { x86::row(row, filter, out) });
        return;
    }
    each.for_each(|(row, out)| row_in_groups(row, filter, out));
}

/// A row that is shorter than its padded taps.
fn short_row(row: &[u8], filter: &Filter, out: &mut [u8]) {
    for (out, (first, weights)) in out.iter_mut().zip(&filter.taps) {
        *out = round(weights.iter().zip(&row[*first..]).map(|(w, p)| i32::from(*w) * i32::from(*p)).sum());
    }
}

fn row_in_groups(row: &[u8], filter: &Filter, out: &mut [u8]) {
    let products = |pixels: &[u8; GROUP], weights: &[i16; GROUP]| -> i32 {
        (0..GROUP).map(|k| i32::from(pixels[k]) * i32::from(weights[k])).sum()
    };
    for (o, out) in out.iter_mut().enumerate() {
        let (groups, _) = row[filter.starts[o] as usize..].as_chunks::<GROUP>();
        let first = o / CHUNK * filter.groups;
        let weights = |group: usize| &filter.weights[(first + group) * CHUNK / 2 + o % 4][o % CHUNK / 4];
        *out = round((0..filter.groups).map(|group| products(&groups[group], weights(group))).sum());
    }
}

/// Resizes columns: rows of `width` bytes, `filter.from` of them in `pixels` and `filter.to` in `out`.
pub fn columns(pixels: &[u8], width: usize, filter: &Filter, out: &mut [u8]) {
    for (out, (from, weights)) in out.chunks_exact_mut(width).zip(&filter.taps) {
        let rows = &pixels[from * width..(from + weights.len()) * width];
        #[cfg(target_arch = "x86_64")]
        if super::avx2() && width >= 16 {
            // SAFETY: the CPU has AVX2, and there is a row for each weight.
            unsafe { x86::column(rows, width, weights, out) };
            continue;
        }
        column(rows, width, weights, out);
    }
}

fn column(rows: &[u8], width: usize, weights: &[i16], out: &mut [u8]) {
    const LANES: usize = 64;
    for (x, out) in (0..width).step_by(LANES).zip(out.chunks_mut(LANES)) {
        let mut sums = [0i32; LANES];
        for (row, w) in rows.chunks_exact(width).zip(weights) {
            let row = &row[x..x + out.len()];
            sums.iter_mut().zip(row).for_each(|(sum, p)| *sum += i32::from(i16::from(*p)) * i32::from(*w));
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = round(sum));
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHUNK, Filter, GROUP};
    use std::arch::x86_64::*;

    /// Eight outputs at a time: sixteen products an instruction, three levels of sums between neighbours.
    ///
    /// # Safety
    /// `filter.groups * 8` bytes may be read from each of `filter.starts` on; `out` has `filter.to` bytes.
    #[target_feature(enable = "avx2")]
    pub unsafe fn row(row: &[u8], filter: &Filter, out: &mut [u8]) {
        let half = _mm256_set1_epi32(8192);
        let mut made = [0u8; 16];
        for (chunk, (starts, out)) in filter.starts.chunks_exact(CHUNK).zip(out.chunks_mut(CHUNK)).enumerate()
        {
            let mut sums = [_mm256_setzero_si256(); 4];
            for group in 0..filter.groups {
                let weights = &filter.weights[(chunk * filter.groups + group) * CHUNK / 2..][..CHUNK / 2];
                for (j, (sum, weights)) in sums.iter_mut().zip(weights).enumerate() {
                    // SAFETY: the caller says that these bytes lie in the row; the weights are 32 bytes.
                    let (low, high, weights) = unsafe {
                        let at = |o: usize| row.as_ptr().add(starts[o] as usize + group * GROUP);
                        (
                            _mm_loadl_epi64(at(j).cast()),
                            _mm_loadl_epi64(at(j + 4).cast()),
                            _mm256_loadu_si256(weights.as_ptr().cast()),
                        )
                    };
                    let pixels = _mm256_cvtepu8_epi16(_mm_unpacklo_epi64(low, high));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pixels, weights));
                }
            }
            let pairs = (_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
            let all = _mm256_add_epi32(_mm256_hadd_epi32(pairs.0, pairs.1), half);
            let all = _mm256_srai_epi32::<14>(all);
            let words = _mm_packs_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
            // SAFETY: 16 bytes.
            unsafe { _mm_storeu_si128(made.as_mut_ptr().cast(), _mm_packus_epi16(words, words)) };
            out.copy_from_slice(&made[..out.len()]);
        }
    }

    /// Sixteen pixels of two rows at a time.
    ///
    /// # Safety
    /// `rows` has `width` bytes for each weight, `out` has `width` bytes, which are at least 16.
    #[target_feature(enable = "avx2")]
    pub unsafe fn column(rows: &[u8], width: usize, weights: &[i16], out: &mut [u8]) {
        let half = _mm256_set1_epi32(8192);
        for x in (0..width).step_by(16) {
            // The last pixels are made together with some before them.
            let x = x.min(width - 16);
            let mut sums = [half; 2];
            for (pair, weights) in weights.chunks(2).enumerate() {
                let second = weights.get(1).copied().unwrap_or(0);
                let both = _mm256_set1_epi32((i32::from(weights[0]) & 0xffff) | (i32::from(second) << 16));
                // SAFETY: the caller says that the rows are there; a missing second row is the first with weight 0.
                let (a, b) = unsafe {
                    let a = rows.as_ptr().add(pair * 2 * width + x);
                    let b = if weights.len() == 2 { a.add(width) } else { a };
                    (_mm_loadu_si128(a.cast()), _mm_loadu_si128(b.cast()))
                };
                let low = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b));
                let high = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
                sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(low, both));
                sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(high, both));
            }
            let [low, high] = sums.map(|sum| _mm256_srai_epi32::<14>(sum));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            // SAFETY: `x + 16` is at most `width`.
            unsafe { _mm_storeu_si128(out.as_mut_ptr().add(x).cast(), bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn weights_sum_to_one() {
        for from in [32, 100, 299, 300, 496, 512, 768, 1536, 4000] {
            let filter = Filter::between(from, 299);
            for (first, weights) in filter.taps() {
                assert_eq!(weights.iter().map(|w| i32::from(*w)).sum::<i32>(), ONE as i32);
                assert!(first + weights.len() <= from);
            }
        }
    }

    #[test]
    fn filters_are_kept_and_the_oldest_goes() {
        let first = Filter::between(1000, 7);
        assert!(Arc::ptr_eq(&first, &Filter::between(1000, 7)));
        (0..KEPT).for_each(|i| drop(Filter::between(1001 + i, 7)));
        // Other tests use filters too, so only what must have gone is sure.
        assert!(!Arc::ptr_eq(&first, &Filter::between(1000, 7)));
    }

    fn noise(count: usize, seed: u32) -> Vec<u8> {
        (0..count as u32).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 23) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn all_paths_give_the_same_bytes(from in 2usize..1600, to in 1usize..320, width in 1usize..70, seed: u32) {
            let filter = Filter::new(from, to);
            let pixels = noise(from * 3, seed);
            let mut got = vec![0; to * 3];
            rows(&pixels, &filter, &mut got);
            let mut want = vec![0; to * 3];
            for (row, out) in pixels.chunks_exact(from).zip(want.chunks_exact_mut(to)) {
                short_row(row, &filter, out);
            }
            prop_assert_eq!(&got, &want);
            if filter.fits() {
                for (row, out) in pixels.chunks_exact(from).zip(got.chunks_exact_mut(to)) {
                    row_in_groups(row, &filter, out);
                }
                prop_assert_eq!(&got, &want);
            }
            let pixels = noise(from * width, seed ^ 77);
            let mut got = vec![0; to * width];
            columns(&pixels, width, &filter, &mut got);
            for (o, out) in got.chunks_exact(width).enumerate() {
                let (from, weights) = &filter.taps[o];
                for (x, out) in out.iter().enumerate() {
                    let sum = weights.iter().enumerate().map(|(k, w)| i32::from(*w) * i32::from(pixels[(from + k) * width + x]));
                    prop_assert_eq!(*out, round(sum.sum()));
                }
            }
        }
    }
}
