//! The shipped model: the bundled B-scans, the heatmap against the drawn lesions, and the gate on real pictures.

use fovea::diagnosis::Finding;
use fovea::explain::Map;
use fovea::model::Package;
use fovea::{Class, Frame, Reader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn reader() -> Reader {
    let package = Package::open(&root().join("models/oct-inception-v3")).unwrap();
    Reader::new(Arc::new(package), "auto", None).unwrap()
}

/// Pictures in a folder and in all folders in it, in order.
fn pictures(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let is_picture =
        |path: &Path| path.extension().is_some_and(|e| ["jpeg", "jpg", "png"].iter().any(|k| e == *k));
    entries
        .into_iter()
        .flat_map(|path| if path.is_dir() { pictures(&path) } else { vec![path] })
        .filter(|p| is_picture(p))
        .collect()
}

// Each of the eight is read as what was drawn, and where there is a lesion the heat's highest cell touches it.
#[test]
fn bundled_phantoms_are_read_right_and_the_heat_lies_on_the_lesion() {
    let mut reader = reader();
    let (mut lesions, mut hits) = (0, 0);
    let folder = root().join("examples/bscans");
    for path in pictures(&folder).iter().filter(|path| path.parent() == Some(&folder)) {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let class = Class::ALL.into_iter().find(|c| stem.contains(&c.name().to_ascii_lowercase())).unwrap();
        let answer = reader.read(&Frame::read(path).unwrap()).unwrap();
        assert_eq!(answer.diagnosis.finding, Finding::Class(class), "{stem}: {}", answer.diagnosis.reason);
        let mask = folder.join(format!("masks/{stem}.png"));
        if !mask.exists() {
            assert_eq!(class, Class::Normal);
            continue;
        }
        lesions += 1;
        let heat = Map::of_features(&reader.contribution(&answer, class).map).heat();
        let peak = (0..64).max_by(|a, b| heat.values[*a].total_cmp(&heat.values[*b])).unwrap();
        let mask = image::open(mask).unwrap().to_luma8();
        // The cell's place in the picture: the map lies over what the network saw.
        let seen = answer.place;
        let (w, h) = (seen.width / 8, seen.height / 8);
        let (x, y) = (seen.x + peak as u32 % 8 * w, seen.y + peak as u32 / 8 * h);
        hits += usize::from((0..w * h).any(|i| mask.get_pixel(x + i % w, y + i / w).0[0] > 127));
    }
    println!("the heat's highest cell touches the lesion in {hits} of {lesions} bundled phantoms");
    assert_eq!(lesions, 6);
    assert!(hits >= 5, "{hits} of {lesions}");
}

// At least 95 of 100 pictures that are no B-scans are refused; at least 99 of 100 B-scans pass.
#[test]
fn the_gate_refuses_what_is_no_b_scan() {
    let Some(data) = std::env::var_os("FOVEA_DATA").map(PathBuf::from) else {
        println!("skipped: FOVEA_DATA is not set");
        return;
    };
    let mut reader = reader();
    let mut refused = |paths: &[PathBuf]| {
        let not_oct = |path: &&PathBuf| {
            let answer = reader.read(&Frame::read(path).unwrap()).unwrap();
            answer.diagnosis.finding == Finding::NotOct
        };
        paths.iter().filter(not_oct).count()
    };
    let others = pictures(&data.join("not-oct"));
    let count = refused(&others);
    println!("{count} of {} pictures that are no B-scans are refused", others.len());
    assert!(count * 100 >= others.len() * 95);
    let scans = pictures(&data.join("oct"));
    let count = refused(&scans);
    println!("{count} of {} B-scans are refused", scans.len());
    assert!(count * 100 <= scans.len());
}
