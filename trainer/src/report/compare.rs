//! Two models on the same pictures: may the new one replace the old?

use super::measures::{Outcome, patients, urgent};
use crate::statistics::{Bootstrap, Interval, mcnemar};
use serde::Serialize;

/// What follows from a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Not worse by more than the margin, and shown so.
    MayReplace,
    /// Shown to be worse.
    MustNot,
    /// Neither is shown.
    NotShown,
}

/// The rule, in words.
pub const RULE: &str = "The new model may replace the old one when, on the same patients, (1) the lower end of the 95 % \
    interval of the difference in accuracy (new less old, whole patients drawn) lies above minus the margin, (2) so \
    does that of the sensitivity for urgent referral, and (3) McNemar's exact test over patients does not show it to be \
    worse (p below 0.05 with more patients lost than won). It must not when McNemar's test shows it to be worse, or when \
    the whole interval of one difference lies below minus the margin. Otherwise these patients are too few to say, and \
    the old model stays.";

/// The comparison of a new model with an old one.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Pictures that both answered.
    pub pictures: usize,
    /// Patients of these pictures.
    pub patients: usize,
    /// Patients whom only the new model gets right.
    pub won: usize,
    /// Patients whom only the old model gets right.
    pub lost: usize,
    /// McNemar's exact p, two-sided.
    pub p: f64,
    /// Accuracy, new less old.
    pub accuracy: Option<Interval>,
    /// Sensitivity for urgent referral, new less old.
    pub urgent_sensitivity: Option<Interval>,
    /// Specificity for urgent referral, new less old; told, not judged.
    pub urgent_specificity: Option<Interval>,
    /// Loss up to which the new model counts as no worse, a share.
    pub margin: f64,
    /// What follows.
    pub verdict: Verdict,
    /// The same in words.
    pub words: String,
}

/// Difference of a share between new and old.
fn difference(bootstrap: &Bootstrap, new: &[bool], old: &[bool], of: &[bool]) -> Option<Interval> {
    bootstrap.interval(|weights| {
        let (mut sum, mut all) = (0.0, 0.0);
        for (i, w) in weights.iter().enumerate().filter(|(i, _)| of[*i]) {
            all += w;
            sum += w * (f64::from(u8::from(new[i])) - f64::from(u8::from(old[i])));
        }
        (all > 0.0).then(|| sum / all)
    })
}

impl Comparison {
    /// Compares answers to the same pictures in the same order.
    pub fn of(new: &[Outcome], old: &[Outcome], margin: f64, draws: usize, seed: u64) -> Self {
        let names: Vec<&str> = new.iter().map(|o| o.patient.as_str()).collect();
        let bootstrap = Bootstrap::new(&names, draws, seed);
        let list = |of: &[Outcome], f: fn(&Outcome) -> bool| of.iter().map(f).collect::<Vec<bool>>();
        let need = list(new, |o| urgent(o.truth));
        let spared: Vec<bool> = need.iter().map(|n| !n).collect();
        let called: fn(&Outcome) -> bool = |o| urgent(o.class);
        let calm: fn(&Outcome) -> bool = |o| !urgent(o.class);
        let accuracy = difference(
            &bootstrap,
            &list(new, Outcome::right),
            &list(old, Outcome::right),
            &vec![true; new.len()],
        );
        let sensitivity = difference(&bootstrap, &list(new, called), &list(old, called), &need);
        let specificity = difference(&bootstrap, &list(new, calm), &list(old, calm), &spared);
        let (of_new, of_old) = (patients(new), patients(old));
        let pairs = || of_new.iter().zip(&of_old);
        let won = pairs().filter(|(n, o)| n.right && !o.right).count();
        let lost = pairs().filter(|(n, o)| !n.right && o.right).count();
        let p = mcnemar(won, lost);
        let judged = [("accuracy", accuracy), ("sensitivity for urgent referral", sensitivity)];
        let (verdict, words) = judge(&judged, (won, lost, p), margin);
        Self {
            pictures: new.len(),
            patients: of_new.len(),
            won,
            lost,
            p,
            accuracy,
            urgent_sensitivity: sensitivity,
            urgent_specificity: specificity,
            margin,
            verdict,
            words,
        }
    }
}

fn judge(
    judged: &[(&str, Option<Interval>)],
    (won, lost, p): (usize, usize, f64),
    margin: f64,
) -> (Verdict, String) {
    let points = |v: f64| format!("{:+.1} points", v * 100.0);
    if lost > won && p < 0.05 {
        let words = format!(
            "The new model must not replace the old one: it loses {lost} patients and wins {won} (McNemar p = {p:.4})."
        );
        return (Verdict::MustNot, words);
    }
    for (name, interval) in judged.iter().filter_map(|(name, i)| i.map(|i| (name, i))) {
        if interval.high < -margin {
            let words = format!(
                "The new model must not replace the old one: its {name} differs by {} to {}, all beyond {}.",
                points(interval.low),
                points(interval.high),
                points(-margin)
            );
            return (Verdict::MustNot, words);
        }
    }
    let short = judged.iter().find(|(_, i)| i.is_none_or(|i| i.low <= -margin));
    match short {
        None => (
            Verdict::MayReplace,
            format!(
                "The new model may replace the old one: it wins {won} patients and loses {lost} (McNemar p = {p:.4}), \
                 and its accuracy and its sensitivity for urgent referral are shown to fall by less than {:.1} points.",
                margin * 100.0
            ),
        ),
        Some((name, interval)) => (
            Verdict::NotShown,
            format!(
                "The old model stays: that the new one is no worse is not shown. Its {name} may differ by {}, beyond {}. \
                 More patients would tell.",
                interval.map_or("anything".into(), |i| points(i.low)),
                points(-margin)
            ),
        ),
    }
}
