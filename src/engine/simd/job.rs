//! A convolution cut into tiles and shared out among threads.

#[cfg(target_arch = "aarch64")]
use super::aarch64;
use super::packing::{Block, Packed};
use super::{Arena, GATHERED, Isa, PANEL, ROWS, TAPS};
#[cfg(target_arch = "x86_64")]
use super::{amx, x86};
use crate::engine::plan::{Convolution, Tensor};
use std::ops::Range;

/// One tile for a kernel: pointers for `[tap][row]`, and where each row's outputs go.
pub struct Tile {
    /// Pointers to input bytes; see [`Tile::rows`].
    pub rows: [*const u8; ROWS * TAPS],
    /// Pointers from one tap's rows to the next one's: 0 where all taps lie as far from a row's pointer.
    pub next: usize,
    /// Bytes from a row's pointer to a tap.
    pub offsets: *const usize,
    /// Where the outputs of the first row go, and bytes from one row's to the next one's.
    pub out: *mut u8,
    pub across: usize,
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
    /// See [`Packed::small`].
    #[cfg(target_arch = "x86_64")]
    pub small: bool,
    /// See [`Packed::fours`]; valid for AVX2.
    #[cfg(target_arch = "x86_64")]
    pub fours: *const bool,
    /// Where the weights of a later layer lie, to be fetched into the second cache meanwhile, and by how many bytes to go
    /// on there with each quad. The address may lie beyond them: a prefetch never faults.
    #[cfg(target_arch = "x86_64")]
    pub ahead: *const i8,
    #[cfg(target_arch = "x86_64")]
    pub advance: usize,
    /// Products that fit a sum of 16 bits.
    #[cfg(target_arch = "aarch64")]
    pub depth: usize,
}

impl Tile {
    /// Where each row's inputs of a tap begin, for instructions that follow offsets and those that do not.
    ///
    /// # Safety
    /// The tile has `ROWS` rows and this tap; offsets are 0 for those that do not follow them.
    #[inline(always)]
    pub unsafe fn rows<const ROWS: usize, const OFFSETS: bool>(&self, tap: usize) -> [*const u8; ROWS] {
        let rows = self.rows.as_ptr();
        // SAFETY: such an index is in range, and the pointers and offsets lead to input bytes.
        std::array::from_fn(|row| unsafe {
            if OFFSETS {
                (*rows.add(tap * self.next + row)).add(*self.offsets.add(tap))
            } else {
                *rows.add(tap * ROWS + row)
            }
        })
    }

    /// Where a row's outputs go.
    ///
    /// # Safety
    /// The tile has this row.
    #[inline(always)]
    pub unsafe fn out(&self, row: usize) -> *mut u8 {
        // SAFETY: the row's outputs lie in the output tensor.
        unsafe { self.out.add(row * self.across) }
    }
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

impl<'a> Job<'a> {
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

    /// Weights that a thread reads for its share of the pieces.
    pub fn weights(&self, thread: usize, threads: usize) -> &'a [Block] {
        let packed: &'a Packed = self.packed;
        let weight = &packed.weight[..];
        match self.cut(threads) {
            Cut::Pixels => weight,
            Cut::Outputs => {
                let pieces = self.pieces(threads);
                let share = |thread: usize| weight.len() * (pieces * thread / threads) / pieces;
                &weight[share(thread)..share(thread + 1)]
            }
        }
    }

    /// Computes a piece and meanwhile fetches what lies `ahead`, weights of a later layer, into the second cache.
    pub fn run(&self, piece: usize, ahead: &[Block], threads: usize, scratch: &mut Scratch) {
        #[cfg(target_arch = "x86_64")]
        if self.isa == Isa::Amx {
            // SAFETY: the CPU has AMX, or there would be no such job.
            return unsafe { amx::run(self, piece, &mut scratch.amx) };
        }
        let (tiles, panels, pieces) = (self.tile_count(), self.panels(), self.pieces(threads));
        match self.cut(threads) {
            Cut::Pixels => {
                let range = tiles * piece / pieces..tiles * (piece + 1) / pieces;
                self.tiles(range, tiles, 0..panels, ahead, &mut scratch.gathered);
            }
            Cut::Outputs => {
                let group = self.isa.tile().1;
                let range =
                    if pieces == 1 { 0..panels } else { group * piece..panels.min(group * (piece + 1)) };
                self.tiles(0..tiles, tiles, range, ahead, &mut scratch.gathered);
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
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_variables, reason = "only kernels of x86-64 fetch ahead")
    )]
    fn tiles(
        &self,
        range: Range<usize>,
        tiles: usize,
        panels: Range<usize>,
        ahead: &[Block],
        gathered: &mut [u8],
    ) {
        let packed = self.packed;
        let mut tile = Tile {
            rows: [std::ptr::null(); ROWS * TAPS],
            out: std::ptr::null_mut(),
            across: self.to.step,
            next: 0,
            offsets: std::ptr::null(),
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
            small: packed.small,
            #[cfg(target_arch = "x86_64")]
            fours: std::ptr::null(),
            #[cfg(target_arch = "x86_64")]
            ahead: ahead.as_ptr().cast(),
            #[cfg(target_arch = "x86_64")]
            advance: 0,
            #[cfg(target_arch = "aarch64")]
            depth: packed.depth,
        };
        let outputs = self.to.shape[0] * self.to.shape[1];
        let pixels = |number: usize| outputs * number / tiles..outputs * (number + 1) / tiles;
        let group = self.isa.tile().1;
        #[cfg(target_arch = "x86_64")]
        {
            let quads = range.len() * panels.len().div_ceil(group) * packed.taps * packed.quads;
            tile.advance = std::mem::size_of_val(ahead).div_ceil(quads.max(1)).min(64);
        }
        let taps = self.taps();
        for number in range {
            self.read(pixels(number), &taps, &mut tile, gathered);
            for panel in panels.clone().step_by(group) {
                self.write(pixels(number).start, panel, group.min(panels.end - panel), &mut tile);
            }
        }
    }

    /// From a window's first byte to each tap that the kernel walks over, or that is gathered.
    fn taps(&self) -> [usize; TAPS] {
        let [kh, kw] = self.conv.window.kernel;
        // Whole rows of the window where their inputs lie side by side.
        let across = if !self.packed.gathered && self.packed.taps < kh * kw { 1 } else { kw };
        let mut taps = [0; TAPS];
        for (k, tap) in taps[..kh * across].iter_mut().enumerate() {
            *tap = (k / across * self.from.shape[1] + k % across) * self.from.step;
        }
        taps
    }

    /// Points a tile's rows to what its pixels read.
    fn read(&self, pixels: Range<usize>, taps: &[usize; TAPS], tile: &mut Tile, gathered: &mut [u8]) {
        let (from, packed, window) = (self.from, self.packed, &self.conv.window);
        let ([kh, kw], [height, width, channels]) = (window.kernel, from.shape);
        let (start, across) = (self.arena.start(), self.to.shape[1]);
        tile.count = pixels.len();
        // The first input pixel of each row's window, where negative numbers are large ones, and whether all of it is there.
        let mut corners = [([0; 2], false); ROWS];
        let (mut oy, mut ox) = (pixels.start / across, pixels.start % across);
        for (corner, inside) in &mut corners[..tile.count] {
            let top = (oy * window.stride[0]).wrapping_sub(window.padding[0]);
            let left = (ox * window.stride[1]).wrapping_sub(window.padding[1]);
            *inside = top < height && top + kh <= height && left < width && left + kw <= width;
            *corner = [top, left];
            ox += 1;
            if ox == across {
                (ox, oy) = (0, oy + 1);
            }
        }
        let corners = &corners[..tile.count];
        let place = |y: usize, x: usize| from.place + (y * width + x) * from.step;
        if self.isa.follows_offsets() && !packed.gathered && corners.iter().all(|(_, inside)| *inside) {
            for (row, ([top, left], _)) in tile.rows.iter_mut().zip(corners) {
                // SAFETY: the offset lies in the arena (Plan's memory).
                *row = unsafe { start.add(place(*top, *left)) };
            }
            (tile.next, tile.offsets) = (0, taps.as_ptr());
            return;
        }
        (tile.next, tile.offsets) = (tile.count, const { &[0; TAPS] }.as_ptr());
        for (row, ([top, left], inside)) in corners.iter().enumerate() {
            if *inside && !packed.gathered {
                let corner = place(*top, *left);
                for (k, tap) in taps[..packed.taps].iter().enumerate() {
                    // SAFETY: the offset lies in the arena.
                    tile.rows[k * tile.count + row] = unsafe { start.add(corner + tap) };
                }
                continue;
            }
            let mut tap = 0;
            for ky in 0..kh {
                let y = top.wrapping_add(ky);
                for kx in 0..kw {
                    let x = left.wrapping_add(kx);
                    // Without a pixel the offset is 0: the arena's first bytes stay 0.
                    let at = if y < height && x < width { place(y, x) } else { 0 };
                    if packed.gathered {
                        let patch = &mut gathered[row * GATHERED + tap * channels..][..channels];
                        for (c, byte) in patch.iter_mut().enumerate() {
                            // SAFETY: a pixel of `from` or the zeros, in the arena; no task of this step writes them.
                            *byte = unsafe { *start.add(at + c) };
                        }
                    } else {
                        // SAFETY: the offset lies in the arena.
                        tile.rows[tap * tile.count + row] = unsafe { start.add(at) };
                    }
                    tap += 1;
                }
            }
            if packed.gathered {
                // Weights beyond the patch are 0, but what an earlier layer left here must not be read as a pad.
                gathered[row * GATHERED + tap * channels..][..3].fill(0);
                tile.rows[row] = gathered[row * GATHERED..].as_ptr();
            }
        }
    }

    /// Computes `wide` panels of outputs, from `panel` on, of a tile whose rows are set and whose first pixel is `first`.
    fn write(&self, first: usize, panel: usize, wide: usize, tile: &mut Tile) {
        let (to, packed) = (self.to, self.packed);
        // SAFETY: pixel and panel lie in the output tensor, hence in the arena.
        tile.out = unsafe { self.arena.start().add(to.place + first * to.step + panel * PANEL) };
        tile.weight = packed.weight[panel * packed.blocks..].as_ptr().cast();
        #[cfg(target_arch = "x86_64")]
        {
            tile.fours = packed.fours[panel * packed.pairs..].as_ptr();
        }
        tile.bias = packed.bias[panel * PANEL..].as_ptr();
        tile.multiplier = packed.multiplier[panel * PANEL..].as_ptr();
        tile.width = (to.shape[2] - panel * PANEL).min(wide * PANEL);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the pointers of the tile are valid for what its sizes say: rows point to `quads · 4` bytes of the arena, of
        // which those beyond a tap's inputs meet weights of 0 (or into `gathered`, zero-padded), weights, bias and
        // multiplier hold `wide` panels, `out` points to `width` bytes of the output tensor that only this task writes.
        // `isa` was found on this CPU.
        unsafe {
            x86::compute(self.isa, tile, wide);
        }
        #[cfg(target_arch = "x86_64")]
        {
            tile.ahead = tile.ahead.wrapping_add(tile.advance * tile.taps * tile.quads);
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            aarch64::compute(self.isa, tile);
        }
    }
}
