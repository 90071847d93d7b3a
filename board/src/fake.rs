//! A board in memory: tests press its buttons, and a window's keys are its contacts.

use super::{Beep, Button, Buttons, Keys, Lights, Lit, Press, Timing};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A board in memory. Its clones are the same board.
#[derive(Clone)]
pub struct FakeBoard {
    keys: Keys,
    output: Arc<Mutex<(Lit, Vec<Beep>)>>,
}

impl FakeBoard {
    /// A board whose lights are out.
    pub fn new(timing: Timing) -> Self {
        Self { keys: Keys::new(timing), output: Arc::default() }
    }

    /// Its contacts.
    pub fn keys(&self) -> Keys {
        self.keys.clone()
    }

    /// Presses a button for a time that begins now; it is pressed again after that time only.
    pub fn tap(&self, button: Button, time: Duration) {
        let now = Instant::now();
        self.keys.edge(button, true, now);
        self.keys.edge(button, false, now + time);
    }

    /// Which lights are on.
    pub fn lit(&self) -> Lit {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// What was heard since the last call.
    pub fn heard(&self) -> Vec<Beep> {
        std::mem::take(&mut self.output.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

impl Buttons for FakeBoard {
    fn press(&mut self) -> Option<Press> {
        self.keys.press()
    }
}

impl Lights for FakeBoard {
    fn show(&mut self, lit: Lit) {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).0 = lit;
    }

    fn beep(&mut self, beep: Beep) {
        let heard = &mut self.output.lock().unwrap_or_else(PoisonError::into_inner).1;
        // Nobody need listen: the latest are kept.
        if heard.len() >= 100 {
            heard.remove(0);
        }
        heard.push(beep);
    }
}
