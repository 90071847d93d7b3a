//! Weights to s8 in [-63, 63] per output channel, biases to s32: the sums of two `u8·s8` products then never saturate
//! 16 bits on CPUs without VNNI.

use super::fold::Folded;

/// Largest magnitude of a quantised weight.
pub const WEIGHT_MAX: f32 = 63.0;

/// Largest magnitude of a quantised bias: so much of an s32 accumulator that f32 still holds every sum exactly.
const BIAS_MAX: f32 = (1 << 22) as f32;

/// A quantised convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantConv {
    /// Output and input channels, kernel height and width.
    pub shape: [usize; 4],
    /// Weights, OIHW, each in [-63, 63].
    pub weight: Vec<i8>,
    /// Scale of each output channel's weights.
    pub weight_scale: Vec<f32>,
    /// Bias in units of `bias_scale`.
    pub bias: Vec<i32>,
    /// `input scale · weight scale` of each output channel.
    pub bias_scale: Vec<f32>,
}

/// Quantises a convolution whose input has the scale `input_scale`.
///
/// A channel's weight scale is `max|w| / 63`. It is raised where the bias would not fit into 2^22 units of it: channels
/// with no or vanishing weights have only their bias to say.
pub fn quantise(conv: &Folded, input_scale: f32) -> QuantConv {
    let taps = conv.weight.len() / conv.bias.len().max(1);
    let mut out = QuantConv {
        shape: conv.shape,
        weight: Vec::with_capacity(conv.weight.len()),
        weight_scale: Vec::with_capacity(conv.bias.len()),
        bias: Vec::with_capacity(conv.bias.len()),
        bias_scale: Vec::with_capacity(conv.bias.len()),
    };
    for (filter, bias) in conv.weight.chunks_exact(taps).zip(&conv.bias) {
        let largest = filter.iter().fold(0f32, |m, w| m.max(w.abs()));
        let mut scale = (largest / WEIGHT_MAX).max(bias.abs() / (BIAS_MAX * input_scale));
        // Also keeps a channel without weight and bias at a scale that multiplies and divides.
        if scale < 1e-12 {
            scale = 1e-12;
        }
        let bias_scale = input_scale * scale;
        out.weight.extend(
            filter.iter().map(|w| (w / scale).round_ties_even().clamp(-WEIGHT_MAX, WEIGHT_MAX) as i8),
        );
        out.weight_scale.push(scale);
        out.bias.push((bias / bias_scale).round_ties_even().clamp(-BIAS_MAX, BIAS_MAX) as i32);
        out.bias_scale.push(bias_scale);
    }
    out
}

/// What rounding the weights adds to each output channel on average, given each input channel's mean: to be taken off
/// the bias (Nagel et al., ICCV 2019, with means from calibration instead of from batch norm).
pub fn bias_shift(conv: &Folded, quantised: &QuantConv, input_mean: &[f64]) -> Vec<f32> {
    let [_, input, kh, kw] = conv.shape;
    let taps = kh * kw;
    conv.weight
        .chunks_exact(input * taps)
        .zip(quantised.weight.chunks_exact(input * taps))
        .zip(&quantised.weight_scale)
        .map(|((exact, rounded), scale)| {
            let errors = exact.iter().zip(rounded).map(|(w, q)| f64::from(f32::from(*q) * scale - w));
            errors.enumerate().map(|(i, error)| error * input_mean[i / taps]).sum::<f64>() as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(weight: &[f32], bias: &[f32]) -> Folded {
        let taps = weight.len() / bias.len();
        Folded { shape: [bias.len(), taps, 1, 1], weight: weight.to_vec(), bias: bias.to_vec() }
    }

    #[test]
    fn weights_stay_in_range_and_near() {
        let weight: Vec<f32> = (0..200).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
        let conv = conv(&weight, &[0.3, -4.0]);
        let q = quantise(&conv, 0.02);
        assert!(q.weight.iter().all(|w| (-63..=63).contains(w)));
        assert_eq!(q.weight.iter().map(|w| w.unsigned_abs()).max(), Some(63));
        for (i, (w, exact)) in q.weight.iter().zip(&weight).enumerate() {
            let scale = q.weight_scale[i / 100];
            assert!((f32::from(*w) * scale - exact).abs() <= scale * 0.5001, "{i}");
        }
        for o in 0..2 {
            assert_eq!(q.bias_scale[o], 0.02 * q.weight_scale[o]);
            assert!((q.bias[o] as f32 * q.bias_scale[o] - conv.bias[o]).abs() <= q.bias_scale[o] * 0.51);
        }
    }

    // Such channels exist in the backbone: a naive scale would be 0 and the bias infinite.
    #[test]
    fn channels_without_weight_keep_their_bias() {
        let q = quantise(&conv(&[0.0, 0.0, 0.0, 0.0, 1e-12, -1e-13], &[0.7, 0.0, -3.0]), 0.01);
        assert_eq!(&q.weight[..4], [0; 4]);
        assert!(q.weight_scale.iter().chain(&q.bias_scale).all(|s| s.is_finite() && *s > 0.0));
        for (o, bias) in [0.7f32, 0.0, -3.0].into_iter().enumerate() {
            assert!((q.bias[o] as f32 * q.bias_scale[o] - bias).abs() <= 1e-6, "{o}");
            assert!(q.bias[o].unsigned_abs() <= 1 << 22);
        }
    }

    #[test]
    fn bias_shift_is_the_mean_error() {
        let conv = conv(&[1.0, 0.5, 0.26, 0.1], &[0.0]);
        let q = quantise(&conv, 1.0);
        let mean = [1.0, 2.0, 3.0, 4.0];
        let exact: f64 = conv.weight.iter().zip(mean).map(|(w, m)| f64::from(*w) * m).sum();
        let got: f64 =
            q.weight.iter().zip(mean).map(|(w, m)| f64::from(*w) * f64::from(q.weight_scale[0]) * m).sum();
        assert!((f64::from(bias_shift(&conv, &q, &mean)[0]) - (got - exact)).abs() < 1e-5);
    }
}
