//! The kernels: a tile of output pixels by one or two panels of sixteen outputs, whose sums stay in registers.

use super::lanes::Lanes;

/// Most output pixels of a tile.
pub const ROWS: usize = 14;
/// Most taps of a window: 5x5.
pub const TAPS: usize = 25;
/// Outputs of a panel.
pub const PANEL: usize = 16;

/// Which instructions compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512, 16 products an instruction.
    Avx512,
    /// AVX2 with FMA, 8 products an instruction.
    Avx2,
    /// Any 64-bit Arm, 4 products an instruction.
    Neon,
    /// Any CPU, what the compiler makes of it.
    Portable,
}

impl Isa {
    /// All, the fastest first.
    pub const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// This CPU has the instructions.
    pub fn is_here(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Isa::Portable => true,
            _ => false,
        }
    }

    /// The fastest that this CPU has.
    pub fn best() -> Isa {
        Self::ALL.into_iter().find(|isa| isa.is_here()).unwrap_or(Isa::Portable)
    }

    /// Output pixels and panels of a tile: as many sums as registers hold.
    pub(super) fn tile(self) -> (usize, usize) {
        match self {
            Isa::Avx512 => (14, 2),
            Isa::Avx2 | Isa::Neon => (6, 1),
            Isa::Portable => (2, 1),
        }
    }
}

/// One tile for a kernel.
pub struct Tile {
    /// Pointers for `[tap][row]` where `next` is the number of rows, or for rows alone where it is 0.
    pub rows: [*const f32; ROWS * TAPS],
    pub next: usize,
    /// From a row's pointer to each tap, in values.
    pub offsets: [usize; TAPS],
    /// Output pixels, taps, and inputs of each tap.
    pub count: usize,
    pub taps: usize,
    pub depth: usize,
    /// `[tap][input][panel][16]`.
    pub weight: *const f32,
    pub bias: *const f32,
    /// Outputs of the first pixel, and values from one pixel's to the next one's.
    pub out: *mut f32,
    pub across: usize,
    /// Outputs to write, at most 16 a panel.
    pub width: usize,
    /// Negative sums become 0.
    pub relu: bool,
}

/// Computes a tile with `panels` panels.
///
/// # Safety
/// The CPU has `isa`; the pointers are valid for what the sizes say, `count` and `panels` are within [`Isa::tile`].
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
    match (isa, panels) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, 2) => rows!(avx512, 2, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, _) => rows!(avx512, 1, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, _) => rows!(avx2, 1, 1 2 3 4 5 6),
        #[cfg(target_arch = "aarch64")]
        (Isa::Neon, _) => rows!(neon, 1, 1 2 3 4 5 6),
        _ => rows!(portable, 1, 1 2),
    }
}

macro_rules! kernel {
    ($name:ident, $lanes:ty $(, $features:literal)?) => {
        $(#[target_feature(enable = $features)])?
        unsafe fn $name<const ROWS: usize, const PANELS: usize>(tile: &Tile) {
            // SAFETY: as `compute`'s.
            unsafe { sums::<$lanes, ROWS, PANELS>(tile) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(avx512, std::arch::x86_64::__m512, "avx512f");
#[cfg(target_arch = "x86_64")]
kernel!(avx2, [std::arch::x86_64::__m256; 2], "avx2,fma");
#[cfg(target_arch = "aarch64")]
kernel!(neon, [std::arch::aarch64::float32x4_t; 4], "neon");
kernel!(portable, [f32; 16]);

/// # Safety
/// As [`compute`]'s, with the instructions of `L`.
#[allow(clippy::needless_range_loop, reason = "one index walks several arrays")]
#[inline(always)]
unsafe fn sums<L: Lanes, const ROWS: usize, const PANELS: usize>(tile: &Tile) {
    // SAFETY: the caller vouches for the tile's pointers and sizes; all offsets below stay within them.
    unsafe {
        let mut acc = [[L::zero(); PANELS]; ROWS];
        for row in &mut acc {
            for (p, sum) in row.iter_mut().enumerate() {
                *sum = L::load(tile.bias.add(PANEL * p));
            }
        }
        let mut weight = tile.weight;
        for tap in 0..tile.taps {
            let rows: [*const f32; ROWS] = std::array::from_fn(|row| {
                (*tile.rows.as_ptr().add(tap * tile.next + row)).add(*tile.offsets.as_ptr().add(tap))
            });
            for k in 0..tile.depth {
                let w: [L; PANELS] = std::array::from_fn(|p| L::load(weight.add(PANEL * p)));
                for p in 0..PANELS {
                    L::fetch(weight.wrapping_add(PANEL * (p + 16)));
                }
                for r in 0..ROWS {
                    let a = L::splat(rows[r].add(k));
                    for p in 0..PANELS {
                        acc[r][p] = acc[r][p].add_product(a, w[p]);
                    }
                }
                weight = weight.add(PANEL * PANELS);
            }
        }
        if tile.relu {
            for row in &mut acc {
                for sum in row {
                    *sum = sum.max(L::zero());
                }
            }
        }
        if tile.width == PANEL * PANELS {
            for r in 0..ROWS {
                for p in 0..PANELS {
                    acc[r][p].store(tile.out.add(r * tile.across + PANEL * p));
                }
            }
            return;
        }
        let mut all = [[[0.0f32; PANEL]; PANELS]; ROWS];
        for r in 0..ROWS {
            for p in 0..PANELS {
                acc[r][p].store(all[r][p].as_mut_ptr());
            }
        }
        for (r, row) in all.iter().enumerate() {
            std::ptr::copy_nonoverlapping(row.as_ptr().cast(), tile.out.add(r * tile.across), tile.width);
        }
    }
}
