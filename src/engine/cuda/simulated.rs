//! The built kernels, executed instruction by instruction without a device, against the scalar engine.
//!
//! The simulator also refuses what a card lets pass: reads beyond a buffer or of shared memory that was never written, and
//! accesses between which there is no barrier.

use super::kernels::{PTX, SIGNED, built};
use super::schedule::{Schedule, THREADS, WORDS, Wishes};
use crate::engine::plan::{Plan, Step};
use crate::engine::scalar::{self, Scalar};
use crate::engine::tests::{block, extremes, inputs, single_layer_plans};
use fovea_simulator::{self as simulator, DeviceMemory, Launch, Module, Options};
use std::time::Instant;

/// A simulated device with the kernels of one architecture.
struct Device {
    memory: DeviceMemory,
    module: Module,
    architecture: u32,
}

impl Device {
    fn new(architecture: u32) -> Self {
        let image =
            built().into_iter().find(|image| image.what == format!("compute_{architecture}")).unwrap();
        let memory = DeviceMemory::new(1 << 30);
        let module = Module::load(std::str::from_utf8(&image.bytes).unwrap(), &memory).unwrap();
        assert_eq!(module.target(), architecture);
        Self { memory, module, architecture }
    }

    fn schedule(&self, plan: &Plan, blocks: usize) -> Schedule {
        Schedule::new(plan.clone(), Wishes { blocks, signed: SIGNED.contains(&self.architecture) }).unwrap()
    }

    fn put(&self, bytes: &[u8]) -> u64 {
        let address = self.memory.allocate(bytes.len()).unwrap();
        self.memory.write(address, bytes).unwrap();
        address
    }

    /// Puts a schedule on the device as `Network::new` does.
    fn network<'a>(&'a self, schedule: &'a Schedule) -> Network<'a> {
        let words = |list: &[i32]| -> Vec<u8> { list.iter().flat_map(|w| w.to_le_bytes()).collect() };
        let multiplier: Vec<u8> = schedule.multiplier.iter().flat_map(|m| m.to_le_bytes()).collect();
        let weights: Vec<u8> = schedule.weights.iter().map(|w| w.cast_unsigned()).collect();
        let buffers = [
            self.memory.allocate(schedule.plan.arena).unwrap(),
            self.put(&weights),
            self.put(&words(&schedule.bias)),
            self.put(&multiplier),
            self.memory.allocate((schedule.partial * 4).max(1)).unwrap(),
            self.put(&vec![0; (schedule.tickets * 4).max(1)]),
        ];
        Network { device: self, schedule, jobs: self.put(&words(&schedule.words())), buffers }
    }
}

/// A schedule in the device's memory.
struct Network<'a> {
    device: &'a Device,
    schedule: &'a Schedule,
    jobs: u64,
    buffers: [u64; 6],
}

impl Network<'_> {
    /// The features' bytes for an input, and how many instructions the warps executed.
    fn run(&self, input: &[u8], options: &Options) -> (Vec<u8>, u64) {
        let (device, plan) = (self.device, &self.schedule.plan);
        let kernel = device.module.kernel("steps").unwrap();
        let levels = |byte: &u8| plan.levels.as_ref().map_or(*byte, |levels| levels[usize::from(*byte)]);
        let input: Vec<u8> = input.iter().map(levels).collect();
        device.memory.write(self.buffers[0] + plan.tensors[plan.input].place as u64, &input).unwrap();
        let mut instructions = 0;
        for launch in &self.schedule.launches {
            let jobs = self.jobs + (launch.first * WORDS * 4) as u64;
            let (jobs, count) = (jobs.to_le_bytes(), (launch.jobs as i32).to_le_bytes());
            let buffers = self.buffers.map(u64::to_le_bytes);
            let mut arguments: Vec<&[u8]> = vec![&jobs, &count];
            arguments.extend(buffers.iter().map(|b| &b[..]));
            let launch = Launch {
                grid: [launch.blocks as u32, 1, 1],
                block: [THREADS as u32, 1, 1],
                dynamic_shared: 0,
                args: simulator::pack_args(&device.module, kernel, &arguments).unwrap(),
            };
            match simulator::launch(&device.module, kernel, &launch, &device.memory, options) {
                Ok(counters) => instructions += counters.instructions,
                Err(fault) => panic!("compute_{}: {fault}\n{plan}", device.architecture),
            }
        }
        let mut arena = vec![0; plan.arena];
        device.memory.read(self.buffers[0], &mut arena).unwrap();
        (scalar::read_bytes(plan, &arena), instructions)
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        for address in self.buffers.into_iter().chain([self.jobs]) {
            self.device.memory.free(address).unwrap();
        }
    }
}

/// All problems of the suite on one architecture, alone and with sums shared among blocks, in several legal orders.
fn check(architecture: u32) {
    let device = Device::new(architecture);
    let mut plans = single_layer_plans();
    plans.extend([block(7), extremes()]);
    let orders =
        [simulator::Schedule::Late, simulator::Schedule::EagerReversed, simulator::Schedule::Random(5)];
    let mut shared = 0;
    for plan in plans {
        let mut scalar = Scalar::of(plan.clone());
        for blocks in [1, 64] {
            let schedule = device.schedule(&plan, blocks);
            shared += schedule.jobs.iter().filter(|job| job.splits > 1).count();
            let network = device.network(&schedule);
            for (input, order) in inputs(&plan, 2).iter().zip(orders) {
                let options = Options { schedule: order, threads: 1, ..Options::default() };
                let (got, _) = network.run(input, &options);
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
        let device = Device::new(architecture);
        let plans = [block(7), single_layer_plans().remove(12)];
        for plan in plans {
            let schedule = device.schedule(&plan, 64);
            let input = &inputs(&plan, 3)[0];
            let options = Options { global_races: true, threads: 1, ..Options::default() };
            let (got, _) = device.network(&schedule).run(input, &options);
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
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/oct-inception-v3/model.onnx");
    let plan = Plan::read(&std::fs::read(path).unwrap()).unwrap();
    let convolutions = plan.steps.iter().filter(|step| matches!(step, Step::Convolution(_))).count();
    assert!(convolutions > 90);
    let input = &inputs(&plan, 4)[0];
    let expected = Scalar::of(plan.clone()).run_bytes(input);
    assert!(expected.iter().any(|byte| *byte != expected[0]));
    for architecture in wanted.split(',') {
        let device = Device::new(architecture.trim().parse().unwrap());
        let schedule = device.schedule(&plan, 24);
        let network = device.network(&schedule);
        let start = Instant::now();
        let (got, instructions) = network.run(input, &Options::default());
        println!(
            "compute_{architecture}: {} launches, {instructions} warp instructions in {:.0} s",
            schedule.launches.len(),
            start.elapsed().as_secs_f32()
        );
        assert!(got == expected, "compute_{architecture}");
    }
}
