//! `fovea doctor`: what works on this machine, in words.

#[cfg(feature = "cuda")]
mod gpu;
#[cfg(target_os = "linux")]
mod parts;
mod proof;

use super::{FAILED, ModelArgs};
use fovea::engine;
use fovea::model::Package;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Looks at this machine and says what works, what is missing and what to do.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fovea doctor\n  fovea doctor --board orin-nano       each part that the board names\n  \
                  fovea doctor --self-test --source v4l2:///dev/video0     before an update is marked good\n  \
                  fovea doctor --gpu --json report.json\n\n\
                  Exit codes: 0 pictures can be read here (with --board or --self-test: every part works; with --gpu: the \
                  device computes rightly), 2 they cannot."
)]
pub struct DoctorArgs {
    /// Prove the whole way of a picture, and only that: the golden picture on the chosen engine, the display, the source,
    /// the disk
    #[arg(long)]
    self_test: bool,
    /// The source for --self-test; without it the configuration's
    #[arg(long, requires = "self_test")]
    source: Option<String>,
    /// The display for --self-test; without it the configuration's or the board's
    #[arg(long, requires = "self_test")]
    display: Option<String>,
    /// Examine the NVIDIA device: every problem of the engines' suite and the network against the reference, and the time of
    /// each layer; takes a minute
    #[arg(long)]
    gpu: bool,
    /// Also write what --gpu found to a file that can be sent; it holds nothing of any patient
    #[arg(long, value_name = "FILE", requires = "gpu")]
    json: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
}

fn say(mark: &str, what: &str, words: impl std::fmt::Display) {
    println!("{mark:8} {what:10} {words}");
}

const WORKS: &str = "works";
const ABSENT: &str = "absent";
const BROKEN: &str = "BROKEN";

/// Looks.
pub fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    if args.self_test {
        let mut config = args.model.config()?;
        config.source = args.source.unwrap_or(config.source);
        config.display = args.display.unwrap_or(config.display);
        let good = proof::run(&config);
        println!("{}", if good { "The self-test passed." } else { "The self-test FAILED." });
        return Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
    }
    if args.gpu {
        let right = examine(&args)?;
        println!(
            "{}",
            if right { "The device computes rightly." } else { "The device cannot be used: see above." }
        );
        return Ok(if right { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
    }
    say(
        WORKS,
        "program",
        format_args!(
            "fovea {} for {}-{}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH,
            std::env::consts::OS
        ),
    );
    processor();
    graphics();
    let able = model(&args.model);
    displays();
    cameras();
    #[cfg(target_os = "linux")]
    if let Some(name) = &args.model.board {
        println!("Board {name}:");
        let config = args.model.config()?;
        let drawn = match fovea_board::open(&config.display) {
            Ok(_) => true,
            Err(_) if config.display == "auto" => true,
            Err(error) => {
                say(BROKEN, "display", error);
                false
            }
        };
        if !(parts::run(&config.board) && drawn) {
            println!("Board {name} does not work as its profile says: mend what is marked {BROKEN} above.");
            return Ok(ExitCode::from(FAILED));
        }
        println!("Every part of board {name} works.");
    }
    if able {
        println!("Pictures can be read on this machine.");
        Ok(ExitCode::SUCCESS)
    } else {
        println!("Pictures cannot be read: mend what is marked {BROKEN} above.");
        Ok(ExitCode::from(FAILED))
    }
}

#[cfg(feature = "cuda")]
fn examine(args: &DoctorArgs) -> anyhow::Result<bool> {
    gpu::run(&args.model.package()?, args.json.as_deref())
}

#[cfg(not(feature = "cuda"))]
fn examine(_: &DoctorArgs) -> anyhow::Result<bool> {
    say(ABSENT, "device", "this build has no engine for one; build it with the feature `cuda`");
    Ok(false)
}

fn processor() {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find(|line| line.starts_with("model name") || line.starts_with("Model"))
        .and_then(|line| line.split_once(':'))
        .map_or("unknown", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let units = units();
    let units = if units.is_empty() { "no vector units known to fovea".into() } else { units.join(", ") };
    say(WORKS, "processor", format_args!("{name}, {cores} cores for fovea; {units}"));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse::<u64>().ok());
    match free.map(|kilobytes| kilobytes / 1024) {
        Some(free) if free < 400 => {
            say(BROKEN, "memory", format_args!("{free} MB free; fovea needs about 400: end other programs"))
        }
        Some(free) => say(WORKS, "memory", format_args!("{free} MB free")),
        None => say(ABSENT, "memory", "the system does not say how much is free"),
    }
}

/// The vector units that engines can use.
fn units() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let all = [
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("AVX-VNNI", is_x86_feature_detected!("avxvnni")),
        ("AVX-512", is_x86_feature_detected!("avx512f")),
        ("AVX-512 VNNI", is_x86_feature_detected!("avx512vnni")),
    ];
    #[cfg(target_arch = "aarch64")]
    let all = [
        ("NEON", std::arch::is_aarch64_feature_detected!("neon")),
        ("dot product", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let all: [(&str, bool); 0] = [];
    all.into_iter().filter(|(_, here)| *here).map(|(name, _)| name).collect()
}

fn graphics() {
    match std::fs::read_to_string("/proc/driver/nvidia/version") {
        Ok(text) => {
            let line = text.lines().next().unwrap_or_default().trim_start_matches("NVRM version:").trim();
            say(WORKS, "graphics", format_args!("NVIDIA driver: {line}"));
        }
        Err(_) if Path::new("/dev/nvhost-gpu").exists() || Path::new("/dev/nvgpu").exists() => {
            say(WORKS, "graphics", "a Jetson's graphics unit");
        }
        Err(_) => say(ABSENT, "graphics", "no NVIDIA driver; the processor computes"),
    }
}

/// True when an engine answers.
fn model(args: &ModelArgs) -> bool {
    let folder = match args.config().and_then(|config| super::model_folder(&config)) {
        Ok(folder) => folder,
        Err(error) => {
            say(BROKEN, "model", error);
            return false;
        }
    };
    let package = match Package::open(&folder) {
        Ok(package) => package,
        Err(error) => {
            say(BROKEN, "model", error);
            return false;
        }
    };
    say(WORKS, "model", format_args!("{} in {}, every checksum right", package.identity(), folder.display()));
    let mut able = false;
    let package = Arc::new(package);
    for name in engine::names() {
        match engine::open(name, &package, &engine::Options::default())
            .and_then(|mut e| engine::Proof::of(&package).difference(e.as_mut()))
        {
            Ok(off) => {
                able = true;
                say(WORKS, "engine", format_args!("{name} answers the golden picture (off by {off:.4})"));
            }
            Err(error @ engine::EngineError::Absent { .. }) => say(ABSENT, "engine", error),
            Err(error) => say(BROKEN, "engine", error),
        }
    }
    able
}

/// Device files below /dev whose names begin so.
fn devices(folder: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut list: Vec<PathBuf> =
        entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path()).collect();
    list.sort();
    list
}

/// A device file and whether this user may open it.
fn device(kind: &str, path: &Path, more: &str) {
    match std::fs::OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => say(WORKS, kind, format_args!("{}{more}", path.display())),
        Err(error) => say(
            BROKEN,
            kind,
            format_args!(
                "{}{more}: {error}; give this user the right to it (groups video, render, spi)",
                path.display()
            ),
        ),
    }
}

fn displays() {
    say(WORKS, "display", "png:DIR and none");
    match std::env::var("DISPLAY") {
        Ok(name) if !name.is_empty() => match fovea_board::open("window") {
            Ok(_) => say(WORKS, "display", format_args!("window: DISPLAY is {name}")),
            Err(error) => say(BROKEN, "display", error),
        },
        _ => say(ABSENT, "display", "window: DISPLAY is not set, so there is no X11 desktop"),
    }
    for path in devices("/dev/dri", "card") {
        device("screen", &path, "");
    }
    for path in devices("/dev", "fb").into_iter().chain(devices("/dev", "spidev")) {
        device("screen", &path, "");
    }
}

fn cameras() {
    let list = devices("/dev", "video");
    if list.is_empty() {
        say(ABSENT, "video", "no capture device (/dev/video*); sources folder: and replay: work without");
    }
    for path in list {
        let file = path.file_name().unwrap_or_default();
        let name = std::fs::read_to_string(Path::new("/sys/class/video4linux").join(file).join("name"));
        let name = name.map(|name| format!(" ({})", name.trim())).unwrap_or_default();
        device("video", &path, &name);
    }
}
