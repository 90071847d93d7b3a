//! One suite of problems for every integer engine: the scalar engine answers, all others must answer the same bytes.

use super::plan::{Convolution, Head, Plan, Pool, PoolKind, Step, Tensor, Window};
use super::scalar::Scalar;
use super::simd::{Isa, Simd};
use proptest::prelude::*;

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

fn square(kernel: [usize; 2], stride: usize, padding: [usize; 4]) -> Window {
    Window { kernel, stride: [stride; 2], padding }
}

/// Input, one convolution, output.
fn single(seed: u32, shape: [usize; 3], outputs: usize, window: Window, limit: i32) -> Option<Plan> {
    let [oh, ow] = window.output([shape[0], shape[1]])?;
    let tensors = vec![tensor("in", shape, None), tensor("out", [oh, ow, outputs], None)];
    let step = convolution(&mut Noise(seed), 0, 1, shape[2], outputs, window, limit);
    Plan::of(tensors, vec![step], 0, 1, Head::default()).ok()
}

/// A block as InceptionV3 has them: branches, pools with requantisation, concatenation in place, and a layer behind it.
pub(super) fn block(seed: u32) -> Plan {
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
    Plan::of(tensors, steps, 0, 6, Head::default()).unwrap()
}

pub(super) fn inputs(plan: &Plan, seed: u32) -> Vec<Vec<u8>> {
    let size = plan.tensors[plan.input].shape.iter().product();
    let mut noise = Noise(seed);
    let random = (0..size).map(|_| noise.next() as u8).collect();
    vec![random, vec![255; size], vec![0; size]]
}

/// Every instruction set of this machine against the scalar engine, with one to three threads; an engine reads all pictures
/// in turn, so that nothing of one may be left for the next.
fn check(plan: &Plan, seed: u32) {
    let mut scalar = Scalar::of(plan.clone());
    let inputs = inputs(plan, seed);
    let expected: Vec<Vec<u8>> = inputs.iter().map(|input| scalar.run_bytes(input)).collect();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
        for threads in [1, 2, 3] {
            let mut simd = Simd::of(plan.clone(), Some(isa), Some(threads)).unwrap();
            for (input, expected) in inputs.iter().zip(&expected) {
                assert!(simd.run_bytes(input) == *expected, "{} with {threads} threads", isa.name());
                assert!(simd.run_bytes(input) == *expected, "{} the second time", isa.name());
            }
        }
    }
}

/// No byte that a step writes is read or written by another step of its wave.
#[test]
fn steps_of_a_wave_may_run_together() {
    let plan = block(12);
    let names: Vec<&str> = plan.steps.iter().map(Step::name).collect();
    assert_eq!((&plan.waves[..], &names[..]), (&[3, 1, 1][..], &["conv", "mean", "max", "conv", "conv"][..]));
    let bytes = |tensor: usize| -> std::collections::HashSet<usize> {
        let t = &plan.tensors[tensor];
        (0..t.shape[0] * t.shape[1])
            .flat_map(|pixel| t.place + pixel * t.step..t.place + pixel * t.step + t.shape[2])
            .collect()
    };
    let wave = &plan.steps[..3];
    for (i, a) in wave.iter().enumerate() {
        let written = bytes(a.tensors().1);
        for (_, b) in wave.iter().enumerate().filter(|(j, _)| *j != i) {
            assert!(written.is_disjoint(&bytes(b.tensors().0)) && written.is_disjoint(&bytes(b.tensors().1)));
        }
        assert!(written.is_disjoint(&bytes(a.tensors().0)));
    }
}

/// Plans of one layer: shapes of InceptionV3 and odd ones, with weights of the reduced and of the full range (pairs of whose
/// products would saturate 16 bits).
pub(super) fn single_layer_plans() -> Vec<Plan> {
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
    ];
    let plan =
        |(shape, outputs, window)| [(1, 63), (3, 127)].map(|(s, l)| single(s, shape, outputs, window, l));
    layers.into_iter().flat_map(plan).flatten().collect()
}

#[test]
fn single_layers() {
    let plans = single_layer_plans();
    assert_eq!(plans.len(), 20);
    plans.iter().for_each(|plan| check(plan, 2));
}

/// A layer with the largest weights, half-way cases of rounding, and results beyond 32 bits.
pub(super) fn extremes() -> Plan {
    let mut plan = single(5, [4, 4, 256], 16, square([3, 3], 1, [1; 4]), 127).unwrap();
    let Step::Convolution(conv) = &mut plan.steps[0] else { panic!() };
    conv.weight.iter_mut().enumerate().for_each(|(i, w)| *w = if i / 2304 % 2 == 0 { 127 } else { -128 });
    conv.multiplier
        .iter_mut()
        .enumerate()
        .for_each(|(i, m)| *m = [0.5, 1e9, 0.25, 1e-9, 1.0, 3e38, 0.0, 1e-3][i % 8]);
    conv.bias.iter_mut().enumerate().for_each(|(i, b)| *b = [1, 3, 5, -7][i % 4]);
    plan
}

#[test]
fn extremes_saturate_alike() {
    check(&extremes(), 6);
}

#[test]
fn sums_at_the_edge_of_16_bits() {
    // Four products of -64 with a byte that reads as -128 leave 16 bits by one, as do two of -128; of 64 four fit, but
    // not with a 65 among them.
    for weight in [-128, -127, -65, -64, -63, 63, 64, 65, 126] {
        for more in [0, 1] {
            let mut plan = single(10, [3, 2, 36], 18, square([1, 1], 1, [0; 4]), 1).unwrap();
            let Step::Convolution(conv) = &mut plan.steps[0] else { panic!() };
            conv.weight.fill(weight);
            conv.weight.iter_mut().step_by(16).for_each(|w| *w += more);
            conv.pairs_fit = 255 * (2 * i32::from(weight) + i32::from(more)).abs() <= 32767;
            conv.bias.fill(if weight < 0 { 255 * 36 * 128 } else { 0 });
            conv.multiplier.fill(1.0 / (36.0 * 128.0));
            check(&plan, 11);
        }
    }
}

/// A machine that is known to have certain instructions says so, and they must be the ones chosen.
#[test]
fn the_best_instructions_are_found() {
    match std::env::var("FOVEA_ISA") {
        Ok(expected) => assert_eq!(Isa::best().map(Isa::name), Some(expected.as_str())),
        Err(_) => println!("skipped: FOVEA_ISA does not say which instructions this machine has"),
    }
}

#[test]
fn blocks() {
    check(&block(7), 8);
}

#[test]
fn tensors_that_live_together_lie_apart() {
    let plan = block(9);
    assert!(
        plan.tensors
            .iter()
            .all(|t| t.place >= plan.zeros && t.place + t.shape.iter().product::<usize>() <= plan.arena)
    );
    let (input, whole, mean) = (&plan.tensors[0], &plan.tensors[1], &plan.tensors[3]);
    let range = |t: &Tensor| t.place..t.place + t.shape.iter().product::<usize>();
    for (a, b) in [(input, whole), (input, mean), (whole, mean)] {
        assert!(range(a).end <= range(b).start || range(b).end <= range(a).start);
    }
    // The output comes after the last use of the input and may lie on it: less than the sum is needed.
    let sum: usize =
        plan.tensors.iter().filter(|t| t.part_of.is_none()).map(|t| t.shape.iter().product::<usize>()).sum();
    assert!(plan.arena < sum + plan.zeros + 64 * 4);
    assert_eq!(plan.tensors[4].step, 80);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_layer(
        seed: u32,
        (h, w, c) in (1usize..14, 1usize..14, 1usize..40),
        outputs in 1usize..50,
        (kh, kw) in (1usize..5, 1usize..5),
        stride in 1usize..4,
        pads: [u8; 4],
        limit in 1i32..=127,
    ) {
        let pad = |k: usize, size: usize| usize::from(pads[k]) % size;
        let window = square([kh, kw], stride, [pad(0, kh), pad(1, kw), pad(2, kh), pad(3, kw)]);
        if let Some(plan) = single(seed, [h, w, c], outputs, window, limit) {
            check(&plan, seed ^ 1);
        }
    }
}
