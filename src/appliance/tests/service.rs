//! What keeps an appliance alive and cool: signs of progress, and rests.

use super::*;
use fovea_board::{Keeper, Thermal};
use std::sync::Mutex;

/// Writes down when progress was made, and in what state.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<(Instant, String)>>>);

impl Keeper for Diary {
    fn progress(&mut self) {
        let mut diary = self.0.lock().unwrap();
        let state = diary.last().map(|(_, state)| state.clone()).unwrap_or_default();
        diary.push((Instant::now(), state));
    }

    fn state(&mut self, words: &str) {
        let mut diary = self.0.lock().unwrap();
        if let Some((_, state)) = diary.last_mut() {
            *state = words.into();
        }
    }
}

/// A display that hangs for a second over the first finding.
struct Stuck(Option<Instant>);

impl Display for Stuck {
    fn show(&mut self, _: u32, _: u32, _: &[u8], keep: Option<&str>) -> Result<(), DisplayError> {
        if keep == Some("CNV") && self.0.is_none() {
            self.0 = Some(Instant::now());
            thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    }

    fn watched(&self) -> bool {
        true
    }
}

#[test]
fn a_display_that_hangs_is_no_progress() {
    let (config, diary, calls) = (config(""), Diary::default(), Arc::default());
    let feed = Box::new(Script(vec![200], Then::Idle));
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let hand = thread::spawn(move || {
        thread::sleep(Duration::from_secs(2));
        flag.store(true, Ordering::Relaxed);
    });
    let mut display = Stuck(None);
    let appliance = Appliance::new(&config, "m", fake(&calls)).feed(feed);
    appliance.keeper(Box::new(diary.clone())).run(&mut display, &stop, &mut |_| {}).unwrap();
    hand.join().unwrap();
    let hung = display.0.unwrap();
    let diary = diary.0.lock().unwrap();
    let during = |(at, _): &&(Instant, String)| {
        let since = at.saturating_duration_since(hung);
        *at > hung && since < Duration::from_millis(950)
    };
    assert_eq!(diary.iter().filter(during).count(), 0);
    let after = diary.iter().filter(|(at, _)| *at > hung).count();
    assert!(diary.len() > after && after > 5, "{} before, {after} after", diary.len() - after);
    assert!(diary.iter().any(|(_, state)| state == "a finding is shown"));
}

#[test]
fn an_engine_that_is_out_for_good_is_no_progress() {
    let (config, diary, calls) = (config("answer_within = 0.3"), Diary::default(), Arc::default());
    // No spare: an engine that hangs for 1.5 s is out, until it answers.
    let feed = Box::new(Script(vec![77, 10], Then::Idle));
    let appliance = Appliance::new(&config, "m", fake(&calls)).feed(feed).keeper(Box::new(diary.clone()));
    let start = Instant::now();
    Run::watch(appliance, Duration::from_secs(3));
    let diary = diary.0.lock().unwrap();
    let count = |from: u64, to: u64| {
        let part = Duration::from_millis(from)..Duration::from_millis(to);
        diary.iter().filter(|(at, _)| part.contains(&at.duration_since(start))).count()
    };
    assert_eq!(count(600, 1300), 0);
    assert!(count(0, 300) > 2 && count(2200, 3000) > 5, "{} {}", count(0, 300), count(2200, 3000));
}

#[test]
fn heat_slows_the_reading_and_is_said() {
    let root = tempfile::tempdir().unwrap();
    let zone = root.path().join("sys/class/thermal/thermal_zone0");
    std::fs::create_dir_all(&zone).unwrap();
    std::fs::write(zone.join("type"), "cpu-thermal\n").unwrap();
    std::fs::write(zone.join("temp"), "91000\n").unwrap();
    let thermal = Thermal::open(root.path(), &["cpu-thermal".into()], 85.0, 78.0);
    let temp = zone.join("temp");
    let hand = thread::spawn(move || {
        thread::sleep(Duration::from_millis(2500));
        std::fs::write(temp, "60000\n").unwrap();
    });
    let (config, calls) = (config(""), Arc::default());
    // A picture in 100 ms; while it is hot only one in 600 ms.
    let feed = Box::new(Script((10..50).collect(), Then::Idle));
    let appliance = Appliance::new(&config, "m", fake(&calls)).feed(feed);
    let start = Instant::now();
    let run = Run::watch(appliance.thermal(thermal, Duration::from_millis(600)), Duration::from_secs(6));
    hand.join().unwrap();
    assert!(run.says("hot: 91 °C") && run.says("cool again"), "{:?}", run.lines);
    let findings: Vec<Duration> = run
        .shown
        .iter()
        .filter(|(_, name)| name == "NORMAL")
        .map(|(at, _)| at.duration_since(start))
        .collect();
    let hot = findings.iter().filter(|at| **at < Duration::from_millis(2400)).count();
    let cool = findings.iter().filter(|at| **at > Duration::from_millis(3700)).count();
    assert!((2..=5).contains(&hot) && cool > 8, "{hot} while hot, {cool} after");
}
