//! `fovea-train`: prepare, extract, train, export, evaluate, phantom.
fn main() {}
