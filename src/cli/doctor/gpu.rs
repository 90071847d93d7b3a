//! `fovea doctor --gpu`: does the device compute what the reference computes, and how fast?

use super::{BROKEN, WORKS, say};
use anyhow::Context;
use fovea::engine::cuda::examine::{Layer, Network, Report, examine};
use fovea::engine::{Proof, plan::Plan};
use fovea::model::Package;
use std::path::Path;
use std::time::Duration;

/// Pictures that are timed.
const RUNS: usize = 20;
/// A device that takes longer has hung; the slowest board needs a tenth of a second for a picture.
const LIMIT: Duration = Duration::from_secs(60);
/// Launches that are listed; the report has all.
const SLOWEST: usize = 10;

/// Examines the first device; true when it computes rightly.
pub fn run(package: &Package, json: Option<&Path>) -> anyhow::Result<bool> {
    let plan = Plan::read(&package.onnx)?;
    let report = match examine(&plan, &package.head, &Proof::of(package), RUNS, LIMIT) {
        Ok(report) => report,
        Err(error) => {
            say(BROKEN, "device", &error);
            write(
                json,
                &serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "faults": [error.to_string()] }),
            )?;
            return Ok(false);
        }
    };
    write(json, &report)?;
    print(&report);
    Ok(report.faults.is_empty())
}

fn write(to: Option<&Path>, report: &impl serde::Serialize) -> anyhow::Result<()> {
    let Some(path) = to else { return Ok(()) };
    std::fs::write(path, serde_json::to_string_pretty(report)?)
        .with_context(|| format!("{}: the report cannot be written", path.display()))
}

fn print(report: &Report) {
    let graph = if report.graph { "one graph" } else { "no graph: each launch is a call" };
    say(WORKS, "device", &report.device);
    say(WORKS, "kernels", format_args!("{}, {graph}", report.kernels));
    let mark = if report.faults.iter().any(|fault| fault.starts_with("suite")) { BROKEN } else { WORKS };
    say(mark, "suite", format_args!("{} problems are the scalar engine's answers to the bit", report.solved));
    let mark = if report.faults.iter().any(|fault| fault.starts_with("picture")) { BROKEN } else { WORKS };
    say(mark, "pictures", format_args!("{} are prepared and explained as by the processor", report.pictures));
    if let Some(network) = &report.network {
        network_line(network);
        slowest(&network.launches);
    }
    report.faults.iter().for_each(|fault| say(BROKEN, "fault", fault));
}

fn network_line(network: &Network) {
    let mark = if network.wrong == 0 { WORKS } else { BROKEN };
    let mut times = network.pictures.clone();
    times.sort_by(f32::total_cmp);
    let [least, median] = [0, times.len() / 2].map(|at| times.get(at).copied().unwrap_or_default());
    say(
        mark,
        "network",
        format_args!(
            "{} of {} bytes differ from the scalar engine; golden picture off by {:.4}; median {median:.2} ms, least {least:.2}",
            network.wrong, network.bytes, network.golden_difference
        ),
    );
}

fn slowest(launches: &[Layer]) {
    let mut list: Vec<&Layer> = launches.iter().collect();
    list.sort_by(|a, b| b.millis.total_cmp(&a.millis));
    println!("the {} slowest of {} launches:", SLOWEST.min(list.len()), list.len());
    for layer in list.into_iter().take(SLOWEST) {
        let rate = layer.products as f32 / layer.millis.max(1e-6) / 1e6;
        println!("  {:8.3} ms {rate:8.0} GMAC/s {:5} blocks  {}", layer.millis, layer.blocks, layer.shape);
    }
}
