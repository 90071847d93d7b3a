//! The commands, one file each, and what they share.

pub mod bench;
pub mod board;
pub mod classify;
pub mod doctor;
pub mod explain;
pub mod model;
pub mod region;
pub mod run;
pub mod tune;

use anyhow::Context;
use fovea::Reader;
use fovea::config::Config;
use fovea::model::{MANIFEST, Package};
use fovea::prepare::Region;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code: some picture could not be read.
pub const UNREAD: u8 = 1;
/// Exit code: usage, configuration, model, engine or device.
pub const FAILED: u8 = 2;
/// Exit code: Ctrl-C.
pub const STOPPED: u8 = 130;

/// Where the bundled model lies below a folder.
const BUNDLED: &str = "models/oct-inception-v3";

/// Which model, on which engine, over which part of the pictures.
#[derive(Debug, Default, clap::Args)]
pub struct ModelArgs {
    /// The model package; without it FOVEA_MODEL, the config's `model`, then models/oct-inception-v3 here or beside the
    /// program
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// The engine: auto, or a name that `fovea doctor` lists
    #[arg(long, value_name = "NAME")]
    pub engine: Option<String>,
    /// The board: a name that `fovea board list` gives, or a file that ends in .toml; without it the section [board] of the
    /// configuration
    #[arg(long, value_name = "NAME")]
    pub board: Option<String>,
    /// A configuration for model, engine and region; without it fovea.toml here if there is one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The B-scan's place in the pictures, in pixels
    #[arg(long, value_name = "X,Y,WIDTH,HEIGHT", value_parser = region)]
    pub region: Option<Region>,
}

fn region(text: &str) -> Result<Region, String> {
    let numbers: Vec<u32> = text.split(',').filter_map(|part| part.trim().parse().ok()).collect();
    match (numbers.as_slice(), text.split(',').count()) {
        (&[x, y, width, height], 4) => Ok(Region { x, y, width, height }),
        _ => Err("write four whole numbers: X,Y,WIDTH,HEIGHT".into()),
    }
}

impl ModelArgs {
    /// The configuration with the arguments laid over it.
    pub fn config(&self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None if Path::new("fovea.toml").is_file() => Config::read(Path::new("fovea.toml"))?,
            None => Config::default(),
        };
        if let Some(model) = self.model.clone().or_else(|| std::env::var_os("FOVEA_MODEL").map(PathBuf::from))
        {
            config.model = Some(model);
        }
        if let Some(engine) = &self.engine {
            config.engine.clone_from(engine);
        }
        if let Some(r) = self.region {
            config.region = Some([r.x, r.y, r.width, r.height]);
        }
        board::fit(&mut config, self.board.as_deref())?;
        Ok(config)
    }

    /// Opens the model and the engine.
    pub fn reader(&self) -> anyhow::Result<Reader> {
        reader(&self.config()?)
    }

    /// Opens and verifies the model.
    pub fn package(&self) -> anyhow::Result<Package> {
        Ok(Package::open(&model_folder(&self.config()?)?)?)
    }
}

/// Opens the model and the engine of a configuration.
pub fn reader(config: &Config) -> anyhow::Result<Reader> {
    let package = Arc::new(Package::open(&model_folder(config)?)?);
    let region = config.region.map(|[x, y, width, height]| Region { x, y, width, height });
    let engine = fovea::engine::open(&config.engine, &package, &config.gpu.options())?;
    Ok(Reader::with(package, engine, region))
}

/// The configured model's folder, or the bundled one.
pub fn model_folder(config: &Config) -> anyhow::Result<PathBuf> {
    if let Some(model) = &config.model {
        return Ok(model.clone());
    }
    bundled(BUNDLED, MANIFEST).map_err(|looked| {
        anyhow::anyhow!(
            "no model package found; give its folder with --model or FOVEA_MODEL (looked in {looked})"
        )
    })
}

/// A folder that comes with fovea and holds `file`: below the working directory, below the program's folder or one of
/// its next three parents (a build in a source tree), or in `../share/fovea` as packages have it. Else where it was
/// looked for.
pub fn bundled(folder: &str, file: &str) -> Result<PathBuf, String> {
    let mut places = vec![PathBuf::from(folder)];
    let program = std::env::current_exe().and_then(|path| path.canonicalize());
    if let Some(near) = program.as_ref().ok().and_then(|path| path.parent()) {
        places.extend(near.ancestors().take(4).map(|parent| parent.join(folder)));
        places.extend(near.parent().map(|parent| parent.join("share/fovea").join(folder)));
    }
    if let Some(found) = places.iter().find(|place| place.join(file).is_file()) {
        return Ok(found.clone());
    }
    Err(places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", "))
}

/// A flag that the first Ctrl-C (or SIGTERM) sets; the second ends the program at once.
pub fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(STOPPED));
        }
    })
    .context("Ctrl-C cannot be caught")?;
    Ok(stop)
}

/// A progress bar on stderr; indicatif hides it where stderr is no terminal.
pub fn progress(length: u64, what: &'static str) -> indicatif::ProgressBar {
    let style = indicatif::ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} · {eta} left");
    let bar = indicatif::ProgressBar::new(length).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// How many pictures to read at once: a thread each for the engine.
pub fn workers(most: usize) -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(most).max(1)
}
