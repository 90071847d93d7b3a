//! Activation scales from calibration pictures: histograms of every tensor, and four ways to read a scale from one.

use super::graph::{INPUT_SCALE, Means, Scales, exposed, scaled};
use super::pictures::Picture;
use super::runner::Network;
use anyhow::Result;
use std::fmt;
use std::sync::Mutex;

/// Bins of a histogram; after a widening at least half of them are in use, 16 or more a quantisation step.
const BINS: usize = 8192;

/// A histogram of values at or above 0 whose range doubles as larger values come. Counts are whole numbers and ranges
/// powers of two, so the result does not depend on the order of the pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The range is `0..2^exponent`.
    exponent: i32,
    counts: Vec<u64>,
    /// Values that are exactly 0: most, after a ReLU.
    zeros: u64,
    max: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { exponent: -20, counts: vec![0; BINS], zeros: 0, max: 0.0 }
    }
}

impl Histogram {
    fn width(&self) -> f64 {
        2f64.powi(self.exponent) / BINS as f64
    }

    fn widen(&mut self, exponent: i32) {
        while self.exponent < exponent {
            for i in 0..BINS / 2 {
                self.counts[i] = self.counts[2 * i] + self.counts[2 * i + 1];
            }
            self.counts[BINS / 2..].fill(0);
            self.exponent += 1;
        }
    }

    /// Counts values; negative ones (there are none after a ReLU) count as 0.
    ///
    /// # Errors
    /// An infinite or undefined value.
    pub fn add(&mut self, values: &[f32]) -> Result<()> {
        let max = values.iter().fold(0f32, |m, v| if v.is_finite() { m.max(*v) } else { f32::INFINITY });
        anyhow::ensure!(
            max.is_finite(),
            "the network's activations are not finite; the checkpoint is unusable"
        );
        self.max = self.max.max(max);
        while f64::from(max) >= 2f64.powi(self.exponent) {
            self.widen(self.exponent + 1);
        }
        let inverse = (1.0 / self.width()) as f32;
        for v in values {
            if *v > 0.0 {
                self.counts[((v * inverse) as usize).min(BINS - 1)] += 1;
            } else {
                self.zeros += 1;
            }
        }
        Ok(())
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, mut other: Self) {
        let exponent = self.exponent.max(other.exponent);
        self.widen(exponent);
        other.widen(exponent);
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.zeros += other.zeros;
        self.max = self.max.max(other.max);
    }

    /// Largest value.
    pub fn max(&self) -> f32 {
        self.max
    }

    /// The value that `share` (0 to 1) of all values do not exceed, to a bin's width.
    pub fn percentile(&self, share: f64) -> f32 {
        let all: u64 = self.zeros + self.counts.iter().sum::<u64>();
        let above = ((1.0 - share) * all as f64).floor() as u64;
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate().rev() {
            seen += count;
            if seen > above {
                return (((i + 1) as f64 * self.width()) as f32).min(self.max);
            }
        }
        0.0
    }

    /// Mean squared error when values are rounded to `0..=255` steps of `scale`, per value.
    pub fn error(&self, scale: f32) -> f64 {
        let (width, scale) = (self.width(), f64::from(scale));
        let all: u64 = self.zeros + self.counts.iter().sum::<u64>();
        let sum: f64 = self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(i, count)| {
                let x = (i as f64 + 0.5) * width;
                let q = (x / scale).round_ties_even().clamp(0.0, 255.0);
                *count as f64 * (x - q * scale).powi(2)
            })
            .sum();
        sum / all.max(1) as f64
    }

    /// Kullback-Leibler divergence (nats) of what `limit` leaves from what was: values above it fall onto it, and what
    /// lies within is spread evenly over the bins in use of each of 256 steps (Migacz, "8-bit inference with TensorRT",
    /// GTC 2017). Zeros count in neither: they are exact at every scale, and most values are 0 after a ReLU.
    pub fn divergence(&self, limit: f32) -> f64 {
        let bins = ((f64::from(limit) / self.width()).ceil() as usize).clamp(1, BINS);
        let all: u64 = self.counts.iter().sum();
        let beyond: u64 = self.counts[bins..].iter().sum();
        if all == 0 {
            return 0.0;
        }
        let inside = (all - beyond) as f64;
        let mut sum = 0.0;
        let mut start = 0;
        for step in 0..256 {
            let end = ((step + 1) * bins).div_ceil(256).max(start);
            let part = &self.counts[start..end];
            let (mass, used) = part.iter().fold((0, 0), |(m, u), c| (m + c, u + usize::from(*c > 0)));
            for (i, count) in part.iter().enumerate().filter(|(_, count)| **count > 0) {
                let last = start + i + 1 == bins;
                let p = (*count + if last { beyond } else { 0 }) as f64 / all as f64;
                let q = mass as f64 / used as f64 / inside;
                sum += p * (p / q).ln();
            }
            // An empty last bin takes what lies beyond: nothing in the quantised form stands for it there.
            if end == bins && start < end && part[part.len() - 1] == 0 && beyond > 0 {
                let p = beyond as f64 / all as f64;
                sum += p * (p / (0.5 / all as f64)).ln();
            }
            start = end;
        }
        sum
    }

    /// The limit with the least [`Self::divergence`], searched from 5 % of the maximum up to it.
    pub fn least_divergence(&self) -> f32 {
        (5..=100)
            .map(|percent| self.max * percent as f32 / 100.0)
            .map(|limit| (limit, self.divergence(limit)))
            // Of equals the widest: clipping must pay.
            .rev()
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(self.max, |(limit, _)| limit)
    }

    /// The limit `255·scale` with the least [`Self::error`], searched from 5 % of the maximum up to it.
    pub fn least_error(&self) -> f32 {
        (5..=100)
            .map(|percent| self.max * percent as f32 / 100.0)
            .map(|limit| (limit, self.error(limit / 255.0)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(self.max, |(limit, _)| limit)
    }
}

/// How a scale is read from a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// The largest value is 255.
    MinMax,
    /// This share of all values lies within.
    Percentile(f64),
    /// Least mean squared error.
    Mse,
    /// Least Kullback-Leibler divergence.
    Entropy,
}

impl Method {
    /// Those that an export compares.
    pub const ALL: [Method; 5] =
        [Method::MinMax, Method::Percentile(0.9999), Method::Percentile(0.999), Method::Mse, Method::Entropy];

    /// The scale of one activation: its 255th part of the chosen limit.
    pub fn scale(self, histogram: &Histogram) -> f32 {
        let limit = match self {
            Method::MinMax => histogram.max(),
            Method::Percentile(share) => histogram.percentile(share),
            Method::Mse => histogram.least_error(),
            Method::Entropy => histogram.least_divergence(),
        };
        // An activation that was 0 on all pictures may still speak on others.
        if limit > 1e-6 { limit / 255.0 } else { 1.0 / 255.0 }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::MinMax => f.pad("min-max"),
            Method::Percentile(share) => f.pad(&format!("percentile {}", share * 100.0)),
            Method::Mse => f.pad("mse"),
            Method::Entropy => f.pad("entropy"),
        }
    }
}

/// Largest value of each channel by name of the activation.
pub type Maxima = std::collections::BTreeMap<String, Vec<f32>>;

/// What calibration pictures show of the f32 network.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Name and histogram of each activation that needs a scale.
    pub histograms: Vec<(String, Histogram)>,
    /// Mean of each channel of every convolution's input.
    pub means: Means,
    /// Largest value of each channel.
    pub maxima: Maxima,
}

impl Statistics {
    /// Runs the f32 network (built with all activations exposed) over pictures.
    ///
    /// # Errors
    /// As [`Network::map`].
    pub fn collect(network: &Network, pictures: &[&Picture]) -> Result<Self> {
        // Outputs are logits, features, then `exposed()`.
        let mut names = vec!["features".to_owned()];
        names.extend(exposed());
        let wanted = scaled();
        let key = |name: &str| if name == "features" { "Mixed_7c".to_owned() } else { name.to_owned() };
        let has_scale: Vec<bool> = names.iter().map(|name| wanted.contains(&key(name))).collect();
        let channels = super::graph::channels();
        struct Tensor {
            histogram: Histogram,
            sums: Vec<f64>,
            maxima: Vec<f32>,
            count: usize,
        }
        let tensors: Vec<Mutex<Tensor>> = names
            .iter()
            .map(|name| Tensor {
                histogram: Histogram::default(),
                sums: vec![0.0; channels[name]],
                maxima: vec![0.0; channels[name]],
                count: 0,
            })
            .map(Mutex::new)
            .collect();
        // Sums of floats depend on the order of threads: per picture sums are rounded to a grid that has none.
        let grid = 2f64.powi(24);
        network.map(pictures.iter().map(|p| &p.input), "calibrating", |_, outputs| {
            for ((values, tensor), has_scale) in outputs[1..].iter().zip(&tensors).zip(&has_scale) {
                let mut fresh = Histogram::default();
                if *has_scale {
                    fresh.add(values)?;
                }
                let mut tensor = tensor.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let tensor = &mut *tensor;
                tensor.histogram.merge(fresh);
                let cells = values.len() / tensor.sums.len();
                tensor.count += cells;
                let channels = tensor.sums.iter_mut().zip(&mut tensor.maxima);
                for ((sum, max), plane) in channels.zip(values.chunks_exact(cells)) {
                    let exact: f64 = plane.iter().map(|v| f64::from(*v)).sum();
                    *sum += (exact * grid).round() / grid;
                    *max = plane.iter().fold(*max, |m, v| m.max(*v));
                }
            }
            Ok(())
        })?;
        let pixels: f64 = pictures.iter().flat_map(|p| p.input.0.iter()).map(|p| f64::from(*p) / 255.0).sum();
        let count = pictures.len().max(1) * fovea::prepare::SIDE * fovea::prepare::SIDE;
        let mut statistics = Self { histograms: Vec::new(), means: Means::new(), maxima: Maxima::new() };
        statistics.means.insert("pixels".into(), vec![pixels / count as f64]);
        for ((name, tensor), has_scale) in names.iter().zip(tensors).zip(has_scale) {
            let tensor = tensor.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
            let mean = tensor.sums.iter().map(|sum| sum / tensor.count.max(1) as f64).collect();
            statistics.means.insert(name.clone(), mean);
            statistics.maxima.insert(name.clone(), tensor.maxima);
            if has_scale {
                statistics.histograms.push((key(name), tensor.histogram));
            }
        }
        Ok(statistics)
    }

    /// All scales by one method, with that of the input.
    pub fn scales(&self, method: Method) -> Scales {
        let mut scales: Scales =
            self.histograms.iter().map(|(name, histogram)| (name.clone(), method.scale(histogram))).collect();
        scales.insert("image".into(), INPUT_SCALE);
        scales
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[f32]) -> Histogram {
        let mut histogram = Histogram::default();
        histogram.add(values).unwrap();
        histogram
    }

    /// Uniform on 0..8, `outliers` at 100.
    fn uniform(outliers: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..100_000).map(|i| i as f32 * 8e-5).collect();
        values.extend(vec![100.0; outliers]);
        values
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        let h = histogram(&uniform(5));
        assert_eq!(h.max(), 100.0);
        assert!((h.percentile(0.5) - 4.0).abs() < 0.02);
        assert!((h.percentile(0.999) - 7.992).abs() < 0.02);
        assert_eq!(h.percentile(1.0), 100.0);
        // Zeros count: with as many as values, the median is 0's edge.
        let mut half = uniform(0);
        half.extend(vec![0.0; 300_000]);
        assert!((histogram(&half).percentile(0.875) - 4.0).abs() < 0.02);
    }

    // Without outliers nothing is clipped; with a few, clipping them costs less than coarser steps for all.
    #[test]
    fn least_error_clips_only_what_pays() {
        let plain = histogram(&uniform(0));
        assert!(plain.least_error() > 0.97 * plain.max());
        let coarse = 100f64 / 255.0;
        let with = histogram(&uniform(1));
        // One value in 100,000 at 100: keeping it costs a step of 100/255 for all (step²/12 each), clipping more.
        let limit = f64::from(with.least_error());
        assert!(with.error(limit as f32 / 255.0) <= coarse * coarse / 12.0 * 1.02);
        // One value of 100,001 at 12: with the limit L the error is (12-L)²/100,001 + (L/255)²/12, least at 10.64.
        let mut tail = uniform(0);
        tail.push(12.0);
        let tail = histogram(&tail);
        assert!((tail.least_error() - 10.64).abs() < 0.25, "{}", tail.least_error());
        assert!((tail.error(8.0 / 255.0) - ((8f64 / 255.0).powi(2) / 12.0 + 16.0 / 100_001.0)).abs() < 2e-5);
    }

    // Against the definition, written out over plain lists.
    #[test]
    fn divergence_is_the_definition() {
        let values: Vec<f32> = (1..60_000)
            .map(|i| (i as f32 / 60_000.0).powi(3) * 7.0 + (i * 7919 % 17) as f32 * 0.01)
            .collect();
        let h = histogram(&values);
        for limit in [1.5f32, 3.0, 5.0] {
            let width = h.width();
            let bins = (f64::from(limit) / width).ceil() as usize;
            let mut p = vec![0.0; bins];
            let mut inside = vec![0.0; bins];
            for v in values.iter().filter(|v| **v > 0.0) {
                let i = (f64::from(*v) / width) as usize;
                p[i.min(bins - 1)] += 1.0;
                if i < bins {
                    inside[i] += 1.0;
                }
            }
            let mut q = vec![0.0; bins];
            for step in 0..256 {
                let of = |i: usize| i * 256 / bins == step;
                let (mut mass, mut used) = (0.0, 0.0);
                for i in (0..bins).filter(|i| of(*i)) {
                    mass += inside[i];
                    used += f64::from(u8::from(inside[i] > 0.0));
                }
                for i in (0..bins).filter(|i| of(*i) && inside[*i] > 0.0) {
                    q[i] = mass / used;
                }
            }
            let (sp, sq): (f64, f64) = (p.iter().sum(), q.iter().sum());
            let direct: f64 = p
                .iter()
                .zip(&q)
                .filter(|(p, q)| **p > 0.0 && **q > 0.0)
                .map(|(p, q)| p / sp * (p / sp / (q / sq)).ln())
                .sum();
            assert!(
                (h.divergence(limit) - direct).abs() < 2e-3 * direct.max(0.1),
                "{limit}: {} {direct}",
                h.divergence(limit)
            );
        }
    }

    // Nothing is gained by clipping a uniform distribution; a thin tail is clipped.
    #[test]
    fn least_divergence_clips_tails_only() {
        let plain = histogram(&uniform(0));
        assert!(plain.least_divergence() > 0.97 * plain.max(), "{}", plain.least_divergence());
        // A narrow hill and 30 values far off: a step that holds them all would hold the whole hill.
        let mut tail: Vec<f32> = (0..100_000).map(|i| (i % 317) as f32 * (i % 311) as f32 * 1e-6).collect();
        tail.extend((0..30).map(|i| 10.0 + i as f32 * 3.0));
        let limit = histogram(&tail).least_divergence();
        assert!(limit < 20.0, "{limit}");
    }

    #[test]
    fn order_and_parts_do_not_matter() {
        let values = uniform(7);
        let whole = histogram(&values);
        let mut parts = histogram(&values[..10]);
        parts.merge(histogram(&values[50_000..]));
        parts.merge(histogram(&values[10..50_000]));
        assert_eq!(whole, parts);
    }

    #[test]
    fn silent_activations_get_a_scale() {
        let silent = histogram(&[0.0; 10]);
        for method in Method::ALL {
            assert!(method.scale(&silent) > 0.0, "{method}");
        }
        assert!(Histogram::default().add(&[f32::NAN]).is_err());
    }
}
