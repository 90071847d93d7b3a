//! The suite's problems on every instruction set of this machine.

use super::plan::{Plan, Step, Tensor};
use super::scalar::Scalar;
use super::simd::{Isa, Simd};
use super::suite::{self, inputs, single, single_layer_plans, square};
use proptest::prelude::*;

fn block(seed: u32) -> Plan {
    suite::block(seed).unwrap()
}

fn extremes() -> Plan {
    suite::extremes().unwrap()
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

#[test]
fn single_layers() {
    let plans = single_layer_plans();
    assert_eq!(plans.len(), 22);
    plans.iter().for_each(|plan| check(plan, 2));
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
    check(&suite::uneven(4).unwrap(), 8);
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
