use super::compare::{Comparison, Verdict};
use super::measures::{Outcome, Summary, patients};
use super::*;
use crate::export::{fold::Checkpoint, testing};
use fovea::Class;

/// An answer with this probability for `class`, the rest shared.
fn outcome(patient: usize, truth: Class, class: Class, confidence: f64) -> Outcome {
    let mut probabilities = [(1.0 - confidence) / 3.0; 4];
    probabilities[class.index()] = confidence;
    Outcome {
        path: format!("{patient}-{truth}-{class}-{confidence}"),
        patient: patient.to_string(),
        truth,
        class,
        logits: probabilities.map(|p| p.ln() as f32),
        probabilities,
        finding: if confidence < 0.6 { "UNCERTAIN".into() } else { class.name().into() },
        quality: "good".into(),
        width: if patient.is_multiple_of(2) { 512 } else { 768 },
        origin: String::new(),
    }
}

use Class::{Cnv, Dme, Drusen, Normal};

#[test]
fn figures_by_hand() {
    let all = [
        outcome(1, Cnv, Cnv, 0.9),
        outcome(1, Cnv, Dme, 0.5),
        outcome(2, Dme, Dme, 0.8),
        outcome(3, Drusen, Normal, 0.7),
        outcome(4, Normal, Normal, 0.95),
        outcome(5, Normal, Normal, 0.55),
        outcome(6, Normal, Cnv, 0.65),
    ];
    let s = Summary::of(&all, 200, 1);
    assert_eq!((s.pictures, s.patients), (7, 6));
    let value = |i: Option<crate::statistics::Interval>| i.unwrap().value;
    assert!((value(s.accuracy) - 4.0 / 7.0).abs() < 1e-12);
    assert_eq!(s.confusion, [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 2]]);
    assert!((value(s.classes[0].sensitivity) - 0.5).abs() < 1e-12);
    assert!((value(s.classes[0].specificity) - 0.8).abs() < 1e-12);
    assert!((value(s.classes[3].precision) - 2.0 / 3.0).abs() < 1e-12);
    // Three of three urgent ones are called urgent; of four others one is.
    assert!((value(s.urgent.sensitivity) - 1.0).abs() < 1e-12);
    assert!((value(s.urgent.specificity) - 0.75).abs() < 1e-12);
    // Every confidence is alone in its bin: errors in the order above.
    let ece = (0.1 + 0.5 + 0.2 + 0.7 + 0.05 + 0.45 + 0.65) / 7.0;
    assert!((s.ece - ece).abs() < 1e-9, "{} {ece}", s.ece);
    // The surest four: 0.95 right, 0.9 right, 0.8 right, 0.7 wrong.
    assert_eq!(s.coverage[3], (4.0 / 7.0, 0.75));
    assert_eq!((s.working.uncertain, s.working.refused), (2, 0));
    assert!((value(s.working.answered) - 5.0 / 7.0).abs() < 1e-12);
    // Patient 1 averages CNV 0.9 and 1/6 against DME 1/30 and 0.5: CNV, right.
    let p = patients(&all);
    assert_eq!((p[0].right, p[0].right_pictures, p[0].found.as_slice()), (true, 1, &[Cnv][..]));
    assert_eq!(p.iter().filter(|p| p.right).count(), 4);
    assert_eq!(s.widths[0].name, "768 pixels");
    assert_eq!((s.widths[0].pictures, s.widths[1].pictures), (4, 3));
}

// A patient under two labels is one patient, right only when both labels are found.
#[test]
fn patients_of_two_labels_count_once() {
    let all = [outcome(1, Cnv, Cnv, 0.9), outcome(1, Normal, Cnv, 0.9), outcome(2, Dme, Dme, 0.9)];
    let p = patients(&all);
    assert_eq!(p.len(), 2);
    assert_eq!(
        (p[0].right, p[0].truth.as_slice(), p[0].found.as_slice()),
        (false, &[Cnv, Normal][..], &[Cnv, Cnv][..])
    );
}

/// `wrong` of `count` patients are misread.
fn model(count: usize, wrong: impl Fn(usize) -> bool) -> Vec<Outcome> {
    (0..count)
        .map(|i| {
            let truth = Class::ALL[i % 4];
            // Misread as another of the same urgency.
            let other = [Dme, Cnv, Normal, Drusen][i % 4];
            outcome(i, truth, if wrong(i) { other } else { truth }, 0.9)
        })
        .collect()
}

#[test]
fn verdicts_follow_the_rule() {
    let old = model(400, |i| i % 20 == 0);
    let verdict = |new: &[Outcome]| Comparison::of(new, &old, 0.02, 500, 1).verdict;
    assert_eq!(verdict(&old), Verdict::MayReplace, "the same model may replace itself");
    assert_eq!(verdict(&model(400, |i| i % 40 == 0)), Verdict::MayReplace);
    let worse = Comparison::of(&model(400, |i| i % 8 == 0), &old, 0.02, 500, 1);
    assert_eq!(worse.verdict, Verdict::MustNot);
    // 50 misread, of which multiples of 40 are misread by both: 10 of 20.
    assert_eq!((worse.lost, worse.won), (40, 10));
    assert!((worse.p - crate::statistics::mcnemar(10, 40)).abs() < 1e-15);
    // Ten patients prove nothing.
    let (few, other) = (model(10, |i| i == 3), model(10, |i| i == 4));
    let c = Comparison::of(&few, &other, 0.02, 500, 1);
    assert_eq!((c.verdict, c.won, c.lost, c.p), (Verdict::NotShown, 1, 1, 1.0));
    assert!(c.words.contains("old model stays"));
}

// Random weights, real pictures: the whole command on a checkpoint, damaged pictures and all.
#[test]
fn a_checkpoint_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let size = "128x128".parse().unwrap();
    let phantoms =
        crate::phantom::PhantomArgs { out: data.clone(), count: 4, seed: 3, size, flat: false, jpeg: false };
    crate::phantom::run(&phantoms).unwrap();
    let mut rows: Vec<Row> = find::read(&data, |_| ()).unwrap().0.into_iter().map(|(row, ())| row).collect();
    assert_eq!(rows.len(), 4);
    let checkpoint: Checkpoint = testing::checkpoint("gap");
    let package = model::of_checkpoint(&checkpoint, Path::new("random.safetensors")).unwrap();
    let mut model = Model::of(package, "tract", false).unwrap();
    // One picture is damaged, one is another than the index says.
    std::fs::write(data.join(&rows[2].path), b"no picture").unwrap();
    rows[2].sha256.clear();
    rows[3].sha256 = "0".repeat(64);
    let (readings, unread) = model.read(&data, &rows, "test").unwrap();
    assert_eq!((readings.len(), unread.len()), (2, 2));
    assert!(unread[1].1.contains("other SHA-256"), "{unread:?}");
    for reading in &readings {
        let o = &reading.outcome;
        assert!((o.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5 && o.finding == o.class.name());
        assert!(reading.maps[0].values.iter().all(|v| v.is_finite()));
    }
    let outcomes: Vec<Outcome> = readings.iter().map(|r| r.outcome.clone()).collect();
    let summary = Summary::of(&outcomes, 100, 1);
    let report = Report {
        model: "<random>".into(),
        model_sha256: String::new(),
        engine: "tract".into(),
        part: "all".into(),
        split_sha256: String::new(),
        confidence: "none".into(),
        comparison: Some(Comparison::of(&outcomes, &outcomes, 0.02, 100, 1)),
        compared_with: Some("itself".into()),
        times: times(&readings),
        summary,
        unread,
        outcomes,
    };
    let shown: Vec<&Reading> = readings.iter().collect();
    let gallery = page::gallery(&data, &rows, &shown, None).unwrap();
    let html = page::page(&report, &gallery);
    assert_eq!(html.matches("data:image/jpeg;base64,").count(), 6);
    assert!(html.contains("must not leave the clinic") && html.contains("&lt;random&gt;"));
    // Nothing is fetched: no address but the names of SVG's vocabulary, which no browser opens.
    let outside = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!outside.contains("http:") && !outside.contains("https:") && !outside.contains("<script"));
    assert!(serde_json::to_string(&report).unwrap().contains("\"verdict\":\"may-replace\""));
}
