//! Tiles on aarch64: plain NEON, the dot product, and the 8-bit matrix product.
//!
//! Activations are unsigned, weights signed. Where the instructions want two signed bytes, activations are read as
//! `a - 128` (one exclusive-or for 16 bytes) and the bias holds `128 · Σ w` more, which is exact: sums wrap alike, and a
//! byte beside the picture is 0, so it reads as -128 and its part of the correction undoes it.
//!
//! The instructions of FEAT_DotProd and FEAT_I8MM are written in assembly, because their intrinsics are not stable.

#![allow(clippy::needless_range_loop, reason = "one index runs over sums, rows and weights at once")]

use super::{Isa, Tile};
use crate::engine::plan::Convolution;
use std::arch::aarch64::*;
use std::arch::asm;

/// What has to be added to an output's bias for these instructions.
pub fn correction(isa: Isa, weights: &[i8]) -> i32 {
    match isa {
        Isa::I8mm => 0,
        _ => weights.iter().map(|w| i32::from(*w)).sum::<i32>().wrapping_mul(128),
    }
}

/// How many products [`neon`] may add in 16 bits: 4, 2 or 1, by the worst that any activation can make of the weights.
/// Products that share a sum belong to neighbouring quads of one tap: inputs 4 apart.
pub fn depth(conv: &Convolution, channels: usize) -> usize {
    let fits = |depth: usize| {
        conv.weight.chunks(channels.max(1)).all(|inputs| {
            inputs.chunks(4 * depth).all(|group| {
                (0..4).all(|lane| {
                    let lane = group.iter().skip(lane).step_by(4).map(|w| i32::from(*w));
                    let (low, high) = lane.fold((0, 0), |(low, high), w| {
                        let ends = [w * -128, w * 127];
                        (low + ends[0].min(ends[1]), high + ends[0].max(ends[1]))
                    });
                    low >= i32::from(i16::MIN) && high <= i32::from(i16::MAX)
                })
            })
        })
    };
    [4, 2].into_iter().find(|depth| fits(*depth)).unwrap_or(1)
}

/// Computes a tile with one panel of outputs.
///
/// # Safety
/// The CPU has `isa`; the tile's pointers are valid for its sizes.
pub unsafe fn compute(isa: Isa, tile: &Tile) {
    // SAFETY: as this function's.
    unsafe {
        match (isa, tile.count) {
            (Isa::I8mm, 1 | 2) => i8mm::<1>(tile),
            (Isa::I8mm, 3 | 4) => i8mm::<2>(tile),
            (Isa::I8mm, 5 | 6) => i8mm::<3>(tile),
            (Isa::DotProd, 1) => dot_product::<1>(tile),
            (Isa::DotProd, 2) => dot_product::<2>(tile),
            (Isa::DotProd, 3) => dot_product::<3>(tile),
            (Isa::DotProd, 4) => dot_product::<4>(tile),
            (Isa::DotProd, 5) => dot_product::<5>(tile),
            (Isa::Neon, 1) => neon_rows::<1>(tile),
            (Isa::Neon, 2) => neon_rows::<2>(tile),
            _ => {}
        }
    }
}

/// # Safety
/// As [`compute`].
unsafe fn neon_rows<const ROWS: usize>(tile: &Tile) {
    // SAFETY: as this function's.
    unsafe {
        match tile.depth {
            4 => neon::<ROWS, 4>(tile),
            2 => neon::<ROWS, 2>(tile),
            _ => neon::<ROWS, 1>(tile),
        }
    }
}

/// Requantises 16 sums of a row and writes `tile.width` bytes, at most 16.
///
/// # Safety
/// The tile's multiplier holds 16 values, its `out` for this row points to `width` bytes.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn finish(tile: &Tile, row: usize, sums: [int32x4_t; 4]) {
    // SAFETY: as this function's.
    unsafe {
        // Rounds to even and saturates to 32 bits; the narrowing steps saturate in turn.
        let whole: [int32x4_t; 4] = std::array::from_fn(|g| {
            vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sums[g]), vld1q_f32(tile.multiplier.add(4 * g))))
        });
        let low = vqmovn_high_s32(vqmovn_s32(whole[0]), whole[1]);
        let high = vqmovn_high_s32(vqmovn_s32(whole[2]), whole[3]);
        let bytes = vqmovun_high_s16(vqmovun_s16(low), high);
        if tile.width >= 16 {
            vst1q_u8(tile.out(row), bytes);
        } else {
            let mut all = [0u8; 16];
            vst1q_u8(all.as_mut_ptr(), bytes);
            std::ptr::copy_nonoverlapping(all.as_ptr(), tile.out(row), tile.width);
        }
    }
}

/// Four activations less 128, in every group of four bytes.
///
/// # Safety
/// `from` points to four bytes.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn quad(from: *const u8) -> int8x16_t {
    // SAFETY: as this function's.
    let bytes = unsafe { from.cast::<u32>().read_unaligned() };
    vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_u32(vdupq_n_u32(bytes)), vdupq_n_u8(0x80)))
}

/// 16 activations less 128.
///
/// # Safety
/// `from` points to 16 bytes.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn quads(from: *const u8) -> int8x16_t {
    // SAFETY: as this function's.
    vreinterpretq_s8_u8(veorq_u8(unsafe { vld1q_u8(from) }, vdupq_n_u8(0x80)))
}

/// The pointer again, which the compiler cannot know before these two sums: loads behind it stay behind, so that no more
/// values live at once than there are registers. No instruction comes of it.
#[target_feature(enable = "neon")]
#[inline]
fn after(mut weight: *const i8, sums: &mut [int32x4_t]) -> *const i8 {
    if let [low, high] = sums {
        // SAFETY: the text is empty.
        unsafe {
            asm!("/* {weight} {low:v} {high:v} */", weight = inout(reg) weight, low = inout(vreg) *low, high = inout(vreg) *high,
                options(pure, nomem, nostack, preserves_flags));
        }
    }
    weight
}

/// Adds the products of `DEPTH` quads from quad `first` with the weights of outputs `4 g` to `4 g + 3`, and gives the
/// weights' pointer again.
///
/// # Safety
/// `weight` points to 256 bytes.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn products<const ROWS: usize, const DEPTH: usize>(
    weight: *const i8,
    g: usize,
    first: usize,
    a: &[[int8x16_t; 4]; ROWS],
    acc: &mut [[int32x4_t; 8]; ROWS],
) -> *const i8 {
    // SAFETY: `g` and the quads are below 4, so all loads stay within the 256 bytes.
    unsafe {
        let w = vld1q_s8(weight.add(64 * first + 16 * g));
        let mut low: [int16x8_t; ROWS] =
            std::array::from_fn(|r| vmull_s8(vget_low_s8(w), vget_low_s8(a[r][first])));
        let mut high: [int16x8_t; ROWS] = std::array::from_fn(|r| vmull_high_s8(w, a[r][first]));
        for next in first + 1..first + DEPTH {
            let w = vld1q_s8(weight.add(64 * next + 16 * g));
            for r in 0..ROWS {
                low[r] = vmlal_s8(low[r], vget_low_s8(w), vget_low_s8(a[r][next]));
                high[r] = vmlal_high_s8(high[r], w, a[r][next]);
            }
        }
        let mut weight = weight;
        for r in 0..ROWS {
            acc[r][2 * g] = vpadalq_s16(acc[r][2 * g], low[r]);
            acc[r][2 * g + 1] = vpadalq_s16(acc[r][2 * g + 1], high[r]);
            weight = after(weight, &mut acc[r][2 * g..][..2]);
        }
        weight
    }
}

/// Multiplies bytes to 16 bits and adds up to `DEPTH` products there before they go to 32 bits, two neighbours at a time.
/// A sum holds two outputs, each in two lanes.
///
/// # Safety
/// The tile's pointers are valid for its sizes; sums of `DEPTH` products of inputs 4 apart fit 16 bits.
#[target_feature(enable = "neon")]
unsafe fn neon<const ROWS: usize, const DEPTH: usize>(tile: &Tile) {
    // SAFETY: the caller vouches for the tile's pointers and sizes; all offsets below stay within them.
    unsafe {
        let mut acc = [[vdupq_n_s32(0); 8]; ROWS];
        let mut weight = tile.weight;
        for tap in 0..tile.taps {
            let rows: [*const u8; ROWS] = tile.rows::<ROWS, false>(tap);
            let mut q = 0;
            while q + 4 <= tile.quads {
                let bytes: [int32x4_t; ROWS] =
                    std::array::from_fn(|r| vreinterpretq_s32_s8(quads(rows[r].add(4 * q))));
                let a: [[int8x16_t; 4]; ROWS] = std::array::from_fn(|r| {
                    [
                        vreinterpretq_s8_s32(vdupq_laneq_s32::<0>(bytes[r])),
                        vreinterpretq_s8_s32(vdupq_laneq_s32::<1>(bytes[r])),
                        vreinterpretq_s8_s32(vdupq_laneq_s32::<2>(bytes[r])),
                        vreinterpretq_s8_s32(vdupq_laneq_s32::<3>(bytes[r])),
                    ]
                });
                // Written out, since indices known to the compiler keep the sums in registers.
                macro_rules! outputs {
                    ($($g:literal)*) => { $(
                        for first in (0..4).step_by(DEPTH) {
                            weight = products::<ROWS, DEPTH>(weight, $g, first, &a, &mut acc);
                        }
                    )* };
                }
                outputs!(0 1 2 3);
                weight = weight.add(256);
                q += 4;
            }
            while q < tile.quads {
                let a: [int8x16_t; ROWS] = std::array::from_fn(|r| quad(rows[r].add(4 * q)));
                for g in 0..4 {
                    let w = vld1q_s8(weight.add(16 * g));
                    for r in 0..ROWS {
                        let low = vmull_s8(vget_low_s8(w), vget_low_s8(a[r]));
                        acc[r][2 * g] = vpadalq_s16(acc[r][2 * g], low);
                        acc[r][2 * g + 1] = vpadalq_s16(acc[r][2 * g + 1], vmull_high_s8(w, a[r]));
                    }
                }
                weight = weight.add(64);
                q += 1;
            }
        }
        for r in 0..ROWS {
            let sums = std::array::from_fn(|g| {
                vaddq_s32(vpaddq_s32(acc[r][2 * g], acc[r][2 * g + 1]), vld1q_s32(tile.bias.add(4 * g)))
            });
            finish(tile, r, sums);
        }
    }
}

/// Adds to each lane the four products of its weights with quad `LANE` of the activations, all signed.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot<const LANE: i32>(mut acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: reads and writes these registers only; the CPU has the instruction, as the caller vouched.
    unsafe {
        asm!("sdot {acc:v}.4s, {w:v}.16b, {a:v}.4b[{lane}]", acc = inout(vreg) acc, w = in(vreg) w, a = in(vreg) a,
            lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// # Safety
/// The CPU has FEAT_DotProd; the tile's pointers are valid for its sizes.
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot_product<const ROWS: usize>(tile: &Tile) {
    // SAFETY: the caller vouches for the tile's pointers and sizes; all offsets below stay within them.
    unsafe {
        let bias: [int32x4_t; 4] = std::array::from_fn(|g| vld1q_s32(tile.bias.add(4 * g)));
        let mut acc = [bias; ROWS];
        let mut weight = tile.weight;
        for tap in 0..tile.taps {
            let rows: [*const u8; ROWS] = tile.rows::<ROWS, false>(tap);
            let mut q = 0;
            while q + 4 <= tile.quads {
                let a: [int8x16_t; ROWS] = std::array::from_fn(|r| quads(rows[r].add(4 * q)));
                macro_rules! lane {
                    ($($lane:literal)*) => { $(
                        for g in 0..4 {
                            let w = vld1q_s8(weight.add(64 * $lane + 16 * g));
                            for r in 0..ROWS {
                                acc[r][g] = sdot::<$lane>(acc[r][g], w, a[r]);
                            }
                        }
                    )* };
                }
                lane!(0 1 2 3);
                weight = weight.add(256);
                q += 4;
            }
            while q < tile.quads {
                let a: [int8x16_t; ROWS] = std::array::from_fn(|r| quad(rows[r].add(4 * q)));
                for g in 0..4 {
                    let w = vld1q_s8(weight.add(16 * g));
                    for r in 0..ROWS {
                        acc[r][g] = sdot::<0>(acc[r][g], w, a[r]);
                    }
                }
                weight = weight.add(64);
                q += 1;
            }
        }
        for r in 0..ROWS {
            finish(tile, r, acc[r]);
        }
    }
}

/// Adds the product of two pixels' eight activations (unsigned) with two outputs' eight weights (signed): lanes are
/// `[pixel 0 · output 0, pixel 0 · output 1, pixel 1 · output 0, pixel 1 · output 1]`.
#[target_feature(enable = "neon,i8mm")]
#[inline]
fn usmmla(mut acc: int32x4_t, a: uint8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: reads and writes these registers only; the CPU has the instruction, as the caller vouched.
    unsafe {
        asm!("usmmla {acc:v}.4s, {a:v}.16b, {w:v}.16b", acc = inout(vreg) acc, a = in(vreg) a, w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// Four activations and four zeros.
///
/// # Safety
/// `from` points to four bytes.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn four(from: *const u8) -> uint8x8_t {
    // SAFETY: as this function's.
    vcreate_u8(u64::from(unsafe { from.cast::<u32>().read_unaligned() }))
}

/// Pixels by twos, inputs by eights; of an odd count the last pixel is computed twice and written once.
///
/// # Safety
/// The CPU has FEAT_I8MM; the tile's pointers are valid for its sizes.
#[target_feature(enable = "neon,i8mm")]
unsafe fn i8mm<const PAIRS: usize>(tile: &Tile) {
    // SAFETY: the caller vouches for the tile's pointers and sizes; all offsets below stay within them.
    unsafe {
        let mut acc = [[vdupq_n_s32(0); 8]; PAIRS];
        let mut weight = tile.weight;
        let last = tile.count - 1;
        for tap in 0..tile.taps {
            let rows: [[*const u8; 2]; PAIRS] = std::array::from_fn(|p| {
                [tile.rows[tap * tile.count + 2 * p], tile.rows[tap * tile.count + last.min(2 * p + 1)]]
            });
            for q in (0..tile.quads).step_by(2) {
                // Of an odd number of quads the last has zeros beside it.
                let whole = q + 2 <= tile.quads;
                let a: [uint8x16_t; PAIRS] = std::array::from_fn(|p| {
                    let [first, second] = rows[p].map(|row| row.add(4 * q));
                    if whole {
                        vcombine_u8(vld1_u8(first), vld1_u8(second))
                    } else {
                        vcombine_u8(four(first), four(second))
                    }
                });
                for o in 0..8 {
                    let w = vld1q_s8(weight.add(16 * o));
                    for p in 0..PAIRS {
                        acc[p][o] = usmmla(acc[p][o], a[p], w);
                    }
                }
                weight = weight.add(128);
            }
        }
        // Written out, since indices known to the compiler keep the sums in registers.
        macro_rules! rows {
            ($($pair:literal $half:ident $row:literal)*) => { $(
                if $row < tile.count && $pair < PAIRS {
                    let sums = std::array::from_fn(|g| {
                        let two = [0, 1].map(|o| vreinterpretq_s64_s32(acc[$pair][2 * g + o]));
                        let four = vreinterpretq_s32_s64($half(two[0], two[1]));
                        vaddq_s32(four, vld1q_s32(tile.bias.add(4 * g)))
                    });
                    finish(tile, $row, sums);
                }
            )* };
        }
        rows!(0 vtrn1q_s64 0  0 vtrn2q_s64 1  1 vtrn1q_s64 2  1 vtrn2q_s64 3  2 vtrn1q_s64 4  2 vtrn2q_s64 5);
    }
}
