//! `fovea-train`: no command exists yet; it says so and exits with 2, so that no script takes silence for success.
use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("fovea-train: no command is built yet; see the README for what works");
    ExitCode::from(2)
}
