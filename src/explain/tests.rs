use super::*;
use crate::engine::{Engine, EngineError, Output};
use crate::prepare::{NetworkInput, Region, SIDE};
use crate::{Class, Frame};

/// Numbers from -1 to 1, always the same.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

fn heads() -> [Head; 2] {
    let mut next = noise(7);
    let mut list = |count: usize, scale: f32| -> Vec<f32> { (0..count).map(|_| next() * scale).collect() };
    [
        Head::Gap {
            fc1: list(64 * FEATURE_CHANNELS, 0.05),
            fc1_bias: list(64, 0.5),
            fc2: list(256, 0.5),
            fc2_bias: [0.1, -0.2, 0.3, 0.4],
        },
        Head::Conv {
            conv: list(64 * FEATURE_CHANNELS, 0.05),
            conv_bias: list(64, 0.5),
            fc: list(4 * CELLS * 64, 0.05),
            fc_bias: [0.1, -0.2, 0.3, 0.4],
        },
    ]
}

/// Sparse features as after a ReLU; `step` above 0 rounds them to the steps of an 8-bit engine.
fn features(step: f32) -> Vec<f32> {
    let mut next = noise(99);
    (0..FEATURE_CHANNELS * CELLS)
        .map(|_| next().max(0.0) * 2.0)
        .map(|v| if step > 0.0 { (v / step).round() * step } else { v })
        .collect()
}

#[test]
fn contributions_and_constant_sum_to_the_logit() {
    for head in heads() {
        for step in [0.0, 2.0 / 255.0] {
            let features = features(step);
            let logits = head.logits(&features);
            for class in Class::ALL {
                let c = contribution(&head, &features, class);
                let sum = c.map.iter().map(|v| f64::from(*v)).sum::<f64>() + f64::from(c.constant);
                let logit = f64::from(logits[class.index()]);
                assert!((sum - logit).abs() < 1e-4, "{:?} {class}: {sum} {logit}", head.kind());
            }
        }
    }
}

#[test]
fn gradient_equals_numerical_differentiation() {
    let features = features(0.0);
    for head in heads() {
        for class in [Class::Cnv, Class::Normal] {
            let exact = gradient(&head, &features, class);
            let largest = exact.iter().fold(0.0f32, |a, g| a.max(g.abs()));
            assert!(largest > 0.0);
            for i in (0..features.len()).step_by(9973) {
                let at = |delta: f32| {
                    let mut moved = features.clone();
                    moved[i] += delta;
                    head.exact(&moved)[class.index()]
                };
                // Linear between the gates, so that the step's size does not matter.
                let step = 1.0 / 64.0;
                let numeric = (at(step) - at(-step)) / f64::from(2.0 * step);
                let off = (numeric - f64::from(exact[i])).abs();
                assert!(off < 1e-3 * f64::from(largest), "{:?} {i}: {numeric} {}", head.kind(), exact[i]);
            }
        }
    }
}

#[test]
fn grad_cam_is_the_definition_on_numerical_gradients() {
    // Two channels alone carry features, so that their whole gradient can be taken numerically.
    for head in heads() {
        let mut next = noise(3);
        let mut features = vec![0.0; FEATURE_CHANNELS * CELLS];
        let channels = [5, 1234];
        for k in channels {
            features[k * CELLS..(k + 1) * CELLS].iter_mut().for_each(|v| *v = next().abs() * 3.0);
        }
        let class = Class::Dme;
        let mut expected = [0.0f64; CELLS];
        for k in channels {
            let slope = |i: usize| {
                let at = |delta: f32| {
                    let mut moved = features.clone();
                    moved[k * CELLS + i] += delta;
                    head.exact(&moved)[class.index()]
                };
                (at(1e-3) - at(-1e-3)) / 2e-3
            };
            let alpha = (0..CELLS).map(slope).sum::<f64>() / CELLS as f64;
            let plane = &features[k * CELLS..(k + 1) * CELLS];
            expected.iter_mut().zip(plane).for_each(|(e, v)| *e += alpha * f64::from(*v));
        }
        for (got, expected) in grad_cam(&head, &features, class).iter().zip(expected) {
            assert!(
                (f64::from(*got) - expected.max(0.0)).abs() < 1e-4,
                "{:?}: {got} {expected}",
                head.kind()
            );
        }
    }
}

/// Its CNV logit is the mean grey of the upper left quarter.
struct Quarter;

impl Engine for Quarter {
    fn name(&self) -> &'static str {
        "quarter"
    }
    fn run(&mut self, input: &NetworkInput) -> Result<Output, EngineError> {
        let half = SIDE / 2;
        let sum: u32 =
            input.0.chunks_exact(SIDE).take(half).flat_map(|r| &r[..half]).map(|v| u32::from(*v)).sum();
        Ok(Output { logits: [sum as f32 / (half * half) as f32, 0.0, 0.0, 0.0], features: Vec::new() })
    }
}

#[test]
fn occlusion_falls_where_the_answer_comes_from_and_stops_when_asked() {
    let mut pixels = Box::new([0; SIDE * SIDE]);
    pixels.chunks_exact_mut(SIDE).take(SIDE / 2).for_each(|row| row[..SIDE / 2].fill(200));
    let input = NetworkInput(pixels);
    let how = Occlusion { patch: 50, stride: 30 };
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(Quarter), Box::new(Quarter)];
    let map = occlusion(&mut engines, &input, Class::Cnv, how, &|| true).unwrap();
    assert_eq!((map.rows, map.columns), (9, 9));
    assert!(map.sample(0.2, 0.2) > 10.0 && map.sample(0.8, 0.8) == 0.0 && map.sample(0.8, 0.2) == 0.0);
    let stopped = occlusion(&mut engines, &input, Class::Cnv, how, &|| false);
    assert!(matches!(stopped, Err(OcclusionError::Stopped)));
}

#[test]
fn maps_are_sampled_bilinearly() {
    let mut values = [0.0; CELLS];
    values[0] = 4.0;
    values[1] = 2.0;
    values[63] = -3.0;
    let map = Map::of_features(&values);
    assert_eq!(map.sample(0.0, 0.0), 4.0);
    assert_eq!(map.sample(0.125, 0.0625), 3.0);
    assert_eq!(map.sample(1.0, 1.0), -3.0);
    let heat = map.heat();
    assert_eq!((heat.values[0], heat.values[1], heat.values[63]), (1.0, 0.5, 0.0));
    assert_eq!(Map::of_features(&[-1.0; CELLS]).heat().values, vec![0.0; CELLS]);
}

#[test]
fn colours_rise_in_lightness() {
    let mut last = -1.0;
    for i in 0..=256 {
        let linear = colour(i as f32 / 256.0).map(|v| (f32::from(v) / 255.0).powf(2.2));
        let light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
        assert!(light >= last, "at {i}");
        last = light;
    }
    assert_eq!(colour(f32::NAN), colour(0.0));
}

#[test]
fn overlay_keeps_size_and_leaves_what_is_outside() {
    let frame = Frame::new(100, 60, vec![100; 6000], "test").unwrap();
    let mut values = [0.0; CELLS];
    values[0] = 1.0;
    let region = Region { x: 40, y: 10, width: 50, height: 40 };
    let rgb = overlay(&frame, region, &Map::of_features(&values));
    assert_eq!(rgb.len(), 100 * 60 * 3);
    let at = |x: usize, y: usize| &rgb[(y * 100 + x) * 3..(y * 100 + x) * 3 + 3];
    assert_eq!((at(0, 0), at(39, 10), at(89, 49)), (&[100; 3][..], &[100; 3][..], &[100; 3][..]));
    assert!(at(41, 11)[0] > 150 && at(41, 11)[0] > at(41, 11)[2]);
}
