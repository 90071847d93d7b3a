//! What an evaluation states: accuracy with intervals, confusion, calibration, abstention.

use super::runner::Answer;
use std::collections::BTreeMap;

/// Normal quantile of a two-sided 95 % interval.
const Z95: f64 = 1.959_963_984_540_054;

/// A share with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// How many.
    pub hits: usize,
    /// Of how many.
    pub all: usize,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Share {
    /// Wilson's score interval (JASA 1927). Without any pictures it is 0 to 1.
    pub fn wilson(hits: usize, all: usize) -> Self {
        if all == 0 {
            return Self { hits, all, low: 0.0, high: 1.0 };
        }
        let (n, p, z2) = (all as f64, hits as f64 / all as f64, Z95 * Z95);
        let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z95 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        Self { hits, all, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }

    /// The share itself; 0 without pictures.
    pub fn value(&self) -> f64 {
        self.hits as f64 / self.all.max(1) as f64
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.1} % ({} of {}; 95 % interval {:.1} to {:.1})",
            self.value() * 100.0,
            self.hits,
            self.all,
            self.low * 100.0,
            self.high * 100.0
        )
    }
}

/// Counts by true (row) and found class (column).
pub type Confusion = [[usize; 4]; 4];

/// Confusion matrix of answers.
pub fn confusion(truth: &[usize], answers: &[Answer]) -> Confusion {
    let mut counts = Confusion::default();
    truth.iter().zip(answers).for_each(|(t, a)| counts[*t][a.class()] += 1);
    counts
}

/// Right answers of all.
pub fn accuracy(counts: &Confusion) -> Share {
    Share::wilson((0..4).map(|c| counts[c][c]).sum(), counts.iter().flatten().sum())
}

/// Of the pictures of `class`, those found.
pub fn sensitivity(counts: &Confusion, class: usize) -> Share {
    Share::wilson(counts[class][class], counts[class].iter().sum())
}

/// Of the pictures of other classes, those not called `class`.
pub fn specificity(counts: &Confusion, class: usize) -> Share {
    let (mut hits, mut all) = (0, 0);
    for row in (0..4).filter(|row| *row != class) {
        let of_row: usize = counts[row].iter().sum();
        all += of_row;
        hits += of_row - counts[row][class];
    }
    Share::wilson(hits, all)
}

/// 95 % percentile interval of accuracy when whole patients are drawn (2,000 times, seeded): pictures of one patient are
/// no independent witnesses, so this is wider than Wilson's.
pub fn patient_bootstrap(patients: &[&str], right: &[bool]) -> (f64, f64) {
    let mut clusters: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (patient, right) in patients.iter().zip(right) {
        let cluster = clusters.entry(patient).or_default();
        cluster.0 += usize::from(*right);
        cluster.1 += 1;
    }
    let clusters: Vec<(usize, usize)> = clusters.into_values().collect();
    if clusters.is_empty() {
        return (0.0, 1.0);
    }
    let mut seed = 0x5eed_u64;
    let mut draw = || {
        // SplitMix64: the interval must come out the same on every machine.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % clusters.len()
    };
    let mut shares: Vec<f64> = (0..2000)
        .map(|_| {
            let (hits, all) = (0..clusters.len())
                .map(|_| clusters[draw()])
                .fold((0, 0), |sum, cluster| (sum.0 + cluster.0, sum.1 + cluster.1));
            hits as f64 / all as f64
        })
        .collect();
    shares.sort_by(f64::total_cmp);
    (shares[50], shares[1949])
}

/// Softmax of `logits / temperature`.
pub fn probabilities(logits: &[f32; 4], temperature: f64) -> [f64; 4] {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let exp = logits.map(|v| (f64::from(v - max) / temperature).exp());
    let sum: f64 = exp.iter().sum();
    exp.map(|v| v / sum)
}

/// Mean negative log likelihood of the truth.
pub fn nll(truth: &[usize], logits: &[[f32; 4]], temperature: f64) -> f64 {
    let sum: f64 = truth
        .iter()
        .zip(logits)
        .map(|(t, l)| -probabilities(l, temperature)[*t].max(f64::MIN_POSITIVE).ln())
        .sum();
    sum / truth.len().max(1) as f64
}

/// Expected calibration error over 15 bins of confidence (Guo et al., ICML 2017).
pub fn ece(truth: &[usize], logits: &[[f32; 4]], temperature: f64) -> f64 {
    let mut bins = [(0usize, 0f64, 0f64); 15];
    for (t, l) in truth.iter().zip(logits) {
        let p = probabilities(l, temperature);
        let best = (1..4).fold(0, |b, c| if p[c] > p[b] { c } else { b });
        let bin = &mut bins[((p[best] * 15.0) as usize).min(14)];
        bin.0 += 1;
        bin.1 += p[best];
        bin.2 += f64::from(u8::from(best == *t));
    }
    bins.iter().map(|(_, confidence, right)| (confidence - right).abs()).sum::<f64>()
        / truth.len().max(1) as f64
}

/// The temperature with the least [`nll`], between 0.05 and 20, by golden section on its logarithm (the loss has one
/// minimum in it).
pub fn fit_temperature(truth: &[usize], logits: &[[f32; 4]]) -> f64 {
    let loss = |log: f64| nll(truth, logits, log.exp());
    let (mut a, mut b) = (0.05f64.ln(), 20f64.ln());
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    for _ in 0..60 {
        let (left, right) = (b - ratio * (b - a), a + ratio * (b - a));
        if loss(left) <= loss(right) { b = right } else { a = left }
    }
    ((a + b) / 2.0).exp()
}

/// What abstaining below a confidence leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// Pictures answered of all.
    pub covered: Share,
    /// Right ones of those answered.
    pub right: Share,
}

/// Coverage and accuracy at `threshold` of calibrated confidence.
pub fn coverage(truth: &[usize], logits: &[[f32; 4]], temperature: f64, threshold: f64) -> Coverage {
    let (mut answered, mut right) = (0, 0);
    for (t, l) in truth.iter().zip(logits) {
        let p = probabilities(l, temperature);
        let best = (1..4).fold(0, |b, c| if p[c] > p[b] { c } else { b });
        if p[best] >= threshold {
            answered += 1;
            right += usize::from(best == *t);
        }
    }
    Coverage { covered: Share::wilson(answered, truth.len()), right: Share::wilson(right, answered) }
}

/// The least threshold (in steps of 0.01 from 0.30) at which `target` of the answered are right, but never one that
/// answers less than `least` of all.
pub fn choose_threshold(
    truth: &[usize],
    logits: &[[f32; 4]],
    temperature: f64,
    target: f64,
    least: f64,
) -> f64 {
    let mut chosen = 0.30;
    for step in 30..100 {
        let threshold = f64::from(step) / 100.0;
        let at = coverage(truth, logits, temperature, threshold);
        if at.covered.value() < least {
            break;
        }
        chosen = threshold;
        if at.right.value() >= target {
            break;
        }
    }
    chosen
}

/// The value that `share` of `values` do not exceed.
pub fn quantile(values: &[f32], share: f64) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_matches_the_tables() {
        // Newcombe, Stat Med 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (hits, all, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let share = Share::wilson(hits, all);
            assert!((share.low - low).abs() < 5e-5 && (share.high - high).abs() < 5e-5, "{share:?}");
        }
        assert_eq!((Share::wilson(0, 0).low, Share::wilson(0, 0).high), (0.0, 1.0));
    }

    fn answer(class: usize) -> Answer {
        let mut logits = [0.0; 4];
        logits[class] = 1.0;
        Answer { logits, pooled: vec![] }
    }

    #[test]
    fn confusion_and_its_shares() {
        let truth = [0, 0, 0, 1, 2, 3, 3];
        let answers: Vec<Answer> = [0, 0, 1, 1, 0, 3, 3].map(answer).into();
        let counts = confusion(&truth, &answers);
        assert_eq!(counts, [[2, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 2]]);
        assert_eq!(accuracy(&counts).hits, 5);
        assert_eq!((sensitivity(&counts, 0).hits, sensitivity(&counts, 0).all), (2, 3));
        assert_eq!((specificity(&counts, 0).hits, specificity(&counts, 0).all), (3, 4));
    }

    // Logits drawn so that the truth follows softmax(logits / 2.5): that is the temperature to be found.
    #[test]
    fn temperature_is_recovered() {
        let mut state = 1u64;
        let mut unit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let (mut truth, mut logits) = (Vec::new(), Vec::new());
        for _ in 0..20_000 {
            let l: [f32; 4] = std::array::from_fn(|_| (unit() * 12.0) as f32);
            let p = probabilities(&l, 2.5);
            let mut u = unit();
            let t = p
                .iter()
                .position(|p| {
                    u -= p;
                    u <= 0.0
                })
                .unwrap_or(3);
            truth.push(t);
            logits.push(l);
        }
        let temperature = fit_temperature(&truth, &logits);
        assert!((temperature - 2.5).abs() < 0.1, "{temperature}");
        assert!(ece(&truth, &logits, temperature) < 0.02);
        assert!(ece(&truth, &logits, 1.0) > 0.1);
        assert!(nll(&truth, &logits, temperature) < nll(&truth, &logits, 1.0));
    }

    #[test]
    fn threshold_meets_target_or_keeps_coverage() {
        // Confident ones are right, the unsure tenth is wrong.
        let mut logits = vec![[9.0, 0.0, 0.0, 0.0]; 90];
        logits.extend(vec![[0.5, 0.0, 0.0, 0.0]; 10]);
        let truth: Vec<usize> = (0..100).map(|i| usize::from(i >= 90)).collect();
        let threshold = choose_threshold(&truth, &logits, 1.0, 0.99, 0.8);
        let at = coverage(&truth, &logits, 1.0, threshold);
        assert_eq!((at.covered.hits, at.right.hits), (90, 90));
        let kept = choose_threshold(&truth, &logits, 1.0, 0.99, 0.95);
        assert_eq!(coverage(&truth, &logits, 1.0, kept).covered.hits, 100);
    }

    #[test]
    fn bootstrap_of_patients_is_wider_than_of_pictures() {
        let patients: Vec<String> = (0..400).map(|i| format!("{}", i / 20)).collect();
        let names: Vec<&str> = patients.iter().map(String::as_str).collect();
        // Two of twenty patients are wrong throughout.
        let right: Vec<bool> = (0..400).map(|i| i / 20 != 3 && i / 20 != 11).collect();
        let (low, high) = patient_bootstrap(&names, &right);
        let wilson = Share::wilson(360, 400);
        assert!(low < wilson.low && high > wilson.high, "{low} {high}");
    }

    #[test]
    fn quantiles() {
        let values: Vec<f32> = (1..=200).map(|v| v as f32).collect();
        assert_eq!(quantile(&values, 0.995), 199.0);
        assert_eq!(quantile(&values, 1.0), 200.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
