//! Mixup (Zhang et al., ICLR 2018), on cached features as Verma et al. (ICML 2019) do at hidden layers.

use rand::{RngExt, rngs::StdRng, seq::SliceRandom};
use rayon::prelude::*;

/// A batch's mixup: the share of its own that each item keeps, and the partner that gives the rest.
#[derive(Debug)]
pub struct Mix {
    own: f32,
    partner: Vec<usize>,
}

impl Mix {
    /// The mixup of a batch of `count`; `None` with `alpha` 0.
    pub fn draw(alpha: f64, count: usize, random: &mut StdRng) -> Option<Self> {
        if alpha <= 0.0 {
            return None;
        }
        // Beta(alpha, alpha) by Jöhnk's method, which needs alpha at most 1.
        let own = loop {
            let (a, b) = (random.random::<f64>().powf(1.0 / alpha), random.random::<f64>().powf(1.0 / alpha));
            if a + b <= 1.0 && a + b > 0.0 {
                break a / (a + b);
            }
        };
        let mut partner: Vec<usize> = (0..count).collect();
        partner.shuffle(random);
        Some(Self { own: own.max(1.0 - own) as f32, partner })
    }

    /// The items blended, one behind another.
    pub fn blend(&self, items: &[Vec<f32>]) -> Vec<f32> {
        let blended = items.par_iter().zip(&self.partner).flat_map_iter(|(item, &partner)| {
            item.iter().zip(&items[partner]).map(|(a, b)| self.own * a + (1.0 - self.own) * b)
        });
        blended.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn blends_keep_sums_and_the_larger_share_is_ones_own() {
        let mut random = StdRng::seed_from_u64(1);
        assert!(Mix::draw(0.0, 4, &mut random).is_none());
        let items: Vec<Vec<f32>> = (0..5).map(|i| vec![i as f32, 1.0, (i * i) as f32]).collect();
        let mut shares = Vec::new();
        for _ in 0..2000 {
            let mix = Mix::draw(0.4, 5, &mut random).unwrap();
            let blended = mix.blend(&items);
            assert_eq!(blended.len(), 15);
            for k in 0..3 {
                let sum = |all: &mut dyn Iterator<Item = f32>| all.sum::<f32>();
                let before = sum(&mut items.iter().map(|i| i[k]));
                let after = sum(&mut blended.chunks_exact(3).map(|i| i[k]));
                assert!((before - after).abs() < 1e-4 * (1.0 + before), "{before} {after}");
            }
            let expected = mix.own * items[2][0] + (1.0 - mix.own) * items[mix.partner[2]][0];
            assert!((blended[6] - expected).abs() < 1e-6);
            shares.push(f64::from(mix.own));
        }
        // Of Beta(a, a): variance 1 / (4 (2a + 1)), and the larger share's is the same about one half.
        assert!(shares.iter().all(|s| (0.5..=1.0).contains(s)));
        let variance = shares.iter().map(|s| (s - 0.5).powi(2)).sum::<f64>() / shares.len() as f64;
        assert!((variance - 0.25 / 1.8).abs() < 0.01, "{variance}");
    }
}
