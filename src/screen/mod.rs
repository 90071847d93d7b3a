//! What the operator sees, laid out for 480x320 to 1920x1080 on any draw target.
//!
//! Referral is told by colour, word and shape at once; the colours are those of Okabe and Ito, told apart by
//! colour-blind eyes. A finding is drawn only in the states that have one.

mod canvas;

use crate::prepare::Region;
use crate::{Class, Frame};
use canvas::{Align, Canvas, area};
use embedded_graphics::{pixelcolor::Rgb888, prelude::*, primitives::Rectangle};
use std::time::Duration;

pub use crate::diagnosis::Referral;

impl Referral {
    /// Vermilion, amber, blue, grey.
    fn colour(self) -> Rgb888 {
        [
            Rgb888::new(240, 106, 40),
            Rgb888::new(240, 190, 50),
            Rgb888::new(86, 180, 233),
            Rgb888::new(170, 176, 184),
        ][self as usize]
    }

    /// Octagon, triangle, circle, square.
    fn shape(self) -> fn(f32, f32) -> bool {
        match self {
            Referral::Urgent => |x, y| x.abs() <= 0.98 && y.abs() <= 0.98 && x.abs() + y.abs() <= 1.386,
            Referral::Routine => |x, y| (-0.9..=0.86).contains(&y) && x.abs() <= (y + 0.9) / 1.76,
            Referral::Observe => |x, y| x * x + y * y <= 0.96,
            Referral::Repeat => |x, y| x.abs() <= 0.86 && y.abs() <= 0.86,
        }
    }
}

/// What the screen says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The model is loading.
    Starting,
    /// The source is alive; no result yet.
    Waiting,
    /// A finding stands.
    Finding,
    /// The answer is not sure enough.
    Uncertain,
    /// The picture is no OCT B-scan.
    NotOct,
    /// The source stopped, with the reason.
    SignalLost(String),
    /// The appliance failed, with the reason.
    Fault(String),
}

/// A result as the screen shows it.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    /// The picture that was read.
    pub picture: &'a Frame,
    /// 8x8 map, row by row, 0 to 1.
    pub map: Option<&'a [f32; 64]>,
    /// What of the picture the map covers: what the network saw.
    pub place: Region,
    /// The finding in large type.
    pub finding: &'a str,
    /// Calibrated probabilities in the order of [`Class::ALL`].
    pub probabilities: [f32; 4],
    /// What to do.
    pub referral: Referral,
    /// Image quality in a word.
    pub quality: &'a str,
    /// Why the answer is what it is; empty where there is nothing to say.
    pub reason: &'a str,
    /// Time since the picture was captured.
    pub age: Duration,
    /// The engine that answered.
    pub engine: &'a str,
    /// Its time in milliseconds.
    pub millis: f32,
}

/// All that is on the screen.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// What the screen says.
    pub state: State,
    /// The result; drawn in [`State::Finding`], [`State::Uncertain`] and [`State::NotOct`] alone.
    pub shown: Option<Shown<'a>>,
    /// The model's name and version.
    pub model: &'a str,
}

const GROUND: Rgb888 = Rgb888::new(11, 14, 20);
const PANEL: Rgb888 = Rgb888::new(21, 26, 35);
const TRACK: Rgb888 = Rgb888::new(42, 49, 62);
const TYPE: Rgb888 = Rgb888::new(240, 243, 248);
const FAINT: Rgb888 = Rgb888::new(160, 170, 185);

/// Draws the whole screen.
///
/// # Errors
/// Those of the target.
pub fn draw<D: DrawTarget<Color = Rgb888>>(view: &View<'_>, target: &mut D) -> Result<(), D::Error> {
    paint(view, target).map(|_| ())
}

/// Draws, and counts the pixels of type that did not fit their box.
fn paint<D: DrawTarget<Color = Rgb888>>(view: &View<'_>, target: &mut D) -> Result<usize, D::Error> {
    let size = target.bounding_box().size;
    let (w, h) = (size.width as i32, size.height as i32);
    let unit = (h / 40).min(w / 60).max(1);
    let small = (unit * 3 / 2).max(12);
    let bar = small * 2;
    let mut c = Canvas::new(target);
    c.fill(area(0, 0, w, h), GROUND)?;
    c.text(area(unit, 0, w / 4, bar), "fovea", small * 5 / 4, (TYPE, GROUND), true, Align::Left)?;
    c.text(area(w / 3, 0, w * 2 / 3 - unit, bar), view.model, small, (FAINT, GROUND), false, Align::Right)?;
    let foot = h - bar;
    let note = "decision support, not a diagnosis";
    c.text(area(unit, foot, w * 3 / 5, bar), note, small, (TYPE, GROUND), false, Align::Left)?;
    let body = area(unit, bar, w - 2 * unit, foot - bar);
    let has_result = matches!(view.state, State::Finding | State::Uncertain | State::NotOct);
    match &view.shown {
        Some(shown) if has_result => {
            let engine = format!("{} · {:.0} ms", shown.engine, shown.millis);
            let place = area(w * 13 / 20, foot, w - w * 13 / 20 - unit, bar);
            c.text(place, &engine, small, (FAINT, GROUND), false, Align::Right)?;
            result(&mut c, &view.state, shown, body, unit, small)?;
        }
        _ => notice(&mut c, &view.state, body, unit)?,
    }
    Ok(c.clipped)
}

/// The states without a finding: one word, one line of advice.
fn notice<D: DrawTarget<Color = Rgb888>>(
    c: &mut Canvas<'_, D>,
    state: &State,
    body: Rectangle,
    unit: i32,
) -> Result<(), D::Error> {
    let (word, advice, colour) = match state {
        State::Starting => ("STARTING", "the model is loading and proving itself", FAINT),
        State::SignalLost(why) => ("SIGNAL LOST", why.as_str(), Referral::Routine.colour()),
        State::Fault(why) => ("FAULT", why.as_str(), Referral::Urgent.colour()),
        _ => ("WAITING", "take a B-scan", Referral::Observe.colour()),
    };
    let (x, y) = (body.top_left.x, body.top_left.y);
    let (w, h) = (body.size.width as i32, body.size.height as i32);
    c.fill(body, PANEL)?;
    c.fill(area(x, y, w, unit / 2 + 1), colour)?;
    let big = unit * 6;
    let top = y + h / 2 - big;
    c.text(
        area(x + unit, top - big / 4, w - 2 * unit, big * 5 / 4),
        word,
        big,
        (colour, PANEL),
        true,
        Align::Centre,
    )?;
    let room = area(x + w / 10, top + big + unit, w * 4 / 5, y + h - (top + big + unit));
    c.paragraph(room, advice, unit * 2 + 2, (TYPE, PANEL), Align::Centre)
}

fn result<D: DrawTarget<Color = Rgb888>>(
    c: &mut Canvas<'_, D>,
    state: &State,
    shown: &Shown<'_>,
    body: Rectangle,
    unit: i32,
    small: i32,
) -> Result<(), D::Error> {
    let (x, y) = (body.top_left.x, body.top_left.y);
    let (w, h) = (body.size.width as i32, body.size.height as i32);
    let left = (w - unit) * 29 / 50;
    c.fill(area(x, y, left, h), Rgb888::BLACK)?;
    picture(c, shown, area(x, y, left, h))?;

    let (x, w) = (x + left + unit, w - left - unit);
    c.fill(area(x, y, w, h), PANEL)?;
    let colour = shown.referral.colour();
    c.fill(area(x, y, w, unit / 2 + 1), colour)?;
    let (x, w) = (x + unit, w - 2 * unit);
    let big = unit * 7;
    let mut y = y + unit;
    let word = match state {
        State::Uncertain => "UNCERTAIN",
        State::NotOct => "NOT OCT",
        _ => shown.finding,
    };
    c.text(area(x, y, w, big), word, big, (TYPE, PANEL), true, Align::Left)?;
    y += big;
    let mark = unit * 4;
    c.shape(area(x, y, mark, mark), (colour, PANEL), shown.referral.shape())?;
    let beside = area(x + mark + unit, y, w - mark - unit, mark);
    c.text(beside, shown.referral.word(), mark, (colour, PANEL), true, Align::Left)?;
    y += mark + unit;
    let bottom = body.top_left.y + h - unit / 2;
    let fact = small * 7 / 4;
    let facts = bottom - 2 * fact;
    if *state != State::NotOct {
        let step = (fact * 7 / 4).min((facts - y - 2 * small) / 4);
        let best = shown.probabilities.iter().copied().fold(0.0, f32::max);
        for (class, p) in Class::ALL.iter().zip(shown.probabilities) {
            let p = if p.is_finite() { p.clamp(0.0, 1.0) } else { 0.0 };
            let top = p == best && *state == State::Finding;
            let ink = (if top { TYPE } else { FAINT }, PANEL);
            let (name, number) = (w * 9 / 25, w / 5);
            c.text(area(x, y, name - unit / 2, step), class.name(), small * 5 / 4, ink, top, Align::Left)?;
            let track = w - name - number;
            let thick = (step / 2).max(3);
            let at = y + (step - thick) / 2;
            c.fill(area(x + name, at, track, thick), TRACK)?;
            c.fill(area(x + name, at, (track as f32 * p) as i32, thick), if top { colour } else { FAINT })?;
            let percent = format!("{:.0} %", p * 100.0);
            c.text(area(x + name + track, y, number, step), &percent, small * 5 / 4, ink, top, Align::Right)?;
            y += step;
        }
    }
    if facts - y >= small * 5 / 4 {
        c.paragraph(
            area(x, y + small / 4, w, facts - y - small / 4),
            shown.reason,
            small,
            (TYPE, PANEL),
            Align::Left,
        )?;
    }
    let age = match shown.age.as_secs() {
        s @ 0..=119 => format!("{s} s old"),
        s @ 120..=7199 => format!("{} min old", s / 60),
        s => format!("{} h old", s / 3600),
    };
    let quality = format!("quality: {}", shown.quality);
    c.text(area(x, facts, w, fact), &quality, small * 5 / 4, (FAINT, PANEL), false, Align::Left)?;
    c.text(
        area(x, facts + fact, w, fact),
        &format!("picture {age}"),
        small * 5 / 4,
        (FAINT, PANEL),
        false,
        Align::Left,
    )
}

/// The B-scan as large as its box allows, its sides kept, under the heatmap.
fn picture<D: DrawTarget<Color = Rgb888>>(
    c: &mut Canvas<'_, D>,
    shown: &Shown<'_>,
    room: Rectangle,
) -> Result<(), D::Error> {
    let (sw, sh) = (u64::from(shown.picture.width()), u64::from(shown.picture.height()));
    let (rw, rh) = (u64::from(room.size.width), u64::from(room.size.height));
    let (w, h) = if rw * sh <= rh * sw { (rw, (rw * sh / sw).max(1)) } else { ((rh * sw / sh).max(1), rh) };
    let place = Rectangle::new(
        room.top_left + Point::new(((rw - w) / 2) as i32, ((rh - h) / 2) as i32),
        Size::new(w as u32, h as u32),
    );
    let pixels = shown.picture.pixels();
    // Divisions are made once a row and once a column, not once a pixel.
    let span = |at: u64, size: u64, source: u64| {
        let first = at * source / size;
        (first as usize, ((at + 1) * source / size).max(first + 1) as usize)
    };
    // The heat lies over what the network saw, and nowhere else.
    let seen = shown.place;
    let within = |at: f32, [from, length]: [u32; 2], size: u64| {
        let share = (at * size as f32 - from as f32) / length.max(1) as f32;
        (0.0..=1.0).contains(&share).then(|| cell(share))
    };
    let columns: Vec<_> = (0..w)
        .map(|x| (span(x, w, sw), within((x as f32 + 0.5) / w as f32, [seen.x, seen.width], sw)))
        .collect();
    let sw = sw as usize;
    let colours = (0..h).flat_map(|y| {
        let ((y0, y1), row) =
            (span(y, h, sh), within((y as f32 + 0.5) / h as f32, [seen.y, seen.height], sh));
        columns.iter().map(move |&((x0, x1), column)| {
            let grey = if (x1 - x0, y1 - y0) == (1, 1) {
                pixels[y0 * sw + x0]
            } else {
                let sum: usize = (y0..y1)
                    .flat_map(|row| &pixels[row * sw + x0..row * sw + x1])
                    .map(|v| usize::from(*v))
                    .sum();
                (sum / ((x1 - x0) * (y1 - y0))) as u8
            };
            match (shown.map, row, column) {
                (Some(map), Some((i, fy)), Some((j, fx))) => {
                    let row = |i: usize| map[i * 8 + j] * (1.0 - fx) + map[i * 8 + j + 1] * fx;
                    heat(grey, row(i) * (1.0 - fy) + row(i + 1) * fy)
                }
                _ => Rgb888::new(grey, grey, grey),
            }
        })
    });
    c.target.fill_contiguous(&place, colours)
}

/// The cell whose centre lies before `at` (0 to 1), and how far the next one's is: for bilinear values between centres.
fn cell(at: f32) -> (usize, f32) {
    let at = (at * 8.0 - 0.5).clamp(0.0, 7.0);
    let first = (at as usize).min(6);
    (first, at - first as f32)
}

/// Grey under a light that goes from nothing over violet and orange to yellow, rising in lightness.
fn heat(grey: u8, value: f32) -> Rgb888 {
    const STOPS: [[f32; 3]; 4] =
        [[60.0, 15.0, 110.0], [187.0, 55.0, 84.0], [249.0, 142.0, 9.0], [252.0, 235.0, 120.0]];
    let v = if value.is_finite() { value.clamp(0.0, 1.0) } else { 0.0 };
    let i = ((v * 3.0) as usize).min(2);
    let f = v * 3.0 - i as f32;
    let alpha = (v * 1.6).min(0.62);
    let mix = |k: usize| {
        let hot = STOPS[i][k] * (1.0 - f) + STOPS[i + 1][k] * f;
        (f32::from(grey) * (1.0 - alpha) + hot * alpha + 0.5) as u8
    };
    Rgb888::new(mix(0), mix(1), mix(2))
}

/// A picture in memory to draw on: RGB bytes, row by row. Drawing outside is counted and not done.
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
            if at.x >= 0 && at.y >= 0 && (at.x as u32) < self.size.width && (at.y as u32) < self.size.height {
                let i = (at.y as usize * self.size.width as usize + at.x as usize) * 3;
                self.rgb[i..i + 3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            } else {
                self.outside += 1;
            }
        }
        Ok(())
    }

    /// Row by row where the whole area lies inside.
    fn fill_contiguous<I: IntoIterator<Item = Rgb888>>(
        &mut self,
        area: &Rectangle,
        colours: I,
    ) -> Result<(), Self::Error> {
        if self.bounding_box().intersection(area) != *area {
            let pixels = area.points().zip(colours).map(|(at, colour)| embedded_graphics::Pixel(at, colour));
            return self.draw_iter(pixels);
        }
        let mut colours = colours.into_iter();
        for y in 0..area.size.height as usize {
            for (pixel, colour) in self.row(area, y).as_chunks_mut::<3>().0.iter_mut().zip(&mut colours) {
                *pixel = [colour.r(), colour.g(), colour.b()];
            }
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, colour: Rgb888) -> Result<(), Self::Error> {
        if self.bounding_box().intersection(area) != *area {
            return self.fill_contiguous(area, std::iter::repeat(colour));
        }
        let bytes = [colour.r(), colour.g(), colour.b()];
        for y in 0..area.size.height as usize {
            self.row(area, y).as_chunks_mut::<3>().0.fill(bytes);
        }
        Ok(())
    }
}

impl Picture {
    /// The bytes of a row of an area that lies inside.
    fn row(&mut self, area: &Rectangle, y: usize) -> &mut [u8] {
        let first = (area.top_left.y as usize + y) * self.size.width as usize + area.top_left.x as usize;
        &mut self.rgb[first * 3..][..area.size.width as usize * 3]
    }
}

#[cfg(test)]
mod tests;
