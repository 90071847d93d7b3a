//! `fovea run`: the appliance.

use anyhow::Context;
use fovea::appliance::{self, Classifier};
use fovea::config::Config;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Source to finding to screen, continuously.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The configuration; without it, fovea.toml here if there is one
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where pictures come from: folder:DIR or replay:DIR?fps=N
    #[arg(long)]
    source: Option<String>,
    /// Where the screen goes: png:DIR, window or none
    #[arg(long)]
    display: Option<String>,
}

/// Runs the appliance with the classifier that `connect` makes; it also gives the model's name and version.
///
/// # Errors
/// When the configuration, the model, the source or the display fails.
pub fn run_with(
    args: RunArgs,
    connect: impl FnOnce(&Config) -> anyhow::Result<(String, Classifier)>,
) -> anyhow::Result<ExitCode> {
    let mut config = match args.config {
        Some(path) => Config::read(&path)?,
        None if Path::new("fovea.toml").is_file() => Config::read(Path::new("fovea.toml"))?,
        None => Config::default(),
    };
    config.source = args.source.unwrap_or(config.source);
    config.display = args.display.unwrap_or(config.display);
    appliance::Source::parse(&config.source)?;
    let mut display = fovea_board::open(&config.display)?;
    let (model, classifier) = connect(&config)?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("Ctrl-C cannot be caught")?;
    appliance::run(&config, &model, classifier, display.as_mut(), &stop, &mut |line| println!("{line}"))?;
    Ok(ExitCode::SUCCESS)
}
