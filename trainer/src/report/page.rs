//! The page of a report.

use super::Report;
use super::compare::{Comparison, RULE};
use super::html::{head, heat, measure, picture, share, table};
use super::measures::{Subgroup, Summary};
use super::model::{Reading, frame};
use crate::split::Row;
use crate::svg::{Chart, escape};
use anyhow::Result;
use fovea::Class;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

/// The misread pictures as figures: picture, heatmap of the answer, heatmap of the label; the surest mistakes first.
///
/// # Errors
/// When a picture that was read cannot be read again, or Ctrl-C was pressed.
pub fn gallery(data: &Path, rows: &[Row], wrong: &[&Reading], limit: Option<usize>) -> Result<Vec<String>> {
    let by_path: HashMap<&str, &Row> = rows.iter().map(|r| (r.path.as_str(), r)).collect();
    let mut wrong = wrong.to_vec();
    wrong.sort_by(|a, b| b.outcome.confidence().total_cmp(&a.outcome.confidence()));
    let shown = wrong.len().min(limit.unwrap_or(usize::MAX));
    let bar = crate::bar(shown, "gallery");
    let mut figures = Vec::new();
    for reading in wrong.into_iter().take(shown) {
        crate::export::runner::check_stop()?;
        let o = &reading.outcome;
        let Some(row) = by_path.get(o.path.as_str()) else { continue };
        let frame = frame(data, row)?;
        let reason =
            if reading.reason.is_empty() { String::new() } else { format!(" {}.", escape(&reading.reason)) };
        figures.push(format!(
            "<figure>{}{}{}<figcaption><b>{}</b>, patient {}: label <b>{}</b>, answer <b>{}</b> at {:.1} %, label at \
             {:.1} %; published as {}; quality {}.{reason}<br><span class=\"small\">Picture; what speaks for {}; what \
             speaks for {}.</span></figcaption></figure>\n",
            picture(&frame, &o.path)?,
            heat(&frame, reading.place, &reading.maps[0], &format!("what speaks for {}", o.class))?,
            heat(&frame, reading.place, &reading.maps[1], &format!("what speaks for {}", o.truth))?,
            escape(&o.path),
            escape(&o.patient),
            o.truth,
            o.class,
            o.confidence() * 100.0,
            o.probabilities[o.truth.index()] * 100.0,
            o.finding,
            o.quality,
            o.class,
            o.truth
        ));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(figures)
}

/// The lines for the terminal.
pub fn summary(report: &Report) -> String {
    let s = &report.summary;
    let mut text = format!(
        "{}: {} pictures of {} patients ({}), engine {}\naccuracy {}\nmacro AUC {}\n",
        report.model,
        s.pictures,
        s.patients,
        report.part,
        report.engine,
        share(s.accuracy),
        measure(s.macro_auc)
    );
    for class in &s.classes {
        let _ = writeln!(
            text,
            "{:<7} sensitivity {}, specificity {}",
            class.class,
            share(class.sensitivity),
            share(class.specificity)
        );
    }
    let _ = writeln!(
        text,
        "urgent  sensitivity {}, specificity {}",
        share(s.urgent.sensitivity),
        share(s.urgent.specificity)
    );
    let _ = write!(
        text,
        "answered {}, right of these {}; ECE {:.3}; {:.0} ms a picture (engine)",
        share(s.working.answered),
        share(s.working.right),
        s.ece,
        report.times.engine_median
    );
    if !report.unread.is_empty() {
        let _ = write!(text, "\n{} pictures could not be read", report.unread.len());
    }
    if let Some(comparison) = &report.comparison {
        let _ = write!(text, "\n{}", comparison.words);
    }
    text
}

/// The whole page.
pub fn page(report: &Report, gallery: &[String]) -> String {
    let s = &report.summary;
    let mut text = head(&format!("Evaluation of {}", report.model));
    text.push_str(
        "<p class=\"warn\">This file holds pictures of patients. It must not leave the clinic.</p>\n\
         <p>Decision support, not a diagnosis. Intervals in brackets are 95 %: whole patients are drawn with \
         replacement, since pictures of one patient are no independent witnesses.</p>\n",
    );
    let _ = writeln!(
        text,
        "<p class=\"small\">Model {} (SHA-256 {}), engine {}; part: {}{}; confidence: {}; {} draws, seed {}.</p>",
        escape(&report.model),
        escape(&report.model_sha256),
        report.engine,
        escape(&report.part),
        if report.split_sha256.is_empty() {
            String::new()
        } else {
            format!(" of index {}", report.split_sha256)
        },
        escape(&report.confidence),
        s.draws,
        s.seed
    );
    if let Some(comparison) = &report.comparison {
        compared(&mut text, comparison, report.compared_with.as_deref().unwrap_or_default());
    }
    figures(&mut text, report);
    confusion(&mut text, s);
    curves(&mut text, s);
    text.push_str("<h2>Parts of the pictures</h2>\n");
    parts(&mut text, "Width", &s.widths);
    parts(&mut text, "Origin", &s.origins);
    let wrong = s.pictures - (0..4).map(|c| s.confusion[c][c]).sum::<usize>();
    let _ = writeln!(
        text,
        "<h2>Misread pictures</h2>\n<p>{wrong} of {} pictures were misread{}. The surest mistakes come first. Warm \
         colours: what adds to the answer.</p>",
        s.pictures,
        if gallery.len() < wrong { format!("; {} are shown", gallery.len()) } else { String::new() }
    );
    text.extend(gallery.iter().map(String::as_str));
    by_patient(&mut text, s);
    if !report.unread.is_empty() {
        let rows: Vec<Vec<String>> = report.unread.iter().map(|(p, r)| vec![escape(p), escape(r)]).collect();
        let _ =
            write!(text, "<h2>Pictures that could not be read</h2>\n{}", table(&["Picture", "Why"], &rows));
    }
    text.push_str("</body></html>\n");
    text
}

fn compared(text: &mut String, c: &Comparison, old: &str) {
    let points = |i: Option<crate::statistics::Interval>| {
        i.map_or("–".into(), |i| {
            format!("{:+.1} points ({:+.1} to {:+.1})", i.value * 100.0, i.low * 100.0, i.high * 100.0)
        })
    };
    let rows = [
        ("Accuracy, new less old", points(c.accuracy)),
        ("Sensitivity for urgent referral, new less old", points(c.urgent_sensitivity)),
        ("Specificity for urgent referral, new less old", points(c.urgent_specificity)),
        ("Patients whom only the new model gets right", c.won.to_string()),
        ("Patients whom only the old model gets right", c.lost.to_string()),
        ("McNemar's exact test over patients, p", format!("{:.4}", c.p)),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(k, v)| vec![k.into(), v]).collect();
    let _ = writeln!(
        text,
        "<h2>May it replace {}?</h2>\n<p class=\"say\"><b>{}</b></p>\n{}<p class=\"small\">{} pictures of {} patients. {} \
         Margin: {:.1} points. A patient is right when, for each label, the class of the highest mean probability is that \
         label.</p>",
        escape(old),
        escape(&c.words),
        table(&["", ""], &rows),
        c.pictures,
        c.patients,
        escape(RULE),
        c.margin * 100.0
    );
}

fn figures(text: &mut String, report: &Report) {
    let s = &report.summary;
    let rows: Vec<Vec<String>> = [
        ("Pictures, patients", format!("{}, {}", s.pictures, s.patients)),
        ("Accuracy over pictures", share(s.accuracy)),
        ("Accuracy over patients", share(s.patient_accuracy)),
        ("Macro AUC", measure(s.macro_auc)),
        ("Urgent referral (CNV or DME): sensitivity", share(s.urgent.sensitivity)),
        ("Urgent referral: specificity", share(s.urgent.specificity)),
        ("Urgent referral: AUC", measure(s.urgent.auc)),
        ("Answered (sure enough, and a B-scan)", share(s.working.answered)),
        ("Right of the answered", share(s.working.right)),
        ("Uncertain, refused as no B-scan", format!("{}, {}", s.working.uncertain, s.working.refused)),
        ("Calibration error (ECE), log likelihood loss", format!("{:.3}, {:.3}", s.ece, s.nll)),
        (
            "Time a picture: engine (95 of 100 within), around it",
            format!(
                "{:.1} ms ({:.1} ms), {:.1} ms",
                report.times.engine_median, report.times.engine_p95, report.times.around_median
            ),
        ),
    ]
    .into_iter()
    .map(|(k, v)| vec![k.into(), v])
    .collect();
    let _ = write!(text, "<h2>In short</h2>\n{}", table(&["", ""], &rows));
    let rows: Vec<Vec<String>> = s
        .classes
        .iter()
        .map(|c| {
            vec![
                c.class.name().into(),
                c.pictures.to_string(),
                share(c.sensitivity),
                share(c.specificity),
                share(c.precision),
                measure(c.auc),
                c.average_precision.map_or("–".into(), |v| format!("{v:.3}")),
            ]
        })
        .collect();
    let head =
        ["Class", "Pictures", "Sensitivity", "Specificity", "Right when said", "AUC", "Average precision"];
    let _ = write!(text, "<h2>Classes</h2>\n{}", table(&head, &rows));
}

fn confusion(text: &mut String, s: &Summary) {
    text.push_str("<h2>Labels and answers</h2>\n<table>\n<tr><th>label \\ answer</th>");
    text.extend(Class::ALL.iter().map(|c| format!("<th>{c}</th>")));
    text.push_str("</tr>\n");
    for class in Class::ALL {
        let _ = write!(text, "<tr><th>{class}</th>");
        for (answer, count) in s.confusion[class.index()].iter().enumerate() {
            let kind = match (answer == class.index(), count) {
                (true, _) => "right",
                (false, 0) => "",
                _ => "wrong",
            };
            let _ = write!(text, "<td class=\"{kind}\">{count}</td>");
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</table>\n");
}

fn curves(text: &mut String, s: &Summary) {
    let mut roc = Chart::unit("ROC", "1 - specificity", "sensitivity");
    roc.guide = Some([(0.0, 0.0), (1.0, 1.0)]);
    let mut recall =
        Chart::unit("Precision and recall", "sensitivity (recall)", "right when said (precision)");
    for class in &s.classes {
        roc = roc.line(class.class.name(), class.roc.clone(), false);
        recall = recall.line(class.class.name(), class.precision_recall.clone(), false);
    }
    let mut reliability = Chart::unit("Reliability", "confidence", "share right");
    reliability.guide = Some([(0.0, 0.0), (1.0, 1.0)]);
    let bins = s.reliability.iter().map(|b| (b.confidence, b.right)).collect();
    let reliability = reliability.line("bins of confidence", bins, true);
    let least = s.coverage.iter().map(|p| p.1).fold(1.0, f64::min);
    let mut coverage =
        Chart::unit("Abstention", "share answered, the surest first", "share right of the answered");
    coverage.y_range = ((least - 0.02).max(0.0), 1.0);
    let mut coverage = coverage.line("by confidence", s.coverage.clone(), false);
    if let (Some(answered), Some(right)) = (s.working.answered, s.working.right) {
        coverage = coverage.line("the model's threshold and gate", vec![(answered.value, right.value)], true);
    }
    let _ = write!(text, "<h2>Curves</h2>\n<div class=\"row\">\n");
    for chart in [roc, recall, reliability, coverage] {
        text.push_str(&chart.svg());
    }
    text.push_str("</div>\n");
    let rows: Vec<Vec<String>> = s
        .reliability
        .iter()
        .map(|b| {
            vec![
                b.pictures.to_string(),
                format!("{:.1} %", b.confidence * 100.0),
                format!("{:.1} %", b.right * 100.0),
            ]
        })
        .collect();
    let _ = writeln!(
        text,
        "<details><summary>Bins of the reliability diagram</summary>{}</details>",
        table(&["Pictures", "Mean confidence", "Right"], &rows)
    );
}

fn parts(text: &mut String, name: &str, parts: &[Subgroup]) {
    let rows: Vec<Vec<String>> = parts
        .iter()
        .map(|p| {
            vec![
                escape(&p.name),
                p.pictures.to_string(),
                p.patients.to_string(),
                share(p.accuracy),
                share(p.urgent_sensitivity),
            ]
        })
        .collect();
    text.push_str(&table(&[name, "Pictures", "Patients", "Accuracy", "Urgent referral: sensitivity"], &rows));
}

fn by_patient(text: &mut String, s: &Summary) {
    let names = |classes: &[Class]| classes.iter().map(|c| c.name()).collect::<Vec<_>>().join(", ");
    let mut patients: Vec<_> = s.by_patient.iter().collect();
    patients.sort_by_key(|p| (p.right, p.right_pictures == p.pictures));
    let rows: Vec<Vec<String>> = patients
        .into_iter()
        .map(|p| {
            vec![
                escape(&p.patient),
                p.pictures.to_string(),
                p.right_pictures.to_string(),
                names(&p.truth),
                names(&p.found),
                if p.right { "yes" } else { "no" }.into(),
            ]
        })
        .collect();
    let wrong = s.by_patient.iter().filter(|p| !p.right).count();
    let _ = write!(
        text,
        "<h2>Patients</h2>\n<p>{wrong} of {} patients are misread (probabilities averaged over the pictures of one \
         label).</p>\n<details><summary>All patients, the misread first</summary>{}</details>\n",
        s.by_patient.len(),
        table(&["Patient", "Pictures", "Right", "Label", "Found", "Patient right"], &rows)
    );
}
