//! tract-onnx runs the package's ONNX as it is, in floats: the fallback that works everywhere and the independent
//! reference of the other engines.

use super::{Engine, EngineError, FEATURE_CHANNELS, FEATURE_SIDE, Output};
use crate::model::Package;
use crate::prepare::{NetworkInput, SIDE};
use std::sync::Arc;
use tract_onnx::prelude::*;

/// The engine's name.
pub const NAME: &str = "tract";

/// The optimised network; clones share it.
#[derive(Clone)]
pub struct Tract(Arc<TypedRunnableModel>);

impl Tract {
    /// Loads and optimises the network of a package.
    ///
    /// # Errors
    /// [`EngineError::Load`].
    pub fn new(package: &Package) -> Result<Self, EngineError> {
        let load = || -> TractResult<Arc<TypedRunnableModel>> {
            // A file that swells when decoded is refused as it is by the plan.
            crate::model::onnx::check(&package.onnx).map_err(TractError::msg)?;
            let mut model = tract_onnx::onnx().model_for_read(&mut &package.onnx[..])?;
            model.set_input_fact(0, f32::fact([1, 1, SIDE, SIDE]).into())?;
            model.select_outputs_by_name(["logits", "features"])?;
            model.into_optimized()?.into_runnable()
        };
        // tract asserts what a well-made model never breaks; a damaged one must not end the program.
        let loaded = std::panic::catch_unwind(load).unwrap_or_else(|_| Err(TractError::msg("it panicked")));
        loaded.map(Self).map_err(|error| EngineError::Load { engine: NAME, reason: format!("{error:#}") })
    }
}

impl Engine for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run(&mut self, input: &NetworkInput) -> Result<Output, EngineError> {
        let run = || -> TractResult<Output> {
            let values: Vec<f32> = input.0.iter().map(|byte| f32::from(*byte) / 255.0).collect();
            let image = Tensor::from_shape(&[1, 1, SIDE, SIDE], &values)?;
            let outputs = self.0.run(tvec!(image.into()))?;
            let list = |i: usize, count: usize| -> TractResult<Vec<f32>> {
                let view = outputs[i].to_plain_array_view::<f32>()?;
                if view.len() != count {
                    return Err(TractError::msg(format!("{} values where {count} belong", view.len())));
                }
                Ok(view.iter().copied().collect())
            };
            let logits = list(0, 4)?;
            let features = list(1, FEATURE_CHANNELS * FEATURE_SIDE * FEATURE_SIDE)?;
            Ok(Output { logits: [logits[0], logits[1], logits[2], logits[3]], features })
        };
        run().map_err(|error| EngineError::Run { engine: NAME, reason: format!("{error:#}") })
    }

    fn share(&self) -> Option<Box<dyn Engine>> {
        Some(Box::new(self.clone()))
    }
}
