//! A model to be evaluated: a package, or a checkpoint as a package in memory.

use super::measures::Outcome;
use crate::export::{fold, graph, package, runner};
use crate::split::Row;
use anyhow::{Context, Result};
use fovea::engine::{Engine, tract::Tract};
use fovea::explain::Map;
use fovea::model::{
    Calibration, FORMAT, Gate, GateLimits, Golden, Head, HeadKind, Manifest, Package, golden_input, sha256,
};
use fovea::prepare::Region;
use fovea::{Class, Frame, Reader};
use prost::Message;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A model that answers pictures.
pub struct Model {
    readers: Vec<Reader>,
    /// Name and version, or the checkpoint's file.
    pub identity: String,
    /// SHA-256 of the network or the checkpoint.
    pub sha256: String,
    /// Probabilities and threshold come with it; a checkpoint has none.
    pub calibrated: bool,
}

/// A picture that was read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What the model says.
    pub outcome: Outcome,
    /// Why, in words; may be empty.
    pub reason: String,
    /// Milliseconds from file to input, and in the engine.
    pub millis: [f64; 2],
    /// Contributions to the logits of the found class and of the label.
    pub maps: [Map; 2],
    /// Where in the picture they lie.
    pub place: Region,
}

/// A picture that could not be read, and why.
pub type Unread = (String, String);

impl Model {
    /// Opens a package's folder, or a checkpoint of `fovea-train train`, which tract runs in f32.
    ///
    /// # Errors
    /// When it is neither, or no engine runs it.
    pub fn open(path: &Path, engine: &str) -> Result<Self> {
        if path.is_dir() {
            Self::of(Package::open(path)?, engine, true)
        } else {
            Self::of(checkpoint(path)?, "tract", false)
        }
    }

    /// A package in memory; `calibrated` when its temperature and threshold are meant.
    ///
    /// # Errors
    /// When the engine does not run it.
    pub(crate) fn of(package: Package, engine: &str, calibrated: bool) -> Result<Self> {
        let (identity, sha256) = if calibrated {
            (package.identity(), sha256(&package.onnx))
        } else {
            (package.manifest.name.clone(), package.manifest.version.clone())
        };
        let mut readers = vec![Reader::new(Arc::new(package), engine, None)?];
        // The integer engine uses all cores for one picture; tract uses one.
        if readers[0].engine().name() == "tract" {
            while readers.len() < rayon::current_num_threads() {
                let Some(another) = readers[0].share() else { break };
                readers.push(another);
            }
        }
        Ok(Self { readers, identity, sha256, calibrated })
    }

    /// The engine's name.
    pub fn engine(&mut self) -> &'static str {
        self.readers[0].engine().name()
    }

    /// The first reader.
    pub fn reader(&mut self) -> &mut Reader {
        &mut self.readers[0]
    }

    /// Reads pictures; those that cannot be read, or are not those of the index, are listed and not fatal.
    ///
    /// # Errors
    /// When the engine fails, or Ctrl-C was pressed.
    pub fn read(&mut self, data: &Path, rows: &[Row], what: &str) -> Result<(Vec<Reading>, Vec<Unread>)> {
        let (bar, next) = (crate::bar(rows.len(), what), AtomicUsize::new(0));
        let done: Mutex<Vec<(usize, Result<Reading, String>)>> = Mutex::new(Vec::new());
        let work = |reader: &mut Reader| -> Result<()> {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(row) = rows.get(i) else { return Ok(()) };
                runner::check_stop()?;
                let start = Instant::now();
                let result = match frame(data, row) {
                    Err(error) => Err(format!("{error:#}")),
                    Ok(frame) => Ok(read(reader, &frame, row, start)?),
                };
                done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((i, result));
                bar.inc(1);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.readers.iter_mut().map(|reader| scope.spawn(|| work(reader))).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        bar.finish_and_clear();
        let mut done = done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        done.sort_by_key(|(i, _)| *i);
        let (mut readings, mut unread) = (Vec::new(), Vec::new());
        for (i, result) in done {
            match result {
                Ok(reading) => readings.push(reading),
                Err(reason) => unread.push((rows[i].path.clone(), reason)),
            }
        }
        Ok((readings, unread))
    }
}

/// The picture of a row, which must be the one of the index where that gives a checksum.
pub fn frame(data: &Path, row: &Row) -> Result<Frame> {
    let path = data.join(&row.path);
    let bytes = std::fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    anyhow::ensure!(
        row.sha256.is_empty() || sha256(&bytes) == row.sha256,
        "{}: not the picture of the index (other SHA-256)",
        path.display()
    );
    Ok(Frame::decode(&bytes, &path)?)
}

fn read(reader: &mut Reader, frame: &Frame, row: &Row, start: Instant) -> Result<Reading> {
    let answer = reader.read(frame)?;
    let engine = f64::from(answer.millis);
    let diagnosis = &answer.diagnosis;
    let map = |class: Class| Map::of_features(&reader.contribution(&answer, class).map);
    let maps = [map(diagnosis.class), map(row.class)];
    let outcome = Outcome {
        path: row.path.clone(),
        patient: row.patient.clone(),
        truth: row.class,
        class: diagnosis.class,
        logits: answer.output.logits,
        probabilities: diagnosis.probabilities.map(f64::from),
        finding: diagnosis.finding.name().into(),
        quality: diagnosis.quality.grade.word().into(),
        width: row.width,
        origin: row.origin.clone(),
    };
    let whole = start.elapsed().as_secs_f64() * 1000.0;
    Ok(Reading {
        outcome,
        reason: diagnosis.reason.clone(),
        millis: [whole - engine, engine],
        maps,
        place: answer.place,
    })
}

/// A checkpoint's f32 network as a package in memory: no threshold, no gate, temperature 1.
fn checkpoint(path: &Path) -> Result<Package> {
    of_checkpoint(&fold::Checkpoint::read(path)?, path)
}

/// As [`Model::open`] of a checkpoint that is in memory; `path` is its name.
pub(crate) fn of_checkpoint(checkpoint: &fold::Checkpoint, path: &Path) -> Result<Package> {
    let kind = if checkpoint.head.kind() == "gap" { HeadKind::Gap } else { HeadKind::Conv };
    let channels = fovea::engine::FEATURE_CHANNELS;
    let gate = package::Gate { mean: vec![0.0; channels], scale: vec![1.0; channels] };
    let manifest = Manifest {
        format: FORMAT,
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        version: checkpoint.sha256.clone(),
        labels: Class::ALL.into(),
        head: kind,
        preparation: Default::default(),
        calibration: Calibration { temperature: 1.0, threshold: 0.0 },
        gate: GateLimits::default(),
        files: Default::default(),
        golden: Golden { logits: [0.0; 4] },
        training: Default::default(),
        scales: Default::default(),
    };
    let package = Package {
        folder: path.into(),
        manifest,
        onnx: graph::float(checkpoint, false).encode_to_vec().into(),
        head: Head::decode(&package::head_file(&checkpoint.head)?, kind, path)?,
        gate: Gate::decode(&gate.file()?, path)?,
    };
    proved(package)
}

/// The package with tract's own answer as the golden one: there is no older answer to prove an engine by.
pub(crate) fn proved(mut package: Package) -> Result<Package> {
    package.manifest.golden.logits = Tract::new(&package)?.run(&golden_input())?.logits;
    Ok(package)
}
