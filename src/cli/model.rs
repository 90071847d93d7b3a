//! `fovea model`: what the package says, and whether it is whole.

use super::ModelArgs;
use fovea::engine::{self, EngineError};
use std::process::ExitCode;

/// Describes and verifies the model package.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fovea model info\n  fovea model verify --model models/oct-inception-v3\n\n\
                        Exit codes: 0 the package is whole, 2 it is not."
)]
pub struct ModelCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// What the package says of itself
    #[command(after_help = "Example:\n  fovea model info --model models/oct-inception-v3")]
    Info(ModelArgs),
    /// Check every file's SHA-256, and the golden picture on every engine
    #[command(after_help = "Example:\n  fovea model verify --model models/oct-inception-v3")]
    Verify(ModelArgs),
    /// The integer program that the model is lowered to, a line a step
    #[command(after_help = "Example:\n  fovea model plan --model models/oct-inception-v3")]
    Plan(ModelArgs),
}

/// Describes or verifies.
pub fn run(command: ModelCommand) -> anyhow::Result<ExitCode> {
    match command.what {
        What::Info(args) => info(&args),
        What::Verify(args) => verify(&args),
        What::Plan(args) => {
            println!("{}", engine::plan::Plan::read(&args.package()?.onnx)?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn info(args: &ModelArgs) -> anyhow::Result<ExitCode> {
    let package = args.package()?;
    let m = &package.manifest;
    println!("{} in {}", package.identity(), package.folder.display());
    println!("head         {}", format!("{:?}", m.head).to_lowercase());
    println!("labels       {}", m.labels.iter().map(|label| label.name()).collect::<Vec<_>>().join(", "));
    let p = &m.preparation;
    let band = if p.band < 100 {
        format!(", a band of {} % or more around the retina", p.band)
    } else {
        String::new()
    };
    println!(
        "preparation  {0}x{0}, {1} filter, white margins from {2}{band}",
        p.side, p.filter, p.margin_white
    );
    println!(
        "calibration  temperature {:.4}, UNCERTAIN below {:.1} %",
        m.calibration.temperature,
        m.calibration.threshold * 100.0
    );
    match m.gate.limit {
        Some(limit) => println!("gate         image statistics; feature distance above {limit:.2}"),
        None => println!("gate         image statistics"),
    }
    println!("scales       {} activations", m.scales.len());
    for (name, hash) in &m.files {
        println!("file         {name}  {hash}");
    }
    table("training", &m.training);
    Ok(ExitCode::SUCCESS)
}

fn table(prefix: &str, table: &toml::Table) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => self::table(&format!("{prefix}.{key}"), inner),
            toml::Value::String(text) => println!("{prefix}.{key}: {text}"),
            other => println!("{prefix}.{key}: {other}"),
        }
    }
}

fn verify(args: &ModelArgs) -> anyhow::Result<ExitCode> {
    let package = std::sync::Arc::new(args.package()?);
    for (name, hash) in &package.manifest.files {
        println!("{}: SHA-256 as in the manifest ({}…)", package.folder.join(name).display(), &hash[..12]);
    }
    for name in engine::names().filter(|name| args.engine.as_ref().is_none_or(|e| e == "auto" || e == name)) {
        let mut engine = match engine::open(name, &package, &engine::Options::default()) {
            // No fault of the package.
            Err(error @ EngineError::Absent { .. }) if args.engine.as_deref() != Some(name) => {
                println!("{error}");
                continue;
            }
            opened => opened?,
        };
        let off = engine::Proof::of(&package).difference(engine.as_mut())?;
        println!("engine {name}: golden picture within {off:.5} (bound {})", engine::GOLDEN_BOUND);
    }
    println!("{}: whole", package.identity());
    Ok(ExitCode::SUCCESS)
}
