//! What a process with a driver does.

use fovea::engine::cuda::schedule::CutAs;
use fovea::engine::cuda::{Cuda, Options};
use fovea::engine::cuda::{examine as doctor, tune as tuner};
use fovea::engine::plan::Plan;
use fovea::engine::scalar::Scalar;
use fovea::engine::suite as problems;
use fovea::engine::supervised::{Named, Options as Care, Supervised};
use fovea::engine::{Engine, Proof};
use fovea::model::golden_input;
use fovea::prepare::NetworkInput;
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
            let mut cuda = Cuda::of(plan.clone(), Options { cut, ..options() }).unwrap();
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

/// Opens an engine and says why it cannot be.
fn open() {
    match Cuda::of(tiny(), options()) {
        Ok(cuda) => println!("opened {} · {} · graph {}", cuda.device(), cuda.kernels(), cuda.is_graph()),
        Err(error) => println!("refused: {error}"),
    }
}

/// Runs until something fails; then the device is opened again.
fn run() {
    let plan = tiny();
    let input = &problems::inputs(&plan, 3)[0];
    let expected = Scalar::of(plan.clone()).run_bytes(input);
    let short =
        Options { limit: Duration::from_millis(300), first_limit: Duration::from_millis(300), ..options() };
    for time in 1..=3 {
        let mut cuda = match Cuda::of(plan.clone(), short) {
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
        limit: Duration::from_millis(500),
        retry: Duration::from_millis(200),
        // Each picture behind a golden one.
        prove: Duration::ZERO,
    };
    let device: Named = (
        "cuda",
        Box::new(move || Ok(Box::new(Cuda::of(tiny(), Options { limit: care.limit, ..options() })?))),
    );
    let processor: Named = ("scalar", Box::new(|| Ok(Box::new(Scalar::of(tiny())))));
    let (mut scalar, proof) = (Scalar::of(tiny()), proof());
    let start = Instant::now();
    let mut engine = Supervised::open(Some(device), vec![processor], proof, care).unwrap();
    println!("opened in {} ms: {} · {:?}", start.elapsed().as_millis(), engine.name(), engine.note());
    let (mut slowest, mut processor, mut since) = (Duration::ZERO, 0, 0);
    for picture in 1..=200u8 {
        let input = NetworkInput(Box::new(std::array::from_fn(|i| (i as u8).wrapping_mul(picture))));
        let expected = scalar.run(&input).unwrap();
        let start = Instant::now();
        let got = engine.run(&input).unwrap();
        slowest = slowest.max(start.elapsed());
        let note = engine.note().unwrap_or_default();
        println!("{picture}: {} {} · {note}", engine.name(), if got == expected { "right" } else { "WRONG" });
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
    match doctor::examine(&tiny(), &proof(), 3, Duration::from_secs(5)) {
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
        let mut cuda = Cuda::of(plan.clone(), options()).unwrap();
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
    let cuda = Cuda::of(plan.clone(), options()).unwrap();
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
