//! From scores to what is said: calibrated probabilities, abstention, the gate on what is no B-scan, image quality and
//! referral, each with its reason in words.

pub mod gate;
pub mod quality;

pub use gate::Statistics;
pub use quality::{Grade, Quality};

use crate::Class;
use crate::model::{Calibration, GateLimits};

/// Where the patient goes next (Kermany et al., Cell 2018).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referral {
    /// See a retina specialist now.
    Urgent,
    /// See an ophthalmologist.
    Routine,
    /// Next regular visit.
    Observe,
    /// Take the picture again.
    Repeat,
}

impl Referral {
    /// The word on the screen.
    pub fn word(self) -> &'static str {
        ["URGENT", "ROUTINE", "OBSERVE", "REPEAT"][self as usize]
    }

    /// The word in files.
    pub fn name(self) -> &'static str {
        ["urgent", "routine", "observe", "repeat"][self as usize]
    }
}

/// What is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A class, sure enough.
    Class(Class),
    /// The most probable class is not sure enough.
    Uncertain,
    /// The picture is no OCT B-scan.
    NotOct,
}

impl Finding {
    /// `CNV`, `DME`, `DRUSEN`, `NORMAL`, `UNCERTAIN` or `NOT_OCT`.
    pub fn name(self) -> &'static str {
        match self {
            Finding::Class(class) => class.name(),
            Finding::Uncertain => "UNCERTAIN",
            Finding::NotOct => "NOT_OCT",
        }
    }

    /// CNV and DME urgent, drusen routine, normal observe; without a finding the picture is taken again.
    pub fn referral(self) -> Referral {
        match self {
            Finding::Class(Class::Cnv | Class::Dme) => Referral::Urgent,
            Finding::Class(Class::Drusen) => Referral::Routine,
            Finding::Class(Class::Normal) => Referral::Observe,
            Finding::Uncertain | Finding::NotOct => Referral::Repeat,
        }
    }
}

/// Everything that is said of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// What is published.
    pub finding: Finding,
    /// The most probable class.
    pub class: Class,
    /// Calibrated probabilities in the order of [`Class::ALL`].
    pub probabilities: [f32; 4],
    /// Image quality.
    pub quality: Quality,
    /// Why the finding is what it is, and what is to be said of the picture; may be empty.
    pub reason: String,
}

impl Diagnosis {
    /// Probability of the most probable class.
    pub fn confidence(&self) -> f32 {
        self.probabilities[self.class.index()]
    }

    /// Judges logits, the picture's statistics and quality, and the features' distance from the training pictures.
    pub fn judge(
        calibration: &Calibration,
        limits: &GateLimits,
        logits: [f32; 4],
        statistics: &Statistics,
        quality: Quality,
        distance: f32,
    ) -> Self {
        let probabilities = softmax(logits, calibration.temperature);
        let class = Class::ALL.into_iter().fold(Class::Cnv, |best, class| {
            if probabilities[class.index()] > probabilities[best.index()] { class } else { best }
        });
        let confidence = probabilities[class.index()];
        let far = limits.limit.filter(|limit| distance.is_nan() || distance > *limit);
        // Written so that a confidence that is not a number abstains.
        let sure = confidence >= calibration.threshold;
        let (finding, why) = match (statistics.refusal(), far) {
            (Some(why), _) => (Finding::NotOct, format!("no OCT B-scan: {why}")),
            (None, Some(limit)) => (
                Finding::NotOct,
                format!("unlike every B-scan of the training (distance {distance:.1}, limit {limit:.1})"),
            ),
            _ if !sure => (
                Finding::Uncertain,
                format!(
                    "{class} at {:.0} % is below the {:.0} % from which a finding stands",
                    confidence * 100.0,
                    calibration.threshold * 100.0
                ),
            ),
            _ => (Finding::Class(class), String::new()),
        };
        let reason = match (finding, why, quality.reason()) {
            (Finding::NotOct, why, _) => why,
            (_, why, said) if why.is_empty() || said.is_empty() => why + &said,
            (_, why, said) => format!("{why}; {said}"),
        };
        Self { finding, class, probabilities, quality, reason }
    }
}

/// Probabilities of logits divided by a temperature (Guo et al., ICML 2017).
pub fn softmax(logits: [f32; 4], temperature: f32) -> [f32; 4] {
    let top = logits.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let powers = logits.map(|logit| (f64::from(logit - top) / f64::from(temperature)).exp());
    let sum: f64 = powers.iter().sum();
    powers.map(|power| (power / sum) as f32)
}

#[cfg(test)]
mod tests;
