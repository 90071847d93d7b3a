//! What can be tested without a device besides what the developers' tasks simulate (`xtask`'s `board`): the schedule's size, the built kernels against their sources, and a
//! machine without a driver.

use super::kernels::{LOCK, SOURCES, built, fingerprint, source};
use super::schedule::{CutAs, Cuts, Schedule, WORDS, Wishes};
use super::{Cuda, CudaError, Options};
use crate::engine::plan::{Plan, Step};
use crate::engine::suite::single_layer_plans;
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

fn wishes(blocks: usize, signed: bool) -> Wishes {
    Wishes { cut: CutAs { blocks, narrow: false }, signed }
}

/// A tuned launch is cut as the table says, others as before.
#[test]
fn a_table_changes_its_own_launches() {
    let plan = single_layer_plans().remove(12);
    let launches = |cuts: &Cuts| Schedule::tuned(plan.clone(), wishes(1, false), cuts).unwrap().launches;
    let plain = launches(&Cuts::new());
    assert_eq!(plain[0].shape, "8x8x448 3x3/1x1 8x8x64");
    let cut = CutAs { blocks: 64, narrow: true };
    let tuned = launches(&Cuts::from([(plain[0].shape.clone(), cut)]));
    assert!(tuned[0].blocks > plain[0].blocks, "{tuned:?}");
    assert_eq!(launches(&Cuts::from([("another".into(), cut)])), plain);
}

#[test]
fn signed_activations_are_made_up_for_by_the_bias() {
    let plan = single_layer_plans().remove(1);
    let [plain, signed] = [false, true].map(|signed| Schedule::new(plan.clone(), wishes(1, signed)).unwrap());
    let Step::Convolution(conv) = &plan.steps[0] else { panic!() };
    for (output, row) in conv.weight.chunks_exact(conv.weight.len() / conv.bias.len()).enumerate() {
        // A pixel of 200 as the device reads it.
        let sum = |byte: i32| row.iter().map(|w| byte * i32::from(*w)).sum::<i32>();
        assert_eq!(plain.bias[output] + sum(200), signed.bias[output] + sum(200 - 128));
    }
}

#[test]
fn the_network_is_few_launches_of_enough_blocks() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/oct-inception-v3/model.onnx");
    let plan = Plan::read(&std::fs::read(folder).unwrap().into()).unwrap();
    let macs: Vec<u64> = plan.steps.iter().map(|step| plan.macs(step)).collect();
    let schedule = Schedule::new(plan, wishes(24, false)).unwrap();
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
            assert!(text.contains(".entry steps("), "{}", image.what);
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
    match Cuda::of(plan, None, Options::default()) {
        Err(error @ CudaError::Absent) => {
            assert!(error.is_absence());
            let engine = crate::engine::EngineError::from(error).to_string();
            assert!(engine.starts_with("engine cuda is not for this machine"), "{engine}");
        }
        Err(error) => println!("skipped: this machine has a driver, which says: {error}"),
        Ok(engine) => println!("skipped: this machine has {}", engine.device()),
    }
}
