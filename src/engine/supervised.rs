//! `auto`: the best engine that works answers, and the next one answers the same picture where it fails.
//!
//! An engine for a device is opened, and opened again after a failure, by a thread of its own that waits longer each time: no
//! picture waits for it. Engines for the processor are there all the while. A device proves itself on the golden picture when
//! it is opened and now and then between pictures, since boards have memory that nothing checks.

use super::{Ask, Engine, EngineError, Output, Proof, Seen, answer, see};
use crate::prepare::NetworkInput;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How a device is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A picture for which the device takes longer has hung, and is answered by the next engine.
    pub limit: Duration,
    /// Rest before a device that failed is tried again; doubles with each failure, up to [`LONGEST_REST`].
    pub retry: Duration,
    /// A device whose last golden picture is older than this proves itself again before it reads the next.
    pub prove: Duration,
}

impl Default for Options {
    /// Half a second, 5 seconds, a minute.
    fn default() -> Self {
        let [limit, retry, prove] = [500, 5_000, 60_000].map(Duration::from_millis);
        Self { limit, retry, prove }
    }
}

/// The longest rest before a device is tried again. One that worked for so long starts with a short rest when it fails.
pub const LONGEST_REST: Duration = Duration::from_secs(600);

/// How long the start waits for the device: later it takes over from the processor between two pictures.
const START: Duration = Duration::from_millis(900);

/// Makes an engine, not proved yet.
pub type Maker = Box<dyn Fn() -> Result<Box<dyn Engine>, EngineError> + Send + Sync>;

/// An engine's name and how it is made.
pub type Named = (&'static str, Maker);

/// What an engine is asked; the same of the next one where it fails.
type Question<'a, T> = &'a dyn Fn(&mut dyn Engine) -> Result<T, EngineError>;

/// The engine `auto`.
pub struct Supervised {
    device: Option<Device>,
    processor: Processor,
    proof: Arc<Proof>,
    /// Who answered last, or will answer.
    answered: &'static str,
}

impl Supervised {
    /// Opens the device, where there is one to try, and the first of `makers` that works.
    ///
    /// # Errors
    /// [`EngineError::None`] when nothing works.
    pub fn open(
        device: Option<Named>,
        makers: Vec<Named>,
        proof: Proof,
        options: Options,
    ) -> Result<Self, EngineError> {
        let (start, proof) = (Instant::now(), Arc::new(proof));
        let mut device = device.map(|named| Device::start(named, Arc::clone(&proof), options));
        let mut processor = Processor { makers: Arc::new(makers), at: 0, engine: None, why: None };
        let processor_failed = processor.ready(&proof).err();
        // Without a processor's engine the device is waited for as long as it takes.
        let patience = processor_failed.as_ref().map_or(START, |_| LONGEST_REST);
        if let Some(waiting) = &mut device {
            waiting.wait(patience.saturating_sub(start.elapsed()));
        }
        device = device.filter(|device| !device.absent);
        let works = device.as_ref().is_some_and(|device| device.engine.is_some());
        match processor_failed {
            Some(failed) if !works => {
                let device = device.and_then(|device| device.why).map(|why| format!("; {why}"));
                return Err(EngineError::None(failed.join("; ") + &device.unwrap_or_default()));
            }
            _ => {}
        }
        let mut made = Self { device, processor, proof, answered: "" };
        made.answered = made.next();
        Ok(made)
    }

    /// Has the device answer, and where it does not a processor's engine.
    fn answer<T>(&mut self, ask: Question<'_, T>) -> Result<T, EngineError> {
        if let Some(device) = &mut self.device {
            device.hear();
            if let Some(output) = device.answer(ask, &self.proof, self.processor.name()) {
                self.answered = device.name;
                return Ok(output);
            }
        }
        let output = self.processor.answer(ask, &self.proof)?;
        self.answered = self.processor.name();
        Ok(output)
    }

    /// Who will answer.
    fn next(&self) -> &'static str {
        let device = self.device.as_ref().filter(|device| device.engine.is_some());
        device.map(|device| device.name).unwrap_or_else(|| self.processor.name())
    }
}

impl Engine for Supervised {
    fn name(&self) -> &'static str {
        self.answered
    }

    fn run(&mut self, input: &NetworkInput) -> Result<Output, EngineError> {
        self.answer(&|engine| answer(engine, input))
    }

    fn read(&mut self, ask: &Ask<'_>) -> Result<Seen, EngineError> {
        self.answer(&|engine| see(engine, ask))
    }

    fn share(&self) -> Option<Box<dyn Engine>> {
        if self.device.is_some() {
            return None;
        }
        let engine = self.processor.engine.as_ref()?.share()?;
        Some(Box::new(Self {
            device: None,
            answered: engine.name(),
            processor: Processor { engine: Some(engine), ..self.processor.clone_idle() },
            proof: Arc::clone(&self.proof),
        }))
    }

    fn note(&self) -> Option<String> {
        let device = self.device.as_ref().filter(|device| device.engine.is_none());
        let device = device.map(|device| match &device.why {
            Some(why) => format!("GPU off: {why}"),
            None => "GPU off: it is being opened".into(),
        });
        device.or_else(|| self.processor.why.clone())
    }
}

/// The engines of the processor, of which one is open.
struct Processor {
    makers: Arc<Vec<Named>>,
    at: usize,
    engine: Option<Box<dyn Engine>>,
    /// Why a better one does not answer.
    why: Option<String>,
}

impl Processor {
    fn name(&self) -> &'static str {
        self.engine.as_ref().map_or("none", |engine| engine.name())
    }

    fn clone_idle(&self) -> Self {
        Self { makers: Arc::clone(&self.makers), at: self.at, engine: None, why: self.why.clone() }
    }

    /// Has an engine open, each tried once; else why none is.
    fn ready(&mut self, proof: &Proof) -> Result<&mut dyn Engine, Vec<String>> {
        let mut failed = Vec::new();
        for _ in 0..self.makers.len() {
            if self.engine.is_some() {
                break;
            }
            match proof.proved(&self.makers[self.at].1) {
                Ok(engine) => {
                    self.engine = Some(engine);
                    // The first is the best there is.
                    self.why = self.why.take().filter(|_| self.at > 0);
                }
                Err(error) => {
                    tracing::warn!("{error}");
                    failed.push(error.to_string());
                    self.at = (self.at + 1) % self.makers.len();
                }
            }
        }
        match &mut self.engine {
            Some(engine) => Ok(engine.as_mut()),
            None => Err(failed),
        }
    }

    /// Asks the open engine, and where it fails the others in turn.
    fn answer<T>(&mut self, ask: Question<'_, T>, proof: &Proof) -> Result<T, EngineError> {
        let mut failed = Vec::new();
        for _ in 0..self.makers.len() {
            let error = match self.ready(proof) {
                Ok(engine) => match ask(engine) {
                    Ok(output) => return Ok(output),
                    Err(error) => error.to_string(),
                },
                Err(all) => return Err(EngineError::None([failed, all].concat().join("; "))),
            };
            tracing::warn!("{error}; the next engine answers");
            self.why = Some(error.clone());
            failed.push(error);
            self.engine = None;
            self.at = (self.at + 1) % self.makers.len();
        }
        Err(EngineError::None(failed.join("; ")))
    }
}

/// What the keeper of a device says.
enum News {
    /// It works.
    Open(Box<dyn Engine>),
    /// It does not, and is tried again.
    Failed(String),
    /// This machine has none; it is not tried again.
    Absent,
}

/// A device that a keeper opens.
struct Device {
    name: &'static str,
    engine: Option<Box<dyn Engine>>,
    /// Why it does not answer; nothing before its first failure.
    why: Option<String>,
    absent: bool,
    proved: Instant,
    prove: Duration,
    news: Receiver<News>,
    /// Engines that failed, for the keeper to let go; it ends when this is gone.
    failed: Sender<Box<dyn Engine>>,
}

impl Device {
    fn start((name, make): Named, proof: Arc<Proof>, options: Options) -> Self {
        let (tell, news) = channel();
        let (failed, given) = channel();
        let keeper = Keeper { make, proof, tell, given, retry: options.retry };
        let thread = std::thread::Builder::new().name("device".into()).spawn(move || keeper.work());
        let why = thread.err().map(|error| format!("no thread could be started ({error})"));
        let (proved, prove) = (Instant::now(), options.prove);
        Self { name, engine: None, why, absent: false, proved, prove, news, failed }
    }

    /// Waits for the first news.
    fn wait(&mut self, patience: Duration) {
        if let Ok(news) = self.news.recv_timeout(patience) {
            self.take(news);
        }
    }

    /// Takes what the keeper said meanwhile.
    fn hear(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            self.take(news);
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Open(engine) => {
                if self.why.take().is_some() {
                    tracing::warn!("engine {} works again", self.name);
                }
                self.proved = Instant::now();
                self.engine = Some(engine);
            }
            News::Failed(why) => self.why = Some(why),
            News::Absent => self.absent = true,
        }
    }

    /// The device's answer; `None` where it has none, and then it is let go and `instead` answers.
    fn answer<T>(&mut self, ask: Question<'_, T>, proof: &Proof, instead: &str) -> Option<T> {
        let engine = self.engine.as_mut()?;
        let due = self.proved.elapsed() > self.prove;
        let proved = if due { proof.prove(engine.as_mut()) } else { Ok(()) };
        let error = match proved.and_then(|()| ask(engine.as_mut())) {
            Ok(output) => {
                self.proved = if due { Instant::now() } else { self.proved };
                return Some(output);
            }
            Err(error) => error,
        };
        tracing::warn!("{error}; {instead} answers, and the device is tried again");
        self.why = Some(error.reason());
        if let Some(engine) = self.engine.take() {
            // A keeper that is gone tries nothing again; the reason stands.
            let _ = self.failed.send(engine);
        }
        None
    }
}

/// Opens a device and lets it go, in a thread of its own.
struct Keeper {
    make: Maker,
    proof: Arc<Proof>,
    tell: Sender<News>,
    given: Receiver<Box<dyn Engine>>,
    retry: Duration,
}

impl Keeper {
    fn work(self) {
        let mut rest = self.retry;
        let mut first = true;
        loop {
            match self.proof.proved(&self.make) {
                Ok(engine) => {
                    let since = Instant::now();
                    let Ok(()) = self.tell.send(News::Open(engine)) else { return };
                    let Ok(failed) = self.given.recv() else { return };
                    // Letting go may fail as well, and take its time.
                    let _ = catch_unwind(AssertUnwindSafe(move || drop(failed)));
                    rest = if since.elapsed() > LONGEST_REST { self.retry } else { rest };
                }
                Err(EngineError::Absent { .. }) if first => {
                    let _ = self.tell.send(News::Absent);
                    return;
                }
                Err(error) => {
                    tracing::warn!("{error}; the device is tried again in {} s", rest.as_secs_f32());
                    let Ok(()) = self.tell.send(News::Failed(error.reason())) else { return };
                }
            }
            first = false;
            // Nothing is given while nothing is open: this is a sleep that ends with the engine.
            let Err(RecvTimeoutError::Timeout) = self.given.recv_timeout(rest) else { return };
            rest = (rest * 2).min(LONGEST_REST);
        }
    }
}

#[cfg(test)]
mod tests;
