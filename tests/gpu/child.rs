//! What a process with a driver does.

use fovea::engine::cuda::schedule::CutAs;
use fovea::engine::cuda::{Cuda, Options};
use fovea::engine::cuda::{examine as doctor, tune as tuner};
use fovea::engine::plan::Plan;
use fovea::engine::scalar::Scalar;
use fovea::engine::suite::{self as problems, View};
use fovea::engine::supervised::{Named, Options as Care, Supervised};
use fovea::engine::{Ask, Engine, Proof};
use fovea::explain::light::Lit;
use fovea::frame::Frame;
use fovea::model::golden_input;
use fovea::model::{Head, Package};
use fovea::prepare::{Preparation, Region};
use fovea::reader::Answer;
use fovea::screen::{self, Referral, Screen, Shown, State, Strip};
use fovea::{Class, Reader};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Does the task that the parent wants; nothing in an ordinary run.
#[test]
fn child() {
    match std::env::var("FOVEA_TEST_GPU").as_deref() {
        Ok("suite") => suite(),
        Ok("open") => open(),
        Ok("run") => run(),
        Ok("auto") => auto(),
        Ok("examine") => examine(),
        Ok("read") => read(),
        Ok("real") => real(),
        Ok("screen") => screen(),
        Ok("tune") => tune(),
        Ok(other) => panic!("no task {other}"),
        Err(_) => {}
    }
}

fn options() -> Options {
    // Kernels of these sizes take the simulator milliseconds; other tests may run beside this one.
    Options { limit: Duration::from_secs(30), ..Options::default() }
}

/// Every problem of the suite, twice each input, so that nothing of one picture is left for the next.
fn suite() {
    let (mut count, mut named) = (0, false);
    for plan in problems::all() {
        let mut scalar = Scalar::of(plan.clone());
        let many = CutAs { blocks: 64, narrow: true };
        for cut in [None, Some(many)] {
            let mut cuda = Cuda::of(plan.clone(), None, Options { cut, ..options() }).unwrap();
            if !std::mem::replace(&mut named, true) {
                println!("{} · {} · graph {}", cuda.device(), cuda.kernels(), cuda.is_graph());
            }
            for input in problems::inputs(&plan, 2) {
                let expected = scalar.run_bytes(&input);
                for time in 1..=2 {
                    let got = cuda.run_bytes(&input).unwrap();
                    assert!(got == expected, "{cut:?}, time {time}\n{plan}");
                    count += 1;
                }
            }
        }
    }
    println!("{count} answers are the scalar engine's");
}

fn tiny() -> Plan {
    problems::tiny_network().unwrap()
}

fn proof() -> Proof {
    let input = golden_input();
    Proof { logits: Scalar::of(tiny()).run(&input).unwrap().logits, input }
}

fn gap() -> Head {
    problems::heads()[0].clone()
}

/// Numbers that look random, the same every time.
struct Dice(u64);

impl Dice {
    /// From `low` on, below `high`.
    fn roll(&mut self, low: u32, high: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        low + (self.0 >> 33) as u32 % (high - low)
    }

    /// A picture of any size, bright in places, with or without a region.
    fn view(&mut self) -> View {
        let (width, height) = (self.roll(32, 400), self.roll(32, 300));
        let (coarse, seed) = (self.roll(1, 40), self.roll(0, 1000));
        let noise =
            |x: u32, y: u32| ((x / coarse) ^ (y / 9)).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 20;
        let bright = self.roll(0, 3);
        let pixel = |i: u32| {
            let (x, y) = (i % width, i / width);
            if noise(x, y) & 3 < bright { 255 } else { (noise(y, x) >> 2) as u8 }
        };
        let frame = Frame::new(width, height, (0..width * height).map(pixel).collect(), "dice").unwrap();
        let (w, h) = (self.roll(32, width + 1), self.roll(32, height + 1));
        let (x, y) = (self.roll(0, width - w + 1), self.roll(0, height - h + 1));
        let region = (self.roll(0, 2) == 0).then_some(Region { x, y, width: w, height: h });
        let preparation = Preparation {
            margin_white: self.roll(0, 256) as u8,
            band: self.roll(0, 101) as u8,
            ..Preparation::default()
        };
        View { frame, region, preparation, room: [self.roll(1, 400), self.roll(1, 300)] }
    }
}

/// Pictures of all sizes one after the other, explained by heads of both kinds, with a screen and without.
fn read() {
    let (mut scalar, dice) = (Scalar::of(tiny()), &mut Dice(7));
    let mut count = 0;
    for head in problems::heads() {
        let mut cuda = Cuda::of(tiny(), Some(head.clone()), options()).unwrap();
        let random: Vec<View> = (0..6).map(|_| dice.view()).collect();
        for (number, view) in problems::views().chain(random).enumerate() {
            let ask = view.ask().unwrap();
            let ask = Ask { room: ask.room.filter(|_| number % 4 != 3), ..ask };
            let seen = cuda.read(&ask).unwrap();
            assert_eq!(doctor::compare(&seen, &ask, &head), None, "{view:?}");
            assert_eq!(seen.output, scalar.run(&seen.prepared.input).unwrap());
            let light = seen.light.expect("a device with a head explains");
            assert_eq!(light.picture.is_some(), ask.room.is_some());
            count += 1;
        }
        // The plain way is as it was, and a picture that is too large is prepared by the processor.
        let input = golden_input();
        assert_eq!(cuda.run(&input).unwrap(), scalar.run(&input).unwrap());
        let wide = Frame::new(8193, 32, vec![90; 8193 * 32], "wide").unwrap();
        let view = View { frame: wide, region: None, preparation: Preparation::default(), room: [9, 9] };
        let seen = cuda.read(&view.ask().unwrap()).unwrap();
        assert!(seen.light.is_none());
        assert_eq!(seen.prepared, view.preparation.prepare(&view.frame, None).unwrap());
    }
    println!("{count} pictures are as the processor has them");
}

/// What the operator sees of a device's answer: a reader with the shipped head, and the screen with and without what the device drew.
fn screen() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = Arc::new(Package::open(&root.join("models/oct-inception-v3")).unwrap());
    let cuda = Cuda::of(tiny(), Some(package.head.clone()), options()).unwrap();
    let mut device =
        Reader::with(Arc::clone(&package), Box::new(cuda), None).shown_in(screen::room(1024, 600));
    let mut processor = Reader::with(Arc::clone(&package), Box::new(Scalar::of(tiny())), None);
    for name in ["phantom-cnv-1.jpeg", "phantom-dme-1.jpeg"] {
        let frame = Frame::read(&root.join("examples/bscans").join(name)).unwrap();
        let [answer, expected] = [device.read(&frame).unwrap(), processor.read(&frame).unwrap()];
        assert_eq!(answer.output.features, expected.output.features);
        assert_eq!((answer.place, &answer.input), (expected.place, &expected.input));
        // The tiny network's head has nothing of the shipped one's: the class of which the device explains may be another.
        let light = answer.light.clone().expect("a device with a head explains");
        let mut said = answer.clone();
        said.diagnosis.class = light.class;
        let ((heat, lit), (want, none)) = (device.heat(&said), processor.heat(&said_without(&said)));
        let off = heat.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off * 255.0 < 1.0 && none.is_none(), "the heat is off by {off}");
        let lit = lit.expect("the device drew the picture");
        let draw = |lit: Option<&Arc<Lit>>| {
            let shown = Shown {
                picture: &frame,
                map: Some(&heat),
                place: answer.place,
                lit,
                finding: "CNV",
                probabilities: [0.7, 0.1, 0.1, 0.1],
                referral: Referral::Urgent,
                quality: "good",
                reason: "",
                age: Duration::ZERO,
                engine: answer.engine,
                note: "",
                millis: 1.0,
            };
            let strip = Strip::default();
            let view = screen::View { state: State::Finding, shown: Some(shown), model: "m", strip };
            Screen::new(1024, 600).draw(&view).to_vec()
        };
        let own = draw(None);
        assert!(draw(Some(&lit)) == own, "{name}: the device's picture is another");
        // It is the device's that was shown: one of another colour would be seen.
        let black = Lit { rgb: vec![0; lit.rgb.len()], ..(*lit).clone() };
        assert!(draw(Some(&Arc::new(black))) != own);
        // A finding of another class has the processor's map, and no picture.
        said.diagnosis.class = *Class::ALL.iter().find(|class| **class != light.class).unwrap();
        let (other, none) = device.heat(&said);
        assert!(other == processor.heat(&said).0 && none.is_none());
    }
    println!("the screens are the processor's");
}

/// The same answer of an engine that explains nothing.
fn said_without(answer: &Answer) -> Answer {
    Answer { light: None, ..answer.clone() }
}

/// Real pictures of FOVEA_DATA.
fn real() {
    let mut folders = vec![std::path::PathBuf::from(std::env::var_os("FOVEA_DATA").unwrap())];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false if fovea::frame::is_picture(&path) => files.push(path),
                false => {}
            }
        }
    }
    files.sort();
    let mut cuda = Cuda::of(tiny(), Some(gap()), options()).unwrap();
    let mut count = 0;
    for path in files.iter().step_by((files.len() / 8).max(1)) {
        let Ok(frame) = Frame::read(path) else { continue };
        let view = View { frame, region: None, preparation: Preparation::default(), room: [702, 453] };
        let ask = view.ask().unwrap();
        let seen = cuda.read(&ask).unwrap();
        assert_eq!(doctor::compare(&seen, &ask, &gap()), None, "{}", path.display());
        count += 1;
    }
    println!("{count} real pictures are as the processor has them");
}

/// Opens an engine and says why it cannot be.
fn open() {
    match Cuda::of(tiny(), None, options()) {
        Ok(cuda) => println!("opened {} · {} · graph {}", cuda.device(), cuda.kernels(), cuda.is_graph()),
        Err(error) => println!("refused: {error}"),
    }
}

/// Runs until something fails; then the device is opened again.
fn run() {
    let plan = tiny();
    let input = &problems::inputs(&plan, 3)[0];
    let expected = Scalar::of(plan.clone()).run_bytes(input);
    let short = Options { limit: Duration::from_secs(2), first_limit: Duration::from_secs(2), ..options() };
    for time in 1..=3 {
        let mut cuda = match Cuda::of(plan.clone(), None, short) {
            Ok(cuda) => cuda,
            Err(error) => {
                println!("{time}: refused: {error}");
                continue;
            }
        };
        for picture in 1..=3 {
            match cuda.run_bytes(input) {
                Ok(bytes) if bytes == expected => println!("{time}: picture {picture} right"),
                Ok(_) => println!("{time}: picture {picture} wrong"),
                Err(error) => {
                    println!("{time}: picture {picture} failed: {error}");
                    println!("{time}: then: {}", cuda.run_bytes(input).unwrap_err());
                    break;
                }
            }
        }
    }
}

/// The engine `auto` over the tiny network: a picture each 30 ms, until the device has answered, failed, and answered again
/// three times.
fn auto() {
    let care = Care {
        // The simulator takes a third of a second for a picture where others compute beside it.
        limit: Duration::from_secs(2),
        retry: Duration::from_millis(200),
        // Each picture behind a golden one.
        prove: Duration::ZERO,
    };
    let device: Named = (
        "cuda",
        Box::new(move || {
            let options = Options { limit: care.limit, ..options() };
            Ok(Box::new(Cuda::of(tiny(), Some(gap()), options)?))
        }),
    );
    let processor: Named = ("scalar", Box::new(|| Ok(Box::new(Scalar::of(tiny())))));
    let (mut scalar, proof) = (Scalar::of(tiny()), proof());
    let start = Instant::now();
    let mut engine = Supervised::open(Some(device), vec![processor], proof, care).unwrap();
    println!("opened in {} ms: {} · {:?}", start.elapsed().as_millis(), engine.name(), engine.note());
    let (mut slowest, mut processor, mut since) = (Duration::ZERO, 0, 0);
    let dice = &mut Dice(1);
    for picture in 1..=200u8 {
        let view = View { region: None, ..dice.view() };
        let ask = Ask { room: None, ..view.ask().unwrap() };
        let expected = scalar.read(&ask).unwrap();
        let start = Instant::now();
        let got = engine.read(&ask).unwrap();
        slowest = slowest.max(start.elapsed());
        let note = engine.note().unwrap_or_default();
        let same = (&got.prepared, &got.output) == (&expected.prepared, &expected.output)
            && got.light.is_some() == (engine.name() == "cuda")
            && doctor::compare(&got, &ask, &gap()).is_none();
        println!("{picture}: {} {} · {note}", engine.name(), if same { "right" } else { "WRONG" });
        match engine.name() {
            "scalar" => (processor, since) = (processor + 1, 0),
            _ => since += 1,
        }
        if processor > 0 && since == 3 {
            break;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    println!(
        "slowest {} ms; the processor answered {processor}; the device again: {}",
        slowest.as_millis(),
        since == 3
    );
}

/// The report of `fovea doctor --gpu`, with the tiny network.
fn examine() {
    match doctor::examine(&tiny(), &gap(), &proof(), 3, Duration::from_secs(5)) {
        Ok(report) => println!("{}", serde_json::to_string_pretty(&report).unwrap()),
        Err(error) => println!("refused: {error}"),
    }
}

/// Tunes for the tiny network, then opens it with the table, and with tables that are of no use.
fn tune() {
    let plan = tiny();
    let input = &problems::inputs(&plan, 3)[0];
    let expected = Scalar::of(plan.clone()).run_bytes(input);
    let open = |when: &str| {
        let mut cuda = Cuda::of(plan.clone(), None, options()).unwrap();
        let blocks: Vec<usize> = cuda.launches().iter().map(|launch| launch.blocks).collect();
        println!(
            "{when}: {blocks:?} {}",
            if cuda.run_bytes(input).unwrap() == expected { "right" } else { "WRONG" }
        );
        cuda.device().clone()
    };
    let device = open("usual");
    let tuned = tuner::tune(&plan, options(), input, &mut |line| println!("{line}")).unwrap();
    println!("{} cuts, {}", tuned.table.cuts.len(), if tuned.place.exists() { "kept" } else { "not kept" });
    let mut table = tuned.table;
    // Whatever the simulator's clock found: the second launch in narrow tiles.
    let cuda = Cuda::of(plan.clone(), None, options()).unwrap();
    table.cuts = [(cuda.launches()[1].shape.clone(), CutAs { blocks: 8, narrow: true })].into();
    drop(cuda);
    table.write(&tuned.place).unwrap();
    open("tuned");
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stdout).finish();
    tracing::subscriber::with_default(log, || {
        let write = |table: &tuner::Table| table.write(&tuned.place).unwrap();
        write(&tuner::Table { kernels: "others".into(), ..table.clone() });
        open("stale");
        write(&tuner::Table { device: "another".into(), ..table.clone() });
        open("foreign");
        let mut none = table.clone();
        none.cuts.values_mut().for_each(|cut| cut.blocks = 0);
        write(&none);
        open("senseless");
        std::fs::write(&tuned.place, "cuts = 7").unwrap();
        open("damaged");
    });
    assert_eq!(tuner::Table::place(&device), Some(tuned.place));
}
