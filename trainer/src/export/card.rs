//! The words of a package: manifest, model card, notices, and the summary on the terminal.

use super::graph::Scales;
use super::measure::{self, Confusion, Share};
use super::{ExportArgs, Report};
use anyhow::Result;
use fovea::Class;
use fovea::model::{Calibration, FORMAT, GateLimits, Golden, HeadKind, Manifest, sha256};
use fovea::prepare::Preparation;
use std::collections::BTreeMap;
use std::fmt::Write;

/// SHA-256 of the backbone whose origin [`notice`] knows.
const NSFWJS_BACKBONE: &str = "5d99de9a134dbe80e7b08501384aabc331f8efb797eb33d6424ab6e648fe5777";

/// Whether the checkpoint grew from that backbone; one that does not say counts as another.
fn known_backbone(metadata: &BTreeMap<String, String>) -> bool {
    metadata.get("weights_sha256").is_some_and(|sha| sha == NSFWJS_BACKBONE)
}

/// `NOTICE`: whose work is in the model.
pub fn notice(metadata: &BTreeMap<String, String>) -> String {
    let backbone = if known_backbone(metadata) {
        include_str!("notice_backbone.txt").to_owned()
    } else {
        let sha = metadata.get("weights_sha256").map_or("unknown", String::as_str);
        format!(
            "1. Backbone: a file of SHA-256 {sha}. The exporter does not know it: put its origin and licence here before \
             you pass the model on.\n"
        )
    };
    let head = "This model contains or derives from the work of others.";
    format!("{head}\n\n{backbone}\n{}", include_str!("notice_pictures.txt"))
}

/// Arguments as typed, absolute folders shortened: a card is read on other machines.
fn words(command: &str) -> String {
    let short = |word: &str| match word.rsplit_once('/') {
        Some((_, name)) if word.starts_with('/') => format!("…/{name}"),
        _ => word.to_owned(),
    };
    command.split_whitespace().map(short).collect::<Vec<_>>().join(" ")
}

/// The commands that made the model: those of the text `before`, those that the checkpoint tells of, this one.
pub fn commands(before: &str, metadata: &BTreeMap<String, String>) -> Vec<String> {
    let told =
        metadata.iter().filter(|(key, _)| key.starts_with("command")).flat_map(|(_, text)| text.lines());
    let mut all: Vec<String> =
        before.lines().chain(told).map(words).filter(|line| !line.is_empty()).collect();
    let own: Vec<String> = std::env::args().skip(1).collect();
    all.push(words(&format!("fovea-train {}", own.join(" "))));
    all
}

fn table(text: &mut String, counts: &Confusion) {
    let _ = writeln!(text, "| true \\ found | CNV | DME | DRUSEN | NORMAL | sensitivity | specificity |");
    let _ = writeln!(text, "|---|---:|---:|---:|---:|---|---|");
    for class in Class::ALL {
        let c = class.index();
        let [a, b, d, e] = counts[c];
        let (sensitivity, specificity) = (measure::sensitivity(counts, c), measure::specificity(counts, c));
        let _ = writeln!(
            text,
            "| {class} | {a} | {b} | {d} | {e} | {} | {} |",
            brief(&sensitivity),
            brief(&specificity)
        );
    }
    text.push('\n');
}

fn brief(share: &Share) -> String {
    format!("{:.1} % ({:.1} to {:.1})", share.value() * 100.0, share.low * 100.0, share.high * 100.0)
}

/// What is printed when all is done.
pub fn summary(report: &Report) -> String {
    let mut text = String::new();
    for (name, part) in [("validation", &report.validation), ("test", &report.test)] {
        let _ = writeln!(text, "{name}: f32 {}", part.float_accuracy());
        let _ = writeln!(text, "{name}: int8 {}", measure::accuracy(&part.int8_confusion()));
    }
    let _ = writeln!(text, "temperature {:.3}, threshold {:.2}", report.temperature, report.threshold);
    let [validation, test] = &report.gate.passing;
    let _ = writeln!(text, "gate: limit {:.2}, validation passes {validation}", report.gate.limit);
    let _ = writeln!(text, "gate: test passes {test}");
    if let Some([far, refused]) = &report.gate.refused {
        let _ = writeln!(text, "gate: pictures that are no B-scans refused {refused}");
        let _ = writeln!(text, "gate: of these by feature distance alone {far}");
    }
    if let Some(right) = &report.phantoms {
        let _ = writeln!(text, "phantoms: {right}");
    }
    text
}

/// `MODEL_CARD.md`.
pub fn card(args: &ExportArgs, report: &Report) -> String {
    let mut text = format!(
        "# {} {}\n\nInceptionV3 with the `{}` head, int8, for retinal OCT B-scans: CNV, DME, DRUSEN or NORMAL. Decision \
         support, not a diagnosis; not a certified medical device.\n\n",
        args.name, args.model_version, report.head
    );
    if let Some(limit) = report.limit {
        let _ = writeln!(text, "**A trial: measured on at most {limit} pictures of each part.**\n");
    }
    evaluation(&mut text, report);
    calibration(&mut text, report);
    quantisation(&mut text, report);
    let _ = write!(text, "## How it was made\n\n```sh\n{}\n```\n\n", report.commands.join("\n"));
    let _ = writeln!(text, "Checkpoint `{}`, SHA-256 `{}`.", report.checkpoint.0, report.checkpoint.1);
    for (key, value) in report.metadata.iter().filter(|(key, _)| !key.starts_with("command")) {
        let _ = writeln!(text, "- {key}: {}", words(value));
    }
    if report.commands.iter().any(|command| command.contains("--also")) {
        text.push_str("\nPictures given by `--also` took part in the training besides those of the split.\n");
    }
    if !report.notes.trim().is_empty() {
        let _ = write!(text, "\n## What was tried\n\n{}\n", report.notes.trim());
    }
    origin(&mut text, report);
    text.push_str(include_str!("card_limits.md"));
    text
}

fn evaluation(text: &mut String, report: &Report) {
    text.push_str(
        "## Evaluation\n\nPatients are disjoint between the parts. Training pictures made the weights and the scales; \
         validation chose checkpoint, quantisation, temperature and thresholds; the test part decided nothing. Intervals \
         are 95 %: Wilson's over pictures, and a bootstrap over patients, whose pictures are no independent witnesses. \
         Computed by tract.\n\n| part | network | accuracy | 95 % over patients |\n|---|---|---|---|\n",
    );
    for (name, part) in [("validation", &report.validation), ("test", &report.test)] {
        for (network, answers, counts) in [
            ("f32", &part.float, part.float_confusion()),
            ("int8 (shipped)", &part.int8, part.int8_confusion()),
        ] {
            let (low, high) = part.patient_interval(answers);
            let accuracy = measure::accuracy(&counts);
            let (low, high) = (low * 100.0, high * 100.0);
            let _ = writeln!(text, "| {name} | {network} | {accuracy} | {low:.1} to {high:.1} |");
        }
    }
    let _ = writeln!(text, "| training | int8 (shipped) | {} | |\n", report.train_accuracy);
    for (name, part) in [("Validation", &report.validation), ("Test", &report.test)] {
        let (pictures, patients) = (part.truth.len(), part.patients());
        let _ = writeln!(text, "{name} ({pictures} pictures of {patients} patients), int8:\n");
        table(text, &part.int8_confusion());
        let _ = writeln!(text, "{name}, f32:\n");
        table(text, &part.float_confusion());
    }
    if let Some(right) = &report.phantoms {
        let _ = writeln!(text, "Phantoms (synthetic B-scans) of the right class: {right}.\n");
    }
}

fn calibration(text: &mut String, report: &Report) {
    let t = report.temperature;
    let _ =
        writeln!(text, "## Confidence\n\nTemperature {t:.3}, fitted on validation by likelihood (int8).\n");
    text.push_str("| part | NLL at 1 | NLL | ECE at 1 | ECE | answered | right of these |\n|---|---:|---:|---:|---:|---|---|\n");
    for (name, part) in [("validation", &report.validation), ("test", &report.test)] {
        let (truth, logits) = (&part.truth, part.int8_logits());
        let at = measure::coverage(truth, &logits, t, report.threshold);
        let _ = writeln!(
            text,
            "| {name} | {:.3} | {:.3} | {:.3} | {:.3} | {} | {} |",
            measure::nll(truth, &logits, 1.0),
            measure::nll(truth, &logits, t),
            measure::ece(truth, &logits, 1.0),
            measure::ece(truth, &logits, t),
            brief(&at.covered),
            brief(&at.right)
        );
    }
    let _ = writeln!(
        text,
        "\nBelow a calibrated confidence of {:.2} (chosen on validation) the finding is UNCERTAIN.\n",
        report.threshold
    );
    let _ = writeln!(
        text,
        "## Gate\n\nA picture whose averaged features lie further than {:.2} from those of the training pictures (mean \
         squared distance in standard deviations) is NOT_OCT; so is one whose image statistics are not a B-scan's (colour, \
         layers, background: fixed limits of the program).\n",
        report.gate.limit
    );
    text.push_str("| pictures | feature distance alone | whole gate |\n|---|---|---|\n");
    for (i, part) in ["validation", "test"].into_iter().enumerate() {
        let (near, passing) = (report.gate.near[i], report.gate.passing[i]);
        let _ = writeln!(text, "| {part}: passing | {near} | {passing} |");
    }
    if let Some([far, refused]) = &report.gate.refused {
        let _ = writeln!(text, "| no B-scans: refused | {far} | {refused} |");
    }
    text.push('\n');
}

fn origin(text: &mut String, report: &Report) {
    text.push_str(
        "\n## Origin and licences\n\n- Network: InceptionV3 (Szegedy et al., CVPR 2016), as in Keras applications.\n",
    );
    if known_backbone(&report.metadata) {
        text.push_str(
            "- Backbone: from the Keras model in the npm package nsfwjs 4.4.0 (MIT), trained on ImageNet, then fine-tuned \
             on another domain; what lies behind the cut was trained anew here.\n",
        );
    } else {
        let sha = report.metadata.get("weights_sha256").map_or("unknown", String::as_str);
        let _ =
            writeln!(text, "- Backbone: a file of SHA-256 `{sha}`; **state its origin and licence here**.");
    }
    let _ = writeln!(
        text,
        "- Pictures: Kermany, Goldbaum et al., \"Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep \
         Learning\", Cell 2018; Mendeley Data rscbjbr9sj, CC BY 4.0. {} B-scans of {} patients of that set, changed only \
         by the preparation that `manifest.toml` states. See `NOTICE`.",
        report.pictures, report.patients
    );
}

fn quantisation(text: &mut String, report: &Report) {
    let _ = writeln!(
        text,
        "## Quantisation\n\nWeights s8 in [-63, 63] per output channel, activations u8 with zero point 0, biases s32; \
         scales from {} training pictures (as even over classes and patients as they allow). Compared on validation; the \
         most accurate is kept, of equals the one whose logits are nearest to f32:\n",
        report.calibration
    );
    text.push_str("| scales | channels equalised | biases corrected | validation | class as f32 | mean logit error | largest | kept |\n|---|---|---|---:|---:|---:|---:|---|\n");
    for (i, c) in report.candidates.iter().enumerate() {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} % | {:.2} % | {:.3} | {:.2} | {} |",
            c.method,
            if c.equalised { "yes" } else { "no" },
            if c.bias_correction { "yes" } else { "no" },
            c.accuracy.value() * 100.0,
            c.agreement.value() * 100.0,
            c.mean_error,
            c.max_error,
            if i == report.chosen { "yes" } else { "" }
        );
    }
    let worst: Vec<String> =
        report.layers.iter().take(6).map(|(name, db)| format!("`{name}` {db:.1} dB")).collect();
    let _ = writeln!(text, "\nSignal to quantisation noise is least at {}.\n", worst.join(", "));
}

/// `manifest.toml`, with the SHA-256 of each of `files`.
///
/// # Errors
/// When something cannot be said in TOML.
pub fn manifest(
    args: &ExportArgs,
    report: &Report,
    preparation: &Preparation,
    scales: &Scales,
    golden: [f32; 4],
    files: &[(&str, Vec<u8>)],
) -> Result<String> {
    let accuracy =
        |counts: &Confusion| toml::Value::Float((measure::accuracy(counts).value() * 1e4).round() / 1e4);
    let mut training = toml::Table::new();
    for (key, value) in report.metadata.iter().filter(|(key, _)| !key.starts_with("command")) {
        training.insert(key.clone(), words(value).into());
    }
    let best = &report.candidates[report.chosen];
    training.extend([
        ("checkpoint_sha256".to_owned(), report.checkpoint.1.clone().into()),
        ("calibration_pictures".to_owned(), (report.calibration as i64).into()),
        ("calibration_method".to_owned(), best.method.to_string().into()),
        ("channels_equalised".to_owned(), best.equalised.into()),
        ("bias_correction".to_owned(), best.bias_correction.into()),
        ("validation_pictures".to_owned(), (report.validation.truth.len() as i64).into()),
        ("validation_accuracy_f32".to_owned(), accuracy(&report.validation.float_confusion())),
        ("validation_accuracy_int8".to_owned(), accuracy(&report.validation.int8_confusion())),
        ("test_pictures".to_owned(), (report.test.truth.len() as i64).into()),
        ("test_accuracy_f32".to_owned(), accuracy(&report.test.float_confusion())),
        ("test_accuracy_int8".to_owned(), accuracy(&report.test.int8_confusion())),
    ]);
    let manifest = Manifest {
        format: FORMAT,
        name: args.name.clone(),
        version: args.model_version.clone(),
        labels: Class::ALL.into(),
        head: if report.head == "gap" { HeadKind::Gap } else { HeadKind::Conv },
        preparation: preparation.clone(),
        calibration: Calibration {
            temperature: report.temperature as f32,
            threshold: report.threshold as f32,
        },
        gate: GateLimits { limit: Some(report.gate.limit) },
        files: files.iter().map(|(name, bytes)| ((*name).to_owned(), sha256(bytes))).collect(),
        golden: Golden { logits: golden },
        training,
        scales: scales.clone(),
    };
    Ok(manifest.to_toml()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_tell_no_machine_s_folders() {
        let metadata = BTreeMap::from([
            ("command_train".to_owned(), "fovea-train train --data /home/me/oct --epochs 3\n".to_owned()),
            ("head".to_owned(), "gap".to_owned()),
        ]);
        let all = commands("fovea-train prepare\n\n", &metadata);
        assert_eq!(all[0], "fovea-train prepare");
        assert_eq!(all[1], "fovea-train train --data …/oct --epochs 3");
        assert_eq!(all.len(), 3);
    }
}
