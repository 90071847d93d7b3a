//! Keyboards and touch screens through the kernel's input devices.
//!
//! Read directly: a key is 24 bytes, and of the calls only the range of a touch screen's axis is needed.

use super::{Button, Keys};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::ioctl::{Getter, opcode};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Which button a touch at (x, y) presses, each 0 to 1 from the upper left corner.
pub type Zones = fn(f32, f32) -> Button;

/// Time between two looks for devices that were plugged in.
const LOOK: Duration = Duration::from_secs(2);
/// Bytes of an event: two words of time, type, code, value.
const EVENT: usize = 2 * size_of::<usize>() + 8;

/// Numbers of linux/input-event-codes.h.
mod code {
    pub const SYN: u16 = 0;
    pub const KEY: u16 = 1;
    pub const ABS: u16 = 3;
    pub const TOUCH: u16 = 0x14a;
    pub const X: [u16; 2] = [0x00, 0x35];
    pub const Y: [u16; 2] = [0x01, 0x36];
}

/// The button of a key: space, enter, F, C and a camera's key; H, N, tab and right; E.
fn button(key: u16) -> Option<Button> {
    match key {
        57 | 28 | 96 | 33 | 46 | 212 => Some(Button::Capture),
        35 | 49 | 15 | 106 => Some(Button::Next),
        18 => Some(Button::Eye),
        _ => None,
    }
}

/// An event as the kernel writes it.
fn parse(bytes: &[u8]) -> Option<(u16, u16, i32)> {
    let word = bytes.get(EVENT - 8..EVENT)?;
    let half = |i: usize| u16::from_ne_bytes([word[i], word[i + 1]]);
    Some((half(0), half(2), i32::from_ne_bytes([word[4], word[5], word[6], word[7]])))
}

/// Smallest and largest value of a touch screen's axes.
type Range = (i32, i32);

/// A device's touch: where the finger is, and which button it presses.
#[derive(Default)]
struct Touch {
    at: (i32, i32),
    range: Option<(Range, Range)>,
    down: bool,
    pressed: Option<Button>,
}

impl Touch {
    /// The end of a report: the edge that it makes.
    fn report(&mut self, zones: Zones) -> Option<(Button, bool)> {
        match (self.down, self.pressed) {
            (true, None) => {
                let (x, y) = self.range?;
                let part = |at: i32, (low, high): Range| {
                    (f64::from(at) - f64::from(low)) / (f64::from(high) - f64::from(low)).max(1.0)
                };
                let button = zones(part(self.at.0, x) as f32, part(self.at.1, y) as f32);
                self.pressed = Some(button);
                Some((button, true))
            }
            (false, Some(button)) => {
                self.pressed = None;
                Some((button, false))
            }
            _ => None,
        }
    }
}

struct Device {
    path: PathBuf,
    file: File,
    touch: Touch,
    held: HashSet<u16>,
}

impl Device {
    fn open(path: &Path) -> std::io::Result<Self> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let range = range::<X_RANGE, MT_X_RANGE>(&file).zip(range::<Y_RANGE, MT_Y_RANGE>(&file));
        let touch = Touch { range, ..Touch::default() };
        Ok(Self { path: path.into(), file, touch, held: HashSet::new() })
    }

    /// Takes what the device says; false when it is gone.
    fn read(&mut self, keys: &Keys, zones: Zones) -> bool {
        let mut bytes = [0; EVENT * 64];
        match self.file.read(&mut bytes) {
            Ok(0) => false,
            Ok(length) => {
                for event in bytes[..length].chunks_exact(EVENT).filter_map(parse) {
                    self.event(event, keys, zones);
                }
                true
            }
            Err(error) => {
                matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
            }
        }
    }

    fn event(&mut self, (kind, code, value): (u16, u16, i32), keys: &Keys, zones: Zones) {
        let now = Instant::now();
        match (kind, code) {
            (code::KEY, code::TOUCH) => self.touch.down = value != 0,
            // 2 is a key that repeats.
            (code::KEY, key) if value != 2 => {
                if let Some(button) = button(key) {
                    if value == 1 {
                        self.held.insert(key);
                    } else {
                        self.held.remove(&key);
                    }
                    keys.edge(button, value == 1, now);
                }
            }
            (code::ABS, axis) if code::X.contains(&axis) => self.touch.at.0 = value,
            (code::ABS, axis) if code::Y.contains(&axis) => self.touch.at.1 = value,
            (code::SYN, _) => {
                if let Some((button, down)) = self.touch.report(zones) {
                    keys.edge(button, down, now);
                }
            }
            _ => {}
        }
    }

    /// A device that was unplugged holds nothing down.
    fn release(&mut self, keys: &Keys) {
        let held = self.held.drain().filter_map(button);
        for button in held.chain(self.touch.pressed.take()) {
            keys.edge(button, false, Instant::now());
        }
    }
}

const ABS_BYTES: usize = 24;
const fn abs(axis: u8) -> rustix::ioctl::Opcode {
    opcode::read::<[i32; ABS_BYTES / 4]>(b'E', 0x40 + axis)
}
const X_RANGE: rustix::ioctl::Opcode = abs(code::X[0] as u8);
const Y_RANGE: rustix::ioctl::Opcode = abs(code::Y[0] as u8);
const MT_X_RANGE: rustix::ioctl::Opcode = abs(code::X[1] as u8);
const MT_Y_RANGE: rustix::ioctl::Opcode = abs(code::Y[1] as u8);

/// The range of the first of two axes that the device has.
fn range<const FIRST: rustix::ioctl::Opcode, const SECOND: rustix::ioctl::Opcode>(
    file: &File,
) -> Option<Range> {
    // SAFETY: EVIOCGABS fills a struct input_absinfo, six integers of 32 bits, whatever device the file is.
    let first = unsafe { rustix::ioctl::ioctl(file, Getter::<FIRST, [i32; ABS_BYTES / 4]>::new()) };
    // SAFETY: as above.
    let second = || unsafe { rustix::ioctl::ioctl(file, Getter::<SECOND, [i32; ABS_BYTES / 4]>::new()) };
    let known = |info: &[i32; 6]| info[2] > info[1];
    let info = first.ok().filter(known).or_else(|| second().ok().filter(known))?;
    Some((info[1], info[2]))
}

/// Every device of a folder, as they come and go.
struct Inputs {
    folder: PathBuf,
    devices: Vec<Device>,
    looked: Option<Instant>,
    refused: HashSet<PathBuf>,
}

impl Inputs {
    fn look(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let event = entry.file_name().to_string_lossy().starts_with("event");
            if !event || self.devices.iter().any(|device| device.path == path) {
                continue;
            }
            match Device::open(&path) {
                Ok(device) => {
                    self.refused.remove(&path);
                    self.devices.push(device);
                }
                Err(error) => {
                    if self.refused.insert(path.clone()) {
                        tracing::warn!(
                            "{}: no input ({error}); add the user to the group 'input'",
                            path.display()
                        );
                    }
                }
            }
        }
    }

    fn turn(&mut self, keys: &Keys, zones: Zones) {
        self.look();
        let wait = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
        let mut list: Vec<PollFd<'_>> =
            self.devices.iter().map(|device| PollFd::new(&device.file, PollFlags::IN)).collect();
        if poll(&mut list, Some(&wait)).is_err() {
            std::thread::sleep(Duration::from_millis(100));
        }
        let spoke: Vec<bool> = list.iter().map(|device| !device.revents().is_empty()).collect();
        let mut spoke = spoke.into_iter();
        self.devices.retain_mut(|device| {
            let here = !spoke.next().unwrap_or(false) || device.read(keys, zones);
            if !here {
                device.release(keys);
            }
            here
        });
    }
}

/// Presses `keys` by all keyboards and touch screens of `folder` (`/dev/input`), from a thread of its own.
///
/// # Errors
/// When there is no thread.
pub fn start_inputs(folder: &Path, keys: Keys, zones: Zones) -> std::io::Result<()> {
    let mut inputs =
        Inputs { folder: folder.into(), devices: Vec::new(), looked: None, refused: HashSet::new() };
    let body = move || {
        loop {
            inputs.turn(&keys, zones);
        }
    };
    std::thread::Builder::new().name("inputs".into()).spawn(body).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buttons, Timing};
    use std::io::Write;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = vec![0; EVENT - 8];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
        bytes
    }

    fn zones(x: f32, _: f32) -> Button {
        if x < 0.5 { Button::Capture } else { Button::Next }
    }

    /// A named pipe speaks as a device does: blocks when empty, and ends when its writer goes.
    #[test]
    fn keys_are_read_and_a_device_that_goes_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("event0");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut keys = Keys::new(Timing { debounce: Duration::ZERO, long: Duration::from_millis(300) });
        start_inputs(folder.path(), keys.clone(), zones).unwrap();
        let mut wait = |time: u64| {
            let since = Instant::now();
            while since.elapsed() < Duration::from_millis(time) {
                if let Some(press) = keys.press() {
                    return Some((press.button, press.long));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            None
        };
        let mut pipe = OpenOptions::new().write(true).open(&path).unwrap();
        let stroke =
            [event(1, 18, 1), event(0, 0, 0), event(1, 18, 0), event(0, 0, 0), event(1, 30, 1)].concat();
        // Halves of events do not come from the kernel; whole ones come in any number.
        pipe.write_all(&stroke).unwrap();
        assert_eq!(wait(3000), Some((Button::Eye, false)));
        pipe.write_all(&[event(1, 57, 1), event(1, 57, 2)].concat()).unwrap();
        assert_eq!(wait(3000), Some((Button::Capture, true)));
        drop(pipe);
        assert_eq!(wait(800), None);
        // A press before the device goes is over with it.
        let mut pipe = OpenOptions::new().write(true).open(&path).unwrap();
        pipe.write_all(&event(1, 35, 1)).unwrap();
        drop(pipe);
        assert_eq!(wait(3000), Some((Button::Next, false)));
    }

    #[test]
    fn a_touch_presses_the_button_of_its_zone_until_it_ends() {
        let mut touch = Touch { range: Some(((0, 1000), (0, 500))), ..Touch::default() };
        touch.down = true;
        touch.at = (900, 10);
        assert_eq!(touch.report(zones), Some((Button::Next, true)));
        // A finger that moves stays on its button.
        touch.at = (10, 10);
        assert_eq!(touch.report(zones), None);
        touch.down = false;
        assert_eq!(touch.report(zones), Some((Button::Next, false)));
        assert_eq!(touch.report(zones), None);
        let mut unknown = Touch { down: true, ..Touch::default() };
        assert_eq!(unknown.report(zones), None);
    }

    #[test]
    fn keys_have_buttons() {
        let pressed = [57, 35, 18, 30].map(button);
        assert_eq!(pressed, [Some(Button::Capture), Some(Button::Next), Some(Button::Eye), None]);
    }
}
