//! Tiles of AMX (Intel Architecture Instruction Set Extensions Reference, chapter 3): `tdpbusd` multiplies 16 rows of 64
//! bytes with 64 x 16 weights. The intrinsics are not stable, so the inner loop is assembly.
//!
//! A panel of packed weights is a sequence of tiles as they are. A window of stride 1 without padding reads its pixels where
//! they lie: all outputs follow one another at the distance of the inputs, those between two rows are not written. For other
//! windows the patches of a block of pixels are gathered, which costs one store for 64 bytes. Taps of a window's row lie
//! side by side, so that K is padded to 64 once a row. Beyond a tensor's last channel or pixel tiles read what is there: its weights are 0, or its sums are
//! not written.

use super::job::Job;
use super::packing::Packed;
use super::{BEYOND, PANEL};
use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

/// Pixels of a block: two tiles.
const PIXELS: usize = 32;
/// Up to so many pixels the outputs are shared out, so that weights are read once.
const FEW: usize = 64;

/// The CPU has the instructions and the system lets this process use them.
pub fn is_here() -> bool {
    static HERE: OnceLock<bool> = OnceLock::new();
    *HERE.get_or_init(|| {
        let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        // Leaf 7 tells of tiles (bit 24) and their 8-bit products (bit 25).
        let tiles = __cpuid(0).eax >= 7 && (__cpuid_count(7, 0).edx >> 24) & 3 == 3;
        avx512 && tiles && saved() && permitted()
    })
}

/// The system saves the tiles' state (bits 17 and 18 of XCR0) when it changes threads.
fn saved() -> bool {
    if (__cpuid(1).ecx >> 27) & 1 == 0 {
        return false;
    }
    let (low, _high): (u32, u32);
    // SAFETY: the bit before says that the system has enabled this instruction.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _high, options(nomem, nostack)) };
    (low >> 17) & 3 == 3
}

/// Asks Linux to let the process use tiles (Documentation/arch/x86/xstate.rst).
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: isize = 0x1023;
    const XTILEDATA: isize = 18;
    let result: isize;
    // SAFETY: this system call reads and writes no memory of ours; `syscall` overwrites rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Shapes of the tiles as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

/// A thread's tiles, all of 16 rows of 64 bytes; given back when dropped.
pub struct Tiles(());

impl Tiles {
    /// # Safety
    /// [`is_here`].
    pub unsafe fn take() -> Self {
        let (mut bytes, mut rows) = ([0; 16], [0; 16]);
        bytes[..8].fill(64);
        rows[..8].fill(16);
        let config = Config { palette: 1, start: 0, reserved: [0; 14], bytes, rows };
        // SAFETY: the CPU has tiles; the configuration is a valid one of 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
        Self(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `take` was called, so the CPU has tiles.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}

/// Sums of a block of pixels with 32 outputs.
#[repr(align(64))]
struct Sums([i32; PIXELS * 2 * PANEL]);

/// A thread's own memory: gathered patches, and sums.
pub struct Scratch {
    patches: Vec<u8>,
    sums: Box<Sums>,
    /// Job whose patches are all gathered, when pixels are few.
    gathered: Option<usize>,
}

impl Scratch {
    /// Memory for all these convolutions.
    pub fn new(packed: &[Option<Packed>]) -> Self {
        let pitch = packed.iter().flatten().filter(|p| p.gathered).map(pitch).max();
        let size = pitch.map_or(0, |pitch| pitch * FEW.max(PIXELS) + 2 * 64);
        Self { patches: vec![0; size], sums: Box::new(Sums([0; PIXELS * 2 * PANEL])), gathered: None }
    }
}

impl Scratch {
    /// Forgets the patches of the picture before.
    pub fn start(&mut self) {
        self.gathered = None;
    }
}

/// Bytes from patch to patch: an odd number of cache lines, so that rows of a tile lie in different sets of the cache.
fn pitch(packed: &Packed) -> usize {
    ((packed.blocks / 16) | 1) * 64
}

/// Pixels that tiles walk over: those of the output, or with those between its rows where the input is read in place.
fn pixels(job: &Job) -> usize {
    let [rows, columns, _] = job.to.shape;
    if job.packed.gathered { rows * columns } else { (rows - 1) * job.from.shape[1] + columns }
}

/// Pieces of a job: blocks of pixels, or pairs of panels where pixels are few.
pub fn pieces(job: &Job) -> usize {
    let pixels = pixels(job);
    if pixels <= FEW { job.packed.bias.len().div_ceil(2 * PANEL) } else { pixels.div_ceil(PIXELS) }
}

/// Computes a piece.
///
/// # Safety
/// [`is_here`], and the thread holds [`Tiles`].
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn run(job: &Job, piece: usize, scratch: &mut Scratch) {
    let pixels = pixels(job);
    let pairs = job.packed.bias.len().div_ceil(2 * PANEL);
    let Scratch { patches, sums, gathered } = scratch;
    let skip = patches.as_ptr().align_offset(64);
    let patches = patches.get_mut(skip..).unwrap_or_default();
    let pitch = pitch(job.packed);
    // SAFETY: as this function's; all offsets come from the plan's places and shapes.
    unsafe {
        if pixels <= FEW {
            // The patches stay as long as the job is the same.
            let identity = std::ptr::from_ref(job.packed) as usize;
            if job.packed.gathered && *gathered != Some(identity) {
                gather(job, 0..pixels, patches, pitch);
            }
            *gathered = Some(identity);
            for first in (0..pixels).step_by(PIXELS) {
                block(
                    job,
                    first..pixels.min(first + PIXELS),
                    piece..piece + 1,
                    &patches[(first * pitch).min(patches.len())..],
                    pitch,
                    sums,
                );
            }
        } else {
            let range = piece * PIXELS..pixels.min((piece + 1) * PIXELS);
            if job.packed.gathered {
                gather(job, range.clone(), patches, pitch);
            }
            *gathered = None;
            block(job, range, 0..pairs, patches, pitch, sums);
        }
    }
}

/// Copies the patches of `pixels`, taps one after the other.
///
/// # Safety
/// As [`run`]'s.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn gather(job: &Job, pixels: std::ops::Range<usize>, patches: &mut [u8], pitch: usize) {
    let (from, window) = (job.from, &job.conv.window);
    let ([h, w, channels], [kh, kw]) = (from.shape, window.kernel);
    let ow = job.to.shape[1];
    // Bytes from kernel row to kernel row in the patch.
    let run = if job.packed.taps == 1 { kw * channels } else { job.packed.blocks / job.packed.taps * 4 };
    assert!(patches.len() >= pixels.len() * pitch + 64 && pitch >= kh * run && run >= kw * channels);
    let start = job.arena.start();
    let mut row = patches.as_mut_ptr();
    let (mut oy, mut ox) = (pixels.start / ow, pixels.start % ow);
    for _ in pixels {
        let left = (ox * window.stride[1]).wrapping_sub(window.padding[1]);
        let top = (oy * window.stride[0]).wrapping_sub(window.padding[0]);
        let inside = left < w && left + kw <= w && from.step == channels;
        if inside && top < h && top + kh <= h && run <= 4 && kh * run <= 16 {
            // A few bytes: one store, which a tile can read at once.
            let mut bytes = 0u128;
            for ky in 0..kh {
                let place = from.place + ((top + ky) * w + left) * from.step;
                // SAFETY: four bytes from a pixel of the tensor on lie in the arena.
                let quad = unsafe { start.add(place).cast::<u32>().read_unaligned() };
                bytes |= (u128::from(quad) & ((1 << (8 * run)) - 1)) << (8 * run * ky);
            }
            // SAFETY: the patch has 64 bytes and more.
            unsafe {
                let low = _mm_set_epi64x((bytes >> 64) as i64, bytes as i64);
                _mm512_storeu_si512(row.cast(), _mm512_zextsi128_si512(low));
            }
        } else {
            for ky in 0..kh {
                let y = top.wrapping_add(ky);
                // SAFETY: within the patch.
                let to = unsafe { row.add(ky * run) };
                if y >= h {
                    // SAFETY: `kw · channels` bytes of this patch.
                    unsafe { zero(to, kw * channels) };
                } else if inside {
                    let place = from.place + (y * w + left) * from.step;
                    // SAFETY: these pixels lie in the tensor; up to 63 bytes more are read in the arena and written behind,
                    // where the next taps or the next patch overwrite them.
                    unsafe { copy(start.add(place), to, kw * channels) };
                } else {
                    for kx in 0..kw {
                        // SAFETY: as above, for each tap.
                        unsafe {
                            let to = to.add(kx * channels);
                            let x = left.wrapping_add(kx);
                            if x < w {
                                copy(start.add(from.place + (y * w + x) * from.step), to, channels);
                            } else {
                                zero(to, channels);
                            }
                        }
                    }
                }
            }
        }
        // SAFETY: as asserted above.
        row = unsafe { row.add(pitch) };
        ox += 1;
        if ox == ow {
            (ox, oy) = (0, oy + 1);
        }
    }
}

/// Copies `length` bytes and up to 63 more.
///
/// # Safety
/// Both may be read and written so far.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    for at in (0..length).step_by(64) {
        // SAFETY: as this function's.
        unsafe { _mm512_storeu_si512(to.add(at).cast(), _mm512_loadu_si512(from.add(at).cast())) };
    }
}

/// Writes `length` zeros and up to 63 more.
///
/// # Safety
/// They may be written.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn zero(to: *mut u8, length: usize) {
    for at in (0..length).step_by(64) {
        // SAFETY: as this function's.
        unsafe { _mm512_storeu_si512(to.add(at).cast(), _mm512_setzero_si512()) };
    }
}

/// Multiplies a block of pixels with `pairs` pairs of panels and writes the bytes.
///
/// # Safety
/// As [`run`]'s; `patches` holds the pixels' patches where they are gathered.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn block(
    job: &Job,
    pixels: std::ops::Range<usize>,
    pairs: std::ops::Range<usize>,
    patches: &[u8],
    pitch: usize,
    sums: &mut Sums,
) {
    let (packed, to) = (job.packed, job.to);
    let panels = packed.bias.len() / PANEL;
    let (a, step) = if packed.gathered {
        (patches.as_ptr(), pitch)
    } else {
        let place = job.from.place + pixels.start * job.from.step;
        // SAFETY: the pixel lies in the arena, which goes on for BEYOND pixels behind every tensor.
        (unsafe { job.arena.start().add(place) }.cast_const(), job.from.step)
    };
    const { assert!(BEYOND >= 16) };
    // Where each pixel's outputs go; none between two rows.
    let mut outs = [std::ptr::null_mut(); PIXELS];
    let across = if packed.gathered { to.shape[1] } else { job.from.shape[1] };
    let (mut oy, mut ox) = (pixels.start / across, pixels.start % across);
    for out in &mut outs[..pixels.len()] {
        if ox < to.shape[1] {
            // SAFETY: a pixel of the output tensor.
            *out = unsafe { job.arena.start().add(to.place + (oy * to.shape[1] + ox) * to.step) };
        }
        ox += 1;
        if ox == across {
            (ox, oy) = (0, oy + 1);
        }
    }
    let all = packed.blocks / 16;
    let (runs, tiles) = if packed.gathered { (1, all) } else { (packed.taps, all / packed.taps) };
    let skip = (job.from.shape[1] * job.from.step).wrapping_sub(tiles * 64);
    let count = pairs.len();
    for pair in pairs {
        let panel = 2 * pair;
        let wide = panel + 1 < panels;
        // SAFETY: the panels exist, the last one alone where their number is odd; `sums` holds 32 x 32 sums; tiles read
        // pixels as above.
        unsafe {
            let b = packed.weight[panel * packed.blocks..].as_ptr().cast();
            let (bias, sums) = (packed.bias[panel * PANEL..].as_ptr(), sums.0.as_mut_ptr());
            let factors = Product { a, step, b, panel: packed.blocks * 64, bias, runs, tiles, skip, sums };
            match (pixels.len() > 16, wide) {
                // The first block of a piece that has the weights for itself.
                (true, true) if pixels.start == 0 && count == 1 => product_2x2_far(factors),
                (true, true) => product_2x2(factors),
                (true, false) => product_2x1(factors),
                (false, true) => product_1x2(factors),
                (false, false) => product_1x1(factors),
            }
            let first = panel * PANEL;
            let width = (to.shape[2] - first).min(2 * PANEL);
            finish(sums, packed.multiplier[first..].as_ptr(), wide, width, &outs[..pixels.len()], first);
        }
    }
}

/// Requantises sums `[pixel][32]` and writes `width` bytes a pixel, from output `channel` on.
///
/// # Safety
/// Each of `outs` is null or may be written so far; there are 32 multipliers, or 16 where the pair is not `wide`.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn finish(
    sums: *const i32,
    multiplier: *const f32,
    wide: bool,
    width: usize,
    outs: &[*mut u8],
    channel: usize,
) {
    // SAFETY: as this function's.
    unsafe {
        let low = _mm512_loadu_ps(multiplier);
        let high = if wide { _mm512_loadu_ps(multiplier.add(16)) } else { _mm512_setzero_ps() };
        let limit = _mm512_set1_ps(255.0);
        let scale = |at: usize, m: __m512| {
            let real = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums.add(at).cast())), m);
            // Beyond 32 bits the conversion gives the lowest number; bounded before it, large values stay large.
            _mm512_cvtps_epi32(_mm512_min_ps(real, limit))
        };
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let mask = if width >= 32 { u64::MAX } else { (1u64 << width) - 1 };
        let write = |out: *mut u8, bytes: __m256i| {
            if out.is_null() {
                return;
            }
            let out = out.add(channel);
            if width >= 32 {
                _mm256_storeu_si256(out.cast(), bytes);
            } else {
                _mm512_mask_storeu_epi8(out.cast(), mask, _mm512_castsi256_si512(bytes));
            }
        };
        for (number, pair) in outs.chunks(2).enumerate() {
            let at = number * 64;
            // Two pixels at once: their sums for odd counts are there, and not written.
            let first = _mm512_packs_epi32(scale(at, low), scale(at + 16, high));
            let second = _mm512_packs_epi32(scale(at + 32, low), scale(at + 48, high));
            let bytes = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(first, second));
            write(pair[0], _mm512_castsi512_si256(bytes));
            if let Some(out) = pair.get(1) {
                write(*out, _mm512_extracti64x4_epi64::<1>(bytes));
            }
        }
    }
}

/// What one call of the inner loop multiplies.
struct Product {
    /// First pixel, and bytes from pixel to pixel.
    a: *const u8,
    step: usize,
    /// First panel, and bytes from panel to panel.
    b: *const i8,
    panel: usize,
    bias: *const i32,
    /// Runs of tiles of 64 inputs, and bytes from one run's end to the next.
    runs: usize,
    tiles: usize,
    skip: usize,
    /// `[32 pixels][32 outputs]`.
    sums: *mut i32,
}

/// An inner loop: sums begin with the bias (a tile of equal rows: stride 0), then for each 64 inputs load and multiply.
macro_rules! product {
    ($name:ident, [$($bias:literal),*], [$($body:literal),*], [$($store:literal),*]) => {
        /// # Safety
        /// All pointers are valid for what the tiles read and write, and the thread holds [`Tiles`].
        unsafe fn $name(p: Product) {
            // SAFETY: as this function's; no tile's contents are expected before or after.
            unsafe {
                asm!(
                    $($bias,)*
                    "mov {s}, 64",
                    "3:",
                    "mov {k}, {tiles}",
                    "2:",
                    $($body,)*
                    "add {a0}, 64",
                    "add {a1}, 64",
                    "add {b0}, 1024",
                    "add {b1}, 1024",
                    "dec {k}",
                    "jnz 2b",
                    "add {a0}, {skip}",
                    "add {a1}, {skip}",
                    "dec {runs}",
                    "jnz 3b",
                    "mov {s}, 128",
                    $($store,)*
                    a0 = inout(reg) p.a => _,
                    a1 = inout(reg) p.a.wrapping_add(16 * p.step) => _,
                    b0 = inout(reg) p.b => _,
                    b1 = inout(reg) p.b.wrapping_add(p.panel) => _,
                    k = out(reg) _,
                    runs = inout(reg) p.runs => _,
                    tiles = in(reg) p.tiles,
                    skip = in(reg) p.skip,
                    s = inout(reg) 0usize => _,
                    step = in(reg) p.step,
                    bias = in(reg) p.bias,
                    out = in(reg) p.sums,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

product!(
    product_2x2,
    [
        "tileloadd tmm0, [{bias} + {s}]",
        "tileloadd tmm1, [{bias} + {s} + 64]",
        "tileloadd tmm2, [{bias} + {s}]",
        "tileloadd tmm3, [{bias} + {s} + 64]"
    ],
    [
        "tileloadd tmm6, [{b0} + {s}]",
        "tileloadd tmm4, [{a0} + {step}]",
        "tdpbusd tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b1} + {s}]",
        "tdpbusd tmm1, tmm4, tmm7",
        "tileloadd tmm5, [{a1} + {step}]",
        "tdpbusd tmm2, tmm5, tmm6",
        "tdpbusd tmm3, tmm5, tmm7"
    ],
    [
        "tilestored [{out} + {s}], tmm0",
        "tilestored [{out} + {s} + 64], tmm1",
        "tilestored [{out} + {s} + 2048], tmm2",
        "tilestored [{out} + {s} + 2112], tmm3"
    ]
);
// As before, for weights that come from memory: each iteration asks for those of eight iterations later.
product!(
    product_2x2_far,
    [
        "tileloadd tmm0, [{bias} + {s}]",
        "tileloadd tmm1, [{bias} + {s} + 64]",
        "tileloadd tmm2, [{bias} + {s}]",
        "tileloadd tmm3, [{bias} + {s} + 64]"
    ],
    [
        "prefetcht1 [{b0} + 8192]",
        "prefetcht1 [{b0} + 8256]",
        "prefetcht1 [{b0} + 8320]",
        "prefetcht1 [{b0} + 8384]",
        "prefetcht1 [{b0} + 8448]",
        "prefetcht1 [{b0} + 8512]",
        "prefetcht1 [{b0} + 8576]",
        "prefetcht1 [{b0} + 8640]",
        "prefetcht1 [{b0} + 8704]",
        "prefetcht1 [{b0} + 8768]",
        "prefetcht1 [{b0} + 8832]",
        "prefetcht1 [{b0} + 8896]",
        "prefetcht1 [{b0} + 8960]",
        "prefetcht1 [{b0} + 9024]",
        "prefetcht1 [{b0} + 9088]",
        "prefetcht1 [{b0} + 9152]",
        "tileloadd tmm6, [{b0} + {s}]",
        "tileloadd tmm4, [{a0} + {step}]",
        "tdpbusd tmm0, tmm4, tmm6",
        "prefetcht1 [{b1} + 8192]",
        "prefetcht1 [{b1} + 8256]",
        "prefetcht1 [{b1} + 8320]",
        "prefetcht1 [{b1} + 8384]",
        "prefetcht1 [{b1} + 8448]",
        "prefetcht1 [{b1} + 8512]",
        "prefetcht1 [{b1} + 8576]",
        "prefetcht1 [{b1} + 8640]",
        "prefetcht1 [{b1} + 8704]",
        "prefetcht1 [{b1} + 8768]",
        "prefetcht1 [{b1} + 8832]",
        "prefetcht1 [{b1} + 8896]",
        "prefetcht1 [{b1} + 8960]",
        "prefetcht1 [{b1} + 9024]",
        "prefetcht1 [{b1} + 9088]",
        "prefetcht1 [{b1} + 9152]",
        "tileloadd tmm7, [{b1} + {s}]",
        "tdpbusd tmm1, tmm4, tmm7",
        "tileloadd tmm5, [{a1} + {step}]",
        "tdpbusd tmm2, tmm5, tmm6",
        "tdpbusd tmm3, tmm5, tmm7"
    ],
    [
        "tilestored [{out} + {s}], tmm0",
        "tilestored [{out} + {s} + 64], tmm1",
        "tilestored [{out} + {s} + 2048], tmm2",
        "tilestored [{out} + {s} + 2112], tmm3"
    ]
);
product!(
    product_1x2,
    ["tileloadd tmm0, [{bias} + {s}]", "tileloadd tmm1, [{bias} + {s} + 64]"],
    [
        "tileloadd tmm4, [{a0} + {step}]",
        "tileloadd tmm6, [{b0} + {s}]",
        "tdpbusd tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b1} + {s}]",
        "tdpbusd tmm1, tmm4, tmm7"
    ],
    ["tilestored [{out} + {s}], tmm0", "tilestored [{out} + {s} + 64], tmm1"]
);
product!(
    product_2x1,
    ["tileloadd tmm0, [{bias} + {s}]", "tileloadd tmm2, [{bias} + {s}]"],
    [
        "tileloadd tmm6, [{b0} + {s}]",
        "tileloadd tmm4, [{a0} + {step}]",
        "tdpbusd tmm0, tmm4, tmm6",
        "tileloadd tmm5, [{a1} + {step}]",
        "tdpbusd tmm2, tmm5, tmm6"
    ],
    ["tilestored [{out} + {s}], tmm0", "tilestored [{out} + {s} + 2048], tmm2"]
);
product!(
    product_1x1,
    ["tileloadd tmm0, [{bias} + {s}]"],
    ["tileloadd tmm4, [{a0} + {step}]", "tileloadd tmm6, [{b0} + {s}]", "tdpbusd tmm0, tmm4, tmm6"],
    ["tilestored [{out} + {s}], tmm0"]
);
