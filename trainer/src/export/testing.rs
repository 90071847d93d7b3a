//! A random network for tests.

use super::fold::{Checkpoint, Folded, HIDDEN, Head};
use super::pictures::Picture;
use crate::network::{convs, inception_v3};
use fovea::engine::{FEATURE_CHANNELS, FEATURE_SIDE};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

/// Uniform numbers of the deviation `scale`.
fn noise(rng: &mut impl Rng, count: usize, scale: f32) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-1.0f32..1.0) * scale * 1.732).collect()
}

/// A checkpoint with weights that keep activations at one size through the network (He et al., ICCV 2015), folded.
pub fn checkpoint(kind: &str) -> Checkpoint {
    let mut rng = StdRng::seed_from_u64(5);
    let convs = inception_v3(1)
        .iter()
        .flat_map(|block| convs(&block.nodes))
        .map(|c| {
            let taps = c.input * c.kernel[0] * c.kernel[1];
            let mut weight = noise(&mut rng, c.output * taps, (2.0 / taps as f32).sqrt());
            // One channel without weights, as the real backbone has them.
            weight[..taps].fill(0.0);
            let shape = [c.output, c.input, c.kernel[0], c.kernel[1]];
            (c.name.clone(), Folded { shape, weight, bias: noise(&mut rng, c.output, 0.1) })
        })
        .collect();
    let first = noise(&mut rng, HIDDEN * FEATURE_CHANNELS, (2.0 / FEATURE_CHANNELS as f32).sqrt());
    let first_bias = noise(&mut rng, HIDDEN, 0.1);
    let head = if kind == "gap" {
        Head::Gap {
            fc1: first,
            fc1_bias: first_bias,
            fc2: noise(&mut rng, 4 * HIDDEN, 0.2),
            fc2_bias: noise(&mut rng, 4, 0.1),
        }
    } else {
        Head::Conv {
            conv: first,
            conv_bias: first_bias,
            fc: noise(&mut rng, 4 * FEATURE_SIDE * FEATURE_SIDE * HIDDEN, 0.02),
            fc_bias: noise(&mut rng, 4, 0.1),
        }
    };
    Checkpoint { convs, head, metadata: Default::default(), sha256: String::new() }
}

/// A picture of stripes, blobs and noise: `seed` says which.
pub fn picture(seed: u64) -> fovea::prepare::NetworkInput {
    let mut rng = StdRng::seed_from_u64(seed);
    let (a, b) = (rng.random_range(0.02f32..0.2), rng.random_range(0.02f32..0.2));
    let mut input = Box::new([0; fovea::prepare::SIDE * fovea::prepare::SIDE]);
    for (i, pixel) in input.iter_mut().enumerate() {
        let (x, y) = ((i % fovea::prepare::SIDE) as f32, (i / fovea::prepare::SIDE) as f32);
        let layers = 90.0 + 60.0 * (x * a).sin() + 60.0 * (y * b).cos();
        *pixel = (layers + rng.random_range(-30.0f32..30.0)).clamp(0.0, 255.0) as u8;
    }
    fovea::prepare::NetworkInput(input)
}

/// So many of them, each of a patient of its own.
pub fn pictures(count: u64) -> Vec<Picture> {
    (0..count)
        .map(|seed| Picture {
            class: fovea::Class::Normal,
            patient: seed.to_string(),
            input: picture(seed),
            refused: false,
        })
        .collect()
}
