//! fovea reads retinal OCT B-scans: it finds CNV, DME, DRUSEN or NORMAL, shows where the answer comes from, and
//! says so when it cannot tell.
//!
//! Data goes one way: capture -> [`frame`] -> [`prepare`] -> [`engine`]; explanation, diagnosis and screen follow it.

#[cfg(feature = "appliance")]
pub mod appliance;
pub mod class;
#[cfg(feature = "appliance")]
pub mod config;
pub mod engine;
pub mod frame;
pub mod model;
pub mod prepare;
#[cfg(feature = "appliance")]
pub mod screen;

pub use class::Class;
pub use frame::Frame;
