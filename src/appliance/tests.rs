use super::*;
use std::sync::Mutex;

/// Writes down what is shown, with the time.
struct Recorder(Vec<(Instant, String)>);

impl Display for Recorder {
    fn show(&mut self, _: u32, _: u32, _: &[u8], keep: Option<&str>) -> Result<(), DisplayError> {
        self.0.extend(keep.map(|name| (Instant::now(), name.to_owned())));
        Ok(())
    }
}

/// Answers after 20 ms like an engine: bright pictures are CNV, others NORMAL; counts its calls.
fn fake(calls: &Arc<Mutex<u32>>) -> Classifier {
    let calls = Arc::clone(calls);
    Box::new(move |frame| {
        thread::sleep(Duration::from_millis(20));
        *calls.lock().unwrap() += 1;
        let bright = frame.pixels()[0] > 127;
        let class = if bright { Class::Cnv } else { Class::Normal };
        let mut probabilities = [0.02; 4];
        probabilities[class.index()] = 0.94;
        Ok(Reading {
            class,
            probabilities,
            finding: class.name().into(),
            referral: if bright { Referral::Urgent } else { Referral::Observe },
            quality: "good".into(),
            reason: String::new(),
            map: [0.0; 64],
            engine: "fake".into(),
            millis: 20.0,
        })
    })
}

fn picture(folder: &Path, name: &str, value: u8) {
    image::GrayImage::from_pixel(64, 48, image::Luma([value])).save(folder.join(name)).unwrap();
}

fn config(source: String, rest: &str) -> Config {
    let text = format!("source = '{source}'\nsize = [480, 320]\nstale_after = 0.6\n{rest}");
    Config::parse(&text, Path::new("test.toml")).unwrap()
}

fn names(recorder: &Recorder) -> Vec<&str> {
    recorder.0.iter().map(|(_, name)| name.as_str()).collect()
}

#[test]
fn replay_classifies_once_and_ends_with_the_signal_lost() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("a.png", 200), ("b.png", 200), ("c.png", 10)] {
        picture(folder.path(), name, value);
    }
    std::fs::write(folder.path().join("bad.png"), b"no picture").unwrap();
    let config = config(format!("replay:{}?fps=5", folder.path().display()), "");
    let (calls, stop) = (Arc::new(Mutex::new(0)), Arc::new(AtomicBool::new(false)));
    let (mut recorder, mut lines) = (Recorder(Vec::new()), Vec::new());
    run(&config, "m", fake(&calls), &mut recorder, &stop, &mut |line| lines.push(line.to_owned())).unwrap();
    assert_eq!(*calls.lock().unwrap(), 2, "b.png is the same picture as a.png");
    let seen = names(&recorder);
    assert!(seen.contains(&"CNV") && seen.contains(&"NORMAL"), "{seen:?}");
    assert_eq!(seen.last(), Some(&"signal-lost"));
    assert!(lines.iter().any(|line| line.contains("bad.png")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("c.png: NORMAL 94.0 %")), "{lines:?}");
}

#[test]
fn a_finding_must_hold() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("a.png", 200), ("b.png", 10), ("c.png", 11), ("d.png", 201)] {
        picture(folder.path(), name, value);
    }
    let config = config(format!("replay:{}?fps=5", folder.path().display()), "hold = 2");
    let stop = Arc::new(AtomicBool::new(false));
    let mut recorder = Recorder(Vec::new());
    run(&config, "m", fake(&Arc::default()), &mut recorder, &stop, &mut |_| {}).unwrap();
    let seen = names(&recorder);
    assert!(seen.contains(&"NORMAL") && !seen.contains(&"CNV"), "{seen:?}");
}

#[test]
fn a_vanished_folder_takes_the_finding_away_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in");
    std::fs::create_dir(&path).unwrap();
    picture(&path, "a.png", 200);
    let config = config(format!("folder:{}", path.display()), "");
    let stop = Arc::new(AtomicBool::new(false));
    let (flag, gone) = (Arc::clone(&stop), Arc::new(Mutex::new(None)));
    let when = Arc::clone(&gone);
    let hand = thread::spawn(move || {
        thread::sleep(Duration::from_millis(2500));
        std::fs::remove_dir_all(&path).unwrap();
        *when.lock().unwrap() = Some(Instant::now());
        thread::sleep(Duration::from_millis(2000));
        flag.store(true, Ordering::Relaxed);
    });
    let mut recorder = Recorder(Vec::new());
    run(&config, "m", fake(&Arc::default()), &mut recorder, &stop, &mut |_| {}).unwrap();
    hand.join().unwrap();
    assert!(names(&recorder).contains(&"CNV"), "{:?}", names(&recorder));
    let (at, last) = recorder.0.last().unwrap();
    assert_eq!(last, "signal-lost");
    // The folder is looked at once a second.
    let took = at.duration_since(gone.lock().unwrap().unwrap());
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[test]
fn wrong_sources_are_refused() {
    for uri in ["tape:x", "folder", "replay:.?fps=0", "replay:.?fps=x"] {
        assert!(matches!(Source::parse(uri), Err(ApplianceError::Source(_))), "{uri}");
    }
    assert!(matches!(Source::parse("folder:/no/such/place"), Err(ApplianceError::Folder(_))));
    let empty = tempfile::tempdir().unwrap();
    let uri = format!("replay:{}", empty.path().display());
    assert!(matches!(Source::parse(&uri), Err(ApplianceError::NoPicture(_))));
}
