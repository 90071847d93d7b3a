//! `fovea-train`: the trainer's command line.

use clap::{Parser, Subcommand};
use fovea_trainer::{cache, export, phantom, split, train};

/// Trains and exports the model that fovea runs.
#[derive(Parser)]
#[command(version, after_help = "In order: prepare, extract, train, evaluate, export.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Prepare(split::PrepareArgs),
    Extract(cache::ExtractArgs),
    Train(train::TrainArgs),
    Evaluate(train::EvaluateArgs),
    Export(export::ExportArgs),
    Phantom(phantom::PhantomArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Prepare(args) => split::prepare(&args),
        Command::Extract(args) => cache::extract(&args),
        Command::Train(args) => train::train(&args),
        Command::Evaluate(args) => train::evaluate(&args),
        Command::Export(args) => export::run(&args),
        Command::Phantom(args) => phantom::run(&args),
    }
}
