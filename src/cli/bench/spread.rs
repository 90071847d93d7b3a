//! What is said of many measured times.

use serde::Serialize;

/// Times in milliseconds, of one thing measured again and again.
#[derive(Clone, Debug, Serialize)]
pub struct Spread {
    pub minimum: f64,
    pub p5: f64,
    pub median: f64,
    pub p95: f64,
    pub runs: usize,
}

impl Spread {
    /// Of at least one time.
    pub fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get(place(times.len(), share)).copied().unwrap_or(f64::NAN);
        Self { minimum: at(0.0), p5: at(0.05), median: at(0.5), p95: at(0.95), runs: times.len() }
    }
}

/// The place of a quantile in a sorted list: the nearest rank.
fn place(count: usize, share: f64) -> usize {
    (count.saturating_sub(1) as f64 * share).round() as usize
}

/// The ratio of the medians of two interleaved series, and the interval that holds 95 % of the ratios of series drawn from
/// the same rounds (percentile bootstrap, Efron 1979; the draws are seeded).
pub fn ratio(a: &[f64], b: &[f64]) -> (f64, [f64; 2]) {
    let count = a.len().min(b.len());
    let median = |values: Vec<f64>| Spread::of(values).median;
    let whole = median(a.to_vec()) / median(b.to_vec());
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut draws: Vec<f64> = (0..1000)
        .map(|_| {
            let mut rounds = Vec::with_capacity(count);
            for _ in 0..count {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                rounds.push((seed >> 11) as usize % count.max(1));
            }
            median(rounds.iter().map(|&i| a[i]).collect()) / median(rounds.iter().map(|&i| b[i]).collect())
        })
        .collect();
    draws.sort_by(f64::total_cmp);
    (whole, [0.025, 0.975].map(|share| draws[place(draws.len(), share)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_ratio() {
        let spread = Spread::of((1..=101).rev().map(f64::from).collect());
        assert_eq!((spread.minimum, spread.p5, spread.median, spread.p95), (1.0, 6.0, 51.0, 96.0));
        let a: Vec<f64> = (0..40).map(|i| 10.0 + f64::from(i % 5)).collect();
        let b: Vec<f64> = a.iter().map(|v| v * 2.0).collect();
        let (ratio, [low, high]) = ratio(&a, &b);
        assert_eq!(ratio, 0.5);
        assert!((0.4..=0.5).contains(&low) && (0.5..=0.6).contains(&high), "{low} {high}");
    }
}
