//! The engine `auto` while the device fails in each way that there is: every picture is answered, rightly and within a second after
//! the device's time is over.

use super::driver::{Driver, Said};
use std::path::Path;

const FAULTS: &str = "FOVEA_DRIVER_FAULTS";

/// The device answers until the fault comes, the processor while it lasts, and the device again.
#[track_caller]
fn goes_on(driver: &Driver, note: &str) -> Said {
    let said = driver.child("auto");
    said.ends_with(0).expect(" right · GPU off: ").expect(note).expect("the device again: true");
    assert!(!said.out.contains("WRONG") && !said.err.contains("panicked"), "{}\n{}", said.out, said.err);
    let slowest = said.out.split("slowest ").nth(1).and_then(|rest| rest.split(' ').next());
    let slowest: u32 = slowest.and_then(|number| number.parse().ok()).unwrap();
    println!("{note}: slowest answer after {slowest} ms");
    // Within a second, behind the 2 s that a device which hangs is waited for (500 ms in the program).
    let waited = if note.contains("did not answer within 2s") { 2000 } else { 0 };
    assert!(slowest < waited + 1000, "{}", said.out);
    // The log says so too: why, who answers, and that it is over.
    said
}

#[test]
fn a_device_that_fails_at_the_start() {
    for (fault, note) in [
        ("allocation:3", "GPU off: the NVIDIA driver failed while taking memory of the device: error 2"),
        ("pinned:1", "GPU off: the NVIDIA driver failed while taking page-locked memory: error 2"),
        ("launch:1", "error 719 (CUDA_ERROR_LAUNCH_FAILED)"),
        ("refuse:11", "GPU off: the NVIDIA driver failed while starting the graph: error 701"),
        ("wrong:1", "GPU off: wrong answer on the golden picture"),
    ] {
        goes_on(&Driver::new(87).with(FAULTS, fault), note).expect(": scalar right · GPU off");
    }
}

/// A picture is eight launches: four of its preparation, two of the network, two of its explanation. The golden one before it is as many;
/// the first of all is the start's.
#[test]
fn a_device_that_fails_while_it_works() {
    for (fault, note) in [
        ("launch:34", "error 719 (CUDA_ERROR_LAUNCH_FAILED)"),
        ("launch:38", "error 719 (CUDA_ERROR_LAUNCH_FAILED)"),
        ("hang:40", "GPU off: the device did not answer within 2s; it is given up"),
        ("refuse:14", "GPU off: the NVIDIA driver failed while starting the graph: error 701"),
        ("wrong:4", "GPU off: wrong answer on the golden picture"),
    ] {
        let said = goes_on(&Driver::new(87).with(FAULTS, fault), note);
        said.expect("opened in").expect(": cuda right · \n");
    }
}

#[test]
fn a_device_that_falls_off_its_bus_and_is_back() {
    let driver = Driver::new(87).with(FAULTS, "lost:25").with("FOVEA_DRIVER_BACK", "900");
    let said = goes_on(&driver, "GPU off: the NVIDIA driver finds no device; on a board");
    said.expect(": cuda right").expect("error 46");
}

/// The program: a device whose memory is full, and one that hangs over its first picture.
#[test]
fn the_program_answers_without_the_device() {
    let scan = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bscans/phantom-dme-1.jpeg");
    let program = Path::new(env!("CARGO_BIN_EXE_fovea"));
    for (fault, why) in
        [("allocation:1+", "taking memory of the device: error 2"), ("hang:1", "it is being opened")]
    {
        let driver = Driver::new(87).with(FAULTS, fault);
        let screens = tempfile::tempdir().unwrap();
        let (source, display) = (
            format!("replay:{}", scan.parent().unwrap().display()),
            format!("png:{}", screens.path().display()),
        );
        let said = driver.run(program, &["run", "--source", &source, "--display", &display], &[]);
        said.ends_with(0).expect("· simd ").expect("ms · GPU off: ");
        said.expect(why);
        // Named once, however often it is opened.
        let named = "device: fovea simulator sm_87 (sm_87, 8 multiprocessors), driver for CUDA 12.6; kernels compute_80";
        assert_eq!(said.err.matches(named).count(), 1, "{}", said.err);
        if fault.starts_with("allocation") {
            said.expect("the device is tried again in 5 s");
        }
    }
}
