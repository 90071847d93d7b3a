//! What a report states, computed from labels and logits.

use crate::score::Confusion;
use crate::statistics::{Bootstrap, Interval, Ranking, average_precision, precision_recall};
use fovea::Class;
use serde::Serialize;
use std::collections::BTreeMap;

/// A picture's label and what a model says of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Path in the index.
    pub path: String,
    /// The patient.
    pub patient: String,
    /// The label.
    pub truth: Class,
    /// The most probable class.
    pub class: Class,
    /// Logits in the order of [`Class::ALL`].
    pub logits: [f32; 4],
    /// Calibrated probabilities.
    pub probabilities: [f64; 4],
    /// What is published: a class, `UNCERTAIN` or `NOT_OCT`.
    pub finding: String,
    /// Image quality in a word.
    pub quality: String,
    /// Width in pixels.
    pub width: u32,
    /// Where the data set had it; may be empty.
    pub origin: String,
}

impl Outcome {
    /// Whether the most probable class is the label.
    pub fn right(&self) -> bool {
        self.class == self.truth
    }

    /// Probability of the most probable class.
    pub fn confidence(&self) -> f64 {
        self.probabilities[self.class.index()]
    }
}

/// CNV and DME are referred urgently (Kermany et al., Cell 2018).
pub fn urgent(class: Class) -> bool {
    matches!(class, Class::Cnv | Class::Dme)
}

/// One class against the others.
#[derive(Clone, Debug, Serialize)]
pub struct OfClass {
    /// The class.
    pub class: Class,
    /// Pictures with this label.
    pub pictures: usize,
    /// Of these, found.
    pub sensitivity: Option<Interval>,
    /// Of the others, not called so.
    pub specificity: Option<Interval>,
    /// Of those called so, right.
    pub precision: Option<Interval>,
    /// Area under the ROC curve.
    pub auc: Option<Interval>,
    /// Average precision.
    pub average_precision: Option<f64>,
    /// ROC curve: false positive rate, sensitivity.
    #[serde(skip)]
    pub roc: Vec<(f64, f64)>,
    /// Recall, precision.
    #[serde(skip)]
    pub precision_recall: Vec<(f64, f64)>,
}

/// Urgent referral (CNV or DME) against the rest.
#[derive(Clone, Debug, Serialize)]
pub struct Urgent {
    /// Of the pictures that need it, called urgent.
    pub sensitivity: Option<Interval>,
    /// Of the others, not called urgent.
    pub specificity: Option<Interval>,
    /// Area under the ROC curve of the probability of CNV or DME.
    pub auc: Option<Interval>,
}

/// Pictures of one confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// How many.
    pub pictures: usize,
    /// Mean confidence.
    pub confidence: f64,
    /// Share of right ones.
    pub right: f64,
}

/// A patient.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfPatient {
    /// The patient.
    pub patient: String,
    /// Pictures.
    pub pictures: usize,
    /// Right ones of them.
    pub right_pictures: usize,
    /// Labels; two where an index has the patient under two.
    pub truth: Vec<Class>,
    /// For each label the class of the highest mean probability.
    pub found: Vec<Class>,
    /// Every label is found.
    pub right: bool,
}

/// A part of the pictures.
#[derive(Clone, Debug, Serialize)]
pub struct Subgroup {
    /// Its name.
    pub name: String,
    /// Pictures.
    pub pictures: usize,
    /// Patients.
    pub patients: usize,
    /// Share of right pictures.
    pub accuracy: Option<Interval>,
    /// Sensitivity of urgent referral.
    pub urgent_sensitivity: Option<Interval>,
}

/// What the model's own threshold and gate do.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Working {
    /// Pictures with a finding.
    pub answered: Option<Interval>,
    /// Of those, right.
    pub right: Option<Interval>,
    /// Pictures called UNCERTAIN.
    pub uncertain: usize,
    /// Pictures refused as NOT_OCT.
    pub refused: usize,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Pictures.
    pub pictures: usize,
    /// Patients.
    pub patients: usize,
    /// Draws of the intervals.
    pub draws: usize,
    /// Their seed.
    pub seed: u64,
    /// Share of right pictures.
    pub accuracy: Option<Interval>,
    /// Share of right patients; see [`OfPatient`].
    pub patient_accuracy: Option<Interval>,
    /// Mean of the classes' AUC.
    pub macro_auc: Option<Interval>,
    /// Rows are labels, columns answers.
    pub confusion: [[usize; 4]; 4],
    /// The classes.
    pub classes: Vec<OfClass>,
    /// Urgent referral.
    pub urgent: Urgent,
    /// Mean negative log likelihood.
    pub nll: f64,
    /// Expected calibration error over 15 bins (Guo et al., ICML 2017).
    pub ece: f64,
    /// The bins that hold pictures.
    pub reliability: Vec<Bin>,
    /// Share answered and share of right ones among them, for falling least confidence.
    pub coverage: Vec<(f64, f64)>,
    /// At the model's own threshold.
    pub working: Working,
    /// By width.
    pub widths: Vec<Subgroup>,
    /// By origin.
    pub origins: Vec<Subgroup>,
    /// Each patient.
    pub by_patient: Vec<OfPatient>,
}

/// Patients with the answers to their pictures together: probabilities are averaged over the pictures of one label.
pub fn patients(outcomes: &[Outcome]) -> Vec<OfPatient> {
    let mut groups: BTreeMap<&str, BTreeMap<Class, Vec<&Outcome>>> = BTreeMap::new();
    for outcome in outcomes {
        groups.entry(&outcome.patient).or_default().entry(outcome.truth).or_default().push(outcome);
    }
    let found = |group: &[&Outcome]| {
        let sum = |class: Class| group.iter().map(|o| o.probabilities[class.index()]).sum::<f64>();
        Class::ALL
            .into_iter()
            .fold(Class::Cnv, |best, class| if sum(class) > sum(best) { class } else { best })
    };
    groups
        .into_iter()
        .map(|(patient, labels)| {
            let truth: Vec<Class> = labels.keys().copied().collect();
            let found: Vec<Class> = labels.values().map(|group| found(group)).collect();
            let all = || labels.values().flatten();
            OfPatient {
                patient: patient.into(),
                pictures: all().count(),
                right_pictures: all().filter(|o| o.right()).count(),
                right: truth == found,
                truth,
                found,
            }
        })
        .collect()
}

/// Bins of equal width of confidence that hold pictures, and the calibration error over them.
fn reliability(outcomes: &[Outcome]) -> (Vec<Bin>, f64) {
    let mut sums = [(0usize, 0.0, 0.0); 15];
    for o in outcomes {
        let bin = &mut sums[((o.confidence() * 15.0) as usize).min(14)];
        *bin = (bin.0 + 1, bin.1 + o.confidence(), bin.2 + f64::from(u8::from(o.right())));
    }
    let error = sums.iter().map(|(_, c, r)| (c - r).abs()).sum::<f64>() / outcomes.len().max(1) as f64;
    let bins = sums.iter().filter(|b| b.0 > 0).map(|&(pictures, c, r)| {
        let n = pictures as f64;
        Bin { pictures, confidence: c / n, right: r / n }
    });
    (bins.collect(), error)
}

/// Share answered and share right of these when only the surest pictures are answered, for every number of them; equal
/// confidences are answered together.
fn coverage(outcomes: &[Outcome]) -> Vec<(f64, f64)> {
    let mut order: Vec<(f64, bool)> = outcomes.iter().map(|o| (o.confidence(), o.right())).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut answered, mut right) = (0, 0);
    let mut points = Vec::new();
    for group in order.chunk_by(|a, b| a.0 == b.0) {
        answered += group.len();
        right += group.iter().filter(|g| g.1).count();
        points.push((answered as f64 / order.len() as f64, right as f64 / answered as f64));
    }
    points
}

/// Parts by a property, the largest first; what is rarer than the eighth is put together.
fn subgroups(
    outcomes: &[Outcome],
    draws: usize,
    seed: u64,
    of: impl Fn(&Outcome) -> String,
) -> Vec<Subgroup> {
    let mut parts: BTreeMap<String, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        parts.entry(of(outcome)).or_default().push(outcome);
    }
    let mut parts: Vec<(String, Vec<&Outcome>)> = parts.into_iter().collect();
    parts.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    if parts.len() > 8 {
        let rest = parts.split_off(7).into_iter().flat_map(|(_, members)| members).collect();
        parts.push(("others".into(), rest));
    }
    parts
        .into_iter()
        .map(|(name, members)| {
            let names: Vec<&str> = members.iter().map(|o| o.patient.as_str()).collect();
            let bootstrap = Bootstrap::new(&names, draws, seed);
            let list = |f: fn(&Outcome) -> bool| members.iter().map(|o| f(o)).collect::<Vec<bool>>();
            Subgroup {
                name,
                pictures: members.len(),
                patients: bootstrap.patients(),
                accuracy: bootstrap.share(&list(Outcome::right), &vec![true; members.len()]),
                urgent_sensitivity: bootstrap.share(&list(|o| urgent(o.class)), &list(|o| urgent(o.truth))),
            }
        })
        .collect()
}

impl Summary {
    /// Computes everything, with intervals from `draws` draws of whole patients.
    pub fn of(outcomes: &[Outcome], draws: usize, seed: u64) -> Self {
        let names: Vec<&str> = outcomes.iter().map(|o| o.patient.as_str()).collect();
        let bootstrap = Bootstrap::new(&names, draws, seed);
        let list = |f: &dyn Fn(&Outcome) -> bool| outcomes.iter().map(f).collect::<Vec<bool>>();
        let not = |list: &[bool]| list.iter().map(|v| !v).collect::<Vec<bool>>();
        let everyone = vec![true; outcomes.len()];
        let right = list(&Outcome::right);
        let mut confusion = Confusion::default();
        outcomes.iter().for_each(|o| confusion.add(o.truth, o.class));
        let rankings: Vec<Ranking> = Class::ALL
            .iter()
            .map(|class| {
                let scores: Vec<f64> = outcomes.iter().map(|o| o.probabilities[class.index()]).collect();
                Ranking::new(&scores, &list(&|o| o.truth == *class))
            })
            .collect();
        let classes = Class::ALL
            .iter()
            .zip(&rankings)
            .map(|(&class, ranking)| {
                let (has, called) = (list(&|o| o.truth == class), list(&|o| o.class == class));
                OfClass {
                    class,
                    pictures: has.iter().filter(|h| **h).count(),
                    sensitivity: bootstrap.share(&called, &has),
                    specificity: bootstrap.share(&not(&called), &not(&has)),
                    precision: bootstrap.share(&has, &called),
                    auc: bootstrap.interval(|w| ranking.auc(w)),
                    average_precision: average_precision(ranking),
                    roc: ranking.roc(),
                    precision_recall: precision_recall(ranking),
                }
            })
            .collect();
        let macro_auc = bootstrap.interval(|w| {
            let all: Option<Vec<f64>> = rankings.iter().map(|r| r.auc(w)).collect();
            all.map(|all| all.iter().sum::<f64>() / all.len() as f64)
        });
        let (need, called) = (list(&|o| urgent(o.truth)), list(&|o| urgent(o.class)));
        let scores: Vec<f64> = outcomes.iter().map(|o| o.probabilities[0] + o.probabilities[1]).collect();
        let ranking = Ranking::new(&scores, &need);
        let by_patient = patients(outcomes);
        let each: Vec<&str> = by_patient.iter().map(|p| p.patient.as_str()).collect();
        let patient_right: Vec<bool> = by_patient.iter().map(|p| p.right).collect();
        let answered = list(&|o| !matches!(o.finding.as_str(), "UNCERTAIN" | "NOT_OCT"));
        let log = |o: &Outcome| -o.probabilities[o.truth.index()].max(f64::MIN_POSITIVE).ln();
        let (reliability, ece) = reliability(outcomes);
        let count = |word: &str| outcomes.iter().filter(|o| o.finding == word).count();
        Self {
            pictures: outcomes.len(),
            patients: bootstrap.patients(),
            draws,
            seed,
            accuracy: bootstrap.share(&right, &everyone),
            patient_accuracy: Bootstrap::new(&each, draws, seed)
                .share(&patient_right, &vec![true; patient_right.len()]),
            macro_auc,
            confusion: confusion.counts,
            classes,
            urgent: Urgent {
                sensitivity: bootstrap.share(&called, &need),
                specificity: bootstrap.share(&not(&called), &not(&need)),
                auc: bootstrap.interval(|w| ranking.auc(w)),
            },
            nll: outcomes.iter().map(log).sum::<f64>() / outcomes.len().max(1) as f64,
            ece,
            reliability,
            coverage: coverage(outcomes),
            working: Working {
                answered: bootstrap.share(&answered, &everyone),
                right: bootstrap.share(&right, &answered),
                uncertain: count("UNCERTAIN"),
                refused: count("NOT_OCT"),
            },
            widths: subgroups(outcomes, draws, seed, |o| format!("{} pixels", o.width)),
            origins: subgroups(outcomes, draws, seed, |o| {
                if o.origin.is_empty() { "not stated".into() } else { o.origin.clone() }
            }),
            by_patient,
        }
    }
}
