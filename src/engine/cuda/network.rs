//! The network in the device's memory, and its graphs: one from the input's bytes on, one from the frame's.

mod surroundings;

use super::driver::{Argument, Context, DeviceMemory, Event, Graph, HostMemory, Kernel, Stream};
use super::kernels::Loaded;
use super::reading::{self, Picture};
use super::schedule::{CutAs, Cuts, Launch, Schedule, THREADS, WORDS, Wishes};
use super::{CudaError, Device, Options};
use crate::engine::plan::Plan;
use crate::engine::{Ask, Seen, scalar};
use crate::model::Head;
use std::sync::Arc;
use std::time::Instant;
use surroundings::Surroundings;

/// Blocks that a multiprocessor should have at least, so that some compute while others wait for memory.
const BLOCKS: usize = 3;

/// How launches are cut where nothing is known.
pub fn usual(device: &Device) -> CutAs {
    CutAs { blocks: device.multiprocessors * BLOCKS, narrow: false }
}

/// The network on the device. Fields are dropped in this order: the graph before what it uses.
#[derive(Debug)]
pub struct Network {
    graph: Option<Graph>,
    /// Of a picture from its frame on: without a screen, and with one.
    reading: [Option<Graph>; 2],
    surroundings: Surroundings,
    stream: Stream,
    kernel: Kernel,
    launches: Vec<Launch>,
    /// For each job its step in the plan.
    steps: Vec<usize>,
    /// Address of the jobs.
    jobs: u64,
    input: HostMemory,
    output: HostMemory,
    memory: Memory,
    /// The plan; its features' place is in `output`.
    plan: Plan,
    input_place: usize,
    features_place: usize,
    options: Options,
    /// The first picture waits for lazy parts of the driver.
    warm: bool,
    context: Arc<Context>,
    /// The kernels, which must outlive all the above.
    _loaded: Loaded,
}

/// What lies on the device.
#[derive(Debug)]
struct Memory {
    arena: DeviceMemory,
    weights: DeviceMemory,
    bias: DeviceMemory,
    multiplier: DeviceMemory,
    partial: DeviceMemory,
    tickets: DeviceMemory,
    /// Held for their address.
    _jobs: DeviceMemory,
}

impl Network {
    /// Puts a plan on the device.
    ///
    /// # Errors
    /// [`CudaError`].
    pub fn new(
        context: &Arc<Context>,
        loaded: Loaded,
        plan: Plan,
        head: Option<Head>,
        options: Options,
        cuts: &Cuts,
    ) -> Result<Self, CudaError> {
        let cut = options.cut.unwrap_or_else(|| usual(&context.device));
        let schedule = Schedule::tuned(plan, Wishes { cut, signed: loaded.signed }, cuts)?;
        let kernel = loaded.module.kernel("steps")?;
        let jobs = DeviceMemory::of(context, &schedule.words())?;
        let address = jobs.address();
        let memory = Memory {
            arena: DeviceMemory::new(context, schedule.plan.arena)?,
            weights: DeviceMemory::of(context, &schedule.weights)?,
            bias: DeviceMemory::of(context, &schedule.bias)?,
            multiplier: DeviceMemory::of(context, &schedule.multiplier)?,
            partial: DeviceMemory::new(context, schedule.partial * 4)?,
            tickets: DeviceMemory::of(context, &vec![0u32; schedule.tickets])?,
            _jobs: jobs,
        };
        let Schedule { mut plan, launches, steps, .. } = schedule;
        let surroundings = Surroundings::new(context, &loaded.module, &plan, head)?;
        let input = &plan.tensors[plan.input];
        let input_place = input.place;
        let input = HostMemory::new(context, input.shape.iter().product())?;
        let features = &mut plan.tensors[plan.features];
        let [h, w, c] = features.shape;
        let output = HostMemory::new(context, (h * w).saturating_sub(1) * features.step + c)?;
        let features_place = std::mem::take(&mut features.place);
        let mut network = Self {
            graph: None,
            reading: [None, None],
            surroundings,
            stream: Stream::new(context)?,
            kernel,
            launches,
            steps,
            jobs: address,
            input,
            output,
            memory,
            plan,
            input_place,
            features_place,
            options,
            warm: false,
            context: Arc::clone(context),
            _loaded: loaded,
        };
        network.graph = network.stream.record(|stream| network.enqueue(stream))?;
        Ok(network)
    }

    /// The plan; the features' place is that in [`Self::output`].
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The launches of a picture, in order.
    pub fn launches(&self) -> &[Launch] {
        &self.launches
    }

    /// For each job of the launches its step in the plan.
    pub fn steps(&self) -> &[usize] {
        &self.steps
    }

    /// Nodes of the graph.
    pub fn nodes(&self) -> usize {
        self.launches.len() + 2
    }

    /// True when the network is one graph, false when the driver has none and each launch is a call.
    pub fn is_graph(&self) -> bool {
        self.graph.is_some()
    }

    /// Starts all of the network.
    fn enqueue(&self, stream: &Stream) -> Result<(), CudaError> {
        stream.copy_in(&self.memory.arena, self.input_place, &self.input)?;
        for number in 0..self.launches.len() {
            self.launch(stream, number)?;
        }
        stream.copy_out(&self.output, &self.memory.arena, self.features_place)
    }

    fn launch(&self, stream: &Stream, number: usize) -> Result<(), CudaError> {
        let launch = &self.launches[number];
        let jobs = self.jobs + (launch.first * WORDS * 4) as u64;
        let m = &self.memory;
        let buffers = [&m.arena, &m.weights, &m.bias, &m.multiplier, &m.partial, &m.tickets];
        let mut arguments = vec![Argument::Address(jobs), Argument::Int(launch.jobs as i32)];
        arguments.extend(buffers.map(|memory| Argument::Address(memory.address())));
        // SAFETY: these are the arguments of `steps`; the schedule's jobs stay inside the buffers, which this value owns, and
        // it waits for the work, or loses the device, before it lets them go.
        unsafe { stream.launch(self.kernel, launch.blocks, THREADS, &arguments) }
    }

    /// The features' bytes for an input, from [`Plan::features`]'s first byte on. A failure loses the device: what it left there is
    /// not known.
    ///
    /// # Errors
    /// [`CudaError::Call`], [`CudaError::Hung`] and [`CudaError::Lost`].
    pub fn run(&mut self, input: &[u8]) -> Result<&[u8], CudaError> {
        match self.compute(input) {
            Ok(()) => Ok(self.output.as_bytes()),
            Err(error) => {
                self.context.lose();
                Err(error)
            }
        }
    }

    /// What becomes of a picture, from its frame on; `None` where the processor must prepare it ([`Picture::of`]). A failure loses the
    /// device.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn read(&mut self, ask: &Ask<'_>) -> Result<Option<Seen>, CudaError> {
        let start = Instant::now();
        let Some(picture) = self.picture(ask) else { return Ok(None) };
        let seen = self.compute_all(&picture, ask).and_then(|()| self.seen(&picture, ask, start));
        if seen.is_err() {
            self.context.lose();
        }
        seen.map(Some)
    }

    /// The features' place in the plan is that in the output; the kernels find them in the arena.
    fn picture(&self, ask: &Ask<'_>) -> Option<Picture> {
        Picture::of(ask, &self.plan).map(|picture| picture.with_features(self.features_place))
    }

    fn compute_all(&mut self, picture: &Picture, ask: &Ask<'_>) -> Result<(), CudaError> {
        if self.surroundings.make_room(picture)? {
            self.reading = [None, None];
        }
        self.surroundings.put(picture, ask.cut.frame().pixels())?;
        let which = usize::from(picture.is_shown());
        if self.reading[which].is_none() {
            self.reading[which] = self.stream.record(|stream| self.enqueue_all(stream, picture))?;
        }
        match &self.reading[which] {
            // SAFETY: the graph was recorded with the memory and kernels of this value, which waits below.
            Some(graph) => unsafe { graph.start(&self.stream)? },
            None => self.enqueue_all(&self.stream, picture)?,
        }
        self.wait()
    }

    /// Starts preparation, network and explanation.
    fn enqueue_all(&self, stream: &Stream, picture: &Picture) -> Result<(), CudaError> {
        let arena = self.memory.arena.address();
        self.surroundings.before(stream, arena)?;
        for number in 0..self.launches.len() {
            self.launch(stream, number)?;
        }
        self.surroundings.behind(stream, arena, picture)?;
        stream.copy_out(&self.output, &self.memory.arena, self.features_place)
    }

    fn seen(&self, picture: &Picture, ask: &Ask<'_>, start: Instant) -> Result<Seen, CudaError> {
        let (seen, lit) = self.surroundings.results();
        let prepared = reading::prepared(seen, ask)?;
        let light = self.surroundings.explains().then(|| reading::light(seen, lit, picture)).transpose()?;
        let output = scalar::read_output(&self.plan, self.output.as_bytes());
        Ok(Seen { prepared, output, millis: start.elapsed().as_secs_f32() * 1000.0, light })
    }

    fn compute(&mut self, input: &[u8]) -> Result<(), CudaError> {
        let bytes = self.input.bytes_mut();
        if bytes.len() != input.len() {
            return Err(CudaError::Bounds);
        }
        match &self.plan.levels {
            Some(levels) => {
                bytes.iter_mut().zip(input).for_each(|(to, from)| *to = levels[usize::from(*from)]);
            }
            None => bytes.copy_from_slice(input),
        }
        match &self.graph {
            // SAFETY: the graph was recorded with the memory and kernels of this value, which waits below.
            Some(graph) => unsafe { graph.start(&self.stream)? },
            None => self.enqueue(&self.stream)?,
        }
        self.wait()
    }

    /// The features' bytes of the last picture.
    pub fn features(&self) -> &[u8] {
        self.output.as_bytes()
    }

    /// Waits for what was started.
    fn wait(&mut self) -> Result<(), CudaError> {
        let limit =
            if self.warm { self.options.limit } else { self.options.limit.max(self.options.first_limit) };
        self.stream.wait(limit)?;
        self.warm = true;
        Ok(())
    }

    /// Milliseconds of each launch for the input that was run last.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn profile(&mut self, context: &Arc<Context>) -> Result<Vec<f32>, CudaError> {
        let marks: Vec<Event> =
            (0..=self.launches.len()).map(|_| Event::new(context)).collect::<Result<_, _>>()?;
        // The input may have been overwritten by what came later.
        self.stream.copy_in(&self.memory.arena, self.input_place, &self.input)?;
        self.stream.mark(&marks[0])?;
        for (number, mark) in marks.iter().skip(1).enumerate() {
            self.launch(&self.stream, number)?;
            self.stream.mark(mark)?;
        }
        self.wait()?;
        marks.windows(2).map(|pair| pair[0].until(&pair[1])).collect()
    }
}
