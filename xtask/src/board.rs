//! A board that is not there: memory, a module and the schedule of a plan on the simulator.

use anyhow::Context;
use fovea::engine::cuda::kernels::{PTX, SIGNED, built};
use fovea::engine::cuda::schedule::{CutAs, Schedule, THREADS, WORDS, Wishes};
use fovea::engine::{plan::Plan, scalar};
use fovea_simulator::{self as simulator, Counters, DeviceMemory, Fault, Launch, Module, Options};

/// The PTX that a board's driver takes: the newest that is not newer than the board.
pub fn ptx_for(board: u32) -> anyhow::Result<u32> {
    PTX.into_iter().rev().find(|ptx| *ptx <= board).with_context(|| format!("no kernels for sm_{board}"))
}

/// The PTX that is built into the engine.
pub fn built_ptx(architecture: u32) -> anyhow::Result<String> {
    let wanted = format!("compute_{architecture}");
    let image = built().into_iter().find(|image| image.what == wanted);
    let image = image.with_context(|| format!("there is no built {wanted}"))?;
    Ok(String::from_utf8(image.bytes)?)
}

/// A simulated device with a module of kernels.
pub struct Board {
    memory: DeviceMemory,
    module: Module,
}

impl Board {
    /// A device with these kernels.
    pub fn new(ptx: &str) -> anyhow::Result<Self> {
        let memory = DeviceMemory::new(1 << 30);
        let module = Module::load(ptx, &memory)?;
        Ok(Self { memory, module })
    }

    /// A plan cut for so many blocks.
    pub fn schedule(&self, plan: &Plan, blocks: usize) -> anyhow::Result<Schedule> {
        let signed = SIGNED.contains(&self.module.target());
        Ok(Schedule::new(plan.clone(), Wishes { cut: CutAs { blocks, narrow: false }, signed })?)
    }

    fn put(&self, bytes: &[u8]) -> anyhow::Result<u64> {
        let address = self.memory.allocate(bytes.len())?;
        self.memory.write(address, bytes)?;
        Ok(address)
    }

    /// Puts a schedule into the device's memory, as the engine does.
    pub fn network<'a>(&'a self, schedule: &'a Schedule) -> anyhow::Result<Network<'a>> {
        let words = |list: &[i32]| -> Vec<u8> { list.iter().flat_map(|w| w.to_le_bytes()).collect() };
        let multiplier: Vec<u8> = schedule.multiplier.iter().flat_map(|m| m.to_le_bytes()).collect();
        let weights: Vec<u8> = schedule.weights.iter().map(|w| w.cast_unsigned()).collect();
        let buffers = [
            self.memory.allocate(schedule.plan.arena)?,
            self.put(&weights)?,
            self.put(&words(&schedule.bias))?,
            self.put(&multiplier)?,
            self.memory.allocate((schedule.partial * 4).max(1))?,
            self.put(&vec![0; (schedule.tickets * 4).max(1)])?,
        ];
        Ok(Network { board: self, schedule, jobs: self.put(&words(&schedule.words()))?, buffers })
    }
}

/// A schedule in a device's memory.
pub struct Network<'a> {
    board: &'a Board,
    schedule: &'a Schedule,
    jobs: u64,
    buffers: [u64; 6],
}

/// What a run gives: the features' bytes, and the counts of each launch.
pub type Answer = (Vec<u8>, Vec<Counters>);

impl Network<'_> {
    /// Runs all launches over an input; the fault of the first that stops.
    pub fn run(&self, input: &[u8], options: &Options) -> anyhow::Result<Result<Answer, Box<Fault>>> {
        let (board, plan) = (self.board, &self.schedule.plan);
        let kernel = board.module.kernel("steps")?;
        let levels = |byte: &u8| plan.levels.as_ref().map_or(*byte, |levels| levels[usize::from(*byte)]);
        let input: Vec<u8> = input.iter().map(levels).collect();
        board.memory.write(self.buffers[0] + plan.tensors[plan.input].place as u64, &input)?;
        let mut counts = Vec::new();
        for launch in &self.schedule.launches {
            let jobs = self.jobs + (launch.first * WORDS * 4) as u64;
            let (jobs, count) = (jobs.to_le_bytes(), (launch.jobs as i32).to_le_bytes());
            let buffers = self.buffers.map(u64::to_le_bytes);
            let mut arguments: Vec<&[u8]> = vec![&jobs, &count];
            arguments.extend(buffers.iter().map(|b| &b[..]));
            let shape = Launch {
                grid: [launch.blocks as u32, 1, 1],
                block: [THREADS as u32, 1, 1],
                dynamic_shared: 0,
                args: simulator::pack_args(&board.module, kernel, &arguments)?,
            };
            match simulator::launch(&board.module, kernel, &shape, &board.memory, options) {
                Ok(counters) => counts.push(counters),
                Err(fault) => return Ok(Err(fault)),
            }
        }
        let mut arena = vec![0; plan.arena];
        board.memory.read(self.buffers[0], &mut arena)?;
        Ok(Ok((scalar::read_bytes(plan, &arena), counts)))
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        for address in self.buffers.into_iter().chain([self.jobs]) {
            let freed = self.board.memory.free(address);
            debug_assert!(freed.is_ok(), "allocated above and freed once");
        }
    }
}

#[cfg(test)]
mod tests;
