//! Drivers and devices that cannot be used, or fail: a sentence each, and never a panic.

use super::driver::Driver;
use std::path::PathBuf;

const FAULTS: &str = "FOVEA_DRIVER_FAULTS";

#[track_caller]
fn refused(driver: &Driver, words: &str) {
    let said = driver.child("open");
    said.ends_with(0).expect(&format!("refused: {words}"));
    assert!(!said.err.contains("panicked"), "{}", said.err);
}

#[test]
fn drivers_that_are_too_old() {
    refused(
        &Driver::new(53).with("FOVEA_DRIVER_CUDA", "9.0"),
        "the NVIDIA driver is for CUDA 9.0; install one for CUDA 10.2 or later",
    );
    refused(
        &Driver::new(53).without("cuEventQuery"),
        "the NVIDIA driver lacks cuEventQuery; install JetPack 4.4",
    );
    // PTX 7.4 is newer than CUDA 11.0, whose driver has no just-in-time compiler for it; NVRTC is not here.
    refused(&Driver::new(87).with("FOVEA_DRIVER_CUDA", "11.0"), "no form of the kernels works here: sm_87: ");
}

#[test]
fn devices_that_are_not_there_or_too_old() {
    refused(&Driver::new(87).with("FOVEA_DRIVER_DEVICES", "0"), "the NVIDIA driver ");
    refused(&Driver::new(50), "fovea simulator sm_50 is sm_50, too old for these kernels; they need sm_53");
}

#[test]
fn memory_that_is_not_there() {
    for at in 1..=7 {
        let driver = Driver::new(87).with(FAULTS, format!("allocation:{at}"));
        refused(
            &driver,
            "the NVIDIA driver failed while taking memory of the device: error 2 (CUDA_ERROR_OUT_OF_MEMORY)",
        );
    }
    let driver = Driver::new(87).with(FAULTS, "pinned:2");
    refused(&driver, "the NVIDIA driver failed while taking page-locked memory: error 2");
    // With the eighth allocation the engine has all it needs.
    Driver::new(87)
        .with(FAULTS, "allocation:8")
        .child("open")
        .ends_with(0)
        .expect("opened fovea simulator sm_87");
}

/// The network of two launches; the fifth kernel belongs to the third picture.
#[test]
fn a_device_that_fails_is_lost_and_comes_back() {
    for (fault, words) in [
        // Whichever call comes next hears of it.
        ("launch:5", "failed: the NVIDIA driver failed while "),
        ("hang:5", "failed: the device did not answer within 2s; it is given up"),
    ] {
        let said = Driver::new(87).with(FAULTS, fault).child("run");
        said.ends_with(0).expect("1: picture 2 right").expect(&format!("1: picture 3 {words}"));
        said.expect("1: then: the device was given up after a failure");
        said.expect(if fault == "launch:5" { "error 719 (CUDA_ERROR_LAUNCH_FAILED)" } else { "within 2s" });
        said.expect("2: picture 1 right").expect("3: picture 3 right");
    }
}

#[test]
fn a_start_that_is_refused() {
    // Two launches are recorded, then each picture starts the graph.
    let said = Driver::new(87).with(FAULTS, "refuse:4").child("run");
    said.ends_with(0).expect("1: picture 1 right");
    said.expect("1: picture 2 failed: the NVIDIA driver failed while starting the graph: error 701");
    said.expect("2: picture 3 right");
}

#[test]
fn a_device_that_falls_off_its_bus() {
    let said = Driver::new(87).with(FAULTS, "lost:3").child("run");
    said.ends_with(0).expect("1: picture 2 failed: the NVIDIA driver failed while ").expect("error 46");
    said.expect("2: refused: the NVIDIA driver finds no device")
        .expect("3: refused: the NVIDIA driver finds no device");
}

#[test]
fn an_answer_with_turned_bits_is_seen() {
    let said = Driver::new(87).with(FAULTS, "wrong:2").child("run");
    said.ends_with(0).expect("1: picture 1 right").expect("1: picture 2 wrong").expect("1: picture 3 right");
}

/// What the tests of streams and events are worth: without a wait, and without order, answers are wrong.
#[test]
fn a_wait_or_an_order_that_is_missing_is_seen() {
    let early = Driver::new(87).with("FOVEA_DRIVER_STREAMS", "late:1").with(FAULTS, "early:1");
    early.child("run").ends_with(0).expect("1: picture 1 wrong");
    let mut seen = 0;
    for seed in 1..=4 {
        let driver = Driver::new(87).with("FOVEA_DRIVER_STREAMS", format!("unordered:{seed}"));
        let said = driver.child("run");
        let pictures: Vec<&str> = said.out.lines().filter(|line| line.contains(": picture ")).collect();
        seen += usize::from(pictures.iter().any(|line| !line.ends_with("right")));
    }
    assert_eq!(seen, 4, "an order of nothing gave right answers");
}

/// NVRTC of the developers' tools, where they are.
fn nvrtc() -> Option<PathBuf> {
    let tools = PathBuf::from(std::env::var_os("FOVEA_CUDA_TOOLS")?).join("12/lib");
    let mut folders = vec![tools];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ if entry.file_name() == "libnvrtc.so.12" => return Some(folder),
                _ => {}
            }
        }
    }
    None
}

/// A driver that takes none of the built kernels: they are compiled on the machine once, and then come from the cache.
#[test]
fn kernels_that_are_compiled_on_the_machine() {
    let Some(folder) = nvrtc() else {
        println!("skipped: FOVEA_CUDA_TOOLS names no folder with NVRTC (`cargo xtask kernels` fetches it)");
        return;
    };
    // The cubin, then the PTX; and the same when the process opens the device anew.
    let refused = Driver::new(87).with("FOVEA_DRIVER_CUDA", "12.9").with(FAULTS, "module:1,module:2");
    let words =
        "opened fovea simulator sm_87 (sm_87, 8 multiprocessors), driver for CUDA 12.9 · NVRTC for sm_87";
    refused.child("open").ends_with(0).expect("NVRTC (libnvrtc.so) is not on this machine");
    refused.child_with("run", &folder).ends_with(0).expect("1: picture 3 right");
    let kept = refused.kept();
    assert_eq!(kept.len(), 1, "{kept:?}");
    // Without the compiler.
    refused.child("open").ends_with(0).expect(words);
    refused.child("run").ends_with(0).expect("1: picture 3 right");
}
