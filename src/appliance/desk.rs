//! The screen's side of the loop: what is true now, and how it is shown.

use super::pace::Pace;
use super::panel::{Panel, Wish};
use super::worker::{Answer, Bench};
use super::{ApplianceError, Event, Reading};
use crate::Frame;
use crate::capture::{Signal, Slot};
use crate::config::Config;
use crate::prepare::Region;
use crate::screen::{Screen, Shown, State, Strip, View};
use fovea_board::{Beep, Display, DisplayError, Keeper, Lit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Engines that fail so often in a row, without one answer between, are not replaced any more.
const REPLACEMENTS: u32 = 3;

/// The engine as the desk sees it.
enum Engine {
    Idle,
    Busy(Instant, Arc<Frame>),
    /// Failed for this reason; another is being started.
    Changing(String),
    /// Not usable, and why; one that hangs may still come back.
    Out(String),
}

pub struct Desk<'a> {
    config: &'a Config,
    model: &'a str,
    bench: Bench,
    frames: Slot,
    engine: Engine,
    failures: u32,
    /// Last sign of life of the source.
    alive: Instant,
    /// Why the source gives nothing, when it does not.
    lost: Option<String>,
    /// Why the source ended, when it did.
    ended: Option<String>,
    /// What is said while engine and source work.
    standing: State,
    candidate: (String, u32),
    shown: Option<(Arc<Frame>, Reading)>,
    screen: Screen,
    pub panel: Panel,
    pub pace: Pace,
    pub keepers: Vec<Box<dyn Keeper>>,
}

/// What is on the screen, as far as a change of it matters.
#[derive(PartialEq)]
struct Told {
    state: State,
    captured: Option<Instant>,
    strip: Strip,
}

impl<'a> Desk<'a> {
    pub fn new(config: &'a Config, model: &'a str, bench: Bench, frames: Slot) -> Self {
        let size = config.screen();
        Self {
            config,
            model,
            bench,
            frames,
            engine: Engine::Idle,
            failures: 0,
            alive: Instant::now(),
            lost: None,
            ended: None,
            standing: State::Starting,
            candidate: (String::new(), 0),
            shown: None,
            screen: Screen::new(size.width, size.height),
            panel: Panel::default(),
            pace: Pace::default(),
            keepers: Vec::new(),
        }
    }

    pub fn serve(
        mut self,
        inbox: &Receiver<Event>,
        display: &mut dyn Display,
        stop: &AtomicBool,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), ApplianceError> {
        let stale = self.config.stale_after.duration();
        let mut drawn: Option<(Told, Instant)> = None;
        while !stop.load(Ordering::Relaxed) && display.open() {
            match inbox.recv_timeout((stale / 20).min(Duration::from_millis(50))) {
                Ok(Event::Signal(signal)) => self.hear(signal, say),
                Ok(Event::Answer(number, answer)) => {
                    if number == self.bench.number {
                        self.answer(answer, say);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The bench keeps a sender, so this does not come.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.watch(stale, say);
            self.press(say);
            let state = self.state();
            let captured = self.shown.as_ref().map(|(frame, _)| frame.captured);
            self.pace.look(say);
            let told = Told { strip: self.panel.strip(&state, &self.pace.words()), state, captured };
            let before = drawn.as_ref().map(|(before, _)| before);
            if before.is_none_or(|before| before.state != told.state) {
                match &told.state {
                    State::SignalLost(why) => say(&format!("signal lost: {why}")),
                    State::Fault(why) => say(&format!("fault: {why}")),
                    _ => {}
                }
            }
            self.light(&told.state);
            let words = told.state.words();
            let changed = before != Some(&told);
            if changed || drawn.as_ref().is_some_and(|(_, at)| at.elapsed() >= Duration::from_secs(1)) {
                self.draw(&told, display, changed)?;
                drawn = Some((told, Instant::now()));
            }
            self.keep(words);
            if self.ended.is_some() && self.lost.is_some() && !display.watched() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What the screen says: an engine that is out weighs more than a lost signal, and both more than a finding.
    fn state(&self) -> State {
        match (&self.engine, &self.lost) {
            (Engine::Changing(why) | Engine::Out(why), _) => State::Fault(why.clone()),
            (_, Some(why)) => State::SignalLost(why.clone()),
            _ => self.standing.clone(),
        }
    }

    /// Does what the operator asked by a button.
    fn press(&mut self, say: &mut dyn FnMut(&str)) {
        match self.panel.press(say) {
            // What was read before is never shown as if it were of now.
            Some(Wish::Clear) if !matches!(self.standing, State::Starting) => self.clear(State::Waiting),
            Some(Wish::Freeze) => {
                let stands = matches!(self.state(), State::Finding | State::Uncertain | State::NotOct);
                self.panel.freeze(self.shown.clone().filter(|_| stands), self.standing.clone(), say);
            }
            _ => {}
        }
    }

    /// Tells the keepers of this turn.
    fn keep(&mut self, words: &str) {
        for keeper in &mut self.keepers {
            keeper.state(words);
            // An engine that is out for good is no progress: a restart mends it.
            if !matches!(self.engine, Engine::Out(_)) {
                keeper.progress();
            }
        }
    }

    fn light(&mut self, state: &State) {
        let attention = matches!(state, State::SignalLost(_) | State::Fault(_));
        let ready = !attention && !matches!(state, State::Starting);
        self.panel.light(Lit { ready, working: matches!(self.engine, Engine::Busy(..)), attention });
    }

    /// Takes the finding away.
    fn clear(&mut self, standing: State) {
        self.shown = None;
        self.candidate = (String::new(), 0);
        self.standing = standing;
    }

    fn hear(&mut self, signal: Signal, say: &mut dyn FnMut(&str)) {
        self.alive = Instant::now();
        match signal {
            Signal::Alive => {
                if self.lost.take().is_some() {
                    say("the signal is back");
                }
                if self.standing == State::Starting {
                    self.standing = State::Waiting;
                }
            }
            Signal::Note(note) => say(&format!("left out: {note}")),
            Signal::Lost(why) => self.lose(why),
            Signal::Ended(why) => self.ended = Some(why),
        }
    }

    fn lose(&mut self, why: String) {
        self.clear(State::Waiting);
        self.lost = Some(why);
    }

    fn answer(&mut self, answer: Answer, say: &mut dyn FnMut(&str)) {
        if self.ended.is_some() {
            // The last picture of a source that ended is shown as long as any.
            self.alive = Instant::now();
        }
        match answer {
            Answer::Ready(Ok(())) => {
                self.engine = Engine::Idle;
                self.clear(State::Fault("the engine was replaced; take the picture again".into()));
            }
            Answer::Ready(Err(why)) => {
                self.engine =
                    Engine::Out(format!("no new engine could be started: {why}; restart the appliance"));
            }
            Answer::Read(frame, Ok(reading)) => {
                self.pace.done = Some(Instant::now());
                let late = matches!(self.engine, Engine::Out(_));
                self.engine = Engine::Idle;
                self.failures = 0;
                if late {
                    // It was given up, and has been said to be.
                    self.clear(State::Fault("the engine was too slow; take the picture again".into()));
                } else {
                    self.publish(frame, *reading, say);
                }
            }
            Answer::Read(frame, Err(why)) => {
                say(&format!("not read: {}", frame.origin));
                self.engine = Engine::Idle;
                self.clear(State::Fault(why));
            }
            Answer::Panicked(frame, why) => {
                say(&format!("not read: {}", frame.origin));
                self.engine = Engine::Idle;
                self.clear(State::Fault(format!("the engine failed: {why}")));
                if self.bench.replaceable() {
                    self.replace(format!("the engine failed: {why}"));
                }
            }
        }
    }

    /// Puts another engine in the place of one that failed for the reason `why`.
    fn replace(&mut self, why: String) {
        self.failures += 1;
        self.engine = if self.failures > REPLACEMENTS {
            Engine::Out(format!("{why}, {} times in a row; restart the appliance", self.failures))
        } else {
            match self.bench.replace() {
                Ok(()) => Engine::Changing(format!("{why}; another engine is being started")),
                Err(error) => Engine::Out(format!("{why}; {error}: restart the appliance")),
            }
        };
    }

    fn publish(&mut self, frame: Arc<Frame>, reading: Reading, say: &mut dyn FnMut(&str)) {
        let best = reading.probabilities[reading.class.index()];
        let note = if reading.note.is_empty() { String::new() } else { format!(" · {}", reading.note) };
        let line = format!(
            "{}: {} {:.1} % · {} · quality {} · {} {:.0} ms{note}",
            frame.origin,
            reading.finding,
            best * 100.0,
            reading.referral.word(),
            reading.quality,
            reading.engine,
            reading.millis
        );
        let line = match self.panel.eye {
            Some(eye) => format!("{line} · {}", eye.words()),
            None => line,
        };
        if self.panel.frozen.is_some() {
            // It was on its way when the screen was frozen.
            say(&format!("{line} · not shown, the screen is frozen"));
            return;
        }
        if self.lost.is_some() {
            // Read, but the source stopped meanwhile: too late for the screen.
            say(&format!("{line} · not shown, the signal was lost"));
            return;
        }
        if self.candidate.0 == reading.finding {
            self.candidate.1 = self.candidate.1.saturating_add(1);
        } else {
            self.candidate = (reading.finding.clone(), 1);
        }
        if self.candidate.1 < self.config.hold.get() {
            // Another finding is on its way: the one before it no longer stands.
            self.shown = None;
            self.standing = State::Waiting;
            return;
        }
        say(&line);
        if self.shown.as_ref().is_none_or(|(_, before)| before.finding != reading.finding) {
            self.panel.beep(Beep::News);
        }
        self.standing = match reading.finding.as_str() {
            "UNCERTAIN" => State::Uncertain,
            "NOT_OCT" => State::NotOct,
            _ => State::Finding,
        };
        self.shown = Some((frame, reading));
    }

    /// Hands on the next picture and sees to it that nothing old stays on the screen.
    fn watch(&mut self, stale: Duration, say: &mut dyn FnMut(&str)) {
        // Behind a frozen screen nothing is read: a camera's pictures pass, files wait.
        if matches!(self.engine, Engine::Idle)
            && self.panel.frozen.is_none()
            && self.pace.rested()
            && let Some(frame) = self.frames.take(Duration::ZERO)
        {
            self.engine = match self.strange(&frame) {
                Some(why) => {
                    self.clear(State::Fault(why));
                    Engine::Idle
                }
                None if self.bench.read(Arc::clone(&frame)) => Engine::Busy(Instant::now(), frame),
                None => Engine::Out("the engine ended; restart the appliance".into()),
            };
        }
        if let Engine::Busy(since, frame) = &self.engine {
            let limit = self.config.answer_within.duration();
            if since.elapsed() > limit {
                let why = format!("no answer from the engine within {:.0} s", limit.as_secs_f64().ceil());
                say(&format!("not read: {}: {why}", frame.origin));
                self.clear(State::Waiting);
                if self.bench.replaceable() {
                    self.replace(why);
                } else {
                    self.engine = Engine::Out(format!("{why}; restart the appliance"));
                }
            } else {
                if since.elapsed() > stale && self.shown.is_some() {
                    // The next picture has been there for so long that the finding is not of what lies before the operator.
                    self.clear(State::Waiting);
                }
            }
        }
        if self.ended.is_some() && matches!(self.engine, Engine::Busy(..) | Engine::Changing(_)) {
            // What a source gave before it ended is read to the end.
            self.alive = Instant::now();
        }
        if self.lost.is_none() && self.alive.elapsed() > stale * 11 / 16 {
            let silent = || "the source gives no sign of life; check it".to_owned();
            self.lose(self.ended.clone().unwrap_or_else(silent));
        }
    }

    /// Why a picture is not of the screen for which the region was set, where one was.
    fn strange(&self, frame: &Frame) -> Option<String> {
        let [x, y, width, height] = self.config.region?;
        self.config.layout.as_ref()?.differs(frame, Region { x, y, width, height })
    }

    fn draw(&mut self, told: &Told, display: &mut dyn Display, changed: bool) -> Result<(), DisplayError> {
        let live = self.shown.as_ref().filter(|_| matches!(self.engine, Engine::Idle | Engine::Busy(..)));
        let (state, result) = match &self.panel.frozen {
            Some(frozen) => (&frozen.state, Some((&frozen.frame, &frozen.reading))),
            None => (&told.state, live.map(|(frame, reading)| (frame, reading))),
        };
        let heat = *state != State::NotOct && self.panel.heat();
        let shown = result.map(|(frame, reading)| Shown {
            picture: frame,
            place: reading.place,
            map: heat.then_some(&reading.map),
            lit: reading.lit.as_ref(),
            finding: &reading.finding,
            probabilities: reading.probabilities,
            referral: reading.referral,
            quality: &reading.quality,
            reason: &reading.reason,
            age: frame.captured.elapsed(),
            engine: &reading.engine,
            note: &reading.note,
            millis: reading.millis,
        });
        let name = match (state, result) {
            _ if self.panel.frozen.is_some() => "frozen",
            (State::SignalLost(_), _) => "signal-lost",
            (State::Fault(_), _) => "fault",
            (State::Starting, _) => "starting",
            (_, Some((_, reading))) => reading.finding.as_str(),
            _ => "waiting",
        };
        let size = self.config.screen();
        let view = View { state: state.clone(), shown, model: self.model, strip: told.strip.clone() };
        let rgb = self.screen.draw(&view);
        display.show(size.width, size.height, rgb, changed.then_some(name))
    }
}
