//! How well scores rank positives above negatives.

/// Pictures sorted by a score once, for many weightings.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// Indices by falling score, in groups of equal scores.
    groups: Vec<Vec<usize>>,
    positive: Vec<bool>,
}

impl Ranking {
    /// Sorts; a score that is no number ranks by its bits.
    pub fn new(scores: &[f64], positive: &[bool]) -> Self {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let groups = order.chunk_by(|a, b| scores[*a] == scores[*b]).map(<[usize]>::to_vec).collect();
        Self { groups, positive: positive.to_vec() }
    }

    /// Area under the ROC curve: the probability that a positive scores above a negative, ties counted half
    /// (Hanley and McNeil, Radiology 1982). `None` where one kind is missing.
    pub fn auc(&self, weights: &[f64]) -> Option<f64> {
        let (mut above, mut positives, mut negatives) = (0.0, 0.0, 0.0);
        for group in &self.groups {
            let (mut p, mut n) = (0.0, 0.0);
            for &i in group {
                if self.positive[i] { p += weights[i] } else { n += weights[i] }
            }
            above += n * (positives + p / 2.0);
            positives += p;
            negatives += n;
        }
        (positives > 0.0 && negatives > 0.0).then(|| above / (positives * negatives))
    }

    /// True and false positives at or above each score, from (0, 0) on.
    pub fn counts(&self) -> Vec<(usize, usize)> {
        let mut all = vec![(0, 0)];
        let (mut hits, mut false_hits) = (0, 0);
        for group in &self.groups {
            let positives = group.iter().filter(|&&i| self.positive[i]).count();
            hits += positives;
            false_hits += group.len() - positives;
            all.push((hits, false_hits));
        }
        all
    }

    /// The ROC curve: false positive rate and sensitivity; empty where one kind is missing.
    pub fn roc(&self) -> Vec<(f64, f64)> {
        let counts = self.counts();
        let (p, n) = counts.last().copied().unwrap_or_default();
        if p == 0 || n == 0 {
            return Vec::new();
        }
        counts.iter().map(|(t, f)| (*f as f64 / n as f64, *t as f64 / p as f64)).collect()
    }
}

/// Recall and precision at each score; empty without positives.
pub fn precision_recall(ranking: &Ranking) -> Vec<(f64, f64)> {
    let counts = ranking.counts();
    let p = counts.last().map_or(0, |c| c.0);
    let counted = counts.iter().filter(|(t, f)| p > 0 && t + f > 0);
    counted.map(|(t, f)| (*t as f64 / p as f64, *t as f64 / (t + f) as f64)).collect()
}

/// Average precision: precision weighted by the steps of recall (Davis and Goadrich, ICML 2006, warn of the trapezoid).
pub fn average_precision(ranking: &Ranking) -> Option<f64> {
    let curve = precision_recall(ranking);
    let mut last = 0.0;
    let sum = curve.iter().map(|(recall, precision)| {
        let step = recall - last;
        last = *recall;
        step * precision
    });
    let sum = sum.sum::<f64>();
    (!curve.is_empty()).then_some(sum)
}
