//! How fast pictures are read: as the supply and the heat allow.

use fovea_board::Thermal;
use std::time::{Duration, Instant};

/// Time between two looks at the temperature.
const LOOK: Duration = Duration::from_secs(1);

/// Rests between pictures.
#[derive(Default)]
pub struct Pace {
    pub rest: Duration,
    pub thermal: Option<(Thermal, Duration)>,
    looked: Option<Instant>,
    hot: Option<f32>,
    /// When the last picture was done.
    pub done: Option<Instant>,
}

impl Pace {
    /// Looks at the temperature now and then.
    pub fn look(&mut self, say: &mut dyn FnMut(&str)) {
        let Some((thermal, _)) = &mut self.thermal else { return };
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let hot = thermal.hot();
        if hot.is_some() != self.hot.is_some() {
            match hot {
                Some(degrees) => say(&format!("hot: {degrees:.0} °C; pictures are read more slowly")),
                None => say("cool again: pictures are read as fast as before"),
            }
        }
        self.hot = hot;
    }

    /// True when the next picture may be read.
    pub fn rested(&self) -> bool {
        let hot = self.thermal.as_ref().filter(|_| self.hot.is_some()).map(|(_, rest)| *rest);
        let rest = self.rest.max(hot.unwrap_or_default());
        self.done.is_none_or(|at| at.elapsed() >= rest)
    }

    /// What the screen says of it; empty while it is cool.
    pub fn words(&self) -> String {
        self.hot.map(|degrees| format!("hot, slower: {degrees:.0} °C")).unwrap_or_default()
    }
}
