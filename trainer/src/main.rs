//! `fovea-train`: makes models for fovea.
use clap::Parser;

#[derive(Parser)]
#[command(version, about)]
enum Command {
    /// Make a model package from a checkpoint
    Export(fovea_trainer::export::ExportArgs),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Export(args) => fovea_trainer::export::run(&args),
    }
}
