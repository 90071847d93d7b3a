//! What keeps the device from answering.

use crate::engine::EngineError;
use crate::engine::plan::PlanError;
use std::time::Duration;

/// Why the engine `cuda` cannot be used, or failed.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// No driver.
    #[error("there is no NVIDIA driver here (libcuda.so.1 was not found)")]
    Absent,
    /// A driver without a function that is needed.
    #[error("the NVIDIA driver lacks {0}; install JetPack 4.4 or later, or a driver for CUDA 10.2 or later")]
    Symbol(&'static str),
    /// An old driver.
    #[error("the NVIDIA driver is for CUDA {major}.{minor}; install one for CUDA 10.2 or later")]
    Old {
        /// Its version before the dot.
        major: i32,
        /// And behind it.
        minor: i32,
    },
    /// A driver without a device.
    #[error(
        "the NVIDIA driver finds no device; on a board check that /dev/nvhost-* may be read by this user"
    )]
    NoDevice,
    /// A device that the kernels were not made for.
    #[error("{name} is sm_{capability}, too old for these kernels; they need sm_53 (Jetson Nano) or later")]
    Architecture {
        /// The device.
        name: String,
        /// Its compute capability times ten.
        capability: u32,
    },
    /// A call of the driver failed.
    #[error("the NVIDIA driver failed while {doing}: error {code} ({name})")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// The driver's code.
        code: u32,
        /// Its name.
        name: String,
    },
    /// Kernels that do not end.
    #[error("the device did not answer within {0:?}; it is given up")]
    Hung(Duration),
    /// A device that was given up before.
    #[error("the device was given up after a failure, and is still held by what failed")]
    Lost,
    /// A copy beyond the end of memory.
    #[error("a copy would leave its memory; this is a fault of fovea, please report it")]
    Bounds,
    /// What comes back of a picture is not what the processor makes of it.
    #[error("the device prepares or explains a picture wrongly: {0}")]
    Prepared(String),
    /// None of the kernels' forms is accepted.
    #[error("no form of the kernels works here: {0}")]
    Kernels(String),
    /// The model is no integer program.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A table of cuts cannot be kept.
    #[error("the table of cuts cannot be written: {0}")]
    Table(String),
    /// The model is too large.
    #[error("the model needs more than 1 GB in one piece; use the engine tract")]
    Large,
}

impl CudaError {
    /// True when this machine has no driver, and so no device that fovea could use, which is no fault.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// Of an engine that could not be made.
impl From<CudaError> for EngineError {
    fn from(error: CudaError) -> Self {
        let (engine, reason) = (super::NAME, error.to_string());
        if error.is_absence() { Self::Absent { engine, reason } } else { Self::Load { engine, reason } }
    }
}
