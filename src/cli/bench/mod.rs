//! `fovea bench`: how fast the engines are here, what each stage and layer takes, how a fresh process starts.

mod compare;
mod layers;
mod serve;
mod spread;
mod stages;

use super::{ModelArgs, STOPPED};
use anyhow::Context;
use fovea::Reader;
use fovea::engine::{self, simd};
use fovea::model::{Package, golden_input};
use serde::Serialize;
use spread::Spread;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Measures the engines of this build, one picture at a time: latency, each stage of a picture's way, each layer, cold
/// start and memory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fovea bench\n  fovea bench --engine simd --threads 1 --layers\n  \
                        fovea bench --json --runs 50 scan.png > bench.json\n  fovea bench --compare simd,tract\n  \
                        fovea bench --compare simd@1,simd:avx2@1\n\n\
                        --compare takes NAME, simd:INSTRUCTIONS, simd@THREADS or simd:INSTRUCTIONS@THREADS twice and runs \
                        them in turn.\nA layer's share of the peak is its multiply-accumulates a second against a loop that \
                        touches registers only, measured at the start.\n\n\
                        Exit codes: 0 measured, 2 no engine could be measured, 130 stopped by Ctrl-C.")]
pub struct BenchArgs {
    /// The picture whose way is measured; without it a drawn pattern of 768x496 pixels
    picture: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Runs that are measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Runs before them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    warmup: u32,
    /// Threads of the engine simd; without it all cores
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Instructions of the engine simd (avx2, avx-vnni, avx512-vnni, …); without it the fastest here
    #[arg(long, value_name = "NAME")]
    isa: Option<String>,
    /// Every layer of the engine simd; without it the ten that lose most time
    #[arg(long)]
    layers: bool,
    /// Two engines in turn, and the ratio of their medians
    #[arg(long, value_name = "A,B")]
    compare: Option<String>,
    /// Leave out what starts the program again: cold start and memory
    #[arg(long)]
    no_start: bool,
    /// Read names of pictures from stdin and answer each with a line of JSON: for scripts
    #[arg(long, conflicts_with_all = ["compare", "json", "layers"])]
    serve: bool,
    #[command(flatten)]
    model: ModelArgs,
}

impl BenchArgs {
    /// Opens an engine with the instructions and threads asked for, which only the engine simd takes.
    fn open(&self, name: &str, package: &Arc<Package>) -> anyhow::Result<Box<dyn engine::Engine>> {
        if name == simd::NAME && (self.threads.is_some() || self.isa.is_some()) {
            let isa = self.isa.as_deref().map(compare::isa).transpose()?;
            return Ok(engine::open_simd(package, isa, self.threads.map(|t| t as usize))?);
        }
        Ok(engine::open(name, package, &self.model.config()?.gpu.options())?)
    }

    fn reader(&self) -> anyhow::Result<Reader> {
        let config = self.model.config()?;
        let package = Arc::new(Package::open(&super::model_folder(&config)?)?);
        let region =
            config.region.map(|[x, y, width, height]| fovea::prepare::Region { x, y, width, height });
        let asked = self.threads.is_some() || self.isa.is_some();
        let name = if config.engine == "auto" && asked { simd::NAME } else { &config.engine };
        let engine = self.open(name, &package)?;
        Ok(Reader::with(package, engine, region))
    }
}

/// An engine's figures; times in milliseconds.
#[derive(Serialize)]
struct Measured {
    engine: &'static str,
    /// Opening, with the golden picture.
    load: f64,
    /// The first run after that.
    first: f64,
    minimum: f64,
    p5: f64,
    median: f64,
    p95: f64,
    runs: usize,
    warmup: u32,
    /// Largest difference of a logit on the golden picture.
    golden_difference: f32,
    stages: stages::Stages,
    /// The engine simd's layers.
    layers: Option<layers::Layers>,
    fresh: Option<serve::Fresh>,
}

#[derive(Serialize)]
struct Report {
    model: String,
    architecture: &'static str,
    cores: usize,
    threads: Option<u32>,
    version: &'static str,
    engines: Vec<Measured>,
    failed: Vec<String>,
}

/// Measures.
pub fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    if args.serve {
        return serve::serve(&args);
    }
    let stop = super::stop_flag()?;
    let package = Arc::new(args.model.package()?);
    if let Some(pair) = &args.compare {
        let compared = compare::compare(pair, &package, args.runs as usize, args.warmup as usize, &stop)?;
        let Some(compared) = compared else { return Ok(ExitCode::from(STOPPED)) };
        match args.json {
            true => println!("{}", serde_json::to_string_pretty(&compared)?),
            false => println!("{}", compared.table()),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = args.model.config()?.engine;
    let names: Vec<&str> = if wanted == "auto" { engine::names().collect() } else { vec![wanted.as_str()] };
    let mut report = Report {
        model: package.identity(),
        architecture: std::env::consts::ARCH,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        threads: args.threads,
        version: env!("CARGO_PKG_VERSION"),
        engines: Vec::new(),
        failed: Vec::new(),
    };
    let drawn = Drawn::new(args.picture.is_none())?;
    let picture = args.picture.as_deref().unwrap_or(&drawn.path);
    for name in names {
        match measure(&args, name, &package, picture, &stop) {
            Ok(Some(measured)) => report.engines.push(measured),
            Ok(None) => return Ok(ExitCode::from(STOPPED)),
            // A device that this machine does not have is missed where it was asked for.
            Err(error) if wanted == "auto" && is_absence(&error) => {}
            Err(error) => report.failed.push(format!("{error:#}")),
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report, args.layers);
    }
    Ok(if report.engines.is_empty() { ExitCode::from(super::FAILED) } else { ExitCode::SUCCESS })
}

fn is_absence(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(engine::EngineError::Absent { .. }))
}

fn measure(
    args: &BenchArgs,
    name: &str,
    package: &Arc<Package>,
    picture: &Path,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Measured>> {
    let input = golden_input();
    let millis = |start: Instant| start.elapsed().as_secs_f64() * 1000.0;
    let start = Instant::now();
    let mut engine = args.open(name, package)?;
    let load = millis(start);
    let golden_difference = engine::Proof::of(package).difference(engine.as_mut())?;
    let bar = super::progress(u64::from(args.warmup + args.runs), engine.name());
    let mut times = Vec::new();
    let mut first = None;
    for i in 0..args.warmup + args.runs {
        if stop.load(Ordering::Relaxed) {
            bar.finish_and_clear();
            return Ok(None);
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
    let name = engine.name();
    let mut reader = Reader::with(Arc::clone(package), engine, None);
    // A slow engine's stages are known from few runs; its own time is measured above.
    let runs = args.runs.clamp(1, 20) as usize;
    let stages = stages::measure(&mut reader, picture, runs)?;
    drop(reader);
    let layers = match name {
        simd::NAME => {
            let isa = args.isa.as_deref().map(compare::isa).transpose()?;
            let engine = simd::Simd::new(&package.onnx, isa, args.threads.map(|t| t as usize))?;
            Some(layers::measure(&package.onnx, engine, runs)?)
        }
        _ => None,
    };
    if stop.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let fresh = if args.no_start { None } else { Some(serve::fresh(args, name, picture, 5)?) };
    let Spread { minimum, p5, median, p95, runs } = Spread::of(times);
    Ok(Some(Measured {
        engine: name,
        load,
        first: first.unwrap_or_default(),
        minimum,
        p5,
        median,
        p95,
        runs,
        warmup: args.warmup,
        golden_difference,
        stages,
        layers,
        fresh,
    }))
}

fn print(report: &Report, all_layers: bool) {
    println!("{} on {} with {} cores; ms a picture", report.model, report.architecture, report.cores);
    for m in &report.engines {
        println!(
            "\n{:8} median {:.1} · p5 {:.1} · p95 {:.1} · minimum {:.1} · first {:.1} · load {:.0} ({} runs)",
            m.engine, m.median, m.p5, m.p95, m.minimum, m.first, m.load, m.runs
        );
        if let Some(fresh) = &m.fresh {
            println!(
                "fresh process: first finding after {:.0} ms (minimum {:.0}, {} starts); peak memory {:.1} MB after 20 pictures",
                fresh.cold_start.median,
                fresh.cold_start.minimum,
                fresh.cold_start.runs,
                fresh.peak_kb as f64 / 1024.0
            );
        }
        println!("{}", m.stages.table());
        if let Some(layers) = &m.layers {
            println!("{}", layers.table(if all_layers { None } else { Some(10) }));
        }
    }
    report.failed.iter().for_each(|why| println!("{why}"));
}

/// A picture on disk for when none is given, gone with the value.
struct Drawn {
    path: PathBuf,
    here: bool,
}

impl Drawn {
    fn new(needed: bool) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("fovea-bench-{}.png", std::process::id()));
        if needed {
            // Layers as a B-scan has them, with speckle.
            let grey = |x: u32, y: u32| {
                let depth = y as f32 - 180.0 - 20.0 * (x as f32 / 110.0).sin();
                let light = if (0.0..90.0).contains(&depth) { 100 + 50 * u8::from(depth > 60.0) } else { 10 };
                let speckle = (x.wrapping_mul(73_856_093) ^ y.wrapping_mul(19_349_663))
                    .wrapping_mul(2_654_435_761)
                    >> 27;
                image::Luma([light + speckle as u8])
            };
            image::GrayImage::from_fn(768, 496, grey)
                .save(&path)
                .with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        Ok(Self { path, here: needed })
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        if self.here {
            drop(std::fs::remove_file(&self.path));
        }
    }
}
