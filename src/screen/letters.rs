//! Type and marks as coverage masks: rasterised once, kept, and blended from tables.

use super::{Align, Referral};
use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use embedded_graphics::{pixelcolor::Rgb888, prelude::*, primitives::Rectangle};
use std::collections::HashMap;
use std::rc::Rc;

/// Steps of coverage, so that the last bits of a float do not change a picture.
pub const STEPS: usize = 16;

/// Coverage of a rectangle: 0 to `STEPS - 1` of a letter, 0 to `STEPS` of a mark.
pub struct Mask {
    /// Left edge from the pen, upper edge from the baseline; of a mark 0.
    pub left: i32,
    pub top: i32,
    pub width: usize,
    pub cover: Vec<u8>,
}

/// What a mask becomes in two colours, for each step of coverage.
pub type Blend = [[u8; 3]; STEPS + 1];

/// A line of type as it fits its box.
pub struct Line {
    /// Height in pixels.
    size: f32,
    heavy: bool,
    /// Letters and where the pen stands for each, from the left edge of the box.
    letters: Vec<(char, i32)>,
    /// From the upper edge of the box.
    baseline: i32,
}

/// A line's box, size in pixels, weight and place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Style {
    pub width: u32,
    pub height: u32,
    pub px: i32,
    pub heavy: bool,
    pub align: Align,
}

/// Beyond so many kept values of a kind all are made anew: texts come from outside, and memory must not grow with them.
const KEPT: usize = 4096;

/// Both weights of the typeface, and all that was made of them.
pub struct Letters {
    fonts: [Option<FontRef<'static>>; 2],
    advances: HashMap<(bool, u32, char), i32>,
    masks: HashMap<(bool, u32, char), Option<Rc<Mask>>>,
    lines: HashMap<(Style, String), Rc<Line>>,
    paragraphs: HashMap<(Style, String), Rc<Vec<String>>>,
    marks: HashMap<(usize, u32, u32), Rc<Mask>>,
}

impl Letters {
    pub fn new() -> Self {
        let font = |bytes| FontRef::try_from_slice(bytes).ok();
        Self {
            fonts: [font(dejavu::sans::regular()), font(dejavu::sans::bold())],
            advances: HashMap::new(),
            masks: HashMap::new(),
            lines: HashMap::new(),
            paragraphs: HashMap::new(),
            marks: HashMap::new(),
        }
    }

    /// Width of a letter in whole pixels.
    fn advance(&mut self, heavy: bool, size: f32, c: char) -> i32 {
        if let Some(known) = self.advances.get(&(heavy, size.to_bits(), c)) {
            return *known;
        }
        let Some(font) = &self.fonts[usize::from(heavy)] else { return 0 };
        let scaled = font.as_scaled(PxScale::from(size));
        let advance = scaled.h_advance(scaled.glyph_id(c)).round() as i32;
        keep(&mut self.advances, (heavy, size.to_bits(), c), advance)
    }

    /// Width of a line; one pixel to spare for the last letter's overhang.
    fn width(&mut self, heavy: bool, size: f32, text: &str) -> i32 {
        1 + text.chars().map(|c| self.advance(heavy, size, c)).sum::<i32>()
    }

    /// A letter's coverage; none of a blank.
    pub fn mask(&mut self, line: &Line, c: char) -> Option<Rc<Mask>> {
        let key = (line.heavy, line.size.to_bits(), c);
        if let Some(known) = self.masks.get(&key) {
            return known.clone();
        }
        let font = self.fonts[usize::from(line.heavy)].as_ref()?;
        let mut glyph = font.as_scaled(PxScale::from(line.size)).scaled_glyph(c);
        glyph.position = point(0.0, 0.0);
        let mask = font.outline_glyph(glyph).map(|outline| {
            let bounds = outline.px_bounds();
            let (width, height) = (bounds.width() as usize, bounds.height() as usize);
            let mut cover = vec![0; width * height];
            outline.draw(|x, y, part| {
                if let Some(step) = cover.get_mut(y as usize * width + x as usize) {
                    *step = (part.clamp(0.0, 1.0) * (STEPS - 1) as f32 + 0.5) as u8;
                }
            });
            Rc::new(Mask { left: bounds.min.x as i32, top: bounds.min.y as i32, width, cover })
        });
        keep(&mut self.masks, key, mask)
    }

    /// One line of type at most `px` high: made smaller, and at last cut with an ellipsis, until it fits.
    pub fn line(&mut self, style: Style, text: &str) -> Rc<Line> {
        if let Some(known) = self.lines.get(&(style, text.to_owned())) {
            return Rc::clone(known);
        }
        let (w, heavy) = (style.width as i32, style.heavy);
        let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut size = (style.px as f32).min(style.height as f32 / 1.2);
        while size > 11.0 && self.width(heavy, size, &line) > w {
            size -= 1.0;
        }
        while self.width(heavy, size, &line) > w && line.chars().count() > 1 {
            line.pop();
            line.pop();
            line.push('…');
        }
        let spare = w - self.width(heavy, size, &line);
        let mut pen = match style.align {
            Align::Left => 0,
            Align::Centre => spare.div_euclid(2),
            Align::Right => spare,
        };
        let baseline = self.fonts[usize::from(heavy)].as_ref().map_or(0.0, |font| {
            let scaled = font.as_scaled(PxScale::from(size));
            ((style.height as f32 + scaled.ascent() + scaled.descent()) / 2.0).round()
        });
        let mut letters = Vec::new();
        for c in line.chars() {
            letters.push((c, pen));
            pen += self.advance(heavy, size, c);
        }
        let line = Rc::new(Line { size, heavy, letters, baseline: baseline as i32 });
        keep(&mut self.lines, (style, text.to_owned()), line)
    }

    /// Words over as many lines as `style`'s box has room for.
    pub fn paragraph(&mut self, style: Style, text: &str) -> Rc<Vec<String>> {
        if let Some(known) = self.paragraphs.get(&(style, text.to_owned())) {
            return Rc::clone(known);
        }
        let most = (style.height as i32 / step(style.px)).max(1) as usize;
        let mut lines: Vec<String> = vec![String::new()];
        for word in text.split_whitespace() {
            let count = lines.len();
            if let Some(last) = lines.last_mut() {
                let longer = if last.is_empty() { word.to_owned() } else { format!("{last} {word}") };
                if last.is_empty()
                    || count == most
                    || self.width(false, style.px as f32, &longer) <= style.width as i32
                {
                    *last = longer;
                } else {
                    lines.push(word.to_owned());
                }
            }
        }
        keep(&mut self.paragraphs, (style, text.to_owned()), Rc::new(lines))
    }

    /// The shape of a referral with smooth edges, 16 samples a pixel.
    pub fn mark(&mut self, referral: Referral, size: Size) -> Rc<Mask> {
        let key = (referral as usize, size.width, size.height);
        if let Some(known) = self.marks.get(&key) {
            return Rc::clone(known);
        }
        let (w, h) = (size.width as i32, size.height as i32);
        let inside = referral.shape();
        let hits = |i: i32| {
            let hit = |s: &i32| {
                let x = ((i % w) * 8 + (s % 4) * 2 + 1) as f32 / (w * 4) as f32 - 1.0;
                let y = ((i / w) * 8 + (s / 4) * 2 + 1) as f32 / (h * 4) as f32 - 1.0;
                inside(x, y)
            };
            (0..16).filter(hit).count() as u8
        };
        let mask = Mask { left: 0, top: 0, width: w as usize, cover: (0..w * h).map(hits).collect() };
        keep(&mut self.marks, key, Rc::new(mask))
    }
}

impl Line {
    /// Letters with the place of each pen.
    pub fn letters(&self, rect: Rectangle) -> impl Iterator<Item = (char, Point)> + '_ {
        self.letters.iter().map(move |(c, pen)| (*c, rect.top_left + Point::new(*pen, self.baseline)))
    }
}

/// From line to line of a paragraph.
pub fn step(px: i32) -> i32 {
    px * 5 / 4
}

/// Colours of a mask whose full coverage is `full`.
pub fn blend(fg: Rgb888, bg: Rgb888, full: usize) -> Blend {
    std::array::from_fn(|step| {
        let part = (step.min(full) * 255 / full) as u32;
        let mix = |f: u8, b: u8| ((u32::from(f) * part + u32::from(b) * (255 - part) + 127) / 255) as u8;
        [mix(fg.r(), bg.r()), mix(fg.g(), bg.g()), mix(fg.b(), bg.b())]
    })
}

fn keep<K: Eq + std::hash::Hash, V: Clone>(kept: &mut HashMap<K, V>, key: K, value: V) -> V {
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(key, value.clone());
    value
}
