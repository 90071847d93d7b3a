//! Two engines in turn, A B A B, so that what else the machine does falls on both.

use super::spread::{Spread, ratio};
use anyhow::{Context, bail};
use fovea::engine::{self, Engine, simd::Isa};
use fovea::model::{Package, golden_input};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The result of a comparison.
#[derive(Debug, Serialize)]
pub struct Compared {
    pub a: String,
    pub b: String,
    pub a_millis: Spread,
    pub b_millis: Spread,
    /// Median of A over median of B.
    pub ratio: f64,
    /// The interval that holds 95 % of the resampled ratios.
    pub interval: [f64; 2],
    /// Largest difference of a logit on the golden picture.
    pub logit_difference: f32,
}

/// The instructions of that name, which this CPU must have.
pub fn isa(name: &str) -> anyhow::Result<Isa> {
    let here: Vec<&str> = Isa::ALL.iter().filter(|isa| isa.is_here()).map(|isa| isa.name()).collect();
    let found = Isa::ALL.into_iter().find(|isa| isa.name() == name && isa.is_here());
    found.with_context(|| format!("no instructions '{name}' on this CPU; it has: {}", here.join(", ")))
}

/// Opens `NAME`, `simd:ISA`, `simd@THREADS` or `simd:ISA@THREADS`.
pub fn open(spec: &str, package: &Arc<Package>) -> anyhow::Result<Box<dyn Engine>> {
    let (rest, threads) = match spec.split_once('@') {
        Some((rest, threads)) => {
            let count = threads.parse().ok().filter(|count| (1..=1024).contains(count));
            (rest, Some(count.with_context(|| format!("'{threads}' is no number of threads"))?))
        }
        None => (spec, None),
    };
    let (name, instructions) = match rest.split_once(':') {
        Some((name, instructions)) => (name, Some(isa(instructions)?)),
        None => (rest, None),
    };
    if instructions.is_none() && threads.is_none() {
        return Ok(engine::open(name, package, &engine::Options::default())?);
    }
    if name != engine::simd::NAME {
        bail!("instructions and threads can be chosen for the engine simd only, not for '{name}'");
    }
    Ok(engine::open_simd(package, instructions, threads)?)
}

/// Runs both `runs` times in turn; `None` when stopped.
pub fn compare(
    pair: &str,
    package: &Arc<Package>,
    runs: usize,
    warmup: usize,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Compared>> {
    let (a, b) = pair.split_once(',').context("write two engines: --compare simd,tract")?;
    let mut engines = [open(a, package)?, open(b, package)?];
    let input = golden_input();
    let mut times = [Vec::new(), Vec::new()];
    let mut logits = [[0.0; 4]; 2];
    let bar = super::super::progress((runs + warmup) as u64, "comparing");
    for round in 0..runs + warmup {
        for (i, engine) in engines.iter_mut().enumerate() {
            if stop.load(Ordering::Relaxed) {
                bar.finish_and_clear();
                return Ok(None);
            }
            let start = Instant::now();
            logits[i] = engine.run(&input)?.logits;
            if round >= warmup {
                times[i].push(start.elapsed().as_secs_f64() * 1000.0);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (ratio, interval) = ratio(&times[0], &times[1]);
    let off = logits[0].iter().zip(logits[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let [a_millis, b_millis] = times.map(Spread::of);
    Ok(Some(Compared {
        a: a.into(),
        b: b.into(),
        a_millis,
        b_millis,
        ratio,
        interval,
        logit_difference: off,
    }))
}

impl Compared {
    /// In words.
    pub fn table(&self) -> String {
        let line = |name: &str, s: &Spread| {
            format!(
                "{name:<24} median {:.2} ms · p5 {:.2} · p95 {:.2} · minimum {:.2}\n",
                s.median, s.p5, s.p95, s.minimum
            )
        };
        format!(
            "{}{}{} takes {:.3} of {}'s time (95 %: {:.3} to {:.3}, {} rounds in turn); logits differ by {:.5}",
            line(&self.a, &self.a_millis),
            line(&self.b, &self.b_millis),
            self.a,
            self.ratio,
            self.b,
            self.interval[0],
            self.interval[1],
            self.a_millis.runs,
            self.logit_difference
        )
    }
}
