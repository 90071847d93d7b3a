//! Order between the blocks of one launch on global memory.
//!
//! Blocks have none, except through atomics: a block whose writes were followed by a fence publishes them with its
//! next atomic, and a block whose atomic meets that one later sees them behind a fence of its own (the split-K ticket of
//! *CUDA C++ Programming Guide*, "Memory Fence Functions"). Kept as clocks of blocks; the blocks run one by one.

use std::collections::HashMap;

use super::Trouble;
use super::shared::Kind;
use crate::error::FaultKind;

/// Words in a page of the shadow.
const PAGE: u64 = 1024;

#[derive(Clone, Copy, Debug, Default)]
struct Touch {
    /// Block plus one; 0 for nobody.
    block: u32,
    clock: u32,
    line: u32,
    mask: u8,
    atomic: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Word {
    writer: Touch,
    readers: [Touch; 2],
}

/// The shadow of global memory during one launch.
#[derive(Default)]
pub(super) struct GlobalRaces {
    pages: HashMap<u64, Box<[Word]>>,
    /// What each atomic's address published: block to clock.
    published: HashMap<u64, HashMap<u32, u32>>,
    /// The running block plus one, its clock, and what it has acquired.
    block: u32,
    clock: u32,
    acquired: HashMap<u32, u32>,
    /// What its atomics met, which a fence makes acquired.
    met: HashMap<u32, u32>,
    /// Warps with writes since the last barrier, and with such that no fence followed.
    wrote: u32,
    unfenced: u32,
    /// Writes from before the last barrier that no fence followed.
    old_unfenced: bool,
}

impl GlobalRaces {
    pub(super) fn begin(&mut self, block: u32) {
        self.block = block + 1;
        self.clock = 0;
        self.acquired.clear();
        self.met.clear();
        self.wrote = 0;
        self.unfenced = 0;
        self.old_unfenced = false;
    }

    /// The whole block met at a barrier.
    pub(super) fn barrier(&mut self) {
        self.old_unfenced |= self.unfenced != 0;
        self.unfenced = 0;
        self.wrote = 0;
    }

    pub(super) fn fence(&mut self, warp: usize) {
        self.unfenced &= !(1 << warp);
        self.old_unfenced = false;
        for (block, clock) in self.met.drain() {
            let known = self.acquired.entry(block).or_insert(clock);
            *known = clock.max(*known);
        }
    }

    pub(super) fn touch(
        &mut self,
        address: u64,
        bytes: usize,
        kind: Kind,
        warp: usize,
        line: u32,
    ) -> Result<(), Trouble> {
        let mut from = address;
        let end = address + bytes as u64;
        while from < end {
            let word = from / 4;
            let until = end.min((word + 1) * 4);
            let mask = ((0xFu8 << (from % 4)) & (0xF >> ((word + 1) * 4 - until))) & 0xF;
            self.word(word, mask, kind, line)?;
            from = until;
        }
        match kind {
            Kind::Write => {
                self.wrote |= 1 << warp;
                self.unfenced |= 1 << warp;
            }
            Kind::Atomic => self.meet(address, warp),
            Kind::Read => {}
        }
        Ok(())
    }

    /// An atomic: meets what others published here, and publishes.
    fn meet(&mut self, address: u64, warp: usize) {
        let published = self.published.entry(address).or_default();
        for (&block, &clock) in published.iter() {
            let known = self.met.entry(block).or_insert(clock);
            *known = clock.max(*known);
        }
        let own = 1u32 << warp;
        let ordered = !self.old_unfenced && self.unfenced & own == 0 && self.wrote & !own == 0;
        if ordered {
            for (&block, &clock) in &self.acquired {
                published.insert(block, clock);
            }
            published.insert(self.block, self.clock);
            self.clock += 1;
        }
    }

    fn word(&mut self, word: u64, mask: u8, kind: Kind, line: u32) -> Result<(), Trouble> {
        let page = self
            .pages
            .entry(word / PAGE)
            .or_insert_with(|| vec![Word::default(); PAGE as usize].into_boxed_slice());
        let cell = &mut page[(word % PAGE) as usize];
        let atomic = kind == Kind::Atomic;
        let block = self.block;
        let acquired = &self.acquired;
        let unordered = |touch: &Touch| {
            touch.mask & mask != 0
                && touch.block != block
                && touch.block != 0
                && acquired.get(&touch.block).is_none_or(|&seen| seen < touch.clock)
        };
        let trouble = |earlier: &str, touch: &Touch| {
            Trouble::new(
                FaultKind::Race,
                format!(
                    "global address {:#x} is {} after block {} has {earlier} it at PTX line {}, with no fence and atomic between",
                    word * 4,
                    match kind {
                        Kind::Read => "read",
                        Kind::Write => "written",
                        Kind::Atomic => "changed atomically",
                    },
                    touch.block - 1,
                    touch.line
                ),
            )
        };
        if unordered(&cell.writer) && !(atomic && cell.writer.atomic) {
            return Err(trouble("written", &cell.writer));
        }
        if kind != Kind::Read
            && let Some(reader) = cell.readers.iter().find(|r| unordered(r))
        {
            return Err(trouble("read", reader));
        }
        let touch = Touch { block, clock: self.clock, line, mask, atomic };
        if kind == Kind::Read {
            if cell.readers[0].block == block {
                cell.readers[0].mask |= mask;
                cell.readers[0].clock = self.clock;
            } else {
                cell.readers[1] = cell.readers[0];
                cell.readers[0] = touch;
            }
        } else if cell.writer.block == block && cell.writer.clock == self.clock {
            cell.writer.mask |= mask;
            cell.writer.atomic = atomic;
        } else {
            cell.writer = touch;
        }
        Ok(())
    }
}
