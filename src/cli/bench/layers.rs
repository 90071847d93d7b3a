//! How near each layer of the integer engine comes to what the multiply units can do.

use super::spread::Spread;
use fovea::engine::plan::{Plan, Step};
use fovea::engine::simd::{Simd, peak};
use fovea::model::golden_input;
use prost::bytes::Bytes;
use serde::Serialize;
use std::collections::HashMap;

/// A layer's figures.
#[derive(Debug, Serialize)]
pub struct Layer {
    pub name: String,
    pub mmac: f64,
    /// Milliseconds.
    pub median: f64,
    pub gmac_per_second: f64,
    /// Of the measured peak of the multiply units; 0 for pools, absent where no peak is known.
    pub of_peak: Option<f64>,
    /// Bytes of weights, of the input and of the output; absent where the engine made one step of several.
    pub weight_bytes: Option<usize>,
    pub input_bytes: Option<usize>,
    pub output_bytes: Option<usize>,
    /// Multiply-accumulates for each byte of weights and activations.
    pub intensity: Option<f64>,
    /// Products that one output sums.
    pub products: Option<u64>,
    /// What it waits for most likely, in words.
    pub waits_for: &'static str,
}

/// All layers, and the peak they are measured against.
#[derive(Debug, Serialize)]
pub struct Layers {
    pub isa: &'static str,
    pub threads: usize,
    /// Multiply-accumulates a second of a register-only loop on all threads, in thousand millions.
    pub peak_gmac: Option<f64>,
    pub layers: Vec<Layer>,
}

/// Bytes of weights beyond which they come from outside a core's own cache, roughly.
const CACHE: usize = 1 << 20;

/// Thousand millions of bytes that a copy beyond the caches reads and writes a second.
fn copied() -> f64 {
    let (from, mut to) = (vec![1u8; 32 << 20], vec![0u8; 32 << 20]);
    let once = || {
        let start = std::time::Instant::now();
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
        2.0 * from.len() as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    std::iter::repeat_with(once).take(4).fold(0.0, f64::max)
}

/// Measures every layer `runs` times.
pub fn measure(onnx: &Bytes, mut engine: Simd, runs: usize) -> anyhow::Result<Layers> {
    let (isa, threads) = (engine.isa(), engine.threads());
    let peaks: Vec<Option<f64>> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(move || peak(isa))).collect();
        all.into_iter().map(|thread| thread.join().unwrap_or(None)).collect()
    });
    let peak_gmac = peaks.into_iter().sum::<Option<f64>>().map(|all| all / 1e9);
    let plan = Plan::read(onnx)?;
    let sizes: HashMap<&str, [usize; 3]> = plan
        .steps
        .iter()
        .map(|step| {
            let (from, to) = step.tensors();
            let weights = if let Step::Convolution(c) = step { c.weight.len() } else { 0 };
            let bytes = |t: usize| plan.tensors[t].shape.iter().product();
            (step.name(), [weights, bytes(from), bytes(to)])
        })
        .collect();
    let copied = copied();
    let input = golden_input();
    let mut times: Vec<Vec<f64>> = Vec::new();
    let mut steps = Vec::new();
    for run in 0..runs + 2 {
        steps = engine.profile(&input);
        times.resize(steps.len(), Vec::new());
        // The first runs fill caches.
        if run >= 2 {
            times.iter_mut().zip(&steps).for_each(|(all, (_, _, time))| all.push(time * 1000.0));
        }
    }
    let layers = steps
        .into_iter()
        .zip(times)
        .map(|((name, macs, _), times)| {
            let median = Spread::of(times).median;
            let gmac = macs as f64 / median / 1e6;
            let size = sizes.get(name.as_str());
            let of_peak = peak_gmac.map(|peak| gmac / peak);
            let intensity = size.map(|s| macs as f64 / s.iter().sum::<usize>().max(1) as f64);
            let products = size.map(|s| macs / s[2].max(1) as u64);
            let bytes = size.map_or(0, |s| s.iter().sum::<usize>()) as f64;
            let waits_for = match products {
                Some(0) => "memory: it moves bytes and multiplies nothing",
                _ if of_peak.is_some_and(|share| share > 0.6) => "multiply units",
                _ if bytes / median / 1e6 > 0.5 * copied => {
                    "memory: its bytes come nearly as fast as a copy's"
                }
                Some(..=300) => "each output: few products between requantising and addresses",
                _ if size.is_some_and(|s| s[0] > CACHE) => "weights: more than the core's cache holds",
                _ => "loads into registers between the products",
            };
            Layer {
                mmac: macs as f64 / 1e6,
                median,
                gmac_per_second: gmac,
                of_peak,
                weight_bytes: size.map(|s| s[0]),
                input_bytes: size.map(|s| s[1]),
                output_bytes: size.map(|s| s[2]),
                intensity,
                products,
                waits_for,
                name,
            }
        })
        .collect();
    Ok(Layers { isa: isa.name(), threads, peak_gmac, layers })
}

impl Layers {
    /// A line a layer, or with `worst` only those that lose most time against the peak.
    pub fn table(&self, worst: Option<usize>) -> String {
        let lost = |layer: &Layer| layer.median * (1.0 - layer.of_peak.unwrap_or(0.0));
        let mut shown: Vec<&Layer> = self.layers.iter().collect();
        if let Some(count) = worst {
            shown.sort_by(|a, b| lost(b).total_cmp(&lost(a)));
            shown.truncate(count);
        }
        let mut text = format!(
            "{:<30} {:>8} {:>8} {:>8} {:>7} {:>9} {:>6} {:>5}  waits for\n",
            "layer", "Mmac", "ms", "GMAC/s", "of peak", "weights B", "MAC/B", "sums"
        );
        for l in shown {
            let share = l.of_peak.map_or("-".into(), |share| format!("{:.0} %", share * 100.0));
            let number = |n: Option<String>| n.unwrap_or_else(|| "-".into());
            text += &format!(
                "{:<30} {:>8.2} {:>8.3} {:>8.1} {share:>7} {:>9} {:>6} {:>5}  {}\n",
                l.name,
                l.mmac,
                l.median,
                l.gmac_per_second,
                number(l.weight_bytes.map(|w| w.to_string())),
                number(l.intensity.map(|i| format!("{i:.0}"))),
                number(l.products.map(|p| p.to_string())),
                l.waits_for
            );
        }
        let (time, mmac): (f64, f64) =
            self.layers.iter().fold((0.0, 0.0), |(t, m), l| (t + l.median, m + l.mmac));
        let peak = self.peak_gmac.map_or("unknown".into(), |peak| format!("{peak:.0} GMAC/s"));
        let share =
            self.peak_gmac.map_or(String::new(), |peak| format!(" = {:.0} %", mmac / time / peak * 100.0));
        text + &format!(
            "all: {mmac:.0} Mmac in {time:.2} ms, {:.0} GMAC/s{share} of the peak ({peak} of {} on {} threads)",
            mmac / time,
            self.isa,
            self.threads
        )
    }
}
