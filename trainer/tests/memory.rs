//! Memory is bounded by the batch, not by the set.

use clap::Parser;
use fovea::prepare::Preparation;
use fovea_trainer::checkpoint::Weights;
use fovea_trainer::train::{TrainArgs, train};
use fovea_trainer::{cache, curves};
use std::fmt::Write as _;
use std::path::Path;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: TrainArgs,
}

/// Trains the head on `count` pictures of four variants for an epoch and gives the peak of memory in MB. The cache
/// is a sparse file: as long as a real one, and empty.
fn peak(folder: &Path, count: usize) -> f64 {
    std::fs::create_dir(folder).unwrap();
    let at = |name: &str| folder.join(name);
    let mut weights = Weights::default();
    weights.set("none", &[1], vec![0.0]);
    weights.write(&at("w.safetensors")).unwrap();
    let mut text = "path,class,patient,split,width,height,origin,sha256\n".to_string();
    let mut records = 0;
    for i in 0..count {
        let class = fovea::Class::ALL[i % 4];
        let (part, variants) = if i % 10 == 9 { ("validation", 1) } else { ("train", 4) };
        writeln!(text, "train/{class}/{class}-{i}-1.jpeg,{class},{i},{part},512,496,train,{i:064x}").unwrap();
        records += variants;
    }
    std::fs::write(at("split.csv"), text).unwrap();
    std::fs::create_dir(at("cache")).unwrap();
    let features = std::fs::File::create(at("cache/features.f16")).unwrap();
    features.set_len(records * 8 * 8 * 2048 * 2).unwrap();
    let note = format!(
        "cut = \"Mixed_7c\"\nshape = [8, 8, 2048]\nvariants = 4\nseed = 1\nweights_sha256 = \"{}\"\nsplit_sha256 = \"{}\"\n\
         [preparation]\n{}",
        cache::file_sha256(&at("w.safetensors")).unwrap(),
        cache::file_sha256(&at("split.csv")).unwrap(),
        toml::to_string(&Preparation::default()).unwrap()
    );
    std::fs::write(at("cache/cache.toml"), note).unwrap();
    let word = |name: &str| at(name).display().to_string();
    let line = [
        "train".into(),
        "--split".into(),
        word("split.csv"),
        "--cache".into(),
        word("cache"),
        "--weights".into(),
        word("w.safetensors"),
        "--out".into(),
        word("run"),
    ];
    let more = ["--epochs", "1", "--passes", "1"].map(String::from);
    train(&Line::parse_from(line.into_iter().chain(more)).args).unwrap();
    curves::peak_memory_mb().unwrap_or(0.0)
}

// FOVEA_MEMORY_PICTURES=100000 asks for a set of the full size, which takes minutes.
#[test]
fn memory_grows_by_rows_not_by_features() {
    if curves::peak_memory_mb().is_none() {
        return eprintln!("skipped: this system does not tell the peak of memory");
    }
    let given = std::env::var("FOVEA_MEMORY_PICTURES").ok().and_then(|text| text.parse().ok());
    let (few, many): (usize, usize) = (1000, given.unwrap_or(11_000));
    let folder = tempfile::tempdir().unwrap();
    let first = peak(&folder.path().join("few"), few);
    let last = peak(&folder.path().join("many"), many);
    println!("{few} pictures: {first:.0} MB at most; {many}: {last:.0} MB");
    // A picture's row and the places of its variants take under 1.5 kB; its features would take a thousand times that.
    let room = 1.5e-3 * (many - few) as f64 + 16.0;
    assert!(last - first < room, "{first} MB, then {last} MB");
    assert!(first < 400.0, "{first} MB");
}
