//! Counting right and wrong answers.

use fovea::Class;
use std::fmt::Write as _;

/// Labels against answers: `counts[label][answer]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confusion {
    /// Rows are labels, columns answers, in the order of [`Class::ALL`].
    pub counts: [[usize; 4]; 4],
}

impl Confusion {
    /// Adds an answer.
    pub fn add(&mut self, label: Class, answer: Class) {
        self.counts[label.index()][answer.index()] += 1;
    }

    /// All answers.
    pub fn total(&self) -> usize {
        self.counts.iter().flatten().sum()
    }

    /// Right answers.
    pub fn right(&self) -> usize {
        (0..4).map(|i| self.counts[i][i]).sum()
    }

    /// Share of right answers, 0 to 1; 0 without answers.
    pub fn accuracy(&self) -> f64 {
        self.right() as f64 / self.total().max(1) as f64
    }

    /// The table in words.
    pub fn table(&self) -> String {
        let mut text = format!("{:<8}{:>8}{:>8}{:>8}{:>8}\n", "label", "CNV", "DME", "DRUSEN", "NORMAL");
        for class in Class::ALL {
            let _ = write!(text, "{class:<8}");
            for count in self.counts[class.index()] {
                let _ = write!(text, "{count:>8}");
            }
            text.push('\n');
        }
        text
    }
}

/// Softmax of four logits.
pub fn softmax(logits: [f32; 4]) -> [f32; 4] {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e = logits.map(|v| (v - top).exp());
    let sum: f32 = e.iter().sum();
    e.map(|v| v / sum)
}

/// The most probable class, the first of equals.
pub fn best(logits: [f32; 4]) -> Class {
    Class::ALL
        .into_iter()
        .rev()
        .max_by(|a, b| logits[a.index()].total_cmp(&logits[b.index()]))
        .unwrap_or(Class::Normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting() {
        let mut c = Confusion::default();
        c.add(Class::Cnv, best([3.0, 1.0, 0.0, 2.0]));
        c.add(Class::Cnv, best([1.0, 1.0, 1.0, 4.0]));
        assert_eq!((c.total(), c.right(), c.accuracy()), (2, 1, 0.5));
        let p = softmax([1000.0, 1000.0, -1000.0, 999.0]);
        assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6 && p[0] == p[1] && p[2] == 0.0);
        assert_eq!(best([1.0, 1.0, 0.0, 0.0]), Class::Cnv);
    }
}
