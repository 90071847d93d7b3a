//! Which cuts of the launches are fastest on a device: measured there once, kept in a table that the engine reads.
//!
//! A table is for one device by its name and for one version of the kernels; its cuts are found by the shapes of what a launch
//! computes, so that it serves every model with such layers. Sums of integers do not depend on their order, so no table can
//! change an answer.

use super::driver::Context;
use super::examine::median;
use super::schedule::{CutAs, Cuts};
use super::{Cuda, CudaError, Device, Options, kernels, network};
use crate::engine::plan::Plan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Blocks for each multiprocessor that are tried.
const CANDIDATES: [usize; 7] = [1, 2, 3, 4, 6, 8, 12];
/// Times that a cut is measured.
const RUNS: usize = 7;
/// Another cut is taken where it needs less than this share of the usual one's time: less than that is noise.
const WORTH: f32 = 0.97;
/// More blocks than any launch has.
const MOST: usize = 1 << 16;

/// The table of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The device's name.
    pub device: String,
    /// Checksum of the kernels' sources.
    pub kernels: String,
    /// Launches that are cut otherwise than usual.
    pub cuts: Cuts,
}

/// What tuning gained.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// The table.
    pub table: Table,
    /// Milliseconds of all launches as they are cut without it.
    pub before: f32,
    /// And as it says, measured again; it is written where this is less.
    pub after: f32,
    /// Where it is written.
    pub place: PathBuf,
}

impl Table {
    /// Where the table of a device lies; `None` without a home.
    pub fn place(device: &Device) -> Option<PathBuf> {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let name: String = device.name.chars().map(plain).collect();
        Some(kernels::cache()?.join(format!("{name}-sm_{}.toml", device.capability)))
    }

    /// Reads a table.
    ///
    /// # Errors
    /// In a sentence, why it cannot be used on the device.
    pub fn read(path: &Path, device: &Device) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let table: Self =
            toml::from_str(&text).map_err(|error| format!("it is damaged ({})", error.message()))?;
        if table.device != device.name {
            return Err(format!("it is for {}", table.device));
        }
        if table.kernels != kernels::fingerprint() {
            return Err("it is for other kernels than this version's".into());
        }
        match table.cuts.iter().find(|(_, cut)| !(1..=MOST).contains(&cut.blocks)) {
            Some((shape, cut)) => Err(format!("it wants {} blocks for {shape}", cut.blocks)),
            None => Ok(table),
        }
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let text = toml::to_string(self).map_err(std::io::Error::other)?;
        kernels::keep(path, format!("# Made by `fovea tune`.\n{text}").as_bytes())
    }
}

/// The cuts of a device's table; none where there is no table, or one that cannot be used, which is said.
pub(super) fn known(device: &Device) -> Cuts {
    let Some(path) = Table::place(device).filter(|path| path.exists()) else { return Cuts::new() };
    match Table::read(&path, device) {
        Ok(table) => table.cuts,
        Err(why) => {
            tracing::warn!("{}: not used, {why}; run `fovea tune` again", path.display());
            Cuts::new()
        }
    }
}

/// Milliseconds of the launches by their shapes, and the answer.
fn measure(
    plan: &Plan,
    cuts: &Cuts,
    options: Options,
    input: &[u8],
) -> Result<(BTreeMap<String, f32>, Vec<u8>), CudaError> {
    let mut engine = Cuda::cut_as(plan.clone(), options, cuts)?;
    let answer = engine.run_bytes(input)?;
    let runs: Vec<Vec<f32>> = (0..RUNS).map(|_| engine.profile()).collect::<Result<_, _>>()?;
    let mut times = BTreeMap::new();
    for (number, launch) in engine.launches().iter().enumerate() {
        *times.entry(launch.shape.clone()).or_default() +=
            median(runs.iter().map(|run| run[number]).collect());
    }
    Ok((times, answer))
}

/// Times cuts of a plan's launches on the first device, for a picture's bytes, and writes the table that gains; `say` hears of
/// each.
///
/// # Errors
/// [`CudaError`]; [`CudaError::Table`] when the table cannot be written, or when a cut changes the answer.
pub fn tune(
    plan: &Plan,
    options: Options,
    input: &[u8],
    say: &mut dyn FnMut(String),
) -> Result<Tuned, CudaError> {
    let device = Context::open()?.device.clone();
    let place = Table::place(&device)
        .ok_or_else(|| CudaError::Table("neither XDG_CACHE_HOME nor HOME is set".into()))?;
    let usual = network::usual(&device);
    let with = |cut| Options { cut: Some(cut), ..options };
    let (base, answer) = measure(plan, &Cuts::new(), with(usual), input)?;
    let before: f32 = base.values().sum();
    say(format!("{device}: {before:.3} ms with {} blocks at least in each launch", usual.blocks));
    let (mut best, mut cuts) = (base.clone(), Cuts::new());
    for narrow in [false, true] {
        for blocks in CANDIDATES.map(|each| each * device.multiprocessors) {
            let cut = CutAs { blocks, narrow };
            if cut == usual {
                continue;
            }
            let (times, other) = measure(plan, &Cuts::new(), with(cut), input)?;
            if other != answer {
                return Err(CudaError::Table(format!(
                    "{cut:?} changes the answer; run `fovea doctor --gpu`"
                )));
            }
            let tiles = if narrow { "tiles of 32 outputs" } else { "tiles of 64 outputs" };
            say(format!("{blocks} blocks, {tiles}: {:.3} ms", times.values().sum::<f32>()));
            for (shape, time) in times {
                if time < base[&shape] * WORTH && time < best[&shape] {
                    best.insert(shape.clone(), time);
                    cuts.insert(shape, cut);
                }
            }
        }
    }
    let (times, other) = measure(plan, &cuts, with(usual), input)?;
    let after: f32 = times.values().sum();
    let table = Table { device: device.name.clone(), kernels: kernels::fingerprint(), cuts };
    if other == answer && after < before {
        table.write(&place).map_err(|error| CudaError::Table(format!("{}: {error}", place.display())))?;
    }
    Ok(Tuned { table, place, before, after })
}
