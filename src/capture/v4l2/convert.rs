//! A capture device's bytes as a [`Frame`].

use crate::Frame;
use crate::frame::FrameError;

/// A format of pixels that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Two pixels in `Y U Y V`.
    Yuyv,
    /// Two pixels in `U Y V Y`.
    Uyvy,
    /// A plane of Y, then one of `U V` for each 2x2 pixels.
    Nv12,
    /// A byte a pixel.
    Grey,
    /// `R G B`.
    Rgb24,
    /// A JPEG picture.
    Mjpeg,
}

impl Layout {
    /// All, the cheapest and truest first. Grey alone comes late: colour tells photographs and a card's blue from B-scans.
    pub const ALL: [Self; 6] = [Self::Nv12, Self::Yuyv, Self::Uyvy, Self::Rgb24, Self::Grey, Self::Mjpeg];

    /// The names in a URI and in the kernel.
    pub fn names(self) -> (&'static str, &'static [&'static [u8; 4]]) {
        match self {
            Self::Yuyv => ("yuyv", &[b"YUYV"]),
            Self::Uyvy => ("uyvy", &[b"UYVY"]),
            Self::Nv12 => ("nv12", &[b"NV12"]),
            Self::Grey => ("grey", &[b"GREY"]),
            Self::Rgb24 => ("rgb24", &[b"RGB3"]),
            Self::Mjpeg => ("mjpeg", &[b"MJPG", b"JPEG"]),
        }
    }

    /// Least bytes of a row.
    fn row(self, width: usize) -> usize {
        match self {
            Self::Yuyv | Self::Uyvy => width.div_ceil(2) * 4,
            Self::Nv12 => width.next_multiple_of(2),
            Self::Grey => width,
            Self::Rgb24 => width * 3,
            Self::Mjpeg => 0,
        }
    }
}

/// How a device's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The pixels' format.
    pub layout: Layout,
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from a row to the next; 0 where rows follow without a gap.
    pub stride: u32,
    /// Black is 0 and white 255, not 16 and 235.
    pub full: bool,
    /// The colours are those of BT.709, not BT.601.
    pub bt709: bool,
}

/// Why a picture is left out.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A row does not fit between two.
    #[error("{0} bytes a row for {1} pixels; choose another format or an even width")]
    Stride(u32, u32),
    /// Not all of the picture came.
    #[error("{got} of {want} bytes of a picture; check the cable and the hub")]
    Short {
        /// Bytes that came.
        got: usize,
        /// Bytes of a whole picture.
        want: usize,
    },
    /// A JPEG picture that is not whole.
    #[error("{0}; check the cable and the hub")]
    Jpeg(&'static str),
    /// A JPEG picture of another size than the device said.
    #[error("a picture of {0}x{1} where the device said {2}x{3}; replug the device")]
    Size(u32, u32, u32, u32),
    /// No frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Makes a frame of `bytes`; `origin` is for messages.
///
/// # Errors
/// See [`ConvertError`].
pub fn frame(shape: &Shape, bytes: &[u8], origin: &str) -> Result<Frame, ConvertError> {
    let (width, height) = (shape.width as usize, shape.height as usize);
    if shape.layout == Layout::Mjpeg {
        let whole = crate::frame::jpeg::repair(bytes).map_err(ConvertError::Jpeg)?;
        // Before it is decoded; a header that cannot be read is told by the decoder.
        let header =
            image::ImageReader::with_format(std::io::Cursor::new(&whole[..]), image::ImageFormat::Jpeg);
        if let Ok((w, h)) = header.into_dimensions()
            && (w, h) != (shape.width, shape.height)
        {
            return Err(ConvertError::Size(w, h, shape.width, shape.height));
        }
        return Ok(Frame::decode(&whole, origin.as_ref())?);
    }
    // Before anything is multiplied or allocated.
    crate::frame::check_size(shape.width, shape.height, origin)?;
    let row = shape.layout.row(width);
    let stride = if shape.stride == 0 { row } else { shape.stride as usize };
    if stride < row {
        return Err(ConvertError::Stride(shape.stride, shape.width));
    }
    let rows = if shape.layout == Layout::Nv12 { height + height.div_ceil(2) } else { height };
    // The last row needs no gap after it.
    let want = stride.saturating_mul(rows - 1).saturating_add(row);
    if bytes.len() < want {
        return Err(ConvertError::Short { got: bytes.len(), want });
    }
    let mut out = Out { grey: Vec::with_capacity(width * height), colour: Vec::new() };
    let scale = Scale::new(shape);
    for y in 0..height {
        let line = &bytes[y * stride..y * stride + row];
        match shape.layout {
            Layout::Grey => out.grey.extend(line.iter().map(|v| scale.grey(*v))),
            Layout::Rgb24 => line.as_chunks::<3>().0.iter().for_each(|p| out.rgb(p.map(|v| scale.grey(v)))),
            Layout::Yuyv | Layout::Uyvy => {
                let swapped = shape.layout == Layout::Uyvy;
                for (pair, part) in line.as_chunks::<4>().0.iter().enumerate() {
                    let [a, u, b, v] = if swapped { [part[1], part[0], part[3], part[2]] } else { *part };
                    out.rgb(scale.rgb(a, u, v));
                    if pair * 2 + 1 < width {
                        out.rgb(scale.rgb(b, u, v));
                    }
                }
            }
            Layout::Nv12 => {
                let start = (height + y / 2) * stride;
                let chroma = &bytes[start..start + row];
                for (x, luma) in line[..width].iter().enumerate() {
                    out.rgb(scale.rgb(*luma, chroma[x & !1], chroma[x | 1]));
                }
            }
            Layout::Mjpeg => {}
        }
    }
    Ok(Frame::with_colour(shape.width, shape.height, out.grey, out.colour, origin)?)
}

struct Out {
    grey: Vec<u8>,
    colour: Vec<u8>,
}

impl Out {
    fn rgb(&mut self, [r, g, b]: [u8; 3]) {
        self.grey.push(crate::frame::luma(r, g, b));
        self.colour.push(r.max(g).max(b) - r.min(g).min(b));
    }
}

/// Factors in 1/65536 from Y'CbCr to R'G'B' (ITU-R BT.601 and BT.709).
struct Scale {
    black: i32,
    luma: i32,
    red: i32,
    green: [i32; 2],
    blue: i32,
}

impl Scale {
    fn new(shape: &Shape) -> Self {
        let (kr, kb) = if shape.bt709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
        let kg = 1.0 - kr - kb;
        let (black, luma, chroma) =
            if shape.full { (0, 1.0, 1.0) } else { (16, 255.0 / 219.0, 255.0 / 224.0) };
        let fixed = |v: f64| (v * 65536.0).round() as i32;
        Self {
            black,
            luma: fixed(luma),
            red: fixed(2.0 * (1.0 - kr) * chroma),
            green: [fixed(2.0 * kb * (1.0 - kb) / kg * chroma), fixed(2.0 * kr * (1.0 - kr) / kg * chroma)],
            blue: fixed(2.0 * (1.0 - kb) * chroma),
        }
    }

    fn grey(&self, v: u8) -> u8 {
        byte((i32::from(v) - self.black) * self.luma)
    }

    fn rgb(&self, y: u8, u: u8, v: u8) -> [u8; 3] {
        let y = (i32::from(y) - self.black) * self.luma;
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        [byte(y + self.red * v), byte(y - self.green[0] * u - self.green[1] * v), byte(y + self.blue * u)]
    }
}

fn byte(fixed: i32) -> u8 {
    ((fixed + 32768) >> 16).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where the standard's formulas in floating point put a pixel, from its place in the buffer.
    fn slow(shape: &Shape, bytes: &[u8], x: usize, y: usize) -> [f64; 3] {
        let (height, stride) = (shape.height as usize, shape.stride as usize);
        let at = |i: usize| f64::from(bytes[i]);
        let base = y * stride;
        let pair = base + x / 2 * 4;
        let (luma, u, v) = match shape.layout {
            Layout::Yuyv => (at(base + x * 2), at(pair + 1), at(pair + 3)),
            Layout::Uyvy => (at(base + x * 2 + 1), at(pair), at(pair + 2)),
            Layout::Nv12 => {
                let c = height * stride + y / 2 * stride + x / 2 * 2;
                (at(base + x), at(c), at(c + 1))
            }
            Layout::Grey => (at(base + x), 128.0, 128.0),
            _ => {
                let part = |i| {
                    (at(base + x * 3 + i) - if shape.full { 0.0 } else { 16.0 })
                        * if shape.full { 1.0 } else { 255.0 / 219.0 }
                };
                return [0, 1, 2].map(|i| part(i).clamp(0.0, 255.0));
            }
        };
        let (luma, u, v) = if shape.full {
            (luma / 255.0, (u - 128.0) / 255.0, (v - 128.0) / 255.0)
        } else {
            ((luma - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0)
        };
        let rgb = if shape.bt709 {
            [luma + 1.5748 * v, luma - 0.1873 * u - 0.4681 * v, luma + 1.8556 * u]
        } else {
            [luma + 1.402 * v, luma - 0.344136 * u - 0.714136 * v, luma + 1.772 * u]
        };
        rgb.map(|c| (c * 255.0).clamp(0.0, 255.0))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pixels_are_those_of_the_standard(
            kind in 0usize..5, width in 32u32..60, height in 32u32..50, gap in 0u32..9,
            full: bool, bt709: bool, seed: u64, lack in 1usize..4000,
        ) {
            let layout = Layout::ALL[kind];
            let stride = layout.row(width as usize) as u32 + gap;
            let shape = Shape { layout, width, height, stride, full, bt709 };
            let rows = if layout == Layout::Nv12 { height + height.div_ceil(2) } else { height };
            let size = (stride * rows - gap) as usize;
            let bytes: Vec<u8> = (0..size as u64)
                .map(|i| ((i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
                .collect();
            let made = frame(&shape, &bytes, "test").unwrap();
            for y in 0..height as usize {
                for x in 0..width as usize {
                    let [r, g, b] = slow(&shape, &bytes, x, y);
                    let i = y * width as usize + x;
                    let grey = (77.0 * r + 150.0 * g + 29.0 * b) / 256.0;
                    prop_assert!((f64::from(made.pixels()[i]) - grey).abs() <= 1.6, "{x},{y} {grey}");
                    let spread = r.max(g).max(b) - r.min(g).min(b);
                    let got = made.colour().map_or(0.0, |c| f64::from(c[i]));
                    prop_assert!((got - spread).abs() <= 1.6, "{x},{y} {spread}");
                }
            }
            let lack = lack.min(size);
            let short = frame(&shape, &bytes[..size - lack], "test");
            prop_assert!(matches!(short, Err(ConvertError::Short { .. })), "{short:?}");
            let narrow = Shape { stride: stride - gap - 1, ..shape };
            prop_assert!(matches!(frame(&narrow, &bytes, "test"), Err(ConvertError::Stride(..))));
        }
    }

    /// A shape in which nothing need fit.
    fn any_shape() -> impl Strategy<Value = Shape> {
        let side = || prop_oneof![9 => 0u32..200, 1 => any::<u32>()];
        (0usize..6, side(), side(), prop_oneof![9 => 0u32..900, 1 => any::<u32>()], any::<[bool; 2]>())
            .prop_map(|(kind, width, height, stride, [full, bt709])| Shape {
                layout: Layout::ALL[kind],
                width,
                height,
                stride,
                full,
                bt709,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_shape_over_any_bytes_is_answered(shape in any_shape(), length in 0usize..60_000, value: u8) {
            if let Ok(made) = frame(&shape, &vec![value; length], "test") {
                prop_assert_eq!((made.width(), made.height()), (shape.width, shape.height));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn damaged_jpeg_pictures_are_answered(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
            cut in any::<prop::sample::Index>(), cuts: bool, bare: bool,
        ) {
            let picture = image::GrayImage::from_fn(48, 40, |x, y| image::Luma([(x * y) as u8]));
            let mut bytes = Vec::new();
            image::codecs::jpeg::JpegEncoder::new(&mut bytes).encode_image(&picture).unwrap();
            if bare {
                // The tables' segments become comments.
                for at in 0..bytes.len() - 1 {
                    if bytes[at..at + 2] == [0xff, 0xc4] {
                        bytes[at + 1] = 0xfe;
                    }
                }
            }
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if cuts {
                bytes.truncate(cut.index(bytes.len()));
            }
            let shape =
                Shape { layout: Layout::Mjpeg, width: 48, height: 40, stride: 0, full: true, bt709: false };
            if let Ok(made) = frame(&shape, &bytes, "test") {
                prop_assert_eq!((made.width(), made.height()), (48, 40));
            }
        }
    }

    #[test]
    fn grey_stays_grey_and_lies_are_errors() {
        let shape =
            Shape { layout: Layout::Yuyv, width: 33, height: 32, stride: 0, full: false, bt709: true };
        let bytes: Vec<u8> = [16, 128, 235, 128].repeat(17 * 32);
        let made = frame(&shape, &bytes, "test").unwrap();
        assert_eq!((&made.pixels()[..3], made.chroma, made.colour()), (&[0, 255, 0][..], 0, None));
        let huge = Shape { width: u32::MAX, height: u32::MAX, ..shape };
        assert!(matches!(frame(&huge, &bytes, "test"), Err(ConvertError::Frame(FrameError::Size { .. }))));
        let none = Shape { height: 0, ..shape };
        assert!(frame(&none, &bytes, "test").is_err());
    }

    #[test]
    fn a_jpeg_of_another_size_is_refused() {
        let mut bytes = Vec::new();
        image::codecs::jpeg::JpegEncoder::new(&mut bytes)
            .encode_image(&image::GrayImage::from_pixel(48, 40, image::Luma([90])))
            .unwrap();
        let shape =
            Shape { layout: Layout::Mjpeg, width: 48, height: 40, stride: 0, full: true, bt709: false };
        assert_eq!(frame(&shape, &bytes, "test").unwrap().pixels()[0], 90);
        let other = Shape { width: 64, ..shape };
        assert!(matches!(frame(&other, &bytes, "test"), Err(ConvertError::Size(48, 40, 64, 40))));
    }
}
