//! From a frame to the network's input, specified in integers so that trainer, CPU and GPU agree bit for bit.
//!
//! 1. The B-scan's region is cut out where one is configured.
//! 2. White margins become black: OCT exports fill what registration left empty with white, and the amount of it must
//!    not speak to the network. Only white runs that touch the region's edge, along a row or a column, are margin.
//! 3. The region is resized to 299x299 (the aspect is given up, as in the article: so a 512x512 picture that was
//!    stretched from 512x496 and its original give the same picture) by an antialiased triangle filter, columns first,
//!    then rows. Weights are 14-bit integers that sum to exactly 16384, each pass rounds half up: `(sum + 8192) >> 14`.
//!    What the gate and the image quality are measured on is this picture of the whole region.
//! 4. The band of rows around the retina is found in it ([`band`]) and resized again, from the region's own rows: the
//!    network's input.

pub mod band;

use crate::bands;
use crate::frame::Frame;
use crate::kernels::{self, Filter};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;

/// Side of the network's square input in pixels.
pub const SIDE: usize = 299;

/// The network's input: 299x299 grey bytes; the network sees `byte / 255`.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkInput(pub Box<[u8; SIDE * SIDE]>);

impl std::fmt::Debug for NetworkInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NetworkInput({SIDE}x{SIDE})")
    }
}

/// A rectangle in a frame, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width, at least 32.
    pub width: u32,
    /// Height, at least 32.
    pub height: u32,
}

impl Region {
    /// All of a frame.
    pub fn whole(frame: &Frame) -> Self {
        Self { x: 0, y: 0, width: frame.width(), height: frame.height() }
    }
}

/// The region is not inside the frame.
#[derive(Debug, thiserror::Error)]
#[error(
    "{origin}: the region {width}x{height} at ({x}, {y}) does not lie in the {frame_width}x{frame_height} picture; \
     correct `region` in the config",
    width = region.width, height = region.height, x = region.x, y = region.y
)]
pub struct RegionError {
    /// The frame's origin.
    pub origin: String,
    /// The region asked for.
    pub region: Region,
    /// The frame's width.
    pub frame_width: u32,
    /// The frame's height.
    pub frame_height: u32,
}

/// A region that lies in its frame: a picture that can be read.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    frame: &'a Frame,
    region: Region,
}

impl<'a> Cut<'a> {
    /// The region of a frame, or all of it.
    ///
    /// # Errors
    /// [`RegionError`] when the region leaves the frame or is smaller than 32x32.
    pub fn new(frame: &'a Frame, region: Option<Region>) -> Result<Self, RegionError> {
        let (fw, fh) = (frame.width(), frame.height());
        let r = region.unwrap_or(Region::whole(frame));
        let inside = |start: u32, length: u32, all: u32| {
            length >= 32 && start.checked_add(length).is_some_and(|end| end <= all)
        };
        if !inside(r.x, r.width, fw) || !inside(r.y, r.height, fh) {
            return Err(RegionError {
                origin: frame.origin.clone(),
                region: r,
                frame_width: fw,
                frame_height: fh,
            });
        }
        Ok(Self { frame, region: r })
    }

    /// The frame.
    pub fn frame(&self) -> &'a Frame {
        self.frame
    }

    /// Where in it the B-scan lies.
    pub fn region(&self) -> Region {
        self.region
    }
}

/// How frames become inputs; part of a model's manifest, so that a model is always fed as it was trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    /// Input side in pixels; always [`SIDE`].
    pub side: usize,
    /// The filter; always `triangle`.
    pub filter: String,
    /// Runs of pixels at least this white that touch the edge are margin; 0 keeps all.
    pub margin_white: u8,
    /// Least height of the band around the retina, in percent of the region's height; 100 keeps all rows.
    #[serde(default = "all_rows")]
    pub band: u8,
}

/// Of models from before there was a band.
fn all_rows() -> u8 {
    100
}

impl Default for Preparation {
    fn default() -> Self {
        Self { side: SIDE, filter: "triangle".into(), margin_white: 240, band: 60 }
    }
}

/// What a frame gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// What the network sees: the band around the retina.
    pub input: NetworkInput,
    /// The whole region at the same size, for the gate and the image quality.
    pub whole: NetworkInput,
    /// Where in the frame lies what the network sees.
    pub place: Region,
}

/// A frame's B-scan, cut out and with its margins blackened, and the share of it that was margin.
#[derive(Clone, Debug)]
pub struct Scan<'a> {
    /// Where in the frame it lies.
    pub region: Region,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Grey bytes, margins 0.
    pub pixels: Cow<'a, [u8]>,
    /// Share of margin, 0 to 1.
    pub margin: f32,
}

impl Preparation {
    /// Cuts the region out (the whole frame without one) and blackens white margins.
    ///
    /// # Errors
    /// [`RegionError`] when the region leaves the frame or is smaller than 32x32.
    pub fn scan<'a>(&self, frame: &'a Frame, region: Option<Region>) -> Result<Scan<'a>, RegionError> {
        Ok(self.blackened(Cut::new(frame, region)?))
    }

    fn blackened<'a>(&self, cut: Cut<'a>) -> Scan<'a> {
        let (frame, r) = (cut.frame, cut.region);
        let (width, height) = (r.width as usize, r.height as usize);
        // The frame's own pixels where nothing is cut off; they are copied when there is margin to blacken.
        let mut pixels = if r == Region::whole(frame) {
            Cow::Borrowed(frame.pixels())
        } else {
            let row = |y: usize| (r.y as usize + y) * frame.width() as usize + r.x as usize;
            Cow::Owned((0..height).flat_map(|y| &frame.pixels()[row(y)..row(y) + width]).copied().collect())
        };
        let margin =
            if self.margin_white == 0 { 0 } else { blacken(&mut pixels, width, height, self.margin_white) };
        Scan { region: r, width, height, margin: margin as f32 / (width * height) as f32, pixels }
    }

    /// The network's input from a scan.
    pub fn input(&self, scan: &Scan<'_>) -> Prepared {
        let region = scan.region;
        let mut narrow = vec![0; SIDE * scan.height];
        let filter = Filter::between(scan.width, SIDE);
        let band = bands::rows(scan.height, scan.width);
        bands::each(&mut narrow, SIDE * band, |number, out| {
            kernels::rows(&scan.pixels[number * band * scan.width..], &filter, out);
        });
        let square = |rows: Range<usize>| {
            let mut input = Box::new([0; SIDE * SIDE]);
            let filter = Filter::between(rows.len(), SIDE);
            let pixels = &narrow[rows.start * SIDE..rows.end * SIDE];
            kernels::columns(pixels, SIDE, &filter, &mut input[..]);
            NetworkInput(input)
        };
        let whole = square(0..scan.height);
        let (first, height) = band::find(&whole, self.band);
        if height == SIDE {
            return Prepared { input: whole.clone(), whole, place: region };
        }
        let pixels = |rows: usize| (rows * scan.height + SIDE / 2) / SIDE;
        let rows = pixels(first)..pixels(first + height).max(pixels(first) + 1);
        let place = Region { y: region.y + rows.start as u32, height: rows.len() as u32, ..region };
        Prepared { input: square(rows), whole, place }
    }

    /// [`Self::scan`] and [`Self::input`] in one.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub fn prepare(&self, frame: &Frame, region: Option<Region>) -> Result<Prepared, RegionError> {
        Ok(self.prepare_cut(Cut::new(frame, region)?))
    }

    /// The same of a region that is known to lie in its frame.
    pub fn prepare_cut(&self, cut: Cut<'_>) -> Prepared {
        self.input(&self.blackened(cut))
    }
}

/// Sets white runs at the edges to 0 and returns how many pixels they had; `white` is at least 1.
fn blacken(pixels: &mut Cow<'_, [u8]>, width: usize, height: usize, white: u8) -> usize {
    let run = |row: &[u8]| row.iter().take_while(|p| **p >= white).count();
    let back = |row: &[u8]| row.iter().rev().take_while(|p| **p >= white).count();
    // All runs are measured before the first is set.
    let sides: Vec<_> = pixels.chunks_exact(width).map(|row| (run(row), back(row))).collect();
    let mut rows = pixels.chunks_exact(width);
    let top = columns(&mut rows, width, white);
    let bottom = columns(&mut pixels.chunks_exact(width).rev(), width, white);
    if sides.iter().all(|side| *side == (0, 0)) && top.iter().chain(&bottom).all(|count| *count == 0) {
        return 0;
    }
    let pixels = pixels.to_mut();
    let mut margin = 0;
    // What is margin in two ways is 0 the second time.
    let mut set = |part: &mut [u8]| {
        margin += part.iter().filter(|p| **p > 0).count();
        part.fill(0);
    };
    for (row, (left, right)) in pixels.chunks_exact_mut(width).zip(sides) {
        set(&mut row[..left]);
        set(&mut row[width - right..]);
    }
    for x in 0..width {
        (0..top[x]).chain(height - bottom[x]..height).for_each(|y| set(&mut pixels[y * width + x..][..1]));
    }
    margin
}

/// How many pixels from the first row on are white, in each column.
fn columns(rows: &mut dyn Iterator<Item = &[u8]>, width: usize, white: u8) -> Vec<usize> {
    let mut counts = vec![0; width];
    for (y, row) in rows.enumerate() {
        let mut any = false;
        for (count, pixel) in counts.iter_mut().zip(row) {
            let longer = *count == y && *pixel >= white;
            *count += usize::from(longer);
            any |= longer;
        }
        if !any {
            break;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(width: u32, height: u32, f: impl Fn(u32, u32) -> u8) -> Frame {
        let pixels =
            (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| f(x, y)).collect();
        Frame::new(width, height, pixels, "test").unwrap()
    }

    #[test]
    fn same_size_is_identity() {
        let f = frame(299, 299, |x, y| (x * 7 + y * 13) as u8 % 230);
        let prepared = Preparation::default().prepare(&f, None).unwrap();
        assert_eq!(f.pixels(), &prepared.whole.0[..]);
        assert_eq!(prepared.input, prepared.whole, "nothing stands out, so all is kept");
    }

    #[test]
    fn margins_become_black_and_inner_white_stays() {
        let f = frame(299, 299, |x, y| {
            if y < 20 || (100..120).contains(&x) && (100..120).contains(&y) { 255 } else { 50 }
        });
        let p = Preparation::default();
        let scan = p.scan(&f, None).unwrap();
        assert!((scan.margin - 20.0 / 299.0).abs() < 1e-6);
        let input = p.input(&scan).whole;
        assert_eq!((input.0[5 * SIDE + 5], input.0[110 * SIDE + 110], input.0[200 * SIDE + 5]), (0, 255, 50));
    }

    /// The definition in plain loops: margins as a set of pixels, then the passes with a transposition between.
    fn defined(frame: &Frame, white: u8) -> (Vec<u8>, f32) {
        let (w, h) = (frame.width() as usize, frame.height() as usize);
        let mut pixels = frame.pixels().to_vec();
        let mut margin = vec![false; w * h];
        let mut run = |indices: &mut dyn Iterator<Item = usize>| {
            indices.take_while(|&i| pixels[i] >= white).for_each(|i| margin[i] = true);
        };
        for y in 0..h {
            run(&mut (0..w).map(|x| y * w + x));
            run(&mut (0..w).rev().map(|x| y * w + x));
        }
        for x in 0..w {
            run(&mut (0..h).map(|y| y * w + x));
            run(&mut (0..h).rev().map(|y| y * w + x));
        }
        pixels.iter_mut().zip(&margin).filter(|(_, m)| **m).for_each(|(p, _)| *p = 0);
        let pass = |pixels: &[u8], width: usize| -> Vec<u8> {
            let rows = pixels.len() / width;
            let filter = Filter::between(width, SIDE);
            // Turned, so that a second pass turns back.
            (0..SIDE * rows)
                .map(|i| {
                    let (o, y) = (i / rows, i % rows);
                    let (first, weights) = &filter.taps()[o];
                    let row = &pixels[y * width + first..];
                    let sum: i32 = weights.iter().zip(row).map(|(w, p)| i32::from(*w) * i32::from(*p)).sum();
                    ((sum + 8192) >> 14).clamp(0, 255) as u8
                })
                .collect()
        };
        let share = margin.iter().filter(|m| **m).count() as f32 / (w * h) as f32;
        (pass(&pass(&pixels, w), h), share)
    }

    #[test]
    fn the_band_is_resized_from_the_frames_own_rows() {
        // Stripes of one row each in the middle of a picture of 598 rows: lost at half the height, kept in the band.
        let f = frame(
            299,
            598,
            |x, y| {
                if (200..380).contains(&y) { 120 + 60 * (y % 2) as u8 } else { x as u8 % 8 }
            },
        );
        let p = Preparation { band: 50, ..Default::default() };
        let region = Region { x: 0, y: 10, width: 299, height: 588 };
        let prepared = p.prepare(&f, Some(region)).unwrap();
        let place = prepared.place;
        assert_eq!((place.x, place.width), (0, 299));
        assert!((290..=300).contains(&place.height), "{place:?}");
        assert!(place.y <= 200 && place.y + place.height >= 380, "{place:?}");
        let alone = Preparation { band: 100, ..p.clone() }.prepare(&f, Some(place)).unwrap();
        assert_eq!(prepared.input, alone.input);
        let contrast = |input: &NetworkInput| {
            (0..SIDE - 1)
                .map(|y| input.0[y * SIDE].abs_diff(input.0[(y + 1) * SIDE]))
                .fold(0u32, |s, d| s + u32::from(d))
        };
        assert!(contrast(&prepared.input) > 3 * contrast(&prepared.whole));
    }

    #[test]
    fn region_outside_is_an_error() {
        let f = frame(100, 100, |_, _| 9);
        for region in [
            Region { x: 50, y: 0, width: 51, height: 50 },
            Region { x: u32::MAX, y: 0, width: 40, height: 40 },
            Region { x: 0, y: 0, width: 3, height: 40 },
        ] {
            assert!(Preparation::default().prepare(&f, Some(region)).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn every_byte_is_as_defined(w in 32u32..60, h in 32u32..90, seed: u32, white in 1u8..) {
            // Bright in places, so that margins of all shapes appear.
            let noise = |x: u32, y: u32| ((x / 7) ^ (y / 5)).wrapping_mul(2654435761).wrapping_add(seed) >> 20;
            let f = frame(w, h, |x, y| if noise(x, y) & 3 > 0 { 255 } else { (noise(y, x) >> 2) as u8 });
            let p = Preparation { margin_white: white, ..Default::default() };
            let scan = p.scan(&f, None).unwrap();
            let (want, margin) = defined(&f, white);
            prop_assert!(p.input(&scan).whole.0[..] == want[..]);
            prop_assert_eq!(scan.margin, margin);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        // A slow reference in floats with the same triangle: within one grey level and a rounding per pass.
        #[test]
        fn resize_matches_float_reference(w in 32u32..700, h in 32u32..700, seed: u32) {
            let f = frame(w, h, |x, y| ((x ^ seed).wrapping_mul(2654435761).wrapping_add(y.wrapping_mul(40503)) >> 24) as u8);
            let p = Preparation { margin_white: 0, ..Default::default() };
            let got = p.prepare(&f, None).unwrap().whole;
            let weight = |from: u32, o: usize, i: u32| {
                let scale = f64::from(from) / SIDE as f64;
                let d = ((o as f64 + 0.5) * scale - (f64::from(i) + 0.5)) / scale.max(1.0);
                (1.0 - d.abs()).max(0.0)
            };
            for (oy, ox) in [(0, 0), (298, 298), (150, 7), (seed as usize % 299, (seed >> 9) as usize % 299)] {
                let (mut sum, mut all) = (0.0, 0.0);
                for y in 0..h {
                    let wy = weight(h, oy, y);
                    if wy == 0.0 { continue; }
                    for x in 0..w {
                        let k = wy * weight(w, ox, x);
                        sum += k * f64::from(f.pixels()[(y * w + x) as usize]);
                        all += k;
                    }
                }
                prop_assert!((sum / all - f64::from(got.0[oy * SIDE + ox])).abs() <= 1.6);
            }
        }
    }
}
