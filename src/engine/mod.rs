//! Engines run a model: input bytes in, logits and features out.

#[cfg(feature = "cuda")]
pub mod cuda;
pub mod plan;
pub mod scalar;
pub mod simd;
pub mod suite;
#[cfg(feature = "tract")]
pub mod tract;

use crate::model::{Package, golden_input};
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
    /// The engine needs a device that this machine does not have, which is no fault.
    #[error("engine {engine} is not for this machine: {reason}")]
    Absent {
        /// The engine's name.
        engine: &'static str,
        /// What is missing.
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
    /// None of the engines works here.
    #[error("no engine works here: {0}; `fovea doctor` says more")]
    None(String),
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

    /// A second one for another thread that shares the weights; `None` where the device takes one picture at a time.
    fn share(&self) -> Option<Box<dyn Engine>> {
        None
    }
}

/// Largest difference of a logit on the golden picture with which an engine is still used. Engines agree but for the
/// rounding of activations at half a step, which adds up through 94 layers; a wrong weight or a wrong pad is off by more.
pub const GOLDEN_BOUND: f32 = 0.25;

type Maker = fn(&Package) -> Result<Box<dyn Engine>, EngineError>;

/// Name and maker of each engine in this build, best first.
const ENGINES: &[(&str, Maker)] = &[
    #[cfg(feature = "cuda")]
    (cuda::NAME, |package| Ok(Box::new(cuda::Cuda::new(&package.onnx, cuda::Options::default())?))),
    (simd::NAME, |package| Ok(Box::new(load(simd::NAME, simd::Simd::new(&package.onnx, None, None))?))),
    #[cfg(feature = "tract")]
    (tract::NAME, |package| Ok(Box::new(tract::Tract::new(package)?))),
    (scalar::NAME, |package| Ok(Box::new(load(scalar::NAME, scalar::Scalar::new(&package.onnx))?))),
];

fn load<T, E: std::fmt::Display>(engine: &'static str, made: Result<T, E>) -> Result<T, EngineError> {
    made.map_err(|error| EngineError::Load { engine, reason: error.to_string() })
}

/// Engines that are opened by their name alone and that a device is needed for: their kernels have not run on one yet.
const ON_REQUEST: &[&str] = &[
    #[cfg(feature = "cuda")]
    cuda::NAME,
];

/// All but the reference, which takes seconds a picture, and [`on_request`]: those are opened by their names alone.
fn automatic() -> impl Iterator<Item = &'static (&'static str, Maker)> {
    ENGINES.iter().filter(|(name, _)| *name != scalar::NAME && !ON_REQUEST.contains(name))
}

/// Engines for devices that `auto` does not choose.
pub fn on_request() -> impl Iterator<Item = &'static str> {
    ON_REQUEST.iter().copied()
}

/// The engines of this build in the order of `auto`.
pub fn names() -> impl Iterator<Item = &'static str> {
    automatic().map(|(name, _)| *name)
}

/// Opens the engine of that name, and has it answer the golden picture; of several names with commas between, or with
/// `auto` of all, the first that works.
///
/// # Errors
/// [`EngineError`]; of several names only when no engine works.
pub fn open(name: &str, package: &Package) -> Result<Box<dyn Engine>, EngineError> {
    let named = |name: &str| {
        let known = ENGINES.iter().find(|(known, _)| *known == name);
        known.map(|(_, make)| make).ok_or_else(|| EngineError::Unknown(name.into()))
    };
    if name != "auto" && !name.contains(',') {
        return proved(named(name)?(package)?, package);
    }
    let makers: Vec<_> = match name {
        "auto" => automatic().map(|(_, make)| Ok(make)).collect(),
        list => list.split(',').map(|name| named(name.trim())).collect(),
    };
    let mut failed = Vec::new();
    for make in makers {
        match make.and_then(|make| make(package)).and_then(|engine| proved(engine, package)) {
            Ok(engine) => return Ok(engine),
            Err(error) => {
                tracing::warn!("{error}");
                failed.push(error.to_string());
            }
        }
    }
    Err(EngineError::None(failed.join("; ")))
}

/// Opens the engine `simd` with these instructions and threads (chosen where they are not given), and has it answer the
/// golden picture.
///
/// # Errors
/// [`EngineError::Load`] and [`EngineError::Golden`].
pub fn open_simd(
    package: &Package,
    isa: Option<simd::Isa>,
    threads: Option<usize>,
) -> Result<Box<dyn Engine>, EngineError> {
    let engine = load(simd::NAME, simd::Simd::new(&package.onnx, isa, threads))?;
    proved(Box::new(engine), package)
}

/// Runs the golden picture and gives the engine back when its logits stay within [`GOLDEN_BOUND`].
fn proved(mut engine: Box<dyn Engine>, package: &Package) -> Result<Box<dyn Engine>, EngineError> {
    let off = golden_difference(engine.as_mut(), package)?;
    // Written so that NaN fails.
    if off <= GOLDEN_BOUND { Ok(engine) } else { Err(EngineError::Golden { engine: engine.name(), off }) }
}

/// Largest difference of a logit from the package's golden answer.
///
/// # Errors
/// [`EngineError::Run`].
pub fn golden_difference(engine: &mut dyn Engine, package: &Package) -> Result<f32, EngineError> {
    let output = engine.run(&golden_input())?;
    let pairs = output.logits.iter().zip(package.manifest.golden.logits);
    // What is no number is infinitely far.
    let off = pairs.map(|(got, expected)| (got - expected).abs());
    Ok(off.fold(0.0, |worst, off| if off.is_nan() { f32::INFINITY } else { worst.max(off) }))
}

#[cfg(test)]
mod tests;
