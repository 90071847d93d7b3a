//! What can be tested without a device: the schedule, walked by the rules of the kernels, against the scalar engine; the built
//! kernels against their sources; and a machine without a driver.

use super::kernels::{LOCK, SOURCES, built, fingerprint, source};
use super::schedule::{Schedule, WORDS, Wishes};
use super::{Cuda, CudaError, Options};
use crate::engine::plan::{Plan, to_byte};
use crate::engine::scalar::Scalar;
use crate::engine::tests::{block, inputs, single_layer_plans};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The names of a job's words, in the order of `kernels/job.cuh`.
struct Words<'a>(BTreeMap<&'static str, &'a i32>);

impl Words<'_> {
    fn at(&self, name: &str) -> i32 {
        *self.0[name]
    }
}

/// Reads a job with the field names that the kernels' source declares, so that both sides are known to agree on them.
fn words(job: &[i32]) -> Words<'_> {
    let text = SOURCES.iter().find(|(name, _)| *name == "job.cuh").unwrap().1;
    let body = text.split("struct Job {").nth(1).unwrap().split("};").next().unwrap();
    let names: Vec<&'static str> = body
        .lines()
        .filter_map(|line| line.trim().strip_prefix("int ")?.split(';').next())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .collect();
    assert_eq!(names.len(), WORDS);
    Words(names.into_iter().zip(job).collect())
}

/// One tile or group of a pool, computed from the packed weights as the kernels address them. `partial` holds the sums of the
/// blocks that share the tile.
fn compute(
    schedule: &Schedule,
    job: &Words<'_>,
    block: i32,
    arena: &mut [u8],
    partial: &mut BTreeMap<i32, (i32, Vec<i32>)>,
) {
    let at = |name| job.at(name);
    let inside = |pixel: i32, ky: i32, kx: i32| {
        let y = pixel / at("out_width") * at("stride_y") - at("pad_y") + ky;
        let x = pixel % at("out_width") * at("stride_x") - at("pad_x") + kx;
        ((0..at("height")).contains(&y) && (0..at("width")).contains(&x))
            .then(|| at("from") + (y * at("width") + x) * at("from_step"))
    };
    let pixels = at("out_height") * at("out_width");
    if at("kind") >= 3 {
        let count = if at("wide_from") == 1 { 16 } else { 1 };
        for item in (block * 128..(block + 1) * 128).filter(|i| i * count < pixels * at("channels")) {
            let (pixel, first) = (item * count / at("channels"), item * count % at("channels"));
            for channel in first..first + count {
                let taps =
                    (0..at("kernel_height")).flat_map(|y| (0..at("kernel_width")).map(move |x| (y, x)));
                let bytes: Vec<i32> = taps
                    .filter_map(|(y, x)| inside(pixel, y, x))
                    .map(|place| i32::from(arena[(place + channel) as usize]))
                    .collect();
                let value = if at("kind") == 3 {
                    bytes.iter().copied().max().unwrap_or(0)
                } else {
                    bytes.iter().sum()
                };
                let m = schedule.multiplier[at("scales") as usize + bytes.len()];
                arena[(at("to") + pixel * at("to_step") + channel) as usize] = to_byte(value as f32 * m);
            }
        }
        return;
    }
    let width = if at("kind") == 0 { 64 } else { 32 };
    let (index, split) = (block / at("splits"), block % at("splits"));
    let (m, n) = (index / at("tiles_n"), index % at("tiles_n"));
    let slices = (at("products") + 63) / 64;
    let range = slices * split / at("splits")..slices * (split + 1) / at("splits");
    let mut sums = vec![0i32; (64 * width) as usize];
    for (i, sum) in sums.iter_mut().enumerate() {
        let (pixel, column) = (m * 64 + i as i32 / width, i as i32 % width);
        if pixel >= pixels {
            continue;
        }
        for product in (range.start * 64..range.end * 64).filter(|k| *k < at("products")) {
            let (tap, channel) = (product / at("channels"), product % at("channels"));
            let place = inside(pixel, tap / at("kernel_width"), tap % at("kernel_width"));
            let weight = at("weights") + ((n * slices + product / 64) * width + column) * 64 + product % 64;
            let byte = place.map_or(0, |place| i32::from(arena[(place + channel) as usize]));
            *sum += byte * i32::from(schedule.weights[weight as usize]);
        }
    }
    let (tickets, all) = partial.entry(at("partial") + index).or_insert_with(|| (0, vec![0; sums.len()]));
    *tickets += 1;
    all.iter_mut().zip(&sums).for_each(|(all, sum)| *all += sum);
    if *tickets < at("splits") {
        return;
    }
    for (i, sum) in all.iter().enumerate() {
        let (pixel, column) = (m * 64 + i as i32 / width, i as i32 % width);
        let output = n * width + column;
        if pixel < pixels && output < at("outputs") {
            let scale = (at("scales") + output) as usize;
            let value = (sum + schedule.bias[scale]) as f32 * schedule.multiplier[scale];
            arena[(at("to") + pixel * at("to_step") + output) as usize] = to_byte(value);
        }
    }
}

/// Runs a schedule, the blocks of a launch backwards: none may need what another of its launch writes.
fn walk(schedule: &Schedule, input: &[u8]) -> Vec<u8> {
    let plan = &schedule.plan;
    let mut arena = vec![0xCD; plan.arena];
    arena[plan.tensors[plan.input].place..][..input.len()].copy_from_slice(input);
    for launch in &schedule.launches {
        let jobs = &schedule.jobs[launch.first..][..launch.jobs];
        let list: Vec<[i32; WORDS]> = jobs.iter().map(|job| job.words()).collect();
        let mut partial: Vec<BTreeMap<i32, (i32, Vec<i32>)>> = vec![BTreeMap::new(); jobs.len()];
        for block in (0..launch.blocks as i32).rev() {
            let number = jobs.iter().position(|job| block < job.end).unwrap();
            let first = if number == 0 { 0 } else { jobs[number - 1].end };
            compute(schedule, &words(&list[number]), block - first, &mut arena, &mut partial[number]);
        }
    }
    crate::engine::scalar::read_bytes(plan, &arena)
}

#[test]
fn the_schedule_gives_the_scalar_engine_s_bytes() {
    let mut plans = single_layer_plans();
    plans.push(block(7));
    let mut shared = 0;
    for plan in plans {
        let mut scalar = Scalar::of(plan.clone());
        for blocks in [1, 64] {
            let schedule = Schedule::new(plan.clone(), Wishes { blocks, signed: false }).unwrap();
            shared += schedule.jobs.iter().filter(|job| job.splits > 1).count();
            for input in inputs(&plan, 2) {
                assert!(walk(&schedule, &input) == scalar.run_bytes(&input), "{plan}");
            }
        }
    }
    assert!(shared > 0, "no sum was shared");
}

#[test]
fn signed_activations_are_made_up_for_by_the_bias() {
    let plan = single_layer_plans().remove(1);
    let [plain, signed] =
        [false, true].map(|signed| Schedule::new(plan.clone(), Wishes { blocks: 1, signed }).unwrap());
    let crate::engine::plan::Step::Convolution(conv) = &plan.steps[0] else { panic!() };
    for (output, row) in conv.weight.chunks_exact(conv.weight.len() / conv.bias.len()).enumerate() {
        // A pixel of 200 as the device reads it.
        let sum = |byte: i32| row.iter().map(|w| byte * i32::from(*w)).sum::<i32>();
        assert_eq!(plain.bias[output] + sum(200), signed.bias[output] + sum(200 - 128));
    }
}

#[test]
fn the_network_is_few_launches_of_enough_blocks() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/oct-inception-v3/model.onnx");
    let plan = Plan::read(&std::fs::read(folder).unwrap()).unwrap();
    let macs: Vec<u64> = plan.steps.iter().map(|step| plan.macs(step)).collect();
    let schedule = Schedule::new(plan, Wishes { blocks: 24, signed: false }).unwrap();
    // With the copies in and out.
    assert!(schedule.launches.len() + 2 <= 52, "{} launches", schedule.launches.len());
    let (mut useful, mut issued) = (0, 0);
    for launch in &schedule.launches {
        let mut before = 0;
        for number in launch.first..launch.first + launch.jobs {
            let (step, job) = (schedule.steps[number], &schedule.jobs[number]);
            let blocks = job.end - before;
            before = job.end;
            assert!(
                macs[step] < 5_000_000 || blocks >= 8,
                "{blocks} blocks: {}",
                schedule.plan.steps[step].name()
            );
            if job.kind < 3 {
                let list = job.words();
                let job = words(&list);
                let tiles = blocks / job.at("splits") * if job.at("kind") == 0 { 64 * 64 } else { 64 * 32 };
                useful += macs[step];
                issued += tiles as u64 * (job.at("products") as u64).next_multiple_of(32);
            }
        }
    }
    let share = useful as f64 / issued as f64;
    println!("{} launches, useful / issued {share:.3}", schedule.launches.len());
    assert!(share >= 0.80, "{share}");
}

#[test]
fn built_kernels_are_those_of_the_sources() {
    let lock: toml::Table = LOCK.parse().unwrap();
    assert_eq!(
        lock["sources"].as_str(),
        Some(fingerprint().as_str()),
        "the kernels' sources changed; run `cargo xtask kernels`"
    );
    let files = lock["files"].as_table().unwrap();
    let images = built();
    assert_eq!(files.len(), images.len());
    for image in images {
        let ending = if image.what.starts_with("sm") { "cubin" } else { "ptx" };
        let hash: String = Sha256::digest(&image.bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            files[&format!("{}.{ending}", image.what)].as_str(),
            Some(hash.as_str()),
            "{}",
            image.what
        );
        if ending == "ptx" {
            let text = String::from_utf8(image.bytes).unwrap();
            for kernel in ["steps", "margins", "narrow_columns", "narrow_rows", "contributions", "overlay"] {
                assert!(text.contains(&format!(".entry {kernel}(")), "{kernel} in {}", image.what);
            }
            assert!(
                !text.contains("fma.rn.f32"),
                "a product and a sum became one rounding in {}",
                image.what
            );
        }
    }
    assert!(!source().contains("#include"));
}

#[test]
fn a_machine_without_a_driver_is_told_so() {
    let plan = single_layer_plans().remove(0);
    match Cuda::of(plan, Options::default()) {
        Err(error @ (CudaError::Absent | CudaError::NoDevice)) => {
            assert!(error.is_absence());
            let engine = crate::engine::EngineError::from(error).to_string();
            assert!(engine.starts_with("engine cuda is not for this machine"), "{engine}");
        }
        Err(error) => println!("skipped: this machine has a driver, which says: {error}"),
        Ok(engine) => println!("skipped: this machine has {}", engine.device()),
    }
}
