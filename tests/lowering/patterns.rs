use super::graphs::{Builder, PICTURE, Style, picture};
use super::reference;
use fovea::engine::plan::{Plan, PlanError, Step};
use fovea::engine::scalar::Scalar;
use fovea::engine::simd::{Isa, Simd};
use fovea::model::onnx::{Attribute, Model, Tensor};
use prost::Message;

fn lower(model: &Model) -> Result<Plan, PlanError> {
    Plan::read_any(&model.encode_to_vec().into())
}

/// Features and logits of the plan against the walk over the graph; gives the plan.
fn agrees(model: &Model, features: &str) -> Plan {
    let plan = lower(model).unwrap_or_else(|error| panic!("{error}"));
    let tensor = plan.tensors[plan.features].clone();
    let [h, w, c] = tensor.shape;
    let (mut off, mut ties, mut seen) = (0, 0, [false; 256]);
    for seed in 1..5 {
        let input = picture(seed);
        let values = reference::run(model.graph.as_ref().unwrap(), &input, &mut ties);
        let bytes = Scalar::of(plan.clone()).run_bytes(&input);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
            let mut simd = Simd::of(plan.clone(), Some(isa), Some(1)).unwrap();
            assert!(simd.run_bytes(&input) == bytes, "{}", isa.name());
        }
        let expected = &values[features].data;
        let mut real = vec![0.0; c * h * w];
        for (i, &byte) in bytes.iter().enumerate() {
            let at = i % c * h * w + i / c;
            real[at] = f32::from(byte) * tensor.scale;
            let steps = (f64::from(real[at]) - expected[at]) / f64::from(tensor.scale);
            // A tie that falls the other way moves what follows by steps at most.
            assert!(steps.abs() < 3.5, "byte {byte} where {} belongs", expected[at]);
            off += usize::from(steps.abs() > 0.01);
            seen[usize::from(byte)] = true;
        }
        let logits = plan.head.logits(&real, c);
        for (got, expected) in logits.iter().zip(&values["logits"].data) {
            assert!((f64::from(*got) - expected).abs() < 0.06, "{got} where {expected} belongs");
        }
    }
    assert!(off <= 40 * ties, "{off} bytes off with {ties} ties");
    assert!(seen.iter().filter(|s| **s).count() > 40, "the features say nothing");
    plan
}

#[test]
fn networks_of_every_tool_are_lowered() {
    for style in Style::ALL {
        for seed in 1..4 {
            let plan = agrees(
                &Builder::new(style, seed).network(),
                match style {
                    Style::Nncf => "features/head",
                    _ => "features",
                },
            );
            let steps = plan.steps.len();
            // Convolutions and pools; onnxruntime's branches have other scales than their concatenation, hence copies.
            let expected = match style {
                Style::Ours | Style::Nncf => 11,
                Style::OrtChannels | Style::OrtTensor => 11 + 4,
            };
            assert_eq!(steps, expected, "{style:?}\n{plan}");
            assert_eq!(plan.levels.is_some(), style == Style::Nncf);
            let fit = |step: &Step| !matches!(step, Step::Convolution(c) if !c.pairs_fit);
            assert_eq!(plan.steps.iter().all(fit), style == Style::Ours);
        }
    }
}

/// A convolution over a picture with the zero point `zero`, then features of 16 channels and a head.
fn with_zero(zero: i32, pad: i64) -> Model {
    let mut b = Builder::new(Style::OrtChannels, 9);
    b.requantise_at("image", "pixels", 0.005, zero);
    let raw = b.conv("first", ("pixels", 0.005), [16, 1, 3, 3], 1, [pad, pad]);
    b.requantise(&raw, "features", 0.01);
    head(&mut b, "features");
    b.model(PICTURE, 16)
}

/// Mean, Flatten and one Gemm with weights `[16, 4]`.
fn head(b: &mut Builder, from: &str) {
    b.node("GlobalAveragePool", &[from], "mean", vec![]);
    b.node("Flatten", &["mean"], "flat", vec![]);
    let values: Vec<f32> = (0..64).map(|i| (i * 37 % 23) as f32 / 8.0 - 1.4).collect();
    b.constants.push(Tensor::of_f32("fc", &[16, 4], &values));
    b.constants.push(Tensor::of_f32("fc.bias", &[4], &values[..4]));
    b.node("Gemm", &["flat", "fc", "fc.bias"], "logits", vec![]);
}

#[test]
fn a_picture_may_have_a_zero_point_where_nothing_is_padded() {
    let plan = agrees(&with_zero(37, 0), "features");
    assert_eq!(plan.levels.unwrap()[0], 37);
    let error = lower(&with_zero(37, 1)).unwrap_err().to_string();
    assert!(error.contains("first.sum/Conv") && error.contains("pads a picture"), "{error}");
    agrees(&with_zero(0, 1), "features");
}

#[test]
fn other_things_that_the_tools_write() {
    // A maximum over sums that are not quantised yet, a cut above the range, weights u8 about 128, no bias.
    let mut b = Builder::new(Style::Nncf, 4);
    b.requantise("image", "pixels", 1.0 / 255.0);
    let values: Vec<u8> = (0..16 * 9).map(|i| (i * 71 % 256) as u8).collect();
    b.constants.extend([
        Tensor::of_u8("w/q", &[16, 1, 3, 3], &values),
        Tensor::of_f32("w/scale", &[], &[0.002]),
        Tensor::of_u8("w/zero", &[], &[128]),
        Tensor::of_f32("low", &[], &[0.0]),
        Tensor::of_f32("high", &[], &[6.0]),
    ]);
    b.node("DequantizeLinear", &["w/q", "w/scale", "w/zero"], "w", vec![]);
    b.node("Conv", &["pixels", "w"], "sum", vec![]);
    b.node("Clip", &["sum", "low", "high"], "cut", vec![]);
    b.node("MaxPool", &["cut"], "max", vec![Attribute::ints("kernel_shape", &[3, 3])]);
    let mut low =
        Builder { constants: b.constants.clone(), nodes: b.nodes.clone(), ..Builder::new(Style::Nncf, 4) };
    b.requantise("max", "features", 6.0 / 255.0 / 8.0);
    head(&mut b, "features");
    agrees(&b.model(PICTURE, 16), "features");
    // A cut within the range would have to be computed.
    low.requantise("max", "features", 6.0 / 100.0);
    head(&mut low, "features");
    let error = lower(&low.model(PICTURE, 16)).unwrap_err().to_string();
    assert!(error.contains("features/q/QuantizeLinear") && error.contains("cut at 6"), "{error}");
}

#[test]
fn parts_without_a_common_scale_take_the_largest() {
    let mut b = Builder::new(Style::Nncf, 6);
    b.requantise("image", "pixels", 1.0 / 255.0);
    for (name, scale) in [("a", 0.01), ("b", 0.004)] {
        let raw = b.conv(name, ("pixels", 1.0 / 255.0), [8, 1, 3, 3], 1, [1, 1]);
        b.requantise(&raw, name, scale);
    }
    b.node("Concat", &["a", "b"], "features", vec![Attribute::int("axis", 1)]);
    head(&mut b, "features");
    let model = b.model(PICTURE, 16);
    let plan = lower(&model).unwrap();
    assert_eq!((plan.tensors[plan.features].scale, plan.steps.len()), (0.01, 3));
    let (input, mut ties) = (picture(3), 0);
    let values = reference::run(model.graph.as_ref().unwrap(), &input, &mut ties);
    let bytes = Scalar::of(plan).run_bytes(&input);
    for (i, &byte) in bytes.iter().enumerate() {
        let expected = values["features"].data[i % 16 * (13 * 11) + i / 16];
        assert!((f64::from(byte) * 0.01 - expected).abs() <= 0.0051, "{byte} where {expected} belongs");
    }
}

#[test]
fn channels_without_weights_keep_their_bias() {
    let mut b = Builder::new(Style::Nncf, 8);
    b.requantise("image", "pixels", 1.0 / 255.0);
    b.constants.extend([
        Tensor::of_i8("w/q", &[16, 1, 1, 1], &[0; 16]),
        // As NNCF has it for such a channel: the bias would be 1e30 steps.
        Tensor::of_f32("w/scale", &[16], &[1e-30; 16]),
        Tensor::of_i8("w/zero", &[16], &[0; 16]),
        Tensor::of_f32("bias", &[16], &(0..16).map(|i| i as f32 * 0.1 - 0.4).collect::<Vec<_>>()),
    ]);
    b.node("DequantizeLinear", &["w/q", "w/scale", "w/zero"], "w", vec![Attribute::int("axis", 0)]);
    b.node("Conv", &["pixels", "w", "bias"], "sum", vec![]);
    b.requantise("sum", "features", 0.01);
    head(&mut b, "features");
    let bytes = Scalar::of(lower(&b.model(PICTURE, 16)).unwrap()).run_bytes(&picture(1));
    assert_eq!(bytes[..16], [0, 0, 0, 0, 0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110]);
}
