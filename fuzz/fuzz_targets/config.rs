//! `fovea.toml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    drop(fovea::config::Config::parse(text, std::path::Path::new("fovea.toml")));
});
