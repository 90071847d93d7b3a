//! `fovea-train report`: an evaluation that a clinician can read, and the comparison of two models; `fovea-train predict`.

pub mod compare;
pub mod html;
pub mod measures;
pub mod model;
mod page;
#[cfg(test)]
mod tests;

use crate::data::find;
use crate::export::measure;
use crate::fetch;
use crate::split::{self, Row, Split};
use anyhow::{Context, Result, bail};
use compare::Comparison;
use measures::{Outcome, Summary};
use model::{Model, Reading, Unread};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Which pictures are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Those that the weights were fitted to.
    Train,
    /// Those that settings were chosen on.
    Validation,
    /// Those that decided nothing.
    Test,
    /// All.
    All,
}

/// Evaluates a model and writes a page that a clinician can read, with a JSON of the same figures.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fovea-train report --model models/oct-inception-v3 --data OCT --split split.csv --out report.html\n  \
    fovea-train report --model new/ --compare old/ --data OCT --split split.csv --out report.html\n\n\
    The page holds patient pictures (those that were read wrongly): it must not leave the clinic."
)]
pub struct ReportArgs {
    /// Model package (a folder), or a checkpoint of `fovea-train train` (a file; slower, in f32)
    #[arg(long)]
    pub model: PathBuf,
    /// Another model, which stands now: may --model replace it?
    #[arg(long, value_name = "OTHER")]
    pub compare: Option<PathBuf>,
    /// Folder of the pictures
    #[arg(long)]
    pub data: PathBuf,
    /// Index made by `prepare`; without it all pictures of the folder are taken
    #[arg(long)]
    pub split: Option<PathBuf>,
    /// Which part of the index
    #[arg(long, value_enum, default_value_t = Part::Test)]
    pub part: Part,
    /// The page; the JSON lies beside it
    #[arg(long, default_value = "report.html")]
    pub out: PathBuf,
    /// The engine for packages: auto, simd, tract
    #[arg(long, default_value = "auto")]
    pub engine: String,
    /// Draws of the intervals over patients
    #[arg(long, default_value_t = 2000)]
    pub draws: usize,
    /// Seed of the draws
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Points of accuracy (and of urgent sensitivity) that a new model may lose and still count as no worse
    #[arg(long, default_value_t = 2.0, value_name = "POINTS")]
    pub margin: f64,
    /// Show at most so many misread pictures; without it all
    #[arg(long, value_name = "COUNT")]
    pub gallery: Option<usize>,
}

/// Times of the pictures in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// From file to network input and from logits to finding, the middle one.
    pub around_median: f64,
    /// In the engine, the middle one.
    pub engine_median: f64,
    /// In the engine, exceeded by 5 of 100.
    pub engine_p95: f64,
}

/// All that the page and the JSON say.
#[derive(Serialize)]
pub struct Report {
    /// The model.
    pub model: String,
    /// SHA-256 of the network or checkpoint.
    pub model_sha256: String,
    /// What computed.
    pub engine: String,
    /// The part of the index.
    pub part: String,
    /// SHA-256 of the index; empty without one.
    pub split_sha256: String,
    /// Where the probabilities come from.
    pub confidence: String,
    /// Figures.
    pub summary: Summary,
    /// Times.
    pub times: Times,
    /// The comparison, where one was asked for.
    pub comparison: Option<Comparison>,
    /// The old model's name.
    pub compared_with: Option<String>,
    /// Pictures that could not be read, with the reason.
    pub unread: Vec<Unread>,
    /// Every answer.
    pub outcomes: Vec<Outcome>,
}

/// Runs `report`.
///
/// # Errors
/// When a model or the index cannot be read, no picture can, or the page cannot be written.
pub fn run(args: &ReportArgs) -> Result<()> {
    let _pressed = crate::interrupt()?;
    if args.draws < 100 || !(0.0..=100.0).contains(&args.margin) {
        bail!("--draws is at least 100, --margin 0 to 100 points");
    }
    let mut model = Model::open(&args.model, &args.engine)?;
    let rows = match &args.split {
        Some(path) => split::read(path)?,
        None => find::read(&args.data, |_| ())?.0.into_iter().map(|(row, ())| row).collect(),
    };
    let of = |part: Split| -> Vec<Row> { rows.iter().filter(|r| r.split == part).cloned().collect() };
    let chosen = match args.part {
        _ if args.split.is_none() => rows.clone(),
        Part::Train => of(Split::Train),
        Part::Validation => of(Split::Validation),
        Part::Test => of(Split::Test),
        Part::All => rows.clone(),
    };
    if chosen.is_empty() {
        bail!("no picture in this part of the index; choose another with --part");
    }
    let (mut readings, unread) = model.read(&args.data, &chosen, "reading")?;
    for (path, reason) in &unread {
        eprintln!("left out: {path}: {reason}");
    }
    if readings.is_empty() {
        bail!("none of {} pictures could be read; check --data", chosen.len());
    }
    let confidence = if model.calibrated {
        "temperature scaling of the model package".to_owned()
    } else {
        calibrate(&mut model, args, &of(Split::Validation), &mut readings)?
    };
    let outcomes: Vec<Outcome> = readings.iter().map(|r| r.outcome.clone()).collect();
    let (comparison, compared_with) = match &args.compare {
        None => (None, None),
        Some(path) => {
            let (comparison, identity) = compare(path, args, &chosen, &readings)?;
            (Some(comparison), Some(identity))
        }
    };
    let report = Report {
        model: model.identity.clone(),
        model_sha256: model.sha256.clone(),
        engine: model.engine().into(),
        part: if args.split.is_none() {
            "all pictures".into()
        } else {
            format!("{:?}", args.part).to_lowercase()
        },
        split_sha256: args.split.as_deref().map(crate::cache::file_sha256).transpose()?.unwrap_or_default(),
        confidence,
        summary: Summary::of(&outcomes, args.draws, args.seed),
        times: times(&readings),
        comparison,
        compared_with,
        unread,
        outcomes,
    };
    let wrong: Vec<&Reading> = readings.iter().filter(|r| !r.outcome.right()).collect();
    let gallery = page::gallery(&args.data, &chosen, &wrong, args.gallery)?;
    let json = args.out.with_extension("json");
    save(&json, &serde_json::to_string_pretty(&report)?)?;
    save(&args.out, &page::page(&report, &gallery))?;
    println!("{}", page::summary(&report));
    println!("written: {} and {}", args.out.display(), json.display());
    Ok(())
}

fn save(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent().filter(|f| *f != Path::new("")) {
        std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| {
        format!("{}: cannot be written; check the folder and the free space", path.display())
    })
}

/// A checkpoint has no temperature: fits one on the validation patients, where the index has any.
fn calibrate(
    model: &mut Model,
    args: &ReportArgs,
    validation: &[Row],
    readings: &mut [Reading],
) -> Result<String> {
    if args.split.is_none() || validation.is_empty() {
        return Ok("as the checkpoint gives it, not calibrated (no validation pictures)".into());
    }
    let (seen, _) = model.read(&args.data, validation, "calibrating")?;
    let truth: Vec<usize> = seen.iter().map(|r| r.outcome.truth.index()).collect();
    let logits: Vec<[f32; 4]> = seen.iter().map(|r| r.outcome.logits).collect();
    let temperature = measure::fit_temperature(&truth, &logits);
    for reading in readings {
        reading.outcome.probabilities = measure::probabilities(&reading.outcome.logits, temperature);
    }
    Ok(format!("temperature {temperature:.3}, fitted on {} validation pictures", seen.len()))
}

/// Runs the old model on the pictures that the new one read.
fn compare(
    path: &Path,
    args: &ReportArgs,
    rows: &[Row],
    readings: &[Reading],
) -> Result<(Comparison, String)> {
    let mut old = Model::open(path, &args.engine)?;
    let (seen, _) = old.read(&args.data, rows, "old model")?;
    let by_path: std::collections::HashMap<&str, &Outcome> =
        seen.iter().map(|r| (r.outcome.path.as_str(), &r.outcome)).collect();
    let pairs: Vec<(Outcome, Outcome)> = readings
        .iter()
        .filter_map(|r| Some((r.outcome.clone(), (*by_path.get(r.outcome.path.as_str())?).clone())))
        .collect();
    let (new, before): (Vec<Outcome>, Vec<Outcome>) = pairs.into_iter().unzip();
    Ok((Comparison::of(&new, &before, args.margin / 100.0, args.draws, args.seed), old.identity))
}

fn times(readings: &[Reading]) -> Times {
    let quantile = |which: usize, share: f64| {
        let mut all: Vec<f64> = readings.iter().map(|r| r.millis[which]).collect();
        all.sort_by(f64::total_cmp);
        all.get(((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0.0)
    };
    Times { around_median: quantile(0, 0.5), engine_median: quantile(1, 0.5), engine_p95: quantile(1, 0.95) }
}

/// Reads pictures with a model: a line each.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  fovea-train predict --model models/oct-inception-v3 scan.png\n  \
    fovea-train predict --model run/model.09-0.97.safetensors --json export/*.jpeg")]
pub struct PredictArgs {
    /// Model package (a folder) or checkpoint (a file)
    #[arg(long)]
    pub model: PathBuf,
    /// Pictures, folders of pictures, and web addresses (fetched by curl)
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// The engine for packages: auto, simd, tract
    #[arg(long, default_value = "auto")]
    pub engine: String,
}

/// Runs `predict`.
///
/// # Errors
/// When the model cannot be opened, or no picture could be read.
pub fn predict(args: &PredictArgs) -> Result<()> {
    let _pressed = crate::interrupt()?;
    let mut files = Vec::new();
    for path in &args.paths {
        if path.is_dir() { files.extend(find::pictures_below(path)?) } else { files.push(path.clone()) }
    }
    let mut model = Model::open(&args.model, &args.engine)?;
    let mut read = 0;
    for path in &files {
        crate::export::runner::check_stop()?;
        let result = match path.to_str().filter(|text| fetch::is_address(text)) {
            None => fovea::Frame::read(path).map_err(anyhow::Error::from),
            Some(address) => fetch::fetch(address).and_then(|bytes| Ok(fovea::Frame::decode(&bytes, path)?)),
        };
        let answer = match result.and_then(|frame| Ok(model.reader().read(&frame)?)) {
            Ok(answer) => answer,
            Err(error) => {
                if args.json {
                    println!(
                        "{}",
                        serde_json::json!({"path": path.display().to_string(), "error": format!("{error:#}")})
                    );
                } else {
                    eprintln!("{error:#}");
                }
                continue;
            }
        };
        read += 1;
        let d = &answer.diagnosis;
        if args.json {
            let probabilities: serde_json::Map<String, serde_json::Value> = fovea::Class::ALL
                .iter()
                .map(|c| (c.name().into(), d.probabilities[c.index()].into()))
                .collect();
            let line = serde_json::json!({
                "path": path.display().to_string(), "finding": d.finding.name(), "class": d.class,
                "confidence": d.confidence(), "probabilities": probabilities,
                "referral": d.finding.referral().name(), "quality": d.quality.grade.word(),
                "reason": d.reason, "engine": answer.engine, "millis": answer.millis,
            });
            println!("{line}");
        } else {
            println!(
                "{}: {} ({} at {:.1} %), {}, {:.0} ms by {}",
                path.display(),
                d.finding.name(),
                d.class,
                d.confidence() * 100.0,
                d.finding.referral().name(),
                answer.millis,
                answer.engine
            );
        }
    }
    if read == 0 {
        bail!("none of {} pictures could be read", files.len());
    }
    Ok(())
}
