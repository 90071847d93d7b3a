//! The shipped model on the patients that were held back: its manifest must tell the truth.

use fovea::{Frame, Reader, model::Package};
use fovea_trainer::split::{self, PrepareArgs, Split};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

// The same split as in the model card, from its seed; the int8 network on this machine's fastest engine.
#[test]
fn accuracy_on_held_out_patients_is_that_of_the_manifest() {
    let Some(data) = std::env::var_os("FOVEA_DATA") else {
        println!("skipped: FOVEA_DATA is not set");
        return;
    };
    let data = PathBuf::from(data).join("oct");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("split.csv");
    split::prepare(&PrepareArgs {
        data: data.clone(),
        out: out.clone(),
        validation: 0.1,
        test: 0.1,
        seed: 1,
        unpack: None,
    })
    .unwrap();
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/oct-inception-v3");
    let package = Arc::new(Package::open(&package).unwrap());
    let told = |key: &str| package.manifest.training[key].clone();
    let rows: Vec<_> =
        split::read(&out).unwrap().into_iter().filter(|row| row.split == Split::Test).collect();
    assert_eq!(told("test_pictures").as_integer(), Some(rows.len() as i64));
    let reader = Reader::new(Arc::clone(&package), "auto", None).unwrap();
    let halves: Vec<(Reader, &[split::Row])> =
        rows.chunks(rows.len().div_ceil(2)).map(|half| (reader.share().unwrap(), half)).collect();
    let right: usize = halves
        .into_par_iter()
        .map(|(mut reader, half)| {
            let right = |row: &&split::Row| {
                let frame = Frame::read(&data.join(&row.path)).unwrap();
                reader.read(&frame).unwrap().diagnosis.class == row.class
            };
            half.iter().filter(right).count()
        })
        .sum();
    let accuracy = right as f64 / rows.len() as f64;
    println!("{right} of {} held-out pictures right", rows.len());
    // The export computed it with tract, whose roundings may turn a picture that stands on the edge.
    let difference = (accuracy - told("test_accuracy_int8").as_float().unwrap()).abs();
    assert!(difference <= 1.5 / rows.len() as f64, "{accuracy}");
}
