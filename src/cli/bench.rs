//! `fovea bench`: how fast the engines are here.

use super::{ModelArgs, STOPPED};
use fovea::engine;
use fovea::model::golden_input;
use serde::Serialize;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Measures each engine of this build on the golden picture, one picture at a time.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fovea bench\n  fovea bench --json --engine tract --runs 50\n\n\
                        Exit codes: 0 measured, 2 no engine could be measured, 130 stopped by Ctrl-C.")]
pub struct BenchArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Runs that are measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Runs before them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    warmup: u32,
    #[command(flatten)]
    model: ModelArgs,
}

/// An engine's times in milliseconds.
#[derive(Serialize)]
struct Measured {
    engine: &'static str,
    /// Opening, with the golden picture.
    load: f64,
    /// The first run after that.
    first: f64,
    minimum: f64,
    median: f64,
    p95: f64,
    runs: usize,
    warmup: u32,
    /// Largest difference of a logit on the golden picture.
    golden_difference: f32,
}

#[derive(Serialize)]
struct Report {
    model: String,
    architecture: &'static str,
    cores: usize,
    version: &'static str,
    engines: Vec<Measured>,
    failed: Vec<String>,
}

/// Measures.
pub fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let stop = super::stop_flag()?;
    let package = args.model.package()?;
    let wanted = args.model.config()?.engine;
    let names: Vec<&str> = if wanted == "auto" { engine::names().collect() } else { vec![wanted.as_str()] };
    let mut report = Report {
        model: package.identity(),
        architecture: std::env::consts::ARCH,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        version: env!("CARGO_PKG_VERSION"),
        engines: Vec::new(),
        failed: Vec::new(),
    };
    let input = golden_input();
    let millis = |start: Instant| start.elapsed().as_secs_f64() * 1000.0;
    for name in names {
        let start = Instant::now();
        let mut engine = match engine::open(name, &package) {
            Ok(engine) => engine,
            Err(error) => {
                report.failed.push(error.to_string());
                continue;
            }
        };
        let load = millis(start);
        let bar = super::progress(u64::from(args.warmup + args.runs), engine.name());
        let mut times = Vec::new();
        let mut first = None;
        for i in 0..args.warmup + args.runs {
            if stop.load(Ordering::Relaxed) {
                bar.finish_and_clear();
                return Ok(ExitCode::from(STOPPED));
            }
            let start = Instant::now();
            engine.run(&input)?;
            let time = millis(start);
            first.get_or_insert(time);
            if i >= args.warmup {
                times.push(time);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        report.engines.push(Measured {
            engine: engine.name(),
            load,
            first: first.unwrap_or_default(),
            minimum: at(0.0),
            median: at(0.5),
            p95: at(0.95),
            runs: times.len(),
            warmup: args.warmup,
            golden_difference: engine::golden_difference(engine.as_mut(), &package)?,
        });
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{} on {} with {} cores; ms a picture", report.model, report.architecture, report.cores);
        for m in &report.engines {
            println!(
                "{:8} median {:.1} · p95 {:.1} · minimum {:.1} · first {:.1} · load {:.0} ({} runs)",
                m.engine, m.median, m.p95, m.minimum, m.first, m.load, m.runs
            );
        }
        report.failed.iter().for_each(|why| println!("{why}"));
    }
    Ok(if report.engines.is_empty() { ExitCode::from(super::FAILED) } else { ExitCode::SUCCESS })
}
