//! A convolution's weights from the graph's order into the plan's, its biases and multipliers, and the proof that no sum
//! leaves 32 bits.

use super::super::PlanError;
use super::network::{Bias, Waiting};

/// A convolution whose scales are known.
pub struct Unfilled {
    /// Its number among the steps.
    pub step: usize,
    pub waiting: Waiting,
    /// Scale of its input and of its output.
    pub given: f32,
    pub scale: f32,
    /// Number that stands for black in its input.
    pub zero: u8,
}

/// What fills a convolution; see [`Convolution`](super::super::Convolution).
pub struct Filters {
    pub weight: Vec<i8>,
    pub bias: Vec<i32>,
    pub multiplier: Vec<f32>,
    pub pairs_fit: bool,
}

impl Unfilled {
    /// The step's number and what fills it.
    pub fn fill(self) -> Result<(usize, Filters), PlanError> {
        let Waiting { node, window, weight, scales, bias, .. } = self.waiting;
        let fail = |reason: String| PlanError::Node { node: node.clone(), op: "Conv".into(), reason };
        let unit = |s: f32| f64::from(self.given) * f64::from(s);
        let multiplier = |s: &f32| (unit(*s) / f64::from(self.scale)) as f32;
        let mut multiplier: Vec<f32> = scales.iter().map(multiplier).collect();
        let zero = i64::from(self.zero);
        if zero != 0 && window.padding != [0; 4] {
            return Err(fail("it pads a picture whose zero point is not 0".into()));
        }
        let mut biases = Vec::with_capacity(scales.len());
        let mut pairs_fit = true;
        for (o, row) in weight.chunks_exact(weight.len() / scales.len()).enumerate() {
            let Tally { sum, size, fits } = Tally::of(row);
            pairs_fit &= fits;
            let bias = match &bias {
                Bias::Steps(bias) => i64::from(bias[o]),
                Bias::Real(bias) if size == 0 && bias[o] != 0.0 => {
                    // Such a channel says only its bias, so its step is free; its own may be too small for 32 bits.
                    multiplier[o] = (f64::from(bias[o].abs()) / 1e6 / f64::from(self.scale)) as f32;
                    if bias[o] > 0.0 { 1_000_000 } else { -1_000_000 }
                }
                // A cast of what is too large stays large, and is refused below.
                Bias::Real(bias) => (f64::from(bias[o]) / unit(scales[o])).round_ties_even() as i64,
            };
            let bias = bias.saturating_sub(zero * sum);
            // No sum, in whatever order it is made, leaves 32 bits.
            let most = 255 * size;
            if bias.saturating_abs().saturating_add(most) > i64::from(i32::MAX) {
                return Err(fail(format!("its sums may leave 32 bits: up to {most} and a bias of {bias}")));
            }
            biases.push(bias as i32);
        }
        if multiplier.iter().any(|m| !m.is_finite()) {
            return Err(fail("scales whose ratio is not finite".into()));
        }
        let taps = window.kernel[0] * window.kernel[1];
        let weight = turned(&weight, weight.len() / (scales.len() * taps), taps);
        Ok((self.step, Filters { weight, bias: biases, multiplier, pairs_fit }))
    }
}

/// What the weights of an output have together.
#[derive(Debug, PartialEq)]
struct Tally {
    sum: i64,
    /// Sum of the sizes without signs.
    size: i64,
    /// All lie in [-64, 64].
    fits: bool,
}

impl Tally {
    fn of(row: &[u8]) -> Self {
        let mut all = Self { sum: 0, size: 0, fits: true };
        // 255 sizes of at most 128 fit 16 bits, so that vectors hold eight and more.
        for part in row.chunks(255) {
            let (mut sum, mut size, mut largest) = (0i16, 0u16, 0u8);
            for &byte in part {
                let weight = byte.cast_signed();
                sum += i16::from(weight);
                size += u16::from(weight.unsigned_abs());
                largest = largest.max(weight.unsigned_abs());
            }
            all.sum += i64::from(sum);
            all.size += i64::from(size);
            all.fits &= largest <= 64;
        }
        all
    }
}

/// `[output, input, tap]` becomes `[output, tap, input]`.
fn turned(weight: &[u8], channels: usize, taps: usize) -> Vec<i8> {
    /// With the number of taps known, their loop is unrolled.
    fn by<const TAPS: usize>(filter: &[u8], turned: &mut [i8]) {
        let channels = turned.len() / TAPS;
        let mut rows = turned.chunks_exact_mut(channels);
        let mut rows: [&mut [i8]; TAPS] = std::array::from_fn(|_| rows.next().unwrap_or_default());
        for (k, window) in filter.as_chunks::<TAPS>().0.iter().enumerate() {
            for (row, byte) in rows.iter_mut().zip(window) {
                row[k] = byte.cast_signed();
            }
        }
    }
    let mut all = vec![0; weight.len()];
    for (turned, filter) in all.chunks_exact_mut(channels * taps).zip(weight.chunks_exact(channels * taps)) {
        match taps {
            1 => turned.iter_mut().zip(filter).for_each(|(to, byte)| *to = byte.cast_signed()),
            3 => by::<3>(filter, turned),
            7 => by::<7>(filter, turned),
            9 => by::<9>(filter, turned),
            25 => by::<25>(filter, turned),
            _ => {
                for (k, window) in filter.chunks_exact(taps).enumerate() {
                    let pairs = window.iter().enumerate();
                    pairs.for_each(|(tap, byte)| turned[tap * channels + k] = byte.cast_signed());
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn turned_and_tallied_as_defined(outputs in 1usize..4, channels in 1usize..90, taps in 1usize..27, seed: u32, small: bool) {
            let noise = |i: usize| (i as u32).wrapping_add(seed).wrapping_mul(2_654_435_761) >> 24;
            let byte = |i: usize| if small { (noise(i) as u8 & 127).wrapping_sub(64) } else { noise(i) as u8 };
            let weight: Vec<u8> = (0..outputs * channels * taps).map(byte).collect();
            let got = turned(&weight, channels, taps);
            for (i, w) in got.iter().enumerate() {
                let (o, tap, k) = (i / (channels * taps), i / channels % taps, i % channels);
                prop_assert_eq!(*w, weight[(o * channels + k) * taps + tap].cast_signed());
            }
            let signed = || weight.iter().map(|b| i64::from(b.cast_signed()));
            let want = Tally {
                sum: signed().sum(),
                size: signed().map(i64::abs).sum(),
                fits: signed().all(|w| (-64..=64).contains(&w)),
            };
            prop_assert_eq!(Tally::of(&weight), want);
        }
    }

    #[test]
    fn the_largest_sums_fit() {
        let row = [0x80; 1000];
        assert_eq!(Tally::of(&row), Tally { sum: -128_000, size: 128_000, fits: false });
        assert_eq!(Tally::of(&[64, 192]), Tally { sum: 0, size: 128, fits: true });
    }
}
