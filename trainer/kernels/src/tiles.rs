//! The matrix product on Intel's tile units (AMX): operands rounded to bfloat16, sums in f32.
//!
//! Both operands are packed in tiles of 1 KiB: 16 rows by 32 elements of the left one, 32 by 16 of the right one with two
//! neighbouring rows side by side. A block of 2 by 2 tiles of the output stays in registers over up to 1,024 elements.
//! Stable Rust has no functions for these instructions, so they are written as assembly.

use crate::product::Matrix;
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

/// A tile of 16 rows of 64 bytes: two bfloat16 in each word.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tile([u32; 256]);

/// Elements of the left operand's rows that are packed at once.
const DEPTH: usize = 1024;

/// `ldtilecfg`'s memory: palette 1, eight tiles of 16 rows and 64 bytes (Intel SDM, volume 1, chapter 18).
#[repr(C, align(64))]
struct Shapes([u8; 64]);

const SHAPES: Shapes = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut i = 0;
    while i < 8 {
        bytes[16 + 2 * i] = 64;
        bytes[48 + i] = 16;
        i += 1;
    }
    Shapes(bytes)
};

/// The CPU has the units and the system lets this process use them, which it is asked for once.
pub fn are_here() -> bool {
    static HERE: OnceLock<bool> = OnceLock::new();
    *HERE.get_or_init(|| {
        if cfg!(not(target_os = "linux")) || __cpuid(0).eax < 7 {
            return false;
        }
        let features = __cpuid_count(7, 0).edx;
        let (bf16, tile) = (features >> 22 & 1, features >> 24 & 1);
        bf16 == 1 && tile == 1 && is_x86_feature_detected!("avx512f") && permitted()
    })
}

/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`: Linux grants the tiles' registers to a process that asks.
fn permitted() -> bool {
    let mut answer = 158i64;
    // SAFETY: a system call that changes nothing but this process's permission; it clobbers rcx and r11.
    unsafe {
        asm!("syscall", inout("rax") answer, in("rdi") 0x1023, in("rsi") 18, out("rcx") _, out("r11") _,
            options(nostack));
    }
    answer == 0
}

/// Rounds to the nearest bfloat16, ties to even, kept in the upper half of the word.
fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000
}

fn pair(low: f32, high: f32) -> u32 {
    rounded(low) >> 16 | rounded(high)
}

/// Packs a matrix with rows `start..start + depth` of it along a tile's words (two to a word) and its columns along the
/// tile's other side; `across` is true where a word's column goes along the row of a tile (the right operand).
fn pack(tiles: &mut Vec<Tile>, matrix: Matrix, [start, depth]: [usize; 2], across: bool) {
    let lines = matrix.size[1];
    let (strips, deep) = (lines.div_ceil(16).next_multiple_of(2), depth.div_ceil(32));
    tiles.clear();
    tiles.resize(strips * deep, Tile([0; 256]));
    let [down, along] = matrix.step();
    for line in 0..lines {
        let strip = &mut tiles[line / 16 * deep..][..deep];
        let from = start * down + line * along;
        for (t, tile) in strip.iter_mut().enumerate() {
            let count = (depth - t * 32).min(32);
            let at = from + t * 32 * down;
            let value = |d: usize| if d < count { matrix.values[at + d * down] } else { 0.0 };
            for w in 0..16 {
                let place = if across { w * 16 + line % 16 } else { line % 16 * 16 + w };
                tile.0[place] = pair(value(2 * w), value(2 * w + 1));
            }
        }
    }
}

/// Packs the right operand where its rows are contiguous: 16 neighbours at once.
fn pack_rows(tiles: &mut Vec<Tile>, matrix: Matrix, [start, depth]: [usize; 2]) {
    let lines = matrix.size[1];
    let (strips, deep) = (lines.div_ceil(16).next_multiple_of(2), depth.div_ceil(32));
    tiles.clear();
    tiles.resize(strips * deep, Tile([0; 256]));
    let width = matrix.step()[0];
    for d in (0..depth).step_by(2) {
        let low = &matrix.values[(start + d) * width..][..lines];
        let high = (d + 1 < depth).then(|| &matrix.values[(start + d + 1) * width..][..lines]);
        for strip in 0..lines.div_ceil(16) {
            let columns = strip * 16..(strip * 16 + 16).min(lines);
            let to = &mut tiles[strip * deep + d / 32].0[d % 32 / 2 * 16..][..columns.len()];
            match high {
                Some(high) => to
                    .iter_mut()
                    .zip(low[columns.clone()].iter().zip(&high[columns]))
                    .for_each(|(to, (l, h))| *to = pair(*l, *h)),
                None => to.iter_mut().zip(&low[columns]).for_each(|(to, l)| *to = pair(*l, 0.0)),
            }
        }
    }
}

/// `out = lhs · rhs`, or `out += lhs · rhs` where `add`, with both operands rounded to bfloat16.
///
/// # Safety
/// [`are_here`] said true; `out` holds the rows of `lhs` times the columns of `rhs`.
pub unsafe fn multiply(out: &mut [f32], add: bool, lhs: Matrix, rhs: Matrix) {
    let ([m, k], n) = (lhs.size, rhs.size[1]);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut block = [Tile([0; 256]); 4];
    // SAFETY: the units are there.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &SHAPES, options(nostack, readonly)) };
    for start in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - start);
        let deep = depth.div_ceil(32);
        let more = add || start > 0;
        pack(&mut a, lhs.turned(), [start, depth], false);
        if rhs.step()[1] == 1 {
            pack_rows(&mut b, rhs, [start, depth]);
        } else {
            pack(&mut b, rhs, [start, depth], true);
        }
        for column in (0..n).step_by(32) {
            for row in (0..m).step_by(32) {
                let (a, b) = (&a[row / 16 * deep..], &b[column / 16 * deep..]);
                // SAFETY: both strips hold `deep` tiles and the next ones as many, since strips are even in number.
                unsafe { block_of(&mut block, a.as_ptr(), b.as_ptr(), deep) };
                for r in 0..32.min(m - row) {
                    for half in (0..2).filter(|half| column + 16 * half < n) {
                        let at = column + 16 * half;
                        let to = &mut out[(row + r) * n + at..][..16.min(n - at)];
                        let from = &block[r / 16 * 2 + half].0[r % 16 * 16..];
                        let sums = from.iter().map(|bits| f32::from_bits(*bits));
                        if more {
                            to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
                        } else {
                            to.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum);
                        }
                    }
                }
            }
        }
    }
    // SAFETY: the units are there; nothing below uses the tiles.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Two strips of `a` times two of `b`, each of `deep` tiles.
///
/// # Safety
/// Tiles are configured; `a` and `b` point to `2 · deep` tiles; `deep` is at least 1.
unsafe fn block_of(block: &mut [Tile; 4], a: *const Tile, b: *const Tile, deep: usize) {
    // SAFETY: as this function's; a tile's rows are 64 bytes apart.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a0} + {step}*1]",
            "tileloadd tmm6, [{b0} + {step}*1]",
            "tileloadd tmm5, [{a1} + {step}*1]",
            "tileloadd tmm7, [{b1} + {step}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 1024",
            "add {a1}, 1024",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {count}",
            "jnz 2b",
            "tilestored [{c} + {step}*1], tmm0",
            "tilestored [{c} + {step}*1 + 1024], tmm1",
            "tilestored [{c} + {step}*1 + 2048], tmm2",
            "tilestored [{c} + {step}*1 + 3072], tmm3",
            a0 = inout(reg) a => _,
            a1 = inout(reg) a.add(deep) => _,
            b0 = inout(reg) b => _,
            b1 = inout(reg) b.add(deep) => _,
            count = inout(reg) deep => _,
            c = in(reg) block.as_mut_ptr(),
            step = in(reg) 64usize,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::testing;

    #[test]
    fn rounding_is_to_the_nearest_and_even() {
        for (value, expected) in
            [(1.0, 1.0), (1.0 + 1.0 / 256.0, 1.0), (1.0 + 3.0 / 256.0, 1.015625), (-0.3, -0.30078125)]
        {
            assert_eq!(f32::from_bits(rounded(value)), expected);
        }
    }

    // Odd sizes, both orders of both operands, added and not, against sums in f64 of the rounded operands.
    #[test]
    fn products_equal_sums_of_rounded_operands() {
        if !are_here() {
            println!("skipped: this CPU has no bfloat16 tile units");
            return;
        }
        let sizes = [(1, 1, 1), (32, 64, 32), (13, 257, 33), (45, 1100, 47), (3, 5, 100), (40, 31, 16)];
        let round = |v| f32::from_bits(rounded(v));
        // SAFETY: the units are there, the sizes fit.
        testing::check(&sizes, round, |out, add, lhs, rhs| unsafe { multiply(out, add, lhs, rhs) });
    }
}
