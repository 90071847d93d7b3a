//! The driver's state: one device, its primary context, and what lives in it.

use crate::code::{self, Code, Outcome};
use crate::settings::{Kind, Settings, Streams};
use crate::work::Work;
use fovea_simulator::{DeviceMemory, Module};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

/// What the program holds in its hand; never 0.
pub type Handle = usize;

/// Bytes of the device.
const MEMORY: u64 = 1 << 30;

/// A stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// What is to be done, with the order in which it was given.
    queue: VecDeque<(u64, Work)>,
    /// A piece is being done.
    busy: bool,
    /// What is captured and not done.
    pub(crate) captured: Option<Vec<Work>>,
}

/// An event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Event {
    /// How often it was recorded.
    recorded: u64,
    /// The last recording that came, and when.
    came: u64,
    at: Option<Instant>,
}

/// The primary context.
#[derive(Debug)]
pub struct Context {
    /// Its handle, another one after every reset.
    pub(crate) handle: Handle,
    retained: u32,
    pub(crate) memory: Arc<DeviceMemory>,
    pub(crate) modules: HashMap<Handle, Arc<Module>>,
    /// Module and number of the kernel.
    pub(crate) functions: HashMap<Handle, (Arc<Module>, usize)>,
    pub(crate) streams: BTreeMap<Handle, Stream>,
    pub(crate) events: HashMap<Handle, Event>,
    pub(crate) graphs: HashMap<Handle, Vec<Work>>,
    /// After a kernel's fault every call says so.
    failed: Option<Code>,
    /// Somebody asks for a result.
    asked: bool,
}

#[derive(Debug, Default)]
struct State {
    context: Option<Context>,
    next: Handle,
    rolls: u64,
    counts: HashMap<u8, u64>,
    lost: Option<Instant>,
    dice: u64,
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    settings: Settings,
    state: Mutex<State>,
    bell: Condvar,
}

impl Driver {
    /// A driver with one device.
    pub fn new(settings: Settings) -> Self {
        let dice = match settings.streams {
            Streams::Late(seed) | Streams::Unordered(seed) => seed,
            Streams::InOrder => 0,
        };
        let state = State { next: 0x1000, dice, ..State::default() };
        Self { settings, state: Mutex::new(state), bell: Condvar::new() }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Counts an occasion for a fault, and says whether it comes.
    pub fn happens(&self, kind: Kind) -> bool {
        let mut state = self.lock();
        let count = state.counts.entry(kind as u8).or_default();
        *count += 1;
        self.settings.faults.iter().any(|f| f.kind == kind && (*count == f.at || f.on && *count > f.at))
    }

    /// The device falls off its bus.
    pub(crate) fn lose(&self) {
        self.lock().lost = Some(Instant::now());
    }

    /// True until the device fell off its bus.
    pub fn is_there(&self) -> bool {
        self.settings.devices > 0 && !self.lock().is_lost(&self.settings)
    }

    /// Takes the primary context, made anew where nobody has it.
    ///
    /// # Errors
    /// [`code::DEVICE_UNAVAILABLE`], and what a kernel left.
    pub fn retain(self: &Arc<Self>) -> Outcome<Handle> {
        let mut state = self.lock();
        if state.is_lost(&self.settings) {
            return Err(code::DEVICE_UNAVAILABLE);
        }
        if let Some(context) = &mut state.context {
            if let Some(code) = context.failed {
                return Err(code);
            }
            context.retained += 1;
            return Ok(context.handle);
        }
        let handle = state.handle();
        state.context = Some(Context {
            handle,
            retained: 1,
            memory: Arc::new(DeviceMemory::new(MEMORY)),
            modules: HashMap::new(),
            functions: HashMap::new(),
            // The default stream.
            streams: BTreeMap::from([(0, Stream::default())]),
            events: HashMap::new(),
            graphs: HashMap::new(),
            failed: None,
            asked: false,
        });
        let driver = Arc::clone(self);
        std::thread::Builder::new()
            .name("fovea simulator".into())
            .spawn(move || driver.serve(handle))
            .map_err(|_| code::OUT_OF_MEMORY)?;
        Ok(handle)
    }

    /// Gives the context back; the last one to do so ends it when all work is done.
    ///
    /// # Errors
    /// [`code::INVALID_CONTEXT`] where nobody has it.
    pub fn release(&self) -> Outcome {
        let mut state = self.lock();
        let context = state.context.as_mut().ok_or(code::INVALID_CONTEXT)?;
        context.retained = context.retained.saturating_sub(1);
        if context.retained == 0 {
            let mut state = self.idle(state);
            state.context = None;
            self.bell.notify_all();
        }
        Ok(())
    }

    /// Ends the context at once, whatever still runs.
    pub fn reset(&self) {
        self.lock().context = None;
        self.bell.notify_all();
    }

    /// Works on the context of that handle.
    ///
    /// # Errors
    /// Those of `act`, of a context that is gone, and what a kernel left.
    pub fn with<T>(
        &self,
        handle: Handle,
        act: impl FnOnce(&mut Context, Handle) -> Outcome<T>,
    ) -> Outcome<T> {
        let mut state = self.lock();
        if state.is_lost(&self.settings) {
            return Err(code::DEVICE_UNAVAILABLE);
        }
        let new = state.handle();
        let context = state.context.as_mut().ok_or(code::CONTEXT_IS_DESTROYED)?;
        if context.handle != handle {
            return Err(code::CONTEXT_IS_DESTROYED);
        }
        match context.failed {
            Some(code) => Err(code),
            None => act(context, new),
        }
    }

    /// Gives a stream work, or puts it down where the stream is captured.
    ///
    /// # Errors
    /// As [`Self::with`], and [`code::INVALID_HANDLE`].
    pub fn give(&self, handle: Handle, stream: Handle, work: impl IntoIterator<Item = Work>) -> Outcome {
        self.with(handle, |context, order| {
            let stream = context.streams.get_mut(&stream).ok_or(code::INVALID_HANDLE)?;
            match &mut stream.captured {
                Some(captured) => captured.extend(work),
                // Handles grow with time, which gives an order as well.
                None => stream.queue.extend(work.into_iter().map(|work| (order as u64, work))),
            }
            Ok(())
        })?;
        self.bell.notify_all();
        Ok(())
    }

    /// Records an event in a stream.
    ///
    /// # Errors
    /// As [`Self::give`]; inside a capture this library has no events.
    pub fn record(&self, handle: Handle, event: Handle, stream: Handle) -> Outcome {
        let recording = self.with(handle, |context, _| {
            if context.streams.get(&stream).ok_or(code::INVALID_HANDLE)?.captured.is_some() {
                return Err(code::STREAM_CAPTURE_UNSUPPORTED);
            }
            let event = context.events.get_mut(&event).ok_or(code::INVALID_HANDLE)?;
            event.recorded += 1;
            Ok(event.recorded)
        })?;
        self.give(handle, stream, [Work::Mark(event, recording)])
    }

    /// Lets a stream wait for what an event was recorded for last.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn wait_event(&self, handle: Handle, stream: Handle, event: Handle) -> Outcome {
        let recording = self.with(handle, |context, _| {
            Ok(context.events.get(&event).ok_or(code::INVALID_HANDLE)?.recorded)
        })?;
        self.give(handle, stream, [Work::Await(event, recording)])
    }

    /// When the last recording of an event came; asks for it.
    ///
    /// # Errors
    /// [`code::NOT_READY`] and as [`Self::with`].
    pub fn came(&self, handle: Handle, event: Handle) -> Outcome<Option<Instant>> {
        if self.happens(Kind::Early) {
            return Ok(None);
        }
        let asked = self.with(handle, |context, _| {
            context.asked = true;
            let event = context.events.get(&event).ok_or(code::INVALID_HANDLE)?;
            if event.came >= event.recorded { Ok(event.at) } else { Err(code::NOT_READY) }
        });
        self.bell.notify_all();
        asked
    }

    /// Waits until nothing is left to do, on a stream or on all.
    ///
    /// # Errors
    /// What a kernel left.
    pub fn synchronize(&self, handle: Handle, stream: Option<Handle>) -> Outcome {
        loop {
            let idle = self.with(handle, |context, _| {
                context.asked = true;
                match stream {
                    None => Ok(context.is_idle()),
                    Some(stream) => Ok(context.streams.get(&stream).ok_or(code::INVALID_HANDLE)?.is_idle()),
                }
            })?;
            if idle {
                return Ok(());
            }
            self.bell.notify_all();
            drop(self.bell.wait_timeout(self.lock(), std::time::Duration::from_millis(1)));
        }
    }

    fn idle<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while let Some(context) = state.context.as_mut().filter(|c| c.failed.is_none() && !c.is_idle()) {
            context.asked = true;
            self.bell.notify_all();
            state = self
                .bell
                .wait_timeout(state, std::time::Duration::from_millis(1))
                .map_or_else(|e| e.into_inner().0, |(state, _)| state);
        }
        state
    }

    /// The next piece of work that may be done; waits for one; `None` when the context is gone.
    pub(crate) fn take(&self, context: Handle) -> Option<(Handle, Work)> {
        let mut state = self.lock();
        loop {
            let streams = self.settings.streams;
            let dice = state.roll();
            let here = state.context.as_mut().filter(|c| c.handle == context)?;
            if let Some(found) = here.choose(streams, dice) {
                return Some(found);
            }
            state = self.bell.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// A piece of work is done.
    pub(crate) fn finish(&self, context: Handle, stream: Handle, done: Outcome) {
        let mut state = self.lock();
        if let Some(here) = state.context.as_mut().filter(|c| c.handle == context) {
            if let Some(stream) = here.streams.get_mut(&stream) {
                stream.busy = false;
            }
            if let Err(code) = done {
                here.failed = Some(code);
            }
        }
        self.bell.notify_all();
    }

    /// An event comes.
    pub(crate) fn come(&self, context: Handle, event: Handle, recording: u64) {
        let mut state = self.lock();
        if let Some(here) = state.context.as_mut().filter(|c| c.handle == context)
            && let Some(event) = here.events.get_mut(&event)
        {
            (event.came, event.at) = (recording, Some(Instant::now()));
        }
    }

    /// A kernel that hangs: until the context is gone.
    pub(crate) fn stay(&self, context: Handle) {
        let mut state = self.lock();
        while state.context.as_ref().is_some_and(|c| c.handle == context) {
            state = self.bell.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// The memory of a context that still is.
    pub(crate) fn memory(&self, context: Handle) -> Option<Arc<DeviceMemory>> {
        let state = self.lock();
        state.context.as_ref().filter(|c| c.handle == context).map(|c| Arc::clone(&c.memory))
    }
}

impl State {
    /// True while the device is off its bus.
    fn is_lost(&self, settings: &Settings) -> bool {
        self.lost.is_some_and(|since| settings.back.is_none_or(|back| since.elapsed() < back))
    }

    fn handle(&mut self) -> Handle {
        self.next += 0x10;
        self.next
    }

    /// A number that looks random (xorshift64*, Vigna 2016).
    fn roll(&mut self) -> u64 {
        self.rolls += 1;
        self.dice = (self.dice ^ self.rolls).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        self.dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33
    }
}

impl Stream {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.busy
    }
}

impl Context {
    fn is_idle(&self) -> bool {
        self.streams.values().all(Stream::is_idle)
    }

    /// Takes the next piece of a stream that may go on: the oldest, or a random one when somebody asks.
    fn choose(&mut self, streams: Streams, dice: u64) -> Option<(Handle, Work)> {
        let late = streams != Streams::InOrder;
        if self.failed.is_some() || late && !self.asked {
            return None;
        }
        let events = &self.events;
        let may = |work: &Work| match work {
            Work::Await(event, recording) => events.get(event).is_none_or(|e| e.came >= *recording),
            _ => true,
        };
        let mut ready: Vec<(u64, Handle)> = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.busy)
            .filter_map(|(handle, stream)| stream.queue.front().map(|(order, work)| (*order, *handle, work)))
            .filter(|(_, _, work)| may(work))
            .map(|(order, handle, _)| (order, handle))
            .collect();
        ready.sort_unstable();
        let pick = if late { dice as usize % ready.len().max(1) } else { 0 };
        let (_, handle) = ready.get(pick)?;
        let stream = self.streams.get_mut(handle)?;
        let place =
            if let Streams::Unordered(_) = streams { dice as usize % stream.queue.len().max(1) } else { 0 };
        let (_, work) = stream.queue.remove(place)?;
        stream.busy = true;
        self.asked = false;
        Some((*handle, work))
    }
}
