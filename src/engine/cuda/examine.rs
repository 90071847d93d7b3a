//! Whether a device computes rightly, and how fast: the report that an integrator can send. It holds nothing of any patient.

use super::schedule::{CutAs, THREADS};
use super::{Cuda, CudaError, Device, Options, kernels};
use crate::engine::plan::Plan;
use crate::engine::scalar::Scalar;
use crate::engine::suite::{self, View};
use crate::engine::{Ask, Engine, GOLDEN_BOUND, Proof, Seen, see};
use crate::explain::contribution;
use crate::explain::light::{Scan, draw, heat};
use crate::model::Head;
use crate::prepare::{NetworkInput, Prepared};
use serde::Serialize;
use std::time::{Duration, Instant};

/// What a device did with the suite and with a network.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Fovea's version.
    pub version: &'static str,
    /// Processor and system.
    pub machine: String,
    /// The device and its driver.
    pub device: Device,
    /// Which form of the kernels it took.
    pub kernels: String,
    /// Checksum of their sources.
    pub sources: String,
    /// The network is one graph.
    pub graph: bool,
    /// Problems of the suite that were solved to the bit.
    pub solved: usize,
    /// Pictures that were prepared and explained as the processor does.
    pub pictures: usize,
    /// What the network did, where it ran.
    pub network: Option<Network>,
    /// All that was wrong; nothing where the device computes rightly.
    pub faults: Vec<String>,
}

/// The network on the golden picture.
#[derive(Clone, Debug, Serialize)]
pub struct Network {
    /// Bytes of the features.
    pub bytes: usize,
    /// How many of them are not the scalar engine's.
    pub wrong: usize,
    /// Largest difference of a logit from the golden answer; an engine is used up to the bound.
    pub golden_difference: f32,
    /// The bound.
    pub golden_bound: f32,
    /// Milliseconds of each picture from bytes to logits, in order.
    pub pictures: Vec<f32>,
    /// Milliseconds of the launches, each the median of as many times.
    pub launches: Vec<Layer>,
}

/// A launch: one step of the plan, or several at once.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Its steps.
    pub steps: Vec<String>,
    /// Their shapes.
    pub shape: String,
    /// Blocks of the launch.
    pub blocks: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Useful multiply-accumulates.
    pub products: u64,
    /// Milliseconds on the device.
    pub millis: f32,
}

/// So many failures in a row say that no more are worth waiting for.
const ENOUGH: usize = 3;

/// Asks the first device for everything: the suite with usual and with many blocks, then `plan` on the golden picture, `runs` times.
///
/// # Errors
/// [`CudaError`] where there is no device that could be asked; what it does wrong is in the report.
pub fn examine(
    plan: &Plan,
    head: &Head,
    proof: &Proof,
    runs: usize,
    limit: Duration,
) -> Result<Report, CudaError> {
    let options = Options { limit, first_limit: limit, ..Options::default() };
    // Opens the device on the first problem, so that what follows is of one that exists.
    let first = suite::single_layer_plans().swap_remove(0);
    let engine = Cuda::of(first, None, options)?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        device: engine.device().clone(),
        kernels: engine.kernels().into(),
        sources: kernels::fingerprint(),
        graph: engine.is_graph(),
        solved: 0,
        pictures: 0,
        network: None,
        faults: Vec::new(),
    };
    drop(engine);
    let many = CutAs { blocks: 64, narrow: true };
    let mut failures = 0;
    for problem in suite::all() {
        for cut in [None, Some(many)] {
            if failures == ENOUGH {
                report.faults.push("the rest of the suite was left out".into());
                return Ok(report);
            }
            match solve(&problem, Options { cut, ..options }) {
                Ok(()) => (report.solved, failures) = (report.solved + 1, 0),
                Err(fault) => {
                    failures += 1;
                    let name = problem.steps.first().map_or("", |step| step.name());
                    report.faults.push(format!(
                        "suite, {} steps from {name}, {cut:?}: {fault}\n{problem}",
                        problem.steps.len()
                    ));
                }
            }
        }
    }
    match suite::tiny_network().map(|tiny| Cuda::of(tiny, Some(head.clone()), options)) {
        Some(Ok(mut engine)) => {
            for view in suite::views() {
                match fault_of(&mut engine, &view, head) {
                    None => report.pictures += 1,
                    Some(fault) => report.faults.push(format!("picture {fault}")),
                }
            }
        }
        Some(Err(error)) => report.faults.push(format!("pictures: {error}")),
        None => {}
    }
    match network(plan, proof, runs, options) {
        Ok(network) => {
            if network.wrong > 0 {
                report.faults.push(format!(
                    "network: {} of {} bytes differ from the scalar engine",
                    network.wrong, network.bytes
                ));
            }
            if network.golden_difference > GOLDEN_BOUND {
                report
                    .faults
                    .push(format!("network: the golden picture is off by {}", network.golden_difference));
            }
            report.network = Some(network);
        }
        Err(fault) => report.faults.push(format!("network: {fault}")),
    }
    Ok(report)
}

/// All inputs of a problem, twice each, so that nothing of one is left for the next.
fn solve(problem: &Plan, options: Options) -> Result<(), String> {
    let mut scalar = Scalar::of(problem.clone());
    let mut cuda = Cuda::of(problem.clone(), None, options).map_err(|error| error.to_string())?;
    for input in suite::inputs(problem, 2) {
        let expected = scalar.run_bytes(&input);
        for _ in 0..2 {
            let got = cuda.run_bytes(&input).map_err(|error| error.to_string())?;
            let wrong = differing(&got, &expected);
            if wrong > 0 {
                return Err(format!("{wrong} of {} bytes differ from the scalar engine", got.len()));
            }
        }
    }
    Ok(())
}

/// What of a picture the engine prepares, computes or explains otherwise than the processor.
fn fault_of(engine: &mut Cuda, view: &View, head: &Head) -> Option<String> {
    let ask = view.ask().ok()?;
    let size = format!("{}x{}", view.frame.width(), view.frame.height());
    let seen = match see(engine, &ask) {
        Ok(seen) => seen,
        Err(error) => return Some(format!("{size}: {error}")),
    };
    compare(&seen, &ask, head).map(|what| format!("{size}: {what}"))
}

/// What of an answer is not as the processor has it.
pub fn compare(seen: &Seen, ask: &Ask<'_>, head: &Head) -> Option<String> {
    let Prepared { input, whole, place } = ask.preparation.prepare_cut(ask.cut);
    let pixels = |a: &NetworkInput, b: &NetworkInput| differing(&a.0[..], &b.0[..]);
    let wrong = [pixels(&seen.prepared.whole, &whole), pixels(&seen.prepared.input, &input)];
    if wrong != [0, 0] || seen.prepared.place != place {
        return Some(format!(
            "{} pixels of the whole, {} of the band differ; {:?} is {place:?}",
            wrong[0], wrong[1], seen.prepared.place
        ));
    }
    let light = seen.light.as_ref()?;
    let logits = head.logits(&seen.output.features);
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Two that are as good as equal may be taken one for the other.
    if logits[light.class.index()] < largest - 1e-3 {
        return Some(format!("{} has the largest logit of {logits:?}", light.class));
    }
    let map = contribution(head, &seen.output.features, light.class).map;
    let top = map.iter().fold(0.0f32, |top, value| top.max(value.abs()));
    let off = map.iter().zip(light.map).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    if off.is_nan() || off > top * 1e-3 {
        return Some(format!("the map is off by {off} where {top} is its largest"));
    }
    let lit = light.picture.as_ref()?;
    let frame = ask.cut.frame();
    let scan = Scan {
        width: frame.width() as usize,
        grey: frame.shared_pixels(),
        map: Some(Box::new(heat(&light.map))),
        place,
        lit: None,
    };
    let mut rgb = vec![0; lit.rgb.len()];
    draw(&scan, lit.size, &mut rgb, lit.pitch);
    let row = lit.size[0] as usize * 3;
    let rows = rgb.chunks(lit.pitch).zip(lit.rgb.chunks(lit.pitch));
    let wrong: usize = rows.map(|(a, b)| differing(&a[..row], &b[..row])).sum();
    (wrong > 0).then(|| format!("{wrong} bytes of the picture for the screen differ"))
}

fn network(plan: &Plan, proof: &Proof, runs: usize, options: Options) -> Result<Network, String> {
    let failed = |error: CudaError| error.to_string();
    let macs: Vec<u64> = plan.steps.iter().map(|step| plan.macs(step)).collect();
    let mut cuda = Cuda::of(plan.clone(), None, options).map_err(failed)?;
    let input = &proof.input.0[..];
    let got = cuda.run_bytes(input).map_err(failed)?;
    let expected = Scalar::of(plan.clone()).run_bytes(input);
    let golden_difference = proof.difference(&mut cuda).map_err(|error| error.to_string())?;
    let mut pictures = Vec::with_capacity(runs);
    let mut times: Vec<Vec<f32>> = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        cuda.run(&proof.input).map_err(|error| error.to_string())?;
        pictures.push(start.elapsed().as_secs_f32() * 1000.0);
        times.push(cuda.profile().map_err(failed)?);
    }
    let launches = cuda.launches().iter().enumerate().map(|(number, launch)| {
        let steps = &cuda.steps()[launch.first..launch.first + launch.jobs];
        Layer {
            steps: steps.iter().map(|&step| cuda.plan().steps[step].name().into()).collect(),
            shape: launch.shape.clone(),
            blocks: launch.blocks,
            threads: THREADS,
            products: steps.iter().map(|&step| macs[step]).sum(),
            millis: median(times.iter().map(|run| run[number]).collect()),
        }
    });
    Ok(Network {
        bytes: expected.len(),
        wrong: differing(&got, &expected),
        golden_difference,
        golden_bound: GOLDEN_BOUND,
        launches: launches.collect(),
        pictures,
    })
}

fn differing(got: &[u8], expected: &[u8]) -> usize {
    got.iter().zip(expected).filter(|(a, b)| a != b).count()
}

/// The middle of some times; 0 of none.
pub(super) fn median(mut times: Vec<f32>) -> f32 {
    times.sort_by(f32::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}
