//! The state of one warp: registers, and the stack of paths its lanes are on.

use crate::program::{Address, Base, EXIT, R};

use super::copy::Copies;

/// All lanes.
pub(super) const ALL: u32 = u32::MAX;

/// Indices of the set lanes.
#[inline]
pub(super) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let lane = left.trailing_zeros() as usize;
        left &= left - 1;
        Some(lane)
    })
}

/// A path: where its lanes go on, and where they meet those of the path below.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) pc: u32,
    pub(super) mask: u32,
    pub(super) meet: u32,
    /// Waits at a barrier for lanes of this warp on other paths.
    pub(super) waits: bool,
}

/// Why a warp stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Done,
    /// At a barrier: its number, warps expected (0: all), program counter.
    Barrier(u32, u32, u32),
    /// Its turn is over.
    Turn,
}

#[derive(Default)]
pub(super) struct Warp {
    pub(super) index: usize,
    pub(super) r32: Vec<[u32; 32]>,
    pub(super) r64: Vec<[u64; 32]>,
    pub(super) preds: Vec<u32>,
    pub(super) paths: Vec<Path>,
    /// Lanes that have not exited.
    pub(super) live: u32,
    pub(super) local: Vec<u8>,
    pub(super) copies: Copies,
    pub(super) clock: u64,
}

impl Warp {
    #[inline(always)]
    pub(super) fn get32(&self, r: R) -> &[u32; 32] {
        &self.r32[r as usize]
    }

    #[inline(always)]
    pub(super) fn get64(&self, r: R) -> &[u64; 32] {
        &self.r64[r as usize]
    }

    #[inline(always)]
    pub(super) fn pred(&self, r: R) -> u32 {
        self.preds[r as usize]
    }

    #[inline(always)]
    pub(super) fn set32(&mut self, r: R, value: [u32; 32], mask: u32) {
        let to = &mut self.r32[r as usize];
        if mask == ALL {
            *to = value;
        } else {
            for lane in 0..32 {
                let keep = ((mask >> lane) & 1).wrapping_sub(1);
                to[lane] = (to[lane] & keep) | (value[lane] & !keep);
            }
        }
    }

    #[inline(always)]
    pub(super) fn set64(&mut self, r: R, value: [u64; 32], mask: u32) {
        let to = &mut self.r64[r as usize];
        if mask == ALL {
            *to = value;
        } else {
            for lane in 0..32 {
                let keep = u64::from((mask >> lane) & 1).wrapping_sub(1);
                to[lane] = (to[lane] & keep) | (value[lane] & !keep);
            }
        }
    }

    #[inline(always)]
    pub(super) fn set_pred(&mut self, r: R, value: u32, mask: u32) {
        let to = &mut self.preds[r as usize];
        *to = (*to & !mask) | (value & mask);
    }

    /// The addresses of a memory operand.
    #[inline(always)]
    pub(super) fn addresses(&self, address: &Address) -> [u64; 32] {
        let offset = address.offset as u64;
        match address.base {
            Base::R64(r) => {
                let base = self.get64(r);
                std::array::from_fn(|l| base[l].wrapping_add(offset))
            }
            // 32-bit addresses are of shared or local memory and wrap within 32 bits.
            Base::R32(r) => {
                let base = self.get32(r);
                std::array::from_fn(|l| u64::from(base[l].wrapping_add(offset as u32)))
            }
            Base::None => [offset; 32],
        }
    }

    /// Parts the lanes of the running path: those in `taken` go to `target`, the others on at `next`. Both meet at
    /// `meet`. Returns the path to run.
    pub(super) fn part(&mut self, mut path: Path, next: u32, target: u32, taken: u32, meet: u32) -> Path {
        let others = path.mask & !taken;
        // When the meeting point is that of the path below, the lanes need no path of their own there.
        if meet != path.meet || meet == EXIT {
            path.pc = meet;
            if meet != EXIT {
                self.paths.push(path);
            }
        }
        let sides = [
            Path { pc: next, mask: others, meet, waits: false },
            Path { pc: target, mask: taken, meet, waits: false },
        ];
        for side in sides {
            if side.pc != meet {
                self.paths.push(side);
            }
        }
        self.pop()
    }

    /// The next path with lanes; one with an empty mask when there is none.
    pub(super) fn pop(&mut self) -> Path {
        while let Some(mut path) = self.paths.pop() {
            path.mask &= self.live;
            if path.mask != 0 && path.pc != EXIT {
                return path;
            }
        }
        Path { pc: EXIT, mask: 0, meet: EXIT, waits: false }
    }
}
