//! What the integer engines cannot run falls to tract, and the log says why.

use super::reference;
use fovea::engine;
use fovea::model::onnx::{Attribute, Graph, Model, Node, OperatorSet, Tensor, ValueInfo};
use fovea::model::{
    Calibration, FORMAT, Gate, GateLimits, Golden, Head, HeadKind, Manifest, Package, golden_input,
};
use prost::Message;
use std::io::Write;
use std::sync::{Arc, Mutex};

/// A network in f32 of the sizes that engines expect: a coarse mean, 2048 channels of it, a head.
fn float() -> Model {
    let weight: Vec<f32> = (0..2048).map(|i| (i * 37 % 101) as f32 / 50.0 - 0.9).collect();
    let dense: Vec<f32> = (0..4 * 2048).map(|i| (i * 53 % 97) as f32 / 9000.0 - 0.005).collect();
    let square = |v: i64| Attribute::ints("kernel_shape", &[v; 2]);
    let pool = vec![square(37), Attribute::ints("strides", &[37; 2])];
    let graph = Graph {
        node: vec![
            Node::new("AveragePool", &["image"], "coarse", pool),
            Node::new("Conv", &["coarse", "w", "b"], "sum", vec![square(1)]),
            Node::new("Relu", &["sum"], "features", vec![]),
            Node::new("GlobalAveragePool", &["features"], "mean", vec![]),
            Node::new("Flatten", &["mean"], "flat", vec![]),
            Node::new("Gemm", &["flat", "fc", "fc.b"], "logits", vec![Attribute::int("transB", 1)]),
        ],
        name: Some("float".into()),
        initializer: vec![
            Tensor::of_f32("w", &[2048, 1, 1, 1], &weight),
            Tensor::of_f32("b", &[2048], &weight),
            Tensor::of_f32("fc", &[4, 2048], &dense),
            Tensor::of_f32("fc.b", &[4], &[0.5, -0.25, 0.0, 1.0]),
        ],
        input: vec![ValueInfo::of_f32("image", &[1, 1, 299, 299])],
        output: vec![ValueInfo::of_f32("logits", &[1, 4]), ValueInfo::of_f32("features", &[1, 2048, 8, 8])],
    };
    Model {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![OperatorSet { domain: Some(String::new()), version: Some(13) }],
        ..Model::default()
    }
}

fn package(model: &Model) -> Package {
    let values = reference::run(model.graph.as_ref().unwrap(), &golden_input().0[..], &mut 0);
    let logits: Vec<f32> = values["logits"].data.iter().map(|&v| v as f32).collect();
    let manifest = Manifest {
        format: FORMAT,
        name: "float".into(),
        version: "1".into(),
        labels: fovea::Class::ALL.to_vec(),
        head: HeadKind::Gap,
        preparation: Default::default(),
        calibration: Calibration { temperature: 1.0, threshold: 0.5 },
        gate: GateLimits::default(),
        files: Default::default(),
        golden: Golden { logits: logits.try_into().unwrap() },
        training: Default::default(),
        scales: Default::default(),
    };
    let head = Head::Gap {
        fc1: vec![0.0; 64 * 2048],
        fc1_bias: vec![0.0; 64],
        fc2: vec![0.0; 256],
        fc2_bias: [0.0; 4],
    };
    let gate = Gate { mean: vec![0.0; 2048], scale: vec![1.0; 2048] };
    Package { folder: "float".into(), manifest, onnx: model.encode_to_vec().into(), head, gate }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn auto_takes_tract_and_says_why() {
    let (lines, package) = (Lines::default(), Arc::new(package(&float())));
    let (writer, options) = (lines.clone(), engine::Options::default());
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let engine = tracing::subscriber::with_default(log, || engine::open("auto", &package, &options)).unwrap();
    assert_eq!(engine.name(), engine::tract::NAME);
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let words =
        ["WARN", "engine simd cannot load the model", "node coarse/AveragePool (AveragePool)", "tract may"];
    assert!(words.iter().all(|word| log.contains(word)), "{log}");
    // By its name it is an error.
    let error = engine::open("simd", &package, &options).map(|engine| engine.name()).unwrap_err().to_string();
    assert!(error.contains("coarse/AveragePool"), "{error}");
}
