//! `fovea`: the appliance's command line.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[path = "cli/run.rs"]
mod run;

/// Reads retinal OCT B-scans. Decision support, not a diagnosis.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  fovea run --source folder:export --display png:screen")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The appliance: source, finding, screen
    Run(run::RunArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Run(args) => run::run_with(args, |_| {
            anyhow::bail!(
                "this build carries no model and no engine yet, so nothing can be classified; see the README"
            )
        }),
    }
}
