//! What a capture device says about its pictures, and their bytes, to a frame: pixel formats and the JPEG repair.
#![no_main]

use fovea::capture::convert::{Layout, Shape, frame};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&[kind, w0, w1, h0, h1, s0, s1, range], bytes)) = data.split_first_chunk() else { return };
    let shape = Shape {
        layout: Layout::ALL[usize::from(kind) % Layout::ALL.len()],
        width: u16::from_le_bytes([w0, w1]).into(),
        height: u16::from_le_bytes([h0, h1]).into(),
        stride: u16::from_le_bytes([s0, s1]).into(),
        full: range & 1 != 0,
        bt709: range & 2 != 0,
    };
    if let Ok(made) = frame(&shape, bytes, "fuzz") {
        assert_eq!((made.width(), made.height()), (shape.width, shape.height));
    }
});
