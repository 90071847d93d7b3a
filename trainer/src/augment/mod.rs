//! Seeded changes to the network's input that leave the finding as it is; [`source`] changes the source picture instead.

pub mod source;

use fovea::prepare::{NetworkInput, SIDE};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// The variant of a picture: 0 is the picture itself, 1 its mirror image, every further one a random mirror, rotation,
/// shift, zoom, brightness, contrast and speckle.
pub fn variant(input: &NetworkInput, number: usize, seed: u64) -> NetworkInput {
    match number {
        0 => input.clone(),
        1 => warp(input, |x, y| (SIDE as f32 - 1.0 - x, y)),
        _ => random(
            input,
            &mut StdRng::seed_from_u64(seed ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        ),
    }
}

/// A random variant.
pub fn random(input: &NetworkInput, random: &mut StdRng) -> NetworkInput {
    let mirror = if random.random_bool(0.5) { -1.0 } else { 1.0 };
    let (sin, cos) = random.random_range(-6.0f32..6.0).to_radians().sin_cos();
    let (zoom_x, zoom_y) = (random.random_range(0.9f32..1.1), random.random_range(0.9f32..1.1));
    let (dx, dy) = (random.random_range(-15.0f32..15.0), random.random_range(-25.0f32..25.0));
    let centre = (SIDE as f32 - 1.0) / 2.0;
    let mut out = warp(input, |x, y| {
        let (x, y) = (x - centre, y - centre);
        (mirror * (cos * x + sin * y) * zoom_x + dx + centre, (cos * y - sin * x) * zoom_y + dy + centre)
    });
    let gain = random.random_range(0.75f32..1.3);
    let gamma = random.random_range(0.85f32..1.2);
    let speckle = random.random_range(0.0f32..0.2);
    let curve: Vec<f32> = (0..256).map(|v| 255.0 * (v as f32 / 255.0).powf(gamma) * gain).collect();
    for pixel in out.0.iter_mut() {
        // Three uniform numbers make a noise near enough to normal.
        let noise: f32 = (0..3).map(|_| random.random_range(-1.0f32..1.0)).sum();
        *pixel = (curve[usize::from(*pixel)] * (1.0 + speckle * noise)).round().clamp(0.0, 255.0) as u8;
    }
    out
}

/// Reads each output pixel bilinearly where `from` says; outside is black.
fn warp(input: &NetworkInput, from: impl Fn(f32, f32) -> (f32, f32)) -> NetworkInput {
    let mut out = Box::new([0u8; SIDE * SIDE]);
    for (i, pixel) in out.iter_mut().enumerate() {
        let at = from((i % SIDE) as f32, (i / SIDE) as f32);
        *pixel = bilinear(&input.0[..], SIDE, at).round() as u8;
    }
    NetworkInput(out)
}

/// The value between four pixels of a picture; outside is black.
fn bilinear(pixels: &[u8], width: usize, (x, y): (f32, f32)) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let (fx, fy) = (x - left, y - top);
    let (l, t) = (left as i32, top as i32);
    let height = (pixels.len() / width) as i32;
    let at = |x: i32, y: i32| {
        let inside = (0..width as i32).contains(&x) && (0..height).contains(&y);
        if inside { f32::from(pixels[y as usize * width + x as usize]) } else { 0.0 }
    };
    let upper = at(l, t) * (1.0 - fx) + at(l + 1, t) * fx;
    let lower = at(l, t + 1) * (1.0 - fx) + at(l + 1, t + 1) * fx;
    upper * (1.0 - fy) + lower * fy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_seeded_and_mirror_twice_is_the_picture() {
        let mut bytes = Box::new([0u8; SIDE * SIDE]);
        bytes.iter_mut().enumerate().for_each(|(i, b)| *b = (i * 7 % 251) as u8);
        let input = NetworkInput(bytes);
        assert_eq!(variant(&variant(&input, 1, 0), 1, 0), input);
        assert_eq!(variant(&input, 2, 5), variant(&input, 2, 5));
        assert_ne!(variant(&input, 2, 5), variant(&input, 2, 6));
        assert_ne!(variant(&input, 2, 5), variant(&input, 3, 5));
    }
}
