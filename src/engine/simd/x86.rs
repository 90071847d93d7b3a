//! Tiles on x86-64: AVX-512-VNNI, AVX-VNNI and AVX2.

use super::{Isa, Tile};
use std::arch::x86_64::*;

/// Computes a tile with `panels` panels of outputs.
///
/// # Safety
/// The CPU has `isa`; the tile's pointers are valid for its sizes.
pub unsafe fn compute(isa: Isa, tile: &Tile, panels: usize) {
    macro_rules! rows {
        ($kernel:ident, $panels:literal, $($rows:literal)*) => {
            match tile.count {
                // SAFETY: as this function's.
                $($rows => unsafe { $kernel::<$rows, $panels>(tile) },)*
                _ => {}
            }
        };
    }
    macro_rules! narrow {
        ($kernel:ident, $($rows:literal)*) => {
            match tile.count {
                // SAFETY: as this function's.
                $($rows => unsafe { $kernel::<$rows>(tile) },)*
                _ => {}
            }
        };
    }
    match (isa, panels) {
        (Isa::Avx512Vnni, 2) => rows!(avx512, 2, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (Isa::Avx512Vnni, _) => rows!(avx512, 1, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (Isa::AvxVnni, _) => narrow!(avx_vnni, 1 2 3 4 5 6),
        (Isa::Avx2, _) if tile.pairs_fit => narrow!(avx2, 1 2 3 4),
        (Isa::Avx2, _) => narrow!(avx2_wide, 1 2 3 4),
        (Isa::Amx | Isa::I8mm | Isa::DotProd | Isa::Neon, _) => {}
    }
}

/// Four input bytes in every lane.
///
/// # Safety
/// `from` points to four bytes.
#[inline(always)]
unsafe fn quad(from: *const u8) -> i32 {
    // SAFETY: as this function's.
    unsafe { from.cast::<i32>().read_unaligned() }
}

/// Sums of a panel.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([i32; 16]);

#[allow(clippy::needless_range_loop, reason = "one index walks several arrays")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn avx512<const ROWS: usize, const PANELS: usize>(tile: &Tile) {
    // SAFETY: the caller vouches for the tile's pointers and sizes; all offsets below stay within them.
    unsafe {
        let mut acc = [[_mm512_setzero_si512(); PANELS]; ROWS];
        for row in &mut acc {
            for (p, sum) in row.iter_mut().enumerate() {
                *sum = _mm512_loadu_si512(tile.bias.add(16 * p).cast());
            }
        }
        let (mut weight, mut ahead) = (tile.weight, tile.ahead);
        for tap in 0..tile.taps {
            let rows: [*const u8; ROWS] = tile.rows::<ROWS, true>(tap);
            for q in 0..tile.quads {
                let w: [__m512i; PANELS] =
                    std::array::from_fn(|p| _mm512_load_si512(weight.add(p * tile.panel).cast()));
                for p in 0..PANELS {
                    _mm_prefetch::<_MM_HINT_T0>(weight.wrapping_add(p * tile.panel + 1024));
                }
                _mm_prefetch::<_MM_HINT_T1>(ahead);
                ahead = ahead.wrapping_add(tile.advance);
                for r in 0..ROWS {
                    let a = _mm512_set1_epi32(quad(rows[r].add(4 * q)));
                    for p in 0..PANELS {
                        acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], a, w[p]);
                    }
                }
                weight = weight.add(64);
            }
        }
        // Through memory: sums that a loop of this size indexes would else live there all the time.
        let mut sums = [[Line([0; 16]); PANELS]; ROWS];
        for r in 0..ROWS {
            for p in 0..PANELS {
                _mm512_store_si512(sums[r][p].0.as_mut_ptr().cast(), acc[r][p]);
            }
        }
        let multiplier: [__m512; PANELS] =
            std::array::from_fn(|p| _mm512_loadu_ps(tile.multiplier.add(16 * p)));
        let scaled = |at: usize| {
            let (r, p) = (at / PANELS, at % PANELS);
            if r >= ROWS {
                return _mm512_setzero_si512();
            }
            let sum = _mm512_load_si512(sums[r][p].0.as_ptr().cast());
            let mut scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), multiplier[p]);
            if !tile.small {
                // Beyond 32 bits the conversion gives the lowest number; bounded before it, large values stay large.
                scaled = _mm512_min_ps(scaled, _mm512_set1_ps(255.0));
            }
            _mm512_cvtps_epi32(scaled)
        };
        // Packing saturates, to signed 16 bits and then to unsigned bytes, within lanes of 128 bits: four sums become four
        // bytes of each in every lane, and the permutation puts what belongs together into one lane.
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        for first in (0..ROWS * PANELS).step_by(4) {
            let low = _mm512_packs_epi32(scaled(first), scaled(first + 1));
            let high = _mm512_packs_epi32(scaled(first + 2), scaled(first + 3));
            let bytes = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
            let row = first / PANELS;
            if PANELS == 2 && tile.width == 32 {
                _mm256_storeu_si256(tile.out(row).cast(), _mm512_castsi512_si256(bytes));
                if row + 1 < ROWS {
                    _mm256_storeu_si256(tile.out(row + 1).cast(), _mm512_extracti64x4_epi64::<1>(bytes));
                }
                continue;
            }
            let mut all = [0u8; 64];
            _mm512_storeu_si512(all.as_mut_ptr().cast(), bytes);
            for (lane, all) in all.chunks_exact(16).enumerate() {
                let (row, panel) = ((first + lane) / PANELS, (first + lane) % PANELS);
                let width = tile.width.saturating_sub(16 * panel).min(16);
                if row < ROWS && width == 16 {
                    std::ptr::copy_nonoverlapping(all.as_ptr(), tile.out(row).add(16 * panel), 16);
                } else if row < ROWS {
                    std::ptr::copy_nonoverlapping(all.as_ptr(), tile.out(row).add(16 * panel), width);
                }
            }
        }
    }
}

/// Requantises 16 sums and writes `width` bytes.
///
/// # Safety
/// The tile's multiplier holds 16 values, `out` points to `width` bytes.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn finish(tile: &Tile, row: usize, sums: [__m256i; 2]) {
    // SAFETY: as this function's.
    unsafe {
        let whole: [__m256i; 2] = std::array::from_fn(|half| {
            let multiplier = _mm256_loadu_ps(tile.multiplier.add(8 * half));
            let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[half]), multiplier);
            _mm256_cvtps_epi32(_mm256_min_ps(scaled, _mm256_set1_ps(255.0)))
        });
        // Packing saturates: first to signed 16 bits, then to unsigned bytes; halves of 128 bits stay apart.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(whole[0], whole[1]));
        let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        if tile.width >= 16 {
            _mm_storeu_si128(tile.out(row).cast(), bytes);
        } else {
            let mut all = [0u8; 16];
            _mm_storeu_si128(all.as_mut_ptr().cast(), bytes);
            std::ptr::copy_nonoverlapping(all.as_ptr(), tile.out(row), tile.width);
        }
    }
}

macro_rules! kernel {
    ($name:ident, $features:literal, $multiply:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const ROWS: usize>(tile: &Tile) {
            // SAFETY: the caller vouches for the tile's pointers and sizes; all offsets below stay within them.
            unsafe {
                let half = |h: usize| _mm256_loadu_si256(tile.bias.add(8 * h).cast());
                let mut acc = [[half(0), half(1)]; ROWS];
                let mut weight = tile.weight;
                for tap in 0..tile.taps {
                    let rows: [*const u8; ROWS] = tile.rows::<ROWS, false>(tap);
                    for q in 0..tile.quads {
                        let w: [__m256i; 2] =
                            std::array::from_fn(|h| _mm256_load_si256(weight.add(32 * h).cast()));
                        for r in 0..ROWS {
                            let a = _mm256_set1_epi32(quad(rows[r].add(4 * q)));
                            acc[r][0] = $multiply(acc[r][0], a, w[0]);
                            acc[r][1] = $multiply(acc[r][1], a, w[1]);
                        }
                        weight = weight.add(64);
                    }
                }
                for r in 0..ROWS {
                    finish(tile, r, acc[r]);
                }
            }
        }
    };
}

kernel!(avx_vnni, "avx2,avxvnni", |acc, a, w| _mm256_dpbusd_avx_epi32(acc, a, w));
/// Two quads at a time: where `tile.fours` says that no sum of four products leaves 16 bits, they are added there.
#[allow(clippy::needless_range_loop, reason = "one index walks several arrays")]
#[target_feature(enable = "avx2")]
unsafe fn avx2<const ROWS: usize>(tile: &Tile) {
    // SAFETY: the caller vouches for the tile's pointers and sizes; all offsets below stay within them.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let half = |h: usize| _mm256_loadu_si256(tile.bias.add(8 * h).cast());
        let mut acc = [[half(0), half(1)]; ROWS];
        let (mut weight, mut fours) = (tile.weight, tile.fours);
        for tap in 0..tile.taps {
            let rows: [*const u8; ROWS] = tile.rows::<ROWS, false>(tap);
            let mut q = 0;
            while q + 2 <= tile.quads {
                if *fours {
                    for h in 0..2 {
                        let w: [__m256i; 2] =
                            std::array::from_fn(|k| _mm256_load_si256(weight.add(64 * k + 32 * h).cast()));
                        for r in 0..ROWS {
                            let a = |k: usize| _mm256_set1_epi32(quad(rows[r].add(4 * (q + k))));
                            let pairs = [0, 1].map(|k| _mm256_maddubs_epi16(a(k), w[k]));
                            let sums = _mm256_madd_epi16(_mm256_add_epi16(pairs[0], pairs[1]), ones);
                            acc[r][h] = _mm256_add_epi32(acc[r][h], sums);
                        }
                    }
                } else {
                    for k in 0..2 {
                        for r in 0..ROWS {
                            let a = _mm256_set1_epi32(quad(rows[r].add(4 * (q + k))));
                            for h in 0..2 {
                                let w = _mm256_load_si256(weight.add(64 * k + 32 * h).cast());
                                let sums = _mm256_madd_epi16(_mm256_maddubs_epi16(a, w), ones);
                                acc[r][h] = _mm256_add_epi32(acc[r][h], sums);
                            }
                        }
                    }
                }
                (weight, fours) = (weight.add(128), fours.add(1));
                q += 2;
            }
            if q < tile.quads {
                for r in 0..ROWS {
                    let a = _mm256_set1_epi32(quad(rows[r].add(4 * q)));
                    for h in 0..2 {
                        let w = _mm256_load_si256(weight.add(32 * h).cast());
                        let sums = _mm256_madd_epi16(_mm256_maddubs_epi16(a, w), ones);
                        acc[r][h] = _mm256_add_epi32(acc[r][h], sums);
                    }
                }
                weight = weight.add(64);
            }
        }
        for r in 0..ROWS {
            finish(tile, r, acc[r]);
        }
    }
}

kernel!(avx2_wide, "avx2", |acc, a, w| {
    // Even and odd bytes apart, widened to 16 bits: the products of two neighbours fit 32 bits.
    let low = _mm256_set1_epi16(0xff);
    let even = _mm256_madd_epi16(_mm256_and_si256(a, low), _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)));
    let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a), _mm256_srai_epi16::<8>(w));
    _mm256_add_epi32(acc, _mm256_add_epi32(even, odd))
});
