use super::*;
use crate::Frame;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A source at work, and what it gave and said.
struct Rig {
    frames: Slot,
    said: Arc<Mutex<Vec<Signal>>>,
    halt: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<String>>,
}

impl Rig {
    fn start(mut feed: Box<dyn Feed>) -> Self {
        let frames = Slot::default();
        let (said, halt) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let list = Arc::clone(&said);
        let signal = move |signal| {
            list.lock().unwrap().push(signal);
            true
        };
        let port = Port::new(signal, frames.clone(), Arc::clone(&halt), Duration::from_millis(250));
        let thread = Some(thread::spawn(move || feed.run(&port)));
        Self { frames, said, halt, thread }
    }

    fn folder(folder: &Path) -> Self {
        // Five times the pace of the appliance, to save time.
        Self::start(Box::new(Folder::with_pace(folder, Duration::from_millis(100))))
    }

    /// Names of the pictures that come within `time`.
    fn within(&self, time: Duration) -> Vec<String> {
        let end = Instant::now() + time;
        let mut names = Vec::new();
        while let Some(frame) = self.frames.take(end.saturating_duration_since(Instant::now())) {
            names.push(Path::new(&frame.origin).file_name().unwrap().to_string_lossy().into_owned());
        }
        names
    }

    fn notes(&self) -> Vec<String> {
        let note = |signal: &Signal| match signal {
            Signal::Note(text) => Some(text.clone()),
            _ => None,
        };
        self.said.lock().unwrap().iter().filter_map(note).collect()
    }

    fn last(&self) -> Signal {
        self.said.lock().unwrap().last().cloned().unwrap_or(Signal::Alive)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.halt.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn bytes(value: u8, format: image::ImageFormat) -> Vec<u8> {
    let picture = image::GrayImage::from_fn(96, 64, |x, y| image::Luma([value ^ (x * 5 + y * 3) as u8]));
    let mut out = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn png(value: u8) -> Vec<u8> {
    bytes(value, image::ImageFormat::Png)
}

fn set_age(path: &Path, seconds: u64) {
    let time = std::time::SystemTime::now() - Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_file_is_given_once_and_the_oldest_first() {
    let folder = tempfile::tempdir().unwrap();
    for (k, name) in ["c.png", "a.png", "d.png", "b.png"].iter().enumerate() {
        fs::write(folder.path().join(name), png(k as u8)).unwrap();
        set_age(&folder.path().join(name), 1000 - 100 * k as u64);
    }
    fs::write(folder.path().join("note.txt"), "no picture").unwrap();
    fs::write(folder.path().join(".half.png"), "hidden").unwrap();
    let rig = Rig::folder(folder.path());
    assert_eq!(rig.within(SECOND * 2 / 3), ["c.png", "a.png", "d.png", "b.png"]);
    // Many new ones at once: none is lost, though only one is held at a time.
    for k in 0..20 {
        fs::write(folder.path().join(format!("new{k:02}.png")), png(100 + k)).unwrap();
    }
    let mut names = rig.within(SECOND);
    names.sort();
    let all: Vec<String> = (0..20).map(|k| format!("new{k:02}.png")).collect();
    assert_eq!(names, all);
    assert_eq!(rig.notes(), [""; 0]);
}

#[test]
fn unchanged_bytes_under_a_name_are_not_given_again_and_changed_ones_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    fs::write(&path, png(1)).unwrap();
    let rig = Rig::folder(folder.path());
    assert_eq!(rig.within(SECOND * 2 / 3), ["a.png"]);
    fs::write(&path, png(1)).unwrap();
    assert_eq!(rig.within(SECOND * 2 / 3), [""; 0], "the same bytes, written again");
    fs::remove_file(&path).unwrap();
    assert_eq!(rig.within(SECOND / 2), [""; 0]);
    fs::write(&path, png(1)).unwrap();
    assert_eq!(rig.within(SECOND * 2 / 3), [""; 0], "gone and back");
    fs::write(&path, png(2)).unwrap();
    assert_eq!(rig.within(SECOND * 2 / 3), ["a.png"]);
}

#[test]
fn a_file_that_grows_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    for format in [image::ImageFormat::Png, image::ImageFormat::Jpeg] {
        let rig = Rig::folder(folder.path());
        let name = format!("slow.{}", format.extensions_str()[0]);
        let (path, all) = (folder.path().join(&name), bytes(7, format));
        // Pauses longer than the settling time: what is read meanwhile is half a file.
        let parts: Vec<&[u8]> = all.chunks(all.len() / 3 + 1).collect();
        let mut file = fs::File::create(&path).unwrap();
        for (k, part) in parts.iter().enumerate() {
            std::io::Write::write_all(&mut file, part).unwrap();
            let came = rig.within(SECOND / 3);
            assert!(came.is_empty() || k == parts.len() - 1, "{name} came with {} of 3 parts", k + 1);
            if k == parts.len() - 1 {
                let late = rig.within(SECOND);
                assert_eq!([came, late].concat(), [name.as_str()]);
            }
        }
        assert_eq!(rig.notes(), [""; 0]);
        drop(rig);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn broken_files_are_reported_once_and_stop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old.png");
    fs::write(&old, "no picture").unwrap();
    set_age(&old, 600);
    let rig = Rig::folder(folder.path());
    assert_eq!(rig.within(SECOND / 2), [""; 0]);
    assert!(rig.notes().len() == 1 && rig.notes()[0].contains("old.png"), "{:?}", rig.notes());
    // A young one is tried again for about 15 looks; others do not wait for it.
    fs::write(folder.path().join("young.png"), "").unwrap();
    fs::write(folder.path().join("good.png"), png(3)).unwrap();
    assert_eq!(rig.within(SECOND / 2), ["good.png"]);
    assert_eq!(rig.notes().len(), 1);
    assert_eq!(rig.within(SECOND * 2), [""; 0]);
    assert!(rig.notes().len() == 2 && rig.notes()[1].contains("young.png"), "{:?}", rig.notes());
}

#[test]
fn a_folder_that_goes_is_lost_and_one_that_comes_back_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let (folder, away) = (place.path().join("in"), place.path().join("away"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.png"), png(1)).unwrap();
    let rig = Rig::folder(&folder);
    assert_eq!(rig.within(SECOND * 2 / 3), ["a.png"]);
    fs::rename(&folder, &away).unwrap();
    let gone = Instant::now();
    while !matches!(rig.last(), Signal::Lost(_)) {
        assert!(gone.elapsed() < SECOND, "{:?}", rig.last());
        thread::sleep(Duration::from_millis(10));
    }
    fs::write(away.join("b.png"), png(2)).unwrap();
    assert_eq!(rig.within(SECOND / 2), [""; 0]);
    assert!(matches!(rig.last(), Signal::Lost(why) if why.contains("put the folder back")));
    fs::rename(&away, &folder).unwrap();
    assert_eq!(rig.within(SECOND), ["b.png"], "a.png is known");
    assert_eq!(rig.last(), Signal::Alive);
}

#[test]
fn a_replay_plays_in_order_and_over_again() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("b.png", 1), ("a.png", 2)] {
        fs::write(folder.path().join(name), png(value)).unwrap();
    }
    fs::write(folder.path().join("bad.png"), "no picture").unwrap();
    let once =
        Rig::start(Source::parse(&format!("replay:{}?fps=50", folder.path().display())).unwrap().feed());
    assert_eq!(once.within(SECOND), ["a.png", "b.png"]);
    assert_eq!(once.notes().len(), 1);
    let uri = format!("replay:{}?fps=50&loop=true", folder.path().display());
    let again = Rig::start(Source::parse(&uri).unwrap().feed());
    let names: Vec<String> = (0..5).map(|_| again.frames.take(SECOND).unwrap().origin.clone()).collect();
    assert!(names[0].ends_with("a.png") && names[4].ends_with("a.png"), "{names:?}");
}

#[test]
fn wrong_sources_are_refused() {
    for uri in ["tape:x", "folder", "replay:.?fps=0", "replay:.?fps=x", "replay:.?loop=2", "replay:.?sped=1"]
    {
        assert!(matches!(Source::parse(uri), Err(CaptureError::Source(_))), "{uri}");
    }
    assert!(matches!(Source::parse("folder:/no/such/place"), Err(CaptureError::Folder(_))));
    let empty = tempfile::tempdir().unwrap();
    let uri = format!("replay:{}", empty.path().display());
    assert!(matches!(Source::parse(&uri), Err(CaptureError::NoPicture(_))));
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_pulled_leaves_an_empty_folder_and_is_lost() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("disk");
    fs::create_dir(&folder).unwrap();
    let system = |command: &str, words: &[&str]| {
        let run = std::process::Command::new(command).args(words).arg(&folder).output();
        run.is_ok_and(|run| run.status.success())
    };
    let mount = || system("mount", &["-t", "tmpfs", "none"]);
    if !mount() {
        println!("skipped: no right to mount a disk");
        return;
    }
    let rig = Rig::folder(&folder);
    fs::write(folder.join("a.png"), png(1)).unwrap();
    assert_eq!(rig.within(SECOND), ["a.png"]);
    assert!(system("umount", &["--lazy"]));
    assert_eq!(rig.within(SECOND / 2), [""; 0]);
    let lost = rig.last();
    assert!(folder.is_dir() && mount());
    fs::write(folder.join("b.png"), png(2)).unwrap();
    let back = rig.within(SECOND);
    assert!(system("umount", &["--lazy"]));
    assert!(matches!(&lost, Signal::Lost(why) if why.contains("not mounted")), "{lost:?}");
    assert_eq!(back, ["b.png"]);
}

#[test]
fn a_camera_offers_its_newest_picture_and_takes_it_back_when_the_signal_is_lost() {
    let (frames, said) = (Slot::default(), Arc::new(Mutex::new(Vec::new())));
    let list = Arc::clone(&said);
    let signal = move |signal| {
        list.lock().unwrap().push(signal);
        true
    };
    let port = Port::new(signal, frames.clone(), Arc::default(), SECOND);
    let picture = |name: &str| Frame::new(32, 32, vec![0; 32 * 32], name).unwrap();
    for name in ["old", "newer", "newest"] {
        assert!(port.offer(picture(name)));
    }
    assert_eq!(frames.take(Duration::ZERO).unwrap().origin, "newest");
    assert!(frames.take(Duration::ZERO).is_none());
    assert!(port.offer(picture("before the loss")) && port.lose("pulled".into()));
    assert!(frames.take(Duration::ZERO).is_none());
    assert_eq!(said.lock().unwrap().last(), Some(&Signal::Lost("pulled".into())));
}

#[test]
fn what_is_recorded_can_be_replayed() {
    let place = tempfile::tempdir().unwrap();
    let note = |note: String| panic!("{note}");
    let recorder = Recorder::start(place.path(), note).unwrap();
    let frames = Slot::default();
    let port = Port::new(|_| true, frames.clone(), Arc::default(), SECOND).record(recorder);
    let path = Path::new("examples/bscans/phantom-cnv-1.jpeg");
    assert!(port.give(Frame::read(path).unwrap()));
    let given = frames.take(Duration::ZERO).unwrap();
    let kept = || pictures(place.path()).unwrap();
    let since = Instant::now();
    while kept().is_empty() {
        assert!(since.elapsed() < SECOND * 5);
        thread::sleep(Duration::from_millis(10));
    }
    let rig = Rig::start(Source::parse(&format!("replay:{}", place.path().display())).unwrap().feed());
    let back = rig.frames.take(SECOND * 5).unwrap();
    assert_eq!((back.pixels(), back.colour()), (given.pixels(), given.colour()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_finished_file_comes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(Box::new(Folder::with_pace(folder.path(), SECOND * 30)));
    assert_eq!(rig.within(SECOND / 2), [""; 0]);
    for (k, format) in ["jpg", "png", "tiff", "bmp"].into_iter().enumerate() {
        let name = format!("scan.{format}");
        let kind = image::ImageFormat::from_extension(format).unwrap();
        let (half, path) = (folder.path().join(".half"), folder.path().join(&name));
        // Written in place, or moved in.
        if k % 2 == 0 {
            fs::write(&path, bytes(k as u8, kind)).unwrap();
        } else {
            fs::write(&half, bytes(k as u8, kind)).unwrap();
            fs::rename(&half, &path).unwrap();
        }
        assert_eq!(rig.within(SECOND), [name], "30 s before the folder is looked at");
    }
    // Closed too early, as by a program that writes in two goes.
    let (path, all) = (folder.path().join("late.png"), png(9));
    fs::write(&path, &all[..all.len() / 2]).unwrap();
    assert_eq!(rig.within(SECOND / 2), [""; 0]);
    fs::write(&path, &all).unwrap();
    assert_eq!(rig.within(SECOND), ["late.png"]);
}
