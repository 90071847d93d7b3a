//! The B-scan's place on a machine's screen: found once, and watched for a change of the screen around it.
//!
//! A B-scan is the largest part of a screen that is grey and rough all over: speckle differs from pixel to pixel, where
//! windows and margins are flat, and lines of type are thin. Other grey pictures (the view of the fundus) are candidates
//! too; the caller lets the model's gate choose among them.

use crate::Frame;
use crate::prepare::Region;
use std::ops::Range;

/// Side of a block in pixels.
const BLOCK: usize = 8;
/// Neighbours that differ by more are rough: above the noise of a cable, below that of speckle.
const ROUGH: u8 = 2;
/// Mean distance of colour channels up to which a block is grey.
const GREY: usize = 24;
/// Thinner than twice this many blocks is type, not a picture.
const THIN: usize = 2;
/// Least width and height of a B-scan in pixels.
const LEAST: (u32, u32) = (160, 96);

/// Places that may be the B-scan, the largest first.
pub fn propose(frame: &Frame) -> Vec<Region> {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let rough = roughness(frame);
    let (columns, rows) = (width / BLOCK, height / BLOCK);
    let block = |i: usize| {
        let (left, top) = (i % columns * BLOCK, i / columns * BLOCK);
        let (mut count, mut colour) = (0, 0);
        for y in top..top + BLOCK {
            let row = y * width + left..y * width + left + BLOCK;
            count += rough[row.clone()].iter().filter(|r| **r).count();
            colour += frame.colour().map_or(0, |c| c[row].iter().map(|v| usize::from(*v)).sum());
        }
        count * 20 > BLOCK * BLOCK * 7 && colour <= GREY * BLOCK * BLOCK
    };
    let blocks: Vec<bool> = (0..columns * rows).map(block).collect();
    // What is thin goes; what stays grows back.
    let core = inner(&blocks, (columns, rows));
    let equal = frame.pixels().windows(2).filter(|pair| pair[0] == pair[1]).count();
    // Without noise a flat part of the screen is flat to the bit.
    let digital = equal * 100 > frame.pixels().len() * 15;
    let mut places: Vec<Region> = Vec::new();
    let mut seen = vec![false; core.len()];
    for start in 0..core.len() {
        if !core[start] || seen[start] {
            continue;
        }
        let (mut x, mut y, mut count) = (columns..0, rows..0, 0);
        let mut todo = vec![start];
        seen[start] = true;
        while let Some(i) = todo.pop() {
            let (column, row) = (i % columns, i / columns);
            x = x.start.min(column)..x.end.max(column + 1);
            y = y.start.min(row)..y.end.max(row + 1);
            count += 1;
            let near = [
                (column > 0).then(|| i - 1),
                (column + 1 < columns).then_some(i + 1),
                i.checked_sub(columns),
                (row + 1 < rows).then_some(i + columns),
            ];
            for next in near.into_iter().flatten() {
                if core[next] && !std::mem::replace(&mut seen[next], true) {
                    todo.push(next);
                }
            }
        }
        // A frame around something else is no picture.
        if count * 2 < x.len() * y.len() {
            continue;
        }
        let grow = |r: Range<usize>, end: usize| {
            r.start.saturating_sub(THIN) * BLOCK..((r.end + THIN) * BLOCK).min(end)
        };
        let (x, y) = refine(&rough, (width, height), grow(x, width), grow(y, height));
        let (x, y) = if digital { extend(frame, x, y) } else { (x, y) };
        let side = |r: &Range<usize>| r.len() as u32;
        if side(&x) >= LEAST.0 && side(&y) >= LEAST.1 {
            let (left, top) = (x.start as u32, y.start as u32);
            places.push(Region { x: left, y: top, width: side(&x), height: side(&y) });
        }
    }
    places.sort_by_key(|p| std::cmp::Reverse(u64::from(p.width) * u64::from(p.height)));
    // A part that a flat stripe cut off lies within the whole.
    let within = |a: &Region, b: &Region| {
        let inside = |a: (u32, u32), b: (u32, u32)| a.0 >= b.0 && a.0 + a.1 <= b.0 + b.1;
        inside((a.x, a.width), (b.x, b.width)) && inside((a.y, a.height), (b.y, b.height))
    };
    let mut kept: Vec<Region> = Vec::new();
    for place in places {
        if !kept.iter().any(|larger| within(&place, larger)) {
            kept.push(place);
        }
    }
    kept
}

/// Pixels that differ from the next in their row or column.
fn roughness(frame: &Frame) -> Vec<bool> {
    let (width, pixels) = (frame.width() as usize, frame.pixels());
    let differs = |i: usize, j: usize| pixels.get(j).is_some_and(|p| p.abs_diff(pixels[i]) > ROUGH);
    (0..pixels.len()).map(|i| (i % width + 1 < width && differs(i, i + 1)) || differs(i, i + width)).collect()
}

/// Blocks all of whose neighbours up to [`THIN`] are set; the screen's edge is no neighbour.
fn inner(blocks: &[bool], (columns, rows): (usize, usize)) -> Vec<bool> {
    let near = |i: usize| {
        let (x, y) = (i % columns, i / columns);
        let across = x.saturating_sub(THIN)..(x + THIN + 1).min(columns);
        let mut down = y.saturating_sub(THIN)..(y + THIN + 1).min(rows);
        down.all(|y| across.clone().all(|x| blocks[y * columns + x]))
    };
    (0..blocks.len()).map(near).collect()
}

/// Moves each side, by less than two blocks, to the first row or column that is rough.
fn refine(
    rough: &[bool],
    (width, height): (usize, usize),
    x: Range<usize>,
    y: Range<usize>,
) -> (Range<usize>, Range<usize>) {
    const REACH: usize = 2 * BLOCK;
    let row = |line: usize| x.clone().filter(|x| rough[line * width + x]).count() * 4 > x.len();
    let column = |line: usize| y.clone().filter(|y| rough[y * width + line]).count() * 4 > y.len();
    let edges = |r: &Range<usize>, end: usize, full: &dyn Fn(usize) -> bool| {
        let low = r.start.saturating_sub(REACH)..(r.start + REACH).min(end);
        let high = r.end.saturating_sub(REACH)..(r.end + REACH).min(end);
        let start = low.clone().find(|line| full(*line)).unwrap_or(r.start);
        let stop = high.rev().find(|line| full(*line)).map_or(r.end, |line| (line + 1).min(end));
        // A flat edge makes the outer neighbour rough.
        (start + usize::from(start > low.start))..stop.max(start + 1)
    };
    (edges(&x, width, &column), edges(&y, height, &row))
}

/// Moves each side outwards while most pixels of the next row or column differ at all from their neighbours along it: what is
/// dark and smooth belongs to the B-scan too.
fn extend(frame: &Frame, mut x: Range<usize>, mut y: Range<usize>) -> (Range<usize>, Range<usize>) {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let pixels = frame.pixels();
    let row = |x: &Range<usize>, y: usize| {
        let line = &pixels[y * width + x.start..y * width + x.end];
        line.windows(2).filter(|pair| pair[0] != pair[1]).count() * 5 > line.len() * 2
    };
    let column = |y: &Range<usize>, x: usize| {
        let changes = y.clone().skip(1).filter(|y| pixels[y * width + x] != pixels[(y - 1) * width + x]);
        changes.count() * 5 > y.len() * 2
    };
    while y.start > 0 && row(&x, y.start - 1) {
        y.start -= 1;
    }
    while y.end < height && row(&x, y.end) {
        y.end += 1;
    }
    while x.start > 0 && column(&y, x.start - 1) {
        x.start -= 1;
    }
    while x.end < width && column(&y, x.end) {
        x.end += 1;
    }
    (x, y)
}

/// Cells of the screen that are compared, across and down.
const GRID: (usize, usize) = (24, 14);
/// Of 16 levels of grey, so many are a change.
const CHANGE: u8 = 3;

/// The look of a machine's screen around the B-scan: the grey of each cell of a grid that lies outside.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Layout {
    size: (u32, u32),
    /// 0 to 15; none where the B-scan lies.
    cells: Vec<Option<u8>>,
}

impl Layout {
    /// The look of a screen around `region`.
    pub fn of(frame: &Frame, region: Region) -> Self {
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let part = |k: usize, of: usize, side: usize| side * k / of..side * (k + 1) / of;
        let within = |a: &Range<usize>, start: u32, side: u32| {
            a.start < (start as usize).saturating_add(side as usize) && (start as usize) < a.end
        };
        let cells = (0..GRID.0 * GRID.1).map(|i| {
            let (x, y) = (part(i % GRID.0, GRID.0, width), part(i / GRID.0, GRID.1, height));
            if within(&x, region.x, region.width) && within(&y, region.y, region.height) {
                return None;
            }
            let row = |y: usize| &frame.pixels()[y * width..][x.clone()];
            let sum: usize = y.clone().flat_map(row).map(|v| usize::from(*v)).sum();
            Some((sum / (x.len() * y.len()) / 16) as u8)
        });
        Self { size: (frame.width(), frame.height()), cells: cells.collect() }
    }

    /// Why a screen is not the one that the region was set for; none where it is.
    pub fn differs(&self, frame: &Frame, region: Region) -> Option<String> {
        const MEND: &str = "show the usual view, or run fovea region again";
        let (now, old) = ((frame.width(), frame.height()), self.size);
        if now != old {
            return Some(format!(
                "the machine's screen has {}x{} pixels, not {}x{} as when the region was set; {MEND}",
                now.0, now.1, old.0, old.1
            ));
        }
        let seen = Self::of(frame, region);
        let pairs = self.cells.iter().zip(&seen.cells).filter_map(|(a, b)| Some(((*a)?, (*b)?)));
        let (mut all, mut changed) = (0, 0);
        for (a, b) in pairs {
            all += 1;
            changed += usize::from(a.abs_diff(b) >= CHANGE);
        }
        (changed * 100 > all * 15)
            .then(|| format!("the machine's screen looks otherwise than when the region was set; {MEND}"))
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}:", self.size.0, self.size.1)?;
        self.cells.iter().try_for_each(|cell| match cell {
            Some(level) => write!(f, "{level:x}"),
            None => f.write_str("-"),
        })
    }
}

impl TryFrom<String> for Layout {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WRONG: &str = "no layout; let fovea region write it";
        let (size, cells) = text.split_once(':').ok_or(WRONG)?;
        let (width, height) = size.split_once('x').ok_or(WRONG)?;
        let number = |text: &str| text.parse().map_err(|_| WRONG);
        let cell = |c: char| match (c, c.to_digit(16)) {
            ('-', _) => Ok(None),
            (_, Some(level)) => Ok(Some(level as u8)),
            _ => Err(WRONG),
        };
        let cells: Vec<Option<u8>> = cells.chars().map(cell).collect::<Result<_, _>>()?;
        if cells.len() != GRID.0 * GRID.1 {
            return Err(WRONG);
        }
        Ok(Self { size: (number(width)?, number(height)?), cells })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine's screen with a B-scan, a view of the fundus and lines of type.
    fn screen(scan: &str, place: Region, menu: bool) -> Frame {
        let scan = image::open(format!("examples/bscans/{scan}")).unwrap();
        // Without the white margins that machines do not show.
        let scan =
            scan.crop_imm(scan.width() / 20, scan.height() / 4, scan.width() * 9 / 10, scan.height() / 2);
        let scan =
            scan.resize_exact(place.width, place.height, image::imageops::FilterType::Triangle).to_luma8();
        let picture = image::RgbImage::from_fn(1280, 800, |x, y| {
            let hash = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(2_246_822_519))
                .wrapping_mul(668_265_263)
                >> 24;
            let grey = |v: u32| image::Rgb([v as u8; 3]);
            if let Some(p) = x
                .checked_sub(place.x)
                .zip(y.checked_sub(place.y))
                .and_then(|(x, y)| scan.get_pixel_checked(x, y))
            {
                return grey(p.0[0].into());
            }
            match (x, y) {
                (20..=320, 120..=420) => grey(90 + hash % 60),
                (_, 0..=39) => image::Rgb([40, 60, 120]),
                // Type: 14 of 22 rows.
                (20..=320, 480..=759) if y % 22 < 14 && hash % 5 == 0 => grey(20),
                (_, 760..) if menu => grey(30),
                (0..=700, _) if menu => grey(40),
                _ => grey(200),
            }
        });
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Bmp).unwrap();
        Frame::decode(&bytes.into_inner(), "test".as_ref()).unwrap()
    }

    const PLACE: Region = Region { x: 403, y: 101, width: 768, height: 517 };

    #[test]
    fn the_b_scan_is_the_largest_place_that_is_grey_and_rough() {
        for scan in
            ["phantom-cnv-1.jpeg", "phantom-dme-2.jpeg", "phantom-drusen-1.jpeg", "phantom-normal-2.jpeg"]
        {
            let found = propose(&screen(scan, PLACE, false));
            let best = found[0];
            let near = |a: u32, b: u32| a.abs_diff(b) <= 4;
            assert!(
                near(best.x, PLACE.x)
                    && near(best.y, PLACE.y)
                    && near(best.x + best.width, PLACE.x + PLACE.width)
                    && near(best.y + best.height, PLACE.y + PLACE.height),
                "{scan}: {found:?}"
            );
            // The fundus is another place; the lines of type are none.
            assert!(found.len() == 2 && near(found[1].x, 20) && near(found[1].y, 120), "{found:?}");
        }
        // A scan that is dark and smooth below: only the retina is rough.
        let whole = screen("phantom-cnv-1.jpeg", PLACE, false);
        let mut pixels = whole.pixels().to_vec();
        for y in 420..PLACE.y + PLACE.height {
            for x in PLACE.x..PLACE.x + PLACE.width {
                pixels[(y * 1280 + x) as usize] = 10 + ((x + y) % 2) as u8;
            }
        }
        let dark = Frame::new(1280, 800, pixels, "dark").unwrap();
        assert!(propose(&dark)[0].height.abs_diff(PLACE.height) <= 4, "{:?}", propose(&dark));
        let empty = Frame::new(640, 480, vec![90; 640 * 480], "x").unwrap();
        assert!(propose(&empty).is_empty());
        let tiny = Frame::new(33, 35, (0..33 * 35).map(|i| (i * 91 % 256) as u8).collect(), "x").unwrap();
        assert!(propose(&tiny).is_empty());
    }

    #[test]
    fn another_scan_is_the_same_layout_and_another_view_is_not() {
        let layout = Layout::of(&screen("phantom-cnv-1.jpeg", PLACE, false), PLACE);
        assert_eq!(Layout::try_from(layout.to_string()), Ok(layout.clone()));
        assert_eq!(layout.differs(&screen("phantom-normal-2.jpeg", PLACE, false), PLACE), None);
        let menu = layout.differs(&screen("phantom-cnv-1.jpeg", PLACE, true), PLACE);
        assert!(menu.is_some_and(|why| why.contains("looks otherwise")));
        let small = Frame::new(640, 480, vec![90; 640 * 480], "x").unwrap();
        assert!(
            layout.differs(&small, PLACE).is_some_and(|why| why.contains("640x480 pixels, not 1280x800"))
        );
        for wrong in ["", "1280x800", "1280x800:12", "ax3:", "1280:0"] {
            assert!(Layout::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
