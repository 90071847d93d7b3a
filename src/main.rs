//! `fovea`: the appliance's command line.

mod cli;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tracing::Level;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// Reads retinal OCT B-scans. Decision support, not a diagnosis.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  fovea classify export/                      a line for each picture\n  \
                  fovea run --source folder:export --display png:screen\n  \
                  fovea doctor                                what works on this machine\n\n\
                  Exit codes:\n  0  all went well\n  1  some picture could not be read\n  \
                  2  wrong usage, configuration, model, engine or device\n  130  stopped by Ctrl-C"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The appliance: source, finding, screen
    Run(cli::run::RunArgs),
    /// Read pictures: a finding for each file
    Classify(cli::classify::ClassifyArgs),
    /// Show where a finding comes from
    Explain(cli::explain::ExplainArgs),
    /// Find the B-scan on the machine's screen and lock its place
    Region(cli::region::RegionArgs),
    /// Measure the engines of this build
    Bench(cli::bench::BenchArgs),
    /// Say what works on this machine
    Doctor(cli::doctor::DoctorArgs),
    /// Name and show the boards' profiles
    Board(cli::board::BoardCommand),
    /// Describe and verify the model package
    Model(cli::model::ModelCommand),
    /// Measure how the network is best cut for this machine's NVIDIA device
    Tune(cli::tune::TuneArgs),
}

fn main() -> ExitCode {
    log();
    let result = match Cli::parse().command {
        Command::Run(args) => cli::run::run(args),
        Command::Classify(args) => cli::classify::run(args),
        Command::Explain(args) => cli::explain::run(args),
        Command::Region(args) => cli::region::run(&args),
        Command::Bench(args) => cli::bench::run(args),
        Command::Doctor(args) => cli::doctor::run(args),
        Command::Board(args) => cli::board::run(args),
        Command::Model(args) => cli::model::run(args),
        Command::Tune(args) => cli::tune::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("fovea: {error:#}");
        ExitCode::from(cli::FAILED)
    })
}

/// The log on stderr: what is not as it should be, and which device was found.
fn log() {
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().with_target(false);
    let levels = Targets::new().with_default(Level::WARN).with_target("fovea::engine::cuda", Level::INFO);
    tracing_subscriber::registry().with(lines).with(levels).init();
}
