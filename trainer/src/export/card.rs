//! The words of a package: manifest, model card, notices, and the summary on the terminal.

use super::graph::Scales;
use super::measure::{self, Confusion, Share};
use super::{ExportArgs, Report, package};
use anyhow::Result;
use fovea::Class;
use fovea::prepare::Preparation;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Whose work is in the model.
pub const NOTICE: &str = include_str!("NOTICE.txt");

/// Arguments as typed, absolute folders shortened: a card is read on other machines.
fn words(command: &str) -> String {
    let short = |word: &str| match word.rsplit_once('/') {
        Some((_, name)) if word.starts_with('/') => format!("…/{name}"),
        _ => word.to_owned(),
    };
    command.split_whitespace().map(short).collect::<Vec<_>>().join(" ")
}

/// The commands that made the model: those that the checkpoint tells of, then this one.
pub fn commands(metadata: &BTreeMap<String, String>) -> Vec<String> {
    let told =
        metadata.iter().filter(|(key, _)| key.starts_with("command")).flat_map(|(_, text)| text.lines());
    let mut all: Vec<String> = told.map(words).filter(|line| !line.is_empty()).collect();
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
    let _ =
        writeln!(text, "gate: limit {:.2}, validation passes {}", report.gate.limit, report.gate.validation);
    let _ = writeln!(text, "gate: test passes {}", report.gate.test);
    if let Some(refused) = &report.gate.refused {
        let _ = writeln!(text, "gate: pictures that are no B-scans refused {refused}");
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
    text.push_str(include_str!("card_end.md"));
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
         squared distance in standard deviations) is NOT_OCT. Passing: validation {}, test {}.",
        report.gate.limit, report.gate.validation, report.gate.test
    );
    match &report.gate.refused {
        Some(refused) => {
            let _ = writeln!(text, "Pictures that are no B-scans, refused by this alone: {refused}.\n");
        }
        None => text.push('\n'),
    }
}

fn quantisation(text: &mut String, report: &Report) {
    let _ = writeln!(
        text,
        "## Quantisation\n\nWeights s8 in [-63, 63] per output channel, activations u8 with zero point 0, biases s32; \
         scales from {} training pictures (as even over classes and patients as they allow). Compared on validation; the \
         most accurate is kept, of equals the one whose logits are nearest to f32:\n",
        report.calibration
    );
    text.push_str("| scales | biases corrected | validation | class as f32 | mean logit error | largest | kept |\n|---|---|---:|---:|---:|---:|---|\n");
    for (i, c) in report.candidates.iter().enumerate() {
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} % | {:.2} % | {:.3} | {:.2} | {} |",
            c.method,
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
    let float = |v: f64| toml::Value::Float(v);
    // The shortest decimal that is the same f32.
    let single = |v: f32| toml::Value::Float(v.to_string().parse().unwrap_or_else(|_| f64::from(v)));
    let accuracy = |counts: &Confusion| float((measure::accuracy(counts).value() * 1e4).round() / 1e4);
    let mut training = toml::Table::new();
    for (key, value) in report.metadata.iter().filter(|(key, _)| !key.starts_with("command")) {
        training.insert(key.clone(), words(value).into());
    }
    let best = &report.candidates[report.chosen];
    training.extend([
        ("checkpoint_sha256".to_owned(), report.checkpoint.1.clone().into()),
        ("calibration_pictures".to_owned(), (report.calibration as i64).into()),
        ("calibration_method".to_owned(), best.method.to_string().into()),
        ("bias_correction".to_owned(), best.bias_correction.into()),
        ("validation_pictures".to_owned(), (report.validation.truth.len() as i64).into()),
        ("validation_accuracy_f32".to_owned(), accuracy(&report.validation.float_confusion())),
        ("validation_accuracy_int8".to_owned(), accuracy(&report.validation.int8_confusion())),
        ("test_pictures".to_owned(), (report.test.truth.len() as i64).into()),
        ("test_accuracy_f32".to_owned(), accuracy(&report.test.float_confusion())),
        ("test_accuracy_int8".to_owned(), accuracy(&report.test.int8_confusion())),
    ]);
    let mut calibration = toml::Table::new();
    calibration.insert("temperature".into(), single(report.temperature as f32));
    calibration.insert("threshold".into(), single(report.threshold as f32));
    let mut text = format!(
        "format = 1\nname = {}\nversion = {}\nlabels = [\"CNV\", \"DME\", \"DRUSEN\", \"NORMAL\"]\nhead = \"{}\"\n",
        toml::Value::from(args.name.as_str()),
        toml::Value::from(args.model_version.as_str()),
        report.head
    );
    let sums =
        files.iter().map(|(name, bytes)| ((*name).to_owned(), package::sha256(bytes).into())).collect();
    let tables = [
        ("preparation", toml::Table::try_from(preparation)?),
        ("calibration", calibration),
        ("gate", toml::Table::from_iter([("limit".to_owned(), single(report.gate.limit))])),
        ("files", sums),
        ("golden", toml::Table::from_iter([("logits".to_owned(), golden.map(single).to_vec().into())])),
        ("training", training),
        ("scales", scales.iter().map(|(name, scale)| (name.clone(), single(*scale))).collect()),
    ];
    for (name, table) in tables {
        let _ = write!(text, "\n[{name}]\n{}", toml::to_string(&table)?);
    }
    Ok(text)
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
        let all = commands(&metadata);
        assert_eq!(all[0], "fovea-train train --data …/oct --epochs 3");
        assert_eq!(all.len(), 2);
    }
}
