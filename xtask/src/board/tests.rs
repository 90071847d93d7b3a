//! The built kernels, executed instruction by instruction without a device, against the scalar engine.
//!
//! The simulator also refuses what a card lets pass: reads beyond a buffer or of shared memory that was never written, and
//! accesses between which there is no barrier.

use super::{Board, Network, built_ptx};
use fovea::engine::Engine as _;
use fovea::engine::cuda::examine::compare;
use fovea::engine::cuda::kernels::PTX;
use fovea::engine::plan::{Plan, Step};
use fovea::engine::scalar::Scalar;
use fovea::engine::suite::{self, inputs, single_layer_plans};
use fovea_simulator::{self as simulator, Options};
use std::collections::BTreeSet;
use std::time::Instant;

/// A simulated device with the built kernels of one architecture.
fn device(architecture: u32) -> Board {
    let board = Board::new(&built_ptx(architecture).unwrap()).unwrap();
    assert_eq!(board.module.target(), architecture);
    board
}

/// The features' bytes for an input, and how many instructions the warps executed.
fn run(network: &Network<'_>, input: &[u8], options: &Options) -> (Vec<u8>, u64) {
    match network.run(input, options).unwrap() {
        Ok((bytes, counts)) => (bytes, counts.iter().map(|c| c.instructions).sum()),
        Err(fault) => {
            panic!("compute_{}: {fault}\n{}", network.board.module.target(), network.schedule.plan)
        }
    }
}

fn block(seed: u32) -> Plan {
    suite::block(seed).unwrap()
}

/// All problems of the suite on one architecture, alone and with sums shared among blocks, in several legal orders.
fn check(architecture: u32) {
    let device = device(architecture);
    let mut plans = single_layer_plans();
    plans.extend([block(7), suite::extremes().unwrap()]);
    let orders =
        [simulator::Schedule::Late, simulator::Schedule::EagerReversed, simulator::Schedule::Random(5)];
    let mut shared = 0;
    for plan in plans {
        let mut scalar = Scalar::of(plan.clone());
        for blocks in [1, 64] {
            let schedule = device.schedule(&plan, blocks).unwrap();
            shared += schedule.jobs.iter().filter(|job| job.splits > 1).count();
            // One for all inputs, so that what a picture leaves behind is met by the next.
            let network = device.network(&schedule).unwrap();
            for (input, order) in inputs(&plan, 2).iter().zip(orders) {
                let options = Options { schedule: order, threads: 1, ..Options::default() };
                let (got, _) = run(&network, input, &options);
                let expected = scalar.run_bytes(input);
                let wrong = got.iter().zip(&expected).filter(|(a, b)| a != b).count();
                let first = got.iter().zip(&expected).position(|(a, b)| a != b);
                assert!(
                    got == expected,
                    "compute_{architecture}, {blocks} blocks, {order:?}: {wrong} of {} bytes differ, first {first:?}\n{plan}",
                    got.len()
                );
            }
        }
    }
    assert!(shared > 0, "no sum was shared");
}

#[test]
fn plain_kernels_give_the_scalar_engine_s_bytes() {
    check(53);
}

#[test]
fn dp4a_kernels_give_the_scalar_engine_s_bytes() {
    check(61);
}

#[test]
fn wmma_kernels_give_the_scalar_engine_s_bytes() {
    check(72);
}

#[test]
fn mma_kernels_give_the_scalar_engine_s_bytes() {
    check(80);
}

/// The blocks of a launch need nothing of each other but by tickets.
#[test]
fn blocks_do_not_race() {
    for architecture in PTX {
        let device = device(architecture);
        let plans = [block(7), single_layer_plans().remove(12)];
        for plan in plans {
            let schedule = device.schedule(&plan, 64).unwrap();
            let input = &inputs(&plan, 3)[0];
            let options = Options { global_races: true, threads: 1, ..Options::default() };
            let network = device.network(&schedule).unwrap();
            let (got, _) = run(&network, input, &options);
            assert!(got == Scalar::of(plan.clone()).run_bytes(input), "compute_{architecture}\n{plan}");
        }
    }
}

/// Preparation and explanation, as the processor has them; one board for all pictures, so that what one leaves behind is met by the next.
#[test]
fn pictures_are_prepared_and_explained_as_by_the_processor() {
    let plan = suite::tiny_network().unwrap();
    let orders =
        [simulator::Schedule::Late, simulator::Schedule::EagerReversed, simulator::Schedule::Random(6)];
    for architecture in PTX {
        let device = device(architecture);
        let schedule = device.schedule(&plan, 1).unwrap();
        for head in suite::heads() {
            let network = device.network(&schedule).unwrap();
            for (number, view) in suite::views().enumerate() {
                let ask = view.ask().unwrap();
                let global_races = number == 0;
                let options =
                    Options { schedule: orders[number % 3], threads: 1, global_races, ..Options::default() };
                let (seen, _) = network
                    .read(&ask, &head, &options)
                    .unwrap()
                    .unwrap_or_else(|f| panic!("compute_{architecture}: {f}"));
                let want = Scalar::of(plan.clone()).run(&seen.prepared.input).unwrap();
                assert_eq!(compare(&seen, &ask, &head), None, "compute_{architecture}, {view:?}");
                assert!(seen.output == want, "compute_{architecture}, {view:?}");
            }
        }
    }
}

/// The shipped network on one picture, on each architecture: `FOVEA_SIMULATED=80` or several, with commas between.
#[test]
fn the_shipped_network_is_exact() {
    let Ok(wanted) = std::env::var("FOVEA_SIMULATED") else {
        println!("skipped: FOVEA_SIMULATED names no architecture (53, 61, 72, 80); each takes minutes");
        return;
    };
    let path = crate::root().join("models/oct-inception-v3/model.onnx");
    let plan = Plan::read(&std::fs::read(path).unwrap().into()).unwrap();
    let convolutions = plan.steps.iter().filter(|step| matches!(step, Step::Convolution(_))).count();
    assert!(convolutions > 90);
    let input = &inputs(&plan, 4)[0];
    let expected = Scalar::of(plan.clone()).run_bytes(input);
    assert!(expected.iter().any(|byte| *byte != expected[0]));
    for architecture in wanted.split(',') {
        let device = device(architecture.trim().parse().unwrap());
        let schedule = device.schedule(&plan, 24).unwrap();
        let network = device.network(&schedule).unwrap();
        let start = Instant::now();
        let (got, instructions) = run(&network, input, &Options::default());
        println!(
            "compute_{architecture}: {} launches, {instructions} warp instructions in {:.0} s",
            schedule.launches.len(),
            start.elapsed().as_secs_f32()
        );
        assert!(got == expected, "compute_{architecture}");
    }
}

/// Instructions of a PTX text, with all their modifiers.
fn opcodes(ptx: &str) -> BTreeSet<String> {
    let one = |line: &str| {
        let line = line.split("//").next().unwrap_or_default().trim().trim_start_matches(['{', ' ', '\t']);
        let line = if line.starts_with('@') { line.split_once(char::is_whitespace)?.1.trim() } else { line };
        let word = line.split([' ', '\t', ';']).next().unwrap_or_default();
        let named = word.starts_with(|c: char| c.is_ascii_lowercase()) && line.ends_with(';');
        named.then(|| word.to_owned())
    };
    ptx.lines().filter_map(one).collect()
}

/// True when a word of a test stands for the instruction; what is in braces there stands for anything.
fn stands_for(word: &str, opcode: &str) -> bool {
    let mut parts = word.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest));
    let first = parts.next().unwrap_or_default();
    if first == word {
        return word == opcode;
    }
    // Without a beginning of its own a word would stand for everything.
    let Some(mut rest) = opcode.strip_prefix(first).filter(|_| first.contains('.')) else { return false };
    let mut last = "";
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        (rest, last) = (&rest[at + part.len()..], part);
    }
    rest.is_empty() || last.is_empty()
}

/// The simulator's own tests run every instruction of the kernels that go out: what it does is known to be what NVIDIA says.
#[test]
fn every_instruction_of_the_built_kernels_has_a_test_of_its_own() {
    let folder = crate::root().join("simulator/src/exec");
    let files = folder.join("tests").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let text: String =
        files.chain([folder.join("tests.rs")]).map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let apart = |c: char| c.is_whitespace() || "\";,()[]".contains(c);
    // A line end of a text in Rust is `\n`, whose letter must not become a part of the word behind it.
    let text = text.replace("\\n", " ").replace('\\', " ");
    let words: BTreeSet<&str> = text.split(apart).filter(|word| word.contains('.')).collect();
    let used: BTreeSet<String> = PTX.into_iter().flat_map(|a| opcodes(&built_ptx(a).unwrap())).collect();
    assert!(used.len() > 60, "{used:?}");
    // What only ends or names a place has no result to compare.
    let plain = ["ret", "bra", "bra.uni"];
    let untested: Vec<&String> = used
        .iter()
        .filter(|opcode| !plain.contains(&opcode.as_str()))
        .filter(|opcode| !words.iter().any(|word| stands_for(word, opcode)))
        .collect();
    assert!(untested.is_empty(), "{untested:?} of {} have no test in simulator/src/exec/tests", used.len());
}
