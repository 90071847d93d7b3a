//! `fovea region`: finds the B-scan on the machine's screen and locks its place.

use super::ModelArgs;
use anyhow::{Context, bail, ensure};
use fovea::capture::{Port, Signal, Slot, Source, save};
use fovea::config::Config;
use fovea::diagnosis::Finding;
use fovea::model::Package;
use fovea::prepare::Region;
use fovea::region::{Layout, propose};
use fovea::{Frame, Reader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Places that the model is asked about.
const ASKED: usize = 4;

/// Finds the B-scan on the machine's screen, shows the proposal as a picture, and writes it into the configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fovea region --source 'v4l2:///dev/video0' --out proposal.png\n  \
                        fovea region --source 'v4l2:///dev/video0' --write\n  \
                        fovea region --picture screen.png --region 400,100,768,496 --write\n\n\
                        Look at the proposal first: the bright box must hold the B-scan and nothing else; otherwise give the \
                        place with --region. Once written it is locked, and a change of the screen around it is said while \
                        the appliance runs. Exit codes: 0 found, 2 no picture, no B-scan or not written.")]
pub struct RegionArgs {
    /// Where the picture comes from; without it the config's source
    #[arg(long)]
    source: Option<String>,
    /// A picture of the machine's screen in place of a source
    #[arg(long, value_name = "FILE", conflicts_with = "source")]
    picture: Option<PathBuf>,
    /// Where the proposal is drawn
    #[arg(long, value_name = "FILE", default_value = "region.png")]
    out: PathBuf,
    /// Keep the picture itself, too
    #[arg(long, value_name = "FILE")]
    plain: Option<PathBuf>,
    /// Write the place into the configuration (--config, or fovea.toml here)
    #[arg(long)]
    write: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// Proposes and writes.
pub fn run(args: &RegionArgs) -> anyhow::Result<ExitCode> {
    let config = args.model.config()?;
    let frame = match &args.picture {
        Some(path) => Frame::read(path)?,
        None => capture(args.source.as_deref().unwrap_or(&config.source))?,
    };
    if let Some(path) = &args.plain {
        save(&frame, path).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let place = match args.model.region {
        Some(region) => region,
        None => find(&frame, &config)?,
    };
    let Region { x, y, width, height } = place;
    let inside =
        |start: u32, side: u32, end: u32| side >= 32 && start.checked_add(side).is_some_and(|e| e <= end);
    ensure!(
        inside(x, width, frame.width()) && inside(y, height, frame.height()),
        "the region does not lie in the {}x{} picture; correct --region",
        frame.width(),
        frame.height()
    );
    draw(&frame, place, &args.out)?;
    let layout = Layout::of(&frame, place);
    let lines = [("region", format!("[{x}, {y}, {width}, {height}]")), ("layout", format!("\"{layout}\""))];
    println!("region = {}", lines[0].1);
    println!("{}: the proposal; the bright box must hold the B-scan and nothing else", args.out.display());
    if args.write {
        let path = args.model.config.clone().unwrap_or_else(|| "fovea.toml".into());
        write(&path, &lines)?;
        println!("{}: region and layout are written; the appliance keeps to them", path.display());
    } else {
        println!("not written; --write puts it into the configuration");
    }
    Ok(ExitCode::SUCCESS)
}

/// The newest picture of a source, a second after its first: the first ones of many devices are damaged.
fn capture(source: &str) -> anyhow::Result<Frame> {
    let mut feed = Source::parse(source)?.feed();
    let (frames, halt) = (Slot::default(), Arc::new(AtomicBool::new(false)));
    let why = Arc::new(Mutex::new(String::from("no picture came; check the source")));
    let words = Arc::clone(&why);
    let signal = move |signal| {
        if let Signal::Lost(said) | Signal::Note(said) | Signal::Ended(said) = signal {
            *words.lock().unwrap_or_else(PoisonError::into_inner) = said;
        }
        true
    };
    let port = Port::new(signal, frames.clone(), Arc::clone(&halt), Duration::from_secs(1));
    // Not joined: a driver that hangs holds this thread alone.
    std::thread::Builder::new().name("source".into()).spawn(move || feed.run(&port))?;
    let mut newest = frames.take(Duration::from_secs(10));
    let since = Instant::now();
    while newest.is_some() && since.elapsed() < Duration::from_secs(1) {
        newest = frames.take(Duration::from_millis(100)).or(newest);
    }
    halt.store(true, Ordering::Relaxed);
    match newest {
        Some(frame) => Ok(Arc::unwrap_or_clone(frame)),
        None => bail!("{}", why.lock().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// The largest place that the model takes for a B-scan.
fn find(frame: &Frame, config: &Config) -> anyhow::Result<Region> {
    let places = propose(frame);
    ensure!(
        !places.is_empty(),
        "no B-scan is seen; show one on the machine's screen, or give its place with --region"
    );
    let package = Arc::new(Package::open(&super::model_folder(config)?)?);
    for place in places.iter().take(ASKED) {
        let mut reader = Reader::new(Arc::clone(&package), &config.engine, Some(*place))?;
        if reader.read(frame)?.diagnosis.finding != Finding::NotOct {
            return Ok(*place);
        }
    }
    bail!(
        "nothing on the picture is a B-scan to the model; show one on the machine's screen, or give its place with --region"
    )
}

/// Draws the picture dark outside `place`, and a bright box around it.
fn draw(frame: &Frame, place: Region, path: &Path) -> anyhow::Result<()> {
    const EDGE: u32 = 3;
    let inside = |x: u32, y: u32, more: u32| {
        (x + more).checked_sub(place.x).is_some_and(|x| x < place.width + 2 * more)
            && (y + more).checked_sub(place.y).is_some_and(|y| y < place.height + 2 * more)
    };
    let picture = image::RgbImage::from_fn(frame.width(), frame.height(), |x, y| {
        let grey = frame.pixels()[(y * frame.width() + x) as usize];
        image::Rgb(match (inside(x, y, 0), inside(x, y, EDGE)) {
            (true, _) => [grey; 3],
            (_, true) => [240, 190, 50],
            _ => [grey / 3; 3],
        })
    });
    picture.save(path).with_context(|| format!("{} cannot be written; give another --out", path.display()))
}

/// Sets keys of a configuration and leaves all else as it was written.
fn write(path: &Path, lines: &[(&str, String)]) -> anyhow::Result<()> {
    let old = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.with_context(|| format!("{} cannot be read", path.display()))?,
    };
    let text = set(&old, lines);
    let wanted = Config::parse(&lines.iter().map(|(k, v)| format!("{k} = {v}\n")).collect::<String>(), path)?;
    let got = Config::parse(&text, path)?;
    ensure!(
        (got.region, &got.layout) == (wanted.region, &wanted.layout),
        "{}: 'region' stands there over several lines; take it out and try again",
        path.display()
    );
    let half = path.with_extension("toml.part");
    std::fs::write(&half, text)
        .and_then(|()| std::fs::rename(&half, path))
        .with_context(|| format!("{} cannot be written; check the rights", path.display()))
}

/// A text of keys with the lines set: in their place, or before all others.
fn set(old: &str, lines: &[(&str, String)]) -> String {
    let mut text = String::new();
    let named = |line: &str, key: &str| {
        line.trim_start().strip_prefix(key).is_some_and(|r| r.trim_start().starts_with('='))
    };
    for (key, value) in lines {
        if !old.lines().any(|line| named(line, key)) {
            text += &format!("{key} = {value}\n");
        }
    }
    for line in old.lines() {
        match lines.iter().find(|(key, _)| named(line, key)) {
            Some((key, value)) => text += &format!("{key} = {value}\n"),
            None => text += &format!("{line}\n"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_and_the_rest_is_left() {
        let old = "# ours\nhold = 2\n region= [1, 2, 40, 40] # old\nregional = 1\n[board]\nx = 1\n";
        let new = set(old, &[("region", "[5, 6, 70, 80]".into()), ("layout", "\"l\"".into())]);
        assert_eq!(
            new,
            "layout = \"l\"\n# ours\nhold = 2\nregion = [5, 6, 70, 80]\nregional = 1\n[board]\nx = 1\n"
        );
        assert_eq!(set("", &[("region", "[]".into())]), "region = []\n");
    }
}
