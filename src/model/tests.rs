use super::*;
use crate::engine::{FEATURE_CHANNELS, FEATURE_SIDE};
use safetensors::{Dtype, tensor::TensorView};
use std::collections::BTreeMap;

/// Bytes of a safetensors file with f32 tensors.
fn safetensors(tensors: &[(&str, &[usize], Vec<f32>)]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), data)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// A package without a network, which is enough to read and verify.
fn write_package(folder: &Path) -> Manifest {
    let head = safetensors(&[
        ("fc1.weight", &[64, FEATURE_CHANNELS], vec![0.5; 64 * FEATURE_CHANNELS]),
        ("fc1.bias", &[64], vec![0.0; 64]),
        ("fc2.weight", &[4, 64], vec![0.25; 256]),
        ("fc2.bias", &[4], vec![1.0; 4]),
    ]);
    let gate = safetensors(&[
        ("mean", &[FEATURE_CHANNELS], vec![1.0; FEATURE_CHANNELS]),
        ("scale", &[FEATURE_CHANNELS], vec![0.5; FEATURE_CHANNELS]),
    ]);
    let files: BTreeMap<&str, Vec<u8>> =
        [(ONNX, b"network".to_vec()), (HEAD, head), (GATE, gate), ("NOTICE", b"mine".to_vec())].into();
    let manifest = Manifest {
        format: FORMAT,
        name: "test".into(),
        version: "1".into(),
        labels: crate::Class::ALL.to_vec(),
        head: HeadKind::Gap,
        preparation: Default::default(),
        calibration: Calibration { temperature: 1.5, threshold: 0.6 },
        gate: GateLimits::default(),
        files: files.iter().map(|(name, bytes)| (name.to_string(), sha256(bytes))).collect(),
        golden: Golden { logits: [0.0; 4] },
        training: toml::Table::new(),
        scales: [("image".to_owned(), 1.0 / 255.0)].into(),
    };
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    std::fs::write(folder.join(MANIFEST), manifest.to_toml().unwrap()).unwrap();
    manifest
}

#[test]
fn a_package_is_read_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = write_package(folder.path());
    let package = Package::open(folder.path()).unwrap();
    assert_eq!((package.manifest.clone(), &package.onnx[..]), (manifest, &b"network"[..]));
    assert_eq!(package.identity(), "test 1");
    let features = vec![2.0; FEATURE_CHANNELS * FEATURE_SIDE * FEATURE_SIDE];
    assert_eq!(package.gate.distance(&features), 4.0);
    assert_eq!(package.head.logits(&features), [2048.0 * 0.25 * 64.0 + 1.0; 4]);
}

#[test]
fn every_altered_or_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in [ONNX, HEAD, GATE, "NOTICE"] {
        write_package(folder.path());
        let path = folder.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = Package::open(folder.path()).unwrap_err();
        assert!(matches!(error, ModelError::Altered { .. }) && error.to_string().contains(name), "{error}");
        std::fs::remove_file(&path).unwrap();
        let error = Package::open(folder.path()).unwrap_err();
        assert!(matches!(error, ModelError::Io { .. }) && error.to_string().contains(name), "{error}");
    }
    let error = Package::open(&folder.path().join("nowhere")).unwrap_err();
    assert!(matches!(error, ModelError::Missing(_)) && error.to_string().contains("--model"), "{error}");
}

// A sparse file: it takes no space on disk, and must not be read.
#[test]
fn a_huge_file_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    write_package(folder.path());
    let file = std::fs::OpenOptions::new().write(true).open(folder.path().join(ONNX)).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = Package::open(folder.path()).unwrap_err();
    assert!(matches!(error, ModelError::Large { bytes: 1_099_511_627_776, .. }), "{error}");
}

#[test]
fn manifests_are_refused_with_place_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    let good = write_package(folder.path()).to_toml().unwrap();
    let (path, digits) = (folder.path().join(MANIFEST), "0".repeat(64));
    for (from, to, word) in [
        ("format = 1", "format = 2", "format 2"),
        ("version = ", "colour = 1\nversion = ", "manifest.toml:3:1: unknown field `colour`"),
        ("temperature = 1.5", "temperature = 0.0", "temperature"),
        ("temperature = 1.5", "temperature = nan", "temperature"),
        ("\"CNV\", \"DME\"", "\"DME\", \"CNV\"", "labels"),
        ("side = 299", "side = 224", "preparation"),
        ("[files]", &format!("[files]\n\"../x\" = \"{digits}\"") as &str, "../x"),
        ("[files]", "[files]\nx = \"12\"", "SHA-256"),
    ] {
        assert!(good.contains(from), "{from} not in\n{good}");
        std::fs::write(&path, good.replacen(from, to, 1)).unwrap();
        let error = Package::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("manifest.toml"), "{error}");
    }
    let without: String =
        good.lines().filter(|line| !line.contains(GATE)).map(|l| format!("{l}\n")).collect();
    std::fs::write(&path, without).unwrap();
    let error = Package::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("does not name gate.safetensors"), "{error}");
}

#[test]
fn weights_of_a_wrong_shape_are_refused() {
    let bytes = safetensors(&[("mean", &[3], vec![1.0; 3]), ("scale", &[3], vec![1.0; 3])]);
    let error = Gate::decode(&bytes, Path::new("g.safetensors")).unwrap_err().to_string();
    assert!(error.contains("g.safetensors: mean is F32 [3]"), "{error}");
    let error = Head::decode(b"nothing", HeadKind::Conv, Path::new("h.safetensors")).unwrap_err();
    assert!(matches!(error, ModelError::Weights { .. }));
}
