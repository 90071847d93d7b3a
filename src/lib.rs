//! fovea reads retinal OCT B-scans: it finds CNV, DME, DRUSEN or NORMAL, shows where the answer comes from, and
//! says so when it cannot tell.
//!
//! Data goes one way: capture -> [`frame`] -> [`prepare`] -> [`engine`]; explanation, diagnosis and screen follow it.

#[cfg(feature = "appliance")]
pub mod appliance;
mod bands;
#[cfg(feature = "appliance")]
pub mod capture;
pub mod class;
#[cfg(feature = "appliance")]
pub mod clock;
#[cfg(feature = "appliance")]
pub mod config;
pub mod diagnosis;
pub mod engine;
pub mod explain;
pub mod eye;
pub mod frame;
mod kernels;
pub mod model;
pub mod prepare;
pub mod reader;
#[cfg(feature = "appliance")]
pub mod region;
#[cfg(feature = "appliance")]
pub mod screen;

pub use class::Class;
pub use frame::Frame;
pub use reader::Reader;
