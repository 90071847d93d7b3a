//! How good is the picture? Two measures of our own, on the network's input:
//!
//! - contrast to noise: brightness of the band less that of the darkest fifth of the columns, over the noise, which is
//!   the median difference of neighbours in a row (as a standard deviation of Gaussian noise, 1.4826/√2 times that);
//! - clipped: share of pixels at the top of the range, where the machine's signal was cut off.
//!
//! The limits are set so that of the development B-scans about 1 in 100 is poor and 1 in 10 fair.

use super::gate::Statistics;
use crate::prepare::{NetworkInput, SIDE};

/// Image quality in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Nothing to object to.
    Good,
    /// Readable.
    Fair,
    /// Take the picture again where that is possible.
    Poor,
}

impl Grade {
    /// `good`, `fair` or `poor`.
    pub fn word(self) -> &'static str {
        ["good", "fair", "poor"][self as usize]
    }
}

/// What was measured, and the word for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Contrast to noise.
    pub contrast: f32,
    /// Share of clipped pixels.
    pub clipped: f32,
    /// The word.
    pub grade: Grade,
}

/// Contrast to noise below which a picture is fair, and poor.
const CONTRAST: [f32; 2] = [15.0, 9.0];
/// Clipped share above which a picture is fair, and poor.
const CLIPPED: [f32; 2] = [0.01, 0.05];

impl Quality {
    /// Measures the network's input; `statistics` are those of the same picture.
    pub fn measure(statistics: &Statistics, input: &NetworkInput) -> Self {
        let mut differences = [0usize; 256];
        for pair in input.0.chunks_exact(SIDE).flat_map(|row| row.windows(2)) {
            // Blackened margins have no noise.
            if pair[0] != 0 || pair[1] != 0 {
                differences[usize::from(pair[0].abs_diff(pair[1]))] += 1;
            }
        }
        let half = differences.iter().sum::<usize>() / 2;
        let mut seen = 0;
        let median = differences.iter().take_while(|count| {
            seen += **count;
            seen <= half
        });
        // A picture without any noise is limited by its grey levels: half a step.
        let noise = (median.count() as f32).max(0.5) * 1.4826 / std::f32::consts::SQRT_2;
        let contrast = (statistics.band - statistics.ground).max(0.0) / noise;
        let clipped = input.0.iter().filter(|v| **v >= 250).count() as f32 / (SIDE * SIDE) as f32;
        let grade = if contrast < CONTRAST[1] || clipped > CLIPPED[1] {
            Grade::Poor
        } else if contrast < CONTRAST[0] || clipped > CLIPPED[0] {
            Grade::Fair
        } else {
            Grade::Good
        };
        Self { contrast, clipped, grade }
    }

    /// What is wrong with the picture, in words; empty when it is good.
    pub fn reason(&self) -> String {
        if self.grade == Grade::Good {
            return String::new();
        }
        let clipped = self.clipped > CLIPPED[0];
        let weak = self.contrast < CONTRAST[0];
        let what = match (weak, clipped) {
            (true, true) => "weak signal, and clipped",
            (_, true) => "the signal is clipped",
            _ => "weak signal",
        };
        let advice = if self.grade == Grade::Poor { "; take the picture again if you can" } else { "" };
        format!("{what} (contrast to noise {:.0}){advice}", self.contrast)
    }
}
