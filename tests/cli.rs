//! The real binary with the real model on good and bad input: what it says and the exit codes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The binary in the package's folder, where the bundled model is found.
fn fovea(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fovea")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs, checks the exit code, and gives stdout and stderr.
fn expect(code: i32, args: &[&str]) -> (String, String) {
    let output = fovea(args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    (out, err)
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A drawn B-scan: one bright band with two layers over dark ground, with speckle.
fn band(x: u32, y: u32) -> u8 {
    let depth = y as f32 - 200.0 - 25.0 * (x as f32 / 90.0).sin();
    let light =
        if (0.0..70.0).contains(&depth) { 90 + 60 * u8::from((40.0..55.0).contains(&depth)) } else { 8 };
    light + ((x.wrapping_mul(73856093) ^ y.wrapping_mul(19349663)).wrapping_mul(2654435761) >> 27) as u8
}

fn write_band(path: &Path) {
    image::GrayImage::from_fn(512, 496, |x, y| image::Luma([band(x, y)])).save(path).unwrap();
}

/// The model that the binary finds, as `fovea model info` says.
fn model() -> PathBuf {
    let (out, _) = expect(0, &["model", "info"]);
    out.lines().next().unwrap().split_once(" in ").unwrap().1.into()
}

#[test]
fn bad_pictures_are_named_and_never_stop_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let at = |file: &str| folder.path().join(file);
    std::fs::write(at("a-empty.jpeg"), b"").unwrap();
    std::fs::write(at("b-broken.jpeg"), b"\xff\xd8\xff\xe0 no picture").unwrap();
    image::GrayImage::new(1, 1).save(at("c-tiny.png")).unwrap();
    // 20000x20000 in a few kilobytes.
    let huge = std::fs::File::create(at("d-huge.png")).unwrap();
    let encoder = image::codecs::png::PngEncoder::new(std::io::BufWriter::new(huge));
    image::ImageEncoder::write_image(
        encoder,
        &vec![0; 400_000_000],
        20_000,
        20_000,
        image::ExtendedColorType::L8,
    )
    .unwrap();
    image::ImageBuffer::from_fn(512, 496, |x, y| image::Luma([u16::from(band(x, y)) << 8 | 77]))
        .save(at("e-sixteen.png"))
        .unwrap();
    image::RgbImage::from_fn(512, 496, |x, y| image::Rgb([(x / 2) as u8, (y / 2) as u8, 200]))
        .save(at("f-colour.png"))
        .unwrap();
    image::RgbImage::from_fn(512, 496, |x, y| image::Rgb([band(x, y); 3]))
        .save(at("g-grey-in-rgb.bmp"))
        .unwrap();
    let mut cut = std::io::Cursor::new(Vec::new());
    image::GrayImage::from_fn(512, 496, |x, y| image::Luma([band(x, y)]))
        .write_to(&mut cut, image::ImageFormat::Png)
        .unwrap();
    std::fs::write(at("h-cut.png"), &cut.get_ref()[..cut.get_ref().len() / 2]).unwrap();
    std::fs::write(at("notes.txt"), b"no picture, left out").unwrap();
    write_band(&at("z-good.png"));

    let (out, _) = expect(1, &["classify", "--json", name(folder.path()), name(&at("nowhere.png"))]);
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |file: &str| {
        lines
            .iter()
            .find(|l| l["path"].as_str().unwrap().ends_with(file))
            .unwrap_or_else(|| panic!("{file}: {out}"))
    };
    for (file, words) in [
        ("a-empty.jpeg", "empty"),
        ("b-broken.jpeg", "export it again"),
        ("c-tiny.png", "1x1"),
        ("d-huge.png", "20000x20000"),
        ("h-cut.png", "export it again"),
        ("nowhere.png", "check that the file exists"),
    ] {
        let error = of(file)["error"].as_str().unwrap();
        assert!(error.contains(file) && error.contains(words), "{error}");
    }
    assert_eq!(
        (of("f-colour.png")["finding"].as_str(), of("f-colour.png")["referral"].as_str()),
        (Some("NOT_OCT"), Some("repeat"))
    );
    assert!(of("f-colour.png")["reason"].as_str().unwrap().contains("coloured"));
    for key in [
        "finding",
        "class",
        "confidence",
        "probabilities",
        "referral",
        "quality",
        "reason",
        "engine",
        "millis",
    ] {
        assert!(!of("z-good.png")[key].is_null(), "{key}");
    }
    let good = of("z-good.png");
    let sum: f64 = good["probabilities"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    assert_eq!(good["probabilities"][good["class"].as_str().unwrap()], good["confidence"]);
    for same in ["e-sixteen.png", "g-grey-in-rgb.bmp"] {
        assert_eq!(of(same)["probabilities"], good["probabilities"], "{same} holds the same grey levels");
    }
    assert!(!out.contains("notes.txt"));
    assert_eq!(lines.len(), 10);
    // In the order of the files, and the same in words.
    assert!(lines[0]["path"].as_str().unwrap().ends_with("a-empty.jpeg"));
    let (out, err) = expect(1, &["classify", name(&at("a-empty.jpeg")), name(&at("z-good.png"))]);
    assert!(err.contains("a-empty.jpeg: the file is empty") && out.contains("z-good.png: "), "{out}\n{err}");
}

#[test]
fn a_folder_without_pictures_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (_, err) = expect(1, &["classify", name(folder.path())]);
    assert!(err.contains("no picture") && err.contains(name(folder.path())), "{err}");
    let source = format!("replay:{}", name(folder.path()));
    let (_, err) = expect(2, &["run", "--source", &source]);
    assert!(err.contains("no picture"), "{err}");
}

#[test]
fn models_missing_or_altered_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("a.png");
    write_band(&picture);
    let missing = folder.path().join("nowhere");
    let (_, err) = expect(2, &["classify", "--model", name(&missing), name(&picture)]);
    assert!(err.contains("nowhere: no model package") && err.contains("--model"), "{err}");
    let copy = folder.path().join("model");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(model()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let (out, _) = expect(0, &["model", "verify", "--model", name(&copy)]);
    assert!(
        out.contains("model.onnx: SHA-256 as in the manifest") && out.contains("golden picture within"),
        "{out}"
    );
    let onnx = copy.join("model.onnx");
    let mut bytes = std::fs::read(&onnx).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&onnx, bytes).unwrap();
    for command in [
        &["classify", name(&picture)][..],
        &["model", "verify"],
        &["bench"],
        &["run", "--source", "folder:."],
    ] {
        let (_, err) = expect(2, &[command, &["--model", name(&copy)]].concat());
        assert!(
            err.contains("model.onnx: altered or damaged") && err.contains("copy the model package again"),
            "{err}"
        );
    }
    let (out, _) = expect(2, &["doctor", "--model", name(&copy)]);
    assert!(out.contains("BROKEN   model") && out.contains("model.onnx"), "{out}");
    std::fs::remove_file(&onnx).unwrap();
    let (_, err) = expect(2, &["classify", "--model", name(&copy), name(&picture)]);
    assert!(err.contains("model.onnx: cannot be read"), "{err}");
}

#[test]
fn wrong_usage_and_configuration_exit_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("fovea.toml");
    std::fs::write(&config, "hold = 1\nsauce = 'x'\n").unwrap();
    for command in ["run", "bench", "doctor"] {
        let output = fovea(&[command, "--config", name(&config)]);
        let said = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(
            said.contains("fovea.toml:2:1: unknown field `sauce`") && said.contains("mend this line"),
            "{said}"
        );
    }
    expect(2, &["classify"]);
    let (_, err) = expect(2, &["classify", "--engine", "steam", name(&config)]);
    assert!(err.contains("no engine 'steam'") && err.contains("doctor"), "{err}");
    let (_, err) = expect(2, &["classify", "--region", "1,2,3", name(&config)]);
    assert!(err.contains("X,Y,WIDTH,HEIGHT"), "{err}");
    let (_, err) = expect(2, &["explain", name(&config), "--out", "map.gif"]);
    assert!(err.contains(".png"), "{err}");
}

#[test]
fn explanations_keep_the_pictures_size_and_sum_to_the_logit() {
    let folder = tempfile::tempdir().unwrap();
    let (picture, out, raw) =
        (folder.path().join("a.png"), folder.path().join("o.png"), folder.path().join("m.json"));
    write_band(&picture);
    for method in ["contribution", "gradcam", "occlusion"] {
        for class in ["CNV", "NORMAL"] {
            // Wide strides: the test asks whether it works, not where.
            expect(
                0,
                &["explain", name(&picture), "--out", name(&out), "--method", method, "--class", class]
                    .into_iter()
                    .chain(["--raw", name(&raw), "--patch", "150", "--stride", "149"])
                    .collect::<Vec<_>>(),
            );
            let overlay = image::open(&out).unwrap();
            assert_eq!((overlay.width(), overlay.height()), (512, 496));
            let map: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(&raw).unwrap()).unwrap();
            assert_eq!((map["class"].as_str(), map["method"].as_str()), (Some(class), Some(method)));
            let rows = map["map"].as_array().unwrap();
            let values: Vec<f64> =
                rows.iter().flat_map(|r| r.as_array().unwrap()).map(|v| v.as_f64().unwrap()).collect();
            let side = if method == "occlusion" { 2 } else { 8 };
            assert_eq!((rows.len(), values.len()), (side, side * side));
            if method == "contribution" {
                // The engine's features are int8, its head f32: the sum identity holds for both.
                let sum = values.iter().sum::<f64>() + map["constant"].as_f64().unwrap();
                let logit = map["logit"].as_f64().unwrap();
                assert!((sum - logit).abs() < 1e-3 * logit.abs().max(1.0), "{sum} {logit}");
            }
        }
    }
    let broken = folder.path().join("broken.png");
    std::fs::write(&broken, b"x").unwrap();
    let (_, err) = expect(1, &["explain", name(&broken), "--out", name(&out)]);
    assert!(err.contains("broken.png"), "{err}");
}

#[test]
fn the_appliance_runs_on_a_replay() {
    let folder = tempfile::tempdir().unwrap();
    let (scans, screens) = (folder.path().join("scans"), folder.path().join("screens"));
    std::fs::create_dir(&scans).unwrap();
    write_band(&scans.join("a.png"));
    let (source, display) = (format!("replay:{}", name(&scans)), format!("png:{}", name(&screens)));
    let (out, _) = expect(0, &["run", "--source", &source, "--display", &display]);
    assert!(out.contains("a.png: ") && out.contains("signal lost: the replay has ended"), "{out}");
    assert!(screens.join("screen.png").is_file());
}

#[test]
fn bench_and_doctor_tell() {
    let (out, _) = expect(0, &["bench", "--json", "--runs", "2", "--warmup", "1", "--no-start"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let engine = &report["engines"][0];
    assert!(engine["median"].as_f64().unwrap() > 0.0 && engine["p95"].as_f64() >= engine["median"].as_f64());
    assert!(engine["stages"]["draw"]["median"].as_f64().unwrap() > 0.0 && engine["fresh"].is_null());
    let folder = tempfile::tempdir().unwrap();
    let display = format!("png:{}", name(folder.path()));
    let proof = ["doctor", "--self-test", "--source", "replay:examples/bscans", "--display", &display];
    let (out, _) = expect(0, &proof);
    assert!(out.contains("gives the golden logits") && out.contains("a picture of"), "{out}");
    assert!(folder.path().join("screen.png").is_file());
    let (out, _) =
        expect(2, &["doctor", "--self-test", "--source", "v4l2:///dev/no-such", "--display", "none"]);
    assert!(out.contains("BROKEN   source") && out.contains("no device") && out.contains("FAILED"), "{out}");
    let (out, _) = expect(0, &["doctor"]);
    assert!(
        out.contains("processor") && out.contains("works    engine") && out.contains("Pictures can be read"),
        "{out}"
    );
}

#[test]
fn boards_are_listed_shown_and_checked() {
    let (out, _) = expect(0, &["board", "list"]);
    assert!(["generic", "orin-nano", "nano", "qemu-arm64"].iter().all(|name| out.contains(name)), "{out}");
    let (out, _) = expect(0, &["board", "show", "xavier-nx"]);
    assert!(
        out.contains("capture = \"PQ.05\"") && out.contains("# jetson") && out.contains("# generic"),
        "{out}"
    );
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("mine.toml");
    std::fs::write(&mine, "inherits = 'nano'\n[lights]\nreddy = 'x'").unwrap();
    let (_, err) = expect(2, &["run", "--board", name(&mine), "--display", "none"]);
    assert!(err.contains("mine.toml:3:1") && err.contains("reddy"), "{err}");
    // None of these lines is on the machine of the test.
    std::fs::write(&mine, "[buttons]\ncapture = 'no-such-chip:7'\n[lights]\nready = 'led:no-such-light'")
        .unwrap();
    let (out, _) = expect(2, &["doctor", "--board", name(&mine)]);
    assert!(
        out.contains("BROKEN   button") && out.contains("no-such-chip:7") && out.contains("no-such-light"),
        "{out}"
    );
}

#[test]
fn bench_measures_layers_and_fresh_processes_and_compares() {
    let simd = ["bench", "--engine", "simd", "--threads", "1", "--runs", "2", "--warmup", "1"];
    let (out, _) = expect(0, &[&simd[..], &["--json", "examples/bscans/phantom-dme-1.jpeg"]].concat());
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let layers = &report["engines"][0]["layers"];
    let of = |key: &str| {
        layers["layers"].as_array().unwrap().iter().map(|l| l[key].as_f64().unwrap()).sum::<f64>()
    };
    // InceptionV3 on one grey channel.
    assert!((5600.0..5750.0).contains(&of("mmac")) && of("median") > 0.0, "{layers}");
    assert_eq!(layers["threads"], 1);
    let fresh = &report["engines"][0]["fresh"];
    assert!(
        fresh["peak_kb"].as_u64().unwrap() > 10_000 && fresh["cold_start"]["minimum"].as_f64().unwrap() > 0.0
    );
    let (out, _) = expect(0, &[&simd[..], &["--no-start", "--layers"]].concat());
    assert!(
        out.contains("waits for") && out.contains("Conv2d_4a_3x3") && out.contains("prepare + explain"),
        "{out}"
    );
    let (out, _) = expect(0, &["bench", "--compare", "simd@1,simd@1", "--runs", "3"]);
    assert!(out.contains("logits differ by 0.00000") && out.contains("rounds in turn"), "{out}");
    for (wrong, word) in
        [("simd", "two engines"), ("simd:abacus,simd", "abacus"), ("tract@2,simd", "simd only")]
    {
        let (_, err) = expect(2, &["bench", "--compare", wrong]);
        assert!(err.contains(word), "{err}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_130() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..200 {
        write_band(&folder.path().join(format!("{i}.bmp")));
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_fovea"))
        .args(["classify", name(folder.path())])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The first line says that it is at work.
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert!(line.contains(".bmp: "), "{line}");
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    std::io::Read::read_to_string(&mut out, &mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(line.lines().count() < 200);
}
