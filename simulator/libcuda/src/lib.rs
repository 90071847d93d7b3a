//! A CUDA driver without a device, for tests alone: a `libcuda.so.1` whose kernels run in [`fovea_simulator`].
//!
//! Programs find it through `LD_LIBRARY_PATH` and see a device named `fovea simulator sm_87`. It has what fovea's engine
//! needs: the primary context, memory, modules from PTX, streams, events, graphs captured from one stream. A cubin is refused
//! with `CUDA_ERROR_NO_BINARY_FOR_GPU`, as by a device of another architecture.
//!
//! # What is checked that a driver lets pass
//! Copies and kernels stay inside one allocation, fresh memory is poison, a call needs a current context, and work of a stream
//! may wait until somebody asks for it ([`settings::Streams::Late`]), so that a host that does not wait reads what was there
//! before.
//!
//! # Settings
//! Environment variables, all optional: see [`settings`].

pub mod code;
pub mod driver;
#[allow(non_snake_case, reason = "the names of the driver's functions")]
pub mod exports;
pub mod settings;
pub mod work;

#[cfg(test)]
mod tests;
