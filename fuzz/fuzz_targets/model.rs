//! The model loader: ONNX bytes to a plan; small plans run on every engine and must give the same bytes.
#![no_main]

use fovea::engine::plan::Plan;
use fovea::engine::scalar::Scalar;
use fovea::engine::simd::{Isa, Simd};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(plan) = Plan::read_any(&data.to_vec().into()) else { return };
    let macs: u64 = plan.steps.iter().map(|step| plan.macs(step)).sum();
    if macs > 1 << 20 || plan.arena > 1 << 20 {
        return;
    }
    let size = plan.tensors[plan.input].shape.iter().product();
    let input: Vec<u8> = (0..size).map(|i: usize| (i * 151 % 256) as u8).collect();
    let expected = Scalar::of(plan.clone()).run_bytes(&input);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
        if let Ok(mut simd) = Simd::of(plan.clone(), Some(isa), Some(1)) {
            assert!(simd.run_bytes(&input) == expected, "{}", isa.name());
        }
    }
});
