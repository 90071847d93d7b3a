//! The loop: source thread -> engine thread -> screen. Each hand-over holds one picture, and whatever stops (source,
//! engine, display) becomes a state on the screen, never an old finding that looks like a new one.

mod desk;
mod pace;
mod panel;
mod worker;

pub use crate::capture::{CaptureError, Feed, Port, Signal, Source};

use crate::capture::{Recorder, Slot};
use crate::config::Config;
use crate::explain::light::Lit;
use crate::prepare::Region;
use crate::screen::Referral;
use crate::{Class, Frame};
use desk::Desk;
use fovea_board::{Buttons, Display, DisplayError, Keeper, Lights, Thermal};
use pace::Pace;
use panel::Panel;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;
use worker::{Answer, Bench};

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
    /// What of the picture it covers.
    pub place: Region,
    /// The picture under it at the size of the screen, where a device has made it.
    pub lit: Option<Arc<Lit>>,
    /// The engine that answered.
    pub engine: String,
    /// Why a better engine did not answer; may be empty.
    pub note: String,
    /// Its time in milliseconds.
    pub millis: f32,
}

/// Reads a picture; an `Err` is a fault of the appliance, told to the operator.
pub type Classifier = Box<dyn FnMut(&Frame) -> Result<Reading, String> + Send>;

/// Makes a classifier in the place of one that hung or panicked.
pub type Spare = Arc<dyn Fn() -> Result<Classifier, String> + Send + Sync>;

/// Why the appliance could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ApplianceError {
    /// The source cannot be used.
    #[error(transparent)]
    Source(#[from] CaptureError),
    /// The display failed.
    #[error(transparent)]
    Display(#[from] DisplayError),
    /// A thread could not be started.
    #[error("no thread could be started ({0}); free memory and try again")]
    Thread(#[from] std::io::Error),
}

/// What reaches the loop, besides pictures.
enum Event {
    Signal(Signal),
    /// From the engine thread of this number.
    Answer(u64, Answer),
}

/// The appliance before it runs.
pub struct Appliance<'a> {
    config: &'a Config,
    model: &'a str,
    classifier: Classifier,
    spare: Option<Spare>,
    feed: Option<Box<dyn Feed>>,
    panel: Panel,
    pace: Pace,
    keepers: Vec<Box<dyn Keeper>>,
}

impl<'a> Appliance<'a> {
    /// An appliance with the configuration's source; `model` is the model's name and version.
    pub fn new(config: &'a Config, model: &'a str, classifier: Classifier) -> Self {
        Self {
            config,
            model,
            classifier,
            spare: None,
            feed: None,
            panel: Panel::default(),
            pace: Pace::default(),
            keepers: Vec::new(),
        }
    }

    /// Replaces a classifier that hangs or panics by what `spare` makes, on a new thread. Without a spare one that
    /// panicked is asked again, and one that hangs is waited for.
    #[must_use]
    pub fn spare(mut self, spare: Spare) -> Self {
        self.spare = Some(spare);
        self
    }

    /// Takes pictures from `feed` and not from the configuration's source.
    #[must_use]
    pub fn feed(mut self, feed: Box<dyn Feed>) -> Self {
        self.feed = Some(feed);
        self
    }

    /// Follows these buttons: capture freezes the screen and lets it go, held it clears it for the next patient; next turns
    /// the heatmap on and off, held the sound; eye says which eye the pictures are of, held that it is not known.
    #[must_use]
    pub fn buttons(mut self, buttons: Box<dyn Buttons>) -> Self {
        self.panel.buttons = buttons;
        self
    }

    /// Shows what it does with these lights too.
    #[must_use]
    pub fn lights(mut self, lights: Box<dyn Lights>) -> Self {
        self.panel.lights.push(lights);
        self
    }

    /// Rests between two pictures.
    #[must_use]
    pub fn rest(mut self, rest: Duration) -> Self {
        self.pace.rest = rest;
        self
    }

    /// Rests for longer while it is hot, and says so on the screen.
    #[must_use]
    pub fn thermal(mut self, thermal: Thermal, rest: Duration) -> Self {
        self.pace.thermal = Some((thermal, rest));
        self
    }

    /// Gives signs of progress to this keeper too: after each whole turn of the loop, but not while an engine is out for
    /// good, so that the keeper's restart mends it.
    #[must_use]
    pub fn keeper(mut self, keeper: Box<dyn Keeper>) -> Self {
        self.keepers.push(keeper);
        self
    }

    /// Runs until `stop` is set, the window is closed, or a source ends before a display that nobody watches.
    /// `say` gets a line for each finding and each change.
    ///
    /// # Errors
    /// See [`ApplianceError`].
    pub fn run(
        self,
        display: &mut dyn Display,
        stop: &AtomicBool,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), ApplianceError> {
        let mut feed = match self.feed {
            Some(feed) => feed,
            None => Source::parse(&self.config.source)?.feed(),
        };
        let (events, inbox) = sync_channel(8);
        let frames = Slot::default();
        let halt = Arc::new(AtomicBool::new(false));
        // Then the loss is on the screen in time, also where drawing is slow.
        let patience = self.config.stale_after.duration() * 5 / 8;
        let sender = events.clone();
        let signal = move |signal| sender.send(Event::Signal(signal)).is_ok();
        let mut port = Port::new(signal, frames.clone(), Arc::clone(&halt), patience);
        if let Some(folder) = &self.config.record {
            let sender = events.clone();
            let note = move |line| drop(sender.send(Event::Signal(Signal::Note(line))));
            let recorder = Recorder::start(folder, note);
            port = port
                .record(recorder.map_err(|source| CaptureError::Record { folder: folder.clone(), source })?);
        }
        // The threads are not joined: one that hangs in the system must not hold up the end. They leave by themselves.
        thread::Builder::new().name("source".into()).spawn(move || {
            let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| feed.run(&port)));
            let why = end.unwrap_or_else(|_| "the source failed; restart the appliance".into());
            port.say(Signal::Ended(why))
        })?;
        let bench = Bench::start(self.classifier, self.spare, events)?;
        let mut desk = Desk::new(self.config, self.model, bench, frames);
        (desk.panel, desk.pace, desk.keepers) = (self.panel, self.pace, self.keepers);
        let result = desk.serve(&inbox, display, stop, say);
        halt.store(true, Ordering::Relaxed);
        result
    }
}

/// Runs an [`Appliance`] without a spare classifier.
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
    Appliance::new(config, model, classifier).run(display, stop, say)
}

#[cfg(test)]
mod tests;
