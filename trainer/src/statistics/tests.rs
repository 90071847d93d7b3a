use super::*;

/// Uniform numbers from 0 to 1, always the same.
fn unit(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

// By direct sums of binomial coefficients over 2^n.
#[test]
fn mcnemar_is_the_binomial_tail() {
    let choose = |n: u64, k: u64| (0..k).fold(1u128, |c, i| c * u128::from(n - i) / u128::from(i + 1));
    for (b, c) in [(0, 0), (1, 0), (5, 0), (3, 9), (9, 3), (10, 10), (2, 30), (25, 40)] {
        let n = (b + c) as u64;
        let tail: u128 = (0..=b.min(c) as u64).map(|k| choose(n, k)).sum();
        let direct = (2.0 * tail as f64 / 2f64.powi(n as i32)).min(1.0);
        assert!((mcnemar(b, c) - direct).abs() < 1e-12, "{b} {c}: {} {direct}", mcnemar(b, c));
    }
    // 1 against 7: 2 (1 + 8) / 256.
    assert!((mcnemar(1, 7) - 0.0703125).abs() < 1e-12);
    assert!(mcnemar(4000, 6000) < 1e-50 && mcnemar(5000, 5000) == 1.0);
}

// Against the count over all pairs, with ties and weights.
#[test]
fn auc_counts_pairs() {
    let mut next = unit(3);
    for round in 0..20 {
        let n = 40 + round;
        // Few distinct scores, so that ties are many.
        let scores: Vec<f64> = (0..n).map(|_| (next() * 9.0).floor()).collect();
        let positive: Vec<bool> = scores.iter().map(|s| next() * 9.0 < *s).collect();
        let weights: Vec<f64> = (0..n).map(|_| (next() * 4.0).floor()).collect();
        let (mut above, mut pairs) = (0.0, 0.0);
        for i in (0..n).filter(|i| positive[*i]) {
            for j in (0..n).filter(|j| !positive[*j]) {
                let w = weights[i] * weights[j];
                pairs += w;
                above +=
                    w * if scores[i] > scores[j] { 1.0 } else { 0.5 * f64::from(scores[i] == scores[j]) };
            }
        }
        let ranking = Ranking::new(&scores, &positive);
        assert!((ranking.auc(&weights).unwrap() - above / pairs).abs() < 1e-12);
        // The trapezoids under the curve are the same area.
        let area: f64 = ranking.roc().windows(2).map(|p| (p[1].0 - p[0].0) * (p[1].1 + p[0].1) / 2.0).sum();
        assert!((area - ranking.auc(&vec![1.0; n]).unwrap()).abs() < 1e-12);
    }
    assert_eq!(Ranking::new(&[1.0, 2.0], &[true, true]).auc(&[1.0, 1.0]), None);
}

#[test]
fn average_precision_by_hand() {
    // Ranked: hit, miss, hit, hit, miss: precisions at the hits are 1, 2/3, 3/4.
    let ranking = Ranking::new(&[0.9, 0.8, 0.7, 0.6, 0.5], &[true, false, true, true, false]);
    let expected = (1.0 + 2.0 / 3.0 + 3.0 / 4.0) / 3.0;
    assert!((average_precision(&ranking).unwrap() - expected).abs() < 1e-12);
    assert_eq!(precision_recall(&ranking).last(), Some(&(1.0, 0.6)));
    assert_eq!(average_precision(&Ranking::new(&[1.0], &[false])), None);
}

// Patients whose pictures agree: an interval over patients must cover the true share in about 95 of 100 studies, and one
// that takes pictures for patients must not.
#[test]
fn intervals_over_patients_cover_the_truth() {
    let mut next = unit(17);
    let (mut over_patients, mut over_pictures) = (0, 0);
    let (studies, truth) = (200, 0.8);
    for study in 0..studies {
        let (mut patients, mut right) = (Vec::new(), Vec::new());
        for patient in 0..60 {
            let hit = next() < truth;
            for _ in 0..8 {
                patients.push(patient.to_string());
                right.push(hit);
            }
        }
        let alone: Vec<String> = (0..patients.len()).map(|i| i.to_string()).collect();
        let all = vec![true; right.len()];
        let covers = |names: &[String]| {
            let at = Bootstrap::new(names, 300, study).share(&right, &all).unwrap();
            usize::from(at.low <= truth && truth <= at.high)
        };
        over_patients += covers(&patients);
        over_pictures += covers(&alone);
    }
    assert!((176..=199).contains(&over_patients), "{over_patients} of {studies}");
    assert!(over_pictures < 130, "{over_pictures} of {studies}");
}

#[test]
fn draws_are_seeded_and_what_has_no_value_has_no_interval() {
    let patients = ["a", "a", "b", "c", "d", "e", "f"];
    let right = [true, true, false, true, false, true, true];
    let all = [true; 7];
    let of = |seed| Bootstrap::new(&patients, 500, seed).share(&right, &all).unwrap();
    assert_eq!(of(1), of(1));
    assert!((of(1).value - 5.0 / 7.0).abs() < 1e-12 && of(1).low < of(1).value && of(1).high > of(1).value);
    assert_eq!(Bootstrap::new(&patients, 500, 1).share(&right, &[false; 7]), None);
    assert_eq!(Bootstrap::new(&patients, 10, 1).patients(), 6);
    // One patient alone never varies.
    let one = Bootstrap::new(&["x", "x"], 100, 1).share(&[true, false], &[true, true]).unwrap();
    assert_eq!((one.low, one.high), (0.5, 0.5));
}
