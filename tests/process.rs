//! The appliance as a process of its own: Ctrl-C ends it, and its window shows what it should.
#![cfg(unix)]

use fovea::appliance::{Appliance, Classifier, Reading};
use fovea::config::Config;
use fovea::screen::Referral;
use fovea::{Class, Frame};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Believes the file's name.
fn by_name() -> Classifier {
    Box::new(|frame: &Frame| {
        let named = |class: &Class| frame.origin.contains(&class.name().to_ascii_lowercase());
        let class = Class::ALL.into_iter().find(named).ok_or("a picture without a class in its name")?;
        let mut probabilities = [0.01; 4];
        probabilities[class.index()] = 0.97;
        Ok(Reading {
            class,
            probabilities,
            finding: class.name().into(),
            referral: if class == Class::Cnv { Referral::Urgent } else { Referral::Observe },
            quality: "good".into(),
            reason: String::new(),
            map: std::array::from_fn(|i| i as f32 / 63.0),
            place: fovea::prepare::Region::whole(frame),
            lit: None,
            engine: "fake".into(),
            note: String::new(),
            millis: 1.0,
        })
    })
}

/// The child's part: this test runs the appliance when its parent says so by `FOVEA_TEST_DISPLAY`.
#[test]
fn child() {
    let Ok(display) = std::env::var("FOVEA_TEST_DISPLAY") else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).unwrap();
    let scans = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bscans");
    let text = format!("source = 'replay:{}?fps=5&loop=true'\nsize = [800, 480]", scans.display());
    let config = Config::parse(&text, Path::new("test.toml")).unwrap();
    let mut display = fovea_board::open(&display).unwrap();
    Appliance::new(&config, "fake 0", by_name())
        .run(display.as_mut(), &stop, &mut |line| println!("{line}"))
        .unwrap();
}

/// A child that is killed when the test leaves it.
struct Process(Child);

impl Process {
    fn appliance(display: &str, screen: Option<&str>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env("FOVEA_TEST_DISPLAY", display);
        command.envs(screen.map(|screen| ("DISPLAY", screen))).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// How it ended, and after what time.
    fn end(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return (status, start.elapsed());
            }
            assert!(start.elapsed() < Duration::from_secs(10), "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until there is something, for at most 20 s.
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(got) = ask() {
            return got;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "no {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn ctrl_c_and_a_polite_kill_end_it_promptly_with_success() {
    for signal in ["-INT", "-TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Process::appliance(&format!("png:{}", folder.path().display()), None);
        let cnv = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with("-cnv.png"))
        };
        wait_for("finding", || folder.path().read_dir().unwrap().any(cnv).then_some(()));
        let id = child.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let (status, took) = child.end();
        println!("{signal}: ended after {took:?}");
        assert!(status.success(), "{status}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

/// The pixels of a screen as RGB, by `xwd`.
fn screenshot(screen: &str) -> Option<Vec<[u8; 3]>> {
    let dump = Command::new("xwd").args(["-root", "-silent", "-display", screen]).output().ok()?.stdout;
    let word = |i: usize| {
        let bytes = dump.get(4 * i..4 * i + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?) as usize)
    };
    let (head, height, bits, line, colours) = (word(0)?, word(5)?, word(11)?, word(12)?, word(19)?);
    assert_eq!((word(7)?, bits), (0, 32), "this test reads little-endian 32-bit screens alone");
    let data = dump.get(head + 12 * colours..head + 12 * colours + line * height)?;
    Some(data.chunks_exact(4).map(|p| [p[2], p[1], p[0]]).collect())
}

fn count(pixels: &[[u8; 3]], colour: [u8; 3]) -> usize {
    pixels.iter().filter(|p| **p == colour).count()
}

#[test]
fn the_window_shows_the_finding_and_closing_it_ends_the_appliance() {
    let there = |tool: &str| {
        Command::new(tool).arg("-help").stderr(Stdio::null()).stdout(Stdio::null()).status().is_ok()
    };
    if !there("Xvfb") || !there("xwd") {
        println!("skipped: Xvfb and xwd are not installed (apt-get install xvfb x11-apps)");
        return;
    }
    let mut server = Process(
        Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut number = String::new();
    let mut said = server.0.stdout.take().unwrap();
    let mut byte = [0];
    while said.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        number.push(char::from(byte[0]));
    }
    let screen = format!(":{number}");
    let mut child = Process::appliance("window", Some(&screen));
    // The panel's ground, and the word and the octagon of an urgent referral.
    let pixels = wait_for("urgent finding in the window", || {
        screenshot(&screen).filter(|p| count(p, [240, 106, 40]) > 2000 && count(p, [21, 26, 35]) > 20_000)
    });
    assert!(count(&pixels, [0, 0, 0]) > 300_000, "the screen around the window");
    if !there("xdotool") {
        println!("skipped: pressing Escape in the window needs xdotool");
        return;
    }
    let press = ["mousemove", "200", "200", "key", "Escape"];
    assert!(Command::new("xdotool").args(press).env("DISPLAY", &screen).status().unwrap().success());
    let (status, took) = child.end();
    println!("ended {took:?} after the window was closed");
    assert!(status.success() && took < Duration::from_secs(1), "{status} {took:?}");
}
