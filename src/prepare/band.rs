//! Where the retina lies: the band of rows that is worth the network's pixels.
//!
//! On most B-scans the retina fills less than half of the height; the rest is vitreous, sclera and margin. Only the band
//! around it is resized, so that fine signs (drusen are a few pixels high) keep more of their pixels. The band has a
//! fixed height wherever the retina fits into it, for its thickness is a sign too. All is done in integers on the
//! 299x299 picture of the whole B-scan:
//!
//! 1. sums over 13 columns and 3 rows, in 23 strips; bright is what lies above the median by more than 35 % of the
//!    distance from there to the 98th percentile;
//! 2. the bright cells but the uppermost and the lowest 2 % span the retina; 24 rows are added;
//! 3. the band has that height or the least height, whichever is larger, with the retina in its middle, shifted to lie
//!    inside.

use super::{NetworkInput, SIDE};

/// Columns of a strip.
const STRIP: usize = 13;
/// Strips side by side.
const STRIPS: usize = SIDE / STRIP;
/// Rows added to the retina's extent.
const AIR: usize = 24;

/// Rows, of 299, that so many percent are.
pub fn rows(percent: u8) -> usize {
    SIDE * usize::from(percent.min(100)) / 100
}

/// First row and number of rows, of 299; `least` is the least height in percent.
pub fn find(whole: &NetworkInput, least: u8) -> (usize, usize) {
    let least = rows(least);
    if least == SIDE {
        return (0, SIDE);
    }
    let strips: Vec<[u32; STRIPS]> = whole
        .0
        .chunks_exact(SIDE)
        .map(|row| {
            std::array::from_fn(|s| row[s * STRIP..(s + 1) * STRIP].iter().map(|v| u32::from(*v)).sum())
        })
        .collect();
    let cells: Vec<[u32; STRIPS]> = (0..SIDE)
        .map(|y| {
            let rows = [y.saturating_sub(1), y, (y + 1).min(SIDE - 1)];
            std::array::from_fn(|s| rows.iter().map(|&row| strips[row][s]).sum())
        })
        .collect();
    let (low, high) = quantiles(&cells);
    let limit = low + (high - low) * 35 / 100;
    let counts = cells.iter().map(|row| row.iter().filter(|v| **v > limit).count());
    let running: Vec<usize> = counts
        .scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
        .collect();
    let all = running[SIDE - 1];
    if all == 0 {
        return (0, SIDE);
    }
    let top = running.partition_point(|sum| sum * 50 < all);
    let bottom = running.partition_point(|sum| sum * 50 < all * 49) + 1;
    let height = (bottom - top + AIR).max(least).min(SIDE);
    let first = ((top + bottom) / 2).saturating_sub(height / 2).min(SIDE - height);
    (first, height)
}

/// Median and 98th percentile of the cells, by counting: there are fewer values than a sort would need steps.
fn quantiles(cells: &[[u32; STRIPS]]) -> (u32, u32) {
    let mut counts = vec![0u16; 255 * STRIP * 3 + 1];
    cells.iter().flatten().for_each(|value| counts[*value as usize] += 1);
    let all = cells.len() * STRIPS;
    let (mut below, mut at) = (0, 0);
    let mut quantile = |rank: usize| {
        while below + usize::from(counts[at]) <= rank {
            below += usize::from(counts[at]);
            at += 1;
        }
        at as u32
    };
    (quantile(all / 2), quantile(all * 98 / 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Black with a bright row range.
    fn picture(bright: std::ops::Range<usize>) -> NetworkInput {
        let mut input = NetworkInput(Box::new([10; SIDE * SIDE]));
        for y in bright {
            input.0[y * SIDE..(y + 1) * SIDE].fill(200);
        }
        input
    }

    #[test]
    fn bands_by_hand() {
        // The retina in the middle of a band of 60 %: 179 rows.
        assert_eq!(find(&picture(100..160), 60), (130 - 89, 179));
        // Near the edges the band is shifted.
        assert_eq!(find(&picture(0..50), 60), (0, 179));
        assert_eq!(find(&picture(250..299), 60), (120, 179));
        // Only a part of the width is bright: a retina that spans more than the least height keeps its rows and air.
        let mut tall = picture(0..0);
        for y in 30..250 {
            tall.0[y * SIDE..y * SIDE + 39].fill(200);
        }
        let (first, height) = find(&tall, 60);
        assert!(first <= 30 && first + height >= 250 && height < SIDE, "{first} {height}");
        // Nothing stands out, or nothing is to be cut.
        assert_eq!(find(&picture(0..0), 60), (0, SIDE));
        assert_eq!(find(&picture(0..299), 60), (0, SIDE));
        assert_eq!(find(&picture(100..160), 100), (0, SIDE));
        assert_eq!(find(&picture(100..160), 255), (0, SIDE));
        assert_eq!(find(&picture(130..150), 0), (118, 44));
    }

    proptest::proptest! {
        #[test]
        fn bands_lie_inside(seed: u64, least in 0u8..=255) {
            let mut state = seed | 1;
            let mut input = NetworkInput(Box::new([0; SIDE * SIDE]));
            for pixel in input.0.iter_mut() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *pixel = (state >> 56) as u8 & (state >> 48) as u8;
            }
            let (first, height) = find(&input, least);
            proptest::prop_assert!(height >= 1 && first + height <= SIDE);
            proptest::prop_assert!(height >= SIDE * usize::from(least.min(100)) / 100);
        }
    }
}
