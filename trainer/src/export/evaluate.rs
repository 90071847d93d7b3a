//! Evaluation of the f32 and the int8 network on a part of the split.

use super::calibrate::Method;
use super::graph::exposed;
use super::measure::{self, Confusion, Share};
use super::package::Gate;
use super::pictures::{self, Picture};
use super::runner::{Answer, Network};
use anyhow::{Context, Result};
use fovea::Class;
use fovea::prepare::{NetworkInput, Preparation};
use std::fmt;
use std::path::Path;

/// A part of the split with what both networks say of it.
pub struct Evaluation {
    /// Pictures.
    pub pictures: Vec<Picture>,
    /// Index of each picture's class.
    pub truth: Vec<usize>,
    /// Answers of the f32 network.
    pub float: Vec<Answer>,
    /// Answers of the int8 network; empty until [`Self::finish`].
    pub int8: Vec<Answer>,
}

/// A way to quantise and how it does on validation.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// How scales are chosen.
    pub method: Method,
    /// Whether the channels inside blocks were equalised before.
    pub equalised: bool,
    /// Whether biases make up for what rounding the weights adds.
    pub bias_correction: bool,
    /// Accuracy on validation.
    pub accuracy: Share,
    /// Pictures with the f32 network's class.
    pub agreement: Share,
    /// Mean absolute difference of a logit from the f32 network's.
    pub mean_error: f64,
    /// Largest one.
    pub max_error: f64,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:18} {:11} {:10} validation {:.2} %, as f32 {:.2} %, logits off by {:.3} (mean), {:.2} (most)",
            self.method,
            if self.equalised { "+ equalised" } else { "" },
            if self.bias_correction { "+ biases" } else { "" },
            self.accuracy.value() * 100.0,
            self.agreement.value() * 100.0,
            self.mean_error,
            self.max_error
        )
    }
}

/// The most accurate candidate; of equals the one whose logits are nearest to the f32 network's.
pub fn best(candidates: &[Candidate]) -> usize {
    let rank = |c: &Candidate| (std::cmp::Reverse(c.accuracy.hits), c.mean_error);
    (0..candidates.len())
        .min_by(|a, b| {
            let (a, b) = (rank(&candidates[*a]), rank(&candidates[*b]));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        })
        .unwrap_or(0)
}

impl Evaluation {
    /// Asks the f32 network.
    ///
    /// # Errors
    /// As [`Network::map`].
    pub fn start(pictures: Vec<Picture>, float: &Network, what: &str) -> Result<Self> {
        let answers = float.answers(pictures.iter().map(|p| &p.input), what)?;
        let truth = pictures.iter().map(|p| p.class.index()).collect();
        Ok(Self { pictures, truth, float: answers, int8: Vec::new() })
    }

    /// Asks the int8 network.
    ///
    /// # Errors
    /// As [`Network::map`].
    pub fn finish(&mut self, int8: &Network, what: &str) -> Result<()> {
        self.int8 = int8.answers(self.pictures.iter().map(|p| &p.input), what)?;
        Ok(())
    }

    /// How a network does here that was quantised by `method`, equalised before or not, biases corrected or not.
    ///
    /// # Errors
    /// As [`Network::map`].
    pub fn candidate(
        &self,
        method: Method,
        [equalised, bias_correction]: [bool; 2],
        network: &Network,
    ) -> Result<Candidate> {
        let answers = network.answers(self.pictures.iter().map(|p| &p.input), &format!("{method}"))?;
        let same = answers.iter().zip(&self.float).filter(|(a, f)| a.class() == f.class()).count();
        let errors: Vec<f64> = answers
            .iter()
            .zip(&self.float)
            .flat_map(|(a, f)| (0..4).map(move |c| f64::from((a.logits[c] - f.logits[c]).abs())))
            .collect();
        Ok(Candidate {
            method,
            equalised,
            bias_correction,
            accuracy: measure::accuracy(&measure::confusion(&self.truth, &answers)),
            agreement: Share::wilson(same, answers.len()),
            mean_error: errors.iter().sum::<f64>() / errors.len().max(1) as f64,
            max_error: errors.iter().copied().fold(0.0, f64::max),
        })
    }

    /// Confusion of the f32 network.
    pub fn float_confusion(&self) -> Confusion {
        measure::confusion(&self.truth, &self.float)
    }

    /// Confusion of the int8 network.
    pub fn int8_confusion(&self) -> Confusion {
        measure::confusion(&self.truth, &self.int8)
    }

    /// Accuracy of the f32 network.
    pub fn float_accuracy(&self) -> Share {
        measure::accuracy(&self.float_confusion())
    }

    /// Interval of accuracy over patients, for answers of this part.
    pub fn patient_interval(&self, answers: &[Answer]) -> (f64, f64) {
        let patients: Vec<&str> = self.pictures.iter().map(|p| p.patient.as_str()).collect();
        let right: Vec<bool> = answers.iter().zip(&self.truth).map(|(a, t)| a.class() == *t).collect();
        measure::patient_bootstrap(&patients, &right)
    }

    /// How many patients there are.
    pub fn patients(&self) -> usize {
        self.pictures.iter().map(|p| p.patient.as_str()).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Logits of the int8 network.
    pub fn int8_logits(&self) -> Vec<[f32; 4]> {
        self.int8.iter().map(|a| a.logits).collect()
    }

    /// What the gate lets through: by statistics and features together.
    pub fn passing(&self, gate: &Gate, limit: f32) -> Share {
        let distances = self.distances(gate);
        let passing = self.pictures.iter().zip(distances).filter(|(p, d)| !p.refused && *d <= limit);
        Share::wilson(passing.count(), self.pictures.len())
    }

    /// Feature distances of the int8 network.
    pub fn distances(&self, gate: &Gate) -> Vec<f32> {
        self.int8.iter().map(|a| gate.distance(&a.pooled)).collect()
    }
}

/// Signal to quantisation noise of every activation in decibels, least first: where int8 loses.
///
/// # Errors
/// As [`Network::map`].
pub fn layer_errors(float: &Network, int8: &Network, pictures: &[&Picture]) -> Result<Vec<(String, f64)>> {
    let inputs = || pictures.iter().map(|p| &p.input);
    let copy = |_: usize, outputs: &[&[f32]]| Ok(outputs.iter().map(|o| o.to_vec()).collect::<Vec<_>>());
    let exact = float.map(inputs(), "layers in f32", copy)?;
    let sums = int8.map(inputs(), "layers in int8", |i, outputs| {
        Ok(outputs
            .iter()
            .zip(&exact[i])
            .map(|(q, f)| {
                q.iter().zip(f).fold((0f64, 0f64), |(signal, noise), (q, f)| {
                    (signal + f64::from(*f).powi(2), noise + f64::from(q - f).powi(2))
                })
            })
            .collect::<Vec<_>>())
    })?;
    let names = ["logits".to_owned(), "features".to_owned()].into_iter().chain(exposed());
    let mut layers: Vec<(String, f64)> = names
        .enumerate()
        .map(|(i, name)| {
            let (signal, noise) = sums.iter().fold((0.0, 1e-30), |sum, s| (sum.0 + s[i].0, sum.1 + s[i].1));
            (name, 10.0 * (signal.max(1e-30) / noise).log10())
        })
        .collect();
    layers.sort_by(|a, b| a.1.total_cmp(&b.1));
    Ok(layers)
}

/// The pictures of a folder of phantoms with the class that the folder's or the file's name gives
/// (`DME/3.png`, `phantom-dme-1.jpeg`).
///
/// # Errors
/// A name without a class, nothing readable.
pub fn labelled(folder: &Path, preparation: &Preparation) -> Result<Vec<(Class, NetworkInput)>> {
    let mut labelled = Vec::new();
    for (path, frame) in &pictures::load_folder(folder)? {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // Masks lie beside the pictures.
        if stem.ends_with("mask") || path.iter().any(|part| part == "masks") {
            continue;
        }
        let parent = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let words = std::iter::once(parent.as_ref()).chain(stem.split(['-', '_', '.']));
        let class = words.into_iter().find_map(|word| word.parse::<Class>().ok());
        let class = class.with_context(|| {
            format!(
                "{}: neither the file nor its folder names a class (CNV, DME, DRUSEN, NORMAL)",
                path.display()
            )
        })?;
        labelled.push((class, preparation.prepare(frame, None)?.input));
    }
    Ok(labelled)
}

/// The share of labelled phantoms whose class the network gives.
///
/// # Errors
/// As [`Network::map`].
pub fn phantoms(network: &Network, labelled: &[(Class, NetworkInput)]) -> Result<Share> {
    let answers = network.answers(labelled.iter().map(|(_, input)| input), "phantoms")?;
    let right = answers.iter().zip(labelled).filter(|(a, (class, _))| a.class() == class.index()).count();
    Ok(Share::wilson(right, answers.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_nearest_logits() {
        let candidate = |hits, mean_error| Candidate {
            method: Method::Mse,
            equalised: false,
            bias_correction: false,
            accuracy: Share::wilson(hits, 100),
            agreement: Share::wilson(99, 100),
            mean_error,
            max_error: 1.0,
        };
        assert_eq!(best(&[candidate(95, 0.1), candidate(96, 0.3), candidate(96, 0.2)]), 2);
    }
}
