//! One suite of problems for every integer engine: the scalar engine answers, all others must answer the same bytes.
//!
//! Here because it is asked of engines on this machine (the tests beside it), of the simulated device (`cargo xtask`) and of
//! real ones.

use super::plan::{Convolution, Head, Plan, Pool, PoolKind, Step, Tensor, Window, head::Layer};
use super::{Ask, FEATURE_CHANNELS, FEATURE_SIDE};
use crate::Frame;
use crate::prepare::{Cut, Preparation, Region, RegionError, SIDE};

/// Numbers that look random, the same every time.
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    fn between(&mut self, low: i32, high: i32) -> i32 {
        low + (self.next() % (high - low + 1) as u32) as i32
    }
}

fn tensor(name: &str, shape: [usize; 3], part_of: Option<(usize, usize)>) -> Tensor {
    Tensor { name: name.into(), shape, scale: 0.05, part_of, place: 0, step: 0 }
}

/// A convolution with random weights in `-limit..=limit` and multipliers that use the whole range of a byte.
fn convolution(
    noise: &mut Noise,
    from: usize,
    to: usize,
    inputs: usize,
    outputs: usize,
    window: Window,
    limit: i32,
) -> Step {
    let taps = window.kernel[0] * window.kernel[1] * inputs;
    let spread = 1.0 / (limit as f32 * (taps as f32).sqrt());
    Step::Convolution(Convolution {
        name: "conv".into(),
        from,
        to,
        window,
        weight: (0..taps * outputs).map(|_| noise.between(-limit, limit) as i8).collect(),
        bias: (0..outputs).map(|_| noise.between(-9000, 9000)).collect(),
        multiplier: (0..outputs).map(|_| spread * (0.5 + noise.between(0, 100) as f32 / 100.0)).collect(),
        pairs_fit: limit <= 63,
    })
}

/// A window with the same step both ways.
pub(super) fn square(kernel: [usize; 2], stride: usize, padding: [usize; 4]) -> Window {
    Window { kernel, stride: [stride; 2], padding }
}

/// Input, one convolution, output.
pub(super) fn single(
    seed: u32,
    shape: [usize; 3],
    outputs: usize,
    window: Window,
    limit: i32,
) -> Option<Plan> {
    let [oh, ow] = window.output([shape[0], shape[1]])?;
    let tensors = vec![tensor("in", shape, None), tensor("out", [oh, ow, outputs], None)];
    let step = convolution(&mut Noise(seed), 0, 1, shape[2], outputs, window, limit);
    Plan::of(tensors, vec![step], 0, 1, Head::default()).ok()
}

/// A block as InceptionV3 has them: branches, pools with requantisation, concatenation in place, and a layer behind it.
pub fn block(seed: u32) -> Option<Plan> {
    let noise = &mut Noise(seed);
    let tensors = vec![
        tensor("in", [11, 9, 32], None),
        tensor("whole", [5, 4, 80], None),
        tensor("a", [5, 4, 16], Some((1, 0))),
        tensor("mean", [11, 9, 32], None),
        tensor("b", [5, 4, 32], Some((1, 16))),
        tensor("max", [5, 4, 32], Some((1, 48))),
        tensor("out", [5, 4, 20], None),
    ];
    let valid = square([3, 3], 2, [0; 4]);
    let pool = |name: &str, from, to, window, kind, multiplier| {
        Step::Pool(Pool { name: name.into(), from, to, window, kind, multiplier })
    };
    let steps = vec![
        convolution(noise, 0, 2, 32, 16, valid, 63),
        pool("mean", 0, 3, square([3, 3], 1, [1; 4]), PoolKind::Average, 1.0),
        convolution(noise, 3, 4, 32, 32, valid, 63),
        pool("max", 0, 5, valid, PoolKind::Max, 0.73),
        convolution(noise, 1, 6, 80, 20, square([1, 3], 1, [0, 1, 0, 1]), 63),
    ];
    Plan::of(tensors, steps, 0, 6, Head::default()).ok()
}

/// Three inputs of a plan: noise, all 255, all 0.
pub fn inputs(plan: &Plan, seed: u32) -> Vec<Vec<u8>> {
    let size = plan.tensors[plan.input].shape.iter().product();
    let mut noise = Noise(seed);
    let random = (0..size).map(|_| noise.next() as u8).collect();
    vec![random, vec![255; size], vec![0; size]]
}

/// Plans of one layer: shapes of InceptionV3 and odd ones, with weights of the reduced and of the full range (pairs of whose
/// products would saturate 16 bits).
pub fn single_layer_plans() -> Vec<Plan> {
    let layers = [
        ([9, 9, 1], 32, square([3, 3], 2, [0; 4])),
        ([8, 8, 64], 80, square([1, 1], 1, [0; 4])),
        ([8, 8, 64], 33, square([1, 1], 1, [0; 4])),
        ([17, 17, 32], 48, square([1, 7], 1, [0, 3, 0, 3])),
        ([17, 17, 32], 16, square([7, 1], 1, [3, 0, 3, 0])),
        ([15, 13, 16], 96, square([5, 5], 1, [2; 4])),
        ([8, 8, 448], 64, square([3, 3], 1, [1; 4])),
        ([3, 3, 5], 7, square([3, 3], 1, [1; 4])),
        ([1, 1, 4], 1, square([1, 1], 1, [0; 4])),
        ([6, 5, 12], 17, square([2, 3], 3, [1, 0, 0, 2])),
        ([9, 9, 128], 96, square([3, 3], 1, [1; 4])),
    ];
    let plan =
        |(shape, outputs, window)| [(1, 63), (3, 127)].map(|(s, l)| single(s, shape, outputs, window, l));
    layers.into_iter().flat_map(plan).flatten().collect()
}

/// A layer with the largest weights, half-way cases of rounding, and results beyond 32 bits.
pub fn extremes() -> Option<Plan> {
    let mut plan = single(5, [4, 4, 256], 16, square([3, 3], 1, [1; 4]), 127)?;
    let Some(Step::Convolution(conv)) = plan.steps.first_mut() else { return None };
    conv.weight.iter_mut().enumerate().for_each(|(i, w)| *w = if i / 2304 % 2 == 0 { 127 } else { -128 });
    conv.multiplier
        .iter_mut()
        .enumerate()
        .for_each(|(i, m)| *m = [0.5, 1e9, 0.25, 1e-9, 1.0, 3e38, 0.0, 1e-3][i % 8]);
    conv.bias.iter_mut().enumerate().for_each(|(i, b)| *b = [1, 3, 5, -7][i % 4]);
    Some(plan)
}

/// Two branches whose channels are no whole vectors, side by side in their concatenation.
pub fn uneven(seed: u32) -> Option<Plan> {
    let noise = &mut Noise(seed);
    let tensors = vec![
        tensor("in", [6, 5, 32], None),
        tensor("whole", [6, 5, 64], None),
        tensor("a", [6, 5, 24], Some((1, 0))),
        tensor("b", [6, 5, 40], Some((1, 24))),
    ];
    let same = square([1, 1], 1, [0; 4]);
    let steps = vec![convolution(noise, 0, 3, 32, 40, same, 63), convolution(noise, 0, 2, 32, 24, same, 63)];
    Plan::of(tensors, steps, 0, 1, Head::default()).ok()
}

/// All problems: the single layers, two blocks, the extremes.
pub fn all() -> Vec<Plan> {
    single_layer_plans().into_iter().chain(block(7)).chain(uneven(4)).chain(extremes()).collect()
}

/// A picture with how it is to be read: what lies around the network.
#[derive(Clone, Debug)]
pub struct View {
    /// The frame.
    pub frame: Frame,
    /// The B-scan's place in it.
    pub region: Option<Region>,
    /// How it is prepared.
    pub preparation: Preparation,
    /// Room of the screen.
    pub room: [u32; 2],
}

/// Pictures of layers of noise with white margins of odd shapes, whole and cut, with and without a band, shrunk and enlarged; each made
/// when it is asked for.
pub fn views() -> impl Iterator<Item = View> {
    let region = |x, y, width, height| Some(Region { x, y, width, height });
    let cases = [
        ([384, 248], None, 240, 60, [222, 170]),
        ([301, 260], region(33, 5, 251, 250), 200, 45, [640, 400]),
        ([48, 700], region(3, 40, 40, 601), 0, 60, [100, 90]),
        ([640, 33], None, 255, 100, [70, 70]),
        ([97, 61], region(7, 1, 90, 60), 1, 0, [31, 200]),
    ];
    let noise = cases.into_iter().enumerate().filter_map(|(seed, case)| view(seed as u32, case));
    let made: [fn() -> Option<View>; 2] = [edge_of_median, slope];
    noise.chain(made.into_iter().filter_map(|make| make()))
}

/// A picture of the network's own size with nothing to cut or blacken, and the least band.
fn plain(room: [u32; 2], grey: impl Fn(u32, u32) -> u8) -> Option<View> {
    let side = SIDE as u32;
    let pixels = (0..side * side).map(|i| grey(i % side, i / side)).collect();
    let frame = Frame::new(side, side, pixels, "suite").ok()?;
    let preparation = Preparation { margin_white: 0, band: 0, ..Preparation::default() };
    Some(View { frame, region: None, preparation, room })
}

/// A picture that brightens evenly to its corner: each step of a percentile moves the band.
fn slope() -> Option<View> {
    plain([120, 130], |x, y| ((x / 3 + y * 2) * 255 / 699) as u8)
}

/// A picture exactly as many of whose cells are dark as lie before the median: with one dark cell more the band is another.
fn edge_of_median() -> Option<View> {
    plain([300, 200], |x, y| match (x, y) {
        (_, ..150) | (..143, 150) => 0,
        (_, 150) => 130,
        _ => 100,
    })
}

type Case = ([u32; 2], Option<Region>, u8, u8, [u32; 2]);

fn view(seed: u32, ([width, height], region, margin_white, band, room): Case) -> Option<View> {
    let mut noise = Noise(seed + 3);
    let pixel = |i: u32| {
        let (x, y) = (i % width, i / width);
        let layer = y > height * 2 / 5 + x / 16 && y < height * 3 / 5 + x / 16;
        let slant = x + y / 2 < width / 9 || y + x / 3 < height / 7 || x > width - width / 30;
        let grey = noise.between(0, 50) + if layer { 120 } else { 10 };
        if slant { 255 } else { grey as u8 }
    };
    let pixels = (0..width * height).map(pixel).collect();
    let frame = Frame::new(width, height, pixels, "suite").ok()?;
    Some(View {
        frame,
        region,
        preparation: Preparation { margin_white, band, ..Preparation::default() },
        room,
    })
}

impl View {
    /// What an engine is asked.
    ///
    /// # Errors
    /// [`RegionError`] of a region outside.
    pub fn ask(&self) -> Result<Ask<'_>, RegionError> {
        let cut = Cut::new(&self.frame, self.region)?;
        Ok(Ask { cut, preparation: &self.preparation, room: Some(self.room) })
    }
}

/// Heads of both kinds with random weights, for 2048 channels.
pub fn heads() -> [crate::model::Head; 2] {
    let noise = &mut Noise(21);
    let mut random = |count: usize| (0..count).map(|_| noise.between(-100, 100) as f32 / 1000.0).collect();
    let gap = crate::model::Head::Gap {
        fc1: random(64 * FEATURE_CHANNELS),
        fc1_bias: random(64),
        fc2: random(4 * 64),
        fc2_bias: [0.1, -0.1, 0.0, 0.2],
    };
    let conv = crate::model::Head::Conv {
        conv: random(64 * FEATURE_CHANNELS),
        conv_bias: random(64),
        fc: random(4 * FEATURE_SIDE * FEATURE_SIDE * 64),
        fc_bias: [0.0, 0.3, -0.2, 0.1],
    };
    [gap, conv]
}

/// A network with the shape of the real one, picture and features, and next to nothing to compute: for tests of what lies around
/// an engine.
pub fn tiny_network() -> Option<Plan> {
    let noise = &mut Noise(13);
    let tensors = vec![
        tensor("image", [SIDE, SIDE, 1], None),
        tensor("small", [FEATURE_SIDE, FEATURE_SIDE, 1], None),
        tensor("features", [FEATURE_SIDE, FEATURE_SIDE, FEATURE_CHANNELS], None),
    ];
    let pool = Pool {
        name: "mean".into(),
        from: 0,
        to: 1,
        window: square([37, 37], 37, [0; 4]),
        kind: PoolKind::Average,
        multiplier: 1.0,
    };
    let step = convolution(noise, 1, 2, 1, FEATURE_CHANNELS, square([1, 1], 1, [0; 4]), 63);
    let weight = (0..4 * FEATURE_CHANNELS).map(|_| noise.between(-50, 50) as f32 / 1000.0).collect();
    let head = Head { layers: vec![Layer::Mean, Layer::Dense(weight, vec![0.1, -0.2, 0.3, 0.0])] };
    Plan::of(tensors, vec![Step::Pool(pool), step], 0, 2, head).ok()
}
