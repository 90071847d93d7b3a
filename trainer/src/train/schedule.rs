//! How the learning rate moves.

/// Rate at a step of `total`, one cycle up to `top`.
pub(super) fn one_cycle(top: f64, step: usize, total: usize) -> f64 {
    let t = step as f64 / total.max(1) as f64;
    let cosine = |from: f64, to: f64, share: f64| {
        to + (from - to) * (1.0 + (std::f64::consts::PI * share).cos()) / 2.0
    };
    if t < 0.3 { cosine(top / 25.0, top, t / 0.3) } else { cosine(top, top / 2.5e5, (t - 0.3) / 0.7) }
}

/// Rate at a step of `total`: up to `top` over the first twentieth, then along half a cosine to nothing.
pub(super) fn cosine(top: f64, step: usize, total: usize) -> f64 {
    let warm = (total / 20).max(1);
    if step < warm {
        return top * (step + 1) as f64 / warm as f64;
    }
    let share = (step - warm) as f64 / total.saturating_sub(warm).max(1) as f64;
    top * (1.0 + (std::f64::consts::PI * share.min(1.0)).cos()) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cycle_rises_and_falls() {
        let rates: Vec<f64> = (0..=100).map(|s| one_cycle(1.0, s, 100)).collect();
        assert!((rates[0] - 0.04).abs() < 1e-9 && (rates[30] - 1.0).abs() < 1e-9 && rates[100] < 1e-5);
        assert!(rates[..30].is_sorted() && rates[30..].iter().rev().is_sorted());
    }

    #[test]
    fn cosine_warms_up_and_falls() {
        let rates: Vec<f64> = (0..=100).map(|s| cosine(1.0, s, 100)).collect();
        assert!((rates[0] - 0.2).abs() < 1e-9 && rates[4] == 1.0 && rates[5] == 1.0 && rates[100] < 1e-9);
        assert!(rates[..5].is_sorted() && rates[4..].iter().rev().is_sorted());
        // Half way down it is half.
        assert!((cosine(2.0, 110, 210) - 1.0).abs() < 1e-9);
        assert!(cosine(1.0, 0, 0).is_finite());
    }
}
