//! The bootstrap over patients (Efron and Tibshirani 1993; whole clusters drawn as in Field and Welsh, JRSS B 2007).

use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;

/// A measure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// On the pictures as they are.
    pub value: f64,
    /// 2.5th percentile of the draws.
    pub low: f64,
    /// 97.5th percentile of the draws.
    pub high: f64,
}

/// Draws of whole patients with replacement, the same for every measure, so that differences of measures are paired.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Each picture's patient, counted from 0.
    patient: Vec<usize>,
    patients: usize,
    draws: usize,
    seed: u64,
}

/// SplitMix64 (Steele et al., OOPSLA 2014): intervals come out the same on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `below` less 1; by the upper bits of a product, whose bias is below one in 2^32 here.
    fn below(&mut self, below: usize) -> usize {
        ((u128::from(self.next()) * below as u128) >> 64) as usize
    }
}

impl Bootstrap {
    /// Draws for pictures of these patients.
    pub fn new<S: AsRef<str>>(patients: &[S], draws: usize, seed: u64) -> Self {
        let mut numbers = BTreeMap::new();
        for patient in patients {
            let next = numbers.len();
            numbers.entry(patient.as_ref()).or_insert(next);
        }
        let patient = patients.iter().map(|p| numbers[p.as_ref()]).collect();
        Self { patient, patients: numbers.len(), draws, seed }
    }

    /// How many patients there are.
    pub fn patients(&self) -> usize {
        self.patients
    }

    /// How often each picture's patient is in a draw.
    fn weights(&self, draw: usize) -> Vec<f64> {
        let mut random = SplitMix(self.seed.wrapping_add((draw as u64).wrapping_mul(0xd134_2543_de82_ef95)));
        let mut counts = vec![0.0; self.patients];
        for _ in 0..self.patients {
            counts[random.below(self.patients)] += 1.0;
        }
        self.patient.iter().map(|&p| counts[p]).collect()
    }

    /// A measure of weighted pictures with its percentile interval; `None` when it has no value on the pictures as they
    /// are (a class is missing). Draws without a value are left out; where they are more than half there is no interval,
    /// said as 0 to 1.
    pub fn interval(&self, measure: impl Fn(&[f64]) -> Option<f64> + Sync) -> Option<Interval> {
        let value = measure(&vec![1.0; self.patient.len()])?;
        let mut drawn: Vec<f64> =
            (0..self.draws).into_par_iter().filter_map(|draw| measure(&self.weights(draw))).collect();
        if drawn.len() * 2 < self.draws.max(1) {
            return Some(Interval { value, low: 0.0, high: 1.0 });
        }
        drawn.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (drawn.len() - 1) as f64;
            let (low, part) = (place as usize, place.fract());
            drawn[low] + (drawn[(low + 1).min(drawn.len() - 1)] - drawn[low]) * part
        };
        Some(Interval { value, low: at(0.025), high: at(0.975) })
    }

    /// Share of `hits` among those of `of`, with its interval.
    pub fn share(&self, hits: &[bool], of: &[bool]) -> Option<Interval> {
        self.interval(|weights| {
            let (mut hit, mut all) = (0.0, 0.0);
            for ((w, h), o) in weights.iter().zip(hits).zip(of) {
                if *o {
                    all += w;
                    hit += if *h { *w } else { 0.0 };
                }
            }
            (all > 0.0).then(|| hit / all)
        })
    }
}
