//! Pictures: JPEG, PNG, TIFF, BMP to a frame, and the frame to the network's input.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(frame) = fovea::Frame::decode(data, std::path::Path::new("picture"))
        && frame.pixels().len() < 1 << 20
    {
        fovea::prepare::Preparation::default().prepare(&frame, None).unwrap();
    }
});
