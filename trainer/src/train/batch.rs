//! Batches: what goes in, and what should come out.

use super::Trainer;
use crate::augment::{self, source::Strength};
use crate::cache::{self, Record};
use crate::mixup::Mix;
use crate::report::model::frame;
use crate::section::HeadKind;
use burn::tensor::{Tensor, TensorData};
use fovea::Class;
use fovea::prepare::{NetworkInput, SIDE};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rayon::prelude::*;

impl Trainer<'_> {
    /// Features and labels of a batch. With nothing frozen, each picture is changed at random (`seed`), its source where
    /// the folder of sources is known. `mix` blends each with its partner.
    pub(super) fn batch(
        &self,
        items: &[&(usize, Record)],
        seed: Option<u64>,
        mix: Option<&Mix>,
    ) -> anyhow::Result<(Tensor<4>, Vec<Class>)> {
        let [h, w, c] = self.caches[0].shape;
        let parts: Vec<Vec<f32>> = items
            .par_iter()
            .map(|(cache, record)| {
                if let (Some(data), Some(seed)) = (&self.args.data, seed) {
                    let frame = frame(data, &record.row)?;
                    let input = Strength::default().input(&self.preparation, &frame, seed, record.place)?;
                    return Ok(cache::colour(&[input]));
                }
                let values = self.caches[*cache].read(record.place)?;
                if c > 1 {
                    return Ok(values);
                }
                let mut bytes = Box::new([0u8; SIDE * SIDE]);
                bytes.iter_mut().zip(&values).for_each(|(b, v)| *b = (v * 255.0).round() as u8);
                let mut input = NetworkInput(bytes);
                if let Some(seed) = seed {
                    input = augment::random(&input, &mut StdRng::seed_from_u64(seed ^ record.place));
                }
                Ok(cache::colour(&[input]))
            })
            .collect::<anyhow::Result<_>>()?;
        let parts = match mix {
            None => parts.concat(),
            Some(mix) => mix.blend(&parts),
        };
        let shape = [items.len(), h, w, if c > 1 { c } else { 3 }];
        let labels = items.iter().map(|(_, record)| record.row.class).collect();
        Ok((self.section.batch(parts, shape), labels))
    }

    /// Smoothed labels times class weights, and the sum of the weights.
    pub(super) fn targets(&self, labels: &[Class], smoothing: f32, mix: Option<&Mix>) -> (Tensor<2>, f32) {
        let mut values = Vec::with_capacity(labels.len());
        for label in labels {
            let weight = self.class_weights[label.index()];
            values.push(
                (0..4)
                    .map(|k| {
                        let hard = if k == label.index() { 1.0 } else { 0.0 };
                        weight * (hard * (1.0 - smoothing) + smoothing / 4.0)
                    })
                    .collect::<Vec<f32>>(),
            );
        }
        // A blend of targets weighs as the blend of the weights: over the batch the sum stays the same.
        let values = match mix {
            None => values.concat(),
            Some(mix) => mix.blend(&values),
        };
        let sum = labels.iter().map(|l| self.class_weights[l.index()]).sum();
        (Tensor::from_data(TensorData::new(values, [labels.len(), 4]), &self.device), sum)
    }

    pub(super) fn dropout(&self, count: usize, random: &mut StdRng) -> Option<Tensor<2>> {
        let rate = self.args.dropout.unwrap_or(if self.args.head == HeadKind::Conv { 0.5 } else { 0.0 });
        let width = if self.args.head == HeadKind::Conv { 64 * 64 } else { 64 };
        if self.args.head == HeadKind::Gap && rate == 0.0 {
            return None;
        }
        let factors: Vec<f32> = (0..count * width)
            .map(|_| if random.random::<f32>() < rate { 0.0 } else { 1.0 / (1.0 - rate) })
            .collect();
        Some(Tensor::from_data(TensorData::new(factors, [count, width]), &self.device))
    }
}
