//! `evaluate`: answers of a checkpoint.

use super::answers;
use crate::cache;
use crate::checkpoint::Weights;
use crate::device::DeviceKind;
use crate::score::{Confusion, best};
use crate::section::{Cut, HeadKind, Section};
use crate::split::{self, Split};
use anyhow::{Context, bail};
use fovea::prepare::{NetworkInput, SIDE};
use rayon::prelude::*;
use std::path::PathBuf;

/// Answers of a checkpoint on all pictures of an index, in full precision.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  fovea-train evaluate --checkpoint run/model.09-0.97.safetensors --data OCT --split split.csv --out predictions.csv"
)]
pub struct EvaluateArgs {
    /// Checkpoint made by `train`
    #[arg(long)]
    pub checkpoint: PathBuf,
    /// Folder of the pictures
    #[arg(long)]
    pub data: PathBuf,
    /// Index made by `prepare`
    #[arg(long, default_value = "split.csv")]
    pub split: PathBuf,
    /// Where a line for each picture goes
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Where it is computed
    #[arg(long, value_enum, default_value_t = DeviceKind::Cpu)]
    pub device: DeviceKind,
}

/// Runs `evaluate`.
///
/// # Errors
/// When the checkpoint or a picture cannot be read.
pub fn evaluate(args: &EvaluateArgs) -> anyhow::Result<()> {
    let weights = Weights::read(&args.checkpoint)?;
    let head = match weights.notes.get("head").map(String::as_str) {
        Some("gap") => HeadKind::Gap,
        Some("conv") => HeadKind::Conv,
        _ => bail!(
            "{}: no head in it; give a checkpoint made by `fovea-train train`",
            args.checkpoint.display()
        ),
    };
    let rows = split::read(&args.split)?;
    let (device, layout) = args.device.open()?;
    let device = device.inner();
    let blocks = "Input".parse::<Cut>()?.trained();
    let (section, params, mut norm) = Section::load(&blocks, &weights, head, 0, layout, &device)?;
    let mut confusions = [Confusion::default(); 3];
    let mut lines = "path,split,class,answer,cnv,dme,drusen,normal\n".to_string();
    let bar = crate::bar(rows.len(), "evaluating");
    let stop = crate::interrupt()?;
    for chunk in rows.chunks(8) {
        if stop() {
            bail!("stopped");
        }
        let inputs: Vec<NetworkInput> =
            chunk.par_iter().map(|row| cache::input(&args.data, row)).collect::<anyhow::Result<_>>()?;
        let x = section.batch(cache::colour(&inputs), [chunk.len(), SIDE, SIDE, 3]);
        let features = section.forward(&params, x);
        for (row, logits) in chunk.iter().zip(answers(section.logits(&params, &mut norm, features, None))) {
            confusions[row.split as usize].add(row.class, best(logits));
            let [a, b, c, d] = logits;
            lines += &format!(
                "{},{},{},{},{a},{b},{c},{d}\n",
                row.path,
                row.split.name(),
                row.class,
                best(logits)
            );
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    for (part, c) in Split::ALL.iter().zip(&confusions).filter(|(_, c)| c.total() > 0) {
        println!(
            "{}: {} of {} right, {:.2} %\n{}",
            part.name(),
            c.right(),
            c.total(),
            100.0 * c.accuracy(),
            c.table()
        );
    }
    if let Some(path) = &args.out {
        std::fs::write(path, lines).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    Ok(())
}
