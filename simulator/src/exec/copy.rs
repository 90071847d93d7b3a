//! `cp.async`: copies in flight, and when they land.

use super::Trouble;
use super::block::Executor;
use super::memory::generic_shared;
use super::shared::Kind;
use super::warp::{Warp, lanes};
use crate::error::FaultKind;
use crate::program::{Address, MemSpace, R};

/// One lane's copy.
#[derive(Clone, Copy, Debug)]
struct Copy {
    lane: u8,
    bytes: u8,
    /// Bytes read; the rest is zero.
    from_source: u8,
    /// The data is there already, though the kernel may not rely on it.
    landed: bool,
    group: u32,
    to: u32,
    region: u32,
    offset: usize,
    line: u32,
}

/// A warp's copies in flight.
#[derive(Default)]
pub(super) struct Copies {
    flying: Vec<Copy>,
    /// Groups that each lane has committed.
    groups: Vec<u32>,
}

impl Copies {
    pub(super) fn reset(&mut self) {
        self.flying.clear();
        self.groups.clear();
        self.groups.resize(32, 0);
    }

    pub(super) fn commit(&mut self, mask: u32) {
        for lane in lanes(mask) {
            self.groups[lane] += 1;
        }
    }
}

impl Executor<'_> {
    #[expect(clippy::too_many_arguments, reason = "the operands of one instruction")]
    pub(super) fn cp_async(
        &mut self,
        warp: &mut Warp,
        dst: &Address,
        src: &Address,
        bytes: usize,
        (src_bytes, ignored): (Option<R>, u32),
        mask: u32,
        pc: u32,
    ) -> Result<(), Trouble> {
        let (to, from) = (warp.addresses(dst), warp.addresses(src));
        let sizes = src_bytes.map(|r| *warp.get32(r));
        let line = self.line(pc);
        if self.grid.options.traffic {
            let offsets = to.map(|a| generic_shared(a).1);
            self.count_shared(&offsets, mask, bytes, pc);
            let reads = mask & !ignored & super::exchange::ballot(|l| sizes.is_none_or(|s| s[l] > 0));
            if reads != 0 {
                self.count_global(&from, reads, bytes, false);
            }
        }
        for lane in lanes(mask) {
            let mut from_source = sizes.map_or(bytes, |s| s[lane] as usize);
            if ignored & (1 << lane) != 0 {
                from_source = 0;
            }
            if from_source > bytes {
                let what = format!("cp.async of {bytes} bytes with a source of {from_source}");
                return Err(Trouble::new(FaultKind::OutOfBounds, what));
            }
            let (space, address) = generic_shared(to[lane]);
            if space != MemSpace::Shared {
                let what = "cp.async to outside of shared memory".into();
                return Err(Trouble::new(FaultKind::OutOfBounds, what));
            }
            let at = self.shared.range(address, bytes, bytes)?;
            let (mut region, mut offset) = (0, 0);
            if from_source > 0 {
                (region, offset) = self.global(from[lane], from_source, bytes)?;
                if let Some(races) = &mut self.races {
                    races.touch(from[lane], from_source, Kind::Read, warp.index, line)?;
                }
                if let Some(traffic) = &self.grid.traffic {
                    traffic.mark(region, offset, from_source, false);
                }
            }
            self.shared.fly(at, bytes, Self::who(&self.seen, warp.index, lane, line))?;
            let landed = self.eager || self.dice.as_mut().is_some_and(|dice| dice.below(2) == 0);
            let copy = Copy {
                lane: lane as u8,
                bytes: bytes as u8,
                from_source: from_source as u8,
                landed,
                group: warp.copies.groups[lane],
                to: at as u32,
                region: region as u32,
                offset,
                line,
            };
            if landed {
                self.copy(&copy);
            }
            warp.copies.flying.push(copy);
        }
        Ok(())
    }

    fn copy(&mut self, copy: &Copy) {
        let (at, bytes, from) = (copy.to as usize, usize::from(copy.bytes), usize::from(copy.from_source));
        let to = &mut self.shared.data[at..at + bytes];
        if from > 0 {
            self.grid.regions[copy.region as usize].bytes.read(copy.offset, &mut to[..from]);
        }
        to[from..].fill(0);
    }

    /// Waits for all but the last `pending` groups of each lane, or for everything.
    pub(super) fn cp_wait(
        &mut self,
        warp: &mut Warp,
        pending: u32,
        everything: bool,
        mask: u32,
    ) -> Result<(), Trouble> {
        let mut flying = std::mem::take(&mut warp.copies.flying);
        flying.retain(|copy| {
            let lane = usize::from(copy.lane);
            // Group g is complete when at least `pending` groups were committed after it.
            let complete = everything || copy.group + pending < warp.copies.groups[lane];
            if mask & (1 << lane) == 0 || !complete {
                return true;
            }
            if !copy.landed {
                self.copy(copy);
            }
            let who = Self::who(&self.seen, warp.index, lane, copy.line);
            self.shared.land(copy.to as usize, usize::from(copy.bytes), who);
            false
        });
        warp.copies.flying = flying;
        Ok(())
    }
}
