use super::*;

mod hand;
mod service;

use crate::prepare::Region;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// Writes down what is shown, with the time.
struct Recorder(Vec<(Instant, String)>);

impl Display for Recorder {
    fn show(&mut self, _: u32, _: u32, _: &[u8], keep: Option<&str>) -> Result<(), DisplayError> {
        self.0.extend(keep.map(|name| (Instant::now(), name.to_owned())));
        Ok(())
    }

    fn watched(&self) -> bool {
        true
    }
}

/// What a run showed and said.
struct Run {
    shown: Vec<(Instant, String)>,
    lines: Vec<String>,
}

impl Run {
    /// Runs an appliance before somebody who watches for `time`.
    fn watch(appliance: Appliance<'_>, time: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let hand = thread::spawn(move || {
            thread::sleep(time);
            flag.store(true, Ordering::Relaxed);
        });
        let (mut recorder, mut lines) = (Recorder(Vec::new()), Vec::new());
        appliance.run(&mut recorder, &stop, &mut |line| lines.push(line.to_owned())).unwrap();
        hand.join().unwrap();
        Self { shown: recorder.0, lines }
    }

    fn names(&self) -> Vec<&str> {
        self.shown.iter().map(|(_, name)| name.as_str()).collect()
    }

    fn says(&self, words: &str) -> bool {
        self.lines.iter().any(|line| line.contains(words))
    }
}

fn reading(frame: &Frame) -> Reading {
    let bright = frame.pixels()[0] > 127;
    let class = if bright { Class::Cnv } else { Class::Normal };
    let mut probabilities = [0.02; 4];
    probabilities[class.index()] = 0.94;
    Reading {
        class,
        probabilities,
        finding: class.name().into(),
        referral: if bright { Referral::Urgent } else { Referral::Observe },
        quality: "good".into(),
        reason: String::new(),
        map: [0.0; 64],
        place: Region::whole(frame),
        lit: None,
        engine: "fake".into(),
        note: String::new(),
        millis: 20.0,
    }
}

/// Answers after 20 ms like an engine: bright pictures are CNV, others NORMAL; counts its calls. Pictures whose first
/// byte is 66 make it panic, 77 make it hang (for 1.5 s), 88 make it fail.
fn fake(calls: &Arc<AtomicU32>) -> Classifier {
    let calls = Arc::clone(calls);
    Box::new(move |frame| {
        calls.fetch_add(1, Ordering::Relaxed);
        match frame.pixels()[0] {
            66 => panic!("a wire is loose"),
            77 => thread::sleep(Duration::from_millis(1500)),
            88 => return Err("out of memory; close other programs".into()),
            _ => thread::sleep(Duration::from_millis(20)),
        }
        Ok(reading(frame))
    })
}

fn frame(value: u8, name: &str) -> Frame {
    Frame::new(64, 48, vec![value; 64 * 48], name).unwrap()
}

/// A source that gives pictures of these values, one every 100 ms, and then does as told.
struct Script(Vec<u8>, Then);

#[derive(Clone, Copy)]
enum Then {
    /// Hangs in the system, as in a read that never returns.
    Stall,
    /// Stays alive without anything new.
    Idle,
    /// Breaks.
    Panic,
}

impl Feed for Script {
    fn run(&mut self, port: &Port) -> String {
        for (k, value) in self.0.iter().enumerate() {
            if !port.give(frame(*value, &format!("picture {k}"))) || !port.rest(Duration::from_millis(100)) {
                return String::new();
            }
        }
        match self.1 {
            Then::Stall => loop {
                thread::park();
            },
            Then::Idle => while port.rest(Duration::from_secs(1)) {},
            Then::Panic => panic!("the source breaks"),
        }
        String::new()
    }
}

fn picture(folder: &Path, name: &str, value: u8) {
    image::GrayImage::from_pixel(64, 48, image::Luma([value])).save(folder.join(name)).unwrap();
}

fn config(rest: &str) -> Config {
    let text = format!("size = [480, 320]\nstale_after = 0.6\n{rest}");
    Config::parse(&text, Path::new("test.toml")).unwrap()
}

const STALE: Duration = Duration::from_millis(600);
/// Room for a busy machine in what is measured.
const ROOM: Duration = Duration::from_millis(250);

#[test]
fn replay_classifies_once_and_ends_with_the_signal_lost() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("a.png", 200), ("b.png", 200), ("c.png", 10)] {
        picture(folder.path(), name, value);
    }
    std::fs::write(folder.path().join("bad.png"), b"no picture").unwrap();
    let config = config(&format!("source = 'replay:{}?fps=5'", folder.path().display()));
    let (calls, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    /// Nobody watches: the run ends by itself.
    struct Unwatched(Recorder);
    impl Display for Unwatched {
        fn show(&mut self, w: u32, h: u32, rgb: &[u8], keep: Option<&str>) -> Result<(), DisplayError> {
            self.0.show(w, h, rgb, keep)
        }
    }
    let (mut recorder, mut lines) = (Unwatched(Recorder(Vec::new())), Vec::new());
    run(&config, "m", fake(&calls), &mut recorder, &stop, &mut |line| lines.push(line.to_owned())).unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 2, "b.png is the same picture as a.png");
    let run = Run { shown: recorder.0.0, lines };
    assert!(run.names().contains(&"CNV") && run.names().contains(&"NORMAL"), "{:?}", run.names());
    assert_eq!(run.names().last(), Some(&"signal-lost"));
    assert!(run.says("bad.png") && run.says("c.png: NORMAL 94.0 %"), "{:?}", run.lines);
    // The last finding was to be seen, and left in time.
    let [.., (came, _), (went, _)] = run.shown.as_slice() else { panic!("{:?}", run.names()) };
    let stood = went.duration_since(*came);
    assert!(stood > STALE / 3 && stood < STALE + ROOM, "{stood:?}");
}

#[test]
fn no_picture_is_left_out_when_they_come_faster_than_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for k in 0..30 {
        picture(folder.path(), &format!("{k:02}.png"), 2 * k);
    }
    let config = config(&format!("source = 'replay:{}?fps=1000'", folder.path().display()));
    let calls = Arc::default();
    let run = Run::watch(Appliance::new(&config, "m", fake(&calls)), Duration::from_secs(4));
    assert_eq!(calls.load(Ordering::Relaxed), 30);
    assert_eq!(run.lines.iter().filter(|line| line.contains("NORMAL")).count(), 30);
}

#[test]
fn a_finding_is_published_after_it_held() {
    let config = config("hold = 2");
    let calls = Arc::default();
    let feed = Box::new(Script(vec![200, 10, 12, 14, 201, 16], Then::Idle));
    let run = Run::watch(Appliance::new(&config, "m", fake(&calls)).feed(feed), Duration::from_secs(2));
    let names = run.names();
    assert!(names.contains(&"NORMAL") && !names.contains(&"CNV"), "{names:?}");
    // Another result, held or not, takes the finding away.
    assert_eq!(names.last(), Some(&"waiting"));
}

/// Time from the last sign of life to the screen without a finding.
fn time_to_lose(then: Then) -> (Duration, Run) {
    let config = config("");
    let feed = Box::new(Script(vec![200], then));
    let calls = Arc::default();
    let run = Run::watch(Appliance::new(&config, "m", fake(&calls)).feed(feed), Duration::from_secs(2));
    let at = |name| run.shown.iter().find(|(_, shown)| shown == name).unwrap_or_else(|| panic!("{name}")).0;
    // The source rests for 100 ms with the picture and is silent from then on.
    (at("signal-lost").duration_since(at("CNV")), run)
}

#[test]
fn a_stalled_source_takes_the_finding_away_in_time() {
    let (took, run) = time_to_lose(Then::Stall);
    println!("finding gone {took:?} after it came");
    assert!(took < STALE + ROOM, "{took:?}");
    assert!(run.says("no sign of life"), "{:?}", run.lines);
    assert_eq!(run.names().last(), Some(&"signal-lost"));
}

#[test]
fn a_source_that_panics_takes_the_finding_away_in_time() {
    let (took, run) = time_to_lose(Then::Panic);
    assert!(took < STALE + ROOM, "{took:?}");
    assert!(run.says("the source failed"), "{:?}", run.lines);
}

#[test]
fn an_idle_source_keeps_the_finding() {
    let config = config("");
    let calls = Arc::default();
    let feed = Box::new(Script(vec![200], Then::Idle));
    let run = Run::watch(Appliance::new(&config, "m", fake(&calls)).feed(feed), Duration::from_secs(2));
    assert_eq!(run.names().last(), Some(&"CNV"), "{:?}", run.names());
}

/// Reads pictures' values from a named pipe, as from a driver: a read blocks until the other side writes.
#[cfg(unix)]
struct Pipe(std::path::PathBuf);

#[cfg(unix)]
impl Feed for Pipe {
    fn run(&mut self, port: &Port) -> String {
        use std::io::Read;
        let Ok(mut pipe) = std::fs::File::open(&self.0) else { return "no pipe".into() };
        let mut value = [0];
        while pipe.read_exact(&mut value).is_ok() {
            if !port.give(frame(value[0], "pipe")) {
                break;
            }
        }
        "the other side closed the pipe".into()
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_that_blocks_and_goes_on_is_lost_and_found() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (source, config, calls) = (Box::new(Pipe(path.clone())), config(""), Arc::default());
    let hand = thread::spawn(move || {
        let mut pipe = std::fs::File::options().write(true).open(path).unwrap();
        let beat = |pipe: &mut std::fs::File, value: u8, times: usize| {
            for _ in 0..times {
                pipe.write_all(&[value]).unwrap();
                thread::sleep(Duration::from_millis(100));
            }
        };
        beat(&mut pipe, 200, 5);
        let stalled = Instant::now();
        thread::sleep(Duration::from_millis(1500));
        beat(&mut pipe, 10, 5);
        stalled
    });
    let run = Run::watch(Appliance::new(&config, "m", fake(&calls)).feed(source), Duration::from_secs(4));
    let stalled = hand.join().unwrap();
    let names = run.names();
    let lost = names.iter().position(|name| *name == "signal-lost").expect("never lost");
    assert!(names[..lost].contains(&"CNV") && names[lost..].contains(&"NORMAL"), "{names:?}");
    let took = run.shown[lost].0.saturating_duration_since(stalled);
    println!("finding gone {took:?} after the pipe fell silent");
    assert!(took < STALE + ROOM, "{took:?}");
    assert_eq!(calls.load(Ordering::Relaxed), 2, "unchanged pictures are not read again");
}

#[test]
fn a_vanished_folder_takes_the_finding_away_and_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let (path, away) = (place.path().join("in"), place.path().join("away"));
    std::fs::create_dir(&path).unwrap();
    picture(&path, "a.png", 200);
    let config = config(&format!("source = 'folder:{}'", path.display()));
    let hand = thread::spawn(move || {
        thread::sleep(Duration::from_millis(1800));
        std::fs::rename(&path, &away).unwrap();
        let gone = Instant::now();
        thread::sleep(Duration::from_millis(1000));
        picture(&away, "b.png", 10);
        std::fs::rename(&away, &path).unwrap();
        gone
    });
    let calls = Arc::default();
    let run = Run::watch(Appliance::new(&config, "m", fake(&calls)), Duration::from_secs(5));
    let gone = hand.join().unwrap();
    let names = run.names();
    let lost = names.iter().position(|name| *name == "signal-lost").expect("never lost");
    assert!(names[..lost].contains(&"CNV"), "{names:?}");
    let took = run.shown[lost].0.saturating_duration_since(gone);
    println!("finding gone {took:?} after the folder");
    assert!(took < STALE + ROOM, "{took:?}");
    assert_eq!(names.last(), Some(&"NORMAL"), "{names:?}");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[test]
fn a_fault_of_the_engine_is_stated_and_the_next_picture_ends_it() {
    let config = config("");
    let calls = Arc::default();
    let feed = Box::new(Script(vec![200, 88, 10], Then::Idle));
    let run = Run::watch(Appliance::new(&config, "m", fake(&calls)).feed(feed), Duration::from_secs(2));
    assert!(run.says("fault: out of memory") && run.says("not read: picture 1"), "{:?}", run.lines);
    let names = run.names();
    let fault = names.iter().position(|name| *name == "fault").unwrap();
    assert_eq!(names[fault - 1], "CNV");
    assert_eq!(names.last(), Some(&"NORMAL"));
}

#[test]
fn a_panicking_engine_is_a_fault_and_is_replaced() {
    let config = config("");
    for replaceable in [false, true] {
        let (calls, made) = (Arc::default(), Arc::new(AtomicU32::new(0)));
        let feed = Box::new(Script(vec![200, 66, 10], Then::Idle));
        let mut appliance = Appliance::new(&config, "m", fake(&calls)).feed(feed);
        if replaceable {
            let (calls, made) = (Arc::clone(&calls), Arc::clone(&made));
            appliance = appliance.spare(Arc::new(move || {
                made.fetch_add(1, Ordering::Relaxed);
                Ok(fake(&calls))
            }));
        }
        let run = Run::watch(appliance, Duration::from_secs(2));
        let names = run.names();
        assert!(run.says("fault: the engine failed: a wire is loose"), "{:?}", run.lines);
        assert_eq!(names.last(), Some(&"NORMAL"), "{names:?}");
        assert_eq!(made.load(Ordering::Relaxed), u32::from(replaceable));
    }
}

#[test]
fn a_hung_engine_is_a_fault_in_time_and_is_replaced() {
    let config = config("answer_within = 0.5");
    let calls = Arc::default();
    let spare_calls = Arc::clone(&calls);
    let feed = Box::new(Script(vec![200, 77, 10], Then::Idle));
    let spare: Spare = Arc::new(move || Ok(fake(&spare_calls)));
    let run = Run::watch(
        Appliance::new(&config, "m", fake(&calls)).feed(feed).spare(spare),
        Duration::from_secs(5),
    );
    let names = run.names();
    let fault = names.iter().position(|name| *name == "fault").expect("never a fault");
    assert_eq!(names[fault - 1], "CNV");
    // The hanging picture comes 100 ms after the first is taken; the limit is 0.5 s.
    let took = run.shown[fault].0.duration_since(run.shown[fault - 1].0);
    println!("fault {took:?} after the finding before it");
    assert!(took < Duration::from_millis(600) + ROOM, "{took:?}");
    assert!(run.says("not read: picture 1: no answer from the engine within 1 s"), "{:?}", run.lines);
    assert_eq!(names.last(), Some(&"NORMAL"), "{names:?}");
    // What the hung one said in the end (a second later) is not shown.
    assert_eq!(run.lines.iter().filter(|line| line.contains("94.0 %")).count(), 2, "{:?}", run.lines);
}

#[test]
fn a_hung_engine_without_a_spare_stays_a_fault_until_it_answers() {
    let config = config("answer_within = 0.5");
    let calls = Arc::default();
    let feed = Box::new(Script(vec![200, 77, 10], Then::Idle));
    let run = Run::watch(Appliance::new(&config, "m", fake(&calls)).feed(feed), Duration::from_secs(3));
    let names = run.names();
    assert_eq!(names.last(), Some(&"NORMAL"), "{names:?}");
    let after = names.iter().position(|name| *name == "fault").unwrap();
    assert!(!names[after..].contains(&"CNV"), "{names:?}");
}

#[test]
fn an_engine_that_always_fails_is_not_replaced_for_ever() {
    let config = config("");
    let (calls, made) = (Arc::default(), Arc::new(AtomicU32::new(0)));
    let (spare_calls, count) = (Arc::clone(&calls), Arc::clone(&made));
    let spare: Spare = Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(fake(&spare_calls))
    });
    let feed = Box::new(Script(vec![66; 9], Then::Idle));
    let run = Run::watch(
        Appliance::new(&config, "m", fake(&calls)).feed(feed).spare(spare),
        Duration::from_secs(3),
    );
    assert_eq!(made.load(Ordering::Relaxed), 3);
    assert!(run.says("4 times in a row; restart the appliance"), "{:?}", run.lines);
    assert_eq!(run.names().last(), Some(&"fault"));
}

#[test]
fn stopping_is_prompt_though_source_and_engine_hang() {
    let config = config("answer_within = 30");
    let stuck: Classifier = Box::new(|_| {
        loop {
            thread::park();
        }
    });
    let feed = Box::new(Script(vec![1], Then::Stall));
    let start = Instant::now();
    Run::watch(Appliance::new(&config, "m", stuck).feed(feed), Duration::from_secs(1));
    assert!(start.elapsed() < Duration::from_secs(1) + ROOM, "{:?}", start.elapsed());
}

#[test]
fn another_layout_of_the_machines_screen_is_a_fault() {
    let place = tempfile::tempdir().unwrap();
    let paint = |name: &str, around: u8| {
        let grey = |x: u32, _: u32| image::Luma([if x < 64 { around } else { (x * 3 % 200) as u8 }]);
        image::GrayImage::from_fn(128, 64, grey).save(place.path().join(name)).unwrap();
    };
    paint("a.png", 200);
    paint("b.png", 40);
    let frame = Frame::read(&place.path().join("a.png")).unwrap();
    let layout = crate::region::Layout::of(&frame, Region { x: 64, y: 0, width: 64, height: 64 });
    let source = format!("source = \"replay:{}?fps=2\"", place.path().display());
    let config = config(&format!("{source}\nregion = [64, 0, 64, 64]\nlayout = \"{layout}\"\n"));
    let mut said = Vec::new();
    let classify: Classifier = Box::new(|frame| Ok(reading(frame)));
    run(&config, "m", classify, &mut fovea_board::Nowhere, &Arc::default(), &mut |line| {
        said.push(line.to_owned())
    })
    .unwrap();
    let at = |word: &str| {
        said.iter().position(|line| line.contains(word)).unwrap_or_else(|| panic!("{word}: {said:?}"))
    };
    assert!(at("a.png") < at("fault: the machine's screen looks otherwise"));
    assert!(!said.iter().any(|line| line.contains("b.png")), "{said:?}");
}
