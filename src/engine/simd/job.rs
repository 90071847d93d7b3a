//! A convolution cut into tiles and shared out among threads.

#[cfg(target_arch = "aarch64")]
use super::aarch64;
use super::packing::Packed;
use super::{Arena, GATHERED, Isa, PANEL, ROWS, TAPS};
#[cfg(target_arch = "x86_64")]
use super::{amx, x86};
use crate::engine::plan::{Convolution, Tensor, Window};
use std::ops::Range;

/// One tile for a kernel: pointers for `[tap][row]`, and where each row's outputs go.
pub struct Tile {
    /// A pointer to the first input byte for each tap and row.
    pub rows: [*const u8; ROWS * TAPS],
    /// Where the outputs of the panel go, for each row.
    pub out: [*mut u8; ROWS],
    pub count: usize,
    pub taps: usize,
    pub quads: usize,
    pub weight: *const i8,
    pub bias: *const i32,
    pub multiplier: *const f32,
    /// Outputs to write: 16 a panel, fewer in the last.
    pub width: usize,
    /// Bytes of a panel.
    #[cfg(target_arch = "x86_64")]
    pub panel: usize,
    #[cfg(target_arch = "x86_64")]
    pub pairs_fit: bool,
    /// See [`Packed::fours`]; valid for AVX2.
    #[cfg(target_arch = "x86_64")]
    pub fours: *const bool,
    /// Products that fit a sum of 16 bits.
    #[cfg(target_arch = "aarch64")]
    pub depth: usize,
}

/// First byte of the pixel that a tap reads, or none beside the picture.
pub fn tap(from: &Tensor, window: &Window, oy: usize, ox: usize, k: usize) -> Option<usize> {
    let [h, w, _] = from.shape;
    let (ky, kx) = (k / window.kernel[1], k % window.kernel[1]);
    let y = (oy * window.stride[0] + ky).wrapping_sub(window.padding[0]);
    let x = (ox * window.stride[1] + kx).wrapping_sub(window.padding[1]);
    (y < h && x < w).then(|| from.place + (y * w + x) * from.step)
}

/// A convolution on its way.
pub struct Job<'a> {
    pub conv: &'a Convolution,
    pub packed: &'a Packed,
    pub from: &'a Tensor,
    pub to: &'a Tensor,
    pub arena: Arena,
    pub isa: Isa,
}

/// How a convolution is shared out.
enum Cut {
    Pixels,
    Outputs,
}

/// A thread's own memory.
pub struct Scratch {
    gathered: Vec<u8>,
    #[cfg(target_arch = "x86_64")]
    amx: amx::Scratch,
}

impl Scratch {
    /// Memory for all these convolutions.
    pub fn new(isa: Isa, packed: &[Option<Packed>]) -> Self {
        let any = isa != Isa::Amx && packed.iter().flatten().any(|p| p.gathered);
        Self {
            gathered: vec![0; if any { ROWS * GATHERED + 64 } else { 0 }],
            #[cfg(target_arch = "x86_64")]
            amx: amx::Scratch::new(if isa == Isa::Amx { packed } else { &[] }),
        }
    }
}

impl Scratch {
    /// Makes ready for another picture.
    pub fn start(&mut self) {
        #[cfg(target_arch = "x86_64")]
        self.amx.start();
    }
}

impl Job<'_> {
    /// Pieces that threads take one after the other; they may run in any order, or at the same time.
    pub fn pieces(&self, threads: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.isa == Isa::Amx {
            return amx::pieces(self);
        }
        match self.cut(threads) {
            _ if threads == 1 => 1,
            Cut::Pixels => self.tile_count().min(8 * threads),
            Cut::Outputs => self.panels().div_ceil(self.isa.tile().1),
        }
    }

    /// Computes a piece.
    pub fn run(&self, piece: usize, threads: usize, scratch: &mut Scratch) {
        #[cfg(target_arch = "x86_64")]
        if self.isa == Isa::Amx {
            // SAFETY: the CPU has AMX, or there would be no such job.
            return unsafe { amx::run(self, piece, &mut scratch.amx) };
        }
        let (tiles, panels, pieces) = (self.tile_count(), self.panels(), self.pieces(threads));
        match self.cut(threads) {
            Cut::Pixels => {
                let range = tiles * piece / pieces..tiles * (piece + 1) / pieces;
                self.tiles(range, tiles, 0..panels, &mut scratch.gathered);
            }
            Cut::Outputs => {
                let group = self.isa.tile().1;
                let range =
                    if pieces == 1 { 0..panels } else { group * piece..panels.min(group * (piece + 1)) };
                self.tiles(0..tiles, tiles, range, &mut scratch.gathered);
            }
        }
    }

    fn tile_count(&self) -> usize {
        (self.to.shape[0] * self.to.shape[1]).div_ceil(self.isa.tile().0)
    }

    fn panels(&self) -> usize {
        self.packed.bias.len() / PANEL
    }

    /// By tiles of pixels where there are many, else by panels of outputs.
    fn cut(&self, threads: usize) -> Cut {
        if self.tile_count() >= 8 * threads { Cut::Pixels } else { Cut::Outputs }
    }

    /// Computes tiles `range` of `tiles` equal ones, and of their outputs the panels `panels`.
    fn tiles(&self, range: Range<usize>, tiles: usize, panels: Range<usize>, gathered: &mut [u8]) {
        let (from, to, packed) = (self.from, self.to, self.packed);
        let [h, w, outputs] = to.shape;
        let kernel = self.conv.window.kernel[0] * self.conv.window.kernel[1];
        let (_, group) = self.isa.tile();
        let mut tile = Tile {
            rows: [std::ptr::null(); ROWS * TAPS],
            out: [std::ptr::null_mut(); ROWS],
            count: 0,
            taps: packed.taps,
            quads: packed.quads,
            weight: std::ptr::null(),
            bias: std::ptr::null(),
            multiplier: std::ptr::null(),
            width: 0,
            #[cfg(target_arch = "x86_64")]
            panel: packed.blocks * 64,
            #[cfg(target_arch = "x86_64")]
            pairs_fit: self.conv.pairs_fit,
            #[cfg(target_arch = "x86_64")]
            fours: std::ptr::null(),
            #[cfg(target_arch = "aarch64")]
            depth: packed.depth,
        };
        let start = self.arena.start();
        let window = &self.conv.window;
        let ([kh, kw], [rows, columns, channels]) = (window.kernel, from.shape);
        // From a window's first pixel to each of its taps.
        let mut taps = [0; TAPS];
        for (k, tap) in taps[..kernel].iter_mut().enumerate() {
            *tap = (k / kw * columns + k % kw) * from.step;
        }
        for number in range {
            let (first, last) = (h * w * number / tiles, h * w * (number + 1) / tiles);
            tile.count = last - first;
            let (mut oy, mut ox) = (first / w, first % w);
            for row in 0..tile.count {
                let top = (oy * window.stride[0]).wrapping_sub(window.padding[0]);
                let left = (ox * window.stride[1]).wrapping_sub(window.padding[1]);
                // Negative numbers are large ones here.
                let inside = top < rows && top + kh <= rows && left < columns && left + kw <= columns;
                let corner = from
                    .place
                    .wrapping_add((top.wrapping_mul(columns).wrapping_add(left)).wrapping_mul(from.step));
                let place = |k: usize| {
                    let (y, x) = (top.wrapping_add(k / kw), left.wrapping_add(k % kw));
                    (inside || y < rows && x < columns).then(|| corner.wrapping_add(taps[k]))
                };
                if packed.gathered {
                    let patch = &mut gathered[row * GATHERED..][..kernel * channels];
                    for (k, bytes) in patch.chunks_exact_mut(channels).enumerate() {
                        match place(k) {
                            // SAFETY: a pixel of `from`, whose bytes lie in the arena (Plan's memory); no task of this step
                            // writes them.
                            Some(at) => bytes.iter_mut().enumerate().for_each(|(c, byte)| unsafe {
                                *byte = *start.add(at + c);
                            }),
                            None => bytes.fill(0),
                        }
                    }
                    // Weights beyond the patch are 0, but what an earlier layer left here must not be read as a pad.
                    gathered[row * GATHERED + kernel * channels..][..3].fill(0);
                    tile.rows[row] = gathered[row * GATHERED..].as_ptr();
                } else if inside {
                    for (k, tap) in taps[..kernel].iter().enumerate() {
                        // SAFETY: the offset lies in the arena.
                        tile.rows[k * tile.count + row] = unsafe { start.add(corner + tap) };
                    }
                } else {
                    for k in 0..kernel {
                        // Without a pixel the offset is 0: the arena's first bytes stay 0.
                        // SAFETY: the offset lies in the arena.
                        tile.rows[k * tile.count + row] = unsafe { start.add(place(k).unwrap_or(0)) };
                    }
                }
                ox += 1;
                if ox == w {
                    (ox, oy) = (0, oy + 1);
                }
            }
            for panel in panels.clone().step_by(group) {
                let wide = group.min(panels.end - panel);
                for row in 0..tile.count {
                    // SAFETY: pixel and panel lie in the output tensor, hence in the arena.
                    tile.out[row] = unsafe { start.add(to.place + (first + row) * to.step + panel * PANEL) };
                }
                tile.weight = packed.weight[panel * packed.blocks..].as_ptr().cast();
                #[cfg(target_arch = "x86_64")]
                {
                    tile.fours = packed.fours
                        [(panel * packed.fours.len() / self.panels()).min(packed.fours.len())..]
                        .as_ptr();
                }
                tile.bias = packed.bias[panel * PANEL..].as_ptr();
                tile.multiplier = packed.multiplier[panel * PANEL..].as_ptr();
                tile.width = (outputs - panel * PANEL).min(wide * PANEL);
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the pointers of the tile are valid for what its sizes say: rows point to `quads · 4` input bytes or
                // to as many zeros (or into `gathered`, zero-padded), weights, bias and multiplier hold `wide` panels, `out`
                // points to `width` bytes of the output tensor that only this task writes. `isa` was found on this CPU.
                unsafe {
                    x86::compute(self.isa, &tile, wide);
                }
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                unsafe {
                    aarch64::compute(self.isa, &tile);
                }
            }
        }
    }
}
