//! The engine's thread and its replacement: a classifier may hang or panic without taking the appliance along.

use super::{Classifier, Event, Reading, Spare};
use crate::Frame;
use sha2::{Digest, Sha256};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// What an engine thread says.
pub enum Answer {
    /// A spare classifier is ready, or could not be made.
    Ready(Result<(), String>),
    /// What the classifier said about a picture.
    Read(Arc<Frame>, Result<Box<Reading>, String>),
    /// It panicked over a picture, with these words.
    Panicked(Arc<Frame>, String),
}

/// The bench with the engine thread at work and the means to replace it.
pub struct Bench {
    spare: Option<Spare>,
    events: SyncSender<Event>,
    work: SyncSender<Arc<Frame>>,
    /// Number of the thread at work; what an earlier one still says does not count.
    pub number: u64,
}

impl Bench {
    /// Starts the first thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        classifier: Classifier,
        spare: Option<Spare>,
        events: SyncSender<Event>,
    ) -> std::io::Result<Self> {
        let (work, jobs) = sync_channel(1);
        let sender = events.clone();
        thread::Builder::new().name("engine".into()).spawn(move || serve(classifier, 0, &jobs, &sender))?;
        Ok(Self { spare, events, work, number: 0 })
    }

    /// Hands a picture to the engine, which must be idle; false when its thread is gone.
    pub fn read(&self, frame: Arc<Frame>) -> bool {
        self.work.try_send(frame).is_ok()
    }

    /// True when a classifier can be replaced.
    pub fn replaceable(&self) -> bool {
        self.spare.is_some()
    }

    /// Leaves the thread at work to itself and starts another with a spare classifier, which says when it is ready.
    ///
    /// # Errors
    /// When there is no spare or the system gives no thread.
    pub fn replace(&mut self) -> Result<(), String> {
        let spare = self.spare.clone().ok_or("there is no spare engine")?;
        let (work, jobs) = sync_channel(1);
        self.number += 1;
        self.work = work;
        let (number, events) = (self.number, self.events.clone());
        let body = move || {
            let made = catch_unwind(AssertUnwindSafe(|| spare())).unwrap_or_else(|cause| Err(words(&*cause)));
            let (ready, classifier) = match made {
                Ok(classifier) => (Ok(()), Some(classifier)),
                Err(why) => (Err(why), None),
            };
            if events.send(Event::Answer(number, Answer::Ready(ready))).is_ok()
                && let Some(classifier) = classifier
            {
                serve(classifier, number, &jobs, &events);
            }
        };
        thread::Builder::new().name("engine".into()).spawn(body).map_err(|error| error.to_string())?;
        Ok(())
    }
}

/// Answers until the appliance ends or replaces this thread. An unchanged picture gets the answer it got before.
fn serve(mut classifier: Classifier, number: u64, jobs: &Receiver<Arc<Frame>>, events: &SyncSender<Event>) {
    let mut last: Option<([u8; 32], Reading)> = None;
    while let Ok(frame) = jobs.recv() {
        let mut hash = Sha256::new_with_prefix(frame.width().to_le_bytes());
        hash.update(frame.pixels());
        let hash: [u8; 32] = hash.finalize().into();
        let answer = match &last {
            Some((known, reading)) if *known == hash => Ok(Ok(reading.clone())),
            _ => catch_unwind(AssertUnwindSafe(|| classifier(&frame))),
        };
        let answer = match answer {
            Ok(answer) => {
                last = answer.as_ref().ok().map(|reading| (hash, reading.clone()));
                Answer::Read(frame, answer.map(Box::new))
            }
            Err(cause) => {
                last = None;
                Answer::Panicked(frame, words(&*cause))
            }
        };
        if events.send(Event::Answer(number, answer)).is_err() {
            return;
        }
    }
}

/// The words of a panic.
fn words(cause: &(dyn std::any::Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("it gave no reason").to_owned()
}
