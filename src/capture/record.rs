//! What was captured, kept for [`Replay`](super::Replay): PNG pictures in a folder of bounded size.
//!
//! A frame knows the grey of each pixel and how far its colours lie apart. A coloured one is kept in colours of that grey
//! and distance, not its own: what is replayed is read as the original was, to the byte.

use crate::Frame;
use crate::frame::luma;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Pictures are kept at most so often.
const PACE: Duration = Duration::from_secs(1);
/// Bytes of a folder in all; the oldest pictures go first.
const BOUND: u64 = 1 << 30;

/// Keeps pictures from a thread of its own, so that a slow disk holds nothing up.
pub struct Recorder {
    work: SyncSender<Arc<Frame>>,
    last: Option<(Instant, Arc<Vec<u8>>)>,
}

impl Recorder {
    /// Records into `folder`, which is made where missing; `note` gets a line when pictures cannot be kept.
    ///
    /// # Errors
    /// Those of the system.
    pub fn start(folder: &Path, note: impl Fn(String) + Send + 'static) -> std::io::Result<Self> {
        let mut store = Store::open(folder, BOUND)?;
        let (work, jobs) = sync_channel::<Arc<Frame>>(1);
        thread::Builder::new().name("recorder".into()).spawn(move || {
            let mut failed = false;
            while let Ok(frame) = jobs.recv() {
                match store.keep(&frame) {
                    Ok(()) => failed = false,
                    Err(error) => {
                        let place = store.folder.display();
                        if !std::mem::replace(&mut failed, true) {
                            note(format!("{place}: pictures are not recorded ({error}); check the disk"));
                        }
                    }
                }
            }
        })?;
        Ok(Self { work, last: None })
    }

    /// Keeps a picture that differs from the last, not more often than once a second.
    pub fn take(&mut self, frame: &Arc<Frame>) {
        if self.last.as_ref().is_some_and(|(at, pixels)| at.elapsed() < PACE || **pixels == frame.pixels()) {
            return;
        }
        // The disk is slow: a later one.
        if self.work.try_send(Arc::clone(frame)).is_ok() {
            self.last = Some((Instant::now(), frame.shared_pixels()));
        }
    }
}

/// The folder: what it holds, the oldest first.
struct Store {
    folder: PathBuf,
    held: VecDeque<(PathBuf, u64)>,
    bytes: u64,
    bound: u64,
    number: u64,
}

impl Store {
    fn open(folder: &Path, bound: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut held: Vec<(PathBuf, u64)> = Vec::new();
        let mut number = 0;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Halves of a run that was cut off.
            if name.starts_with(".fovea-") {
                std::fs::remove_file(entry.path())?;
            }
            // Other files in the folder are not ours to delete.
            if let Some(n) = own(&name) {
                number = number.max(n + 1);
                held.push((entry.path(), entry.metadata()?.len()));
            }
        }
        held.sort();
        let bytes = held.iter().map(|(_, size)| size).sum();
        Ok(Self { folder: folder.into(), held: held.into(), bytes, bound, number })
    }

    fn keep(&mut self, frame: &Frame) -> std::io::Result<()> {
        // The clock may be wrong; the number gives the order.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("fovea-{:09}-{}.png", self.number, since.as_millis());
        let (half, path) = (self.folder.join(format!(".{name}")), self.folder.join(&name));
        save(frame, &half)
            .and_then(|()| std::fs::rename(&half, &path))
            .inspect_err(|_| drop(std::fs::remove_file(&half)))?;
        self.number += 1;
        let size = path.metadata()?.len();
        self.held.push_back((path, size));
        self.bytes += size;
        while self.bytes > self.bound && self.held.len() > 1 {
            if let Some((oldest, size)) = self.held.pop_front() {
                self.bytes -= size;
                std::fs::remove_file(oldest)?;
            }
        }
        Ok(())
    }
}

/// The number in the name of a picture that a recorder wrote.
fn own(name: &str) -> Option<u64> {
    let (number, time) = name.strip_prefix("fovea-")?.strip_suffix(".png")?.split_once('-')?;
    (number.len() == 9 && time.parse::<u64>().is_ok()).then_some(number.parse().ok()?)
}

/// Writes a frame so that reading it gives the same frame again.
///
/// # Errors
/// Those of the system.
pub fn save(frame: &Frame, path: &Path) -> std::io::Result<()> {
    let (bytes, kind) = match frame.colour() {
        None => (frame.pixels().into(), image::ExtendedColorType::L8),
        Some(colour) => {
            let mut known = HashMap::new();
            let pixels = frame.pixels().iter().zip(colour);
            let rgb = pixels.flat_map(|(grey, spread)| {
                *known.entry((*grey, *spread)).or_insert_with(|| tint(*grey, *spread))
            });
            (rgb.collect::<Vec<u8>>().into(), image::ExtendedColorType::Rgb8)
        }
    };
    let bytes: std::borrow::Cow<'_, [u8]> = bytes;
    image::save_buffer_with_format(path, &bytes, frame.width(), frame.height(), kind, image::ImageFormat::Png)
        .map_err(std::io::Error::other)
}

/// A colour of that grey whose channels lie so far apart; the grey itself where no colour has both.
fn tint(grey: u8, spread: u8) -> [u8; 3] {
    for least in 0..=255 - spread {
        let most = least + spread;
        for between in least..=most {
            for rgb in [
                [least, between, most],
                [least, most, between],
                [between, least, most],
                [between, most, least],
                [most, least, between],
                [most, between, least],
            ] {
                if luma(rgb[0], rgb[1], rgb[2]) == grey {
                    return rgb;
                }
            }
        }
    }
    [grey; 3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_tint_has_the_colours_grey_and_spread(r: u8, g: u8, b: u8) {
            let spread = r.max(g).max(b) - r.min(g).min(b);
            let [x, y, z] = tint(luma(r, g, b), spread);
            prop_assert_eq!(luma(x, y, z), luma(r, g, b));
            prop_assert_eq!(x.max(y).max(z) - x.min(y).min(z), spread);
        }
    }

    fn frame(value: u8, colour: bool) -> Arc<Frame> {
        let grey: Vec<u8> = (0..64 * 48).map(|i| value ^ (i % 64) as u8).collect();
        let colour = if colour { vec![3; 64 * 48] } else { Vec::new() };
        Arc::new(Frame::with_colour(64, 48, grey, colour, "test").unwrap())
    }

    #[test]
    fn what_is_kept_is_the_same_when_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        for colour in [false, true] {
            let frame = frame(128, colour);
            save(&frame, &path).unwrap();
            let back = Frame::read(&path).unwrap();
            assert_eq!((back.pixels(), back.colour()), (frame.pixels(), frame.colour()));
        }
    }

    #[test]
    fn the_folder_is_bounded_and_goes_on_where_it_ended() {
        let place = tempfile::tempdir().unwrap();
        let names = || {
            let files = std::fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name());
            let mut names: Vec<String> = files.map(|name| name.to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        let mut store = Store::open(place.path(), u64::MAX).unwrap();
        store.keep(&frame(0, false)).unwrap();
        let size = store.bytes;
        std::fs::write(place.path().join("notes.png"), "not ours").unwrap();
        std::fs::write(place.path().join(".fovea-000000001-5.png"), "half").unwrap();
        let mut store = Store::open(place.path(), size * 3 + size / 2).unwrap();
        assert_eq!((store.number, store.held.len()), (1, 1));
        for value in 1..6 {
            store.keep(&frame(value, false)).unwrap();
        }
        let kept = names();
        assert!(
            kept.len() == 4 && kept[0].starts_with("fovea-000000003-") && kept[3] == "notes.png",
            "{kept:?}"
        );
        assert!(store.bytes <= store.bound);
    }

    #[test]
    fn equal_pictures_and_too_many_are_not_kept() {
        let place = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::start(&place.path().join("new"), |note| panic!("{note}")).unwrap();
        let count = || std::fs::read_dir(place.path().join("new")).unwrap().count();
        let wait = |wanted: usize| {
            let since = Instant::now();
            while count() < wanted && since.elapsed() < Duration::from_secs(5) {
                thread::sleep(Duration::from_millis(10));
            }
        };
        for value in [1, 1, 2, 3] {
            recorder.take(&frame(value, false));
        }
        wait(1);
        recorder.last.as_mut().unwrap().0 -= PACE;
        recorder.take(&frame(1, false));
        recorder.take(&frame(2, false));
        wait(2);
        drop(recorder);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(count(), 2, "the first, and another one a second later");
    }
}
