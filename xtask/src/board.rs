//! A board that is not there: memory, a module and the schedule of a plan on the simulator.

use anyhow::Context;
use fovea::engine::cuda::kernels::{PTX, SIGNED, built};
use fovea::engine::cuda::reading::{self, BUFFERS, Buffer, Picture};
use fovea::engine::cuda::schedule::{CutAs, Schedule, THREADS, WORDS, Wishes};
use fovea::engine::{Ask, Seen, plan::Plan, scalar};
use fovea::model::Head;
use fovea_simulator::{self as simulator, Counters, DeviceMemory, Fault, Launch, Module, Options};
use std::cell::RefCell;
use std::collections::BTreeMap;

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
        let jobs = self.put(&words(&schedule.words()))?;
        Ok(Network { board: self, schedule, jobs, buffers, around: RefCell::default() })
    }

    /// Starts a kernel; its fault, where it stops.
    fn start(
        &self,
        kernel: &str,
        blocks: usize,
        arguments: &[&[u8]],
        options: &Options,
    ) -> anyhow::Result<Result<Counters, Box<Fault>>> {
        let kernel = self.module.kernel(kernel)?;
        let shape = Launch {
            grid: [blocks as u32, 1, 1],
            block: [THREADS as u32, 1, 1],
            dynamic_shared: 0,
            args: simulator::pack_args(&self.module, kernel, arguments)?,
        };
        Ok(simulator::launch(&self.module, kernel, &shape, &self.memory, options))
    }
}

/// A schedule in a device's memory.
pub struct Network<'a> {
    board: &'a Board,
    schedule: &'a Schedule,
    jobs: u64,
    buffers: [u64; 6],
    /// What lies around it: addresses and sizes.
    around: RefCell<BTreeMap<Buffer, (u64, usize)>>,
}

/// What a run gives: the features' bytes, and the counts of each launch.
pub type Answer = (Vec<u8>, Vec<Counters>);

/// What a picture gives, and the counts of each launch with its kernel.
pub type Read = (Seen, Vec<(&'static str, Counters)>);

impl Network<'_> {
    /// Runs all launches over an input; the fault of the first that stops.
    pub fn run(&self, input: &[u8], options: &Options) -> anyhow::Result<Result<Answer, Box<Fault>>> {
        let (board, plan) = (self.board, &self.schedule.plan);
        let levels = |byte: &u8| plan.levels.as_ref().map_or(*byte, |levels| levels[usize::from(*byte)]);
        let input: Vec<u8> = input.iter().map(levels).collect();
        board.memory.write(self.buffers[0] + plan.tensors[plan.input].place as u64, &input)?;
        match self.steps(options)? {
            Ok(counts) => Ok(Ok((scalar::read_bytes(plan, &self.arena()?), counts))),
            Err(fault) => Ok(Err(fault)),
        }
    }

    /// The network's launches.
    fn steps(&self, options: &Options) -> anyhow::Result<Result<Vec<Counters>, Box<Fault>>> {
        let mut counts = Vec::new();
        for launch in &self.schedule.launches {
            let jobs = self.jobs + (launch.first * WORDS * 4) as u64;
            let (jobs, count) = (jobs.to_le_bytes(), (launch.jobs as i32).to_le_bytes());
            let buffers = self.buffers.map(u64::to_le_bytes);
            let mut arguments: Vec<&[u8]> = vec![&jobs, &count];
            arguments.extend(buffers.iter().map(|b| &b[..]));
            match self.board.start("steps", launch.blocks, &arguments, options)? {
                Ok(counters) => counts.push(counters),
                Err(fault) => return Ok(Err(fault)),
            }
        }
        Ok(Ok(counts))
    }

    fn arena(&self) -> anyhow::Result<Vec<u8>> {
        let mut arena = vec![0; self.schedule.plan.arena];
        self.board.memory.read(self.buffers[0], &mut arena)?;
        Ok(arena)
    }

    /// Where a buffer lies, large enough for a picture.
    fn place(&self, buffer: Buffer, picture: &Picture, head: &Head) -> anyhow::Result<u64> {
        if buffer == Buffer::Arena {
            return Ok(self.buffers[0]);
        }
        let wanted = buffer.bytes(picture).max(1);
        let mut around = self.around.borrow_mut();
        let known = around.get(&buffer).copied();
        if let Some((address, _)) = known.filter(|(_, bytes)| *bytes >= wanted) {
            return Ok(address);
        }
        if let Some((address, _)) = known {
            self.board.memory.free(address)?;
        }
        let address = match buffer.constant(&self.schedule.plan, Some(head)) {
            Some(bytes) => self.board.put(&bytes)?,
            None if buffer.is_mapped() => self.board.memory.allocate_pinned(wanted, true)?,
            None => self.board.memory.allocate(wanted)?,
        };
        around.insert(buffer, (address, wanted));
        Ok(address)
    }

    /// Prepares, computes and explains a picture, as the engine does; the fault of the first launch that stops.
    pub fn read(
        &self,
        ask: &Ask<'_>,
        head: &Head,
        options: &Options,
    ) -> anyhow::Result<Result<Read, Box<Fault>>> {
        let (memory, plan) = (&self.board.memory, &self.schedule.plan);
        let picture = Picture::of(ask, plan).context("the device does not prepare this picture")?;
        for buffer in BUFFERS {
            self.place(buffer, &picture, head)?;
        }
        memory.write(self.place(Buffer::Frame, &picture, head)?, ask.cut.frame().pixels())?;
        memory.write(self.place(Buffer::Picture, &picture, head)?, &picture.bytes())?;
        let blocks = reading::blocks(8);
        let mut counts = Vec::new();
        let around = |calls: &[reading::Call], counts: &mut Vec<_>| -> anyhow::Result<Option<Box<Fault>>> {
            for call in calls {
                let place = |buffer: &Buffer| Ok(self.place(*buffer, &picture, head)?.to_le_bytes());
                let places: Vec<[u8; 8]> = call.buffers.iter().map(place).collect::<anyhow::Result<_>>()?;
                let arguments: Vec<&[u8]> = places.iter().map(|place| &place[..]).collect();
                match self.board.start(call.kernel, call.blocks, &arguments, options)? {
                    Ok(counters) => counts.push((call.kernel, counters)),
                    Err(fault) => return Ok(Some(fault)),
                }
            }
            Ok(None)
        };
        if let Some(fault) = around(&reading::before(blocks), &mut counts)? {
            return Ok(Err(fault));
        }
        match self.steps(options)? {
            Ok(all) => counts.extend(all.into_iter().map(|counters| ("steps", counters))),
            Err(fault) => return Ok(Err(fault)),
        }
        if let Some(fault) = around(&reading::behind(head, &picture, blocks), &mut counts)? {
            return Ok(Err(fault));
        }
        let bytes = |buffer: Buffer| -> anyhow::Result<Vec<u8>> {
            let mut bytes = vec![0; buffer.bytes(&picture)];
            memory.read(self.place(buffer, &picture, head)?, &mut bytes)?;
            Ok(bytes)
        };
        let (seen, lit) = (bytes(Buffer::Seen)?, bytes(Buffer::Lit)?);
        Ok(Ok((
            Seen {
                prepared: reading::prepared(&seen, ask)?,
                output: scalar::read_output(plan, &self.arena()?),
                millis: 0.0,
                light: Some(reading::light(&seen, &lit, &picture)?),
            },
            counts,
        )))
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        let around = self.around.borrow();
        let around = around.values().map(|(address, _)| *address);
        for address in self.buffers.into_iter().chain([self.jobs]).chain(around) {
            let freed = self.board.memory.free(address);
            debug_assert!(freed.is_ok(), "allocated above and freed once");
        }
    }
}

#[cfg(test)]
mod tests;
