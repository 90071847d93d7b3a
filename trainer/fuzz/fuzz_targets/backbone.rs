//! Backbones: safetensors, PyTorch's pickles, Keras's HDF5. `cargo +nightly fuzz run backbone fuzz/corpus/backbone tests/data`
//! (from `trainer/`) starts from files that h5py wrote. The ordinary tests change them too, on the stable compiler.
#![no_main]

use std::io::Write;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The readers take paths, since they read large files in parts.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let _ = fovea_trainer::backbone::read(file.path(), &fovea_trainer::network::inception_v3(3));
});
