//! Buttons: edges of any device become short and long presses.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The three buttons of the appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Button {
    /// Take or let go the picture.
    Capture,
    /// The next view.
    Next,
    /// Which eye.
    Eye,
}

/// A button that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Press {
    /// The button.
    pub button: Button,
    /// It was held for longer than [`Timing::long`]; said while it is still down.
    pub long: bool,
}

/// Where presses come from.
pub trait Buttons: Send {
    /// The next press that is due, without waiting.
    fn press(&mut self) -> Option<Press>;
}

/// A board without buttons.
pub struct NoButtons;

impl Buttons for NoButtons {
    fn press(&mut self) -> Option<Press> {
        None
    }
}

/// The times by which edges are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// A level counts once it held for so long.
    pub debounce: Duration,
    /// A press that lasts so long is a long one.
    pub long: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { debounce: Duration::from_millis(20), long: Duration::from_millis(800) }
    }
}

/// A button's contact.
#[derive(Clone, Copy, Default)]
struct Contact {
    /// Its level, and since when; nothing before its first edge.
    level: Option<(bool, Instant)>,
    /// Since when it counts as down.
    down: Option<Instant>,
    /// The long press was said.
    said: bool,
}

/// Edges in, presses out.
struct Presses {
    timing: Timing,
    contacts: [Contact; 3],
    ready: VecDeque<Press>,
}

impl Presses {
    fn settle(&mut self, now: Instant) {
        for button in [Button::Capture, Button::Next, Button::Eye] {
            let contact = &mut self.contacts[button as usize];
            let Some((level, since)) = contact.level else { continue };
            let settled = now.saturating_duration_since(since) >= self.timing.debounce;
            match contact.down {
                None if level && settled => (contact.down, contact.said) = (Some(since), false),
                Some(_) if !level && settled => {
                    if !contact.said {
                        self.ready.push_back(Press { button, long: false });
                    }
                    contact.down = None;
                }
                _ => {}
            }
            // What bounces at its release is down no longer than to the first edge.
            let end = if level { now } else { since };
            if let Some(start) = contact.down
                && !contact.said
                && end.saturating_duration_since(start) >= self.timing.long
            {
                contact.said = true;
                self.ready.push_back(Press { button, long: true });
            }
        }
    }

    fn edge(&mut self, button: Button, down: bool, at: Instant) {
        self.settle(at);
        let contact = &mut self.contacts[button as usize];
        if contact.level.map(|(level, _)| level) != Some(down) {
            contact.level = Some((down, at));
        }
    }
}

/// Contacts that several devices share: a keyboard, a touch screen and lines of GPIO press the same three buttons.
#[derive(Clone)]
pub struct Keys(Arc<Mutex<Presses>>);

impl Keys {
    /// Keys that nobody presses yet.
    pub fn new(timing: Timing) -> Self {
        let presses = Presses { timing, contacts: [Contact::default(); 3], ready: VecDeque::new() };
        Self(Arc::new(Mutex::new(presses)))
    }

    /// Takes down that a contact closed or opened `at` a time; the edges of a button come in the order of their times.
    pub fn edge(&self, button: Button, down: bool, at: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).edge(button, down, at);
    }

    /// The next press that is due at a time.
    fn due(&self, now: Instant) -> Option<Press> {
        let mut presses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        presses.settle(now);
        presses.ready.pop_front()
    }
}

impl Buttons for Keys {
    fn press(&mut self) -> Option<Press> {
        self.due(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Edges at milliseconds, then what is due at milliseconds.
    fn presses(edges: &[(u32, bool)], asked: &[u32]) -> Vec<(u32, bool)> {
        let (keys, start) = (Keys::new(Timing::default()), Instant::now());
        let mut all: Vec<(u32, Option<bool>)> = edges.iter().map(|(at, down)| (*at, Some(*down))).collect();
        all.extend(asked.iter().map(|at| (*at, None)));
        all.sort_by_key(|(at, _)| *at);
        let mut got = Vec::new();
        for (at, edge) in all {
            let now = start + MS * at;
            match edge {
                Some(down) => keys.edge(Button::Eye, down, now),
                None => got.extend(std::iter::from_fn(|| keys.due(now)).map(|press| (at, press.long))),
            }
        }
        got
    }

    #[test]
    fn a_press_is_said_at_its_release_and_a_long_one_while_it_lasts() {
        let asked = [10, 50, 100, 150, 500, 850, 900, 1500];
        assert_eq!(presses(&[(0, true), (100, false)], &asked), [(150, false)]);
        assert_eq!(presses(&[(0, true), (1000, false)], &asked), [(850, true)]);
        assert_eq!(presses(&[(0, true)], &asked), [(850, true)]);
        assert_eq!(presses(&[], &asked), []);
    }

    #[test]
    fn bounces_are_one_press_and_a_spike_is_none() {
        let bouncing = [(0, true), (3, false), (5, true), (6, false), (9, true), (100, false), (104, true)];
        let end = [(107, false)];
        assert_eq!(presses(&[&bouncing[..], &end].concat(), &[50, 300]), [(300, false)]);
        assert_eq!(presses(&[(0, true), (9, false)], &[50, 300]), []);
        // Bounces at the release of a press that was just not long.
        assert_eq!(presses(&[(0, true), (770, false), (774, true), (778, false)], &[900]), [(900, false)]);
    }

    #[test]
    fn presses_are_all_there_when_nobody_asked_for_a_while() {
        let edges = [(0, true), (60, false), (200, true), (1100, false), (1300, true), (1350, false)];
        assert_eq!(presses(&edges, &[2000]), [(2000, false), (2000, true), (2000, false)]);
    }
}
