//! The interpreter's loop.

use super::block::Executor;
use super::warp::{Path, Stop, Warp};
use super::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Trouble, WINDOW};
use crate::error::{Fault, FaultKind};
use crate::program::{EXIT, Guard, MemSpace, Op};

fn window(space: MemSpace) -> u64 {
    match space {
        MemSpace::Shared => SHARED_WINDOW,
        MemSpace::Local => LOCAL_WINDOW,
        MemSpace::Param => PARAM_WINDOW,
        MemSpace::Global | MemSpace::Generic => 0,
    }
}

/// The space of a generic address and the address in it.
pub(super) fn resolve(address: u64) -> (MemSpace, u64) {
    for space in [MemSpace::Shared, MemSpace::Local, MemSpace::Param] {
        let offset = address.wrapping_sub(window(space));
        if offset < WINDOW {
            return (space, offset);
        }
    }
    (MemSpace::Global, address)
}

impl Executor<'_> {
    /// Runs a warp until it ends, waits, or its turn is over.
    pub(super) fn run_warp(&mut self, warp: &mut Warp) -> Result<Stop, Box<Fault>> {
        let mut path = warp.pop();
        let mut turn = match &mut self.dice {
            Some(dice) => 1 + dice.below(64),
            None => u64::MAX,
        };
        let code = &self.grid.kernel.code;
        loop {
            if path.mask == 0 || path.pc == path.meet {
                path = warp.pop();
                if path.mask == 0 {
                    return Ok(Stop::Done);
                }
                continue;
            }
            if turn == 0 {
                warp.paths.push(path);
                return Ok(Stop::Turn);
            }
            turn -= 1;
            let pc = path.pc;
            let inst = &code[pc as usize];
            let mask = match inst.guard {
                Guard::Always => path.mask,
                Guard::If(p) => path.mask & warp.pred(p),
                Guard::Unless(p) => path.mask & !warp.pred(p),
            };
            path.pc = pc + 1;
            let count = &mut self.counts[pc as usize];
            count.warps += 1;
            count.lanes += u64::from(mask.count_ones());
            if self.budget == 0 {
                let what =
                    format!("more than {} instructions in one block", self.grid.options.max_instructions);
                return Err(self.fault(Trouble::new(FaultKind::Hang, what), pc, warp.index));
            }
            self.budget -= 1;
            if mask == 0 {
                continue;
            }
            match &inst.op {
                Op::Bra(target) => {
                    if mask == path.mask {
                        path.pc = *target;
                    } else {
                        count.divergent += 1;
                        path = warp.part(path, pc + 1, *target, mask, inst.meet);
                    }
                }
                Op::BraIndexed(index, targets) => {
                    let index = *warp.get32(*index);
                    let first = index[mask.trailing_zeros() as usize];
                    let same = super::warp::lanes(mask)
                        .filter(|&l| index[l] == first)
                        .fold(0, |all, l| all | (1 << l));
                    let Some(&target) = targets.get(first as usize) else {
                        let what = format!("brx.idx with index {first} of {}", targets.len());
                        return Err(self.fault(Trouble::new(FaultKind::Trap, what), pc, warp.index));
                    };
                    if same == path.mask {
                        path.pc = target;
                    } else {
                        // The others come back to this instruction, or pass it where the guard is false.
                        count.divergent += 1;
                        path = warp.part(path, pc, target, same, inst.meet);
                    }
                }
                Op::Exit => {
                    warp.live &= !mask;
                    path.mask &= !mask;
                }
                Op::Barrier { id, count, arrive } => {
                    if let Some(stop) = self
                        .barrier(warp, &mut path, mask, (*id, *count, *arrive), pc)
                        .map_err(|t| self.fault(t, pc, warp.index))?
                    {
                        return Ok(stop);
                    }
                }
                op => {
                    if let Err(trouble) = self.step(warp, op, mask, path.mask, pc) {
                        return Err(self.fault(trouble, pc, warp.index));
                    }
                }
            }
        }
    }

    /// A barrier; the warp stops unless it only arrives, or goes on with other paths first.
    fn barrier(
        &mut self,
        warp: &mut Warp,
        path: &mut Path,
        mask: u32,
        (id, count, arrive): (u16, Option<u16>, bool),
        pc: u32,
    ) -> Result<Option<Stop>, Trouble> {
        let part = |what: &str| Trouble::new(FaultKind::Divergence, format!("a barrier reached by {what}"));
        if mask != path.mask {
            return Err(part("some lanes of a warp only (its guard differs)"));
        }
        if mask != warp.live {
            if path.meet != EXIT {
                return Err(part("some lanes of a warp only"));
            }
            // The other lanes may be about to exit: they go first. If they come here too, they join.
            let others: Vec<usize> =
                (0..warp.paths.len()).filter(|&i| warp.paths[i].mask & warp.live != 0).collect();
            let all_wait = others.iter().all(|&i| warp.paths[i].waits);
            if !all_wait {
                warp.paths.insert(0, Path { pc, waits: true, ..*path });
                *path = warp.pop();
                path.waits = false;
                return Ok(None);
            }
            if others.iter().any(|&i| warp.paths[i].pc != pc) {
                return Err(part("the lanes of a warp at different places"));
            }
            path.mask = warp.live;
            warp.paths.clear();
        }
        let first = path.mask.trailing_zeros() as usize;
        let id = warp.get32(id)[first];
        if id > 15 {
            return Err(Trouble::new(FaultKind::Trap, format!("barrier {id}; there are 16")));
        }
        let expected = match count {
            None => 0,
            Some(count) => {
                let threads = warp.get32(count)[first];
                if threads == 0 || !threads.is_multiple_of(32) || threads as usize > self.seen.len() * 32 {
                    let what =
                        format!("a barrier of {threads} threads in a block of {}", self.seen.len() * 32);
                    return Err(Trouble::new(FaultKind::Divergence, what));
                }
                threads / 32
            }
        };
        if arrive {
            self.arrive(id, expected, warp.index)?;
            return Ok(None);
        }
        path.waits = false;
        warp.paths.push(*path);
        Ok(Some(Stop::Barrier(id, expected, pc)))
    }

    /// Everything but control flow.
    #[inline]
    fn step(&mut self, warp: &mut Warp, op: &Op, m: u32, active: u32, pc: u32) -> Result<(), Trouble> {
        match op {
            Op::Int32(f, d, a, b) => warp.int32(*f, *d, *a, *b, m),
            Op::Int64(f, d, a, b) => warp.int64(*f, *d, *a, *b, m),
            Op::Int16(f, s, d, a, b) => warp.int16(*f, *s, *d, *a, *b, m),
            Op::Unary32(f, d, a) => warp.unary32(*f, *d, *a, m),
            Op::Unary64(f, d, a) => warp.unary64(*f, *d, *a, m),
            Op::Unary16(f, d, a) => warp.unary16(*f, *d, *a, m),
            Op::Mad32(d, a, b, c) => {
                warp.map3(*d, *a, *b, *c, m, |x, y, z| x.wrapping_mul(y).wrapping_add(z));
            }
            Op::Mad64(d, a, b, c) => {
                warp.map3_64(*d, *a, *b, *c, m, |x, y, z| x.wrapping_mul(y).wrapping_add(z));
            }
            Op::Mad16(d, a, b, c) => {
                warp.map3(*d, *a, *b, *c, m, |x, y, z| x.wrapping_mul(y).wrapping_add(z) & 0xFFFF);
            }
            Op::MadHi32(s, d, a, b, c) => warp.mad_hi(*s, *d, *a, *b, *c, m),
            Op::MulWide32(s, d, a, b) => warp.mul_wide32(*s, *d, *a, *b, None, m),
            Op::MadWide32(s, d, a, b, c) => warp.mul_wide32(*s, *d, *a, *b, Some(*c), m),
            Op::MulWide16(s, d, a, b) => warp.mul_wide16(*s, *d, *a, *b, None, m),
            Op::MadWide16(s, d, a, b, c) => warp.mul_wide16(*s, *d, *a, *b, Some(*c), m),
            Op::Sad32(s, d, a, b, c) => warp.sad(*s, *d, *a, *b, *c, m),
            Op::Float32(f, mods, d, a, b) => warp.float32(*f, *mods, *d, *a, *b, m),
            Op::Fma32(mods, d, a, b, c) => warp.fma32(*mods, *d, *a, *b, *c, m),
            Op::FloatUnary32(f, mods, d, a) => warp.float_unary32(*f, *mods, *d, *a, m),
            Op::Float64(f, d, a, b) => warp.float64(*f, *d, *a, *b, m),
            Op::Fma64(d, a, b, c) => warp.fma64(*d, *a, *b, *c, m),
            Op::FloatUnary64(f, d, a) => warp.float_unary64(*f, *d, *a, m),
            Op::Dp4a(sa, sb, d, a, b, c) => warp.dp4a(*sa, *sb, *d, *a, *b, *c, m),
            Op::Dp2a(sa, sb, hi, d, a, b, c) => warp.dp2a(*sa, *sb, *hi, [*d, *a, *b, *c], m),
            Op::Bfe32(s, d, a, b, c) => warp.bfe32(*s, *d, *a, *b, *c, m),
            Op::Bfe64(s, d, a, b, c) => warp.bfe64(*s, *d, *a, *b, *c, m),
            Op::Bfi32(d, a, b, c, e) => warp.bfi32([*d, *a, *b, *c, *e], m),
            Op::Bfi64(d, a, b, c, e) => warp.bfi64([*d, *a, *b, *c, *e], m),
            Op::Prmt(d, a, b, c) => warp.prmt(*d, *a, *b, *c, m),
            Op::Lop3(lut, d, a, b, c) => warp.lop3(*lut, *d, *a, *b, *c, m),
            Op::Shf(left, wrap, d, a, b, c) => warp.shf(*left, *wrap, [*d, *a, *b, *c], m),
            Op::Mov32(d, a) => {
                let value = *warp.get32(*a);
                warp.set32(*d, value, m);
            }
            Op::Mov64(d, a) => {
                let value = *warp.get64(*a);
                warp.set64(*d, value, m);
            }
            Op::MovPred(d, a) => {
                let value = warp.pred(*a);
                warp.set_pred(*d, value, m);
            }
            Op::Pack64(d, a, b) => warp.pack64(*d, *a, *b, m),
            Op::Unpack64(a, b, s) => warp.unpack64(*a, *b, *s, m),
            Op::Pack32(d, a, b) => warp.map2(*d, *a, *b, m, |x, y| (x & 0xFFFF) | (y << 16)),
            Op::Unpack32(a, b, s) => {
                let value = *warp.get32(*s);
                warp.set32(*a, value.map(|v| v & 0xFFFF), m);
                warp.set32(*b, value.map(|v| v >> 16), m);
            }
            Op::Pack64x4(d, parts) => warp.pack64x4(*d, *parts, m),
            Op::Unpack64x4(parts, s) => {
                let value = *warp.get64(*s);
                for (index, part) in parts.iter().enumerate() {
                    warp.set32(*part, value.map(|v| (v >> (16 * index)) as u32 & 0xFFFF), m);
                }
            }
            Op::Pack32x4(d, parts) => warp.pack32x4(*d, *parts, m),
            Op::Unpack32x4(parts, s) => {
                let value = *warp.get32(*s);
                for (index, part) in parts.iter().enumerate() {
                    warp.set32(*part, value.map(|v| (v >> (8 * index)) & 0xFF), m);
                }
            }
            Op::Sext32To64(d, a) => {
                let value = warp.get32(*a).map(|v| v as i32 as i64 as u64);
                warp.set64(*d, value, m);
            }
            Op::Zext32To64(d, a) => {
                let value = warp.get32(*a).map(u64::from);
                warp.set64(*d, value, m);
            }
            Op::Trunc64To32(d, a) => {
                let value = warp.get64(*a).map(|v| v as u32);
                warp.set32(*d, value, m);
            }
            Op::Cvt(convert) => warp.convert(convert, m),
            Op::Setp { cmp, kind, dst, other, a, b, combine } => {
                let mut value = warp.compare(*cmp, *kind, *a, *b);
                let mut opposite = !value;
                if let Some((boolean, pred, negated)) = combine {
                    let pred = warp.pred(*pred) ^ if *negated { u32::MAX } else { 0 };
                    value = super::alu::boolean(*boolean, value, pred);
                    opposite = super::alu::boolean(*boolean, opposite, pred);
                }
                warp.set_pred(*dst, value, m);
                if let Some(other) = other {
                    warp.set_pred(*other, opposite, m);
                }
            }
            Op::PredBin(f, d, a, b) => {
                let value = super::alu::boolean(*f, warp.pred(*a), warp.pred(*b));
                warp.set_pred(*d, value, m);
            }
            Op::PredNot(d, a) => {
                let value = !warp.pred(*a);
                warp.set_pred(*d, value, m);
            }
            Op::Selp32(d, a, b, p) => warp.selp32(*d, *a, *b, *p, m),
            Op::Selp64(d, a, b, p) => warp.selp64(*d, *a, *b, *p, m),
            Op::SelpPred(d, a, b, p) => {
                let p = warp.pred(*p);
                let value = (warp.pred(*a) & p) | (warp.pred(*b) & !p);
                warp.set_pred(*d, value, m);
            }
            Op::Load(access) => self.load(warp, access, m, pc)?,
            Op::Store(access) => self.store(warp, access, m, pc)?,
            Op::Atomic(access) => self.atomic(warp, access, m, pc)?,
            Op::Trap => return Err(Trouble::new(FaultKind::Trap, "trap".into())),
            Op::BarrierWarp(members) => {
                self.members(warp, *members, m, active)?;
                self.seen[warp.index][warp.index] += 1;
            }
            Op::Fence { global } => {
                if *global && let Some(races) = &mut self.races {
                    races.fence(warp.index);
                }
            }
            Op::Shuffle { mode, dst, valid, value, lane, clamp, members } => {
                let all = self.members(warp, *members, m, active)?;
                super::exchange::shuffle(warp, *mode, (*dst, *valid), [*value, *lane, *clamp], m, all)?;
            }
            Op::Vote { mode, dst, pred, negated, members } => {
                let all = self.members(warp, *members, m, active)?;
                super::exchange::vote(warp, *mode, *dst, (*pred, *negated), m, all);
            }
            Op::MatchAny(d, a, members) => {
                let all = self.members(warp, *members, m, active)?;
                super::exchange::match_any(warp, *d, *a, m, all);
            }
            Op::Redux(f, d, a, members) => {
                let all = self.members(warp, *members, m, active)?;
                super::exchange::redux(warp, *f, *d, *a, m, all);
            }
            Op::ActiveMask(d) => warp.set32(*d, [m; 32], m),
            Op::Clock32(d) => {
                warp.clock += 1;
                let clock = warp.clock as u32;
                warp.set32(*d, [clock; 32], m);
            }
            Op::Clock64(d) => {
                warp.clock += 1;
                let clock = warp.clock;
                warp.set64(*d, [clock; 32], m);
            }
            Op::CvtaFrom(space, d, a) => {
                let base = window(*space);
                let value = warp.get64(*a).map(|v| v.wrapping_add(base));
                warp.set64(*d, value, m);
            }
            Op::CvtaTo(space, d, a) => {
                let base = window(*space);
                let value = warp.get64(*a).map(|v| v.wrapping_sub(base));
                warp.set64(*d, value, m);
            }
            Op::IsSpace(space, d, a) => {
                let value = super::exchange::ballot(|l| resolve(warp.get64(*a)[l]).0 == *space);
                warp.set_pred(*d, value, m);
            }
            Op::Mma(mma) => {
                self.whole(warp, m)?;
                super::matrix::mma(warp, mma);
            }
            Op::WmmaMma(wmma) => {
                self.whole(warp, m)?;
                super::matrix::wmma(warp, wmma);
            }
            Op::WmmaLoad(access) => {
                self.whole(warp, m)?;
                self.wmma_load(warp, access, pc)?;
            }
            Op::WmmaStore(access) => {
                self.whole(warp, m)?;
                self.wmma_store(warp, access, pc)?;
            }
            Op::LdMatrix { dst, transposed, address } => {
                self.whole(warp, m)?;
                self.ldmatrix(warp, dst, *transposed, address, pc)?;
            }
            Op::CpAsync { dst, src, bytes, src_bytes, ignore } => {
                let ignored =
                    ignore.map_or(0, |(p, negated)| warp.pred(p) ^ if negated { u32::MAX } else { 0 });
                self.cp_async(warp, dst, src, usize::from(*bytes), (*src_bytes, ignored), m, pc)?;
            }
            Op::CpCommit => warp.copies.commit(m),
            Op::CpWait(groups) => self.cp_wait(warp, *groups, false, m)?,
            Op::CpWaitAll => self.cp_wait(warp, 0, true, m)?,
            Op::Nop => {}
            Op::Bra(_) | Op::BraIndexed(..) | Op::Exit | Op::Barrier { .. } => {}
        }
        Ok(())
    }

    /// Matrix instructions need every lane of the warp.
    fn whole(&self, warp: &Warp, mask: u32) -> Result<(), Trouble> {
        if mask == super::warp::ALL && warp.live == mask {
            return Ok(());
        }
        let what = format!("an instruction of the whole warp with the lanes {mask:#010x} only");
        Err(Trouble::new(FaultKind::Divergence, what))
    }

    /// The members of a `.sync` instruction, all of which must be here.
    fn members(&self, warp: &Warp, members: u16, mask: u32, active: u32) -> Result<u32, Trouble> {
        let stated = warp.get32(members);
        let first = stated[mask.trailing_zeros() as usize];
        if first == 0 {
            return Ok(mask);
        }
        let _ = active;
        let same = super::warp::lanes(mask).all(|l| stated[l] == first);
        let here = first & warp.live;
        if !same || mask & !first != 0 || here & !mask != 0 {
            let what = format!("a member mask of {first:#010x} where the lanes {mask:#010x} of the warp are");
            return Err(Trouble::new(FaultKind::Divergence, what));
        }
        Ok(mask)
    }
}
