//! A grey picture with its origin and time: the one currency between the rooms.

pub(crate) mod jpeg;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// More pixels than this are refused before anything is allocated: 64 megapixels, twice an 8K screen.
pub const MAX_PIXELS: u64 = 64 << 20;

/// An 8-bit grey picture, row by row from the top left, without padding.
#[derive(Clone, Debug)]
pub struct Frame {
    width: u32,
    height: u32,
    pixels: Arc<Vec<u8>>,
    /// Difference between the largest and the smallest colour channel of each pixel, where any differs.
    colour: Option<Vec<u8>>,
    /// Largest difference between colour channels seen when the picture was made grey; 0 for a grey source.
    pub chroma: u8,
    /// Where the picture came from, as shown in messages (a file's path, a device's name).
    pub origin: String,
    /// When it was captured (monotonic clock).
    pub captured: Instant,
}

/// Why a picture could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The file could not be opened or read.
    #[error("{path}: cannot be read ({source}); check that the file exists and may be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is empty.
    #[error("{0}: the file is empty; export it again")]
    Empty(PathBuf),
    /// No decoder understands the bytes.
    #[error("{path}: not a readable JPEG, PNG, TIFF or BMP picture ({reason}); export it again")]
    Broken {
        /// The file.
        path: PathBuf,
        /// The decoder's words.
        reason: String,
    },
    /// Too small or too large to be a B-scan.
    #[error(
        "{origin}: {width}x{height} pixels; a B-scan has at least 32x32 and at most 64 megapixels: crop or shrink it"
    )]
    Size {
        /// Where the picture came from.
        origin: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The pixel buffer does not hold width x height bytes.
    #[error("{origin}: {got} bytes for {width}x{height} grey pixels; the source gave a short buffer")]
    Buffer {
        /// Where the picture came from.
        origin: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes given.
        got: usize,
    },
}

impl Frame {
    /// A frame from grey bytes.
    ///
    /// # Errors
    /// [`FrameError::Size`] and [`FrameError::Buffer`] when the sizes do not fit.
    pub fn new(
        width: u32,
        height: u32,
        pixels: Vec<u8>,
        origin: impl Into<String>,
    ) -> Result<Self, FrameError> {
        let origin = origin.into();
        check_size(width, height, &origin)?;
        if pixels.len() as u64 != u64::from(width) * u64::from(height) {
            return Err(FrameError::Buffer { origin, width, height, got: pixels.len() });
        }
        Ok(Self {
            width,
            height,
            pixels: Arc::new(pixels),
            colour: None,
            chroma: 0,
            origin,
            captured: Instant::now(),
        })
    }

    /// Reads a JPEG, PNG, TIFF or BMP file; colour becomes grey by [`luma`], 16 bits become 8 by their upper byte.
    ///
    /// # Errors
    /// See [`FrameError`]; each message names the file.
    pub fn read(path: &Path) -> Result<Self, FrameError> {
        let bytes = std::fs::read(path).map_err(|source| FrameError::Io { path: path.into(), source })?;
        if bytes.is_empty() {
            return Err(FrameError::Empty(path.into()));
        }
        Self::decode(&bytes, path)
    }

    /// Decodes a picture file's bytes; `path` is for messages.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self, FrameError> {
        let broken = |error: &dyn std::fmt::Display| FrameError::Broken {
            path: path.into(),
            reason: error.to_string(),
        };
        // The decoder would show the rest of a cut picture as grey.
        let jpeg = bytes.starts_with(&[0xff, 0xd8]);
        let whole = if jpeg { jpeg::repair(bytes) } else { Ok(Cow::Borrowed(bytes)) };
        let whole = whole.map_err(|reason| broken(&reason))?;
        let mut reader = image::ImageReader::new(std::io::Cursor::new(&whole[..]))
            .with_guessed_format()
            .map_err(|error| broken(&error))?;
        let mut limits = image::Limits::default();
        limits.max_alloc = Some(MAX_PIXELS * 8);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(|error| broken(&error))?;
        let origin = path.display().to_string();
        let (width, height) = image::ImageDecoder::dimensions(&decoder);
        check_size(width, height, &origin)?;
        let turn = image::ImageDecoder::orientation(&mut decoder).ok();
        let mut picture = image::DynamicImage::from_decoder(decoder).map_err(|error| broken(&error))?;
        if let Some(turn) = turn {
            picture.apply_orientation(turn);
        }
        let (width, height) = (picture.width(), picture.height());
        let mut colour = Vec::new();
        let pixels = match picture {
            image::DynamicImage::ImageLuma8(grey) => grey.into_raw(),
            image::DynamicImage::ImageLuma16(grey) => {
                grey.into_raw().iter().map(|v| (v >> 8) as u8).collect()
            }
            other => other
                .to_rgb8()
                .pixels()
                .map(|image::Rgb([r, g, b])| {
                    colour.push(r.max(g).max(b) - r.min(g).min(b));
                    luma(*r, *g, *b)
                })
                .collect(),
        };
        Self::with_colour(width, height, pixels, colour, origin)
    }

    /// A frame from grey bytes and each pixel's difference between its colour channels; none for a grey source.
    pub(crate) fn with_colour(
        width: u32,
        height: u32,
        pixels: Vec<u8>,
        colour: Vec<u8>,
        origin: impl Into<String>,
    ) -> Result<Self, FrameError> {
        let mut frame = Self::new(width, height, pixels, origin)?;
        frame.chroma = colour.iter().copied().max().unwrap_or(0);
        frame.colour = (frame.chroma > 0).then_some(colour);
        Ok(frame)
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Difference between the largest and the smallest colour channel of each pixel, row by row; `None` when all is grey.
    pub fn colour(&self) -> Option<&[u8]> {
        self.colour.as_deref()
    }

    /// The grey bytes, row by row.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The grey bytes for who keeps them longer than the frame.
    pub fn shared_pixels(&self) -> Arc<Vec<u8>> {
        Arc::clone(&self.pixels)
    }
}

/// True when a file's name is that of a picture that [`Frame::read`] reads.
pub fn is_picture(path: &Path) -> bool {
    let kind = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    ["jpg", "jpeg", "png", "tif", "tiff", "bmp"].contains(&kind.as_str())
}

/// Grey of a colour: BT.601 luma in integers, `(77 R + 150 G + 29 B + 128) >> 8`. Equal channels keep their value.
pub fn luma(r: u8, g: u8, b: u8) -> u8 {
    ((77 * u32::from(r) + 150 * u32::from(g) + 29 * u32::from(b) + 128) >> 8) as u8
}

/// Refuses what is too small or too large to be a B-scan.
pub(crate) fn check_size(width: u32, height: u32, origin: &str) -> Result<(), FrameError> {
    if width < 32 || height < 32 || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(FrameError::Size { origin: origin.into(), width, height });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luma_keeps_grey() {
        for v in 0..=255 {
            assert_eq!(luma(v, v, v), v);
        }
    }

    #[test]
    fn sixteen_bit_and_colour_pictures_become_grey() {
        let wide = image::ImageBuffer::<image::Luma<u16>, _>::from_fn(40, 33, |x, y| {
            image::Luma([(x * 1000 + y) as u16])
        });
        let mut bytes = Vec::new();
        image::DynamicImage::from(wide)
            .write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png)
            .unwrap();
        let frame = Frame::decode(&bytes, Path::new("wide.png")).unwrap();
        assert_eq!((frame.width(), frame.height(), frame.chroma), (40, 33, 0));
        assert_eq!(frame.pixels()[39], (39_000u32 >> 8) as u8);

        let colour = image::RgbImage::from_pixel(32, 32, image::Rgb([200, 100, 50]));
        let mut bytes = Vec::new();
        colour.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Bmp).unwrap();
        let frame = Frame::decode(&bytes, Path::new("colour.bmp")).unwrap();
        assert_eq!((frame.pixels()[0], frame.chroma), (luma(200, 100, 50), 150));
        assert_eq!(frame.colour().unwrap(), [150; 32 * 32]);
    }

    #[test]
    fn bad_pictures_name_the_file() {
        let tiny = image::GrayImage::new(1, 1);
        let mut bytes = Vec::new();
        tiny.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        let error = Frame::decode(&bytes, Path::new("tiny.png")).unwrap_err();
        assert!(
            matches!(error, FrameError::Size { width: 1, height: 1, .. })
                && error.to_string().contains("tiny.png")
        );
        let error = Frame::decode(b"\xff\xd8\xff\xe0garbage", Path::new("cut.jpeg")).unwrap_err();
        assert!(matches!(error, FrameError::Broken { .. }) && error.to_string().contains("cut.jpeg"));
        let whole = std::fs::read("examples/bscans/phantom-cnv-1.jpeg").unwrap();
        assert!(Frame::decode(&whole, Path::new("whole.jpeg")).is_ok());
        for percent in [5, 30, 60, 90, 99] {
            let error =
                Frame::decode(&whole[..whole.len() * percent / 100], Path::new("cut.jpeg")).unwrap_err();
            assert!(
                error.to_string().contains("cut.jpeg") && error.to_string().contains("is cut"),
                "{error}"
            );
        }
        assert!(matches!(Frame::new(64, 64, vec![0; 5], "x"), Err(FrameError::Buffer { got: 5, .. })));
    }
}
