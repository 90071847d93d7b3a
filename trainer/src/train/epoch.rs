//! One pass over the training pictures, and one over those for validation.

use super::args::Schedule;
use super::state::Partial;
use super::{Trainer, answers, schedule};
use crate::cache::Record;
use crate::export::graph::INPUT_SCALE;
use crate::mixup::Mix;
use crate::quantise_aware::{Rounded, Watch};
use crate::score::{Confusion, best};
use crate::section::Params;
use anyhow::bail;
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, activation::log_softmax};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use rayon::prelude::*;
use std::time::Instant;

impl Partial {
    /// Mean loss and share of right answers.
    pub(super) fn figures(&self) -> (f64, f64) {
        (self.loss / self.weight, self.right as f64 / self.shown as f64)
    }
}

impl Trainer<'_> {
    /// What comes out behind the cut; rounded where the run is quantisation-aware.
    pub(super) fn features(&self, params: &Params, x: Tensor<4>) -> Tensor<4> {
        match &self.scales {
            None => self.section.forward(params, x),
            Some(scales) => self.section.forward_with(params, x, self.entry(), &mut Rounded(scales)),
        }
    }

    /// The name of the activation that enters, as scales have it.
    pub(super) fn entry(&self) -> &str {
        let cut = &self.caches[0].cut;
        if cut == "Input" { "image" } else { cut }
    }

    /// Reads the activations' scales from the first batches of an epoch, with the weights as they are.
    pub(super) fn calibrate(&mut self, order: &[(usize, Record)]) -> anyhow::Result<()> {
        const BATCHES: usize = 8;
        let mut watch = Watch::default();
        for chunk in order.chunks(self.args.batch).take(BATCHES) {
            let (x, _) = self.batch(&chunk.iter().collect::<Vec<_>>(), None, None)?;
            self.section.forward_with(&self.params, x, self.entry(), &mut watch);
        }
        let mut scales = watch.scales()?;
        if self.entry() == "image" {
            scales.insert("image".into(), INPUT_SCALE);
        }
        self.scales = Some(scales);
        Ok(())
    }

    /// Trains one epoch, or the rest of one that was stopped; `None` when `stop` says so, with the place kept.
    pub(super) fn epoch(
        &mut self,
        epoch: usize,
        stop: &impl Fn() -> bool,
    ) -> anyhow::Result<Option<Partial>> {
        let seed = self.args.seed.wrapping_mul(1_000_003) ^ epoch as u64;
        let mut random = StdRng::seed_from_u64(seed);
        let mut order: Vec<(usize, Record)> = Vec::new();
        for variants in &self.train {
            let mut picks: Vec<usize> = (0..variants.len()).collect();
            picks.shuffle(&mut random);
            order.extend((0..self.args.passes).map(|pass| variants[picks[pass % picks.len()]].clone()));
        }
        order.shuffle(&mut random);
        let mut partial = self.progress.partial.take().unwrap_or_default();
        if self.args.quantise_aware && partial.batches == 0 {
            self.calibrate(&order)?;
        }
        let steps = order.len().div_ceil(self.args.batch);
        let (before, start) = (partial.seconds, Instant::now());
        self.dashboard.epoch(epoch, self.args.epochs, order.len(), &self.progress.history);
        let mut shown_now = 0;
        for (number, chunk) in order.chunks(self.args.batch).enumerate().skip(partial.batches) {
            if stop() {
                partial.scales.clone_from(&self.scales);
                self.progress.partial = Some(partial);
                return Ok(None);
            }
            let (top, step, total) = (self.args.rate, self.progress.step, steps * self.args.epochs);
            match self.args.schedule {
                Schedule::Plateau => {}
                Schedule::OneCycle => self.progress.rate = schedule::one_cycle(top, step, total),
                Schedule::Cosine => self.progress.rate = schedule::cosine(top, step, total),
            }
            // Each batch has its own numbers, so that a run can go on from any of them.
            let mut random = StdRng::seed_from_u64(seed ^ ((number as u64 + 1) << 32));
            let items: Vec<&(usize, Record)> = chunk.iter().collect();
            let (value, weight, right) = self.learn(&items, &mut random)?;
            if !value.is_finite() {
                bail!("the loss is {value} in epoch {epoch}: lower --rate");
            }
            partial.batches = number + 1;
            partial.loss += value * weight;
            partial.weight += weight;
            partial.right += right;
            partial.shown += items.len();
            shown_now += items.len();
            let seconds = start.elapsed().as_secs_f64();
            partial.seconds = before + seconds;
            let speed = shown_now as f64 / seconds.max(1e-9);
            self.dashboard.batch(partial.shown, partial.figures(), value, self.progress.rate, speed);
        }
        // Kept until validation is done, so that it can be stopped too.
        self.progress.partial = Some(Partial { scales: self.scales.clone(), ..partial.clone() });
        Ok(Some(partial))
    }

    /// One step: the batch's loss, the sum of its weights, and how many answers were right.
    fn learn(
        &mut self,
        items: &[&(usize, Record)],
        random: &mut StdRng,
    ) -> anyhow::Result<(f64, f64, usize)> {
        let mix = Mix::draw(self.args.mixup, items.len(), random);
        let (x, labels) = self.batch(items, Some(random.random()), mix.as_ref())?;
        let features = self.features(&self.params, x);
        let factors = self.dropout(labels.len(), random);
        let logits = self.section.logits(&self.params, &mut self.norm, features, factors);
        let (targets, weight) = self.targets(&labels, self.args.label_smoothing, mix.as_ref());
        let loss = (log_softmax(logits.clone(), 1) * targets).sum().neg().div_scalar(weight);
        let value = f64::from(loss.clone().into_scalar::<f32>());
        if value.is_finite() {
            let gradients = GradientsParams::from_grads(loss.backward(), &self.params);
            self.params = self.optimizer.step(self.progress.rate, self.params.clone(), gradients);
            self.progress.step += 1;
            self.follow();
        }
        let right = answers(logits).iter().zip(&labels).filter(|(a, l)| best(**a) == **l).count();
        Ok((value, f64::from(weight), right))
    }

    /// Moves the average of the weights; every fourth step is enough, with the decay of four.
    pub(super) fn follow(&mut self) {
        const EVERY: usize = 4;
        if self.args.ema <= 0.0 || !self.progress.step.is_multiple_of(EVERY) {
            return;
        }
        let now = self.section.snapshot(&self.params);
        match &mut self.average {
            // Young averages follow faster, so that the start is soon forgotten.
            Some(average) => {
                let age = self.progress.step as f32 / EVERY as f32;
                let decay = self.args.ema.powi(EVERY as i32).min((1.0 + age) / (10.0 + age));
                average.par_iter_mut().zip(now).for_each(|(a, b)| {
                    a.iter_mut().zip(b).for_each(|(a, b)| *a += (1.0 - decay) * (b - *a));
                });
            }
            None => self.average = Some(now),
        }
    }

    /// Loss and answers on the validation pictures; `None` when `stop` says so.
    pub(super) fn validate(
        &self,
        lists: &[Vec<f32>],
        stop: &impl Fn() -> bool,
    ) -> anyhow::Result<Option<(f64, Confusion)>> {
        let params = self.section.restore(&self.params, lists);
        let (mut loss, mut weights) = (0.0, 0.0);
        let mut confusion = Confusion::default();
        let mut norm = self.norm.clone();
        for chunk in self.validation.chunks(self.args.batch) {
            if stop() {
                return Ok(None);
            }
            let items: Vec<&(usize, Record)> = chunk.iter().collect();
            let (x, labels) = self.batch(&items, None, None)?;
            let features = self.features(&params, x);
            let logits = self.section.logits(&params, &mut norm, features, None);
            let (targets, weight) = self.targets(&labels, 0.0, None);
            loss += f64::from((log_softmax(logits.clone(), 1) * targets).sum().neg().into_scalar::<f32>());
            weights += f64::from(weight);
            answers(logits)
                .into_iter()
                .zip(labels)
                .for_each(|(answer, label)| confusion.add(label, best(answer)));
        }
        Ok(Some((loss / weights, confusion)))
    }
}
