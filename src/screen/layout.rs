//! Where everything stands: a view becomes a list of things to draw, back to front.

use super::{Align, Referral, Shown, State, View, step};
use crate::Class;
use crate::explain::light::{Scan, fit};
use embedded_graphics::{pixelcolor::Rgb888, prelude::*, primitives::Rectangle};

const GROUND: Rgb888 = Rgb888::new(11, 14, 20);
const PANEL: Rgb888 = Rgb888::new(21, 26, 35);
const TRACK: Rgb888 = Rgb888::new(42, 49, 62);
const TYPE: Rgb888 = Rgb888::new(240, 243, 248);
const FAINT: Rgb888 = Rgb888::new(160, 170, 185);
/// What is not as it usually is.
const HELD: Rgb888 = Rgb888::new(240, 190, 50);

/// Colour of what is drawn, and of what it lies on.
pub type Ink = (Rgb888, Rgb888);

/// A thing to draw; all of it lies in its box.
#[derive(Clone, PartialEq)]
pub enum Item {
    Fill(Rectangle, Rgb888),
    Text {
        rect: Rectangle,
        text: String,
        px: i32,
        ink: Ink,
        heavy: bool,
        align: Align,
    },
    Paragraph {
        rect: Rectangle,
        text: String,
        px: i32,
        ink: Ink,
        align: Align,
    },
    Mark(Rectangle, Referral, Ink),
    /// The view's picture under its heat.
    Scan(Rectangle, Scan),
}

impl Item {
    pub fn rect(&self) -> Rectangle {
        match self {
            Item::Fill(rect, _) | Item::Mark(rect, ..) | Item::Scan(rect, _) => *rect,
            Item::Text { rect, .. } | Item::Paragraph { rect, .. } => *rect,
        }
    }

    /// Every pixel of the box is drawn.
    pub fn opaque(&self) -> bool {
        matches!(self, Item::Fill(..) | Item::Scan(..))
    }
}

/// A box from its corner and size; negative sizes become 0.
fn area(x: i32, y: i32, w: i32, h: i32) -> Rectangle {
    Rectangle::new(Point::new(x, y), Size::new(w.max(0) as u32, h.max(0) as u32))
}

struct List {
    items: Vec<Item>,
}

impl List {
    fn fill(&mut self, rect: Rectangle, colour: Rgb888) {
        self.items.push(Item::Fill(rect, colour));
    }

    fn text(&mut self, rect: Rectangle, text: &str, px: i32, ink: Ink, heavy: bool, align: Align) {
        self.items.push(Item::Text { rect, text: text.into(), px, ink, heavy, align });
    }

    fn paragraph(&mut self, rect: Rectangle, text: &str, px: i32, ink: Ink, align: Align) {
        self.items.push(Item::Paragraph { rect, text: text.into(), px, ink, align });
    }

    /// The B-scan as large as `room` allows, its sides kept.
    fn scan(&mut self, shown: &Shown<'_>, room: Rectangle) {
        let [width, height] = fit(shown.picture, [room.size.width, room.size.height]);
        let size = Size::new(width, height);
        let spare = room.size - size;
        let corner = room.top_left + Point::new(spare.width as i32 / 2, spare.height as i32 / 2);
        let scan = Scan {
            width: shown.picture.width() as usize,
            grey: shown.picture.shared_pixels(),
            map: shown.map.copied().map(Box::new),
            place: shown.place,
            lit: shown.lit.cloned(),
        };
        self.items.push(Item::Scan(Rectangle::new(corner, size), scan));
    }
}

/// Sizes that all else is built of: the unit, the height of small type and of the bars at the edges.
fn units(size: Size) -> (i32, i32, i32) {
    let (w, h) = (size.width as i32, size.height as i32);
    let unit = (h / 40).min(w / 60).max(1);
    let small = (unit * 3 / 2).max(12);
    (unit, small, small * 2)
}

/// What lies between the bars.
fn body(size: Size) -> Rectangle {
    let (unit, _, bar) = units(size);
    area(unit, bar, size.width as i32 - 2 * unit, size.height as i32 - 2 * bar)
}

/// The left part of the body: the picture's.
fn left(body: Rectangle, unit: i32) -> Rectangle {
    let (corner, height) = (body.top_left, body.size.height as i32);
    area(corner.x, corner.y, (body.size.width as i32 - unit) * 29 / 50, height)
}

/// Width and height that a screen of this size has for the picture.
pub fn room(width: u32, height: u32) -> [u32; 2] {
    let size = Size::new(width, height);
    let room = left(body(size), units(size).0).size;
    [room.width, room.height]
}

/// All that `view` shows on a screen of `size`, back to front.
pub fn compose(view: &View<'_>, size: Size) -> Vec<Item> {
    let (w, h) = (size.width as i32, size.height as i32);
    let (unit, small, bar) = units(size);
    let c = &mut List { items: Vec::with_capacity(40) };
    c.fill(area(0, 0, w, h), GROUND);
    c.text(area(unit, 0, w / 4, bar), "fovea", small * 5 / 4, (TYPE, GROUND), true, Align::Left);
    if let Some(eye) = view.strip.eye {
        c.text(area(w / 6, 0, w / 6, bar), eye.words(), small * 5 / 4, (TYPE, GROUND), true, Align::Left);
    }
    let rest = area(w / 3, 0, w * 2 / 3 - unit, bar);
    match &view.strip.frozen {
        Some(frozen) => {
            c.fill(rest, HELD);
            c.text(rest, frozen, small * 5 / 4, (GROUND, HELD), true, Align::Centre);
        }
        None => c.text(rest, view.model, small, (FAINT, GROUND), false, Align::Right),
    }
    let foot = h - bar;
    let note = "decision support, not a diagnosis";
    c.text(area(unit, foot, w * 3 / 5, bar), note, small, (TYPE, GROUND), false, Align::Left);
    let body = body(size);
    let corner = area(w * 13 / 20, foot, w - w * 13 / 20 - unit, bar);
    if !view.strip.status.is_empty() {
        c.text(corner, &view.strip.status, small, (HELD, GROUND), true, Align::Right);
    }
    let has_result = matches!(view.state, State::Finding | State::Uncertain | State::NotOct);
    match &view.shown {
        Some(shown) if has_result => {
            if view.strip.status.is_empty() {
                let engine = format!("{} · {:.0} ms", shown.engine, shown.millis);
                c.text(corner, &engine, small, (FAINT, GROUND), false, Align::Right);
            }
            result(c, &view.state, shown, body, unit, small);
        }
        _ => notice(c, &view.state, body, unit),
    }
    std::mem::take(&mut c.items)
}

/// The states without a finding: one word, one line of advice.
fn notice(c: &mut List, state: &State, body: Rectangle, unit: i32) {
    let (word, advice, colour) = match state {
        State::Starting => ("STARTING", "the model is loading and proving itself", FAINT),
        State::SignalLost(why) => ("SIGNAL LOST", why.as_str(), Referral::Routine.colour()),
        State::Fault(why) => ("FAULT", why.as_str(), Referral::Urgent.colour()),
        _ => ("WAITING", "take a B-scan", Referral::Observe.colour()),
    };
    let (x, y) = (body.top_left.x, body.top_left.y);
    let (w, h) = (body.size.width as i32, body.size.height as i32);
    c.fill(body, PANEL);
    c.fill(area(x, y, w, unit / 2 + 1), colour);
    let big = unit * 6;
    let top = y + h / 2 - big;
    c.text(
        area(x + unit, top - big / 4, w - 2 * unit, big * 5 / 4),
        word,
        big,
        (colour, PANEL),
        true,
        Align::Centre,
    );
    let room = area(x + w / 10, top + big + unit, w * 4 / 5, y + h - (top + big + unit));
    c.paragraph(room, advice, unit * 2 + 2, (TYPE, PANEL), Align::Centre);
}

fn result(c: &mut List, state: &State, shown: &Shown<'_>, body: Rectangle, unit: i32, small: i32) {
    let (x, y) = (body.top_left.x, body.top_left.y);
    let (w, h) = (body.size.width as i32, body.size.height as i32);
    let picture = left(body, unit);
    c.fill(picture, Rgb888::BLACK);
    c.scan(shown, picture);

    let left = picture.size.width as i32;
    let (x, w) = (x + left + unit, w - left - unit);
    c.fill(area(x, y, w, h), PANEL);
    let colour = shown.referral.colour();
    c.fill(area(x, y, w, unit / 2 + 1), colour);
    let (x, w) = (x + unit, w - 2 * unit);
    let big = unit * 7;
    let mut y = y + unit;
    let word = match state {
        State::Uncertain => "UNCERTAIN",
        State::NotOct => "NOT OCT",
        _ => shown.finding,
    };
    c.text(area(x, y, w, big), word, big, (TYPE, PANEL), true, Align::Left);
    y += big;
    let mark = unit * 4;
    c.items.push(Item::Mark(area(x, y, mark, mark), shown.referral, (colour, PANEL)));
    let beside = area(x + mark + unit, y, w - mark - unit, mark);
    c.text(beside, shown.referral.word(), mark, (colour, PANEL), true, Align::Left);
    y += mark + unit;
    let bottom = body.top_left.y + h - unit / 2;
    let fact = small * 7 / 4;
    // A note on the engine stands below the facts, in two lines at most.
    let note = if shown.note.is_empty() { 0 } else { 2 * step(small) + unit };
    let facts = bottom - note - 2 * fact;
    if *state != State::NotOct {
        let step = (fact * 7 / 4).min((facts - y - 2 * small) / 4);
        let best = shown.probabilities.iter().copied().fold(0.0, f32::max);
        for (class, p) in Class::ALL.iter().zip(shown.probabilities) {
            let p = if p.is_finite() { p.clamp(0.0, 1.0) } else { 0.0 };
            let top = p == best && *state == State::Finding;
            let ink = (if top { TYPE } else { FAINT }, PANEL);
            let (name, number) = (w * 9 / 25, w / 5);
            c.text(area(x, y, name - unit / 2, step), class.name(), small * 5 / 4, ink, top, Align::Left);
            let track = w - name - number;
            let thick = (step / 2).max(3);
            let at = y + (step - thick) / 2;
            c.fill(area(x + name, at, track, thick), TRACK);
            c.fill(area(x + name, at, (track as f32 * p) as i32, thick), if top { colour } else { FAINT });
            let percent = format!("{:.0} %", p * 100.0);
            c.text(area(x + name + track, y, number, step), &percent, small * 5 / 4, ink, top, Align::Right);
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
        );
    }
    let age = match shown.age.as_secs() {
        s @ 0..=119 => format!("{s} s old"),
        s @ 120..=7199 => format!("{} min old", s / 60),
        s => format!("{} h old", s / 3600),
    };
    let quality = format!("quality: {}", shown.quality);
    c.text(area(x, facts, w, fact), &quality, small * 5 / 4, (FAINT, PANEL), false, Align::Left);
    c.text(
        area(x, facts + fact, w, fact),
        &format!("picture {age}"),
        small * 5 / 4,
        (FAINT, PANEL),
        false,
        Align::Left,
    );
    if note > 0 {
        let ink = (Referral::Routine.colour(), PANEL);
        c.paragraph(area(x, facts + 2 * fact, w, 2 * step(small)), shown.note, small, ink, Align::Left);
    }
}
