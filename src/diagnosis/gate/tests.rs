use super::*;
use crate::diagnosis::Quality;
use crate::prepare::Preparation;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn measure(frame: &Frame) -> (Statistics, Quality) {
    let input = Preparation::default().prepare(frame, None).unwrap().whole;
    let statistics = Statistics::measure(frame, None, &input);
    let quality = Quality::measure(&statistics, &input);
    (statistics, quality)
}

fn frame(f: impl Fn(u32, u32) -> u8) -> Frame {
    let pixels = (0..496).flat_map(|y| (0..512).map(move |x| (x, y))).map(|(x, y)| f(x, y)).collect();
    Frame::new(512, 496, pixels, "test").unwrap()
}

/// Speckle-like noise from the position alone.
fn speckle(x: u32, y: u32) -> u8 {
    ((x.wrapping_mul(73856093) ^ y.wrapping_mul(19349663)).wrapping_mul(2654435761) >> 27) as u8
}

#[test]
fn a_drawn_band_passes_and_other_things_do_not() {
    let bent = |x: u32| 200.0 + 30.0 * (x as f32 / 80.0).sin();
    let band = frame(|x, y| {
        let depth = y as f32 - bent(x);
        let light =
            if (0.0..70.0).contains(&depth) { 90 + 60 * u8::from((40.0..55.0).contains(&depth)) } else { 10 };
        light + speckle(x, y)
    });
    let (statistics, quality) = measure(&band);
    assert_eq!(statistics.refusal(), None, "{statistics:?}");
    assert!(quality.contrast > 3.0, "{quality:?}");
    for (name, other) in [
        ("black", frame(|_, _| 0)),
        ("white", frame(|_, _| 255)),
        ("grey", frame(|_, _| 100)),
        ("noise", frame(|x, y| speckle(x, y) * 8)),
        (
            "disc",
            frame(|x, y| if (x as i32 - 256).pow(2) + (y as i32 - 248).pow(2) < 22500 { 150 } else { 5 }),
        ),
        ("upright", frame(|x, y| if (200..260).contains(&x) { 180 } else { 10 } + speckle(x, y))),
        ("ramp", frame(|_, y| (y / 2) as u8)),
    ] {
        let (statistics, _) = measure(&other);
        assert!(statistics.refusal().is_some(), "{name}: {statistics:?}");
    }
}

fn files(folder: &Path, list: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, list);
        } else if path.extension().is_some_and(|e| e == "jpeg" || e == "jpg") {
            list.push(path);
        }
    }
    list.sort();
}

/// The figures of the gate by image statistics alone. Prints how often each rule speaks and refuses.
#[test]
fn real_pictures_pass_and_others_are_refused() {
    let Some(data) = std::env::var_os("FOVEA_DATA") else {
        println!("skipped: FOVEA_DATA is not set");
        return;
    };
    let mut refused = BTreeMap::new();
    for set in ["oct", "other-machine", "not-oct"] {
        let mut list = Vec::new();
        files(&Path::new(&data).join(set), &mut list);
        let all: Vec<(Statistics, Quality)> =
            list.par_iter().map(|path| measure(&Frame::read(path).unwrap())).collect();
        let count = all.iter().filter(|(s, _)| s.refusal().is_some()).count();
        let grey =
            all.iter().filter(|(s, _)| Statistics { colour: 0.0, ..s.clone() }.refusal().is_some()).count();
        println!("{set}: {count} of {} refused by image statistics, {grey} without colour", all.len());
        for (i, rule) in RULES.iter().enumerate() {
            let shares: Vec<f32> =
                all.iter().filter_map(|(s, _)| s.strangeness().nth(i)).map(|r| r.2).collect();
            let speaks = shares.iter().filter(|s| **s > 0.0).count();
            println!(
                "  {:10} unusual {speaks:4}, refuses alone {:4}",
                rule.name,
                shares.iter().filter(|s| **s >= 1.0).count()
            );
        }
        for (path, (s, _)) in
            list.iter().zip(&all).filter(|(_, (s, _))| s.refusal().is_some() == (set != "not-oct"))
        {
            let why: Vec<_> =
                s.strangeness().filter(|r| r.2 > 0.0).map(|r| format!("{} {:.2}", r.0, r.2)).collect();
            println!("    {}: {}", path.display(), why.join(", "));
        }
        for (name, of) in [("contrast", (|q| q.contrast) as fn(&Quality) -> f32), ("clipped", |q| q.clipped)]
        {
            let mut values: Vec<f32> = all.iter().map(|(_, q)| of(q)).collect();
            let at = [0.01, 0.1, 0.5, 0.9, 0.99].map(|q| format!("{:.4}", quantile(&mut values, q)));
            println!("  {name}: 1, 10, 50, 90, 99 %: {}", at.join(" "));
        }
        let grades = [0, 1, 2].map(|g| all.iter().filter(|(_, q)| q.grade as usize == g).count());
        println!("  quality good, fair, poor: {grades:?}");
        refused.insert(set, (count as f32 / all.len() as f32, grey as f32 / all.len() as f32));
    }
    assert!(refused["oct"].0 <= 0.01 && refused["other-machine"].0 <= 0.05);
    assert!(refused["not-oct"].0 >= 0.95 && refused["not-oct"].1 >= 0.9);
}
