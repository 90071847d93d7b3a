//! Atomics and reductions.

use std::sync::atomic::Ordering::SeqCst;

use super::Trouble;
use super::block::Executor;
use super::memory::place;
use super::shared::Kind;
use super::warp::{Warp, lanes};
use crate::error::FaultKind;
use crate::program::{Atomic, AtomicAccess, MemSpace};

/// The new value of a location.
pub(super) fn apply(op: Atomic, bytes: usize, old: u64, value: u64, second: u64) -> u64 {
    let (s, t) = if bytes == 4 {
        (i64::from(old as u32 as i32), i64::from(value as u32 as i32))
    } else {
        (old as i64, value as i64)
    };
    match op {
        Atomic::Add => old.wrapping_add(value),
        Atomic::MinS => s.min(t) as u64,
        Atomic::MaxS => s.max(t) as u64,
        Atomic::MinU => old.min(value),
        Atomic::MaxU => old.max(value),
        Atomic::And => old & value,
        Atomic::Or => old | value,
        Atomic::Xor => old ^ value,
        Atomic::Exch => value,
        Atomic::Cas => {
            if old == value {
                second
            } else {
                old
            }
        }
        Atomic::Inc => {
            if old >= value {
                0
            } else {
                old + 1
            }
        }
        Atomic::Dec => {
            if old == 0 || old > value {
                value
            } else {
                old - 1
            }
        }
        Atomic::FAdd => u64::from((f32::from_bits(old as u32) + f32::from_bits(value as u32)).to_bits()),
    }
}

impl Executor<'_> {
    pub(super) fn atomic(
        &mut self,
        warp: &mut Warp,
        access: &AtomicAccess,
        mask: u32,
        pc: u32,
    ) -> Result<(), Trouble> {
        let bytes = usize::from(access.bytes);
        let addresses = warp.addresses(&access.address);
        let line = self.line(pc);
        let operand = |warp: &Warp, register: u16, lane: usize| {
            if bytes == 8 {
                warp.r64[register as usize][lane]
            } else {
                u64::from(warp.r32[register as usize][lane])
            }
        };
        for lane in lanes(mask) {
            let value = operand(warp, access.value, lane);
            let second = access.second.map_or(0, |r| operand(warp, r, lane));
            let (space, address) = place(access.space, addresses[lane]);
            let old = match space {
                MemSpace::Shared => {
                    let at = self.shared.range(address, bytes, bytes)?;
                    let who = Self::who(&self.seen, warp.index, lane, line);
                    self.shared.touch(at, bytes, Kind::Atomic, who, false)?;
                    let old = self.shared.load(at, bytes);
                    self.shared.store(at, bytes, apply(access.op, bytes, old, value, second));
                    old
                }
                MemSpace::Global => {
                    let (region, at) = self.global(address, bytes, bytes)?;
                    if let Some(races) = &mut self.races {
                        races.touch(address, bytes, Kind::Atomic, warp.index, line)?;
                    }
                    if let Some(traffic) = &self.grid.traffic {
                        traffic.mark(region, at, bytes, false);
                        traffic.mark(region, at, bytes, true);
                    }
                    self.moved.read += bytes as u64;
                    self.moved.written += bytes as u64;
                    let memory = &self.grid.regions[region].bytes;
                    let next = |old: u64| apply(access.op, bytes, old, value, second);
                    if bytes == 8 {
                        memory
                            .double(at)
                            .fetch_update(SeqCst, SeqCst, |old| Some(next(old)))
                            .unwrap_or_default()
                    } else {
                        let old = memory
                            .word(at)
                            .fetch_update(SeqCst, SeqCst, |old| Some(next(u64::from(old)) as u32))
                            .unwrap_or_default();
                        u64::from(old)
                    }
                }
                _ => {
                    let what = "an atomic outside of global and shared memory".into();
                    return Err(Trouble::new(FaultKind::OutOfBounds, what));
                }
            };
            match access.dst {
                Some(dst) if bytes == 8 => warp.r64[dst as usize][lane] = old,
                Some(dst) => warp.r32[dst as usize][lane] = old as u32,
                None => {}
            }
        }
        Ok(())
    }
}
