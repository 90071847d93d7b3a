//! Pictures that come and show nothing: what a card draws without a signal, and a picture that is frozen.
//!
//! A machine's screen may stand still for hours: over HDMI its pictures are then equal to the bit, which is no fault. So
//! equal pictures mean *frozen* only from a source whose noise was seen, all over the picture and in each of
//! [`NOISY`] pictures in a row: an analogue card or a camera, whose pictures are never equal. Which pictures a digital
//! source sends again nobody can tell from outside; its device's own count of pictures must go on, though.

use crate::Frame;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pictures in a row that differ everywhere from the one before, after which a source is known to be noisy.
const NOISY: u32 = 50;
/// Parts of a side of the picture in which noise must show.
const PARTS: usize = 4;
/// Equal pictures of a noisy source that are no chance.
const EQUAL: u32 = 5;

/// What a card shows that has no signal, or a machine whose screen is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Upright stripes from light to dark.
    Bars,
    /// One colour all over.
    Blue,
    /// Nothing.
    Black,
    /// One grey all over.
    Grey,
}

impl Pattern {
    /// What it means and how to mend it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Bars => "colour bars of the capture device; check the cable, and that the machine is on",
            Self::Blue => "one colour, as capture devices show without a signal; check the cable",
            Self::Black => "a black picture; wake the machine's screen, and check the cable",
            Self::Grey => "one grey, no picture; check the machine's screen and the cable",
        }
    }

    /// The pattern that fills a picture, bar a caption; none for any real screen.
    pub fn of(frame: &Frame) -> Option<Self> {
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let step = (width.max(height) / 240).max(1);
        let colour = frame.colour();
        let mut levels = [0u32; 256];
        let mut spread = [0u32; 256];
        for y in (0..height).step_by(step) {
            for x in (0..width).step_by(step) {
                let i = y * width + x;
                levels[usize::from(frame.pixels()[i])] += 1;
                spread[usize::from(colour.map_or(0, |c| c[i]))] += 1;
            }
        }
        let all: u32 = levels.iter().sum();
        let part = |list: &[u32]| f64::from(list.iter().sum::<u32>()) / f64::from(all);
        let near = |list: &[u32; 256]| {
            let most = (0..256).max_by_key(|i| list[*i]).unwrap_or(0);
            (most, part(&list[most.saturating_sub(3)..=(most + 3).min(255)]))
        };
        let ((_, level), (tint, tinted)) = (near(&levels), near(&spread));
        if part(&levels[..24]) > 0.998 && tint < 24 {
            Some(Self::Black)
        } else if level > 0.9 && tinted > 0.9 && tint >= 48 {
            Some(Self::Blue)
        } else if level > 0.995 && tint < 48 {
            Some(Self::Grey)
        } else {
            bars(frame, step).then_some(Self::Bars)
        }
    }
}

/// True for six to nine upright stripes of about one width, each of one grey, in the upper part of the picture.
fn bars(frame: &Frame, step: usize) -> bool {
    const ROWS: usize = 15;
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let columns = width.div_ceil(step);
    let mut middle = Vec::with_capacity(columns);
    let mut odd = 0;
    for x in (0..width).step_by(step) {
        let mut column: [u8; ROWS] =
            std::array::from_fn(|k| frame.pixels()[(height * 3 / 5) * k / ROWS * width + x]);
        column.sort_unstable();
        let level = column[ROWS / 2];
        odd += column.iter().filter(|v| v.abs_diff(level) > 8).count();
        middle.push(level);
    }
    // Captions are few.
    if odd * 100 > columns * ROWS * 15 {
        return false;
    }
    let runs = middle.chunk_by(|a, b| a.abs_diff(*b) <= 5).map(<[u8]>::len).filter(|n| *n > columns / 32);
    let (count, covered) = runs.clone().fold((0, 0), |(count, sum), n| (count + 1, sum + n));
    let even = runs.clone().all(|n| n * count * 2 > columns && n * count * 5 < columns * 8);
    (6..=9).contains(&count) && covered * 10 > columns * 9 && even
}

/// Watches a source's pictures for one that is frozen.
#[derive(Default)]
pub struct Stillness {
    /// Width and pixels of the last picture.
    last: Option<(u32, Arc<Vec<u8>>)>,
    stamp: Option<(u32, [i64; 2])>,
    noise: u32,
    equal: u32,
    since: Option<Instant>,
}

impl Stillness {
    /// Looks at the next picture, with the device's number and time for it; why it is no new one, after `patience`.
    pub fn see(
        &mut self,
        frame: &Frame,
        stamp: (u32, [i64; 2]),
        now: Instant,
        patience: Duration,
    ) -> Option<&'static str> {
        // A driver that counts nothing says nothing.
        let counted = stamp != (0, [0, 0]);
        let again = counted && self.stamp.replace(stamp) == Some(stamp);
        let same = self.last.as_ref().is_some_and(|(_, last)| **last == *frame.pixels());
        if self.noise < NOISY {
            let noisy =
                self.last.as_ref().is_some_and(|(width, last)| differ_everywhere(*width, last, frame));
            self.noise = if noisy { self.noise + 1 } else { 0 };
        }
        self.last = Some((frame.width(), frame.shared_pixels()));
        let still = again || (same && self.noise >= NOISY);
        if !still {
            (self.equal, self.since) = (0, None);
            return None;
        }
        self.equal += 1;
        let since = *self.since.get_or_insert(now);
        match (self.equal >= EQUAL && now.duration_since(since) >= patience, again) {
            (false, _) => None,
            (_, true) => Some("frozen: the device hands out the same picture again and again; replug it"),
            (_, false) => {
                Some("frozen: the picture's noise stands still; check the machine and replug the device")
            }
        }
    }
}

/// True when each of 4x4 parts holds a pixel that changed: noise does that, a machine's screen does not.
fn differ_everywhere(width: u32, old: &[u8], frame: &Frame) -> bool {
    let new = frame.pixels();
    if width != frame.width() || old.len() != new.len() {
        return false;
    }
    let (width, height) = (width as usize, frame.height() as usize);
    (0..PARTS * PARTS).all(|k| {
        let (left, right) = (width * (k % PARTS) / PARTS, width * (k % PARTS + 1) / PARTS);
        let mut rows = height * (k / PARTS) / PARTS..height * (k / PARTS + 1) / PARTS;
        rows.any(|y| old[y * width + left..y * width + right] != new[y * width + left..y * width + right])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(paint: impl Fn(u32, u32) -> [u8; 3]) -> Frame {
        let picture = image::RgbImage::from_fn(640, 360, |x, y| image::Rgb(paint(x, y)));
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Bmp).unwrap();
        Frame::decode(&bytes.into_inner(), "test".as_ref()).unwrap()
    }

    /// A caption as cards write it: a twelfth of the picture.
    fn caption(x: u32, y: u32) -> bool {
        (200..440).contains(&x) && (150..230).contains(&y) && !(x + y).is_multiple_of(3)
    }

    const BARS: [[u8; 3]; 8] = [
        [255, 255, 255],
        [255, 255, 0],
        [0, 255, 255],
        [0, 255, 0],
        [255, 0, 255],
        [255, 0, 0],
        [0, 0, 255],
        [0, 0, 0],
    ];

    #[test]
    fn patterns_are_known_also_with_a_caption_and_noise() {
        let noise = |x: u32, y: u32| (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)) as u8 % 4;
        let word = |x, y, rgb: [u8; 3]| if caption(x, y) { [250; 3] } else { rgb };
        let bars = frame(|x, y| word(x, y, BARS[(x / 80) as usize].map(|v| v / 4 * 3 + noise(x, y))));
        assert_eq!(Pattern::of(&bars), Some(Pattern::Bars));
        // SMPTE: seven stripes above, others below.
        let smpte =
            frame(|x, y| BARS[((x * 7 / 640) as usize + usize::from(y > 240) * 3) % 8].map(|v| v / 4 * 3));
        assert_eq!(Pattern::of(&smpte), Some(Pattern::Bars));
        let grey = frame(|x, _| [[235, 210, 170, 145, 106, 81, 41, 16][(x / 80) as usize]; 3]);
        assert_eq!(Pattern::of(&grey), Some(Pattern::Bars), "from a card that gives grey alone");
        assert_eq!(Pattern::of(&frame(|x, y| word(x, y, [10, 20, 200]))), Some(Pattern::Blue));
        assert_eq!(Pattern::of(&frame(|x, y| [noise(x, y) * 2; 3])), Some(Pattern::Black));
        assert_eq!(Pattern::of(&frame(|_, _| [128; 3])), Some(Pattern::Grey));
    }

    #[test]
    fn real_pictures_and_screens_are_no_pattern() {
        for entry in std::fs::read_dir("examples/bscans").unwrap() {
            let path = entry.unwrap().path();
            if crate::frame::is_picture(&path) {
                assert_eq!(Pattern::of(&Frame::read(&path).unwrap()), None, "{}", path.display());
            }
        }
        // A dark picture with a small bright part, a window with buttons, a ramp, level stripes.
        let dark = frame(|x, y| if x / 64 == 3 && y / 40 == 4 { [200; 3] } else { [4; 3] });
        assert_eq!(Pattern::of(&dark), None);
        let window = frame(|x, y| {
            if y < 60 && x % 80 < 60 {
                [90, 90, 160]
            } else if x > 300 {
                [20; 3]
            } else {
                [225; 3]
            }
        });
        assert_eq!(Pattern::of(&window), None);
        assert_eq!(Pattern::of(&frame(|x, _| [(x * 255 / 640) as u8; 3])), None);
        assert_eq!(Pattern::of(&frame(|_, y| BARS[(y / 45) as usize])), None);
    }

    /// What is said after pictures 40 ms apart, each of a kind and with a number.
    fn after(pictures: &[(&Frame, u32)]) -> Option<&'static str> {
        let (mut watch, start) = (Stillness::default(), Instant::now());
        let mut said = None;
        for (k, (frame, number)) in pictures.iter().enumerate() {
            let now = start + Duration::from_millis(40) * k as u32;
            said = watch.see(frame, (*number, [i64::from(*number), 0]), now, Duration::from_secs(1));
        }
        said
    }

    #[test]
    fn a_still_screen_is_no_fault_and_frozen_noise_is() {
        let noisy: Vec<Frame> =
            (0..2).map(|k| frame(|x, y| [((x * 7 + y * 13) as u8 ^ k) | 64; 3])).collect();
        let still: Vec<_> = (1..200).map(|n| (&noisy[0], n)).collect();
        assert_eq!(after(&still), None, "a digital source");
        // A live view in a part of the screen, then a still one.
        let part = frame(|x, y| [if x < 320 && y < 180 { 200 } else { ((x * 7 + y * 13) as u8) | 64 }; 3]);
        let mut live: Vec<_> = (1..200).map(|n| ([&noisy[0], &part][n as usize % 2], n)).collect();
        live.extend((200..300).map(|n| (&part, n)));
        assert_eq!(after(&live), None, "a digital source with a moving part");
        let mut analogue: Vec<_> = (1..100).map(|n| (&noisy[n as usize % 2], n)).collect();
        assert_eq!(after(&analogue), None);
        analogue.extend((100..120).map(|n| (&noisy[0], n)));
        assert_eq!(after(&analogue), None, "not yet for a second");
        analogue.extend((120..140).map(|n| (&noisy[0], n)));
        assert!(after(&analogue).is_some_and(|why| why.contains("noise stands still")));
        analogue.push((&noisy[1], 140));
        assert_eq!(after(&analogue), None, "it moves again");
        let mut stuck: Vec<_> = (1..10).map(|n| (&noisy[0], n)).collect();
        stuck.extend([(&noisy[0], 9); 30]);
        assert!(after(&stuck).is_some_and(|why| why.contains("again and again")));
        let uncounted = [(&noisy[0], 0); 60];
        assert_eq!(after(&uncounted), None, "a driver that does not count");
    }
}
