//! The last resort: the kernel's plain frame buffer, `fb:///dev/fb0`.
//!
//! It has one page, so a picture is seen while it is drawn; where there is a DRM device, that one is better. Rows are
//! written through the file, and only those that changed.

use super::console::Console;
use super::{Display, DisplayError};
use rustix::ioctl::{self, IntegerSetter, Updater};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// `struct fb_var_screeninfo`: sizes, place of the picture in a larger one, bits a pixel, then offset, length and side of
/// red, green and blue.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Variable {
    width: u32,
    height: u32,
    virtual_size: [u32; 2],
    offset: [u32; 2],
    bits: u32,
    grey: u32,
    channels: [[u32; 3]; 3],
    rest: [u32; 23],
}

/// `struct fb_fix_screeninfo`, of which the bytes a row are read.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Fixed {
    id: [u8; 16],
    memory: u64,
    words: [u32; 4],
    steps: [u16; 3],
    stride: u32,
    rest: [u64; 3],
}

const _: () = {
    assert!(size_of::<Variable>() == 160);
    assert!(size_of::<Fixed>() == 80);
    assert!(std::mem::offset_of!(Fixed, stride) == 48);
};

/// How pixels lie in a frame buffer.
#[derive(Clone, Copy, Debug)]
struct Shape {
    width: usize,
    height: usize,
    /// Bytes before the first pixel, and from a row to the next.
    start: usize,
    stride: usize,
    /// Bytes of a pixel.
    bytes: usize,
    /// Place and number of the bits of red, green and blue.
    channels: [(u32, u32); 3],
}

impl Shape {
    fn of(v: &Variable, stride: u32) -> Option<Self> {
        let (bytes, stride) = (v.bits as usize / 8, stride as usize);
        let channels = v.channels.map(|[offset, length, _]| (offset, length));
        let fits = channels.iter().all(|(offset, length)| *length <= 8 && offset + length <= v.bits);
        let row = (v.width as usize).checked_mul(bytes)?;
        let whole = v.width > 0 && v.height > 0 && v.bits.is_multiple_of(8) && (2..=4).contains(&bytes);
        let start = v.offset[1] as usize * stride + v.offset[0] as usize * bytes;
        let shape =
            Self { width: v.width as usize, height: v.height as usize, start, stride, bytes, channels };
        (whole && fits && row <= stride).then_some(shape)
    }

    /// Adds the bytes of a row of pixels, 3 bytes each.
    fn row(&self, rgb: &[u8], out: &mut Vec<u8>) {
        for pixel in rgb.as_chunks::<3>().0 {
            let part = |(value, (offset, length)): (&u8, &(u32, u32))| {
                (u32::from(*value) >> (8 - length)).checked_shl(*offset).unwrap_or(0)
            };
            let value = pixel.iter().zip(&self.channels).map(part).fold(0, |all, part| all | part);
            out.extend(&value.to_ne_bytes()[..self.bytes]);
        }
    }

    /// Writes the rows of `new` that differ from `old` into the middle of the screen; what is larger is cut.
    fn draw(
        &self,
        old: &[u8],
        new: &[u8],
        width: usize,
        mut write: impl FnMut(u64, &[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let pitch = width * 3;
        let (across, down) = (width.min(self.width), (new.len() / pitch.max(1)).min(self.height));
        let corner = ((self.width - across) / 2, (self.height - down) / 2);
        let changed = |y: usize| old.get(y * pitch..(y + 1) * pitch) != new.get(y * pitch..(y + 1) * pitch);
        let whole = across * self.bytes == self.stride;
        let mut bytes = Vec::new();
        let mut y = 0;
        while y < down {
            if !changed(y) {
                y += 1;
                continue;
            }
            let (mut first, mut end) = (y, y + 1);
            if whole {
                end += (end..down).take_while(|y| changed(*y)).count();
                // A write of exactly one whole row is not shown by the buffers that Linux 6.1 makes of DRM devices.
                if end - first == 1 {
                    (first, end) = if end < down { (first, end + 1) } else { (first.saturating_sub(1), end) };
                }
            }
            bytes.clear();
            (first..end).for_each(|y| self.row(&new[y * pitch..][..across * 3], &mut bytes));
            write((self.start + (corner.1 + first) * self.stride + corner.0 * self.bytes) as u64, &bytes)?;
            y = end;
        }
        Ok(())
    }
}

/// A frame buffer of the kernel.
pub struct FrameBuffer {
    path: PathBuf,
    file: File,
    shape: Shape,
    shown: Vec<u8>,
    /// Keeps the console from writing into the picture.
    _console: Option<Console>,
}

impl FrameBuffer {
    /// Opens a frame buffer, for instance `/dev/fb0`, and takes it from the console.
    ///
    /// # Errors
    /// [`DisplayError::Device`] when it cannot be opened, is none, or has pixels that are not known.
    pub fn new(path: &Path) -> Result<Self, DisplayError> {
        let failed = |error: std::io::Error| DisplayError::device(path, &error);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let (mut variable, mut fixed) = (Variable::default(), Fixed::default());
        // SAFETY: FBIOGET_VSCREENINFO fills the structure of linux/fb.h, all integers, whose size is checked above.
        unsafe { ioctl::ioctl(&file, Updater::<0x4600, Variable>::new(&mut variable)) }
            .map_err(|error| failed(error.into()))?;
        // SAFETY: FBIOGET_FSCREENINFO fills the structure of linux/fb.h, all integers, whose size is checked above.
        unsafe { ioctl::ioctl(&file, Updater::<0x4602, Fixed>::new(&mut fixed)) }
            .map_err(|error| failed(error.into()))?;
        let shape = Shape::of(&variable, fixed.stride).ok_or_else(|| {
            failed(std::io::Error::other(format!("{} bits a pixel are not known", variable.bits)))
        })?;
        // SAFETY: FBIOBLANK takes a number; FB_BLANK_UNBLANK. Not every driver can, and those do not blank.
        let _ = unsafe { ioctl::ioctl(&file, IntegerSetter::<0x4611>::new_usize(0)) };
        let mut screen =
            Self { path: path.into(), file, shape, shown: Vec::new(), _console: Console::take() };
        screen.clear().map_err(failed)?;
        Ok(screen)
    }

    fn clear(&mut self) -> std::io::Result<()> {
        let Shape { width, height, start, stride, bytes, .. } = self.shape;
        self.file.write_all_at(&vec![0; (height - 1) * stride + width * bytes], start as u64)
    }
}

impl Display for FrameBuffer {
    fn show(&mut self, width: u32, _: u32, rgb: &[u8], _: Option<&str>) -> Result<(), DisplayError> {
        let file = &self.file;
        let write = |at, bytes: &[u8]| file.write_all_at(bytes, at);
        self.shape
            .draw(&self.shown, rgb, width as usize, write)
            .map_err(|error| DisplayError::device(&self.path, &error))?;
        self.shown.clear();
        self.shown.extend_from_slice(rgb);
        Ok(())
    }

    fn watched(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(bits: u32, channels: [[u32; 3]; 3]) -> Option<Shape> {
        let v = Variable { width: 4, height: 3, bits, channels, ..Variable::default() };
        Shape::of(&v, 20)
    }

    const RGB565: [[u32; 3]; 3] = [[11, 5, 0], [5, 6, 0], [0, 5, 0]];
    const XRGB: [[u32; 3]; 3] = [[16, 8, 0], [8, 8, 0], [0, 8, 0]];

    #[test]
    fn pixels_take_the_buffers_form() {
        let mut out = Vec::new();
        shape(16, RGB565).unwrap().row(&[255, 0, 0, 0, 255, 8], &mut out);
        assert_eq!(out, [0xf800u16.to_ne_bytes(), 0x07e1u16.to_ne_bytes()].concat());
        out.clear();
        shape(32, XRGB).unwrap().row(&[1, 2, 3], &mut out);
        assert_eq!(out, 0x0001_0203u32.to_ne_bytes());
        assert!(shape(8, XRGB).is_none() && shape(15, RGB565).is_none());
        assert!(shape(32, [[28, 8, 0]; 3]).is_none(), "a channel outside the pixel");
        assert!(shape(32, [[0, 10, 0]; 3]).is_none());
    }

    #[test]
    fn changed_rows_alone_are_written_in_the_middle_and_cut() {
        let shape = shape(16, RGB565).unwrap();
        let places = |old: &[u8], new: &[u8], width| {
            let mut places = Vec::new();
            shape
                .draw(old, new, width, |at, bytes| {
                    places.push((at, bytes.len()));
                    Ok(())
                })
                .unwrap();
            places
        };
        let new: Vec<u8> = (0..2 * 2 * 3).collect();
        assert_eq!(places(&[], &new, 2), [(2, 4), (22, 4)]);
        let mut old = new.clone();
        old[7] = 99;
        assert_eq!(places(&old, &new, 2), [(22, 4)]);
        assert_eq!(places(&new, &new, 2), []);
        // Rows without a gap go in one piece, and never one alone.
        let dense = Shape { stride: 8, ..shape };
        let runs = |old: &[u8], new: &[u8]| {
            let mut runs = Vec::new();
            let note = |at, bytes: &[u8]| {
                runs.push((at, bytes.len()));
                Ok(())
            };
            dense.draw(old, new, 4, note).unwrap();
            runs
        };
        let full: Vec<u8> = (0..4 * 3 * 3).collect();
        let but = |y: usize| {
            let mut old = full.clone();
            old[y * 12] ^= 1;
            old
        };
        assert_eq!(runs(&[], &full), [(0, 24)]);
        assert_eq!((runs(&but(0), &full), runs(&but(2), &full)), (vec![(0, 16)], vec![(8, 16)]));
        // Larger than the screen.
        assert_eq!(places(&[], &[9; 9 * 5 * 3], 9), [(0, 8), (20, 8), (40, 8)]);
    }

    #[test]
    fn what_is_no_frame_buffer_is_refused_with_words() {
        let said = |path: &str| FrameBuffer::new(Path::new(path)).err().map(|error| error.to_string());
        assert!(said("/dev/no-such-buffer").is_some_and(|said| said.contains("no-such-buffer")));
        assert!(said("/dev/null").is_some_and(|said| said.contains("/dev/null")));
    }
}
