//! The whole network of random weights, exported and run by tract.

use super::calibrate::{Method, Statistics};
use super::graph::{self, Quantisation};
use super::measure;
use super::pictures::Picture;
use super::runner::Network;
use super::testing::{self, pictures};

// f32 against int8 on pictures that calibration did not see, for both heads; and the parts of the f32 answer against a
// plain computation.
#[test]
fn int8_answers_nearly_as_f32() {
    let all = pictures(6);
    for kind in ["gap", "conv"] {
        let checkpoint = testing::checkpoint(kind);
        let exposed = Network::new(&graph::float(&checkpoint, true), 2).unwrap();
        let statistics = Statistics::collect(&exposed, &all[..4].iter().collect::<Vec<_>>()).unwrap();
        let scales = statistics.scales(Method::MinMax);
        assert_eq!(scales.len(), graph::scaled().len() + 1);
        let quantisation = Quantisation { scales: &scales, means: Some(&statistics.means) };
        let int8 = Network::new(&graph::int8(&checkpoint, quantisation, false), 2).unwrap();
        let unseen: Vec<&Picture> = all[4..].iter().collect();
        let exact = exposed.answers(unseen.iter().map(|p| &p.input), "f32").unwrap();
        let quantised = int8.answers(unseen.iter().map(|p| &p.input), "int8").unwrap();
        for (f, q) in exact.iter().zip(&quantised) {
            let size = f.logits.iter().fold(0f32, |m, v| m.max(v.abs()));
            for c in 0..4 {
                assert!(
                    (f.logits[c] - q.logits[c]).abs() < 0.1 * size,
                    "{kind}: {:?} {:?}",
                    f.logits,
                    q.logits
                );
            }
            // Every feature is a whole number of steps of the last scale.
            let steps = f64::from(q.pooled[7]) * 64.0 / f64::from(scales["Mixed_7c"]);
            assert!((steps - steps.round()).abs() < 1e-2, "{steps}");
        }
        assert!(measure::nll(&[3], &[exact[0].logits], 1.0).is_finite());
    }
}

// The first convolution at some positions, by hand from the bytes.
#[test]
fn first_activation_is_the_convolution_of_the_picture() {
    let checkpoint = testing::checkpoint("gap");
    let all = pictures(1);
    let network = Network::new(&graph::float(&checkpoint, true), 1).unwrap();
    let at = 2 + graph::exposed().iter().position(|name| name == "Conv2d_1a_3x3").unwrap();
    let outputs = network.map([&all[0].input], "one", |_, outputs| Ok(outputs[at].to_vec())).unwrap();
    let conv = &checkpoint.convs["Conv2d_1a_3x3"];
    for (channel, y, x) in [(0, 0, 0), (1, 3, 7), (17, 148, 148), (31, 80, 2)] {
        let mut sum = conv.bias[channel];
        for (t, w) in conv.weight[channel * 9..channel * 9 + 9].iter().enumerate() {
            sum += w * f32::from(all[0].input.0[(2 * y + t / 3) * 299 + 2 * x + t % 3]) / 255.0;
        }
        let got = outputs[0][(channel * 149 + y) * 149 + x];
        assert!((got - sum.max(0.0)).abs() < 1e-4, "{channel} {y} {x}: {got} {sum}");
    }
}
