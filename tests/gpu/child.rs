//! What a process with a driver does.

use fovea::engine::cuda::{Cuda, Options};
use fovea::engine::plan::Plan;
use fovea::engine::scalar::Scalar;
use fovea::engine::suite as problems;
use std::time::Duration;

/// Does the task that the parent wants; nothing in an ordinary run.
#[test]
fn child() {
    match std::env::var("FOVEA_TEST_GPU").as_deref() {
        Ok("suite") => suite(),
        Ok("open") => open(),
        Ok("run") => run(),
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
        for blocks in [None, Some(64)] {
            let mut cuda = Cuda::of(plan.clone(), Options { blocks, ..options() }).unwrap();
            if !std::mem::replace(&mut named, true) {
                println!("{} · {} · graph {}", cuda.device(), cuda.kernels(), cuda.is_graph());
            }
            for input in problems::inputs(&plan, 2) {
                let expected = scalar.run_bytes(&input);
                for time in 1..=2 {
                    let got = cuda.run_bytes(&input).unwrap();
                    assert!(got == expected, "{blocks:?} blocks, time {time}\n{plan}");
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
