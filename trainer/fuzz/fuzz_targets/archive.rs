//! Data sets as archives: tar, tar.gz and zip, by the first byte. `cargo +nightly fuzz run archive fuzz/corpus/archive` (from
//! `trainer/`).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let name = ["a.tar", "a.tar.gz", "a.zip"][usize::from(*kind) % 3];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let to = folder.path().join("unpacked");
    let _ = fovea_trainer::data::archive::folder(&path, Some(&to));
    // Nothing lies outside its folder.
    let beside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(beside.iter().all(|n| n == name || n == "unpacked"), "{beside:?}");
});
