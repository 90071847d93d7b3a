//! A capture device of Linux: `v4l2:///dev/video0?size=1280x720&format=yuyv&fps=30`.
//!
//! The kernel is asked directly, not through the `v4l` crate: that one waits for ever on a device that was pulled, hands
//! out whole buffers instead of `bytesused`, knows no events and no DV timings, and needs libclang to build. On a Jetson
//! this also passes by the libv4l2 plug-in. All waiting is bounded; a driver that hangs inside a call holds only this
//! thread, and the appliance notices that no sign of life comes. A sign of life is given for each good picture alone, so
//! that a finding leaves the screen when pictures stop.

mod convert;
mod sys;

use super::{Feed, Port, Signal};
use convert::{Layout, Shape};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Without a good picture for so long the signal is lost.
const SILENT: Duration = Duration::from_millis(1500);
/// Many devices need longer for their first.
const FIRST: Duration = Duration::from_secs(4);
/// Longest wait inside the kernel.
const POLL: Duration = Duration::from_millis(200);
/// Waits between two tries to open a device: doubled from the first to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// A capture device and what is asked of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Camera {
    /// Best a stable name, `/dev/v4l/by-id/…`: numbers change when a device is plugged in again.
    path: PathBuf,
    size: Option<(u32, u32)>,
    layout: Option<Layout>,
    fps: Option<f64>,
}

impl Camera {
    /// Reads what follows `v4l2:` in a source's name; none when it is wrong. The device need not be there yet.
    pub fn parse(rest: &str) -> Option<Self> {
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.starts_with('/') {
            return None;
        }
        let mut camera = Self { path: path.into(), size: None, layout: None, fps: None };
        for option in options.split('&').filter(|o| !o.is_empty()) {
            match option.split_once('=')? {
                ("size", size) => {
                    let (width, height) = size.split_once('x')?;
                    let side = |s: &str| s.parse().ok().filter(|n| (32..=16384).contains(n));
                    camera.size = Some((side(width)?, side(height)?));
                }
                ("format", name) => {
                    camera.layout = Some(Layout::ALL.into_iter().find(|l| l.names().0 == name)?);
                }
                ("fps", n) => camera.fps = Some(n.parse().ok().filter(|n| (1.0..=1000.0).contains(n))?),
                _ => return None,
            }
        }
        Some(camera)
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

    /// The format that is asked for, or the first of [`Layout::ALL`] that the device offers.
    fn choose(&self, file: &File) -> Result<(Layout, u32), String> {
        let offered = sys::formats(file);
        let code = |layout: Layout| {
            let known = layout.names().1.iter().map(|name| u32::from_le_bytes(**name));
            known.into_iter().find(|code| offered.contains(code)).map(|code| (layout, code))
        };
        match self.layout {
            Some(layout) => code(layout),
            None => Layout::ALL.into_iter().find_map(code),
        }
        .ok_or_else(|| {
            let names: Vec<_> =
                offered.iter().map(|c| String::from_utf8_lossy(&c.to_le_bytes()).into_owned()).collect();
            format!("offers only [{}]; choose another 'format', or another device", names.join(", "))
        })
    }

    /// Sets the device up and starts its stream.
    fn start(&self) -> Result<(sys::Stream, Shape), String> {
        let file = self.open()?;
        if !sys::captures(&file).map_err(failed)? {
            return Err("gives no pictures; take another of the device's names".into());
        }
        sys::subscribe(&file);
        check_signal(&file)?;
        let (layout, code) = self.choose(&file)?;
        let set = sys::current(&file).map_err(failed)?;
        let size = self.size.unwrap_or((set.width, set.height));
        let set = sys::set_format(&file, code, size).map_err(failed)?;
        if set.pixels != code {
            return Err("took another format than it offered; choose another 'format'".into());
        }
        if self.size.is_some_and(|size| size != (set.width, set.height)) {
            return Err(format!(
                "wrong size: gives {}x{}, not {}x{}; change 'size' or the machine's screen",
                set.width, set.height, size.0, size.1
            ));
        }
        if let Some(fps) = self.fps {
            sys::set_rate(&file, fps);
        }
        let stream = sys::Stream::start(file, 4).map_err(failed)?;
        Ok((stream, shape(layout, &set)))
    }

    /// Gives pictures until the signal is lost (an error) or the appliance ends. `good` is set by the first picture.
    fn session(&self, port: &Port, good: &mut bool) -> Result<(), String> {
        let (stream, shape) = self.start()?;
        let origin = self.path.display().to_string();
        let (mut bytes, mut last, mut broken) = (Vec::new(), Instant::now(), None::<String>);
        while !port.ended() {
            let ready = sys::wait(stream.file(), POLL).map_err(failed)?;
            if ready.event && sys::source_changed(stream.file()) {
                return Err("the signal changed; it is being looked at again".into());
            }
            if ready.picture {
                if let Some(buffer) = stream.newest().map_err(failed)? {
                    stream.copy(&buffer, &mut bytes);
                    stream.give_back(buffer).map_err(failed)?;
                    // V4L2_BUF_FLAG_ERROR: the driver knows that the picture is damaged.
                    let frame = if buffer.flags & 0x40 != 0 {
                        Err("the device marked the picture as damaged; check the cable and the hub".into())
                    } else {
                        convert::frame(&shape, &bytes, &origin).map_err(|error| error.to_string())
                    };
                    match frame {
                        Ok(frame) => {
                            (last, broken, *good) = (Instant::now(), None, true);
                            if !port.offer(frame) {
                                return Ok(());
                            }
                        }
                        // The first of a row is told; a row that lasts is a lost signal.
                        Err(why) => {
                            if broken.replace(why.clone()).is_none()
                                && !port.say(Signal::Note(format!("{origin}: {why}")))
                            {
                                return Ok(());
                            }
                        }
                    }
                }
            } else if ready.broken {
                return Err("the device is gone or its stream broke; check the cable".into());
            }
            let limit = if *good { SILENT } else { FIRST };
            if last.elapsed() > limit {
                check_signal(stream.file())?;
                let why = broken.unwrap_or_else(|| "check the cable and the machine's screen".into());
                return Err(format!("no good picture for {:.1} s: {why}", limit.as_secs_f64()));
            }
        }
        Ok(())
    }
}

impl Feed for Camera {
    fn run(&mut self, port: &Port) -> String {
        let mut rest = BACK_OFF.0;
        loop {
            let mut good = false;
            let lost = self.session(port, &mut good).err();
            if good {
                rest = BACK_OFF.0;
            }
            let on = match lost {
                Some(why) => {
                    port.say(Signal::Lost(format!("{}: {why}", self.path.display()))) && port.pause(rest)
                }
                None => false,
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

/// Why there is no signal, where the device knows: from the input's status, and the timings at an HDMI input, which are
/// set as they are found.
fn check_signal(file: &File) -> Result<(), String> {
    let status = sys::input_status(file).map_err(failed)?;
    no_signal(status).map_or(Ok(()), |why| Err(format!("no signal: {why}")))?;
    match sys::timings(file) {
        Ok(found) => match sys::set_timings(file, found) {
            // A stream that runs keeps its timings; they are set when it starts again.
            Ok(()) | Err(Errno::BUSY) => Ok(()),
            Err(error) => Err(failed(error)),
        },
        Err(Errno::NOLINK) => Err("no signal: nothing is connected; check the cable".into()),
        Err(Errno::NOLCK) => Err("no signal: it is unstable; check the cable".into()),
        Err(Errno::RANGE) => {
            Err("no signal: out of the device's range; set the machine's screen to a smaller size".into())
        }
        Err(Errno::NODEV) => Err(failed(Errno::NODEV)),
        // No HDMI input.
        Err(_) => Ok(()),
    }
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
