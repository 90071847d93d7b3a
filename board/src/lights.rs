//! Lights and sounds of a board.

/// Which lights are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lit {
    /// Pictures are taken and read.
    pub ready: bool,
    /// A picture is being read.
    pub working: bool,
    /// Somebody must look.
    pub attention: bool,
}

/// What is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beep {
    /// Something new is on the screen.
    News,
    /// A press that cannot be followed.
    Refused,
    /// Somebody must look.
    Attention,
}

impl Beep {
    /// How often and how long it sounds, in milliseconds; the pauses between are as long.
    pub fn pattern(self) -> (u32, u64) {
        match self {
            Beep::News => (1, 60),
            Beep::Refused => (2, 60),
            Beep::Attention => (3, 150),
        }
    }
}

/// Lights and a buzzer. A board without them does nothing, one whose device fails says so in the log and goes on.
pub trait Lights: Send {
    /// Sets the lights.
    fn show(&mut self, lit: Lit);

    /// Sounds, without waiting for the end.
    fn beep(&mut self, beep: Beep);
}
