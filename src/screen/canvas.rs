//! Type, shapes and pictures on a draw target, each clipped to its box.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use embedded_graphics::{Pixel, pixelcolor::Rgb888, prelude::*, primitives::Rectangle};

/// Where a line of type stands in its box; always centred vertically.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Align {
    Left,
    Centre,
    Right,
}

/// A draw target with type. `clipped` counts the pixels of type that would have left their box.
pub(super) struct Canvas<'a, D> {
    pub(super) target: &'a mut D,
    pub(super) clipped: usize,
    regular: Option<FontRef<'static>>,
    bold: Option<FontRef<'static>>,
}

/// A box from its corner and size; negative sizes become 0.
pub(super) fn area(x: i32, y: i32, w: i32, h: i32) -> Rectangle {
    Rectangle::new(Point::new(x, y), Size::new(w.max(0) as u32, h.max(0) as u32))
}

fn blend(fg: Rgb888, bg: Rgb888, part: u8) -> Rgb888 {
    let mix = |f: u8, b: u8| {
        ((u32::from(f) * u32::from(part) + u32::from(b) * (255 - u32::from(part)) + 127) / 255) as u8
    };
    Rgb888::new(mix(fg.r(), bg.r()), mix(fg.g(), bg.g()), mix(fg.b(), bg.b()))
}

impl<'a, D: DrawTarget<Color = Rgb888>> Canvas<'a, D> {
    pub(super) fn new(target: &'a mut D) -> Self {
        Self {
            target,
            clipped: 0,
            regular: FontRef::try_from_slice(dejavu::sans::regular()).ok(),
            bold: FontRef::try_from_slice(dejavu::sans::bold()).ok(),
        }
    }

    /// One line of type in `rect` at most `px` high: made smaller, and at last cut with an ellipsis, until it fits.
    pub(super) fn text(
        &mut self,
        rect: Rectangle,
        text: &str,
        px: i32,
        (fg, bg): (Rgb888, Rgb888),
        heavy: bool,
        align: Align,
    ) -> Result<(), D::Error> {
        let font = if heavy { self.bold.clone() } else { self.regular.clone() };
        let Some(font) = font else { return Ok(()) };
        let (w, h) = (rect.size.width as f32, rect.size.height as f32);
        let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut px = (px as f32).min(h / 1.2);
        while px > 11.0 && width(&font, px, &line) > w {
            px -= 1.0;
        }
        while width(&font, px, &line) > w && line.chars().count() > 1 {
            line.pop();
            line.pop();
            line.push('…');
        }
        let scaled = font.as_scaled(PxScale::from(px));
        let spare = w - width(&font, px, &line);
        let mut x = rect.top_left.x as f32
            + match align {
                Align::Left => 0.0,
                Align::Centre => (spare / 2.0).floor(),
                Align::Right => spare.floor(),
            };
        let baseline = (rect.top_left.y as f32 + (h + scaled.ascent() + scaled.descent()) / 2.0).round();
        let mut pixels = Vec::new();
        for c in line.chars() {
            let glyph = scaled.scaled_glyph(c);
            let advance = scaled.h_advance(glyph.id);
            let mut glyph = glyph;
            glyph.position = point(x.round(), baseline);
            if let Some(outline) = font.outline_glyph(glyph) {
                let bounds = outline.px_bounds();
                outline.draw(|gx, gy, part| {
                    let at = Point::new(bounds.min.x as i32 + gx as i32, bounds.min.y as i32 + gy as i32);
                    // 16 steps of coverage, so that the last bits of a float do not change a picture.
                    let part = (part.clamp(0.0, 1.0) * 15.0 + 0.5) as u8 * 17;
                    if part > 0 {
                        if rect.contains(at) {
                            pixels.push(Pixel(at, blend(fg, bg, part)));
                        } else {
                            self.clipped += 1;
                        }
                    }
                });
            }
            x += advance.round();
        }
        self.target.draw_iter(pixels)
    }

    /// Words over up to `lines` lines from the top of `rect`, each `px` high.
    pub(super) fn paragraph(
        &mut self,
        rect: Rectangle,
        text: &str,
        px: i32,
        colours: (Rgb888, Rgb888),
        align: Align,
    ) -> Result<(), D::Error> {
        let Some(font) = self.regular.clone() else { return Ok(()) };
        let step = px * 5 / 4;
        let most = (rect.size.height as i32 / step).max(1) as usize;
        let mut lines: Vec<String> = vec![String::new()];
        for word in text.split_whitespace() {
            let count = lines.len();
            if let Some(last) = lines.last_mut() {
                let longer = if last.is_empty() { word.to_owned() } else { format!("{last} {word}") };
                if last.is_empty()
                    || count == most
                    || width(&font, px as f32, &longer) <= rect.size.width as f32
                {
                    *last = longer;
                } else {
                    lines.push(word.to_owned());
                }
            }
        }
        for (i, line) in lines.iter().enumerate() {
            let row = area(rect.top_left.x, rect.top_left.y + i as i32 * step, rect.size.width as i32, step);
            self.text(row, line, px, colours, false, align)?;
        }
        Ok(())
    }

    pub(super) fn fill(&mut self, rect: Rectangle, colour: Rgb888) -> Result<(), D::Error> {
        self.target.fill_solid(&rect, colour)
    }

    /// A shape with smooth edges in `rect`: `inside` takes coordinates from -1 to 1.
    pub(super) fn shape(
        &mut self,
        rect: Rectangle,
        (fg, bg): (Rgb888, Rgb888),
        inside: fn(f32, f32) -> bool,
    ) -> Result<(), D::Error> {
        let (w, h) = (rect.size.width as i32, rect.size.height as i32);
        let colours = (0..w * h).map(|i| {
            let hits = (0..16)
                .filter(|s| {
                    let x = ((i % w) * 8 + (s % 4) * 2 + 1) as f32 / (w * 4) as f32 - 1.0;
                    let y = ((i / w) * 8 + (s / 4) * 2 + 1) as f32 / (h * 4) as f32 - 1.0;
                    inside(x, y)
                })
                .count();
            blend(fg, bg, (hits * 255 / 16) as u8)
        });
        self.target.fill_contiguous(&rect, colours)
    }
}

fn width(font: &FontRef<'static>, px: f32, text: &str) -> f32 {
    let scaled = font.as_scaled(PxScale::from(px));
    // One pixel to spare for the last letter's overhang.
    1.0 + text.chars().map(|c| scaled.h_advance(scaled.glyph_id(c)).round()).sum::<f32>()
}
