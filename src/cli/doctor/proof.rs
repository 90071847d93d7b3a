//! `fovea doctor --self-test`: the whole way of a picture, proved on what the appliance would use.

use super::{BROKEN, WORKS, say};
use fovea::capture::{Port, Signal, Slot, Source};
use fovea::config::Config;
use fovea::engine;
use fovea::model::Package;
use fovea::screen::{Screen, State, Strip, View};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// A source gives a sign of life within this time.
const SOURCE: Duration = Duration::from_secs(8);

/// What was proved, or what is broken.
type Test = fn(&Config) -> Result<String, String>;

/// Proves engine, display, source and disk; true when all do what they should.
pub fn run(config: &Config) -> bool {
    let tests: [(&str, Test); 4] =
        [("engine", answers), ("display", draws), ("source", gives), ("disk", keeps)];
    let mut good = true;
    for (what, test) in tests {
        match test(config) {
            Ok(words) => say(WORKS, what, words),
            Err(words) => {
                say(BROKEN, what, words);
                good = false;
            }
        }
    }
    good
}

/// The golden picture gives the golden logits on the chosen engine.
fn answers(config: &Config) -> Result<String, String> {
    let folder = crate::cli::model_folder(config).map_err(|error| error.to_string())?;
    let package = Package::open(&folder).map_err(|error| error.to_string())?;
    let package = Arc::new(package);
    let mut engine =
        engine::open(&config.engine, &package, &config.gpu.options()).map_err(|error| error.to_string())?;
    let off = engine::Proof::of(&package).difference(engine.as_mut()).map_err(|error| error.to_string())?;
    Ok(format!("{} gives the golden logits of {} (off by {off:.4})", engine.name(), package.identity()))
}

/// The display takes a screen.
fn draws(config: &Config) -> Result<String, String> {
    let name = match config.display.as_str() {
        "auto" => fovea_board::automatic().0,
        name => name.to_owned(),
    };
    let mut display = fovea_board::open(&name).map_err(|error| error.to_string())?;
    let size = config.screen();
    let mut screen = Screen::new(size.width, size.height);
    let view = View { state: State::Starting, shown: None, model: "self-test", strip: Strip::default() };
    display.show(size.width, size.height, screen.draw(&view), None).map_err(|error| error.to_string())?;
    Ok(format!("{name} drew a screen"))
}

/// The source opens and gives a sign of life: a picture, or that it waits for one.
fn gives(config: &Config) -> Result<String, String> {
    let source = Source::parse(&config.source).map_err(|error| error.to_string())?;
    let mut feed = source.feed();
    let (signals, heard) = sync_channel(64);
    let frames = Slot::default();
    let halt = Arc::new(AtomicBool::new(false));
    let say = move |signal| {
        // Signs that nobody waits for need not be kept.
        let _ = signals.try_send(signal);
        true
    };
    let port = Port::new(say, frames.clone(), Arc::clone(&halt), config.stale_after.duration() * 5 / 8);
    let body = move || feed.run(&port);
    // Not joined: a driver may hold it.
    std::thread::Builder::new().name("source".into()).spawn(body).map_err(|error| error.to_string())?;
    let (start, mut last) = (Instant::now(), "it gives no sign of life".to_owned());
    let end = loop {
        match heard.recv_timeout(Duration::from_millis(100)) {
            Ok(Signal::Lost(why) | Signal::Ended(why)) => last = why,
            Ok(Signal::Alive) => break true,
            Ok(Signal::Note(_)) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break false,
        }
        if start.elapsed() > SOURCE {
            break false;
        }
    };
    let frame = frames.take(Duration::from_secs(1));
    halt.store(true, Ordering::Relaxed);
    match (end, frame) {
        (_, Some(frame)) => {
            Ok(format!("{}: a picture of {}x{}", config.source, frame.width(), frame.height()))
        }
        (true, None) => Ok(format!("{} waits for pictures", config.source)),
        (false, None) => Err(format!("{}: {last}", config.source)),
    }
}

/// A file is written through to the disk and read back.
fn keeps(_: &Config) -> Result<String, String> {
    // Where a service may write, as systemd says.
    let folder = std::env::var_os("STATE_DIRECTORY").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let path = folder.join(format!(".fovea-self-test-{}", std::process::id()));
    let written = write(&path);
    let _ = std::fs::remove_file(&path);
    written.map_err(|error| {
        format!("{}: cannot be written ({error}); check the space and the rights", folder.display())
    })?;
    Ok(format!("{} can be written", folder.display()))
}

fn write(path: &Path) -> std::io::Result<()> {
    use std::io::Write;
    let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut file = std::fs::File::create(path)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    if std::fs::read(path)? == bytes { Ok(()) } else { Err(std::io::Error::other("other bytes came back")) }
}
