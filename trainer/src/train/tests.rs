use super::*;
use crate::extract;
use crate::section::{Cut, tests::random_weights};
use crate::shards::MergeArgs;
use clap::Parser;
use half::f16;
use std::cell::Cell;
use std::path::Path;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: TrainArgs,
}

/// A split of 12 pictures and its cache before Mixed_7c, with features that tell the classes apart, and weights.
fn made(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let cut: Cut = "Mixed_7b".parse().unwrap();
    random_weights(&cut.trained()).write(&folder.join("w.safetensors")).unwrap();
    let mut text = "path,class,patient,split,width,height,origin,sha256\n".to_string();
    let mut features = Vec::new();
    for i in 0..12u32 {
        let class = fovea::Class::ALL[i as usize % 4];
        let part = if i < 8 { "train" } else { "validation" };
        text += &format!("{class}/{i}.png,{class},{i},{part},32,32,,{i}\n");
        let value = |k: u32| if k % 4 == i % 4 { 1.0 } else { ((k * 31 + i * 17) % 97) as f32 / 97.0 };
        features.extend((0..8 * 8 * 2048).flat_map(|k| f16::from_f32(value(k)).to_le_bytes()));
    }
    let split = folder.join("split.csv");
    std::fs::write(&split, text).unwrap();
    std::fs::create_dir(folder.join("cache")).unwrap();
    std::fs::write(folder.join("cache/features.f16"), features).unwrap();
    let preparation = toml::to_string(&fovea::prepare::Preparation::default()).unwrap();
    let note = format!(
        "cut = \"Mixed_7b\"\nshape = [8, 8, 2048]\nvariants = 1\nseed = 1\nweights_sha256 = \"{}\"\nsplit_sha256 = \"{}\"\n\
         [preparation]\n{preparation}",
        cache::file_sha256(&folder.join("w.safetensors")).unwrap(),
        cache::file_sha256(&split).unwrap()
    );
    std::fs::write(folder.join("cache/cache.toml"), note).unwrap();
}

fn arguments(folder: &Path, out: &str, more: &str) -> TrainArgs {
    let at = |name: &str| folder.join(name).display().to_string();
    let named = [
        "--split",
        &at("split.csv"),
        "--cache",
        &at("cache"),
        "--weights",
        &at("w.safetensors"),
        "--out",
        &at(out),
        // Tests that are run in a terminal leave it alone.
        "--plain",
    ]
    .map(str::to_string);
    let more = more.split_whitespace().map(str::to_string);
    Line::parse_from(std::iter::once("train".to_string()).chain(named).chain(more)).args
}

/// What a run leaves: the history without times, and the file of weights and averages.
fn left(out: &Path, epochs: usize) -> (Vec<String>, Vec<u8>) {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            let object = value.as_object_mut().unwrap();
            for time in ["images_per_second", "seconds", "peak_memory_mb", "time"] {
                assert!(object.remove(time).is_some(), "{time}");
            }
            value.to_string()
        })
        .collect();
    assert_eq!(lines.len(), epochs);
    (lines, std::fs::read(out.join(format!("state-{epochs:03}.safetensors"))).unwrap())
}

/// The checkpoints in a folder with their bytes, by name.
fn checkpoints(out: &Path) -> Vec<(String, Vec<u8>)> {
    let names = std::fs::read_dir(out).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = names
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .map(|path| (path.file_name().unwrap().display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

// Stopped in the middle of the second epoch and resumed, a run ends as one that went through: the same bytes.
#[test]
fn a_resumed_run_is_the_same_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    let settings = "--epochs 3 --batch 4 --passes 1 --rule adamw --schedule cosine --rate 1e-3 --ema 0.9 --dropout 0.2 --mixup 0.3";
    let whole = arguments(folder.path(), "whole", settings);
    Trainer::new(&whole).unwrap().run(&|| false).unwrap();

    let broken = arguments(folder.path(), "broken", settings);
    let batches = Cell::new(0);
    let stop = || {
        batches.set(batches.get() + 1);
        // Two batches and one for validation, then one.
        batches.get() > 4
    };
    Trainer::new(&broken).unwrap().run(&stop).unwrap();
    assert!(Trainer::new(&broken).is_err(), "a run there already is not overwritten");
    let resumed = arguments(folder.path(), "broken", &format!("{settings} --resume"));
    let mut trainer = Trainer::new(&resumed).unwrap();
    assert_eq!(trainer.progress.place(), "epoch 1 and 1 batches");
    trainer.run(&|| false).unwrap();

    let (a, b) = (left(&whole.out, 3), left(&broken.out, 3));
    assert_eq!(a.0, b.0);
    let files = [&whole.out, &broken.out].map(|out| checkpoints(out));
    assert_eq!(files[0].len(), 2, "the last state and the best model, no older ones");
    for ((name, bytes), (other, same)) in files[0].iter().zip(&files[1]) {
        assert_eq!(name, other);
        assert!(bytes == same, "{name} differs");
    }
    let state = Weights::read(&whole.out.join("state-003.safetensors")).unwrap();
    let moments = state.tensors.keys().filter(|name| name.starts_with("optimizer.")).count();
    let params = state.tensors.keys().filter(|name| name.starts_with("params")).count();
    assert_eq!((moments, params), (2 * params, 9 * 2 + 4), "two moments of each parameter");

    // The moments are used: a run without them goes on otherwise.
    let more = settings.replace("--epochs 3", "--epochs 4") + " --resume";
    let on = |name: &str| {
        let args = arguments(folder.path(), name, &more);
        Trainer::new(&args).unwrap().run(&|| false).unwrap();
        left(&args.out, 4).1
    };
    let mut without = state.clone();
    without.tensors.retain(|name, _| !name.starts_with("optimizer."));
    without.notes.clear();
    without.write(&broken.out.join("state-003.safetensors")).unwrap();
    assert!(on("whole") != on("broken"));
}

// Stopped in the first epoch, and again while it validates: nothing is lost, and the run ends as one that went through.
#[test]
fn a_run_can_be_stopped_at_any_batch() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    let settings = "--epochs 1 --batch 2 --passes 1 --rate 1e-3 --quantise-aware";
    let whole = arguments(folder.path(), "whole", settings);
    Trainer::new(&whole).unwrap().run(&|| false).unwrap();
    let stop_after = |count: usize| {
        let asked = Cell::new(0);
        move || {
            asked.set(asked.get() + 1);
            asked.get() > count
        }
    };
    let broken = arguments(folder.path(), "broken", settings);
    Trainer::new(&broken).unwrap().run(&stop_after(1)).unwrap();
    let resumed = arguments(folder.path(), "broken", &format!("{settings} --resume"));
    let mut trainer = Trainer::new(&resumed).unwrap();
    assert_eq!(trainer.progress.place(), "epoch 0 and 1 batches");
    // Three more batches are learnt; the second batch of the validation is not.
    trainer.run(&stop_after(4)).unwrap();
    let mut trainer = Trainer::new(&resumed).unwrap();
    assert_eq!(trainer.progress.place(), "epoch 0 and 4 batches");
    trainer.run(&|| false).unwrap();
    assert_eq!(left(&whole.out, 1).0, left(&broken.out, 1).0);
    assert!(checkpoints(&whole.out) == checkpoints(&broken.out));
    assert!(broken.out.join("curves.png").is_file());
}

// A rate of nothing cannot get better: with --patience 2 the run ends after the first epoch and two more.
#[test]
fn patience_ends() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    let args = arguments(folder.path(), "run", "--epochs 9 --batch 4 --passes 1 --rate 0 --patience 2");
    let mut trainer = Trainer::new(&args).unwrap();
    trainer.run(&|| false).unwrap();
    assert_eq!(trainer.progress.history.len(), 3);
    left(&args.out, 3);
}

// All of the network learns from source pictures that are changed each time they are shown, the same for the same seed.
#[test]
fn full_fine_tuning_moves_every_layer() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let blocks = "Input".parse::<Cut>().unwrap().trained();
    random_weights(&blocks).write(&at("w.safetensors")).unwrap();
    let mut text = "path,class,patient,split,width,height,origin,sha256\n".to_string();
    for (i, class) in fovea::Class::ALL.into_iter().enumerate().take(3) {
        let pixel = |x: u32, y: u32| if y > 40 + 10 * i as u32 && y < 90 { 150 + (x % 50) as u8 } else { 20 };
        let name = format!("{i}.png");
        image::GrayImage::from_fn(160, 120, |x, y| image::Luma([pixel(x, y)])).save(at(&name)).unwrap();
        let part = if i < 2 { "train" } else { "validation" };
        text += &format!("{name},{class},{i},{part},160,120,,{}\n", cache::file_sha256(&at(&name)).unwrap());
    }
    std::fs::write(at("split.csv"), text).unwrap();
    #[derive(Parser)]
    struct Extract {
        #[command(flatten)]
        args: extract::ExtractArgs,
    }
    let word = |name: &str| at(name).display().to_string();
    let data = folder.path().display().to_string();
    let (split, weights, pictures) = (word("split.csv"), word("w.safetensors"), word("cache"));
    let line = ["extract", "--data", &data, "--split", &split, "--weights", &weights, "--cut", "Input"];
    extract::extract(&Extract::parse_from(line.into_iter().chain(["--cache", &pictures])).args).unwrap();
    // The same in two shards.
    let parts = word("parts");
    let shard = |number: &str| {
        let args = Extract::parse_from(line.into_iter().chain(["--cache", &parts, "--shard", number])).args;
        extract::extract(&args).unwrap();
    };
    let merge = || crate::shards::merge(&MergeArgs { cache: at("parts"), split: at("split.csv") });
    shard("1/2");
    assert!(merge().unwrap_err().to_string().contains("missing: 0"));
    shard("0/2");
    let half = at("parts/features-00001-of-00002.f16");
    let bytes = std::fs::read(&half).unwrap();
    std::fs::write(&half, &bytes[..9]).unwrap();
    assert!(merge().unwrap_err().to_string().contains("features-00001-of-00002.f16: 9 bytes"));
    shard("1/2");
    merge().unwrap();
    let features = |cache: &str| std::fs::read(at(cache).join("features.f16")).unwrap();
    assert!(features("cache") == features("parts") && !half.exists());

    let settings = format!("--data {data} --epochs 1 --batch 2 --passes 1 --rate 1e-3 --rule adamw");
    let args = arguments(folder.path(), "run", &settings);
    let mut trainer = Trainer::new(&args).unwrap();
    let pixels = |seed: u64| {
        let items: Vec<&(usize, Record)> = trainer.train.iter().map(|v| &v[0]).collect();
        trainer.batch(&items, Some(seed), None).unwrap().0.into_data().try_to_vec::<f32>().unwrap()
    };
    let first = pixels(5);
    assert_eq!(first, pixels(5));
    assert_ne!(first, pixels(6));
    trainer.run(&|| false).unwrap();
    let before = Weights::read(&at("w.safetensors")).unwrap();
    let after = Weights::read(&trainer.progress.best.as_ref().unwrap().2).unwrap();
    for conv in crate::section::convs_of(&blocks) {
        let name = format!("{}.conv.weight", conv.name);
        assert_ne!(before.tensors[&name], after.tensors[&name], "{name}");
    }

    let text = "--data pictures --epochs 1";
    made(&at("frozen"));
    let refused = Trainer::new(&arguments(&at("frozen"), "run", text)).err().unwrap().to_string();
    assert!(refused.contains("--cut Input"), "{refused}");
}
