//! Pools with requantisation.

use super::{Arena, TAPS};
use crate::engine::plan::{Pool, PoolKind, Tensor};
use std::ops::Range;

/// Computes rows `first..last` of a pool.
pub fn pool_rows(pool: &Pool, from: &Tensor, to: &Tensor, arena: Arena, first: usize, last: usize) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2.
        return unsafe { pool_rows_avx2(pool, from, to, arena, first, last) };
    }
    pool_rows_any::<false>(pool, from, to, arena, first, last);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn pool_rows_avx2(pool: &Pool, from: &Tensor, to: &Tensor, arena: Arena, first: usize, last: usize) {
    pool_rows_any::<true>(pool, from, to, arena, first, last);
}

#[inline(always)]
fn pool_rows_any<const AVX2: bool>(
    pool: &Pool,
    from: &Tensor,
    to: &Tensor,
    arena: Arena,
    first: usize,
    last: usize,
) {
    let [_, ow, channels] = to.shape;
    for oy in first..last {
        for ox in 0..ow {
            let mut places = [0usize; TAPS];
            let mut count = 0;
            // The part of the window that lies on the picture.
            let across = inside(pool, 1, ox, from.shape[1]);
            for y in inside(pool, 0, oy, from.shape[0]) {
                for x in across.clone() {
                    places[count] = from.place + (y * from.shape[1] + x) * from.step;
                    count += 1;
                }
            }
            let multiplier = match pool.kind {
                PoolKind::Max => pool.multiplier,
                PoolKind::Average => pool.multiplier / count as f32,
            };
            let to_place = to.place + (oy * ow + ox) * to.step;
            let mut c = 0;
            #[cfg(target_arch = "x86_64")]
            if AVX2 {
                while c + 32 <= channels {
                    // SAFETY: the CPU has AVX2; the places are pixels of the input tensor, which has at least `c + 32` channels
                    // and lies in the arena; the output's bytes belong to this task alone.
                    unsafe { pool_32(pool.kind, &places[..count], to_place + c, c, multiplier, arena) };
                    c += 32;
                }
            }
            // Widths known to the compiler become vector instructions.
            while c + 16 <= channels {
                pool_chunk::<16>(pool.kind, &places[..count], to_place, c, multiplier, arena);
                c += 16;
            }
            while c < channels {
                pool_chunk::<1>(pool.kind, &places[..count], to_place, c, multiplier, arena);
                c += 1;
            }
        }
    }
}

/// The rows (`axis` 0) or columns (1) of a picture with `length` of them that an output's window covers.
#[inline(always)]
fn inside(pool: &Pool, axis: usize, output: usize, length: usize) -> Range<usize> {
    let window = &pool.window;
    let (first, pad) = (output * window.stride[axis], window.padding[axis]);
    first.saturating_sub(pad)..(first + window.kernel[axis]).saturating_sub(pad).min(length)
}

/// Pools 32 channels from channel `c` of one output pixel: even and odd channels apart in words.
///
/// # Safety
/// The CPU has AVX2; 32 bytes may be read from each place in the arena and written to `to`.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn pool_32(kind: PoolKind, places: &[usize], to: usize, c: usize, multiplier: f32, arena: Arena) {
    use std::arch::x86_64::*;
    // SAFETY: as this function's.
    let load = |place: usize| unsafe { _mm256_loadu_si256(arena.start().add(place + c).cast()) };
    // SAFETY: as this function's.
    let store = |bytes| unsafe { _mm256_storeu_si256(arena.start().add(to).cast(), bytes) };
    let low = _mm256_set1_epi16(255);
    let (mut even, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    match kind {
        PoolKind::Max => {
            let mut most = _mm256_setzero_si256();
            for &place in places {
                most = _mm256_max_epu8(most, load(place));
            }
            if multiplier == 1.0 {
                return store(most);
            }
            (even, odd) = (_mm256_and_si256(most, low), _mm256_srli_epi16::<8>(most));
        }
        PoolKind::Average => {
            for &place in places {
                let bytes = load(place);
                even = _mm256_add_epi16(even, _mm256_and_si256(bytes, low));
                odd = _mm256_add_epi16(odd, _mm256_srli_epi16::<8>(bytes));
            }
        }
    }
    let (factor, limit) = (_mm256_set1_ps(multiplier), _mm256_set1_ps(255.0));
    // At least 0 and at most 255.
    let scale = |sums| {
        let real = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), factor);
        _mm256_cvtps_epi32(_mm256_min_ps(real, limit))
    };
    let words = |sums| {
        let zero = _mm256_setzero_si256();
        let (a, b) = (_mm256_unpacklo_epi16(sums, zero), _mm256_unpackhi_epi16(sums, zero));
        _mm256_packs_epi32(scale(a), scale(b))
    };
    store(_mm256_or_si256(words(even), _mm256_slli_epi16::<8>(words(odd))));
}

/// Pools `WIDTH` channels from channel `c` of one output pixel.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "one index walks several arrays")]
fn pool_chunk<const WIDTH: usize>(
    kind: PoolKind,
    places: &[usize],
    to: usize,
    c: usize,
    multiplier: f32,
    arena: Arena,
) {
    let mut sums = [0u16; WIDTH];
    for &place in places {
        // SAFETY: the place is a pixel of the input tensor, which has at least `c + WIDTH` channels and lies in the arena; no
        // task of this step writes it.
        let bytes: [u8; WIDTH] =
            unsafe { arena.start().add(place + c).cast::<[u8; WIDTH]>().read_unaligned() };
        // Plain loops: closures would not be compiled with the caller's instructions.
        match kind {
            PoolKind::Max => {
                for i in 0..WIDTH {
                    sums[i] = sums[i].max(u16::from(bytes[i]));
                }
            }
            PoolKind::Average => {
                for i in 0..WIDTH {
                    sums[i] += u16::from(bytes[i]);
                }
            }
        }
    }
    let mut out = [0u8; WIDTH];
    for i in 0..WIDTH {
        // At least 0 and at most 255, so the cast cuts nothing off.
        out[i] = (f32::from(sums[i]) * multiplier).round_ties_even().min(255.0) as u8;
    }
    // SAFETY: these bytes of the output tensor lie in the arena and belong to this task alone.
    unsafe { arena.start().add(to + c).cast::<[u8; WIDTH]>().write_unaligned(out) }
}
