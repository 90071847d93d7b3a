//! Runs an ONNX graph in tract over many pictures: one state a thread, results in the pictures' order.

use anyhow::{Context, Result, bail};
use fovea::model::onnx;
use fovea::prepare::{NetworkInput, SIDE};
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tract_onnx::prelude::*;

/// Ends the command when Ctrl-C was pressed, by an error: temporary folders are removed on the way out.
///
/// # Errors
/// That it was interrupted, or that the signal cannot be caught.
pub fn check_stop() -> Result<()> {
    if crate::interrupt()?() {
        bail!("interrupted; nothing was written");
    }
    Ok(())
}

/// A graph optimised by tract.
pub struct Network {
    plan: Arc<TypedRunnableModel>,
    threads: usize,
}

impl Network {
    /// Loads a graph with all of its outputs; `threads` pictures are computed at once.
    ///
    /// # Errors
    /// When tract refuses the graph.
    pub fn new(model: &onnx::Model, threads: usize) -> Result<Self> {
        Self::load(&model.encode_to_vec(), threads)
    }

    /// As [`Self::new`], from a file's bytes.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn load(bytes: &[u8], threads: usize) -> Result<Self> {
        let load = || -> TractResult<Arc<TypedRunnableModel>> {
            let mut model = tract_onnx::onnx().model_for_read(&mut &*bytes)?;
            model.set_input_fact(0, f32::fact([1, 1, SIDE, SIDE]).into())?;
            model.into_optimized()?.into_runnable()
        };
        let plan = load().context("tract does not load the exported graph")?;
        Ok(Self { plan, threads: threads.max(1) })
    }

    /// Runs the graph over `inputs` and maps each picture's outputs (in the graph's order) by `map`.
    ///
    /// # Errors
    /// What tract or `map` met first, or that Ctrl-C was pressed.
    pub fn map<'a, T: Send>(
        &self,
        inputs: impl IntoIterator<Item = &'a NetworkInput>,
        what: &str,
        map: impl Fn(usize, &[&[f32]]) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let inputs: Vec<&NetworkInput> = inputs.into_iter().collect();
        let (bar, next) = (crate::bar(inputs.len(), what), AtomicUsize::new(0));
        let work = || -> Result<Vec<(usize, T)>> {
            let mut state = self.plan.spawn()?;
            let mut done = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(input) = inputs.get(i) else { return Ok(done) };
                check_stop()?;
                let values: Vec<f32> = input.0.iter().map(|byte| f32::from(*byte) / 255.0).collect();
                let image = Tensor::from_shape(&[1, 1, SIDE, SIDE], &values)?;
                let outputs = state.run(tvec!(image.into()))?;
                let views = outputs.iter().map(|o| o.to_plain_array_view::<f32>());
                let views = views.collect::<TractResult<Vec<_>>>()?;
                let slices: Option<Vec<&[f32]>> = views.iter().map(|view| view.as_slice()).collect();
                let slices = slices.context("tract gives an output that is not contiguous")?;
                done.push((i, map(i, &slices)?));
                bar.inc(1);
            }
        };
        let parts: Vec<Result<Vec<(usize, T)>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(part) => part,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        });
        bar.finish_and_clear();
        let mut all = Vec::with_capacity(inputs.len());
        for part in parts {
            all.extend(part?);
        }
        all.sort_by_key(|(i, _)| *i);
        Ok(all.into_iter().map(|(_, value)| value).collect())
    }

    /// Logits and globally averaged features of each picture.
    ///
    /// # Errors
    /// As [`Self::map`].
    pub fn answers<'a>(
        &self,
        inputs: impl IntoIterator<Item = &'a NetworkInput>,
        what: &str,
    ) -> Result<Vec<Answer>> {
        self.map(inputs, what, |_, outputs| {
            let logits = <[f32; 4]>::try_from(outputs[0]).context("logits are not four")?;
            let cells = fovea::engine::FEATURE_SIDE * fovea::engine::FEATURE_SIDE;
            let pooled = outputs[1]
                .chunks_exact(cells)
                .map(|plane| (plane.iter().map(|v| f64::from(*v)).sum::<f64>() / cells as f64) as f32)
                .collect();
            Ok(Answer { logits, pooled })
        })
    }
}

/// What a network says of a picture.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Logits in the order of [`fovea::Class::ALL`].
    pub logits: [f32; 4],
    /// Global average of each feature channel, `[2048]`.
    pub pooled: Vec<f32>,
}

impl Answer {
    /// The most probable class, the first of equals.
    pub fn class(&self) -> usize {
        (1..4).fold(0, |best, c| if self.logits[c] > self.logits[best] { c } else { best })
    }
}
