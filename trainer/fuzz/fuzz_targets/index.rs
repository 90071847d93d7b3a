//! The index of a set, as `prepare` writes it and people change it. `cargo +nightly fuzz run index fuzz/corpus/index` (from
//! `trainer/`).
#![no_main]

use std::io::Write;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let _ = fovea_trainer::split::read(file.path());
});
