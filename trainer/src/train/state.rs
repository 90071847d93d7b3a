//! The state on disk, from which `--resume` goes on.

use super::{Trainer, moments};
use crate::checkpoint::Weights;
use crate::curves::Epoch;
use crate::export::graph::Scales;
use crate::section::Norm;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What `--resume` needs besides the tensors.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) arguments: String,
    pub(super) history: Vec<Epoch>,
    pub(super) best: Option<(f64, f64, PathBuf)>,
    pub(super) rate: f64,
    pub(super) stale: usize,
    pub(super) step: usize,
    pub(super) partial: Option<Partial>,
}

/// An epoch that was stopped.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Partial {
    pub(super) batches: usize,
    /// Sum of the losses, weighted, and of their weights.
    pub(super) loss: f64,
    pub(super) weight: f64,
    pub(super) right: usize,
    pub(super) shown: usize,
    pub(super) seconds: f64,
    /// Scales of a quantisation-aware run, which an epoch finds at its start.
    pub(super) scales: Option<Scales>,
}

impl Progress {
    /// How far the run is, in words.
    pub(super) fn place(&self) -> String {
        let epoch = self.history.len();
        match &self.partial {
            None => format!("epoch {epoch}"),
            Some(partial) => format!("epoch {epoch} and {} batches", partial.batches),
        }
    }
}

/// The file of the tensors, with the optimizer's moments.
fn name(progress: &Progress) -> String {
    let epoch = progress.history.len();
    match &progress.partial {
        None => format!("state-{epoch:03}.safetensors"),
        Some(partial) => format!("state-{epoch:03}-{:05}.safetensors", partial.batches),
    }
}

/// Removes states that no longer count.
fn clean(out: &Path, kept: &str) -> std::io::Result<()> {
    for entry in std::fs::read_dir(out)? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if file.starts_with("state-") && file.ends_with(".safetensors") && file != kept {
            std::fs::remove_file(out.join(file))?;
        }
    }
    Ok(())
}

impl Trainer<'_> {
    pub(super) fn save(&self) -> anyhow::Result<()> {
        let mut tensors = Weights::default();
        let mut put = |prefix: &str, lists: &[&[f32]]| {
            for (i, list) in lists.iter().enumerate() {
                tensors.set(format!("{prefix}{i}"), &[list.len()], list.to_vec());
            }
        };
        let now = self.section.snapshot(&self.params);
        put("params", &now.iter().map(Vec::as_slice).collect::<Vec<_>>());
        put("norm", &self.norm.lists());
        if let Some(average) = &self.average {
            put("average", &average.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
        let (out, name) = (&self.args.out, name(&self.progress));
        moments::put(&self.optimizer, &mut tensors)?;
        tensors.write(&out.join(&name))?;
        let part = out.join("state.part");
        std::fs::write(&part, toml::to_string(&self.progress)?)?;
        // From here on the new state counts: a run that is killed at any moment leaves a whole one.
        std::fs::rename(part, out.join("state.toml"))?;
        // What cannot be removed only takes room.
        let _ = clean(out, &name);
        Ok(())
    }

    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        let out = &self.args.out;
        let note = out.join("state.toml");
        let text = std::fs::read_to_string(&note)
            .with_context(|| format!("{}: nothing to resume; start without --resume", note.display()))?;
        let progress: Progress = toml::from_str(&text).with_context(|| note.display().to_string())?;
        let tensors = Weights::read(&out.join(name(&progress)))?;
        let lists = |prefix: &str| -> Vec<Vec<f32>> {
            (0..)
                .map_while(|i| tensors.tensors.get(&format!("{prefix}{i}")).map(|w| w.values.clone()))
                .collect()
        };
        let params = lists("params");
        let now = self.section.snapshot(&self.params);
        if params.iter().map(Vec::len).ne(now.iter().map(Vec::len)) {
            bail!("{}: a run with another cut or head; name its --cache and --head", out.display());
        }
        self.params = self.section.restore(&self.params, &params);
        if let [mean, variance] = &lists("norm")[..] {
            self.norm = Norm::of(mean.clone(), variance.clone());
        }
        self.average = Some(lists("average")).filter(|a| !a.is_empty());
        self.optimizer = moments::take(&self.optimizer, &tensors)
            .with_context(|| format!("{}: the optimizer's state cannot be read", out.display()))?;
        self.scales = progress.partial.as_ref().and_then(|partial| partial.scales.clone());
        self.progress = progress;
        self.dashboard.say(format!("resuming after {}", self.progress.place()));
        Ok(())
    }
}
