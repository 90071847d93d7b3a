//! What the operator's hand does: three buttons, lights, a buzzer.

use super::Reading;
use crate::Frame;
use crate::eye::Eye;
use crate::screen::{State, Strip};
use fovea_board::{Beep, Button, Buttons, Lights, Lit, NoButtons};
use std::sync::Arc;

/// A screen that the operator holds: what stood when the button was pressed.
pub struct Frozen {
    pub frame: Arc<Frame>,
    pub reading: Reading,
    pub state: State,
    /// When, by the clock.
    time: String,
}

/// What a press asks of the loop.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// Hold what is shown.
    Freeze,
    /// What is shown must go: it was let go, or it is of another eye or patient.
    Clear,
}

/// Buttons, lights, and what the operator set with them.
pub struct Panel {
    pub buttons: Box<dyn Buttons>,
    pub lights: Vec<Box<dyn Lights>>,
    pub frozen: Option<Frozen>,
    heat: bool,
    sound: bool,
    pub eye: Option<Eye>,
    lit: Option<Lit>,
}

impl Default for Panel {
    fn default() -> Self {
        Self {
            buttons: Box::new(NoButtons),
            lights: Vec::new(),
            frozen: None,
            heat: true,
            sound: true,
            eye: None,
            lit: None,
        }
    }
}

impl Panel {
    /// Follows the presses that are due, each said in a line; at most one has a wish.
    pub fn press(&mut self, say: &mut dyn FnMut(&str)) -> Option<Wish> {
        while let Some(press) = self.buttons.press() {
            match (press.button, press.long) {
                (Button::Capture, false) if self.frozen.take().is_some() => {
                    say("the screen was let go");
                    return Some(Wish::Clear);
                }
                (Button::Capture, false) => return Some(Wish::Freeze),
                (Button::Capture, true) => {
                    (self.frozen, self.eye) = (None, None);
                    say("next patient: the screen was cleared");
                    return Some(Wish::Clear);
                }
                (Button::Next, false) => {
                    self.heat = !self.heat;
                    say(if self.heat { "heatmap on" } else { "heatmap off" });
                }
                (Button::Next, true) => {
                    self.sound = !self.sound;
                    say(if self.sound { "sound on" } else { "sound off" });
                }
                (Button::Eye, long) => {
                    let before = self.eye;
                    self.eye = if long { None } else { Some(before.map_or(Eye::Od, Eye::other)) };
                    say(&format!("eye: {}", self.eye.map_or("not stated", Eye::words)));
                    if before.is_some() {
                        // What is shown was taken as of the other eye.
                        self.frozen = None;
                        return Some(Wish::Clear);
                    }
                }
            }
        }
        None
    }

    /// Holds what is shown.
    pub fn freeze(&mut self, shown: Option<(Arc<Frame>, Reading)>, state: State, say: &mut dyn FnMut(&str)) {
        match shown {
            Some((frame, reading)) => {
                let time = crate::clock::time_of_day();
                say(&format!("frozen at {time}: {} of {}", reading.finding, frame.origin));
                self.frozen = Some(Frozen { frame, reading, state, time });
            }
            None => {
                say("nothing to freeze: no finding stands");
                self.beep(Beep::Refused);
            }
        }
    }

    /// What the upper and lower edge of the screen say; `live` is the state behind a frozen screen, `heat` what is
    /// said of the temperature.
    pub fn strip(&self, live: &State, heat: &str) -> Strip {
        let behind = match live {
            State::SignalLost(_) if self.frozen.is_some() => "signal lost",
            State::Fault(_) if self.frozen.is_some() => "fault",
            _ => "",
        };
        let told = [
            behind,
            heat,
            if self.heat { "" } else { "heatmap off" },
            if self.sound { "" } else { "sound off" },
        ];
        let told: Vec<&str> = told.into_iter().filter(|words| !words.is_empty()).collect();
        Strip {
            eye: self.eye,
            frozen: self.frozen.as_ref().map(|frozen| format!("FROZEN {}", frozen.time)),
            status: told.join(" · "),
        }
    }

    /// True when heatmaps are wanted.
    pub fn heat(&self) -> bool {
        self.heat
    }

    /// Sets the lights where they change; sounds when attention is needed anew.
    pub fn light(&mut self, lit: Lit) {
        if self.lit == Some(lit) {
            return;
        }
        let called = lit.attention && !self.lit.is_some_and(|before| before.attention);
        self.lit = Some(lit);
        self.lights.iter_mut().for_each(|lights| lights.show(lit));
        if called {
            self.beep(Beep::Attention);
        }
    }

    /// Sounds, unless the operator silenced it.
    pub fn beep(&mut self, beep: Beep) {
        if self.sound {
            self.lights.iter_mut().for_each(|lights| lights.beep(beep));
        }
    }
}
