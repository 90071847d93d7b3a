use super::*;
use crate::checkpoint::Weight;
use crate::network::convs;
use crate::section::tests::random_weights;
use proptest::prelude::*;
use std::io::Write;
use zip::write::FileOptions;

fn conv(name: &str, input: usize, output: usize, kernel: [usize; 2]) -> Conv {
    Conv { name: name.into(), input, output, kernel, stride: 1, padding: [0, 0] }
}

/// The two convolutions of the files in `tests/data`.
fn two() -> [Conv; 2] {
    [conv("first", 3, 4, [3, 3]), conv("second", 4, 2, [1, 3])]
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn keras_of(path: &Path) -> Result<Weights, WeightsError> {
    keras::read(path, &two().iter().collect::<Vec<_>>())
}

/// What `torch.save` writes: a zip with a pickle of protocol 2 and each tensor's bytes. All tensors share one storage.
fn torch_file(tensors: &[(&str, &[usize], &[f32])], path: &Path) {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    }
    fn numbers(out: &mut Vec<u8>, numbers: &[usize]) {
        out.push(b'(');
        for &n in numbers {
            out.push(b'J');
            out.extend((n as u32).to_le_bytes());
        }
        out.push(b't');
    }
    let (mut pickle, mut storage) = (b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec(), Vec::new());
    let total: usize = tensors.iter().map(|t| t.2.len()).sum();
    for (name, shape, values) in tensors {
        text(&mut pickle, name);
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend(b"ctorch\nFloatStorage\n");
        text(&mut pickle, "0");
        text(&mut pickle, "cpu");
        pickle.push(b'J');
        pickle.extend((total as u32).to_le_bytes());
        pickle.extend(b"tQJ");
        pickle.extend((storage.len() as u32 / 4).to_le_bytes());
        numbers(&mut pickle, shape);
        let strides: Vec<usize> =
            (0..shape.len()).map(|i| shape[i + 1..].iter().product::<usize>()).collect();
        numbers(&mut pickle, &strides);
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        storage.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }
    pickle.extend(b"u.");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let stored = || FileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [
        ("archive/data.pkl", &pickle[..]),
        ("archive/byteorder", b"little"),
        ("archive/data/0", &storage),
        ("archive/version", b"3\n"),
    ] {
        zip.start_file(name, stored()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

// Written by h5py as Keras 2 (a saved model) and Keras 3 do: layer 10 comes behind layer 2, optimizers are no layers.
#[test]
fn keras_files_are_read_in_the_order_of_their_numbers() {
    for name in ["keras2.h5", "keras3.weights.h5"] {
        let weights = keras_of(&data(name)).unwrap();
        assert_eq!(weights.tensors.len(), 8, "{name}");
        for (n, (conv, [kh, kw])) in two().iter().zip([[3, 3], [1, 3]]).enumerate() {
            let kernel = &weights.tensors[&format!("{}.conv.weight", conv.name)];
            assert_eq!(kernel.shape, [conv.output, conv.input, kh, kw]);
            for (at, &value) in kernel.values.iter().enumerate() {
                let (o, i, place) =
                    (at / (conv.input * kh * kw), at / (kh * kw) % conv.input, at % (kh * kw));
                let flat = (place * conv.input + i) * conv.output + o;
                assert_eq!(value, (n * 1000 + flat) as f32, "{name} {at}");
            }
            let norm = |part: &str| weights.tensors[&format!("{}.bn.{part}", conv.name)].values.clone();
            let of = |f: fn(f32) -> f32| (0..conv.output).map(|c| f(c as f32)).collect::<Vec<_>>();
            assert_eq!(norm("bias"), of(|c| 0.5 + c));
            assert_eq!(norm("running_mean"), of(|c| -c));
            assert_eq!(norm("running_var"), of(|c| 1.0 + c));
        }
    }
}

#[test]
fn keras_files_that_do_not_fit_name_the_tensor() {
    let convs = [conv("first", 3, 4, [3, 3]), conv("second", 4, 3, [1, 3])];
    let said = |convs: &[Conv]| {
        keras::read(&data("keras2.h5"), &convs.iter().collect::<Vec<_>>()).unwrap_err().to_string()
    };
    let text = said(&convs);
    assert!(text.contains("model_weights/conv2d_10/conv2d_10/kernel:0 is [1, 3, 4, 2]"), "{text}");
    assert!(text.contains("second"), "{text}");
    let mut three = two().to_vec();
    three.push(conv("third", 2, 2, [1, 1]));
    let text = said(&three);
    assert!(text.contains("kernel of conv2d number 3 is not there (it would be third)"), "{text}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.h5");
    let bytes = std::fs::read(data("keras2.h5")).unwrap();
    for length in [9, 100, 1000] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let text = keras_of(&path).unwrap_err().to_string();
        assert!(text.contains("cut.h5"), "{text}");
    }
    // A third of it: the first tensor that cannot be reached is named, and why.
    std::fs::write(&path, &bytes[..bytes.len() / 3]).unwrap();
    let text = keras_of(&path).unwrap_err().to_string();
    assert!(text.contains("tensor kernel of conv2d number 1 is not there (it would be first"), "{text}");
    assert!(text.contains("damaged at /: "), "{text}");
}

#[test]
fn torch_files_are_read_under_any_prefix_and_run_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pth");
    let kernel: Vec<f32> = (0..12).map(|i| i as f32 * 0.5).collect();
    let one = [conv("a", 3, 4, [1, 1])];
    let all: Vec<&Conv> = one.iter().collect();
    torch_file(
        &[
            ("module.a.conv.weight", &[4, 3, 1, 1], &kernel),
            ("module.a.bn.bias", &[4], &[1.0, 2.0, 3.0, 4.0]),
            ("module.fc.bias", &[1], &[9.0]),
        ],
        &path,
    );
    let weights = torch::read(&path, &all).unwrap();
    assert_eq!(weights.tensors["a.conv.weight"], Weight { shape: vec![4, 3, 1, 1], values: kernel.clone() });
    assert_eq!(weights.tensors["a.bn.bias"].values, [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(weights.tensors.len(), 2);

    // A view that claims more than fits is not read.
    torch_file(&[("a.conv.weight", &[4, 4, 1, 1], &[0.0; 16])], &path);
    let said = torch::read(&path, &all).unwrap_err().to_string();
    assert!(said.contains("tensor a.conv.weight is [4, 4, 1, 1]"), "{said}");
    // Nor is a file that was cut off taken for whole.
    torch_file(&[("a.conv.weight", &[4, 3, 1, 1], &kernel)], &path);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 30]).unwrap();
    assert!(torch::read(&path, &all).unwrap_err().to_string().contains("w.pth: no weights"));

    // A pickle that would run a command makes nothing.
    let mark = folder.path().join("ran");
    let command = format!("touch {}", mark.display());
    let mut pickle = b"\x80\x02cposix\nsystem\nX".to_vec();
    pickle.extend((command.len() as u32).to_le_bytes());
    pickle.extend(command.as_bytes());
    pickle.extend(b"\x85R.");
    std::fs::write(&path, [torch::LEGACY, &pickle[..]].concat()).unwrap();
    assert!(read(&path, &inception_v3(3)).is_err());
    assert_eq!(pickle::Reader::new(&pickle).read(), Ok(pickle::Value::Opaque));
    assert!(!mark.exists());
}

// As PyTorch before 1.6 wrote it: five pickles, then the storages. Views may be strided, numbers may be halves.
#[test]
fn files_of_old_pytorch_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.pth");
    let mut bytes = torch::LEGACY.to_vec();
    bytes.extend(b"\x80\x02M\xe9\x03.");
    bytes.extend(b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.");
    // {"a.conv.weight": the transpose of a 2x2 of halves}, as protocol 4 writes names.
    bytes.extend(b"\x80\x04}(\x8c\x0da.conv.weight\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93(");
    bytes.extend(b"(\x8c\x07storage\x8c\x05torch\x8c\x0bHalfStorage\x93\x8c\x017\x8c\x03cpuK\x05NtQ");
    bytes.extend(b"K\x01(K\x02K\x02K\x01K\x01t(K\x01K\x02K\x01K\x01t\x89}tRu.");
    bytes.extend(b"\x80\x02]X\x01\x00\x00\x007a.");
    bytes.extend(5u64.to_le_bytes());
    bytes.extend([9.0f32, 1.0, 2.0, 3.0, 4.0].iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()));
    std::fs::write(&path, &bytes).unwrap();
    let one = [conv("a", 2, 2, [1, 1])];
    let all: Vec<&Conv> = one.iter().collect();
    let weights = torch::read(&path, &all).unwrap();
    assert_eq!(weights.tensors["a.conv.weight"].values, [1.0, 3.0, 2.0, 4.0]);
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let said = torch::read(&path, &all).unwrap_err().to_string();
    assert!(said.contains("tensor a.conv.weight lies behind the end"), "{said}");
}

// Files that PyTorch 2.15 wrote of a module with two convolutions: numbers count up by 1/64 in the order of the state dict.
// The first kernel has its channels last, the second is in half precision; the older form lies under `state_dict.module.`.
#[test]
fn files_that_torch_wrote_are_read() {
    for name in ["torch.pth", "torch_legacy.pth"] {
        let weights = torch::read(&data(name), &two().iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(weights.tensors.len(), 10, "{name}");
        let mut next = 0;
        for conv in two() {
            let [kh, kw] = conv.kernel;
            let kernel = ("conv.weight", vec![conv.output, conv.input, kh, kw]);
            let norm = ["weight", "bias", "running_mean", "running_var"].map(|part| format!("bn.{part}"));
            let parts = [kernel].into_iter().chain(norm.iter().map(|part| (&**part, vec![conv.output])));
            for (part, shape) in parts {
                let count = shape.iter().product::<usize>();
                let values = (next..next + count).map(|n| n as f32 / 64.0).collect();
                next += count;
                let tensor = format!("{}.{part}", conv.name);
                assert_eq!(weights.tensors[&tensor], Weight { shape, values }, "{name}: {tensor}");
            }
        }
    }
}

#[test]
fn pickles_that_nest_or_double_without_end_are_refused() {
    let read = |bytes: &[u8]| pickle::Reader::new(bytes).read();
    let nested = [&b"\x80\x02)"[..], &[0x85; 100_000], b"."].concat();
    assert!(read(&nested).unwrap_err().contains("too deep"));
    // Each line holds the one before twice: 2^28 values in 113 bytes, of which each is made once.
    let doubled = [&b"\x80\x02)"[..], &b"q\x00h\x00\x86".repeat(28), b"."].concat();
    assert!(matches!(read(&doubled), Ok(pickle::Value::Tuple(..))));
    assert!(read(b"\x80\x02(K\x01.").is_ok());
    for wrong in [&b"\x80\x02."[..], b"\x80\x02h\x00.", b"\x80\x02(R.", b"\x80\x02K\x01K\x02s.", b"i."] {
        assert!(read(wrong).is_err(), "{wrong:?}");
    }
}

/// All of InceptionV3, of one value a tensor.
fn whole(gamma: Option<f32>) -> Weights {
    let mut weights = Weights::default();
    for block in inception_v3(3) {
        for conv in convs(&block.nodes) {
            let (o, [kh, kw], name) = (conv.output, conv.kernel, &conv.name);
            let values = (0..o * conv.input * kh * kw).map(|i| (i % 27) as f32 * 0.01 - 0.1).collect();
            weights.set(format!("{name}.conv.weight"), &[o, conv.input, kh, kw], values);
            for (part, value) in [
                ("bias", Some(0.1)),
                ("running_mean", Some(0.2)),
                ("running_var", Some(1.0)),
                ("weight", gamma),
            ] {
                if let Some(value) = value {
                    weights.set(format!("{name}.bn.{part}"), &[o], vec![value; o]);
                }
            }
        }
    }
    weights
}

#[test]
fn what_is_assumed_follows_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let assumed = |weights: &Weights| {
        weights.write(&path).unwrap();
        raw(&path).unwrap().1
    };
    let tensorflow = Assumed { input: Input::Signed, average: Average::Excluding };
    let mut ours = whole(Some(1.0));
    assert_eq!(assumed(&ours), Assumed { input: Input::Unit, average: Average::Excluding });
    ours.set("fc.weight", &[1], vec![0.0]);
    assert_eq!(assumed(&ours), tensorflow);
    let mut torch = whole(Some(1.5));
    torch.set("fc.weight", &[1], vec![0.0]);
    assert_eq!(assumed(&torch), Assumed { input: Input::Imagenet, average: Average::Including });

    // Settled and written, nothing is left to be folded, and the averages are still known.
    let settled = read(&path, &inception_v3(3)).unwrap();
    assert!(!settled.tensors.contains_key("fc.weight"));
    assert_eq!(assumed(&settled), Assumed { input: Input::Unit, average: Average::Including });
    assert_eq!(read(&path, &inception_v3(3)).unwrap(), settled);
    let blocks = inception_v3(3);
    assert!(!averages_differ(&settled, &blocks[..1]) && averages_differ(&settled, &blocks[..2]));
    assert!(!averages_differ(&ours, &blocks));

    let mut wrong = whole(None);
    wrong.set("Mixed_6b.branch7x7_2.bn.running_mean", &[3], vec![0.0; 3]);
    wrong.tensors.remove("Mixed_7c.branch1x1.conv.weight");
    wrong.write(&path).unwrap();
    let said = read(&path, &inception_v3(3)).unwrap_err().to_string();
    assert!(said.contains("Mixed_6b.branch7x7_2.bn.running_mean is [3] where [128] is needed"), "{said}");
}

// The first convolution and its norm give the same for a pixel that is folded and for one that is normalised before.
#[test]
fn folding_the_input_changes_no_answer() {
    let before = whole(Some(1.0));
    let pixels: Vec<f64> = (0..9).map(|i| f64::from(i * i % 7) / 7.0).collect();
    let answer = |weights: &Weights, normalise: &dyn Fn(f64, usize) -> f64| -> Vec<f64> {
        let kernel = &weights.tensors["Conv2d_1a_3x3.conv.weight"].values;
        let mean = &weights.tensors["Conv2d_1a_3x3.bn.running_mean"].values;
        let sum = |filter: &[f32]| {
            (0..27).map(|i| f64::from(filter[i]) * normalise(pixels[i % 9], i / 9)).sum::<f64>()
        };
        kernel.chunks_exact(27).zip(mean).map(|(filter, &m)| sum(filter) - f64::from(m)).collect()
    };
    type Normalise = fn(f64, usize) -> f64;
    let inputs: [(Input, Normalise); 2] = [
        (Input::Signed, |p, _| 2.0 * p - 1.0),
        (Input::Imagenet, |p, c| (p - [0.485, 0.456, 0.406][c]) / [0.229, 0.224, 0.225][c]),
    ];
    for (input, normalise) in inputs {
        let mut after = before.clone();
        settle(&mut after, Assumed { input, average: Average::Excluding });
        for (a, b) in answer(&before, &normalise).iter().zip(answer(&after, &|p, _| p)) {
            assert!((a - b).abs() < 1e-5, "{input:?}: {a} {b}");
        }
    }
}

#[test]
fn a_diverged_or_impossible_backbone_is_refused() {
    let blocks = inception_v3(3).split_off(11);
    let all: Vec<&Conv> = blocks.iter().flat_map(|block| convs(&block.nodes)).collect();
    let weights = random_weights(&blocks);
    assert!(fits(&weights, &all, Path::new("w")).is_ok());
    for (name, value, said) in [
        ("Mixed_7c.branch_pool.conv.weight", f32::NAN, "undefined numbers"),
        ("Mixed_7c.branch1x1.bn.running_var", -1.0, "negative numbers"),
    ] {
        let mut weights = weights.clone();
        weights.tensors.get_mut(name).unwrap().values[7] = value;
        let error = fits(&weights, &all, Path::new("w")).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(said), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    // Bytes from anywhere are an error or weights, never a crash.
    #[test]
    fn changed_files_are_errors_or_weights(
        kind in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        let mut bytes = match kind {
            0 => std::fs::read(data("keras2.h5")).unwrap(),
            1 => std::fs::read(data("keras3.weights.h5")).unwrap(),
            _ => {
                torch_file(&[("first.conv.weight", &[4, 3, 3, 3], &[0.5; 108])], &path);
                std::fs::read(&path).unwrap()
            }
        };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(keep.index(bytes.len()));
        }
        std::fs::write(&path, &bytes).unwrap();
        let two = two();
        let all: Vec<&Conv> = two.iter().collect();
        let _ = if kind < 2 { keras::read(&path, &all) } else { torch::read(&path, &all) };
        let _ = raw(&path);
    }

    #[test]
    fn any_bytes_are_an_error(
        start in prop::sample::select(vec![&b""[..], b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", torch::LEGACY]),
        rest in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        std::fs::write(&path, [start, &rest].concat()).unwrap();
        prop_assert!(raw(&path).is_err());
    }
}
