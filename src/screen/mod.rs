//! What the operator sees, laid out for 480x320 to 1920x1080 on any draw target.
//!
//! Referral is told by colour, word and shape at once; the colours are those of Okabe and Ito, told apart by
//! colour-blind eyes. A finding is drawn only in the states that have one.

mod canvas;
mod layout;
mod letters;

use crate::Frame;
use crate::explain::light::{self, Lit};
use crate::eye::Eye;
use crate::prepare::Region;
use embedded_graphics::{pixelcolor::Rgb888, prelude::*, primitives::Rectangle};
use layout::Item;
use letters::{Letters, STEPS, Style, blend, step};
use std::sync::Arc;
use std::time::Duration;

pub use canvas::Picture;
pub use layout::room;

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

/// Where a line of type stands in its box; always centred vertically.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Align {
    Left,
    Centre,
    Right,
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

impl State {
    /// The state in a word.
    pub fn words(&self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Waiting => "waiting for a picture",
            State::Finding => "a finding is shown",
            State::Uncertain => "uncertain",
            State::NotOct => "no OCT picture",
            State::SignalLost(_) => "signal lost",
            State::Fault(_) => "fault",
        }
    }
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
    /// The picture under the map, where a device has made it.
    pub lit: Option<&'a Arc<Lit>>,
    /// The finding in large type.
    pub finding: &'a str,
    /// Calibrated probabilities in the order of [`crate::Class::ALL`].
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
    /// Why a better engine did not answer; empty where there is nothing to say.
    pub note: &'a str,
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
    /// What stands along the edges.
    pub strip: Strip,
}

/// What stands along the screen's edges, whatever the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strip {
    /// The eye, where it was stated.
    pub eye: Option<Eye>,
    /// The picture is held and not of now: in these words.
    pub frozen: Option<String>,
    /// What is not as usual, in a few words; may be empty.
    pub status: String,
}

/// What a touch at (x, y), each 0 to 1 from the upper left corner, presses: the picture freezes, the words beside it
/// turn the heatmap on and off, the top line is the eye.
pub fn touched(x: f32, y: f32) -> fovea_board::Button {
    match (x, y) {
        (_, y) if y < 0.12 => fovea_board::Button::Eye,
        (x, _) if x < 0.58 => fovea_board::Button::Capture,
        _ => fovea_board::Button::Next,
    }
}

/// Draws the whole screen on any target; who draws again and again keeps a [`Screen`].
///
/// # Errors
/// Those of the target.
pub fn draw<D: DrawTarget<Color = Rgb888>>(view: &View<'_>, target: &mut D) -> Result<(), D::Error> {
    let place = target.bounding_box();
    let mut screen = Screen::new(place.size.width, place.size.height);
    let (pixels, _) = screen.draw(view).as_chunks::<3>();
    target.fill_contiguous(&place, pixels.iter().map(|[r, g, b]| Rgb888::new(*r, *g, *b)))
}

/// A screen that remembers: it draws again only what changed since the last view, and keeps letters and marks.
pub struct Screen {
    picture: Picture,
    letters: Letters,
    /// What is on the picture, back to front; nothing before the first view.
    items: Vec<Item>,
    /// Pixels of type that did not fit their box, of all that was drawn.
    clipped: usize,
}

impl Screen {
    /// A black screen of `width` x `height` pixels.
    pub fn new(width: u32, height: u32) -> Self {
        Self { picture: Picture::new(width, height), letters: Letters::new(), items: Vec::new(), clipped: 0 }
    }

    /// The bytes, 3 a pixel, row by row.
    pub fn rgb(&self) -> &[u8] {
        self.picture.rgb()
    }

    /// Draws what `view` changes, and gives the bytes: the same as a fresh screen's.
    pub fn draw(&mut self, view: &View<'_>) -> &[u8] {
        let items = layout::compose(view, self.picture.size());
        let old = std::mem::replace(&mut self.items, items);
        for place in changed(&old, &self.items, self.picture.bounding_box()) {
            self.repaint(place);
        }
        self.rgb()
    }

    /// Draws everything that touches `place`, from the last thing on that covers all of it.
    fn repaint(&mut self, place: Rectangle) {
        let items = std::mem::take(&mut self.items);
        let covers = |item: &Item| item.opaque() && item.rect().intersection(&place) == place;
        let first = items.iter().rposition(covers).unwrap_or(0);
        for item in &items[first..] {
            let part = item.rect().intersection(&place);
            if part.size.width > 0 && part.size.height > 0 {
                self.item(item, part);
            }
        }
        self.items = items;
    }

    /// Draws the part of an item that lies in `clip`.
    fn item(&mut self, item: &Item, clip: Rectangle) {
        match item {
            Item::Fill(_, colour) => {
                let Ok(()) = self.picture.fill_solid(&clip, *colour);
            }
            Item::Text { rect, text, px, ink, heavy, align } => {
                let Size { width, height } = rect.size;
                let style = Style { width, height, px: *px, heavy: *heavy, align: *align };
                self.text(*rect, text, style, *ink, clip);
            }
            Item::Paragraph { rect, text, px, ink, align } => {
                let Size { width, height } = rect.size;
                let style = Style { width, height, px: *px, heavy: false, align: *align };
                let height = step(*px);
                for (i, line) in self.letters.paragraph(style, text).iter().enumerate() {
                    let corner = rect.top_left + Point::new(0, i as i32 * height);
                    let row = Rectangle::new(corner, Size::new(width, height as u32));
                    self.text(row, line, Style { height: height as u32, ..style }, *ink, clip);
                }
            }
            Item::Mark(rect, referral, (fg, bg)) => {
                let mask = self.letters.mark(*referral, rect.size);
                self.picture.mask(&mask, rect.top_left, &blend(*fg, *bg, STEPS), *rect, clip);
            }
            // Whole, see `changed`.
            Item::Scan(rect, scan) => {
                let pitch = self.picture.pitch();
                let rgb = self.picture.from(rect.top_left);
                light::draw(scan, [rect.size.width, rect.size.height], rgb, pitch);
            }
        }
    }

    fn text(
        &mut self,
        rect: Rectangle,
        text: &str,
        style: Style,
        (fg, bg): (Rgb888, Rgb888),
        clip: Rectangle,
    ) {
        let line = self.letters.line(style, text);
        let colours = blend(fg, bg, STEPS - 1);
        for (c, pen) in line.letters(rect) {
            if let Some(mask) = self.letters.mask(&line, c) {
                let at = pen + Point::new(mask.left, mask.top);
                self.clipped += self.picture.mask(&mask, at, &colours, rect, clip);
            }
        }
    }
}

/// The smallest box around two that are not empty.
fn around(a: Rectangle, b: Rectangle) -> Rectangle {
    let end = |r: Rectangle| r.top_left + r.size;
    Rectangle::with_corners(
        a.top_left.component_min(b.top_left),
        end(a).component_max(end(b)) - Point::new(1, 1),
    )
}

/// Boxes outside of which two lists give the same picture on a screen that is `all`.
fn changed(old: &[Item], new: &[Item], all: Rectangle) -> Vec<Rectangle> {
    let alike = |(a, b): (&Item, &Item)| std::mem::discriminant(a) == std::mem::discriminant(b);
    if old.len() != new.len() || !old.iter().zip(new).all(alike) {
        return vec![all];
    }
    let mut places: Vec<Rectangle> = Vec::new();
    for (a, b) in old.iter().zip(new).filter(|(a, b)| a != b) {
        places.push(a.rect().intersection(&all));
        if a.rect() != b.rect() {
            places.push(b.rect().intersection(&all));
        }
    }
    // A picture is drawn whole or not at all.
    for scan in new.iter().filter(|item| matches!(item, Item::Scan(..))).map(Item::rect) {
        for place in &mut places {
            let part = place.intersection(&scan);
            if part.size.width > 0 && part.size.height > 0 {
                *place = around(*place, scan);
            }
        }
    }
    places.retain(|place| place.size.width > 0 && place.size.height > 0);
    places
}

#[cfg(test)]
mod tests;
