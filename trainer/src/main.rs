//! `fovea-train`: the trainer's command line.

use clap::{Parser, Subcommand};
use fovea_trainer::{
    backbone, data, explain_check, export, extract, phantom, report, shards, split, teach, train,
};

/// Trains and exports the model that fovea runs.
#[derive(Parser)]
#[command(
    version,
    after_help = "In order: data, prepare, weights, extract, train, evaluate, export, report."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Data(data::DataArgs),
    Prepare(split::PrepareArgs),
    Weights(backbone::WeightsArgs),
    Extract(extract::ExtractArgs),
    Merge(shards::MergeArgs),
    Train(train::TrainArgs),
    Evaluate(train::EvaluateArgs),
    Report(report::ReportArgs),
    Predict(report::PredictArgs),
    Export(export::ExportArgs),
    ExplainCheck(explain_check::ExplainCheckArgs),
    Teach(teach::TeachArgs),
    Answers(export::answers::AnswersArgs),
    Phantom(phantom::PhantomArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Data(args) => data::run(&args),
        Command::Prepare(args) => split::prepare(&args),
        Command::Weights(args) => backbone::run(&args),
        Command::Extract(args) => extract::extract(&args),
        Command::Merge(args) => shards::merge(&args),
        Command::Train(args) => train::train(&args),
        Command::Evaluate(args) => train::evaluate(&args),
        Command::Report(args) => report::run(&args),
        Command::Predict(args) => report::predict(&args),
        Command::Export(args) => export::run(&args),
        Command::ExplainCheck(args) => explain_check::run(&args),
        Command::Teach(args) => teach::run(&args),
        Command::Answers(args) => export::answers::run(&args),
        Command::Phantom(args) => phantom::run(&args),
    }
}
