//! fovea reads retinal OCT B-scans: it finds CNV, DME, DRUSEN or NORMAL, shows where the answer comes from, and
//! says so when it cannot tell.
//!
//! Data goes one way: capture -> [`frame`] -> [`prepare`] -> [`engine`]; explanation, diagnosis and screen follow it.

pub mod class;
pub mod engine;
pub mod frame;
pub mod prepare;

pub use class::Class;
pub use frame::Frame;
