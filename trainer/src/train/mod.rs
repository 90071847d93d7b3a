//! `train`: what lies behind the cut, and a head, on cached features.

mod args;
mod batch;
mod epoch;
mod evaluate;
mod moments;
mod schedule;
mod setup;
mod state;
#[cfg(test)]
mod tests;

pub use args::{ClassWeights, Rule, Schedule, TrainArgs};
pub use evaluate::{EvaluateArgs, evaluate};

use crate::cache::{self, Cache, Record};
use crate::checkpoint::Weights;
use crate::curves::{self, Epoch};
use crate::dashboard::Dashboard;
use crate::export::graph::Scales;
use crate::section::{Norm, Params, Section};
use anyhow::bail;
use burn::optim::ModuleOptimizer;
use burn::tensor::{Device, Tensor};
use fovea::prepare::Preparation;
use state::Progress;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

struct Trainer<'a> {
    args: &'a TrainArgs,
    caches: Vec<Cache>,
    section: Section,
    device: Device,
    preparation: Preparation,
    params: Params,
    norm: Norm,
    /// Scales of the activations, where the forward pass rounds; found anew before each epoch.
    scales: Option<Scales>,
    average: Option<Vec<Vec<f32>>>,
    optimizer: ModuleOptimizer,
    weights: Weights,
    class_weights: [f32; 4],
    progress: Progress,
    train: Vec<Vec<(usize, Record)>>,
    validation: Vec<(usize, Record)>,
    dashboard: Dashboard,
}

/// Runs `train`.
///
/// # Errors
/// When caches, weights or results cannot be read or written.
pub fn train(args: &TrainArgs) -> anyhow::Result<()> {
    let mut trainer = Trainer::new(args)?;
    trainer.run(&crate::interrupt()?)
}

impl Trainer<'_> {
    /// Trains to the last epoch, until `stop` says so, or until patience ends.
    fn run(&mut self, stop: &impl Fn() -> bool) -> anyhow::Result<()> {
        self.dashboard.say(format!(
            "{} training pictures, {} for validation, cut after {}, class weights {:.2?}",
            self.train.len(),
            self.validation.len(),
            self.caches[0].cut,
            self.class_weights
        ));
        for epoch in self.progress.history.len() + 1..=self.args.epochs {
            let waited = curves::since_best(&self.progress.history);
            if self.args.patience > 0 && waited >= self.args.patience {
                self.dashboard.say(format!("no better checkpoint for {waited} epochs: stopped early"));
                break;
            }
            let Some(trained) = self.epoch(epoch, stop)? else { return self.stopped() };
            let start = Instant::now();
            let kept = self.average.clone().unwrap_or_else(|| self.section.snapshot(&self.params));
            let Some((validation_loss, confusion)) = self.validate(&kept, stop)? else {
                return self.stopped();
            };
            let (loss, accuracy) = trained.figures();
            let figures = Epoch {
                epoch,
                rate: self.progress.rate,
                loss,
                accuracy,
                validation_loss,
                validation_accuracy: confusion.accuracy(),
                images_per_second: trained.shown as f64 / trained.seconds.max(1e-9),
                seconds: trained.seconds + start.elapsed().as_secs_f64(),
                peak_memory_mb: curves::peak_memory_mb(),
                time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64()),
            };
            self.dashboard.say(format!(
                "epoch {epoch:>2}: loss {loss:.4}, accuracy {:.2} %; validation loss {validation_loss:.4}, accuracy {:.2} %; {:.0} images/s",
                100.0 * accuracy,
                100.0 * figures.validation_accuracy,
                figures.images_per_second
            ));
            self.keep(&figures, &kept)?;
            self.progress.history.push(figures);
            self.progress.partial = None;
            self.plateau();
            curves::write(&self.progress.history, &self.args.out)?;
            self.save()?;
        }
        match self.best() {
            Some(best) => self.dashboard.say(best),
            None => bail!("no epoch was finished, so there is no checkpoint"),
        }
        Ok(())
    }

    /// Keeps the state of a run that was asked to stop.
    fn stopped(&mut self) -> anyhow::Result<()> {
        self.save()?;
        self.dashboard.say(format!("stopped; --resume goes on after {}", self.progress.place()));
        if let Some(best) = self.best() {
            self.dashboard.say(best);
        }
        Ok(())
    }

    fn best(&self) -> Option<String> {
        let (accuracy, _, path) = self.progress.best.as_ref()?;
        Some(format!("best: {} ({:.2} % of validation)", path.display(), 100.0 * accuracy))
    }

    /// Keeps the checkpoint where it is the best, by [`curves::better`].
    fn keep(&mut self, figures: &Epoch, lists: &[Vec<f32>]) -> anyhow::Result<()> {
        let new = (figures.validation_accuracy, figures.validation_loss);
        let best = self.progress.best.as_ref();
        if best.is_some_and(|(accuracy, loss, _)| !curves::better(new, (*accuracy, *loss))) {
            return Ok(());
        }
        let name = format!("model.{:02}-{:.2}.safetensors", figures.epoch, figures.validation_accuracy);
        let path = self.args.out.join(name);
        let mut weights = self.weights.clone();
        self.section.store(lists, &self.norm, &mut weights);
        for (name, value) in [
            ("cut", self.caches[0].cut.clone()),
            ("command", self.progress.arguments.clone()),
            ("epoch", figures.epoch.to_string()),
            ("validation_accuracy", format!("{:.4}", figures.validation_accuracy)),
            ("split_sha256", cache::file_sha256(&self.args.split)?),
            ("weights_sha256", self.caches[0].weights_sha256.clone()),
        ] {
            weights.notes.insert(name.into(), value);
        }
        weights.write(&path)?;
        if let Some((_, _, old)) = self.progress.best.take().filter(|(_, _, old)| *old != path) {
            // A checkpoint that cannot be removed only takes room.
            let _ = std::fs::remove_file(old);
        }
        self.progress.best = Some((new.0, new.1, path));
        Ok(())
    }

    fn plateau(&mut self) {
        if self.args.schedule != Schedule::Plateau {
            return;
        }
        let losses: Vec<f64> = self.progress.history.iter().map(|e| e.validation_loss).collect();
        let (last, earlier) = losses.split_last().map_or((0.0, &[][..]), |(l, e)| (*l, e));
        let fell = earlier.iter().all(|&loss| last < loss - 1e-4);
        self.progress.stale = if fell { 0 } else { self.progress.stale + 1 };
        if self.progress.stale >= 2 {
            self.progress.rate /= 2.0;
            self.progress.stale = 0;
            let rate = self.progress.rate;
            self.dashboard.say(format!("validation loss has not fallen for two epochs: rate {rate:.1e}"));
        }
    }
}

fn answers(logits: Tensor<2>) -> Vec<[f32; 4]> {
    let values = logits.into_data().try_to_vec::<f32>().unwrap_or_default();
    values.chunks_exact(4).map(|v| [v[0], v[1], v[2], v[3]]).collect()
}
