//! The way of pictures and signals from a source to the appliance.

use super::Recorder;
use crate::Frame;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a source says besides its pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It is at work.
    Alive,
    /// Something that is no picture was left out, in a line.
    Note(String),
    /// It cannot see pictures any more, and why.
    Lost(String),
    /// It has no more pictures, and why.
    Ended(String),
}

/// Holds one picture between a source and who reads it.
#[derive(Clone, Default)]
pub struct Slot(Arc<(Mutex<Option<Arc<Frame>>>, Condvar)>);

impl Slot {
    /// Takes the picture, waiting for it at most `time`.
    pub fn take(&self, time: Duration) -> Option<Arc<Frame>> {
        let (place, came) = &*self.0;
        let guard = place.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = came.wait_timeout_while(guard, time, |held| held.is_none());
        wait.unwrap_or_else(PoisonError::into_inner).0.take()
    }

    /// Puts a picture in; what was there, where it may not be replaced, stays and the new one comes back.
    fn put(&self, frame: Arc<Frame>, replace: bool) -> Result<(), Arc<Frame>> {
        let (place, came) = &*self.0;
        let mut held = place.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() && !replace {
            return Err(frame);
        }
        *held = Some(frame);
        came.notify_one();
        Ok(())
    }
}

/// A source's way to the appliance.
pub struct Port {
    signal: Box<dyn Fn(Signal) -> bool + Send>,
    frames: Slot,
    halt: Arc<AtomicBool>,
    patience: Duration,
    recorder: Option<RefCell<Recorder>>,
}

impl Port {
    /// A port that hands signals to `signal` (false: nobody listens any more) and pictures to `frames`, until `halt` is
    /// set. A live source that gives no good picture for `patience` has lost its signal; one that waits signs several
    /// times as often.
    pub fn new(
        signal: impl Fn(Signal) -> bool + Send + 'static,
        frames: Slot,
        halt: Arc<AtomicBool>,
        patience: Duration,
    ) -> Self {
        Self { signal: Box::new(signal), frames, halt, patience, recorder: None }
    }

    /// Keeps the pictures that pass.
    #[must_use]
    pub fn record(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(RefCell::new(recorder));
        self
    }

    /// How long a live source may be without a good picture.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Longest time between two signs of life.
    pub(super) fn beat(&self) -> Duration {
        (self.patience / 5).min(Duration::from_millis(500))
    }

    /// Says something; false when the appliance ended.
    pub fn say(&self, signal: Signal) -> bool {
        !self.ended() && (self.signal)(signal)
    }

    /// Says that a live source has lost its signal, and takes back a picture that was not taken: it is of before.
    pub fn lose(&self, why: String) -> bool {
        self.frames.take(Duration::ZERO);
        self.say(Signal::Lost(why))
    }

    /// Sleeps with signs of life; false when the appliance ended.
    pub fn rest(&self, time: Duration) -> bool {
        self.wait(time, true)
    }

    /// Sleeps without a sign of life, as a source does that has lost its signal.
    pub fn pause(&self, time: Duration) -> bool {
        self.wait(time, false)
    }

    fn wait(&self, time: Duration, alive: bool) -> bool {
        let end = Instant::now() + time;
        loop {
            if self.ended() || (alive && !self.say(Signal::Alive)) {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(self.beat()));
        }
    }

    /// True when the appliance ended.
    pub fn ended(&self) -> bool {
        self.halt.load(Ordering::Relaxed)
    }

    fn kept(&self, frame: Frame) -> Arc<Frame> {
        let frame = Arc::new(frame);
        if let Some(recorder) = &self.recorder {
            recorder.borrow_mut().take(&frame);
        }
        frame
    }

    /// Hands a picture on in the place of one that was not taken yet, as a camera does; false when the appliance ended.
    pub fn offer(&self, frame: Frame) -> bool {
        let frame = self.kept(frame);
        // Replaced, so it is never refused.
        let _ = self.frames.put(frame, true);
        self.say(Signal::Alive)
    }

    /// Hands a picture on, waiting until it can be taken; false when the appliance ended.
    pub fn give(&self, frame: Frame) -> bool {
        let mut frame = self.kept(frame);
        while let Err(back) = self.frames.put(frame, false) {
            frame = back;
            if !self.rest(self.beat().min(Duration::from_millis(20))) {
                return false;
            }
        }
        self.say(Signal::Alive)
    }
}
