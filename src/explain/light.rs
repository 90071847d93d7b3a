//! The B-scan under its heatmap at the size of a screen, scaled by whole numbers: a row of pixels is picked, averaged and coloured from
//! tables. A device may have made the same bytes already ([`Lit`]).

use super::Map;
use crate::prepare::Region;
use crate::{Frame, bands};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// 8x8 heats, row by row, 0 to 1.
pub type Heat = [f32; 64];

/// The heat of what each position adds to a logit, as [`Map::heat`] has it.
pub fn heat(map: &Heat) -> Heat {
    let mut heat = [0.0; 64];
    heat.copy_from_slice(&Map::of_features(map).heat().values);
    heat
}

/// What a B-scan's pixels on a screen depend on.
#[derive(Clone, PartialEq)]
pub struct Scan {
    /// Width of the picture.
    pub width: usize,
    /// Its grey bytes.
    pub grey: Arc<Vec<u8>>,
    /// The heat over it, where there is one.
    pub map: Option<Box<Heat>>,
    /// What of the picture the map covers.
    pub place: Region,
    /// The picture under this map as a device has made it, taken where its size is the right one.
    pub lit: Option<Arc<Lit>>,
}

/// A picture under its heat, ready for a screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lit {
    /// Width and height in pixels.
    pub size: [u32; 2],
    /// Bytes from row to row.
    pub pitch: usize,
    /// Three bytes a pixel.
    pub rgb: Vec<u8>,
}

/// RGB of each grey under each of 256 heats; the fourth byte is 0.
pub type Colours = [[[u8; 4]; 256]; 256];

/// The colours are the same for every picture.
pub fn colours() -> &'static Colours {
    static TABLE: OnceLock<Box<Colours>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = Box::new([[[0; 4]; 256]; 256]);
        for (heat, row) in table.iter_mut().enumerate() {
            for (grey, rgb) in row.iter_mut().enumerate() {
                let [r, g, b] = lit(grey as u8, heat as f32 / 255.0);
                *rgb = [r, g, b, 0];
            }
        }
        table
    })
}

/// Grey under a light that goes from nothing over violet and orange to yellow, rising in lightness; `heat` from 0 to 1.
fn lit(grey: u8, heat: f32) -> [u8; 3] {
    const STOPS: [[f32; 3]; 4] =
        [[60.0, 15.0, 110.0], [187.0, 55.0, 84.0], [249.0, 142.0, 9.0], [252.0, 235.0, 120.0]];
    let i = ((heat * 3.0) as usize).min(2);
    let f = heat * 3.0 - i as f32;
    let alpha = (heat * 1.6).min(0.62);
    std::array::from_fn(|k| {
        let hot = STOPS[i][k] * (1.0 - f) + STOPS[i + 1][k] * f;
        (f32::from(grey) * (1.0 - alpha) + hot * alpha + 0.5) as u8
    })
}

/// Source pixels of output `at` of `size`, as a range.
fn span(at: usize, size: usize, source: usize) -> (usize, usize) {
    let first = at * source / size;
    (first, ((at + 1) * source / size).max(first + 1))
}

/// The largest size of the frame's shape in a room of that width and height.
pub fn fit(frame: &Frame, room: [u32; 2]) -> [u32; 2] {
    let (sw, sh) = (u64::from(frame.width()), u64::from(frame.height()));
    let [rw, rh] = room.map(u64::from);
    let (w, h) = if rw * sh <= rh * sw { (rw, (rw * sh / sw).max(1)) } else { ((rh * sw / sh).max(1), rh) };
    [w as u32, h as u32]
}

/// Columns of the scaled picture.
struct Columns {
    /// The first source column of each.
    first: Vec<u32>,
    /// Those that average several: number, first source column and the one behind the last.
    wide: Vec<(usize, usize, usize)>,
    /// Where the heat's column reaches each next centre, and the fixed-point step from pixel to pixel: see [`ramps`].
    ramps: Vec<Ramp>,
}

/// Pixels over which the heat runs straight from the centre of a cell to that of the next.
#[derive(Clone, Copy, Debug)]
pub struct Ramp {
    /// The first pixel.
    pub from: usize,
    /// The one behind the last.
    pub to: usize,
    /// The cell.
    pub cell: usize,
    /// Share of the way at the first pixel, in units of 2^-16.
    pub start: i32,
    /// A pixel's share.
    pub step: i32,
}

/// One of fixed point.
const ONE: f32 = 65536.0;

/// The straight pieces of a bilinear map of 8 cells over `size` pixels, constant before the first centre and behind the last.
pub fn ramps(size: usize) -> Vec<Ramp> {
    let place = |pixel: usize| ((pixel as f32 + 0.5) * 8.0 / size as f32 - 0.5).clamp(0.0, 7.0);
    let step = (8.0 * ONE / size as f32) as i32;
    let mut ramps = Vec::new();
    let mut from = 0;
    while from < size {
        let at = place(from);
        let cell = (at as usize).min(6);
        let flat = at <= 0.0 || at >= 7.0;
        let same = |pixel: &usize| {
            let next = place(*pixel);
            (next as usize).min(6) == cell && (next <= 0.0 || next >= 7.0) == flat
        };
        let to = from + (from..size).take_while(same).count().max(1);
        let start = ((at - cell as f32) * ONE) as i32;
        ramps.push(Ramp { from, to, cell, start, step: if flat { 0 } else { step } });
        from = to;
    }
    ramps
}

/// The heat of a row of cells at share `fy` between rows `i` and `i + 1`, in units of 2^-8 of a step of 255.
fn cells(map: &Heat, i: usize, fy: f32) -> [i32; 8] {
    std::array::from_fn(|j| {
        let value = map[i * 8 + j] * (1.0 - fy) + map[(i + 1) * 8 + j] * fy;
        let value = if value.is_finite() { value.clamp(0.0, 1.0) } else { 0.0 };
        (value * 255.0 * 256.0 + 0.5) as i32
    })
}

/// The pixels of an output of `size` that show `length` source pixels of `source` from `from` on.
pub fn covered(from: u32, length: u32, source: usize, size: usize) -> Range<usize> {
    let edge = |at: usize| ((at * size + source / 2) / source.max(1)).min(size);
    edge(from as usize)..edge((from as usize).saturating_add(length as usize))
}

/// Draws a picture scaled to a width and height into `rgb`, rows `pitch` bytes apart, the first at its start. The heat lies over what
/// the network saw, and nowhere else.
pub fn draw(scan: &Scan, size: [u32; 2], rgb: &mut [u8], pitch: usize) {
    let (grey, width, map) = (&scan.grey[..], scan.width, scan.map.as_deref());
    let [w, h] = size.map(|side| side as usize);
    let rows = grey.len() / width.max(1);
    if w == 0 || h == 0 || rows == 0 {
        return;
    }
    if let Some(lit) = scan.lit.as_ref().filter(|lit| map.is_some() && lit.size == size) {
        let rows = rgb.chunks_mut(pitch).zip(lit.rgb.chunks(lit.pitch));
        rows.take(h).for_each(|(to, from)| to[..w * 3].copy_from_slice(&from[..w * 3]));
        return;
    }
    let across = covered(scan.place.x, scan.place.width, width, w);
    let down = covered(scan.place.y, scan.place.height, rows, h);
    let spans = || (0..w).map(|x| span(x, w, width));
    let columns = Columns {
        first: spans().map(|(first, _)| first as u32).collect(),
        wide: spans().enumerate().filter(|(_, (a, b))| b - a > 1).map(|(x, (a, b))| (x, a, b)).collect(),
        ramps: ramps(across.len()),
    };
    let colours = colours();
    let band = bands::rows(h, w);
    let rgb = &mut rgb[..((h - 1) * pitch + w * 3)];
    bands::each(rgb, band * pitch, |number, bytes| {
        let mut sums = vec![0u32; width];
        let mut source = vec![0u8; width];
        let mut line = vec![0u8; w];
        let first = number * band;
        for (y, row) in (first..h.min(first + band)).zip(bytes.chunks_mut(pitch)) {
            let (y0, y1) = span(y, h, rows);
            scale(grey, width, (y0, y1), &columns, &mut sums, &mut source, &mut line);
            let (pixels, _) = row[..w * 3].as_chunks_mut::<3>();
            let lit = if map.is_some() && down.contains(&y) { across.clone() } else { 0..0 };
            let plain = |pixels: &mut [[u8; 3]], line: &[u8]| {
                pixels.iter_mut().zip(line).for_each(|(pixel, grey)| *pixel = [*grey; 3]);
            };
            plain(&mut pixels[..lit.start], &line[..lit.start]);
            plain(&mut pixels[lit.end..], &line[lit.end..]);
            let Some(map) = map.filter(|_| !lit.is_empty()) else { continue };
            let at = (((y - down.start) as f32 + 0.5) * 8.0 / down.len() as f32 - 0.5).clamp(0.0, 7.0);
            let i = (at as usize).min(6);
            let cells = cells(map, i, at - i as f32);
            let (line, pixels) = (&line[lit.clone()], &mut pixels[lit]);
            for ramp in &columns.ramps {
                let (a, b) = (cells[ramp.cell], cells[ramp.cell + 1]);
                let range = ramp.from..ramp.to;
                colour(ramp, (a, b), &line[range.clone()], &mut pixels[range], colours);
            }
        }
    });
}

/// Colours the pixels of a ramp.
fn colour(ramp: &Ramp, (a, b): (i32, i32), line: &[u8], pixels: &mut [[u8; 3]], colours: &Colours) {
    // 2^-24 of a step: 255 of them fit 32 bits.
    let slope = (i64::from(b - a) * i64::from(ramp.step)) as i32;
    let mut heat = (a << 16).wrapping_add((i64::from(b - a) * i64::from(ramp.start)) as i32) as u32;
    heat = heat.saturating_add(1 << 23);
    for (pixel, grey) in pixels.iter_mut().zip(line) {
        let [r, g, b, _] = colours[(heat >> 24) as usize][usize::from(*grey)];
        *pixel = [r, g, b];
        heat = heat.wrapping_add_signed(slope);
    }
}

/// A row of the scaled picture: each pixel the mean, rounded down, of the source pixels it covers.
fn scale(
    grey: &[u8],
    width: usize,
    (y0, y1): (usize, usize),
    columns: &Columns,
    sums: &mut [u32],
    source: &mut [u8],
    line: &mut [u8],
) {
    let row = |y: usize| &grey[y * width..][..width];
    let count = y1 - y0;
    let single = match count {
        1 => row(y0),
        2 => {
            for (s, (a, b)) in source.iter_mut().zip(row(y0).iter().zip(row(y0 + 1))) {
                *s = (u16::midpoint(u16::from(*a), u16::from(*b))) as u8;
            }
            &*source
        }
        _ => {
            sums.fill(0);
            (y0..y1).for_each(|y| sums.iter_mut().zip(row(y)).for_each(|(s, v)| *s += u32::from(*v)));
            source.iter_mut().zip(&*sums).for_each(|(s, sum)| *s = (sum / count as u32) as u8);
            &*source
        }
    };
    for (pixel, first) in line.iter_mut().zip(&columns.first) {
        *pixel = single[*first as usize];
    }
    let (upper, lower) = (row(y0), row(y1 - 1));
    for &(x, from, to) in &columns.wide {
        if to - from == 2 && count <= 2 {
            // Of one row the sum is twice as large, as is what it is divided by.
            let sum = |row: &[u8]| u16::from(row[from]) + u16::from(row[from + 1]);
            line[x] = ((sum(upper) + sum(lower)) / 4) as u8;
            continue;
        }
        let sum: usize = (y0..y1).flat_map(|y| &row(y)[from..to]).map(|v| usize::from(*v)).sum();
        line[x] = (sum / ((to - from) * count)) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: the mean of the covered pixels, and the bilinear heat in floats.
    #[test]
    fn scaling_and_heat_are_their_definitions() {
        let map: Heat = std::array::from_fn(|i| ((i * 37) % 64) as f32 / 63.0);
        let sizes =
            [(768, 496, 702, 453), (384, 248, 702, 453), (97, 61, 31, 200), (1536, 31, 300, 7), (5, 3, 1, 1)];
        let parts: [fn(u32, u32) -> Region; 3] = [
            |width, height| Region { x: 0, y: 0, width, height },
            |width, height| Region { x: 0, y: height / 5, width, height: height * 3 / 5 },
            |w, h| Region { x: w / 3, y: h / 5, width: w / 2, height: h * 3 / 5 },
        ];
        for ((sw, sh, w, h), part) in sizes.into_iter().flat_map(|size| parts.map(|part| (size, part))) {
            let grey: Vec<u8> =
                (0..sw * sh).map(|i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            let pitch = w * 3 + 5;
            let mut rgb = vec![7; pitch * h];
            let mut plain = rgb.clone();
            let size = [w as u32, h as u32];
            let place = part(sw as u32, sh as u32);
            let mut scan =
                Scan { width: sw, grey: grey.clone().into(), map: Some(Box::new(map)), place, lit: None };
            draw(&scan, size, &mut rgb, pitch);
            scan.map = None;
            draw(&scan, size, &mut plain, pitch);
            let (across, down) =
                (covered(place.x, place.width, sw, w), covered(place.y, place.height, sh, h));
            let place = |at: usize, within: &Range<usize>| {
                let at = ((at - within.start) as f32 + 0.5) / within.len() as f32 * 8.0 - 0.5;
                let at = at.clamp(0.0, 7.0);
                ((at as usize).min(6), at - (at as usize).min(6) as f32)
            };
            for y in 0..h {
                assert_eq!(rgb[y * pitch + w * 3..][..5], [7; 5], "beside the picture");
                for x in 0..w {
                    let ((x0, x1), (y0, y1)) = (span(x, w, sw), span(y, h, sh));
                    let all = (y0..y1).flat_map(|y| (x0..x1).map(move |x| (y, x)));
                    let sum: usize = all.map(|(y, x)| usize::from(grey[y * sw + x])).sum();
                    let mean = (sum / ((x1 - x0) * (y1 - y0))) as u8;
                    assert_eq!(plain[y * pitch + x * 3..][..3], [mean; 3]);
                    if !across.contains(&x) || !down.contains(&y) {
                        assert_eq!(rgb[y * pitch + x * 3..][..3], [mean; 3], "beside what the network saw");
                        continue;
                    }
                    let ((j, fx), (i, fy)) = (place(x, &across), place(y, &down));
                    let row = |i: usize| map[i * 8 + j] * (1.0 - fx) + map[i * 8 + j + 1] * fx;
                    let want = lit(mean, row(i) * (1.0 - fy) + row(i + 1) * fy);
                    for (got, want) in rgb[y * pitch + x * 3..][..3].iter().zip(want) {
                        assert!(got.abs_diff(want) <= 2, "{sw}x{sh} to {w}x{h} at {x},{y}: {got} {want}");
                    }
                }
            }
        }
    }
}
