//! Engines run a model: input bytes in, logits and features out.

#[cfg(feature = "cuda")]
pub mod cuda;
pub mod plan;
pub mod scalar;
pub mod simd;
pub mod suite;
pub mod supervised;
#[cfg(feature = "tract")]
pub mod tract;

use crate::explain::light::Lit;
use crate::model::{Package, golden_input};
use crate::prepare::{Cut, NetworkInput, Preparation, Prepared, SIDE};
use crate::{Class, Frame};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;
pub use supervised::{Options, Supervised};

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

/// A picture that is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The frame and its region.
    pub cut: Cut<'a>,
    /// How it becomes the network's input.
    pub preparation: &'a Preparation,
    /// Width and height that a screen has for the frame; nothing where nobody looks.
    pub room: Option<[u32; 2]>,
}

/// What became of a picture that was read.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The network's input and what else was prepared.
    pub prepared: Prepared,
    /// What the network gave.
    pub output: Output,
    /// Milliseconds that the engine took; a device's have the preparation in them.
    pub millis: f32,
    /// Where the answer comes from, of an engine that says so.
    pub light: Option<Light>,
}

/// Where an answer comes from, as the device has computed it.
#[derive(Clone, Debug)]
pub struct Light {
    /// The class of the largest logit.
    pub class: Class,
    /// What each position adds to it, 8x8, row by row.
    pub map: [f32; FEATURE_SIDE * FEATURE_SIDE],
    /// The frame under its heat, where room was said.
    pub picture: Option<Arc<Lit>>,
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

impl EngineError {
    /// What happened, without the engine's name where there is more.
    pub fn reason(&self) -> String {
        match self {
            Self::Load { reason, .. } | Self::Absent { reason, .. } | Self::Run { reason, .. } => {
                reason.clone()
            }
            Self::Golden { off, .. } => format!("wrong answer on the golden picture (off by {off})"),
            other => other.to_string(),
        }
    }
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

    /// Prepares a picture and runs it. Here the processor prepares; a device does all that follows the frame in one go.
    ///
    /// # Errors
    /// [`EngineError::Run`].
    fn read(&mut self, ask: &Ask<'_>) -> Result<Seen, EngineError> {
        prepare_and_run(self, ask)
    }

    /// A second one for another thread that shares the weights; `None` where the device takes one picture at a time.
    fn share(&self) -> Option<Box<dyn Engine>> {
        None
    }

    /// Why a better engine does not answer, for the operator; nothing where this is the best.
    fn note(&self) -> Option<String> {
        None
    }
}

fn prepare_and_run<E: Engine + ?Sized>(engine: &mut E, ask: &Ask<'_>) -> Result<Seen, EngineError> {
    let prepared = ask.preparation.prepare_cut(ask.cut);
    let start = Instant::now();
    let output = engine.run(&prepared.input)?;
    Ok(Seen { prepared, output, millis: start.elapsed().as_secs_f32() * 1000.0, light: None })
}

/// An engine's answer. One that panics has failed, and so has one whose answer holds what is no number.
///
/// # Errors
/// [`EngineError::Run`].
pub fn answer(engine: &mut dyn Engine, input: &NetworkInput) -> Result<Output, EngineError> {
    guarded(engine, |engine| engine.run(input), |output| output)
}

/// What an engine makes of a picture, with the same care.
///
/// # Errors
/// [`EngineError::Run`].
pub fn see(engine: &mut dyn Engine, ask: &Ask<'_>) -> Result<Seen, EngineError> {
    guarded(engine, |engine| engine.read(ask), |seen| &seen.output)
}

fn guarded<T>(
    engine: &mut dyn Engine,
    ask: impl FnOnce(&mut dyn Engine) -> Result<T, EngineError>,
    output: impl FnOnce(&T) -> &Output,
) -> Result<T, EngineError> {
    let name = engine.name();
    let failed = |reason: &str| EngineError::Run { engine: name, reason: reason.into() };
    let got = catch_unwind(AssertUnwindSafe(|| ask(engine)))
        .unwrap_or_else(|_| Err(failed("it panicked; this is a fault of fovea, please report it")))?;
    let Output { logits, features } = output(&got);
    let numbers = logits.iter().chain(features).all(|value| value.is_finite());
    if numbers { Ok(got) } else { Err(failed("the answer holds values that are no numbers")) }
}

/// Largest difference of a logit on the golden picture with which an engine is still used. Engines agree but for the
/// rounding of activations at half a step, which adds up through 94 layers; a wrong weight or a wrong pad is off by more.
pub const GOLDEN_BOUND: f32 = 0.25;

type Maker = fn(&Package, &Options) -> Result<Box<dyn Engine>, EngineError>;

/// Name and maker of the engine for a device.
const DEVICE: Option<(&str, Maker)> = {
    #[cfg(feature = "cuda")]
    let device: Option<(&str, Maker)> = Some((cuda::NAME, |package, options| {
        let options = cuda::Options { limit: options.limit, ..cuda::Options::default() };
        Ok(Box::new(cuda::Cuda::new(&package.onnx, &package.head, options)?))
    }));
    #[cfg(not(feature = "cuda"))]
    let device = None;
    device
};

/// Name and maker of each engine for the processor in this build, best first.
const ENGINES: &[(&str, Maker)] = &[
    (simd::NAME, |package, _| Ok(Box::new(load(simd::NAME, simd::Simd::new(&package.onnx, None, None))?))),
    #[cfg(feature = "tract")]
    (tract::NAME, |package, _| Ok(Box::new(tract::Tract::new(package)?))),
    (scalar::NAME, |package, _| Ok(Box::new(load(scalar::NAME, scalar::Scalar::new(&package.onnx))?))),
];

fn load<T, E: std::fmt::Display>(engine: &'static str, made: Result<T, E>) -> Result<T, EngineError> {
    made.map_err(|error| EngineError::Load { engine, reason: error.to_string() })
}

/// All but the reference, which takes seconds a picture and is opened by its name alone.
fn automatic() -> impl Iterator<Item = (&'static str, Maker)> {
    DEVICE.into_iter().chain(ENGINES.iter().copied()).filter(|(name, _)| *name != scalar::NAME)
}

/// The engines of this build in the order of `auto`.
pub fn names() -> impl Iterator<Item = &'static str> {
    automatic().map(|(name, _)| name)
}

/// Opens the engine of that name and has it answer the golden picture; of several names with commas between, or with `auto`,
/// all that work, one of which answers (see [`supervised`]).
///
/// # Errors
/// [`EngineError`]; of several names only when no engine works.
pub fn open(name: &str, package: &Arc<Package>, options: &Options) -> Result<Box<dyn Engine>, EngineError> {
    let proof = Proof::of(package);
    let known = || DEVICE.into_iter().chain(ENGINES.iter().copied());
    let find = |name: &str| {
        known().find(|(known, _)| *known == name).ok_or_else(|| EngineError::Unknown(name.into()))
    };
    let mut chosen: Vec<_> = match name {
        "auto" => automatic().collect(),
        // A profile names engines that a smaller build may lack.
        list if list.contains(',') => {
            let warned = |name| find(name).inspect_err(|error| tracing::warn!("{error}")).ok();
            list.split(',').map(str::trim).filter_map(warned).collect()
        }
        name => {
            let (_, make) = find(name)?;
            return proof.proved(&|| make(package, options));
        }
    };
    let named = |(name, make): (&'static str, Maker)| -> supervised::Named {
        let (package, options) = (Arc::clone(package), *options);
        (name, Box::new(move || make(&package, &options)))
    };
    // A device is looked after where it comes first.
    let first = chosen.first().is_some_and(|(name, _)| DEVICE.is_some_and(|(device, _)| device == *name));
    let device = first.then(|| named(chosen.remove(0)));
    let makers = chosen.into_iter().map(named).collect();
    Ok(Box::new(Supervised::open(device, makers, proof, *options)?))
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
    Proof::of(package)
        .proved(&|| Ok(Box::new(load(simd::NAME, simd::Simd::new(&package.onnx, isa, threads))?)))
}

/// A picture with its answer, which engines prove themselves on.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The picture.
    pub input: NetworkInput,
    /// The right logits.
    pub logits: [f32; 4],
}

impl Proof {
    /// The golden picture of a package.
    pub fn of(package: &Package) -> Self {
        Self { input: golden_input(), logits: package.manifest.golden.logits }
    }

    /// Largest difference of a logit from the right answer. The picture comes as a frame that is its own preparation.
    ///
    /// # Errors
    /// [`EngineError::Run`], also of an engine that prepares the frame otherwise.
    pub fn difference(&self, engine: &mut dyn Engine) -> Result<f32, EngineError> {
        let engine_name = engine.name();
        let failed = |reason: String| EngineError::Run { engine: engine_name, reason };
        let side = SIDE as u32;
        let frame = Frame::new(side, side, self.input.0.to_vec(), "the golden picture")
            .map_err(|error| failed(error.to_string()))?;
        let cut = Cut::new(&frame, None).map_err(|error| failed(error.to_string()))?;
        let preparation = Preparation { margin_white: 0, band: 100, ..Preparation::default() };
        let seen = see(engine, &Ask { cut, preparation: &preparation, room: None })?;
        if seen.prepared.input != self.input {
            return Err(failed("it prepares the golden picture wrongly".into()));
        }
        let pairs = seen.output.logits.iter().zip(self.logits);
        // What is no number is infinitely far.
        let off = pairs.map(|(got, expected)| (got - expected).abs());
        Ok(off.fold(0.0, |worst, off| if off.is_nan() { f32::INFINITY } else { worst.max(off) }))
    }

    /// Has an engine answer.
    ///
    /// # Errors
    /// [`EngineError::Run`], and [`EngineError::Golden`] where it is off by more than [`GOLDEN_BOUND`].
    fn prove(&self, engine: &mut dyn Engine) -> Result<(), EngineError> {
        let off = self.difference(engine)?;
        if off <= GOLDEN_BOUND { Ok(()) } else { Err(EngineError::Golden { engine: engine.name(), off }) }
    }

    /// Makes an engine that proves itself.
    fn proved(
        &self,
        make: &dyn Fn() -> Result<Box<dyn Engine>, EngineError>,
    ) -> Result<Box<dyn Engine>, EngineError> {
        let panicked = |_| Err(EngineError::None("an engine panicked while it was opened".into()));
        let mut engine = catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(panicked)?;
        self.prove(engine.as_mut())?;
        Ok(engine)
    }
}

#[cfg(test)]
mod tests;
