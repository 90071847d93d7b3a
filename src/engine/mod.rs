//! Engines run a model: input bytes in, logits and features out.

pub mod plan;
pub mod scalar;
pub mod simd;

use crate::prepare::NetworkInput;

/// Channels of the last feature map.
pub const FEATURE_CHANNELS: usize = 2048;
/// Side of the last feature map.
pub const FEATURE_SIDE: usize = 8;

/// What one forward pass gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Logits in the order of [`crate::Class::ALL`].
    pub logits: [f32; 4],
    /// Features after the last ReLU, `[2048, 8, 8]` (channel, row, column), dequantised.
    pub features: Vec<f32>,
}

/// Why an engine could not be made or could not answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine cannot load this model.
    #[error("engine {engine} cannot load the model: {reason}")]
    Load {
        /// The engine's name.
        engine: &'static str,
        /// What it met.
        reason: String,
    },
    /// The engine failed while running.
    #[error("engine {engine} failed: {reason}")]
    Run {
        /// The engine's name.
        engine: &'static str,
        /// What happened.
        reason: String,
    },
    /// The engine answers the model's golden picture wrongly.
    #[error("engine {engine} gives a wrong answer on the golden picture (off by {off}); it is not used")]
    Golden {
        /// The engine's name.
        engine: &'static str,
        /// Largest difference of a logit.
        off: f32,
    },
    /// No engine of that name.
    #[error("no engine '{0}' in this build; `fovea doctor` lists those that work")]
    Unknown(String),
}

/// A loaded network.
pub trait Engine: Send {
    /// Short name: `tract`, `simd`, `scalar`, `cuda`.
    fn name(&self) -> &'static str;

    /// One forward pass.
    ///
    /// # Errors
    /// [`EngineError::Run`].
    fn run(&mut self, input: &NetworkInput) -> Result<Output, EngineError>;
}

#[cfg(test)]
mod tests;
