//! The state on disk, from which `--resume` goes on.

use super::{Trainer, moments};
use crate::checkpoint::Weights;
use crate::curves::Epoch;
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
}

/// Tensors, with the optimizer's moments, after an epoch.
fn file(out: &Path, epoch: usize) -> PathBuf {
    out.join(format!("state-{epoch:03}.safetensors"))
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
        let (out, epoch) = (&self.args.out, self.progress.history.len());
        moments::put(&self.optimizer, &mut tensors)?;
        tensors.write(&file(out, epoch))?;
        let part = out.join("state.part");
        std::fs::write(&part, toml::to_string(&self.progress)?)?;
        // From here on the new epoch counts: a run that is killed at any moment leaves one whole state.
        std::fs::rename(part, out.join("state.toml"))?;
        // What cannot be removed only takes room.
        let _ = std::fs::remove_file(file(out, epoch.saturating_sub(1)));
        Ok(())
    }

    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        let out = &self.args.out;
        let note = out.join("state.toml");
        let text = std::fs::read_to_string(&note)
            .with_context(|| format!("{}: nothing to resume; start without --resume", note.display()))?;
        let progress: Progress = toml::from_str(&text).with_context(|| note.display().to_string())?;
        let tensors = Weights::read(&file(out, progress.history.len()))?;
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
        self.progress = progress;
        println!("resuming after epoch {}", self.progress.history.len());
        Ok(())
    }
}
