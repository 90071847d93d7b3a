//! Seeded changes to the source picture, before it is prepared: what other patients, hands and machines do to a B-scan.
//! Each leaves the finding as it is, so there is no flip from top to bottom: depth has a direction.

use super::bilinear;
use crate::phantom::rng::{Rng, blur_plane};
use fovea::prepare::{NetworkInput, Preparation, RegionError, Scan};
use fovea::{Frame, prepare::Region};
use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder};
use std::borrow::Cow;

/// How likely each change is, and how far it goes at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength {
    /// Probability of a mirror image (left and right eye).
    pub flip: f32,
    /// Least side of the part that is cut out, as a share; it is scaled back to the whole.
    pub crop: f32,
    /// Largest rotation, in degrees, either way.
    pub degrees: f32,
    /// The exponent is drawn between its inverse and this.
    pub gamma: f32,
    /// Largest deviation of multiplicative noise.
    pub speckle: f32,
    /// Most shadows, as vessels and floaters cast them, and the largest share of light that one takes.
    pub shadows: (u32, f32),
    /// Largest deviation of the blur, in pixels.
    pub defocus: f32,
    /// Lowest quality of a JPEG file, 1 to 100; 100 for no JPEG.
    pub jpeg: u8,
}

impl Default for Strength {
    fn default() -> Self {
        Self {
            flip: 0.5,
            crop: 0.8,
            degrees: 10.0,
            gamma: 1.5,
            speckle: 0.25,
            shadows: (3, 0.7),
            defocus: 1.5,
            jpeg: 30,
        }
    }
}

/// Probability of each change that is not geometric.
const OFTEN: f32 = 0.5;

impl Strength {
    /// The network's input of a changed picture; the same for the same `seed` and `stream`.
    ///
    /// # Errors
    /// As [`Preparation::scan`].
    pub fn input(
        &self,
        preparation: &Preparation,
        frame: &Frame,
        seed: u64,
        stream: u64,
    ) -> Result<NetworkInput, RegionError> {
        let scan = preparation.scan(frame, None)?;
        let (width, height) = (scan.width, scan.height);
        let pixels = self.change(&scan.pixels, width, &mut Rng::new(seed, stream));
        let region = Region { x: 0, y: 0, width: width as u32, height: height as u32 };
        let scan = Scan { region, pixels: Cow::Owned(pixels), ..scan };
        Ok(preparation.input(&scan).input)
    }

    /// A changed picture of the same size: placed anew, shadowed, blurred, noisy, developed, compressed, in this order,
    /// which is that of light, optics, detector, display and file.
    fn change(&self, pixels: &[u8], width: usize, rng: &mut Rng) -> Vec<u8> {
        let mut plane = self.place(pixels, width, rng);
        for _ in 0..rng.whole(0, self.shadows.0) {
            let (centre, reach) = (rng.within(0.0, width as f32), rng.within(0.005, 0.04) * width as f32);
            let depth = rng.within(0.0, self.shadows.1);
            let light: Vec<f32> = (0..width)
                .map(|x| 1.0 - depth * (-0.5 * ((x as f32 - centre) / reach).powi(2)).exp())
                .collect();
            plane
                .chunks_exact_mut(width)
                .flat_map(|row| row.iter_mut().zip(&light))
                .for_each(|(v, l)| *v *= l);
        }
        if rng.chance(OFTEN) && self.defocus > 0.0 {
            let sigma = rng.within(0.2, 1.0) * self.defocus;
            plane = blur_plane(&plane, width, (sigma, sigma));
        }
        if rng.chance(OFTEN) {
            let deviation = rng.within(0.0, self.speckle);
            plane.iter_mut().for_each(|v| *v *= 1.0 + deviation * rng.normal());
        }
        let exponent = if rng.chance(OFTEN) { self.gamma.powf(rng.within(-1.0, 1.0)) } else { 1.0 };
        let bytes: Vec<u8> = plane
            .iter()
            .map(|v| (255.0 * (v / 255.0).max(0.0).powf(exponent)).round().min(255.0) as u8)
            .collect();
        let quality = rng.whole(u32::from(self.jpeg), 100) as u8;
        if rng.chance(OFTEN) && quality < 100 {
            compress(&bytes, width, quality).unwrap_or(bytes)
        } else {
            bytes
        }
    }

    /// A part of the picture, scaled to the whole, turned and mirrored. What lies outside is black, as margins are.
    fn place(&self, pixels: &[u8], width: usize, rng: &mut Rng) -> Vec<f32> {
        let height = pixels.len() / width;
        let mirror = if rng.chance(self.flip) { -1.0 } else { 1.0 };
        let (sin, cos) = rng.within(-self.degrees, self.degrees).to_radians().sin_cos();
        let (zoom_x, zoom_y) = (rng.within(self.crop, 1.0), rng.within(self.crop, 1.0));
        let (w, h) = (width as f32, height as f32);
        // The part may lie anywhere that keeps it inside, were it not turned.
        let dx = rng.within(-0.5, 0.5) * (1.0 - zoom_x) * w;
        let dy = rng.within(-0.5, 0.5) * (1.0 - zoom_y) * h;
        let (cx, cy) = ((w - 1.0) / 2.0, (h - 1.0) / 2.0);
        let mut plane = Vec::with_capacity(pixels.len());
        for y in 0..height {
            for x in 0..width {
                let (x, y) = (mirror * (x as f32 - cx) * zoom_x, (y as f32 - cy) * zoom_y);
                let at = (cos * x + sin * y + cx + dx, cos * y - sin * x + cy + dy);
                plane.push(bilinear(pixels, width, at));
            }
        }
        plane
    }
}

/// Through a JPEG file and back; `None` where the picture is too large for one.
fn compress(pixels: &[u8], width: usize, quality: u8) -> Option<Vec<u8>> {
    let (w, h) = (u32::try_from(width).ok()?, u32::try_from(pixels.len() / width).ok()?);
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, quality)
        .write_image(pixels, w, h, ExtendedColorType::L8)
        .ok()?;
    let picture = image::load_from_memory_with_format(&file, image::ImageFormat::Jpeg).ok()?;
    Some(picture.into_luma8().into_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Strength = Strength {
        flip: 0.0,
        crop: 1.0,
        degrees: 0.0,
        gamma: 1.0,
        speckle: 0.0,
        shadows: (0, 0.0),
        defocus: 0.0,
        jpeg: 100,
    };

    /// A bright slope over a dark ground, 120 x 90.
    fn picture() -> Vec<u8> {
        let value = |i: usize| {
            let (x, y) = (i % 120, i / 120);
            if (30 + x / 6..60).contains(&y) { 120 + x as u8 } else { 10 }
        };
        (0..120 * 90).map(value).collect()
    }

    fn changed(strength: Strength, stream: u64) -> Vec<u8> {
        strength.change(&picture(), 120, &mut Rng::new(7, stream))
    }

    /// How many of 40 streams satisfy `f`.
    fn count(strength: Strength, f: impl Fn(&[u8]) -> bool) -> usize {
        (0..40).filter(|&stream| f(&changed(strength, stream))).count()
    }

    fn mean(pixels: &[u8]) -> f64 {
        pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / pixels.len() as f64
    }

    #[test]
    fn nothing_changes_nothing_and_seeds_decide() {
        assert_eq!(changed(NOTHING, 1), picture());
        let strong = Strength::default();
        assert_eq!(changed(strong, 3), changed(strong, 3));
        assert_ne!(changed(strong, 3), changed(strong, 4));
    }

    #[test]
    fn each_change_does_what_it_says() {
        let before = picture();
        let mirrored: Vec<u8> = before.chunks_exact(120).flat_map(|row| row.iter().rev().copied()).collect();
        assert_eq!(count(Strength { flip: 1.0, ..NOTHING }, |p| p == mirrored), 40);
        let flips = count(Strength { flip: 0.5, ..NOTHING }, |p| p == mirrored);
        assert!((10..=30).contains(&flips), "{flips}");

        // A part in the middle that is scaled up makes the bright band thicker.
        let column = |p: &[u8]| (0..90).filter(|y| p[y * 120 + 60] > 100).count();
        let thick = count(Strength { crop: 0.6, ..NOTHING }, |p| column(p) > column(&before));
        assert!(thick >= 30, "{thick}");

        // Turned by a degree a corner of a lit picture leaves it.
        let dark = |p: &[u8]| p.iter().filter(|&&v| v < 10).count();
        assert!(count(Strength { degrees: 10.0, ..NOTHING }, |p| dark(p) > 20) >= 30);

        let darker = count(Strength { gamma: 2.0, ..NOTHING }, |p| mean(p) < mean(&before) - 1.0);
        let lighter = count(Strength { gamma: 2.0, ..NOTHING }, |p| mean(p) > mean(&before) + 1.0);
        assert!(darker >= 5 && lighter >= 5, "{darker} {lighter}");

        let noisy = count(Strength { speckle: 0.3, ..NOTHING }, |p| {
            p != before && (mean(p) - mean(&before)).abs() < 3.0
        });
        assert!((10..=30).contains(&noisy), "{noisy}");

        // A shadow takes light from columns, never gives.
        let shadows = Strength { shadows: (3, 0.7), ..NOTHING };
        assert_eq!(count(shadows, |p| p.iter().zip(&before).all(|(a, b)| a <= b)), 40);
        assert!(count(shadows, |p| mean(p) < mean(&before) - 1.0) >= 15);

        let edge = |p: &[u8]| (0..89).map(|y| p[y * 120 + 60].abs_diff(p[y * 120 + 180])).max();
        let soft = count(Strength { defocus: 3.0, ..NOTHING }, |p| edge(p) < edge(&before));
        assert!((10..=30).contains(&soft), "{soft}");

        let packed =
            count(Strength { jpeg: 5, ..NOTHING }, |p| p != before && (mean(p) - mean(&before)).abs() < 3.0);
        assert!((10..=30).contains(&packed), "{packed}");
    }

    #[test]
    fn inputs_are_prepared_after_the_change() {
        let frame = Frame::new(120, 90, picture(), "test").unwrap();
        let preparation = Preparation::default();
        let plain = preparation.prepare(&frame, None).unwrap().input;
        assert_eq!(NOTHING.input(&preparation, &frame, 1, 2).unwrap(), plain);
        assert_ne!(Strength::default().input(&preparation, &frame, 1, 2).unwrap(), plain);
    }
}
