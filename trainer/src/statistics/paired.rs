//! Two models on the same patients.

/// McNemar's exact test (Psychometrika 1947; binomial form): two-sided probability of a split of the discordant pairs at
/// least as uneven as `b` against `c`, were both models equally good.
pub fn mcnemar(b: usize, c: usize) -> f64 {
    let (n, k) = (b + c, b.min(c));
    // Logarithms of factorials, so that thousands of pairs neither overflow nor vanish.
    let mut log = vec![0.0f64; n + 1];
    for i in 1..=n {
        log[i] = log[i - 1] + (i as f64).ln();
    }
    let tail: f64 =
        (0..=k).map(|i| (log[n] - log[i] - log[n - i] - n as f64 * std::f64::consts::LN_2).exp()).sum();
    (2.0 * tail).min(1.0)
}
