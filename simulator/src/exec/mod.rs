//! Runs a launch: blocks over host threads, warps within a block, 32 lanes at a time.

mod alu;
mod atomic;
mod block;
mod cache;
mod convert;
mod copy;
mod exchange;
mod float;
mod global;
mod loops;
mod matrix;
mod memory;
mod run;
mod shared;
mod traffic;
mod warp;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::counters::Counters;
use crate::error::{Fault, FaultKind};
use crate::memory::{DeviceMemory, Region};
use crate::schedule::{Dice, Options, Schedule};
use crate::{Kernel, Module};
use block::Executor;
use cache::Cache;
use traffic::Traffic;

/// What went wrong at an instruction; its line is added outside.
#[derive(Debug)]
struct Trouble {
    kind: FaultKind,
    what: String,
}

impl Trouble {
    #[cold]
    fn new(kind: FaultKind, what: String) -> Self {
        Self { kind, what }
    }
}

/// Addresses of shared and local memory and of parameters in the generic space.
const SHARED_WINDOW: u64 = 0x0010_0000_0000_0000;
const LOCAL_WINDOW: u64 = 0x0020_0000_0000_0000;
const PARAM_WINDOW: u64 = 0x0040_0000_0000_0000;
/// Size of each.
const WINDOW: u64 = 1 << 32;

/// A launch's shape and arguments.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads a block along x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub dynamic_shared: usize,
    /// The parameter block; see [`pack_args`].
    pub args: Vec<u8>,
}

/// Lays out arguments as the kernel declares them.
///
/// # Errors
/// [`Fault`] where the number or the size of an argument differs.
pub fn pack_args(module: &Module, kernel: &Kernel, args: &[&[u8]]) -> Result<Vec<u8>, Box<Fault>> {
    let bad = |what: String| launch_fault(module, kernel, what);
    if args.len() != kernel.params.len() {
        return Err(bad(format!("{} arguments for {} parameters", args.len(), kernel.params.len())));
    }
    let mut packed = vec![0; kernel.param_bytes];
    for (param, arg) in kernel.params.iter().zip(args) {
        if arg.len() != param.size {
            return Err(bad(format!("{} bytes for {}, which has {}", arg.len(), param.name, param.size)));
        }
        packed[param.offset..param.offset + param.size].copy_from_slice(arg);
    }
    Ok(packed)
}

fn launch_fault(_: &Module, kernel: &Kernel, what: String) -> Box<Fault> {
    Box::new(Fault {
        kind: FaultKind::Launch,
        kernel: kernel.name.clone(),
        what,
        line: 0,
        text: String::new(),
        block: [0; 3],
        warp: 0,
    })
}

/// What all blocks of a launch share.
struct Grid<'a> {
    module: &'a Module,
    kernel: &'a Kernel,
    launch: &'a Launch,
    options: &'a Options,
    regions: Vec<Arc<Region>>,
    traffic: Option<Traffic>,
    cache: Option<Mutex<Cache>>,
    shared_bytes: usize,
}

/// Runs a kernel to its end.
///
/// # Errors
/// The first [`Fault`] met; memory then holds what was written so far.
pub fn launch(
    module: &Module,
    kernel: &Kernel,
    launch: &Launch,
    memory: &DeviceMemory,
    options: &Options,
) -> Result<Counters, Box<Fault>> {
    let bad = |what: String| Err(launch_fault(module, kernel, what));
    let threads = launch.block.iter().map(|&n| u64::from(n)).product::<u64>();
    if threads == 0 || threads > u64::from(kernel.max_threads()) {
        return bad(format!("{threads} threads a block; at least 1 and at most {}", kernel.max_threads()));
    }
    if launch.block[2] > 64 || launch.grid.contains(&0) || launch.grid[1] > 65535 || launch.grid[2] > 65535 {
        return bad(format!("a grid of {:?} blocks of {:?} threads", launch.grid, launch.block));
    }
    if launch.args.len() < kernel.param_bytes {
        return bad(format!("{} bytes of arguments, {} needed", launch.args.len(), kernel.param_bytes));
    }
    let shared_bytes = kernel.shared.next_multiple_of(16) * usize::from(launch.dynamic_shared > 0)
        + kernel.shared * usize::from(launch.dynamic_shared == 0)
        + launch.dynamic_shared;
    let regions = memory.snapshot();
    let traffic = options.traffic.then(|| Traffic::new(&regions));
    let cache = options.cache.map(|bytes| Mutex::new(Cache::new(bytes)));
    let grid = Grid { module, kernel, launch, options, regions, traffic, cache, shared_bytes };
    let blocks = launch.grid.iter().map(|&n| u64::from(n)).product::<u64>();
    let order = Order::new(blocks, options.schedule);
    let workers = if options.global_races || options.cache.is_some() {
        1
    } else {
        options.threads.clamp(1, blocks.min(64) as usize)
    };
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let work = || -> Result<Executor<'_>, Box<Fault>> {
        let mut executor = Executor::new(&grid);
        loop {
            let turn = next.fetch_add(1, Relaxed);
            if turn >= blocks || failed.load(Relaxed) {
                return Ok(executor);
            }
            executor.run_block(order.at(turn)).inspect_err(|_| failed.store(true, Relaxed))?;
        }
    };
    let done: Vec<_> = if workers == 1 {
        vec![work()]
    } else {
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            handles
                .into_iter()
                .map(|h| h.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    };
    let mut counters = Counters::default();
    for executor in done {
        counters.add(&executor?.counters());
    }
    counters.launches = 1;
    counters.blocks = blocks;
    counters.last_blocks = blocks;
    counters.threads_per_block = threads as u32;
    counters.shared_bytes = shared_bytes;
    counters.local_bytes = kernel.local;
    if let Some(traffic) = &grid.traffic {
        (counters.distinct_read, counters.distinct_written) = traffic.distinct();
    }
    if let Some(cache) = &grid.cache {
        let crossed = cache.lock().unwrap_or_else(|e| e.into_inner()).crossed();
        (counters.memory_read, counters.memory_written) = crossed;
    }
    Ok(counters)
}

/// The order of blocks.
struct Order {
    blocks: u64,
    schedule: Schedule,
    shuffled: Vec<u64>,
}

impl Order {
    fn new(blocks: u64, schedule: Schedule) -> Self {
        let mut shuffled = Vec::new();
        if let Schedule::Random(seed) = schedule {
            shuffled = (0..blocks).collect();
            let mut dice = Dice::new(seed);
            for last in (1..shuffled.len()).rev() {
                shuffled.swap(last, dice.below(last as u64 + 1) as usize);
            }
        }
        Self { blocks, schedule, shuffled }
    }

    fn at(&self, turn: u64) -> u64 {
        match self.schedule {
            Schedule::Late | Schedule::Eager => turn,
            Schedule::EagerReversed => self.blocks - 1 - turn,
            Schedule::Random(_) => self.shuffled[turn as usize],
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
