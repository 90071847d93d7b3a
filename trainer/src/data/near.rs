//! Nearly equal pictures by a perceptual hash of the prepared picture, found in buckets.
//!
//! The hash has 64 bits: which of the 64 lowest frequencies of the shrunken picture (discrete cosine transform; Zauner
//! 2010 describes the family) lie above their median **over the data set**. B-scans all look alike, and bits against a
//! fixed threshold would be the same for most of them; these are set in half of the pictures each. Pictures whose hashes
//! differ in at most `BITS` bits share one of 8 bytes whole, so only pictures in one bucket are compared. What is left
//! is checked by the correlation of the shrunken pictures.

use fovea::prepare::{NetworkInput, SIDE};

/// Side of the shrunken picture in pixels.
const SMALL: usize = 32;
/// Bits in which hashes of nearly equal pictures may differ; one less than there are bytes.
const BITS: u32 = 7;
/// Correlation at and above which shrunken pictures are nearly equal.
pub const CORRELATION: f32 = 0.985;

/// What is kept of a picture: 1.3 kB.
#[derive(Clone, Debug)]
pub struct Sketch {
    small: Box<[u8; SMALL * SMALL]>,
    frequencies: [f32; 64],
}

/// The 64 lowest frequencies but the mean, by falling wavelength.
fn order() -> Vec<(usize, usize)> {
    let mut all: Vec<(usize, usize)> =
        (0..16).flat_map(|v| (0..16).map(move |u| (v, u))).filter(|f| *f != (0, 0)).collect();
    all.sort_by_key(|&(v, u)| (v * v + u * u, v));
    all.truncate(64);
    all
}

impl Sketch {
    /// Of the network's input.
    pub fn new(input: &NetworkInput) -> Self {
        let mut small = Box::new([0u8; SMALL * SMALL]);
        for (i, pixel) in small.iter_mut().enumerate() {
            // Means of areas whose edges are whole pixels.
            let edge = |at: usize| at * SIDE / SMALL;
            let (y, x) = (i / SMALL, i % SMALL);
            let (rows, columns) = (edge(y)..edge(y + 1), edge(x)..edge(x + 1));
            let area = rows.len() * columns.len();
            let sum: usize = rows
                .map(|y| input.0[y * SIDE..][columns.clone()].iter().map(|v| usize::from(*v)).sum::<usize>())
                .sum();
            *pixel = ((sum + area / 2) / area) as u8;
        }
        // cos(π (2x + 1) u / 2N), for u below 16.
        let wave: Vec<[f32; SMALL]> = (0..16)
            .map(|u| {
                std::array::from_fn(|x| {
                    (std::f32::consts::PI * ((2 * x + 1) * u) as f32 / (2 * SMALL) as f32).cos()
                })
            })
            .collect();
        let rows: Vec<[f32; 16]> = small
            .chunks_exact(SMALL)
            .map(|row| {
                std::array::from_fn(|u| row.iter().zip(&wave[u]).map(|(p, w)| f32::from(*p) * w).sum())
            })
            .collect();
        let mut frequencies = [0.0; 64];
        for (value, (v, u)) in frequencies.iter_mut().zip(order()) {
            *value = rows.iter().zip(&wave[v]).map(|(row, w)| row[u] * w).sum();
        }
        Self { small, frequencies }
    }

    /// Correlation of the shrunken pictures, -1 to 1; two flat ones are equal.
    pub fn correlation(&self, other: &Self) -> f32 {
        let mean = |s: &Self| s.small.iter().map(|v| f32::from(*v)).sum::<f32>() / (SMALL * SMALL) as f32;
        let (a, b) = (mean(self), mean(other));
        let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
        for (x, y) in self.small.iter().zip(other.small.iter()) {
            let (x, y) = (f32::from(*x) - a, f32::from(*y) - b);
            ab += x * y;
            aa += x * x;
            bb += y * y;
        }
        if aa * bb > 0.0 { ab / (aa * bb).sqrt() } else { f32::from(u8::from(aa == bb)) }
    }
}

/// Each picture's hash against the medians of all.
fn hashes(sketches: &[Sketch]) -> Vec<u64> {
    let mut hashes = vec![0u64; sketches.len()];
    for bit in 0..64 {
        let mut values: Vec<f32> = sketches.iter().map(|s| s.frequencies[bit]).collect();
        let middle = values.len() / 2;
        let Some(median) =
            (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f32::total_cmp).1)
        else {
            continue;
        };
        for (hash, sketch) in hashes.iter_mut().zip(sketches) {
            *hash |= u64::from(sketch.frequencies[bit] > median) << bit;
        }
    }
    hashes
}

/// Pairs of nearly equal pictures, for which `asked` holds. Of pictures with one and the same hash only neighbours in
/// the list are paired, so that a thousand equal pictures give a thousand pairs.
pub fn pairs(sketches: &[Sketch], asked: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize, f32)> {
    let hashes = hashes(sketches);
    let mut found = Vec::new();
    let mut look = |a: usize, b: usize| {
        let (a, b) = (a.min(b), a.max(b));
        if asked(a, b) {
            let alike = sketches[a].correlation(&sketches[b]);
            if alike >= CORRELATION {
                found.push((a, b, alike));
            }
        }
    };
    let mut same: Vec<usize> = (0..hashes.len()).collect();
    same.sort_by_key(|&i| (hashes[i], i));
    let mut distinct = Vec::new();
    for group in same.chunk_by(|a, b| hashes[*a] == hashes[*b]) {
        distinct.push(group[0]);
        group.windows(2).for_each(|pair| look(pair[0], pair[1]));
    }
    for byte in 0..8 {
        let key = |i: usize| (hashes[i] >> (8 * byte)) as u8;
        distinct.sort_by_key(|&i| (key(i), i));
        for bucket in distinct.chunk_by(|a, b| key(*a) == key(*b)) {
            for (n, &a) in bucket.iter().enumerate() {
                for &b in &bucket[n + 1..] {
                    let differ = hashes[a] ^ hashes[b];
                    // A pair is looked at in the first bucket that it shares.
                    let first = (0..8).find(|k| (differ >> (8 * k)) as u8 == 0);
                    if differ.count_ones() <= BITS && first == Some(byte) {
                        look(a, b);
                    }
                }
            }
        }
    }
    found.sort_by(|a, b| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(seed: u64) -> NetworkInput {
        crate::export::testing::picture(seed)
    }

    /// The picture darker, shifted by a pixel and noisy, as another export of it would be.
    fn again(input: &NetworkInput) -> NetworkInput {
        let mut out = input.clone();
        for i in 1..out.0.len() {
            let noise = (i * 7919 % 13) as f32 - 6.0;
            out.0[i] = (f32::from(input.0[i - 1]) * 0.9 + noise).clamp(0.0, 255.0) as u8;
        }
        out
    }

    #[test]
    fn copies_are_found_among_strangers() {
        let mut all: Vec<Sketch> = (0..300).map(|seed| Sketch::new(&input(seed))).collect();
        for of in [3, 77, 150] {
            all.push(Sketch::new(&again(&input(of))));
        }
        let found: Vec<(usize, usize)> = pairs(&all, |_, _| true).iter().map(|p| (p.0, p.1)).collect();
        for pair in [(3, 300), (77, 301), (150, 302)] {
            assert!(found.contains(&pair), "{found:?}");
        }
        // Against the slow way: every pair that is found is alike, and nothing within reach of the hash is missed.
        let hashes = hashes(&all);
        let mut slow = Vec::new();
        for a in 0..all.len() {
            for b in a + 1..all.len() {
                let near = (hashes[a] ^ hashes[b]).count_ones() <= BITS;
                if near && all[a].correlation(&all[b]) >= CORRELATION {
                    slow.push((a, b));
                }
            }
        }
        let mut sorted = found.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, slow);
        assert!(pairs(&all, |a, _| a != 77).len() < found.len());
    }

    // Bits are balanced over the data set, so buckets stay small.
    #[test]
    fn bits_are_balanced() {
        let all: Vec<Sketch> = (0..200).map(|seed| Sketch::new(&input(seed))).collect();
        let hashes = hashes(&all);
        for bit in 0..64 {
            let set = hashes.iter().filter(|h| *h >> bit & 1 == 1).count();
            assert!((95..=100).contains(&set), "bit {bit}: {set}");
        }
    }

    #[test]
    fn many_equal_pictures_stay_cheap() {
        let one = Sketch::new(&input(1));
        let all = vec![one; 5000];
        assert_eq!(pairs(&all, |_, _| true).len(), 4999);
        assert!(pairs(&[], |_, _| true).is_empty());
    }
}
