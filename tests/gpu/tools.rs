//! `fovea doctor --gpu` and `fovea tune` before the simulated device.

use super::driver::Driver;
use std::path::Path;

fn report(driver: &Driver) -> serde_json::Value {
    let said = driver.child("examine");
    said.ends_with(0);
    let text = said.out.find('{').zip(said.out.rfind('}')).map(|(from, to)| &said.out[from..=to]);
    serde_json::from_str(text.unwrap_or_else(|| panic!("{}", said.out))).unwrap()
}

#[test]
fn a_device_that_computes_rightly() {
    let report = report(&Driver::new(87).with("FOVEA_DRIVER_CUDA", "11.4"));
    assert_eq!(report["faults"], serde_json::json!([]));
    assert_eq!(report["device"]["name"], "fovea simulator sm_87");
    assert_eq!((&report["kernels"], &report["graph"]), (&"compute_80".into(), &true.into()));
    assert_eq!(report["solved"], 2 * fovea::engine::suite::all().len());
    assert_eq!(report["pictures"], fovea::engine::suite::views().count());
    let network = &report["network"];
    assert_eq!((&network["bytes"], &network["wrong"]), (&131_072.into(), &0.into()));
    assert_eq!(network["golden_difference"], 0.0);
    assert_eq!(network["pictures"].as_array().unwrap().len(), 3);
    let launches = network["launches"].as_array().unwrap();
    assert_eq!(launches.len(), 2);
    assert_eq!(launches[1]["shape"], "8x8x1 1x1/1x1 8x8x2048");
    assert_eq!(launches[1]["products"], 131_072);
    assert!(launches.iter().all(|launch| launch["millis"].as_f64().unwrap() > 0.0));
}

#[test]
fn devices_that_do_not() {
    const FAULTS: &str = "FOVEA_DRIVER_FAULTS";
    // One problem's answer is wrong, the rest goes on.
    let wrong = report(&Driver::new(87).with(FAULTS, "wrong:4"));
    let faults = wrong["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].as_str().unwrap().contains("bytes differ from the scalar engine"), "{wrong}");
    assert_eq!(wrong["solved"], 2 * fovea::engine::suite::all().len() - 1);
    // A device that never starts anything is not asked for ever.
    let refuses = report(&Driver::new(87).with(FAULTS, "refuse:20+"));
    let faults = refuses["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 4, "{refuses}");
    assert_eq!(faults[3], "the rest of the suite was left out");
    assert!(refuses["network"].is_null());
}

/// The program's own words and codes where there is nothing to examine.
#[test]
fn the_program_says_what_is_missing() {
    let program = Path::new(env!("CARGO_BIN_EXE_fovea"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let driver = Driver::new(50);
    let said = driver.run(program, &["doctor", "--gpu", "--json", file.to_str().unwrap()], &[]);
    said.ends_with(2).expect("is sm_50, too old for these kernels").expect("The device cannot be used");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert!(report["faults"][0].as_str().unwrap().contains("sm_50"), "{report}");
    driver.run(program, &["tune"], &[]).ends_with(2).expect("too old for these kernels");
}

#[test]
fn a_table_is_made_and_read_and_others_are_not() {
    let said = Driver::new(87).child("tune");
    said.ends_with(0).expect("8 blocks, tiles of 64 outputs: ").expect(" cuts, ");
    assert!(!said.out.contains("WRONG"), "{}", said.out);
    let blocks = |when: &str| {
        let line = said.out.lines().find(|line| line.starts_with(&format!("{when}: ")));
        line.unwrap_or_else(|| panic!("no {when}: {}", said.out)).split(": ").nth(1).unwrap().to_owned()
    };
    for useless in ["stale", "foreign", "senseless", "damaged"] {
        assert_eq!(blocks(useless), blocks("usual"));
    }
    said.expect("not used, it is for other kernels than this version's; run `fovea tune` again");
    said.expect("not used, it is for another").expect("not used, it wants 0 blocks for 8x8x1");
    said.expect("not used, it is damaged (");
}
