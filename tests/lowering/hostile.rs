//! Files that want to do harm: an error each time, never a panic, and never more memory than is stated.

use super::graphs::{Builder, Noise, PICTURE, Style, picture};
use super::mutate;
use fovea::engine::plan::Plan;
use fovea::engine::scalar::Scalar;
use fovea::engine::simd::{Isa, Simd};
use fovea::model::onnx::{Attribute, Graph, Model, Node, Tensor, ValueInfo};
use prost::Message;
use std::path::Path;

fn said(model: &Model) -> String {
    match Plan::read_any(&model.encode_to_vec().into()) {
        Ok(_) => "it was lowered".into(),
        Err(error) => error.to_string(),
    }
}

fn constant<'a>(graph: &'a mut Graph, name: &str) -> &'a mut Tensor {
    graph.initializer.iter_mut().find(|t| t.name.as_deref() == Some(name)).unwrap()
}

#[test]
fn each_fault_has_its_words() {
    type Fault = fn(&mut Graph);
    let faults: [(Fault, &[&str]); 17] = [
        (|g| *constant(g, "b1/scale") = Tensor::of_f32("b1/scale", &[], &[0.0]), &["b1/q", "a scale of 0"]),
        (
            |g| *constant(g, "b1/scale") = Tensor::of_f32("b1/scale", &[], &[-0.1]),
            &["b1/q", "a scale of -0.1"],
        ),
        (|g| *constant(g, "b1/scale") = Tensor::of_f32("b1/scale", &[], &[f32::NAN]), &["b1/q", "NaN"]),
        (|g| *constant(g, "b1/scale") = Tensor::of_f32("b1/scale", &[], &[f32::INFINITY]), &["b1/q", "inf"]),
        (
            |g| *constant(g, "b.weight/scale") = Tensor::of_f32("b.weight/scale", &[8], &[f32::NAN; 8]),
            &["b.weight", "not finite"],
        ),
        (|g| *constant(g, "b1/zero") = Tensor::of_u8("b1/zero", &[], &[3]), &["b1/q", "zero point"]),
        (|g| constant(g, "b1/scale").name = Some("a/scale".into()), &["two constants named 'a/scale'"]),
        (|g| g.initializer.retain(|t| t.name.as_deref() != Some("b1/scale")), &["b1/q", "reads 'b1/scale'"]),
        (|g| g.node.swap(6, 7), &["which nothing before it makes"]),
        (
            // A circle: the first convolution reads what comes of it.
            |g| g.node.iter_mut().find(|n| n.output[0] == "first.sum").unwrap().input[0] = "block".into(),
            &["first.sum/Conv", "reads 'block', which nothing before it makes"],
        ),
        (
            |g| {
                let again = g.node.iter().find(|n| n.output[0] == "a").unwrap().clone();
                g.node.push(again);
            },
            &["makes 'a' a second time"],
        ),
        (|g| g.input = vec![ValueInfo::of_f32("image", &[1, 1, 1 << 40, 2])], &["1099511627776"]),
        (|g| g.input.push(ValueInfo::of_f32("more", &[1])), &["2 inputs"]),
        (|g| constant(g, "b.weight/q").dims = vec![1 << 31, 1 << 31, 3, 3], &["b.weight/q", "too large"]),
        (|g| constant(g, "b.weight/q").dims[0] = -1, &["b.weight/q", "negative"]),
        (
            |g| *constant(g, "b.bias/q") = Tensor::of_i32("b.bias/q", &[8], &[i32::MAX - 5; 8]),
            &["b.sum/Conv", "may leave 32 bits"],
        ),
        (
            |g| {
                let conv = g.node.iter_mut().find(|n| n.output[0] == "b.sum").unwrap();
                conv.attribute = vec![Attribute::ints("strides", &[0, 1])];
            },
            &["b.sum/Conv", "stride 0"],
        ),
    ];
    for (i, (fault, words)) in faults.into_iter().enumerate() {
        let mut model = Builder::new(Style::Ours, 2).network();
        fault(model.graph.as_mut().unwrap());
        let said = said(&model);
        assert!(words.iter().all(|word| said.contains(word)), "fault {i}: '{said}' without {words:?}");
    }
}

// One large constant that thousands of nodes share would become thousands of copies in the plan.
#[test]
fn shared_weights_are_counted_each_time() {
    let mut b = Builder::new(Style::Nncf, 1);
    b.requantise("image", "pixels", 1.0 / 255.0);
    b.constants.extend([
        Tensor::of_i8("w/q", &[16384, 1, 32, 32], &vec![1; 16 << 20]),
        Tensor::of_f32("w/scale", &[], &[0.01]),
        Tensor::of_i8("w/zero", &[], &[0]),
    ]);
    b.node("DequantizeLinear", &["w/q", "w/scale", "w/zero"], "w", vec![]);
    for i in 0..40 {
        b.node("Conv", &["pixels", "w"], &format!("sum{i}"), vec![]);
    }
    let said = said(&b.model([1, 64, 64], 16));
    assert!(said.contains("weights of more than 256 MB"), "{said}");
}

// Concatenations of concatenations double with each; pools on pools nest.
#[test]
fn towers_are_refused() {
    for (op, word) in [("Concat", "operators in a row"), ("MaxPool", "operators in a row")] {
        let mut b = Builder::new(Style::Nncf, 1);
        b.requantise("image", "x0", 1.0 / 255.0);
        for i in 0..5000 {
            let (from, to) = (format!("x{i}"), format!("x{}", i + 1));
            match op {
                "Concat" => b.node(op, &[&from, &from], &to, vec![Attribute::int("axis", 1)]),
                _ => b.node(op, &[&from], &to, vec![Attribute::ints("kernel_shape", &[1, 1])]),
            }
        }
        let said = said(&b.model(PICTURE, 16));
        assert!(said.contains(word), "{said}");
    }
}

/// Whatever lowers, and is small, must run: the same bytes from every engine.
fn run(plan: Plan) {
    let macs: u64 = plan.steps.iter().map(|step| plan.macs(step)).sum();
    let size: usize = plan.tensors[plan.input].shape.iter().product();
    if macs > 1 << 20 || plan.arena > 1 << 20 || size != picture(1).len() {
        return;
    }
    let input = picture(5);
    let expected = Scalar::of(plan.clone()).run_bytes(&input);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
        // An engine may refuse a window.
        if let Ok(mut simd) = Simd::of(plan.clone(), Some(isa), Some(1)) {
            assert!(simd.run_bytes(&input) == expected, "{}\n{plan}", isa.name());
        }
    }
}

fn mutations() {
    let mut lowered = 0;
    for style in Style::ALL {
        let whole = Builder::new(style, 3).network();
        let good = whole.encode_to_vec();
        let noise = &mut Noise(0x5eed ^ style as u64);
        for i in 0..1500 {
            let bytes = match i % 2 {
                0 => {
                    let mut bytes = good.clone();
                    mutate::bytes(&mut bytes, noise);
                    bytes
                }
                _ => {
                    let mut model = whole.clone();
                    (0..1 + noise.below(2)).for_each(|_| mutate::graph(&mut model, noise));
                    model.encode_to_vec()
                }
            };
            if let Ok(plan) = Plan::read_any(&bytes.clone().into()) {
                lowered += 1;
                if i % 4 < 2 {
                    run(plan);
                }
            }
        }
    }
    assert!(lowered > 300, "hardly any mutation reached the plan: {lowered}");
    // 40 MB of empty nodes, which would be 6 GB of messages.
    let fields = [10u8, 0].repeat(20 << 20);
    let mut bytes = vec![58];
    prost::encoding::encode_varint(fields.len() as u64, &mut bytes);
    bytes.extend(fields);
    assert!(Plan::read_any(&bytes.clone().into()).unwrap_err().to_string().contains("fields"));
    let node = Node::new("Constant", &[], "x", vec![]);
    let many = Graph { node: vec![node; 9000], ..Graph::default() };
    let model = Model { graph: Some(many), ..Model::default() };
    assert!(said(&model).contains("9000 nodes"));
}

fn corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut seen = 0;
    for target in ["model", "manifest", "config", "picture"] {
        for entry in std::fs::read_dir(folder.join(target)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            match target {
                "model" => Plan::read_any(&bytes.clone().into()).map(run).unwrap_or_default(),
                "manifest" => drop(fovea::model::Manifest::parse(&text, &path)),
                "config" => drop(fovea::config::Config::parse(&text, &path)),
                _ => drop(fovea::Frame::decode(&bytes, &path)),
            }
            seen += 1;
        }
    }
    assert!(seen >= 16, "{seen} files");
}

/// Texts and pictures with changed bytes.
fn other_inputs() {
    let noise = &mut Noise(77);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, rounds) in [("manifest", 2000), ("config", 2000), ("picture", 300)] {
        for entry in std::fs::read_dir(folder.join(target)).unwrap() {
            let path = entry.unwrap().path();
            let good = std::fs::read(&path).unwrap();
            for _ in 0..rounds {
                let mut bytes = good.clone();
                mutate::bytes(&mut bytes, noise);
                let text = String::from_utf8_lossy(&bytes);
                match target {
                    "manifest" => drop(fovea::model::Manifest::parse(&text, &path)),
                    "config" => drop(fovea::config::Config::parse(&text, &path)),
                    _ => drop(fovea::Frame::decode(&bytes, &path)),
                }
            }
        }
    }
}

/// Runs this test again in a process whose address space is limited: an allocation beyond it ends the process.
#[cfg(unix)]
fn limited(name: &str, megabytes: u32, test: fn()) {
    const INSIDE: &str = "FOVEA_TEST_LIMITED";
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let output = std::process::Command::new("sh")
        .args(["-c", &format!("ulimit -v {} && exec \"$0\" \"$@\"", megabytes * 1024)])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{name}: {}\n{text}", output.status);
}

#[cfg(not(unix))]
fn limited(_: &str, _: u32, test: fn()) {
    test();
}

// Plans have at most 256 MB of weights and 256 MB of activations; small files never get near.
#[test]
fn mutated_models_stay_within_a_gigabyte() {
    limited("hostile::mutated_models_stay_within_a_gigabyte", 1024, mutations);
}

#[test]
fn the_fuzz_corpus_stays_within_a_gigabyte() {
    limited("hostile::the_fuzz_corpus_stays_within_a_gigabyte", 1024, corpus);
}

// A picture may have 64 megapixels of 8 bytes, and what it becomes.
#[test]
fn mutated_texts_and_pictures_stay_within_two_gigabytes() {
    limited("hostile::mutated_texts_and_pictures_stay_within_two_gigabytes", 2048, other_inputs);
}
