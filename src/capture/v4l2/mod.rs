//! A capture device of Linux: `v4l2:///dev/video0?size=1280x720&format=yuyv&fps=30`.
//!
//! The kernel is asked directly, not through the `v4l` crate: that one waits for ever on a device that was pulled, hands
//! out whole buffers instead of `bytesused`, knows no events and no DV timings, and needs libclang to build. On a Jetson
//! this also passes by the libv4l2 plug-in. All waiting is bounded; a driver that hangs inside a call holds only this
//! thread, and the appliance notices that no sign of life comes. A sign of life is given for each good picture alone, so
//! that a finding leaves the screen when pictures stop.

pub mod convert;
mod modes;
mod session;
mod sys;

use super::{Feed, Port};
use convert::{Layout, Shape};
use modes::Wish;
use rustix::io::Errno;
use session::Session;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

/// Waits between two tries to open a device: doubled from the first to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// A capture device and what is asked of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Camera {
    /// Best a stable name, `/dev/v4l/by-id/…`: numbers change when a device is plugged in again.
    path: PathBuf,
    wish: Wish,
}

impl Camera {
    /// Reads what follows `v4l2:` in a source's name; none when it is wrong. The device need not be there yet.
    pub fn parse(rest: &str) -> Option<Self> {
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.starts_with('/') {
            return None;
        }
        let mut wish = Wish::default();
        for option in options.split('&').filter(|o| !o.is_empty()) {
            match option.split_once('=')? {
                ("size", size) => {
                    let (width, height) = size.split_once('x')?;
                    let side = |s: &str| s.parse().ok().filter(|n| (32..=16384).contains(n));
                    wish.size = Some((side(width)?, side(height)?));
                }
                ("format", name) => {
                    wish.layout = Some(Layout::ALL.into_iter().find(|l| l.names().0 == name)?);
                }
                ("fps", n) => wish.fps = Some(n.parse().ok().filter(|n| (1.0..=1000.0).contains(n))?),
                _ => return None,
            }
        }
        Some(Self { path: path.into(), wish })
    }

    fn open(&self) -> Result<File, String> {
        let meta = std::fs::metadata(&self.path)
            .map_err(|_| "no device; plug it in, or check its name under /dev/v4l/by-id".to_owned())?;
        if !meta.file_type().is_char_device() {
            return Err("no capture device; check its name under /dev/v4l/by-id".into());
        }
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&self.path);
        file.map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "may not be opened; add the user to the group 'video'".into()
            }
            std::io::ErrorKind::ResourceBusy => "is used by another program; end that one".into(),
            _ => format!("{error}; replug the device"),
        })
    }

    /// Sets the device up and starts its stream.
    fn start(&self) -> Result<(sys::Stream, Shape), String> {
        let file = self.open()?;
        if !sys::captures(&file).map_err(failed)? {
            return Err("gives no pictures; take another of the device's names".into());
        }
        sys::subscribe(&file);
        let fixed = check_signal(&file)?;
        let set = sys::current(&file).map_err(failed)?;
        let (now, wish) = ((set.width, set.height), &self.wish);
        let mode = modes::choose(&modes::of(&file, wish, now), wish, fixed.then_some(now))?;
        let set = sys::set_format(&file, mode.code, mode.size).map_err(failed)?;
        if set.pixels != mode.code {
            return Err("took another format than it offered; choose another 'format'".into());
        }
        if (set.width, set.height) != mode.size {
            return Err(format!(
                "wrong size: gives {}x{}, not {}x{}; change 'size' or the machine's screen",
                set.width, set.height, mode.size.0, mode.size.1
            ));
        }
        if let Some(fps) = wish.fps {
            sys::set_rate(&file, fps);
        }
        let stream = sys::Stream::start(file, 4).map_err(failed)?;
        Ok((stream, shape(mode.layout, &set)))
    }
}

impl Feed for Camera {
    fn run(&mut self, port: &Port) -> String {
        let mut rest = BACK_OFF.0;
        loop {
            let origin = self.path.display().to_string();
            let lost = self.start().and_then(|(stream, shape)| {
                let mut session = Session::new(port, stream, shape, origin);
                let end = session.run();
                if session.good {
                    rest = BACK_OFF.0;
                }
                end
            });
            let on = match lost {
                Err(why) => port.lose(format!("{}: {why}", self.path.display())) && port.pause(rest),
                Ok(()) => false,
            };
            if !on {
                return "the appliance ended".into();
            }
            rest = (rest * 2).min(BACK_OFF.1);
        }
    }
}

fn failed(error: Errno) -> String {
    match error {
        Errno::BUSY => "is used by another program; end that one".into(),
        Errno::NODEV => "the device is gone; plug it in".into(),
        error => format!("{}; replug the device", std::io::Error::from(error)),
    }
}

/// Why there is no signal, where the device knows: from the timings at an HDMI input, which are set as they are found, and
/// from the input's status. True at such an input.
fn check_signal(file: &File) -> Result<bool, String> {
    let hdmi = match sys::timings(file) {
        Ok(found) => match sys::set_timings(file, found) {
            // A stream that runs keeps its timings; they are set when it starts again.
            Ok(()) | Err(Errno::BUSY) => true,
            Err(error) => return Err(failed(error)),
        },
        Err(Errno::NOLINK) => return Err("no signal: nothing is connected; check the cable".into()),
        Err(Errno::NOLCK) => return Err("no signal: it is unstable; check the cable".into()),
        Err(Errno::RANGE) => {
            return Err(
                "no signal: out of the device's range; set the machine's screen to a smaller size".into()
            );
        }
        Err(Errno::NODEV) => return Err(failed(Errno::NODEV)),
        Err(_) => false,
    };
    let status = sys::input_status(file).map_err(failed)?;
    no_signal(status).map_or(Ok(hdmi), |why| Err(format!("no signal: {why}")))
}

/// The bits `V4L2_IN_ST_*` that mean that nothing can be seen.
fn no_signal(status: u32) -> Option<&'static str> {
    [
        (1, "the source has no power; switch it on"),
        (2, "nothing is connected or switched on; check the cable"),
        (0x0100, "the device cannot lock on it; check the cable"),
        (0x0001_0000, "the device cannot lock on it; check the cable"),
    ]
    .into_iter()
    .find_map(|(bit, why)| (status & bit != 0).then_some(why))
}

/// How pictures are to be read, by what the driver says and by the defaults of `linux/videodev2.h` where it does not.
fn shape(layout: Layout, set: &sys::PixFormat) -> Shape {
    let yuv = !matches!(layout, Layout::Grey | Layout::Rgb24);
    // V4L2_QUANTIZATION_FULL_RANGE and _LIM_RANGE; V4L2_COLORSPACE_JPEG means full range.
    let full = match set.range {
        1 => true,
        2 => false,
        _ => !yuv || set.colorspace == 7,
    };
    // V4L2_YCBCR_ENC_709; by default that of V4L2_COLORSPACE_REC709 and _DCI_P3.
    let bt709 = match set.matrix {
        0 => matches!(set.colorspace, 3 | 12),
        matrix => matrix == 2,
    };
    Shape { layout, width: set.width, height: set.height, stride: set.stride, full, bt709 }
}

#[cfg(test)]
mod tests;
