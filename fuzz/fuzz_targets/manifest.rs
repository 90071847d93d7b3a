//! `manifest.toml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(manifest) = fovea::model::Manifest::parse(text, std::path::Path::new("manifest.toml")) {
        // What was read can be written, and is then read as the same.
        let again = manifest.to_toml().unwrap();
        fovea::model::Manifest::parse(&again, std::path::Path::new("manifest.toml")).unwrap();
    }
});
