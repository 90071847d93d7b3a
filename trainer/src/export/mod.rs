//! `fovea-train export`: from a checkpoint to a model package, with the int8 network chosen and measured on the way.

pub mod answers;
pub(crate) mod calibrate;
mod card;
mod equalise;
mod evaluate;
pub(crate) mod fold;
pub(crate) mod graph;
pub(crate) mod measure;
pub(crate) mod package;
pub(crate) mod pictures;
pub(crate) mod quantise;
pub(crate) mod runner;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::split::{self, Row, Split};
use anyhow::{Context, Result, bail, ensure};
use calibrate::{Method, Statistics};
use evaluate::{Candidate, Evaluation};
use fold::Checkpoint;
use fovea::Class;
use fovea::model::golden_input;
use fovea::prepare::Preparation;
use graph::Quantisation;
use package::Gate;
use pictures::Picture;
use prost::Message;
use runner::Network;
use std::path::{Path, PathBuf};

/// Makes a model package from a checkpoint: folds batch norm and the grey input, quantises to int8, measures, writes.
#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    /// The checkpoint of `fovea-train train` (.safetensors)
    #[arg(long)]
    pub checkpoint: PathBuf,
    /// The split of `fovea-train prepare` that the checkpoint was trained with
    #[arg(long)]
    pub split: PathBuf,
    /// The folder that the split's paths are relative to
    #[arg(long)]
    pub data: PathBuf,
    /// The package's folder; replaced if there is one
    #[arg(long)]
    pub out: PathBuf,
    /// Phantoms to classify for the card (class by folder or file name)
    #[arg(long)]
    pub phantoms: Option<PathBuf>,
    /// Pictures that are no B-scans, for the card: how many the gate refuses
    #[arg(long)]
    pub not_oct: Option<PathBuf>,
    /// A text file of the commands before the training (prepare, extract …), for the card
    #[arg(long)]
    pub commands: Option<PathBuf>,
    /// A text (Markdown) on what was tried before and what it gave, for the card
    #[arg(long)]
    pub notes: Option<PathBuf>,
    /// Training pictures to calibrate activations with
    #[arg(long, default_value_t = 200)]
    pub calibration: usize,
    /// The model's name
    #[arg(long, default_value = "oct-inception-v3")]
    pub name: String,
    /// The model's version
    #[arg(long, default_value = "0.1.0")]
    pub model_version: String,
    /// Refuse to export when int8 loses more than this share of validation pictures against f32
    #[arg(long, default_value_t = 0.01)]
    pub max_loss: f64,
    /// Abstain so that this share of the answered validation pictures is right
    #[arg(long, default_value_t = 0.99)]
    pub target_accuracy: f64,
    /// But answer at least this share of them
    #[arg(long, default_value_t = 0.85)]
    pub least_coverage: f64,
    /// Folder for the signal-to-noise of every layer (layers.csv, layers.svg)
    #[arg(long)]
    pub layers: Option<PathBuf>,
    /// Pictures computed at once; all cores without it
    #[arg(long)]
    pub threads: Option<usize>,
    /// For trials: at most so many pictures of each part (the card says so)
    #[arg(long)]
    pub limit: Option<usize>,
}

/// All that the card and the manifest state.
struct Report {
    head: &'static str,
    candidates: Vec<Candidate>,
    chosen: usize,
    calibration: usize,
    layers: Vec<(String, f64)>,
    validation: Evaluation,
    test: Evaluation,
    train_accuracy: measure::Share,
    temperature: f64,
    threshold: f64,
    gate: GateReport,
    phantoms: Option<measure::Share>,
    /// Pictures and patients of the split.
    pictures: usize,
    patients: usize,
    metadata: std::collections::BTreeMap<String, String>,
    checkpoint: (String, String),
    commands: Vec<String>,
    notes: String,
    limit: Option<usize>,
}

/// What the gate does.
struct GateReport {
    limit: f32,
    /// Of validation and test, those within the limit of feature distance.
    near: [measure::Share; 2],
    /// Of validation and test, those that pass the whole gate.
    passing: [measure::Share; 2],
    /// Of pictures that are no B-scans, those refused by feature distance alone, and by the whole gate.
    refused: Option<[measure::Share; 2]>,
}

/// Share of validation pictures that the gate's limit must let through, and the room above that quantile for pictures
/// of patients that validation does not hold.
const GATE_SHARE: f64 = 0.995;
const GATE_ROOM: f32 = 1.25;

/// Runs the command.
///
/// # Errors
/// Bad input, an int8 network that loses too much, Ctrl-C; the package is then not written.
pub fn run(args: &ExportArgs) -> Result<()> {
    let _pressed = crate::interrupt()?;
    let threads = args.threads.unwrap_or_else(rayon::current_num_threads);
    let checkpoint = Checkpoint::read(&args.checkpoint)?;
    let preparation = Preparation::default();
    let rows = split::read(&args.split)?;
    same_split(&checkpoint, args)?;
    let part = |part: Split| -> Result<Vec<Picture>> {
        let mut of_part: Vec<Row> = rows.iter().filter(|row| row.split == part).cloned().collect();
        if let Some(limit) = args.limit {
            let keys: Vec<(Class, &str)> = of_part.iter().map(|r| (r.class, r.patient.as_str())).collect();
            of_part = pictures::stratified(&keys, limit).into_iter().map(|i| of_part[i].clone()).collect();
        }
        if of_part.is_empty() {
            bail!("{}: no picture for {}; make the split again", args.split.display(), part.name());
        }
        pictures::load(&of_part, &args.data, &preparation)
    };
    let (train, validation, test) = (part(Split::Train)?, part(Split::Validation)?, part(Split::Test)?);

    // What cannot be read is said before the long part.
    let phantoms = args.phantoms.as_ref().map(|f| evaluate::labelled(f, &preparation)).transpose()?;
    let others = args.not_oct.as_ref().map(|f| unlabelled(f, &preparation)).transpose()?;

    let keys: Vec<(Class, &str)> = train.iter().map(|p| (p.class, p.patient.as_str())).collect();
    let calibration: Vec<&Picture> =
        pictures::stratified(&keys, args.calibration).into_iter().map(|i| &train[i]).collect();
    let float = Network::new(&graph::float(&checkpoint, false), threads)?;
    let mut validation = Evaluation::start(validation, &float, "f32 on validation")?;
    let plain = Source::new(checkpoint, &calibration, threads)?;
    let (candidates, chosen, source, model) = choose(plain, &calibration, &validation, threads)?;
    let Source { checkpoint, exposed, statistics } = source;
    let best = &candidates[chosen];
    let loss = validation.float_accuracy().value() - best.accuracy.value();
    ensure!(
        loss <= args.max_loss,
        "int8 ({best}) loses {:.1} points of accuracy on validation where {:.1} are allowed; calibrate with more \
         pictures, train longer, or raise --max-loss",
        loss * 100.0,
        args.max_loss * 100.0
    );

    let scales = statistics.scales(best.method);
    let means = best.bias_correction.then_some(&statistics.means);
    let quantisation = Quantisation { scales: &scales, means };
    let quantised = Network::new(&graph::int8(&checkpoint, quantisation, true), threads)?;
    let layers = evaluate::layer_errors(&exposed, &quantised, &calibration[..calibration.len().min(4)])?;
    drop((exposed, quantised));
    if let Some(folder) = &args.layers {
        answers::layers(&layers, folder)?;
    }

    let onnx = model.encode_to_vec();
    let int8 = Network::load(&onnx, threads)?;
    validation.finish(&int8, "int8 on validation")?;
    let mut test = Evaluation::start(test, &float, "f32 on test")?;
    test.finish(&int8, "int8 on test")?;
    let on_train = int8.answers(train.iter().map(|p| &p.input), "int8 on training")?;
    let truth: Vec<usize> = train.iter().map(|p| p.class.index()).collect();
    let train_accuracy = measure::accuracy(&measure::confusion(&truth, &on_train));

    let logits = validation.int8_logits();
    let temperature = measure::fit_temperature(&validation.truth, &logits);
    let (target, least) = (args.target_accuracy, args.least_coverage);
    let threshold = measure::choose_threshold(&validation.truth, &logits, temperature, target, least);

    let pooled: Vec<&[f32]> = on_train.iter().map(|a| a.pooled.as_slice()).collect();
    let gate = Gate::fit(&pooled);
    let limit = GATE_ROOM * measure::quantile(&validation.distances(&gate), GATE_SHARE);
    let refused = match &others {
        None => None,
        Some(pictures) => Some(not_oct(&int8, pictures, &gate, limit)?),
    };
    let far = |part: &Evaluation| {
        let distances = part.distances(&gate);
        measure::Share::wilson(distances.iter().filter(|d| **d <= limit).count(), distances.len())
    };
    let gate_report = GateReport {
        limit,
        near: [far(&validation), far(&test)],
        passing: [validation.passing(&gate, limit), test.passing(&gate, limit)],
        refused,
    };
    let phantoms = match &phantoms {
        None => None,
        Some(labelled) => Some(evaluate::phantoms(&int8, labelled)?),
    };
    let golden = int8.answers([&golden_input()], "golden picture")?;
    let golden = golden.first().context("the golden picture has no answer")?.logits;

    let text = |path: &Option<PathBuf>| match path {
        None => Ok(String::new()),
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))
        }
    };
    let (before, notes) = (text(&args.commands)?, text(&args.notes)?);
    let file_name = args.checkpoint.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let report = Report {
        head: checkpoint.head.kind(),
        candidates,
        chosen,
        calibration: calibration.len(),
        layers,
        validation,
        test,
        train_accuracy,
        temperature,
        threshold,
        gate: gate_report,
        phantoms,
        commands: card::commands(&before, &checkpoint.metadata),
        notes,
        pictures: rows.len(),
        patients: rows.iter().map(|r| r.patient.as_str()).collect::<std::collections::BTreeSet<_>>().len(),
        metadata: checkpoint.metadata.clone(),
        checkpoint: (file_name, checkpoint.sha256.clone()),
        limit: args.limit,
    };
    let mut files: Vec<(&str, Vec<u8>)> = vec![
        ("model.onnx", onnx),
        ("head.safetensors", package::head_file(&checkpoint.head)?),
        ("gate.safetensors", gate.file()?),
        ("MODEL_CARD.md", card::card(args, &report).into_bytes()),
        ("NOTICE", card::notice(&checkpoint.metadata).into_bytes()),
    ];
    let manifest = card::manifest(args, &report, &preparation, &scales, golden, &files)?;
    files.push(("manifest.toml", manifest.into_bytes()));
    runner::check_stop()?;
    package::write(&args.out, &files, |folder| {
        fovea::model::Package::open(folder)?;
        Ok(())
    })?;
    println!("{}", card::summary(&report));
    println!("written: {}", args.out.display());
    Ok(())
}

/// Refuses another split than that of the training: its test patients may have been trained on.
fn same_split(checkpoint: &Checkpoint, args: &ExportArgs) -> Result<()> {
    let Some(trained) = checkpoint.metadata.get("split_sha256") else {
        eprintln!(
            "the checkpoint does not say with which split it was trained; taking {}",
            args.split.display()
        );
        return Ok(());
    };
    ensure!(
        crate::cache::file_sha256(&args.split)? == *trained,
        "{}: not the split that the checkpoint was trained with (SHA-256 {trained}): patients of its test part may \
         have been trained on; give the same split.csv",
        args.split.display()
    );
    Ok(())
}

/// The pictures in a folder; the class means nothing there.
fn unlabelled(folder: &Path, preparation: &Preparation) -> Result<Vec<Picture>> {
    let frames = pictures::load_folder(folder)?;
    frames.iter().map(|(_, frame)| Picture::new(frame, Class::Normal, "", preparation)).collect()
}

/// Of pictures that are no B-scans, the share refused by feature distance alone and by the whole gate.
fn not_oct(int8: &Network, pictures: &[Picture], gate: &Gate, limit: f32) -> Result<[measure::Share; 2]> {
    let answers = int8.answers(pictures.iter().map(|p| &p.input), "not OCT")?;
    let far: Vec<bool> = answers.iter().map(|a| gate.distance(&a.pooled) > limit).collect();
    let either = far.iter().zip(pictures).filter(|(far, p)| **far || p.refused).count();
    let share = |count| measure::Share::wilson(count, pictures.len());
    Ok([share(far.iter().filter(|far| **far).count()), share(either)])
}

/// A network that may be quantised, with all of its activations exposed, and what calibration shows of them.
struct Source {
    checkpoint: Checkpoint,
    exposed: Network,
    statistics: Statistics,
}

impl Source {
    fn new(checkpoint: Checkpoint, calibration: &[&Picture], threads: usize) -> Result<Self> {
        let exposed = Network::new(&graph::float(&checkpoint, true), threads)?;
        let statistics = Statistics::collect(&exposed, calibration)?;
        Ok(Self { checkpoint, exposed, statistics })
    }
}

/// Quantises in every way, evaluates each on validation, and returns the table, the place of the best in it, what the best
/// was quantised from, and its graph.
fn choose(
    plain: Source,
    calibration: &[&Picture],
    validation: &Evaluation,
    threads: usize,
) -> Result<(Vec<Candidate>, usize, Source, fovea::model::onnx::Model)> {
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut models = Vec::new();
    let mut try_one = |source: &Source,
                       method: Method,
                       [equalised, corrected]: [bool; 2],
                       candidates: &mut Vec<Candidate>|
     -> Result<()> {
        let scales = source.statistics.scales(method);
        let means = corrected.then_some(&source.statistics.means);
        let model = graph::int8(&source.checkpoint, Quantisation { scales: &scales, means }, false);
        let network = Network::new(&model, threads)?;
        let candidate = validation.candidate(method, [equalised, corrected], &network)?;
        eprintln!("{candidate}");
        candidates.push(candidate);
        models.push(model);
        Ok(())
    };
    for method in Method::ALL {
        try_one(&plain, method, [false, false], &mut candidates)?;
    }
    let method = candidates[evaluate::best(&candidates)].method;
    try_one(&plain, method, [false, true], &mut candidates)?;
    let equal = equalise::equalise(&plain.checkpoint, &plain.statistics.maxima);
    let equal = Source::new(equal, calibration, threads)?;
    for corrected in [false, true] {
        try_one(&equal, method, [true, corrected], &mut candidates)?;
    }
    let chosen = evaluate::best(&candidates);
    let source = if candidates[chosen].equalised { equal } else { plain };
    let model = models.swap_remove(chosen);
    Ok((candidates, chosen, source, model))
}
