//! `fovea-train explain-check`: how far a heatmap can be believed, measured on phantoms whose lesions are known.
//!
//! - Pointing game (Zhang et al., IJCV 2018): does the heat's peak fall on the lesion, within 15 pixels of the input?
//! - Deletion and insertion (Petsiuk et al., BMVC 2018): the class's probability while the hottest pixels go first, and
//!   while they come first; areas under both curves. What is deleted has the input's mean grey.
//! - Sanity check (Adebayo et al., NeurIPS 2018): with shuffled weights the map must change; rank correlation of both.

use crate::export::runner::check_stop;
use crate::phantom;
use crate::report::model::proved;
use anyhow::{Context, Result, bail};
use fovea::diagnosis::softmax;
use fovea::engine::Engine;
use fovea::explain::{Map, Method, Occlusion, contribution, grad_cam, occlusion};
use fovea::model::{Head, Package, onnx};
use fovea::prepare::{NetworkInput, Preparation, SIDE};
use fovea::{Class, Frame};
use prost::Message;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Measures the explanations of a model on phantoms with known lesions.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  fovea-train explain-check --model models/oct-inception-v3\n  \
    fovea-train explain-check --model models/oct-inception-v3 --count 40 --seed 5 --no-occlusion")]
pub struct ExplainCheckArgs {
    /// Model package
    #[arg(long)]
    pub model: PathBuf,
    /// Phantoms with a lesion to draw; the three classes take turns
    #[arg(long, default_value_t = 24)]
    pub count: u32,
    /// Seed of the phantoms and of the shuffled weights
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Leave the occlusion test out (it asks the engine 121 times a picture)
    #[arg(long)]
    pub no_occlusion: bool,
    /// Table as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Steps of the deletion and insertion curves.
const STEPS: usize = 20;
/// Pixels of the input that the peak may miss the lesion by, as in the pointing game's paper.
const NEAR: usize = 15;

/// A phantom in the network's square.
struct Case {
    class: Class,
    input: NetworkInput,
    /// The lesion, widened by [`NEAR`].
    near: Vec<bool>,
}

/// What is measured of a way to explain, each a mean over phantoms.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Measured {
    /// Share of peaks on the lesion.
    pub pointing: f64,
    /// Area under the deletion curve: less is better.
    pub deletion: f64,
    /// Area under the insertion curve: more is better.
    pub insertion: f64,
    /// Rank correlation with the map under a shuffled head: nearer to 0 is better.
    pub shuffled_head: Option<f64>,
    /// And with all weights shuffled.
    pub shuffled_all: Option<f64>,
}

impl Case {
    fn draw(preparation: &Preparation, seed: u64, number: u32) -> Result<Self> {
        let class = [Class::Cnv, Class::Dme, Class::Drusen][number as usize % 3];
        let size = phantom::Size { width: 512, height: 496 };
        let drawn = phantom::draw(seed, number, class, size);
        let frame = Frame::new(drawn.width as u32, drawn.height as u32, drawn.pixels, "phantom")?;
        let prepared = preparation.prepare(&frame, None)?;
        let (input, place) = (prepared.input, prepared.place);
        let (top, rows) = (place.y as usize, place.height as usize);
        let mask = |x: usize, y: usize| {
            drawn.mask[(top + y * rows / SIDE) * drawn.width + x * drawn.width / SIDE] > 127
        };
        let lesion: Vec<bool> = (0..SIDE * SIDE).map(|i| mask(i % SIDE, i / SIDE)).collect();
        Ok(Self { class, input, near: widen(&lesion, NEAR) })
    }
}

/// The pixels within `reach` of a set pixel, by Euclid.
fn widen(mask: &[bool], reach: usize) -> Vec<bool> {
    let mut out = vec![false; mask.len()];
    for (i, _) in mask.iter().enumerate().filter(|(_, set)| **set) {
        let (x, y) = (i % SIDE, i / SIDE);
        for row in y.saturating_sub(reach)..(y + reach + 1).min(SIDE) {
            let rise = row.abs_diff(y);
            let half = ((reach * reach - rise * rise) as f64).sqrt() as usize;
            out[row * SIDE..][x.saturating_sub(half)..(x + half + 1).min(SIDE)].fill(true);
        }
    }
    out
}

/// Heat of every pixel of the input.
fn pixels(map: &Map) -> Vec<f32> {
    let at = |v: usize| (v as f32 + 0.5) / SIDE as f32;
    (0..SIDE * SIDE).map(|i| map.sample(at(i % SIDE), at(i / SIDE))).collect()
}

/// Pixels by falling heat; equal ones in a shuffled order, so that a flat map is a random one.
fn ranked(heat: &[f32], random: &mut StdRng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..heat.len()).collect();
    order.shuffle(random);
    order.sort_by(|a, b| heat[*b].total_cmp(&heat[*a]));
    order
}

/// Mean of a curve by trapezoids.
fn area(curve: &[f64]) -> f64 {
    curve.windows(2).map(|p| (p[0] + p[1]) / 2.0).sum::<f64>() / (curve.len() - 1).max(1) as f64
}

/// Areas under the deletion and the insertion curve.
fn curves(
    order: &[usize],
    input: &NetworkInput,
    probability: &mut dyn FnMut(&NetworkInput) -> Result<f64>,
) -> Result<(f64, f64)> {
    let mean = (input.0.iter().map(|v| u64::from(*v)).sum::<u64>() / input.0.len() as u64) as u8;
    let (mut deleted, mut inserted) = (input.clone(), NetworkInput(Box::new([mean; SIDE * SIDE])));
    let (mut falling, mut rising) = (vec![probability(&deleted)?], vec![probability(&inserted)?]);
    for chunk in order.chunks(order.len().div_ceil(STEPS)) {
        for &i in chunk {
            deleted.0[i] = mean;
            inserted.0[i] = input.0[i];
        }
        falling.push(probability(&deleted)?);
        rising.push(probability(&inserted)?);
    }
    Ok((area(&falling), area(&rising)))
}

/// Spearman's rank correlation; ties share their mean rank. 0 where a list is flat.
pub fn rank_correlation(a: &[f32], b: &[f32]) -> f64 {
    let ranks = |v: &[f32]| {
        let mut order: Vec<usize> = (0..v.len()).collect();
        order.sort_by(|i, j| v[*i].total_cmp(&v[*j]));
        let mut ranks = vec![0.0; v.len()];
        let mut start = 0.0;
        for group in order.chunk_by(|i, j| v[*i] == v[*j]) {
            group.iter().for_each(|i| ranks[*i] = start + (group.len() - 1) as f64 / 2.0);
            start += group.len() as f64;
        }
        ranks
    };
    let (a, b) = (ranks(a), ranks(b));
    let middle = (a.len() as f64 - 1.0) / 2.0;
    let sum = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - middle) * (y - middle)).sum::<f64>();
    let size = (sum(&a, &a) * sum(&b, &b)).sqrt();
    if size > 0.0 { sum(&a, &b) / size } else { 0.0 }
}

/// The package with shuffled weights: the head's, and with `all` those of every convolution too. Shuffling keeps each
/// layer's distribution, so activations stay in range.
fn shuffled(package: &Package, seed: u64, all: bool) -> Result<Package> {
    let mut model =
        onnx::Model::decode(package.onnx.clone()).context("the package's model is no ONNX file")?;
    let mut other = package.clone();
    let graph = model.graph.as_mut().context("the package's model has no graph")?;
    for tensor in &mut graph.initializer {
        let name = tensor.name.clone().unwrap_or_default();
        let dims = tensor.shape()?;
        // The same seed for a tensor of the graph and its copy in the head's file.
        let mut random = StdRng::seed_from_u64(seed);
        if name.starts_with("head.") && name.ends_with(".weight") {
            let mut values = tensor.f32s()?;
            values.shuffle(&mut random);
            put(&mut other.head, name.trim_start_matches("head."), &values);
            *tensor = onnx::Tensor::of_f32(&name, &dims, &values);
        } else if all && name.ends_with(".weight_q") {
            let mut values = tensor.i8s()?;
            values.shuffle(&mut random);
            *tensor = onnx::Tensor::of_i8(&name, &dims, &values);
        }
    }
    other.onnx = model.encode_to_vec().into();
    proved(other)
}

/// Puts a weight of the graph into the head.
fn put(head: &mut Head, name: &str, values: &[f32]) {
    match (head, name) {
        (Head::Gap { fc1, .. }, "fc1.weight") => *fc1 = values.to_vec(),
        (Head::Gap { fc2, .. }, "fc2.weight") => *fc2 = values.to_vec(),
        (Head::Conv { conv, .. }, "conv.weight") => *conv = values.to_vec(),
        (Head::Conv { fc, .. }, "fc.weight") => *fc = values.to_vec(),
        _ => {}
    }
}

/// An engine with its package.
struct Explainer {
    package: Arc<Package>,
    engine: Box<dyn Engine>,
}

impl Explainer {
    fn new(package: Package) -> Result<Self> {
        let package = Arc::new(package);
        let engine = fovea::engine::open("auto", &package, &fovea::engine::Options::default())?;
        Ok(Self { package, engine })
    }

    fn map(&mut self, method: Method, input: &NetworkInput, class: Class) -> Result<Map> {
        if method == Method::Occlusion {
            let engines = std::slice::from_mut(&mut self.engine);
            return Ok(occlusion(engines, input, class, Occlusion::default(), &|| true)?);
        }
        let features = self.engine.run(input)?.features;
        Ok(Map::of_features(&match method {
            Method::GradCam => grad_cam(&self.package.head, &features, class),
            _ => contribution(&self.package.head, &features, class).map,
        }))
    }
}

/// Runs `explain-check`.
///
/// # Errors
/// When the package cannot be read, the engine fails, or Ctrl-C was pressed.
pub fn run(args: &ExplainCheckArgs) -> Result<()> {
    let _pressed = crate::interrupt()?;
    if args.count == 0 {
        bail!("--count is at least 1");
    }
    let rows = measure(&Package::open(&args.model)?, args.count, args.seed, args.no_occlusion)?;
    print!("{}", table(&rows, args.count));
    if let Some(path) = &args.json {
        let object: serde_json::Map<String, serde_json::Value> = rows
            .iter()
            .map(|(name, row)| Ok((name.clone(), serde_json::to_value(row)?)))
            .collect::<Result<_>>()?;
        std::fs::write(path, format!("{:#}\n", serde_json::Value::from(object)))
            .with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    Ok(())
}

/// Measures every way to explain, and a random order as the floor.
fn measure(package: &Package, count: u32, seed: u64, no_occlusion: bool) -> Result<Vec<(String, Measured)>> {
    let temperature = package.manifest.calibration.temperature;
    let mut methods = vec![Method::Contribution, Method::GradCam, Method::Occlusion];
    methods.truncate(if no_occlusion { 2 } else { 3 });
    let mut explainer = Explainer::new(package.clone())?;
    let mut others =
        [Explainer::new(shuffled(package, seed, false)?)?, Explainer::new(shuffled(package, seed, true)?)?];
    let mut rows: Vec<(String, Measured)> =
        methods.iter().map(|m| (m.name().to_owned(), Measured::default())).collect();
    rows.push(("random".into(), Measured::default()));
    let bar = crate::bar(count as usize, "explaining");
    let share = 1.0 / f64::from(count);
    let mut random = StdRng::seed_from_u64(seed);
    for number in 0..count {
        let case = Case::draw(&package.manifest.preparation, seed, number)?;
        let chance = case.near.iter().filter(|near| **near).count() as f64 / case.near.len() as f64;
        for (i, (_, row)) in rows.iter_mut().enumerate() {
            check_stop()?;
            let heat = match methods.get(i) {
                Some(method) => {
                    let map = explainer.map(*method, &case.input, case.class)?;
                    let correlation = |other: &mut Explainer| -> Result<f64> {
                        let changed = other.map(*method, &case.input, case.class)?;
                        Ok(rank_correlation(&map.values, &changed.values) * share)
                    };
                    let [head, all] = &mut others;
                    *row.shuffled_head.get_or_insert_default() += correlation(head)?;
                    *row.shuffled_all.get_or_insert_default() += correlation(all)?;
                    pixels(&map)
                }
                None => vec![0.0; SIDE * SIDE],
            };
            let order = ranked(&heat, &mut random);
            // A random peak's chance is known exactly.
            row.pointing +=
                share * if i < methods.len() { f64::from(u8::from(case.near[order[0]])) } else { chance };
            let mut probability = |input: &NetworkInput| -> Result<f64> {
                let logits = explainer.engine.run(input)?.logits;
                Ok(f64::from(softmax(logits, temperature)[case.class.index()]))
            };
            let (deletion, insertion) = curves(&order, &case.input, &mut probability)?;
            row.deletion += deletion * share;
            row.insertion += insertion * share;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// The table, and which is best by it.
fn table(rows: &[(String, Measured)], count: u32) -> String {
    let mut text = format!(
        "{:<14}{:>10}{:>10}{:>11}{:>15}{:>14}\n",
        "method", "pointing", "deletion", "insertion", "shuffled head", "shuffled all"
    );
    for (name, m) in rows {
        let rho = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:+.2}"));
        let _ = writeln!(
            text,
            "{name:<14}{:>9.1}%{:>10.3}{:>11.3}{:>15}{:>14}",
            m.pointing * 100.0,
            m.deletion,
            m.insertion,
            rho(m.shuffled_head),
            rho(m.shuffled_all)
        );
    }
    let _ = writeln!(
        text,
        "{count} phantoms with lesions. Better: pointing higher, deletion lower, insertion higher, rank correlation with \
         the map under shuffled weights nearer to 0."
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_correlate_as_by_hand() {
        assert!((rank_correlation(&[1.0, 2.0, 3.0, 4.0], &[10.0, 20.0, 25.0, 90.0]) - 1.0).abs() < 1e-12);
        // Ranks 0 1 2 3 against 1 0 3 2: 1 - 6·4 / (4·15).
        assert!((rank_correlation(&[1.0, 2.0, 3.0, 4.0], &[2.0, 1.0, 4.0, 3.0]) - 0.6).abs() < 1e-12);
        // With a tie the ranks are 0.5 0.5 2: against 0 1 2 the product moment is 1.5 / sqrt(1.5 · 2).
        assert!((rank_correlation(&[5.0, 5.0, 9.0], &[1.0, 2.0, 3.0]) - 1.5 / 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }

    #[test]
    fn masks_widen_as_circles() {
        let mut mask = vec![false; SIDE * SIDE];
        mask[100 * SIDE + 50] = true;
        let wide = widen(&mask, 15);
        let count = wide.iter().filter(|w| **w).count() as f64;
        assert!((count - std::f64::consts::PI * 225.0).abs() < 25.0, "{count}");
        assert!(wide[100 * SIDE + 65] && !wide[100 * SIDE + 66] && !wide[111 * SIDE + 61]);
    }

    // A network that answers by the brightness of the lesion's pixels: the true map deletes fast and inserts fast, its
    // inverse slowly, and both areas are known.
    #[test]
    fn the_true_map_wins_deletion_and_insertion() {
        let case = Case::draw(&Preparation::default(), 3, 1).unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let lesion: Vec<bool> = (0..SIDE * SIDE).map(|i| i % SIDE < 30).collect();
        let mut input = case.input.clone();
        for (i, set) in lesion.iter().enumerate() {
            input.0[i] = if *set { 200 } else { 10 };
        }
        let mut probability = |shown: &NetworkInput| -> Result<f64> {
            let lit = lesion.iter().zip(shown.0.iter()).filter(|(l, v)| **l && **v == 200).count();
            Ok(lit as f64 / lesion.iter().filter(|l| **l).count() as f64)
        };
        let heat: Vec<f32> = lesion.iter().map(|l| f32::from(u8::from(*l))).collect();
        let cold: Vec<f32> = heat.iter().map(|h| -h).collect();
        let right = curves(&ranked(&heat, &mut random), &input, &mut probability).unwrap();
        let wrong = curves(&ranked(&cold, &mut random), &input, &mut probability).unwrap();
        // A tenth of the pixels: gone (or there) after two of 20 steps, so the area is about 0.05.
        assert!((right.0 - 0.05).abs() < 0.01 && (right.1 - 0.95).abs() < 0.01, "{right:?}");
        assert!((wrong.0 - 0.95).abs() < 0.01 && (wrong.1 - 0.05).abs() < 0.01, "{wrong:?}");
    }

    #[test]
    fn lesions_are_in_the_masks() {
        for number in 0..6 {
            let case = Case::draw(&Preparation::default(), 1, number).unwrap();
            let share = case.near.iter().filter(|n| **n).count() as f64 / case.near.len() as f64;
            assert!((0.005..0.8).contains(&share), "{number}: {share}");
        }
    }
}
