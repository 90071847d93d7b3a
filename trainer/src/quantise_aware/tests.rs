use super::*;
use crate::checkpoint::Weights;
use crate::export::fold::Folded;
use crate::export::graph::{self, Quantisation};
use crate::export::quantise::quantise;
use crate::export::runner::Network;
use crate::export::{calibrate::Statistics, testing};
use crate::network::BN_EPSILON;
use crate::nn::Layout;
use crate::section::{Cut, HeadKind, Section};
use burn::tensor::{Device, TensorData};

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec::<f32>().unwrap()
}

// The rounded weights are those that `export` writes.
#[test]
fn weights_round_as_the_export_does() {
    let device = Device::flex();
    let weight: Vec<f32> = (0..240).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
    let folded = Folded { shape: [4, 60, 1, 1], weight: weight.clone(), bias: vec![0.1; 4] };
    let q = quantise(&folded, 0.02);
    let ours = values(weights(Tensor::from_data(TensorData::new(weight, [4, 60]), &device)));
    for (i, ours) in ours.iter().enumerate() {
        let exported = f32::from(q.weight[i]) * q.weight_scale[i / 60];
        assert!((ours - exported).abs() < 1e-6, "{i}: {ours} {exported}");
    }
}

#[test]
fn gradients_pass_the_rounding_and_stop_where_it_clips() {
    let device = Device::flex().autodiff();
    let x = Tensor::<1>::from_data(TensorData::from([-0.5f32, 0.26, 0.9, 300.0]), &device).require_grad();
    let y = activation(x.clone(), 0.5);
    assert_eq!(values(y.clone()), [0.0, 0.5, 1.0, 127.5]);
    let gradients =
        (y * Tensor::from_data(TensorData::from([1.0f32, 2.0, 3.0, 4.0]), &device)).sum().backward();
    assert_eq!(values(x.grad(&gradients).unwrap()), [0.0, 2.0, 3.0, 0.0]);
}

// The whole network: a section that rounds answers as tract does with the exported int8 graph, far nearer than floats.
#[test]
fn a_rounded_section_answers_as_the_int8_graph() {
    let checkpoint = testing::checkpoint("gap");
    let pictures = testing::pictures(3);
    let exposed = Network::new(&graph::float(&checkpoint, true), 2).unwrap();
    let statistics = Statistics::collect(&exposed, &pictures.iter().collect::<Vec<_>>()).unwrap();
    // Half of what is needed, so that rounding and clipping both show.
    let scales: Scales = statistics
        .scales(Method::MinMax)
        .into_iter()
        .map(|(name, scale)| if name == "image" { (name, scale) } else { (name, scale * 0.5) })
        .collect();
    let int8 =
        Network::new(&graph::int8(&checkpoint, Quantisation { scales: &scales, means: None }, false), 2);
    let inputs = || pictures.iter().map(|p| &p.input);
    let theirs = int8.unwrap().answers(inputs(), "int8").unwrap();

    let mut weights = Weights::default();
    for (name, folded) in &checkpoint.convs {
        let [o, i, kh, kw] = folded.shape;
        // Three equal channels for the grey one.
        let (i, weight) = if i == 1 {
            let taps: Vec<f32> =
                folded.weight.chunks(kh * kw).flat_map(|w| [w, w, w].concat()).map(|w| w / 3.0).collect();
            (3, taps)
        } else {
            (i, folded.weight.clone())
        };
        weights.set(format!("{name}.conv.weight"), &[o, i, kh, kw], weight);
        weights.set(format!("{name}.bn.bias"), &[o], folded.bias.clone());
        weights.set(format!("{name}.bn.running_mean"), &[o], vec![0.0; o]);
        weights.set(format!("{name}.bn.running_var"), &[o], vec![1.0 - BN_EPSILON; o]);
    }
    if let crate::export::fold::Head::Gap { fc1, fc1_bias, fc2, fc2_bias } = &checkpoint.head {
        weights.set("head.fc1.weight", &[64, 2048], fc1.clone());
        weights.set("head.fc1.bias", &[64], fc1_bias.clone());
        weights.set("head.fc2.weight", &[4, 64], fc2.clone());
        weights.set("head.fc2.bias", &[4], fc2_bias.clone());
        weights.notes.insert("head".into(), "gap".into());
    }
    let device = Device::flex();
    let blocks = "Input".parse::<Cut>().unwrap().trained();
    let (section, params, mut norm) =
        Section::load(&blocks, &weights, HeadKind::Gap, 0, Layout::Nhwc, &device).unwrap();
    let side = fovea::prepare::SIDE;
    let x = section.batch(crate::cache::colour(&inputs().cloned().collect::<Vec<_>>()), [3, side, side, 3]);
    let mut answer = |tap: &mut dyn Tap| {
        let features = section.forward_with(&params, x.clone(), "image", tap);
        values(section.logits(&params, &mut norm, features, None))
    };
    let (rounded, exact) = (answer(&mut Rounded(&scales)), answer(&mut Exact));
    let distance = |ours: &[f32]| -> f32 {
        ours.chunks(4)
            .zip(&theirs)
            .flat_map(|(o, t)| o.iter().zip(t.logits))
            .map(|(o, t)| (o - t).abs())
            .sum()
    };
    let (near, far) = (distance(&rounded), distance(&exact));
    // Not the same: the first layer's weights are rounded by the export alone, and sums round in another order.
    assert!(near < 0.25 * far, "rounded {near}, exact {far}");
}
