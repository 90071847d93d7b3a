//! The trainer of fovea: from a folder of labelled B-scans to a model package.
pub mod export;
pub mod network;
