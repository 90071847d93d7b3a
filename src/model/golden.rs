//! The golden picture: a pattern that every engine must answer as the manifest says before its first real picture.

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

#[cfg(test)]
mod tests {
    use super::*;

    // Written down: an exporter elsewhere must make the same bytes.
    #[test]
    fn bytes_are_those_of_the_formula() {
        let input = golden_input();
        assert_eq!(input.0[0], 0);
        assert_eq!(input.0[30 * SIDE + 100], ((3100 + 510 + 46 + 40) % 251) as u8);
        assert_eq!(input.0[SIDE * SIDE - 1], 129);
    }
}
