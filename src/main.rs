//! `fovea`: the appliance's command line.
fn main() {}
