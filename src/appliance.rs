//! The loop: source thread -> classifier thread -> screen, with bounded queues and the newest picture only.

use crate::config::Config;
use crate::screen::{self, Picture, Referral, Shown, State, View};
use crate::{Class, Frame};
use fovea_board::{Display, DisplayError};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// What the classifier says about a picture.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The most probable class.
    pub class: Class,
    /// Calibrated probabilities in the order of [`Class::ALL`].
    pub probabilities: [f32; 4],
    /// `CNV`, `DME`, `DRUSEN`, `NORMAL`, `UNCERTAIN` or `NOT_OCT`.
    pub finding: String,
    /// What to do.
    pub referral: Referral,
    /// Image quality in a word.
    pub quality: String,
    /// Why; may be empty.
    pub reason: String,
    /// Heatmap, 8x8 row by row, 0 to 1.
    pub map: [f32; 64],
    /// The engine that answered.
    pub engine: String,
    /// Its time in milliseconds.
    pub millis: f32,
}

/// Reads a picture; an `Err` is a fault of the appliance, told to the operator.
pub type Classifier = Box<dyn FnMut(&Frame) -> Result<Reading, String> + Send>;

/// Why the appliance could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ApplianceError {
    /// No source has this name.
    #[error("'{0}' is no source: write folder:DIR or replay:DIR?fps=N")]
    Source(String),
    /// The source's folder is not there.
    #[error("{0}: no such folder; check --source or 'source' in fovea.toml")]
    Folder(PathBuf),
    /// A replay has nothing to play.
    #[error("{0}: no picture (jpeg, png, tiff, bmp) in the folder; give a folder with B-scans")]
    NoPicture(PathBuf),
    /// The display failed.
    #[error(transparent)]
    Display(#[from] DisplayError),
    /// A thread could not be started.
    #[error("no thread could be started ({0}); free memory and try again")]
    Thread(#[from] std::io::Error),
}

enum Event {
    Frame(Arc<Frame>),
    Alive,
    Note(String),
    Lost(String),
    Ended,
    Answer(Arc<Frame>, Result<Box<Reading>, String>),
}

/// A place where pictures come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A folder that is watched for new files.
    Folder(PathBuf),
    /// The pictures of a folder in the order of their names, once, so many a second.
    Replay(PathBuf, f64),
}

impl Source {
    /// Reads `folder:DIR` or `replay:DIR?fps=N` (default 1 a second).
    ///
    /// # Errors
    /// [`ApplianceError::Source`] and [`ApplianceError::Folder`].
    pub fn parse(uri: &str) -> Result<Self, ApplianceError> {
        let wrong = || ApplianceError::Source(uri.into());
        let (kind, rest) = uri.split_once(':').ok_or_else(wrong)?;
        let source = match (kind, rest.split_once("?fps=")) {
            ("folder", _) => Source::Folder(rest.into()),
            ("replay", None) => Source::Replay(rest.into(), 1.0),
            ("replay", Some((folder, fps))) => {
                let fps: f64 = fps.parse().map_err(|_| wrong())?;
                if !(0.01..=1000.0).contains(&fps) {
                    return Err(wrong());
                }
                Source::Replay(folder.into(), fps)
            }
            _ => return Err(wrong()),
        };
        let (Source::Folder(folder) | Source::Replay(folder, _)) = &source;
        if !folder.is_dir() {
            return Err(ApplianceError::Folder(folder.clone()));
        }
        if matches!(source, Source::Replay(..)) && pictures(folder).is_ok_and(|list| list.is_empty()) {
            return Err(ApplianceError::NoPicture(folder.clone()));
        }
        Ok(source)
    }
}

fn pictures(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut list = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if crate::frame::is_picture(&path) && path.is_file() {
            list.push(path);
        }
    }
    list.sort();
    Ok(list)
}

/// Runs until `stop` is set, the window is closed, or a replay ends before a display that nobody watches.
/// `say` gets a line for each finding and each change.
///
/// # Errors
/// See [`ApplianceError`].
pub fn run(
    config: &Config,
    model: &str,
    classifier: Classifier,
    display: &mut dyn Display,
    stop: &Arc<AtomicBool>,
    say: &mut dyn FnMut(&str),
) -> Result<(), ApplianceError> {
    let source = Source::parse(&config.source)?;
    let (events, inbox) = sync_channel(8);
    let (work, jobs) = sync_channel(1);
    let halt = Arc::new(AtomicBool::new(false));
    let beat = (config.stale_after.duration() / 4).min(Duration::from_secs(1));
    let (sender, flag) = (events.clone(), Arc::clone(&halt));
    // The threads are not joined: one that hangs in the system must not hold up the end. They leave by themselves.
    thread::Builder::new().name("source".into()).spawn(move || watch(&source, &sender, &flag, beat))?;
    thread::Builder::new().name("classifier".into()).spawn(move || classify(classifier, &jobs, &events))?;
    let result = Desk::new(config, model, work).serve(&inbox, display, stop, say);
    halt.store(true, Ordering::Relaxed);
    result
}

/// Sleeps in small steps with signs of life; false when the loop has ended.
fn rest(time: Duration, events: &SyncSender<Event>, halt: &AtomicBool, beat: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        if halt.load(Ordering::Relaxed) || events.send(Event::Alive).is_err() {
            return false;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(beat));
    }
}

fn watch(source: &Source, events: &SyncSender<Event>, halt: &AtomicBool, beat: Duration) {
    let read = |path: &Path| match Frame::read(path) {
        Ok(frame) => events.send(Event::Frame(Arc::new(frame))).is_ok(),
        Err(error) => events.send(Event::Note(error.to_string())).is_ok(),
    };
    match source {
        Source::Replay(folder, fps) => {
            for path in pictures(folder).unwrap_or_default() {
                if !read(&path) || !rest(Duration::from_secs_f64(1.0 / fps), events, halt, beat) {
                    return;
                }
            }
            let _ = events.send(Event::Ended);
        }
        Source::Folder(folder) => {
            // Size and time as last seen, and whether the file was read in that form.
            let mut seen: HashMap<PathBuf, (u64, Option<SystemTime>, bool)> = HashMap::new();
            loop {
                match pictures(folder) {
                    Err(error) => {
                        let lost = format!("{}: {error}; put the folder back", folder.display());
                        if events.send(Event::Lost(lost)).is_err() {
                            return;
                        }
                        thread::sleep(beat);
                        if halt.load(Ordering::Relaxed) {
                            return;
                        }
                        continue;
                    }
                    Ok(list) => {
                        for path in list {
                            let Ok(meta) = path.metadata() else { continue };
                            let now = (meta.len(), meta.modified().ok());
                            let quiet =
                                now.1.and_then(|t| t.elapsed().ok()).is_some_and(|t| t.as_secs() >= 2);
                            let old = seen.get(&path).copied();
                            let same = old.is_some_and(|(size, time, _)| (size, time) == now);
                            // A file still being written changes between two looks.
                            let ready =
                                (same || (old.is_none() && quiet)) && !(same && old.is_some_and(|o| o.2));
                            if ready && !read(&path) {
                                return;
                            }
                            seen.insert(path, (now.0, now.1, ready || (same && old.is_some_and(|o| o.2))));
                        }
                    }
                }
                if !rest(Duration::from_secs(1), events, halt, beat) {
                    return;
                }
            }
        }
    }
}

fn classify(mut classifier: Classifier, jobs: &Receiver<Arc<Frame>>, events: &SyncSender<Event>) {
    use sha2::Digest;
    let mut last: Option<(Vec<u8>, Reading)> = None;
    while let Ok(frame) = jobs.recv() {
        let mut hash = sha2::Sha256::new_with_prefix(frame.width().to_le_bytes());
        hash.update(frame.pixels());
        let hash = hash.finalize().to_vec();
        let answer = match &last {
            Some((known, reading)) if *known == hash => Ok(reading.clone()),
            _ => classifier(&frame),
        };
        last = answer.as_ref().ok().map(|reading| (hash, reading.clone()));
        if events.send(Event::Answer(frame, answer.map(Box::new))).is_err() {
            return;
        }
    }
}

/// The screen's side of the loop.
struct Desk<'a> {
    config: &'a Config,
    model: &'a str,
    work: SyncSender<Arc<Frame>>,
    newest: Option<Arc<Frame>>,
    busy: Option<Instant>,
    alive: Instant,
    candidate: (String, u32),
    shown: Option<(Arc<Frame>, Reading)>,
    state: State,
    ended: bool,
}

impl<'a> Desk<'a> {
    fn new(config: &'a Config, model: &'a str, work: SyncSender<Arc<Frame>>) -> Self {
        Self {
            config,
            model,
            work,
            newest: None,
            busy: None,
            alive: Instant::now(),
            candidate: (String::new(), 0),
            shown: None,
            state: State::Starting,
            ended: false,
        }
    }

    fn serve(
        mut self,
        inbox: &Receiver<Event>,
        display: &mut dyn Display,
        stop: &AtomicBool,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), ApplianceError> {
        let stale = self.config.stale_after.duration();
        let mut drawn: Option<(State, Instant, Option<Instant>)> = None;
        while !stop.load(Ordering::Relaxed) && display.open() {
            match inbox.recv_timeout((stale / 10).min(Duration::from_millis(50))) {
                Ok(event) => self.take(event, say),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.clear(State::Fault("all threads ended; restart".into()))
                }
            }
            self.check(stale);
            let captured = self.shown.as_ref().map(|(frame, _)| frame.captured);
            let changed =
                drawn.as_ref().is_none_or(|(state, _, old)| (state, old) != (&self.state, &captured));
            if changed && self.shown.is_none() {
                match &self.state {
                    State::SignalLost(why) => say(&format!("signal lost: {why}")),
                    State::Fault(why) => say(&format!("fault: {why}")),
                    _ => {}
                }
            }
            if changed || drawn.as_ref().is_some_and(|(_, at, _)| at.elapsed() >= Duration::from_secs(1)) {
                self.draw(display, changed)?;
                drawn = Some((self.state.clone(), Instant::now(), captured));
            }
            if self.ended && !display.watched() && matches!(self.state, State::SignalLost(_)) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn clear(&mut self, state: State) {
        self.shown = None;
        self.candidate = (String::new(), 0);
        self.state = state;
    }

    fn take(&mut self, event: Event, say: &mut dyn FnMut(&str)) {
        if !matches!(event, Event::Answer(..)) {
            self.alive = Instant::now();
        }
        let down = matches!(self.state, State::SignalLost(_) | State::Starting);
        match event {
            Event::Alive if down && !self.ended => self.clear(State::Waiting),
            Event::Alive => {}
            Event::Note(note) => say(&format!("left out: {note}")),
            Event::Lost(why) => {
                self.newest = None;
                self.clear(State::SignalLost(why));
            }
            Event::Ended => self.ended = true,
            Event::Frame(frame) => {
                if down {
                    self.clear(State::Waiting);
                }
                self.newest = Some(frame);
            }
            Event::Answer(frame, answer) => {
                self.busy = None;
                match answer {
                    // The source stopped meanwhile: too late.
                    Ok(_) if matches!(self.state, State::SignalLost(_)) => {}
                    Ok(reading) => self.publish(frame, *reading, say),
                    Err(why) => self.clear(State::Fault(why)),
                }
            }
        }
    }

    fn publish(&mut self, frame: Arc<Frame>, reading: Reading, say: &mut dyn FnMut(&str)) {
        if self.candidate.0 == reading.finding {
            self.candidate.1 = self.candidate.1.saturating_add(1);
        } else {
            self.candidate = (reading.finding.clone(), 1);
        }
        if self.candidate.1 < self.config.hold.get() {
            // Another finding is on its way: the one before it no longer stands.
            self.shown = None;
            self.state = State::Waiting;
            return;
        }
        let best = reading.probabilities[reading.class.index()];
        say(&format!(
            "{}: {} {:.1} % · {} · quality {} · {} {:.0} ms",
            frame.origin,
            reading.finding,
            best * 100.0,
            reading.referral.word(),
            reading.quality,
            reading.engine,
            reading.millis
        ));
        self.state = match reading.finding.as_str() {
            "UNCERTAIN" => State::Uncertain,
            "NOT_OCT" => State::NotOct,
            _ => State::Finding,
        };
        self.shown = Some((frame, reading));
    }

    /// Hands on the newest picture and sees to it that nothing old stays on the screen.
    fn check(&mut self, stale: Duration) {
        if self.busy.is_none()
            && let Some(frame) = self.newest.take()
        {
            match self.work.try_send(frame) {
                Ok(()) => self.busy = Some(Instant::now()),
                Err(TrySendError::Full(frame)) => self.newest = Some(frame),
                Err(TrySendError::Disconnected(_)) => {
                    self.clear(State::Fault("the classifier ended; restart the appliance".into()));
                }
            }
        }
        let late = self.busy.map_or(Duration::ZERO, |since| since.elapsed());
        if late > stale.max(Duration::from_secs(15)) {
            self.clear(State::Fault("the engine does not answer; restart the appliance".into()));
        } else if late > stale && self.shown.is_some() {
            self.clear(State::Waiting);
        }
        let quiet = self.alive.elapsed() > stale * 3 / 4;
        let done = self.ended && self.busy.is_none() && self.newest.is_none();
        if quiet && (!self.ended || done) && !matches!(self.state, State::SignalLost(_)) {
            let why = if self.ended {
                "the replay has ended"
            } else {
                "the source gives no sign of life; check it"
            };
            self.clear(State::SignalLost(why.into()));
        }
    }

    fn draw(&self, display: &mut dyn Display, changed: bool) -> Result<(), DisplayError> {
        let shown = self.shown.as_ref().map(|(frame, reading)| Shown {
            picture: frame,
            map: (self.state != State::NotOct).then_some(&reading.map),
            finding: &reading.finding,
            probabilities: reading.probabilities,
            referral: reading.referral,
            quality: &reading.quality,
            reason: &reading.reason,
            age: frame.captured.elapsed(),
            engine: &reading.engine,
            millis: reading.millis,
        });
        let name = match (&self.state, &self.shown) {
            (_, Some((_, reading))) => reading.finding.clone(),
            (State::SignalLost(_), _) => "signal-lost".into(),
            (State::Fault(_), _) => "fault".into(),
            (State::Starting, _) => "starting".into(),
            _ => "waiting".into(),
        };
        let size = self.config.size;
        let mut picture = Picture::new(size.width, size.height);
        let Ok(()) =
            screen::draw(&View { state: self.state.clone(), shown, model: self.model }, &mut picture);
        display.show(size.width, size.height, picture.rgb(), changed.then_some(name.as_str()))
    }
}

#[cfg(test)]
mod tests;
