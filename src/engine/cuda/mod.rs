//! The plan on an NVIDIA device, exact to the bit with [`super::scalar`]: the appliance's main engine on Jetson boards.
//!
//! A picture is one graph from the frame's bytes to the features and the picture for the screen: preparation, the network (steps that do
//! not wait for each other are one launch), explanation. The head is computed by the processor from the features, which leave the device
//! anyway (gate and report want them): it is under 9 million multiply-adds, and the logits are the same as every other engine's to the bit.
//!
//! - `api`, `driver`: the CUDA driver, found at run time; a machine without one is told so in a sentence.
//! - `kernels`: the compiled kernels and which of them a device takes.
//! - `schedule`: from the plan to jobs of blocks.
//! - `reading`: what is done around the network, and with what memory.
//! - `network`: memory and graphs.
//! - `examine`: whether a device computes rightly, and how fast.
//! - `tune`: which cuts of the launches are fastest on a device.

mod api;
mod driver;
mod error;
pub mod examine;
pub mod kernels;
mod network;
pub mod reading;
pub mod schedule;
pub mod tune;

pub use driver::Device;
pub use error::CudaError;

use super::plan::Plan;
use super::{Ask, Engine, EngineError, Output, Seen, scalar, suite};
use crate::model::Head;
use crate::prepare::NetworkInput;
use driver::Context;
use network::Network;
use prost::bytes::Bytes;
use schedule::{CutAs, Cuts, Launch};
use std::sync::{Arc, Once};
use std::time::Duration;

/// The engine's name.
pub const NAME: &str = "cuda";

/// How the engine uses the device.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A picture that takes longer has hung.
    pub limit: Duration,
    /// The same for the first, which waits for the driver to load what it needs.
    pub first_limit: Duration,
    /// How launches are cut; without it as the device's table says ([`tune`]), else chosen from the device.
    pub cut: Option<CutAs>,
}

impl Default for Options {
    /// Half a second a picture, five times what the slowest board is expected to need, and ten seconds for the first.
    fn default() -> Self {
        Self { limit: Duration::from_millis(500), first_limit: Duration::from_secs(10), cut: None }
    }
}

/// The engine.
#[derive(Debug)]
pub struct Cuda {
    network: Network,
    context: Arc<Context>,
    kernels: String,
}

impl Cuda {
    /// An engine for a model's ONNX bytes and its head, which has shown that it prepares and explains a picture as the processor does.
    ///
    /// # Errors
    /// [`CudaError`].
    pub fn new(onnx: &Bytes, head: &Head, options: Options) -> Result<Self, CudaError> {
        // The device first: without one the model need not be read.
        let context = Context::open()?;
        let mut engine = Self::on(context, Plan::read(onnx)?, Some(head.clone()), options, None)?;
        let view = suite::views().next();
        if let Some(ask) = view.as_ref().and_then(|view| view.ask().ok())
            && let Some(seen) = engine.network.read(&ask)?
            && let Some(fault) = examine::compare(&seen, &ask, head)
        {
            return Err(CudaError::Prepared(fault));
        }
        Ok(engine)
    }

    /// An engine for a plan; it explains its answers where it has the head.
    ///
    /// # Errors
    /// [`CudaError`].
    pub fn of(plan: Plan, head: Option<Head>, options: Options) -> Result<Self, CudaError> {
        Self::on(Context::open()?, plan, head, options, None)
    }

    /// An engine some of whose launches are cut so.
    fn cut_as(plan: Plan, options: Options, cuts: &Cuts) -> Result<Self, CudaError> {
        Self::on(Context::open()?, plan, None, options, Some(cuts))
    }

    fn on(
        context: Arc<Context>,
        plan: Plan,
        head: Option<Head>,
        options: Options,
        cuts: Option<&Cuts>,
    ) -> Result<Self, CudaError> {
        let loaded = kernels::load(&context)?;
        let what = loaded.what.clone();
        static NAMED: Once = Once::new();
        NAMED.call_once(|| tracing::info!("device: {}; kernels {what}", context.device));
        let known = match cuts {
            None if options.cut.is_none() => tune::known(&context.device),
            _ => Cuts::new(),
        };
        let network = Network::new(&context, loaded, plan, head, options, cuts.unwrap_or(&known))?;
        Ok(Self { network, context, kernels: what })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.context.device
    }

    /// Which form of the kernels is used.
    pub fn kernels(&self) -> &str {
        &self.kernels
    }

    /// The launches of a picture, in order.
    pub fn launches(&self) -> &[Launch] {
        self.network.launches()
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        self.network.plan()
    }

    /// For each job of the launches its step in the plan.
    pub fn steps(&self) -> &[usize] {
        self.network.steps()
    }

    /// Nodes of the network's graph.
    pub fn nodes(&self) -> usize {
        self.network.nodes()
    }

    /// True when the network is one graph; drivers before CUDA 10.1 have none, and each launch is a call.
    pub fn is_graph(&self) -> bool {
        self.network.is_graph()
    }

    /// Milliseconds of each launch on the device, for the picture that was run last.
    ///
    /// # Errors
    /// [`CudaError`].
    pub fn profile(&mut self) -> Result<Vec<f32>, CudaError> {
        self.network.profile(&self.context)
    }

    /// Runs all steps over the input tensor's bytes and gives the features' bytes, `[row, column, channel]`.
    ///
    /// # Errors
    /// [`CudaError`].
    pub fn run_bytes(&mut self, input: &[u8]) -> Result<Vec<u8>, CudaError> {
        let bytes = self.network.run(input)?.to_vec();
        Ok(scalar::read_bytes(self.network.plan(), &bytes))
    }
}

impl Engine for Cuda {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run(&mut self, input: &NetworkInput) -> Result<Output, EngineError> {
        let failed = |error: CudaError| EngineError::Run { engine: NAME, reason: error.to_string() };
        self.network.run(&input.0[..]).map_err(failed)?;
        Ok(scalar::read_output(self.network.plan(), self.network.features()))
    }

    fn read(&mut self, ask: &Ask<'_>) -> Result<Seen, EngineError> {
        let failed = |error: CudaError| EngineError::Run { engine: NAME, reason: error.to_string() };
        match self.network.read(ask).map_err(failed)? {
            Some(seen) => Ok(seen),
            None => super::prepare_and_run(self, ask),
        }
    }
}

#[cfg(test)]
mod tests;
