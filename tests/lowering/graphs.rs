//! Small networks in the shapes that the quantisation tools write, with seeded weights: for the tests of the lowering and
//! for the fuzz corpus.

use fovea::model::onnx::{Attribute, Graph, Model, Node, OperatorSet, Tensor, Tensor as T, ValueInfo};

/// Numbers that look random, the same every time (xorshift, Marsaglia 2003).
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn between(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1) as usize) as i32
    }
}

/// How a tool writes a quantised network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `fovea-train`: Relu kept, one scale a block, head in f32.
    Ours,
    /// onnxruntime, u8 activations, a weight scale for each channel: no Relu, branches with scales of their own that the
    /// concatenation requantises, quantised head with a zero point at the logits.
    OrtChannels,
    /// onnxruntime's defaults: s8 activations with zero point -128, a weight scale for the tensor, typed lists instead of raw
    /// bytes.
    OrtTensor,
    /// NNCF: biases in f32, pools and concatenations between dequantisation and the next convolution, the last
    /// concatenation in f32, weights' axis counted from behind in the head.
    Nncf,
}

impl Style {
    pub const ALL: [Style; 4] = [Style::Ours, Style::OrtChannels, Style::OrtTensor, Style::Nncf];
}

/// Writes a network of one inception-like block.
pub struct Builder {
    pub style: Style,
    pub noise: Noise,
    pub nodes: Vec<Node>,
    pub constants: Vec<Tensor>,
    /// Largest magnitude of a weight.
    pub weights: i32,
}

/// Channels, rows and columns of the picture of [`Builder::network`].
pub const PICTURE: [usize; 3] = [1, 13, 11];

impl Builder {
    pub fn new(style: Style, seed: u64) -> Self {
        let weights = if style == Style::Ours { 63 } else { 127 };
        let noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self { style, noise, nodes: Vec::new(), constants: Vec::new(), weights }
    }

    pub fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) {
        self.nodes.push(Node::new(op, inputs, output, attributes));
    }

    /// QuantizeLinear and DequantizeLinear from `from` to `to`, whose zero point stands for 0.
    pub fn requantise(&mut self, from: &str, to: &str, scale: f32) {
        let zero = if self.style == Style::OrtTensor { -128 } else { 0 };
        self.requantise_at(from, to, scale, zero);
    }

    pub fn requantise_at(&mut self, from: &str, to: &str, scale: f32, zero: i32) {
        let names = ["scale", "zero", "q"].map(|part| format!("{to}/{part}"));
        self.constants.push(T::of_f32(&names[0], &[], &[scale]));
        let signed = self.style == Style::OrtTensor;
        let mut point = match signed {
            true => T::of_i8(&names[1], &[], &[zero as i8]),
            false => T::of_u8(&names[1], &[], &[zero as u8]),
        };
        if signed {
            point.raw_data = None;
            point.int32_data = vec![zero];
        }
        self.constants.push(point);
        let [scale, zero, bytes] = names.each_ref().map(String::as_str);
        self.node("QuantizeLinear", &[from, scale, zero], bytes, vec![]);
        self.node("DequantizeLinear", &[bytes, scale, zero], to, vec![]);
    }

    /// A constant of quantised weights `[outputs, rest…]` and its DequantizeLinear; gives the scales.
    fn quantised(&mut self, name: &str, shape: &[usize], spread: f32, axis: i64) -> Vec<f32> {
        let (count, outputs) = (shape.iter().product(), shape[0]);
        let limit = self.weights;
        let values: Vec<i8> = (0..count).map(|_| self.noise.between(-limit, limit) as i8).collect();
        let channels = if self.style == Style::OrtTensor { 1 } else { outputs };
        let scales: Vec<f32> =
            (0..channels).map(|_| spread * (1.0 + self.noise.below(64) as f32 / 64.0)).collect();
        let dims: &[usize] = if channels == 1 && self.style == Style::OrtTensor { &[] } else { &[channels] };
        let [q, scale, zero] = ["q", "scale", "zero"].map(|part| format!("{name}/{part}"));
        self.constants.push(T::of_i8(&q, shape, &values));
        self.constants.push(T::of_f32(&scale, dims, &scales));
        self.constants.push(T::of_i8(&zero, dims, &vec![0; channels]));
        let axis = if dims.is_empty() { vec![] } else { vec![Attribute::int("axis", axis)] };
        self.node("DequantizeLinear", &[&q, &scale, &zero], name, axis);
        if channels == outputs { scales } else { vec![scales[0]; outputs] }
    }

    /// Biases as the tool has them: s32 with scale input · weight, or f32.
    fn biases(&mut self, name: &str, weights: &[f32], input: f32) {
        let steps: Vec<i32> = weights.iter().map(|_| self.noise.between(-2000, 2000)).collect();
        let channels = [weights.len()];
        if self.style == Style::Nncf {
            let real: Vec<f32> = steps.iter().zip(weights).map(|(&b, s)| b as f32 * s * input).collect();
            return self.constants.push(T::of_f32(name, &channels, &real));
        }
        let units: Vec<f32> = weights.iter().map(|s| s * input).collect();
        let one = self.style == Style::OrtTensor;
        let (units, dims): (&[f32], &[usize]) = if one { (&units[..1], &[]) } else { (&units, &channels) };
        let [q, scale, zero] = ["q", "scale", "zero"].map(|part| format!("{name}/{part}"));
        self.constants.push(T::of_i32(&q, &channels, &steps));
        self.constants.push(T::of_f32(&scale, dims, units));
        self.constants.push(T::of_i32(&zero, dims, &vec![0; units.len()]));
        let axis = if one { vec![] } else { vec![Attribute::int("axis", 0)] };
        self.node("DequantizeLinear", &[&q, &scale, &zero], name, axis);
    }

    /// A convolution with its Relu, not yet quantised; gives the name of its result.
    pub fn conv(
        &mut self,
        name: &str,
        from: (&str, f32),
        [outputs, inputs, kh, kw]: [usize; 4],
        stride: i64,
        pads: [i64; 2],
    ) -> String {
        let [weight, bias, sum] = ["weight", "bias", "sum"].map(|part| format!("{name}.{part}"));
        // Outputs as large as inputs: uniform weights, half of the sums cut off at 0.
        let spread = 2.0 / ((inputs * kh * kw) as f32).sqrt() / self.weights as f32;
        let scales = self.quantised(&weight, &[outputs, inputs, kh, kw], spread, 0);
        self.biases(&bias, &scales, from.1);
        let [ph, pw] = pads;
        let attributes = vec![
            Attribute::ints("kernel_shape", &[kh as i64, kw as i64]),
            Attribute::ints("pads", &[ph, pw, ph, pw]),
            Attribute::ints("strides", &[stride; 2]),
            Attribute::int("group", 1),
        ];
        self.node("Conv", &[from.0, &weight, &bias], &sum, attributes);
        if matches!(self.style, Style::OrtChannels | Style::OrtTensor) {
            return sum;
        }
        let relu = format!("{name}.relu");
        self.node("Relu", &[&sum], &relu, vec![]);
        relu
    }

    /// A convolution, quantised at `scale` as `name`.
    fn layer(&mut self, name: &str, from: (&str, f32), shape: [usize; 4], pads: [i64; 2], scale: f32) {
        let raw = self.conv(name, from, shape, 1, pads);
        self.requantise(&raw, name, scale);
    }

    fn pool(&mut self, op: &str, from: &str, to: &str, stride: i64, pad: i64) {
        let mut attributes = vec![
            Attribute::ints("kernel_shape", &[3, 3]),
            Attribute::ints("pads", &[pad; 4]),
            Attribute::ints("strides", &[stride; 2]),
        ];
        if op == "AveragePool" {
            attributes.push(Attribute::int("count_include_pad", 0));
        }
        self.node(op, &[from], to, attributes);
    }

    /// Picture, convolution, maximum, a block of four branches, a last block, head.
    pub fn network(mut self) -> Model {
        let style = self.style;
        let free = style == Style::Nncf;
        // The picture of NNCF has a scale of its own when the calibration saw no white.
        let picture = if free { 0.0039 } else { 1.0 / 255.0 };
        self.requantise("image", "pixels", picture);
        self.layer("first", ("pixels", picture), [8, 1, 3, 3], [0, 0], 0.011);
        self.pool("MaxPool", "first", "max/f", 1, 0);
        let max = if free { "max/f" } else { "max" };
        if !free {
            self.requantise("max/f", "max", 0.011);
        }
        let from = (max, 0.011);
        // Scales of the branches: their own with onnxruntime, one for the block elsewhere.
        let own = matches!(style, Style::OrtChannels | Style::OrtTensor);
        let scales = if own { [0.009, 0.013, 0.007, 0.011] } else { [0.013; 4] };
        self.layer("a", from, [6, 8, 1, 1], [0, 0], scales[0]);
        self.layer("b1", from, [4, 8, 1, 1], [0, 0], 0.012);
        self.layer("b", ("b1", 0.012), [8, 4, 3, 3], [1, 1], scales[1]);
        self.layer("c1", from, [4, 8, 1, 3], [0, 1], 0.01);
        self.layer("c", ("c1", 0.01), [4, 4, 3, 1], [1, 0], scales[2]);
        self.pool("AveragePool", max, "d1/f", 1, 1);
        self.requantise("d1/f", "d1", 0.011);
        self.layer("d", ("d1", 0.011), [6, 8, 1, 1], [0, 0], scales[3]);
        let axis = || vec![Attribute::int("axis", 1)];
        self.node("Concat", &["a", "b", "c", "d"], "block/f", axis());
        let mut block = "block/f";
        if !free {
            block = "block";
            self.requantise("block/f", "block", 0.013);
        }
        let e = self.conv("e", (block, 0.013), [8, 24, 3, 3], 2, [0, 0]);
        let f = self.conv("f", (block, 0.013), [8, 24, 3, 3], 2, [0, 0]);
        let last = if own { [0.02, 0.015] } else { [0.02; 2] };
        if free {
            // Quantised for the head only: the output itself stays as it is.
            self.node("Concat", &[&e, &f], "features", axis());
            self.requantise("features", "features/head", 0.02);
        } else {
            self.requantise(&e, "e", last[0]);
            self.requantise(&f, "f", last[1]);
            self.node("Concat", &["e", "f"], "features/f", axis());
            self.requantise("features/f", "features", 0.02);
        }
        self.head(if free { "features/head" } else { "features" });
        let [c, h, w] = PICTURE;
        self.model([c, h, w], 16)
    }

    fn head(&mut self, features: &str) {
        self.node("GlobalAveragePool", &[features], "mean", vec![]);
        let quantised = self.style != Style::Ours;
        let mut from = "mean";
        if quantised {
            self.requantise("mean", "mean/dq", 0.02);
            from = "mean/dq";
        }
        self.node("Flatten", &[from], "flat", vec![Attribute::int("axis", 1)]);
        let dense = |builder: &mut Self, from: &str, name: &str, shape: [usize; 2], input: f32| {
            let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
            if quantised {
                let axis = if builder.style == Style::Nncf { -2 } else { 0 };
                let scales = builder.quantised(&weight, &shape, 0.002, axis);
                builder.biases(&bias, &scales, input);
            } else {
                let values: Vec<f32> =
                    (0..shape[0] * shape[1]).map(|_| builder.noise.between(-99, 99) as f32 / 64.0).collect();
                builder.constants.push(T::of_f32(&weight, &shape, &values));
                builder.constants.push(T::of_f32(&bias, &shape[..1], &values[..shape[0]]));
            }
            let attributes = vec![Attribute::int("transB", 1)];
            builder.node("Gemm", &[from, &weight, &bias], &format!("{name}.sum"), attributes);
        };
        dense(self, "flat", "fc1", [6, 16], 0.02);
        self.node("Relu", &["fc1.sum"], "fc1.relu", vec![]);
        from = "fc1.relu";
        if quantised {
            self.requantise("fc1.relu", "fc1", 0.01);
            from = "fc1";
        }
        dense(self, from, "fc2", [4, 6], 0.01);
        match self.style {
            Style::OrtChannels => self.requantise_at("fc2.sum", "logits", 0.01, 99),
            Style::OrtTensor => self.requantise_at("fc2.sum", "logits", 0.01, -17),
            Style::Ours | Style::Nncf => self.node("Identity", &["fc2.sum"], "logits", vec![]),
        }
    }

    /// The nodes as a model whose picture has `[c, h, w]` and whose features have `channels` channels.
    pub fn model(self, [c, h, w]: [usize; 3], channels: usize) -> Model {
        let graph = Graph {
            node: self.nodes,
            name: Some("small".into()),
            initializer: self.constants,
            input: vec![ValueInfo::of_f32("image", &[1, c, h, w])],
            output: vec![
                ValueInfo::of_f32("logits", &[1, 4]),
                ValueInfo::of_f32("features", &[1, channels, 4, 3]),
            ],
        };
        Model {
            ir_version: Some(8),
            graph: Some(graph),
            opset_import: vec![OperatorSet { domain: Some(String::new()), version: Some(13) }],
            ..Model::default()
        }
    }
}

/// A picture of [`PICTURE`].
pub fn picture(seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed | 1);
    (0..PICTURE.iter().product()).map(|_| noise.next() as u8).collect()
}
