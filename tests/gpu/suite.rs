//! Every board's kernels, exact to the bit with the scalar engine.

use super::driver::Driver;

#[track_caller]
fn exact(driver: &Driver, device: &str) {
    let said = driver.child("suite");
    // Two numbers of blocks, three inputs, each twice.
    let answers = fovea::engine::suite::all().len() * 12;
    said.ends_with(0).expect(device).expect(&format!("{answers} answers are the scalar engine's"));
}

#[test]
fn nano() {
    // JetPack 4: CUDA 10.2, with the older function for graphs alone.
    let driver = Driver::new(53).with("FOVEA_DRIVER_CUDA", "10.2").without("cuGraphInstantiateWithFlags");
    exact(
        &driver,
        "fovea simulator sm_53 (sm_53, 1 multiprocessors), driver for CUDA 10.2 · compute_53 · graph true",
    );
}

#[test]
fn tx2() {
    let driver = Driver::new(62).with("FOVEA_DRIVER_CUDA", "10.2").with("FOVEA_DRIVER_SCHEDULE", "reversed");
    exact(&driver, "(sm_62, 2 multiprocessors), driver for CUDA 10.2 · compute_61 · graph true");
}

#[test]
fn xavier() {
    let driver = Driver::new(72).with("FOVEA_DRIVER_CUDA", "11.4").with("FOVEA_DRIVER_STREAMS", "late:5");
    exact(&driver, "(sm_72, 6 multiprocessors), driver for CUDA 11.4 · compute_72 · graph true");
}

#[test]
fn orin() {
    let driver = Driver::new(87).with("FOVEA_DRIVER_CUDA", "11.4");
    let driver = driver.with("FOVEA_DRIVER_STREAMS", "late:9").with("FOVEA_DRIVER_SCHEDULE", "random:3");
    exact(&driver, "(sm_87, 8 multiprocessors), driver for CUDA 11.4 · compute_80 · graph true");
}

#[test]
fn thor() {
    let driver = Driver::new(110).with("FOVEA_DRIVER_CUDA", "13.0").with("FOVEA_DRIVER_SCHEDULE", "eager");
    exact(&driver, "(sm_110, 20 multiprocessors), driver for CUDA 13.0 · compute_80 · graph true");
}

/// A driver without graphs: each launch is a call.
#[test]
fn a_driver_without_graphs() {
    let driver = Driver::new(87).without("cuStreamBeginCapture_v2").with("FOVEA_DRIVER_STREAMS", "late:2");
    exact(&driver, "compute_80 · graph false");
}

/// Preparation and explanation, on the oldest and on the newest kernels, and without a graph.
#[test]
fn pictures_are_read_as_by_the_processor() {
    let drivers = [
        Driver::new(53).with("FOVEA_DRIVER_CUDA", "10.2").with("FOVEA_DRIVER_SCHEDULE", "reversed"),
        Driver::new(87).with("FOVEA_DRIVER_STREAMS", "late:3").with("FOVEA_DRIVER_SCHEDULE", "random:8"),
        Driver::new(72).without("cuStreamBeginCapture_v2"),
    ];
    for driver in drivers {
        driver.child("read").ends_with(0).expect("26 pictures are as the processor has them");
    }
}

/// From the reader to the screen, as the appliance goes.
#[test]
fn the_screen_shows_what_the_device_drew() {
    Driver::new(87).child("screen").ends_with(0).expect("the screens are the processor's");
}

#[test]
fn real_pictures_are_read_as_by_the_processor() {
    if std::env::var_os("FOVEA_DATA").is_none() {
        println!("skipped: FOVEA_DATA names no folder with pictures");
        return;
    }
    Driver::new(62).child("real").ends_with(0).expect("real pictures are as the processor has them");
}
