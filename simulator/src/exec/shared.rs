//! A block's shared memory, with a shadow that remembers who touched each word.
//!
//! Order between warps is kept as vector clocks (Flanagan and Freund, *FastTrack*, PLDI 2009): each warp has a
//! clock that a barrier raises, and knows the clocks of the others up to the last barrier it shared with them.

use super::Trouble;
use crate::error::FaultKind;
use crate::memory::POISON;

/// Most warps a block.
pub(super) const WARPS: usize = 32;

/// Who accesses: warp, lane, and what the warp knows of the others' clocks.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) warp: u8,
    pub(super) lane: u8,
    pub(super) seen: &'a [u32; WARPS],
    pub(super) line: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Atomic,
}

/// Several lanes of one warp.
const MANY: u8 = 0xFE;

#[derive(Clone, Copy, Debug, Default)]
struct Touch {
    clock: u32,
    line: u32,
    warp: u8,
    lane: u8,
    /// Bytes of the word.
    mask: u8,
    atomic: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Word {
    writer: Touch,
    readers: [Touch; 2],
    /// Bytes that were ever written.
    init: u8,
    /// Bytes that a cp.async in flight will write.
    flying: u8,
    flying_line: u32,
}

pub(super) struct Shared {
    pub(super) data: Vec<u8>,
    words: Vec<Word>,
    races: bool,
    /// Lanes of one warp are ordered only by bar.warp.sync (sm_70 and up).
    lanes: bool,
    uninitialised: bool,
}

impl Shared {
    pub(super) fn new(bytes: usize, races: bool, lanes: bool, uninitialised: bool) -> Self {
        let words = if races || uninitialised { bytes.div_ceil(4) } else { 0 };
        Self {
            data: vec![POISON; bytes],
            words: vec![Word::default(); words],
            races,
            lanes: lanes && races,
            uninitialised,
        }
    }

    pub(super) fn reset(&mut self) {
        self.data.fill(POISON);
        self.words.fill(Word::default());
    }

    /// Bounds and alignment.
    #[inline]
    pub(super) fn range(&self, address: u64, bytes: usize, align: usize) -> Result<usize, Trouble> {
        if address.checked_add(bytes as u64).is_none_or(|end| end > self.data.len() as u64) {
            return Err(Trouble::new(
                FaultKind::OutOfBounds,
                format!("{bytes} bytes at shared address {address:#x} of {} bytes", self.data.len()),
            ));
        }
        if !address.is_multiple_of(align as u64) {
            return Err(Trouble::new(
                FaultKind::Misaligned,
                format!("shared address {address:#x} is not a multiple of {align}"),
            ));
        }
        Ok(address as usize)
    }

    /// An element, little endian.
    #[inline]
    pub(super) fn load(&self, at: usize, bytes: usize) -> u64 {
        let mut raw = [0; 8];
        raw[..bytes].copy_from_slice(&self.data[at..at + bytes]);
        u64::from_le_bytes(raw)
    }

    #[inline]
    pub(super) fn store(&mut self, at: usize, bytes: usize, value: u64) {
        self.data[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    }

    /// Records an access; `same` says that a write does not change the bytes.
    #[inline]
    pub(super) fn touch(
        &mut self,
        at: usize,
        bytes: usize,
        kind: Kind,
        who: Who,
        same: bool,
    ) -> Result<(), Trouble> {
        if self.words.is_empty() {
            return Ok(());
        }
        let mut from = at;
        while from < at + bytes {
            let word = from / 4;
            let end = (at + bytes).min((word + 1) * 4);
            let mask = ((0xFu8 << (from % 4)) & (0xF >> ((word + 1) * 4 - end))) & 0xF;
            self.touch_word(word, mask, kind, who, same)?;
            from = end;
        }
        Ok(())
    }

    #[inline]
    fn touch_word(
        &mut self,
        index: usize,
        mask: u8,
        kind: Kind,
        who: Who,
        same: bool,
    ) -> Result<(), Trouble> {
        let word = &mut self.words[index];
        if kind != Kind::Write && self.uninitialised && word.init & mask != mask {
            return Err(Trouble::new(
                FaultKind::Uninitialised,
                format!("shared address {:#x} is read before anything was written there", index * 4),
            ));
        }
        if self.races {
            if word.flying & mask != 0 {
                return Err(Trouble::new(
                    FaultKind::Race,
                    format!(
                        "shared address {:#x} is {} while the cp.async of PTX line {} into it is in flight",
                        index * 4,
                        verb(kind),
                        word.flying_line
                    ),
                ));
            }
            let atomic = kind == Kind::Atomic;
            let writer = word.writer;
            if writer.mask & mask != 0 && !(atomic && writer.atomic) {
                unordered(&writer, &who, self.lanes && !(same && kind == Kind::Write))
                    .map_or(Ok(()), |by| Err(race(index, kind, "written", by, &writer)))?;
            }
            if kind != Kind::Read {
                for reader in word.readers {
                    if reader.mask & mask != 0 {
                        unordered(&reader, &who, self.lanes && !same)
                            .map_or(Ok(()), |by| Err(race(index, kind, "read", by, &reader)))?;
                    }
                }
            }
            let clock = who.seen[usize::from(who.warp)];
            let touch = Touch { clock, line: who.line, warp: who.warp, lane: who.lane, mask, atomic };
            if kind == Kind::Read {
                let [first, second] = &mut word.readers;
                if first.mask != 0 && first.warp == who.warp && first.clock == clock {
                    if first.lane != who.lane {
                        first.lane = MANY;
                    }
                    first.mask |= mask;
                } else {
                    *second = *first;
                    *first = touch;
                }
            } else if writer.warp == who.warp && writer.clock == clock && writer.lane == who.lane {
                word.writer.mask |= mask;
                word.writer.atomic = atomic;
                word.writer.line = who.line;
            } else {
                word.writer = touch;
            }
        }
        if kind != Kind::Read {
            word.init |= mask;
        }
        Ok(())
    }

    /// A cp.async into these bytes was issued. The range is a multiple of 4.
    pub(super) fn fly(&mut self, at: usize, bytes: usize, who: Who) -> Result<(), Trouble> {
        if !self.races {
            return Ok(());
        }
        for index in at / 4..(at + bytes) / 4 {
            let init = self.words[index].init;
            self.touch_word(index, 0xF, Kind::Write, who, false)?;
            let word = &mut self.words[index];
            // What lands later is not yet there.
            word.init = init;
            word.flying = 0xF;
            word.flying_line = who.line;
        }
        Ok(())
    }

    /// A cp.async into these bytes is complete for its thread.
    pub(super) fn land(&mut self, at: usize, bytes: usize, who: Who) {
        if self.words.is_empty() {
            return;
        }
        let clock = who.seen[usize::from(who.warp)];
        for word in &mut self.words[at / 4..(at + bytes) / 4] {
            word.flying = 0;
            word.init = 0xF;
            let touch =
                Touch { clock, line: who.line, warp: who.warp, lane: who.lane, mask: 0xF, atomic: false };
            word.writer = touch;
        }
    }
}

fn verb(kind: Kind) -> &'static str {
    match kind {
        Kind::Read => "read",
        Kind::Write => "written",
        Kind::Atomic => "changed atomically",
    }
}

/// How an earlier touch and this access lack an order: by warps, or by lanes of one warp.
#[inline]
fn unordered(earlier: &Touch, who: &Who, lanes: bool) -> Option<&'static str> {
    if earlier.warp != who.warp {
        return (earlier.clock > who.seen[usize::from(earlier.warp)]).then_some("with no barrier between");
    }
    (lanes && earlier.lane != who.lane && earlier.clock == who.seen[usize::from(who.warp)])
        .then_some("with no bar.warp.sync between the lanes")
}

#[cold]
fn race(index: usize, kind: Kind, earlier: &str, by: &str, touch: &Touch) -> Trouble {
    Trouble::new(
        FaultKind::Race,
        format!(
            "shared address {:#x} is {} after warp {} has {earlier} it at PTX line {}, {by}",
            index * 4,
            verb(kind),
            touch.warp,
            touch.line
        ),
    )
}
