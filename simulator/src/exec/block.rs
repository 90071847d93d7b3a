//! One block: its warps take turns until all have ended.

use super::global::GlobalRaces;
use super::shared::{Shared, WARPS, Who};
use super::warp::{ALL, Path, Stop, Warp};
use super::{Grid, Trouble};
use crate::counters::{Counters, Line};
use crate::error::{Fault, FaultKind};
use crate::program::{Constant, EXIT, Op, Special};
use crate::schedule::{Dice, Schedule};

/// Counts of one instruction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) warps: u64,
    pub(super) lanes: u64,
    pub(super) divergent: u64,
    pub(super) bank_ways: u32,
    pub(super) passes: u64,
    pub(super) extra_passes: u64,
    pub(super) degrees: [u64; 6],
}

/// Bytes and sectors of global memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) read: u64,
    pub(super) written: u64,
    pub(super) sectors_read: u64,
    pub(super) sectors_written: u64,
}

/// A barrier on which warps wait.
#[derive(Clone, Copy, Debug, Default)]
struct Barrier {
    waiting: u32,
    arrived: u32,
    expected: u32,
    pc: u32,
    /// What those that arrived knew.
    known: [u32; WARPS],
}

impl Barrier {
    fn join(&mut self, warp: usize, seen: &[u32; WARPS]) {
        self.arrived |= 1 << warp;
        for (all, own) in self.known.iter_mut().zip(seen) {
            *all = (*all).max(*own);
        }
    }
}

/// Runs blocks on one host thread.
pub(super) struct Executor<'a> {
    pub(super) grid: &'a Grid<'a>,
    warps: Vec<Warp>,
    pub(super) shared: Shared,
    /// What each warp knows of the others' clocks.
    pub(super) seen: Vec<[u32; WARPS]>,
    pub(super) counts: Vec<Count>,
    pub(super) moved: Moved,
    pub(super) races: Option<GlobalRaces>,
    pub(super) dice: Option<Dice>,
    /// cp.async lands at once.
    pub(super) eager: bool,
    /// The region of the last access.
    pub(super) region: usize,
    pub(super) budget: u64,
    pub(super) block: [u32; 3],
    barriers: [Barrier; 16],
}

impl<'a> Executor<'a> {
    pub(super) fn new(grid: &'a Grid<'a>) -> Self {
        let kernel = grid.kernel;
        let threads = grid.launch.block.iter().product::<u32>() as usize;
        let count = threads.div_ceil(32);
        let independent = grid.module.target() >= 70;
        let options = grid.options;
        let warps = (0..count)
            .map(|index| Warp {
                index,
                r32: vec![[0xCDCD_CDCD; 32]; kernel.n32],
                r64: vec![[0xCDCD_CDCD_CDCD_CDCD; 32]; kernel.n64],
                preds: vec![0; kernel.preds],
                local: vec![0; kernel.local * 32],
                ..Warp::default()
            })
            .collect();
        let mut executor = Self {
            grid,
            warps,
            shared: Shared::new(grid.shared_bytes, options.shared_races, independent, options.uninitialised),
            seen: vec![[0; WARPS]; count],
            counts: vec![Count::default(); kernel.code.len()],
            moved: Moved::default(),
            races: options.global_races.then(GlobalRaces::default),
            dice: match options.schedule {
                Schedule::Random(seed) => Some(Dice::new(seed ^ 0x5EED)),
                _ => None,
            },
            eager: matches!(options.schedule, Schedule::Eager | Schedule::EagerReversed),
            region: 0,
            budget: 0,
            block: [0; 3],
            barriers: [Barrier::default(); 16],
        };
        for warp in &mut executor.warps {
            for &(register, value) in &kernel.const_preds {
                warp.preds[register as usize] = if value { ALL } else { 0 };
            }
        }
        executor.fill_constants();
        executor
    }

    /// Constants and special registers that are the same in every block.
    fn fill_constants(&mut self) {
        let kernel = self.grid.kernel;
        for index in 0..self.warps.len() {
            for &(register, constant) in &kernel.const32 {
                let value: [u32; 32] =
                    std::array::from_fn(|lane| self.constant(constant, index, lane) as u32);
                self.warps[index].r32[register as usize] = value;
            }
            for &(register, constant) in &kernel.const64 {
                let value: [u64; 32] = std::array::from_fn(|lane| self.constant(constant, index, lane));
                self.warps[index].r64[register as usize] = value;
            }
        }
    }

    fn constant(&self, constant: Constant, warp: usize, lane: usize) -> u64 {
        let dynamic = self.grid.kernel.shared.next_multiple_of(16) as i64;
        match constant {
            Constant::Value(value) => value,
            Constant::DynamicShared(offset) => dynamic.wrapping_add(offset) as u64,
            Constant::Variable(index, offset) => {
                (self.grid.module.addresses()[index] as i64).wrapping_add(offset) as u64
            }
            Constant::Special(special) => u64::from(self.special(special, warp, lane)),
        }
    }

    fn special(&self, special: Special, warp: usize, lane: usize) -> u32 {
        let launch = self.grid.launch;
        let [x, y, _] = launch.block;
        let thread = (warp * 32 + lane) as u32;
        let bit = 1u32 << lane;
        match special {
            Special::Tid(0) => thread % x,
            Special::Tid(1) => thread / x % y,
            Special::Tid(_) => thread / (x * y),
            Special::Ntid(axis) => launch.block[usize::from(axis)],
            Special::Ctaid(axis) => self.block[usize::from(axis)],
            Special::Nctaid(axis) => launch.grid[usize::from(axis)],
            Special::Lane => lane as u32,
            Special::Warp => warp as u32,
            Special::Warps => self.warps.len() as u32,
            Special::Sm => self.block[0] % self.grid.options.multiprocessors.max(1),
            Special::Sms => self.grid.options.multiprocessors,
            Special::DynamicShared => launch.dynamic_shared as u32,
            Special::TotalShared => self.grid.shared_bytes as u32,
            Special::LaneMaskEq => bit,
            Special::LaneMaskLt => bit - 1,
            Special::LaneMaskLe => bit | (bit - 1),
            Special::LaneMaskGt => !(bit | (bit - 1)),
            Special::LaneMaskGe => !(bit - 1),
            Special::GridId => 1,
        }
    }

    pub(super) fn run_block(&mut self, number: u64) -> Result<(), Box<Fault>> {
        let [gx, gy, _] = self.grid.launch.grid.map(u64::from);
        self.block = [(number % gx) as u32, (number / gx % gy) as u32, (number / (gx * gy)) as u32];
        self.begin(number);
        let count = self.warps.len();
        let mut runnable: u32 = if count == 32 { ALL } else { (1 << count) - 1 };
        let mut live = runnable;
        let reversed = self.grid.options.schedule == Schedule::EagerReversed;
        while live != 0 {
            if runnable == 0 {
                return Err(self.stuck());
            }
            for turn in 0..count {
                let mut index = if reversed { count - 1 - turn } else { turn };
                if let Some(dice) = &mut self.dice {
                    index = dice.below(count as u64) as usize;
                }
                if runnable & (1 << index) == 0 {
                    continue;
                }
                let mut warp = std::mem::take(&mut self.warps[index]);
                let stop = self.run_warp(&mut warp);
                self.warps[index] = warp;
                match stop? {
                    Stop::Turn => continue,
                    Stop::Done => {
                        runnable &= !(1 << index);
                        live &= !(1 << index);
                    }
                    Stop::Barrier(id, expected, pc) => {
                        runnable &= !(1 << index);
                        self.wait(id, expected, pc, index)?;
                    }
                }
                for id in 0..16 {
                    runnable |= self.release(id, live);
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, number: u64) {
        let kernel = self.grid.kernel;
        let threads = self.grid.launch.block.iter().product::<u32>() as usize;
        self.shared.reset();
        self.barriers = [Barrier::default(); 16];
        self.budget = self.grid.options.max_instructions;
        for row in &mut self.seen {
            *row = [0; WARPS];
        }
        for (index, row) in self.seen.iter_mut().enumerate() {
            row[index] = 1;
        }
        if let Some(races) = &mut self.races {
            races.begin(number as u32);
        }
        if let Some(dice) = &mut self.dice {
            dice.below(2 + number);
        }
        for index in 0..self.warps.len() {
            for &(register, constant) in &kernel.const32 {
                if let Constant::Special(special @ (Special::Ctaid(_) | Special::Sm)) = constant {
                    let value = self.special(special, index, 0);
                    self.warps[index].r32[register as usize] = [value; 32];
                }
            }
            let warp = &mut self.warps[index];
            let left = (threads - index * 32).min(32);
            warp.live = if left == 32 { ALL } else { (1 << left) - 1 };
            warp.paths.clear();
            warp.paths.push(Path { pc: 0, mask: warp.live, meet: EXIT, waits: false });
            warp.copies.reset();
            warp.local.fill(crate::memory::POISON);
        }
    }

    /// A warp reached a barrier.
    fn wait(&mut self, id: u32, expected: u32, pc: u32, warp: usize) -> Result<(), Box<Fault>> {
        let barrier = &mut self.barriers[id as usize];
        if barrier.arrived == 0 {
            barrier.expected = expected;
            barrier.pc = pc;
        } else if barrier.expected != expected {
            let what = format!("barrier {id} is used with different counts of threads");
            return Err(self.fault(Trouble::new(FaultKind::Divergence, what), pc, warp));
        } else if expected == 0 && barrier.waiting != 0 && barrier.pc != pc {
            let other = self.grid.kernel.code[barrier.pc as usize].line;
            let what = format!("barrier {id} is met here by some warps and at PTX line {other} by others");
            return Err(self.fault(Trouble::new(FaultKind::Divergence, what), pc, warp));
        }
        barrier.waiting |= 1 << warp;
        barrier.join(warp, &self.seen[warp]);
        Ok(())
    }

    /// A warp arrived at a barrier without waiting.
    pub(super) fn arrive(&mut self, id: u32, expected: u32, warp: usize) -> Result<(), Trouble> {
        let barrier = &mut self.barriers[id as usize];
        if barrier.arrived != 0 && barrier.expected != expected {
            let what = format!("barrier {id} is used with different counts of threads");
            return Err(Trouble::new(FaultKind::Divergence, what));
        }
        barrier.expected = expected;
        barrier.join(warp, &self.seen[warp]);
        // What this warp did so far is seen by those that wait; what it does from here on is not.
        self.seen[warp][warp] += 1;
        Ok(())
    }

    /// Lets a barrier's warps go on when all have come; returns them.
    fn release(&mut self, id: usize, live: u32) -> u32 {
        let barrier = self.barriers[id];
        if barrier.arrived == 0 {
            return 0;
        }
        let complete = match barrier.expected {
            0 => barrier.arrived & live == live,
            expected => barrier.arrived.count_ones() >= expected,
        };
        if !complete {
            return 0;
        }
        for warp in super::warp::lanes(barrier.waiting) {
            self.seen[warp] = barrier.known;
            self.seen[warp][warp] += 1;
        }
        if barrier.expected == 0
            && let Some(races) = &mut self.races
        {
            races.barrier();
        }
        self.barriers[id] = Barrier::default();
        barrier.waiting
    }

    fn stuck(&self) -> Box<Fault> {
        let barrier = self.barriers.iter().enumerate().find(|(_, b)| b.waiting != 0);
        let (id, pc, warp) = barrier.map_or((0, 0, 0), |(id, b)| (id, b.pc, b.waiting.trailing_zeros()));
        let what = format!("barrier {id} waits for warps that never come");
        self.fault(Trouble::new(FaultKind::Divergence, what), pc, warp as usize)
    }

    #[cold]
    pub(super) fn fault(&self, trouble: Trouble, pc: u32, warp: usize) -> Box<Fault> {
        let line = self.grid.kernel.code.get(pc as usize).map_or(0, |i| i.line);
        Box::new(Fault {
            kind: trouble.kind,
            kernel: self.grid.kernel.name.clone(),
            what: trouble.what,
            line,
            text: self.grid.module.line(line),
            block: self.block,
            warp: warp as u32,
        })
    }

    /// Who a lane is, for the shadow of shared memory.
    #[inline]
    pub(super) fn who<'s>(seen: &'s [[u32; WARPS]], warp: usize, lane: usize, line: u32) -> Who<'s> {
        Who { warp: warp as u8, lane: lane as u8, seen: &seen[warp], line }
    }

    /// Adds up what was counted.
    pub(super) fn counters(&self) -> Counters {
        let mut sum = Counters {
            global_read: self.moved.read,
            global_written: self.moved.written,
            sectors_read: self.moved.sectors_read,
            sectors_written: self.moved.sectors_written,
            ..Counters::default()
        };
        let mut lines: std::collections::BTreeMap<u32, Line> = std::collections::BTreeMap::new();
        let looped = super::loops::looped(&self.grid.kernel.code);
        for ((inst, count), looped) in self.grid.kernel.code.iter().zip(&self.counts).zip(looped) {
            if count.warps == 0 {
                continue;
            }
            sum.instructions += count.warps;
            sum.divergent_branches += count.divergent;
            sum.bank_ways = sum.bank_ways.max(count.bank_ways);
            sum.passes += count.passes;
            sum.extra_passes += count.extra_passes;
            match &inst.op {
                Op::Mma(mma) => sum.matrix_macs += count.lanes / 32 * (mma.m * 8 * mma.k) as u64,
                Op::WmmaMma(w) => {
                    sum.matrix_macs += count.lanes / 32 * (w.shape.m * w.shape.n * 16) as u64;
                }
                Op::Dp4a(..) => sum.dot_macs += count.lanes * 4,
                Op::Dp2a(..) => sum.dot_macs += count.lanes * 2,
                Op::MadWide16(true, ..) => {
                    sum.half_macs += count.lanes;
                    sum.mad_lanes += count.lanes;
                }
                Op::Mad32(..) | Op::Mad16(..) | Op::MadWide16(..) | Op::MadWide32(..) => {
                    sum.mad_lanes += count.lanes;
                }
                _ => {}
            }
            if inst.line == 0 {
                continue;
            }
            let line = lines.entry(inst.line).or_insert_with(|| Line {
                line: inst.line,
                text: self.grid.module.line(inst.line),
                ..Line::default()
            });
            line.warps += count.warps;
            line.lanes += count.lanes;
            line.divergent += count.divergent;
            line.bank_ways = line.bank_ways.max(count.bank_ways);
            line.extra_passes += count.extra_passes;
            line.degrees.iter_mut().zip(count.degrees).for_each(|(all, own)| *all += own);
            line.looped |= looped;
        }
        sum.lines = lines.into_values().collect();
        sum
    }
}
