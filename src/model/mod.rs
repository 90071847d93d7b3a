//! A model package on disk.

pub mod onnx;

use crate::prepare::{NetworkInput, SIDE};

/// A pattern of all grey levels, edges and layers, from a formula, so that no file is needed:
/// `(x*31 + y*17 + (x*y)/64 + 40*((y/24)%3)) % 251`.
pub fn golden_input() -> NetworkInput {
    let mut input = Box::new([0; SIDE * SIDE]);
    for (i, pixel) in input.iter_mut().enumerate() {
        let (x, y) = (i % SIDE, i / SIDE);
        *pixel = ((x * 31 + y * 17 + (x * y) / 64 + 40 * ((y / 24) % 3)) % 251) as u8;
    }
    NetworkInput(input)
}
