//! Equalisation of channels inside a block: ReLU lets a positive factor through, so a channel may be made smaller where
//! it is computed and larger where it is read without changing the f32 network (Nagel et al., "Data-free quantization
//! through weight equalization and bias correction", ICCV 2019). The factors balance what a channel takes of its
//! tensor's one activation scale against what it takes of its readers' weight scales, half and half (Xiao et al.,
//! SmoothQuant, ICML 2023).

use super::calibrate::Maxima;
use super::fold::Checkpoint;
use crate::network::{Node, inception_v3};

/// Factors lie between this and its inverse: a channel that hardly spoke on the calibration pictures may on others.
const WIDEST: f32 = 8.0;

/// Convolutions whose output only other convolutions of the same block read, each with its readers.
fn pairs() -> Vec<(String, Vec<String>)> {
    fn first(nodes: &[Node]) -> Vec<String> {
        match nodes.iter().find(|node| !matches!(node, Node::MaxPool | Node::AveragePool)) {
            Some(Node::Conv(conv)) => vec![conv.name.clone()],
            Some(Node::Fork(branches)) => branches.iter().flat_map(|branch| first(branch)).collect(),
            _ => vec![],
        }
    }
    fn walk(nodes: &[Node], out: &mut Vec<(String, Vec<String>)>) {
        for (i, node) in nodes.iter().enumerate() {
            match node {
                Node::Conv(conv) => {
                    let readers = first(&nodes[i + 1..]);
                    if !readers.is_empty() {
                        out.push((conv.name.clone(), readers));
                    }
                }
                Node::Fork(branches) => branches.iter().for_each(|branch| walk(branch, out)),
                _ => {}
            }
        }
    }
    let mut out = Vec::new();
    inception_v3(1).iter().for_each(|block| walk(&block.nodes, &mut out));
    out
}

/// The same network with equalised channels. `maxima` are the largest values of each channel on calibration pictures.
pub fn equalise(checkpoint: &Checkpoint, maxima: &Maxima) -> Checkpoint {
    let mut equal = checkpoint.clone();
    for (name, readers) in pairs() {
        let Some(maxima) = maxima.get(&name) else { continue };
        let mut read = vec![0f32; maxima.len()];
        for reader in &readers {
            let Some(conv) = equal.convs.get(reader) else { continue };
            let taps = conv.shape[2] * conv.shape[3];
            for (i, taps) in conv.weight.chunks_exact(taps).enumerate() {
                let channel = i % conv.shape[1];
                read[channel] = taps.iter().fold(read[channel], |m, w| m.max(w.abs()));
            }
        }
        let factors = factors(maxima, &read);
        if let Some(conv) = equal.convs.get_mut(&name) {
            let taps = conv.weight.len() / conv.bias.len().max(1);
            for ((filter, bias), factor) in
                conv.weight.chunks_exact_mut(taps).zip(&mut conv.bias).zip(&factors)
            {
                filter.iter_mut().for_each(|w| *w /= factor);
                *bias /= factor;
            }
        }
        for reader in &readers {
            let Some(conv) = equal.convs.get_mut(reader) else { continue };
            let (channels, taps) = (conv.shape[1], conv.shape[2] * conv.shape[3]);
            for (i, taps) in conv.weight.chunks_exact_mut(taps).enumerate() {
                taps.iter_mut().for_each(|w| *w *= factors[i % channels]);
            }
        }
    }
    equal
}

/// What each channel is divided by where it is computed: `√(largest value / largest weight that reads it)`, about 1 on
/// the geometric mean; 1 for channels that are silent or not read.
fn factors(maxima: &[f32], read: &[f32]) -> Vec<f32> {
    let raw: Vec<Option<f32>> = maxima
        .iter()
        .zip(read)
        .map(|(value, weight)| (*value > 0.0 && *weight > 0.0).then(|| (value / weight).sqrt()))
        .collect();
    let known: Vec<f64> = raw.iter().flatten().map(|f| f64::from(*f).ln()).collect();
    let mean = (known.iter().sum::<f64>() / known.len().max(1) as f64).exp() as f32;
    raw.iter().map(|f| f.map_or(1.0, |f| (f / mean).clamp(1.0 / WIDEST, WIDEST))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{calibrate::Statistics, graph, runner::Network, testing};
    use crate::network::convs;

    #[test]
    fn pairs_stay_inside_their_block() {
        let pairs = pairs();
        let readers = |name: &str| pairs.iter().find(|p| p.0 == name).map(|p| p.1.clone());
        assert_eq!(readers("Conv2d_2b_3x3").unwrap(), ["Conv2d_3b_1x1"]);
        assert_eq!(
            readers("Mixed_7b.branch3x3_1").unwrap(),
            ["Mixed_7b.branch3x3_2a", "Mixed_7b.branch3x3_2b"]
        );
        // Read by other blocks, or concatenated.
        assert_eq!(readers("Conv2d_4a_3x3"), None);
        assert_eq!(readers("Mixed_5b.branch1x1"), None);
        let all: Vec<String> =
            inception_v3(1).iter().flat_map(|b| convs(&b.nodes)).map(|c| c.name.clone()).collect();
        assert!(pairs.iter().flat_map(|p| &p.1).all(|name| all.contains(name)));
    }

    #[test]
    fn factors_balance_values_and_weights() {
        let f = factors(&[16.0, 1.0, 0.0, 5.0], &[1.0, 1.0, 2.0, 0.0]);
        // √16 and √1 about their geometric mean 2.
        assert_eq!(f, [2.0, 0.5, 1.0, 1.0]);
        // After division the largest value equals the largest weight times the same constant.
        assert_eq!(16.0 / f[0] / (1.0 * f[0]), 1.0 / f[1] / (1.0 * f[1]));
    }

    // The f32 network stays the same, and a channel that towers over its tensor does so less.
    #[test]
    fn answers_stay() {
        let mut checkpoint = testing::checkpoint("gap");
        let pictures = testing::pictures(2);
        let exposed = Network::new(&graph::float(&checkpoint, true), 2).unwrap();
        let mut maxima = Statistics::collect(&exposed, &pictures.iter().collect::<Vec<_>>()).unwrap().maxima;
        let (first, second) = ("Mixed_6b.branch7x7_1", "Mixed_6b.branch7x7_2");
        let values = maxima.get_mut(first).unwrap();
        let tall = (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap();
        values[tall] *= 100.0;
        let conv = checkpoint.convs.get_mut(first).unwrap();
        let taps = conv.weight.len() / conv.bias.len();
        conv.weight[tall * taps..][..taps].iter_mut().for_each(|w| *w *= 100.0);
        conv.bias[tall] *= 100.0;
        let conv = checkpoint.convs.get_mut(second).unwrap();
        let (channels, read) = (conv.shape[1], conv.shape[2] * conv.shape[3]);
        let readers = conv.weight.chunks_exact_mut(read).skip(tall).step_by(channels);
        readers.for_each(|w| w.iter_mut().for_each(|w| *w /= 100.0));

        let equal = equalise(&checkpoint, &maxima);
        let weight = |c: &Checkpoint| c.convs[first].weight[tall * taps];
        assert_eq!(weight(&equal), weight(&checkpoint) / WIDEST);
        let answer = |c: &Checkpoint| {
            let network = Network::new(&graph::float(c, false), 2).unwrap();
            network.answers(pictures.iter().map(|p| &p.input), "f32").unwrap()
        };
        for (a, b) in answer(&checkpoint).iter().zip(&answer(&equal)) {
            for c in 0..4 {
                assert!((a.logits[c] - b.logits[c]).abs() < 1e-3 * (1.0 + a.logits[c].abs()));
            }
        }
    }
}
