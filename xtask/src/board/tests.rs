//! The built kernels, executed instruction by instruction without a device, against the scalar engine.
//!
//! The simulator also refuses what a card lets pass: reads beyond a buffer or of shared memory that was never written, and
//! accesses between which there is no barrier.

use super::{Board, Network, built_ptx};
use fovea::engine::cuda::kernels::PTX;
use fovea::engine::plan::{Plan, Step};
use fovea::engine::scalar::Scalar;
use fovea::engine::suite::{self, inputs, single_layer_plans};
use fovea_simulator::{self as simulator, Options};
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

/// The shipped network on one picture, on each architecture: `FOVEA_SIMULATED=80` or several, with commas between.
#[test]
fn the_shipped_network_is_exact() {
    let Ok(wanted) = std::env::var("FOVEA_SIMULATED") else {
        println!("skipped: FOVEA_SIMULATED names no architecture (53, 61, 72, 80); each takes minutes");
        return;
    };
    let path = crate::root().join("models/oct-inception-v3/model.onnx");
    let plan = Plan::read(&std::fs::read(path).unwrap()).unwrap();
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
