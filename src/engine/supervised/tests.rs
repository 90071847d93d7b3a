use super::*;
use crate::model::golden_input;
use std::sync::atomic::{AtomicU32, Ordering};

/// A logit, or why there is none.
type Said = Result<f32, &'static str>;
type Script = fn(u32) -> Said;

/// Counts its pictures, the golden one among them, and answers as told of each.
struct Scripted(&'static str, u32, Script);

impl Engine for Scripted {
    fn name(&self) -> &'static str {
        self.0
    }

    fn run(&mut self, _: &NetworkInput) -> Result<Output, EngineError> {
        self.1 += 1;
        let logit = self.2(self.1).map_err(|why| EngineError::Run { engine: self.0, reason: why.into() })?;
        Ok(Output { logits: [logit; 4], features: Vec::new() })
    }

    fn share(&self) -> Option<Box<dyn Engine>> {
        Some(Box::new(Self(self.0, self.1, self.2)))
    }
}

fn maker(name: &'static str, script: Script) -> Named {
    (name, Box::new(move || Ok(Box::new(Scripted(name, 0, script)))))
}

fn open(device: Option<Named>, makers: Vec<Named>) -> Result<Supervised, EngineError> {
    let proof = Proof { input: golden_input(), logits: [1.0; 4] };
    let options = Options { retry: Duration::from_millis(20), ..Options::default() };
    Supervised::open(device, makers, proof, options)
}

fn right(_: u32) -> Said {
    Ok(1.0)
}

#[test]
fn the_same_picture_is_answered_by_the_next_engine() {
    // Each fails over its first picture behind the golden one: by an error, a panic, a value that is no number.
    let failing: [Script; 3] = [
        |time| if time == 1 { Ok(1.0) } else { Err("a wire is loose") },
        |time| if time == 1 { Ok(1.0) } else { panic!("a wire is loose") },
        |time| Ok(if time == 1 { 1.0 } else { f32::NAN }),
    ];
    for (script, why) in failing.into_iter().zip(["a wire is loose", "it panicked", "no numbers"]) {
        let mut engine = open(None, vec![maker("a", script), maker("b", right)]).unwrap();
        assert_eq!((engine.name(), engine.note()), ("a", None));
        assert_eq!(engine.run(&golden_input()).unwrap().logits, [1.0; 4]);
        assert_eq!(engine.name(), "b");
        assert!(engine.note().unwrap().contains(why), "{:?}", engine.note());
    }
}

#[test]
fn where_all_fail_the_picture_has_no_answer_and_the_next_is_tried_again() {
    let once: Script = |time| if time == 2 { Err("no power") } else { Ok(1.0) };
    let mut engine = open(None, vec![maker("a", once), maker("b", once)]).unwrap();
    let error = engine.run(&golden_input()).unwrap_err().to_string();
    assert!(error.starts_with("no engine works here: engine a failed: no power; engine b failed"), "{error}");
    // Opened anew, each reads the golden picture first.
    assert!(engine.run(&golden_input()).is_err());
    let error = open(None, vec![maker("a", |_| Ok(2.0))]).map(|engine| engine.name()).unwrap_err();
    assert!(error.to_string().contains("wrong answer on the golden picture (off by 1)"), "{error}");
}

#[test]
fn a_machine_without_the_device_shares_its_engine() {
    let absent: Maker = Box::new(|| Err(EngineError::Absent { engine: "gpu", reason: "none".into() }));
    let engine = open(Some(("gpu", absent)), vec![maker("a", right)]).unwrap();
    assert_eq!((engine.name(), engine.note()), ("a", None));
    assert_eq!(engine.share().unwrap().name(), "a");
}

/// The start waits a second at most, and then the device takes over.
#[test]
fn a_device_that_opens_late_takes_over() {
    let slow: Maker = Box::new(|| {
        std::thread::sleep(Duration::from_millis(1200));
        Ok(Box::new(Scripted("gpu", 0, right)))
    });
    let start = Instant::now();
    let mut engine = open(Some(("gpu", slow)), vec![maker("a", right)]).unwrap();
    assert!(start.elapsed() < Duration::from_millis(1150), "{:?}", start.elapsed());
    assert_eq!((engine.name(), engine.note().unwrap().as_str()), ("a", "GPU off: it is being opened"));
    assert!(engine.share().is_none(), "the device takes one picture at a time");
    while engine.name() == "a" {
        engine.run(&golden_input()).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((engine.name(), engine.note()), ("gpu", None));
}

/// Rests grow from failure to failure, and a picture in between is answered at once.
#[test]
fn a_device_is_tried_again_ever_later() {
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tried = Arc::clone(&times);
    let broken: Maker = Box::new(move || {
        tried.lock().unwrap().push(Instant::now());
        Err(EngineError::Load { engine: "gpu", reason: "no memory".into() })
    });
    let mut engine = open(Some(("gpu", broken)), vec![maker("a", right)]).unwrap();
    while times.lock().unwrap().len() < 5 {
        let start = Instant::now();
        engine.run(&golden_input()).unwrap();
        assert!(start.elapsed() < Duration::from_millis(500));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(engine.note().unwrap(), "GPU off: no memory");
    let rests: Vec<Duration> = times.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (rest, least) in rests.iter().zip([20, 40, 80, 160]) {
        assert!(*rest >= Duration::from_millis(least), "{rests:?}");
    }
    // What keeps it ends with the engine.
    drop(engine);
    let before = times.lock().unwrap().len();
    std::thread::sleep(Duration::from_millis(500));
    assert!(times.lock().unwrap().len() <= before + 1);
}

#[test]
fn a_device_proves_itself_again() {
    static READ: AtomicU32 = AtomicU32::new(0);
    // Right when it is opened, and wrong from the third picture on.
    let drifting: Script = |time| {
        READ.store(time, Ordering::Relaxed);
        Ok(if time < 3 { 1.0 } else { 2.0 })
    };
    let proof = Proof { input: golden_input(), logits: [1.0; 4] };
    let options = Options { prove: Duration::ZERO, retry: LONGEST_REST, ..Options::default() };
    let device = Some(maker("gpu", drifting));
    let mut engine = Supervised::open(device, vec![maker("a", right)], proof, options).unwrap();
    assert_eq!(engine.name(), "gpu");
    // The golden picture comes first and is right; this answer cannot be told from a right one.
    engine.run(&golden_input()).unwrap();
    assert_eq!((engine.name(), READ.load(Ordering::Relaxed)), ("gpu", 3));
    assert_eq!(engine.run(&golden_input()).unwrap().logits, [1.0; 4]);
    assert_eq!(engine.name(), "a");
    assert_eq!(engine.note().unwrap(), "GPU off: wrong answer on the golden picture (off by 1)");
}

#[test]
fn a_golden_answer_that_is_no_number_fits_no_engine() {
    let proof = Proof { input: golden_input(), logits: [1.0, f32::NAN, 1.0, 1.0] };
    assert_eq!(proof.difference(&mut Scripted("a", 0, right)).unwrap(), f32::INFINITY);
    assert!(proof.proved(&|| Ok(Box::new(Scripted("a", 0, right)))).is_err());
}
