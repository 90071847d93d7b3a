//! The retina's shape: where each layer's edge lies in each column, and what a lesion does to it.
//!
//! Lengths are in pixels of a 512x496 Spectralis B-scan (about 11.5 um across, 3.9 um down) times a scale for other
//! sizes. Thicknesses were measured on normal B-scans of the Kermany set.

use super::lesion::Lesions;
use super::rng::{Rng, blur_line, gauss};

/// Edges from the top down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Inner limiting membrane: vitreous above, nerve fibre layer below.
    Ilm,
    /// Lower edge of the nerve fibre layer.
    Nfl,
    /// Lower edge of ganglion cell and inner plexiform layer.
    Ipl,
    /// Lower edge of the inner nuclear layer.
    Inl,
    /// Lower edge of the outer plexiform layer.
    Opl,
    /// External limiting membrane.
    Elm,
    /// Centre of the ellipsoid zone.
    Ez,
    /// Upper edge of the pigment epithelium with the interdigitation zone.
    RpeTop,
    /// Lower edge of the pigment epithelium.
    RpeBottom,
    /// Bruch's membrane.
    Bruch,
}

/// Number of edges.
pub const EDGES: usize = 10;

/// Rows of all edges, column by column.
pub struct Layers {
    rows: Vec<[f32; EDGES]>,
}

/// The place and scale of the eye in the picture.
pub struct Pose {
    /// Picture width in pixels.
    pub width: usize,
    /// Picture height in pixels.
    pub height: usize,
    /// Pixels across for one pixel of the reference.
    pub across: f32,
    /// Pixels down for one pixel of the reference.
    pub down: f32,
    /// Column of the fovea.
    pub fovea: f32,
    /// 1 for a slice through the foveal centre, 0 for one far off.
    pub pit: f32,
    /// +1 when the nasal side (thick nerve fibres) is right, -1 when left.
    pub nasal: f32,
    /// Thickness of the retina against the mean.
    pub thick: f32,
    /// Half-width of the pit in reference pixels.
    pub pit_width: f32,
    /// Roughness of the five inner edges, column by column, in reference pixels.
    pub rough: [Vec<f32>; 5],
    /// Row of Bruch's membrane in each column, before the retina is shifted into the picture.
    pub bruch: Vec<f32>,
}

impl Pose {
    /// Draws a pose.
    pub fn draw(rng: &mut Rng, width: usize, height: usize) -> Self {
        let down = height as f32 / 496.0;
        // A wider picture shows more retina, a narrow one is shrunk.
        let across = (width as f32 / 512.0).min(1.0) * rng.within(0.85, 1.3);
        let middle = width as f32 / 2.0;
        let fovea = middle + rng.within(-0.1, 0.1) * width as f32;
        let pit = if rng.chance(0.8) { rng.within(0.85, 1.0) } else { rng.within(0.0, 0.6) };
        let row = rng.within(235.0, 310.0);
        let tilt = rng.normal() * 0.06;
        let bow = if rng.chance(0.7) { rng.within(0.0, 25.0) } else { rng.within(25.0, 80.0) };
        let wave = rng.line(width, 45.0);
        let bruch = (0..width)
            .map(|x| {
                let x_ref = x as f32 - middle;
                let bend = bow * (x_ref / middle).powi(2);
                (row + bow * 0.4 + tilt * x_ref * 512.0 / width as f32 - bend + wave[x] * 0.7) * down
            })
            .collect();
        let rough = std::array::from_fn(|k| {
            let (fine, slow) = (rng.line(width, 1.8), rng.line(width, 14.0));
            let amount = [0.12, 0.7, 0.6, 0.8, 0.9][k];
            fine.iter().zip(slow).map(|(f, s)| amount * (0.7 * f + 0.8 * s)).collect()
        });
        Self {
            width,
            height,
            across,
            down,
            fovea,
            pit,
            nasal: if rng.chance(0.5) { 1.0 } else { -1.0 },
            thick: rng.within(0.9, 1.1),
            pit_width: rng.within(34.0, 50.0),
            rough,
            bruch,
        }
    }

    /// Distance of a column from the fovea in reference pixels, nasal positive.
    fn off(&self, x: usize) -> f32 {
        (x as f32 - self.fovea) / self.across * self.nasal
    }

    /// Thicknesses from Bruch's membrane up in reference pixels: pigment epithelium, its gap to the ellipsoid zone's
    /// centre, to the ELM, outer nuclear, outer plexiform, inner nuclear, inner plexiform with ganglion cells, fibres.
    fn thicknesses(&self, x: usize) -> [f32; 8] {
        let off = self.off(x);
        let pit = self.pit * (-(off.abs() / self.pit_width).powf(2.2) * 0.7).exp();
        let far = (off.abs() / 260.0).min(1.4);
        let fibres = 3.0
            + 9.0 * ((off - 40.0) / 220.0).clamp(0.0, 1.2)
            + 2.0 * ((-off - 60.0) / 220.0).clamp(0.0, 1.0);
        let t = self.thick;
        [
            10.5,
            5.5 + 1.5 * pit,
            6.5 + 2.0 * pit,
            (19.0 - 3.0 * far + 15.0 * pit) * t,
            (8.0 - 4.0 * pit) * t,
            (10.0 - 2.0 * far) * (1.0 - 0.93 * pit) * t,
            (31.0 - 12.0 * far.powf(1.3)) * (1.0 - 0.96 * pit) * t,
            fibres * (1.0 - 0.6 * pit) * t,
        ]
    }
}

impl Layers {
    /// The layers of an eye with these lesions. The whole retina is moved so that it stays in the picture.
    pub fn build(pose: &Pose, lesions: &Lesions) -> Self {
        // The inner retina follows the outline of what lies below, not its roughness.
        let below = |x: usize| lesions.lift * (lesions.elevation[x] + lesions.material[x] + lesions.fluid[x]);
        let lifted: Vec<f32> = (0..pose.width).map(below).collect();
        let lifted = blur_line(&lifted, &gauss(9.0 * pose.across));
        let mut rows: Vec<[f32; EDGES]> = (0..pose.width)
            .map(|x| {
                let [rpe, gap, inner, onl, opl, inl, ipl, nfl] = pose.thicknesses(x).map(|t| t * pose.down);
                let up = lesions.elevation[x];
                let under = lesions.material[x] + lesions.fluid[x];
                let swell = lesions.swelling[x];
                let elm = up + rpe + gap + inner + under;
                // The outer nuclear layer takes up what the inner retina does not follow, as far as it can.
                let onl = (onl + lifted[x] - up - under).max(onl * 0.38);
                let heights = [
                    up,
                    up + rpe,
                    up + rpe + gap + under,
                    elm,
                    elm + onl + swell * 0.55,
                    elm + onl + opl + swell * 0.6,
                    elm + onl + opl + inl + swell * 0.88,
                    elm + onl + opl + inl + ipl + swell,
                    elm + onl + opl + inl + ipl + nfl + swell,
                ];
                let bruch = pose.bruch[x];
                let mut row = [bruch; EDGES];
                for (k, height) in heights.iter().enumerate() {
                    row[EDGES - 2 - k] = bruch - height;
                }
                for (k, rough) in pose.rough.iter().enumerate() {
                    row[k] += rough[x] * pose.down;
                }
                // Roughness may not turn thin layers over.
                for k in (0..EDGES - 1).rev() {
                    row[k] = row[k].min(row[k + 1]);
                }
                row
            })
            .collect();
        let top = rows.iter().map(|r| r[0]).fold(f32::MAX, f32::min);
        let low = rows.iter().map(|r| r[EDGES - 1]).fold(f32::MIN, f32::max);
        let room = pose.height as f32;
        let shift = if top < 0.06 * room {
            0.06 * room - top
        } else if low > 0.85 * room {
            0.85 * room - low
        } else {
            0.0
        };
        for row in &mut rows {
            for y in row.iter_mut() {
                *y += shift;
            }
        }
        Self { rows }
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.rows.len()
    }

    /// The row of an edge in a column.
    pub fn at(&self, x: usize, edge: Edge) -> f32 {
        self.rows[x][edge as usize]
    }

    /// All edges of a column, from the top down.
    pub fn column(&self, x: usize) -> &[f32; EDGES] {
        &self.rows[x]
    }
}
