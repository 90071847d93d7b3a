//! A picture in memory, and masks of one colour on it.

use super::letters::{Blend, Mask};
use embedded_graphics::{pixelcolor::Rgb888, prelude::*, primitives::Rectangle};

/// A picture in memory to draw on: RGB bytes, row by row. Drawing outside is counted and not done.
#[derive(Clone)]
pub struct Picture {
    size: Size,
    rgb: Vec<u8>,
    /// Pixels that were drawn outside.
    pub outside: usize,
}

impl Picture {
    /// A black picture of `width` x `height` pixels.
    pub fn new(width: u32, height: u32) -> Self {
        Self {
            size: Size::new(width, height),
            rgb: vec![0; width as usize * height as usize * 3],
            outside: 0,
        }
    }

    /// The bytes, 3 a pixel, row by row.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Bytes from row to row.
    pub(super) fn pitch(&self) -> usize {
        self.size.width as usize * 3
    }

    /// The bytes from a pixel on that lies inside.
    pub(super) fn from(&mut self, at: Point) -> &mut [u8] {
        let first = at.y as usize * self.size.width as usize + at.x as usize;
        &mut self.rgb[first * 3..]
    }

    /// The bytes of a row of an area that lies inside.
    fn row(&mut self, area: &Rectangle, y: usize) -> &mut [u8] {
        let at = area.top_left + Point::new(0, y as i32);
        &mut self.from(at)[..area.size.width as usize * 3]
    }

    /// Blends a mask whose upper left corner stands `at`, within `clip`, which lies inside; gives the covered pixels that
    /// lie outside `rect`.
    pub(super) fn mask(
        &mut self,
        mask: &Mask,
        at: Point,
        colours: &Blend,
        rect: Rectangle,
        clip: Rectangle,
    ) -> usize {
        if mask.width == 0 {
            return 0;
        }
        let place = Rectangle::new(at, Size::new(mask.width as u32, (mask.cover.len() / mask.width) as u32));
        let mut astray = 0;
        if rect.intersection(&place) != place {
            let covered = place.points().zip(&mask.cover).filter(|(_, step)| **step > 0);
            astray = covered.filter(|(point, _)| !rect.contains(*point)).count();
        }
        let shown = place.intersection(&clip).intersection(&rect);
        let skip = (shown.top_left.x - at.x) as usize;
        for y in 0..shown.size.height as usize {
            let line = (shown.top_left.y - at.y) as usize + y;
            let steps = &mask.cover[line * mask.width + skip..][..shown.size.width as usize];
            let (pixels, _) = self.row(&shown, y).as_chunks_mut::<3>();
            for (pixel, step) in pixels.iter_mut().zip(steps) {
                if *step > 0 {
                    *pixel = colours[usize::from(*step)];
                }
            }
        }
        astray
    }
}

impl OriginDimensions for Picture {
    fn size(&self) -> Size {
        self.size
    }
}

impl DrawTarget for Picture {
    type Color = Rgb888;
    type Error = std::convert::Infallible;
    fn draw_iter<I: IntoIterator<Item = embedded_graphics::Pixel<Rgb888>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Self::Error> {
        for embedded_graphics::Pixel(at, colour) in pixels {
            if self.bounding_box().contains(at) {
                self.from(at)[..3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            } else {
                self.outside += 1;
            }
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, colour: Rgb888) -> Result<(), Self::Error> {
        let inside = self.bounding_box().intersection(area);
        let pixels = |r: &Rectangle| r.size.width as usize * r.size.height as usize;
        self.outside += pixels(area) - pixels(&inside);
        if pixels(&inside) == 0 {
            return Ok(());
        }
        // The first row pixel by pixel, the others as copies of it.
        let (first, length) = (self.row(&inside, 0).as_chunks_mut::<3>().0, inside.size.width as usize * 3);
        first.fill([colour.r(), colour.g(), colour.b()]);
        let pitch = self.pitch();
        let (first, rest) =
            self.from(inside.top_left).split_at_mut(length.next_multiple_of(pitch).min(pitch));
        for row in rest.chunks_mut(pitch).take(inside.size.height as usize - 1) {
            row[..length].copy_from_slice(&first[..length]);
        }
        Ok(())
    }
}
