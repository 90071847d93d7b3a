//! Colours of a heat, and the heat over a picture.

use super::Map;
use crate::Frame;
use crate::prepare::Region;

/// Nine points of matplotlib's `inferno` (CC0), whose lightness rises evenly: it is read by colour-blind eyes and in print.
const INFERNO: [[u8; 3]; 9] = [
    [0, 0, 4],
    [31, 12, 72],
    [85, 15, 109],
    [136, 34, 106],
    [186, 54, 85],
    [227, 89, 51],
    [249, 140, 10],
    [249, 201, 50],
    [252, 255, 164],
];

/// RGB of a heat from 0 to 1; what is not a number is 0.
pub fn colour(heat: f32) -> [u8; 3] {
    let at = if heat.is_finite() { heat.clamp(0.0, 1.0) } else { 0.0 } * (INFERNO.len() - 1) as f32;
    let i = (at as usize).min(INFERNO.len() - 2);
    let f = at - i as f32;
    std::array::from_fn(|k| {
        (f32::from(INFERNO[i][k]) * (1.0 - f) + f32::from(INFERNO[i + 1][k]) * f + 0.5) as u8
    })
}

/// Heat at and above which the light has its full strength, and that strength.
const FULL: (f32, f32) = (0.5, 0.6);

/// The frame in RGB with the heat of `map` over `place`, what the network saw of it, at the frame's own size.
/// Where the heat is nothing the picture shows as it is.
pub fn overlay(frame: &Frame, place: Region, map: &Map) -> Vec<u8> {
    let heat = map.heat();
    let width = frame.width();
    let mut rgb = Vec::with_capacity(frame.pixels().len() * 3);
    for (i, grey) in frame.pixels().iter().enumerate() {
        let (x, y) = (i as u32 % width, i as u32 / width);
        let inside =
            (place.x..place.x + place.width).contains(&x) && (place.y..place.y + place.height).contains(&y);
        if !inside {
            rgb.extend([*grey; 3]);
            continue;
        }
        let share =
            |at: u32, from: u32, length: u32| (at - from) as f32 / length as f32 + 0.5 / length as f32;
        let value = heat.sample(share(x, place.x, place.width), share(y, place.y, place.height));
        let alpha = (value / FULL.0).min(1.0) * FULL.1;
        rgb.extend(
            colour(value).map(|hot| (f32::from(*grey) * (1.0 - alpha) + f32::from(hot) * alpha + 0.5) as u8),
        );
    }
    rgb
}
