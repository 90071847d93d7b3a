//! Is this an OCT B-scan at all? Nine statistics of the picture, each with the value up to which it is usual and the
//! value at which it alone refuses; what lies between adds up. They describe what every B-scan shows: one bright,
//! layered band from the left edge to the right, alike from column to column, with dark vitreous above and little light
//! below, and no colour. The limits were set on the development B-scans of two makes of machine (see the test).

use crate::Frame;
use crate::prepare::{NetworkInput, Region, SIDE};

/// Width of a strip in pixels of the network's input, and their number.
const STRIP: usize = 8;
const STRIPS: usize = SIDE / STRIP;
/// Colour difference of a channel above which a pixel is coloured (JPEG gives greys a little).
const COLOURED: u8 = 24;
/// Largest shift in rows between neighbouring strips.
const SHIFT: usize = 16;

/// What is measured on a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Share of coloured pixels.
    pub colour: f32,
    /// Correlation of neighbouring strips after the best shift, the tenth part that is lowest.
    pub likeness: f32,
    /// How evenly the band shines from side to side: its brightness at the tenth part that is darkest over that at the
    /// tenth part that is brightest.
    pub span: f32,
    /// How far the band rises above its column, as a share of its brightness.
    pub prominence: f32,
    /// Height of the band at half its rise, as a share of the picture's.
    pub thickness: f32,
    /// Share of nearly white pixels.
    pub white: f32,
    /// Brightness of the uppermost tenth against the band's.
    pub above: f32,
    /// Brightness of the lowest tenth against the band's.
    pub below: f32,
    /// Rows by which the band jumps from strip to strip (median).
    pub jump: f32,
    /// Share of dark pixels.
    pub dark: f32,
    /// Mean brightness of the band, in grey levels; no rule asks it.
    pub band: f32,
    /// Mean brightness of the darkest fifth of the columns, in grey levels; no rule asks it.
    pub ground: f32,
}

/// A statistic's name in words for the operator, up to where it is usual, and where it alone refuses.
struct Rule {
    name: &'static str,
    words: &'static str,
    usual: f32,
    limit: f32,
    of: fn(&Statistics) -> f32,
}

const RULES: [Rule; 10] = [
    Rule { name: "colour", words: "it is coloured", usual: 0.002, limit: 0.02, of: |s| s.colour },
    Rule {
        name: "likeness",
        words: "its columns are not alike",
        usual: 0.85,
        limit: 0.68,
        of: |s| s.likeness,
    },
    Rule { name: "span", words: "no band runs from side to side", usual: 0.45, limit: 0.18, of: |s| s.span },
    Rule {
        name: "prominence",
        words: "no bright band stands out",
        usual: 0.66,
        limit: 0.5,
        of: |s| s.prominence,
    },
    Rule {
        name: "thickness",
        words: "its bright part is too thick",
        usual: 0.3,
        limit: 0.45,
        of: |s| s.thickness,
    },
    Rule { name: "white", words: "too much of it is white", usual: 0.03, limit: 0.12, of: |s| s.white },
    Rule { name: "above", words: "it is bright at the top", usual: 0.42, limit: 0.65, of: |s| s.above },
    Rule { name: "below", words: "it is bright at the bottom", usual: 0.44, limit: 0.7, of: |s| s.below },
    Rule { name: "jump", words: "its brightest part is no line", usual: 9.0, limit: 14.0, of: |s| s.jump },
    Rule { name: "dark", words: "too little of it is dark", usual: 0.2, limit: 0.05, of: |s| s.dark },
];

impl Statistics {
    /// Measures a frame (its `region`, or all of it) and the network's input that was made of it.
    pub fn measure(frame: &Frame, region: Option<Region>, input: &NetworkInput) -> Self {
        let rows: Vec<[f32; STRIPS]> = input.0.chunks_exact(SIDE).map(strip_row).collect();
        let strips: Vec<Vec<f32>> =
            (0..STRIPS).map(|s| smooth(&rows.iter().map(|row| row[s]).collect::<Vec<_>>(), 2)).collect();
        let wide: Vec<Vec<f32>> = strips.iter().map(|strip| smooth(strip, 10)).collect();
        let (mut peaks, mut at, mut rise, mut thick, mut ground) = (vec![], vec![], vec![], vec![], 0.0);
        for column in &wide {
            let (place, peak) = column
                .iter()
                .enumerate()
                .fold((0, 0.0), |best, (y, v)| if *v > best.1 { (y, *v) } else { best });
            let base = quantile(&mut column.clone(), 0.2);
            let half = base + (peak - base) / 2.0;
            ground += base / STRIPS as f32;
            peaks.push(peak);
            at.push(place as f32);
            rise.push((peak - base) / (peak + 1e-6));
            thick.push(column.iter().filter(|v| **v > half).count() as f32 / SIDE as f32);
        }
        let mut jumps: Vec<f32> = at.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
        let mut likes: Vec<f32> = strips.windows(2).map(|pair| likeness(&pair[0], &pair[1])).collect();
        let band = peaks.iter().sum::<f32>() / STRIPS as f32 + 1e-6;
        let edge = |range: std::ops::Range<usize>| {
            let count = (range.len() * STRIPS) as f32;
            wide.iter().flat_map(|column| &column[range.clone()]).sum::<f32>() / count / band
        };
        let share =
            |test: fn(u8) -> bool| input.0.iter().filter(|v| test(**v)).count() as f32 / (SIDE * SIDE) as f32;
        Self {
            colour: coloured(frame, region),
            likeness: quantile(&mut likes, 0.1),
            span: quantile(&mut peaks, 0.1) / (quantile(&mut peaks.clone(), 0.9) + 1e-6),
            prominence: quantile(&mut rise, 0.5),
            thickness: quantile(&mut thick, 0.5),
            white: share(|v| v > 200),
            above: edge(0..SIDE / 10 + 1),
            below: edge(SIDE - SIDE / 10 - 1..SIDE),
            jump: quantile(&mut jumps, 0.5),
            dark: share(|v| v < 64),
            band,
            ground,
        }
    }

    /// How far each statistic is from usual: 0 is usual, 1 refuses alone. With its name and words, in a fixed order.
    pub fn strangeness(&self) -> impl Iterator<Item = (&'static str, &'static str, f32)> {
        RULES.iter().map(|rule| {
            let share = ((rule.of)(self) - rule.usual) / (rule.limit - rule.usual);
            // What cannot be measured is strange.
            (rule.name, rule.words, if share.is_nan() { 1.0 } else { share.max(0.0) })
        })
    }

    /// Why the picture is no B-scan, in words; `None` when it looks like one.
    pub fn refusal(&self) -> Option<String> {
        let all: Vec<_> = self.strangeness().filter(|(.., share)| *share > 0.0).collect();
        if all.iter().map(|(.., share)| share).sum::<f32>() < 1.0 {
            return None;
        }
        let worst =
            all.iter().fold(("", 0.0), |best, (_, words, s)| if *s > best.1 { (*words, *s) } else { best });
        Some(worst.0.into())
    }
}

fn coloured(frame: &Frame, region: Option<Region>) -> f32 {
    let Some(colour) = frame.colour() else { return 0.0 };
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let (x, y, w, h) = region
        .map_or((0, 0, width, height), |r| (r.x as usize, r.y as usize, r.width as usize, r.height as usize));
    let rows = colour.chunks_exact(width).skip(y).take(h);
    let count: usize = rows.map(|row| row.iter().skip(x).take(w).filter(|c| **c > COLOURED).count()).sum();
    count as f32 / (w * h) as f32
}

fn strip_row(row: &[u8]) -> [f32; STRIPS] {
    std::array::from_fn(|s| {
        row[s * STRIP..(s + 1) * STRIP].iter().map(|v| f32::from(*v)).sum::<f32>() / STRIP as f32
    })
}

/// Mean over `reach` neighbours on both sides, fewer at the ends.
fn smooth(values: &[f32], reach: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64];
    sums.extend(values.iter().scan(0.0f64, |sum, v| {
        *sum += f64::from(*v);
        Some(*sum)
    }));
    (0..values.len())
        .map(|i| {
            let (from, to) = (i.saturating_sub(reach), (i + reach + 1).min(values.len()));
            ((sums[to] - sums[from]) / (to - from) as f64) as f32
        })
        .collect()
}

/// The value below which the share `q` of the values lies.
fn quantile(values: &mut [f32], q: f32) -> f32 {
    values.sort_by(f32::total_cmp);
    values[((values.len() - 1) as f32 * q + 0.5) as usize]
}

/// Largest correlation of two strips over shifts of at most [`SHIFT`] rows.
fn likeness(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len();
    (0..=2 * SHIFT)
        .map(|shift| match shift.checked_sub(SHIFT) {
            Some(down) => correlation(&a[down..], &b[..n - down]),
            None => correlation(&a[..n - (SHIFT - shift)], &b[SHIFT - shift..]),
        })
        .fold(-1.0, f32::max)
}

fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len() as f32;
    let (ma, mb) = (a.iter().sum::<f32>() / n, b.iter().sum::<f32>() / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - ma, y - mb);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    ab / (aa * bb + 1e-6).sqrt()
}

#[cfg(test)]
mod tests;
