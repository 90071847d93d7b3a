//! From shapes to a picture: reflectivity, shadows, the optics' blur, speckle, noise, display curve.
//!
//! A Spectralis shows the fourth root of the reflected power, so brightness is set on the display's scale (measured on
//! normal B-scans of the Kermany set), raised to the fourth power, blurred and speckled there, and brought back.

use super::anatomy::{Edge, Layers, Pose};
use super::lesion::{Blob, Lesions};
use super::rng::{Rng, blur_line, blur_plane, gauss};

/// A picture and the mask of its lesions, 8 bits a pixel, row by row.
pub struct Phantom {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Grey values.
    pub pixels: Vec<u8>,
    /// 255 where the lesion is, 0 elsewhere.
    pub mask: Vec<u8>,
    /// The layers' edges.
    pub layers: Layers,
}

/// A vessel of the nerve fibre layer.
struct Vessel {
    x: f32,
    half: f32,
    shade: f32,
}

/// What varies from scan to scan, not from eye to eye.
struct Take {
    bright: f32,
    gain: Vec<f32>,
    streak: Vec<f32>,
    vessels: Vec<Vessel>,
    choroid: (f32, f32, f32),
    choroid_depth: f32,
    choroid_fade: f32,
    haze: f32,
    /// Brightness of the detached vitreous' skin, and its row in each column.
    hyaloid: Option<(f32, Vec<f32>)>,
}

impl Take {
    fn draw(rng: &mut Rng, pose: &Pose, layers: &Layers) -> Self {
        let width = pose.width;
        let gain = rng.line(width, 60.0).iter().map(|v| 1.0 + 0.045 * v).collect();
        let streak = rng.line(width, 1.6).iter().map(|v| 1.0 + 0.03 * v).collect();
        let vessels = (0..rng.whole(1, 6))
            .map(|_| Vessel {
                x: rng.within(0.0, width as f32),
                half: rng.within(1.0, 3.4) * pose.across,
                shade: rng.within(0.05, 1.0).powi(2) * 0.45,
            })
            .filter(|v| (v.x - pose.fovea).abs() > 45.0 * pose.across * pose.pit)
            .collect();
        Self {
            bright: rng.within(0.84, 1.1),
            gain,
            streak,
            vessels,
            choroid: (rng.within(0.9, 1.15), rng.within(0.2, 0.42), rng.within(-0.3, 0.4)),
            choroid_depth: rng.within(18.0, 34.0),
            choroid_fade: rng.within(80.0, 150.0),
            haze: rng.within(0.0, 16.0),
            hyaloid: rng.chance(0.25).then(|| {
                // It hangs over the retina without following it.
                let ilm: Vec<f32> = (0..width).map(|x| layers.at(x, Edge::Ilm)).collect();
                let (above, wave) = (rng.within(12.0, 45.0), rng.line(width, 45.0));
                let row = blur_line(&ilm, &gauss(60.0)).into_iter().zip(&wave).zip(&ilm).map(
                    |((row, wave), ilm)| (row - (above + 6.0 * wave) * pose.down).min(ilm - 3.0 * pose.down),
                );
                (rng.within(40.0, 75.0), row.collect())
            }),
        }
    }
}

/// Paints an eye.
pub fn render(rng: &mut Rng, pose: &Pose, lesions: &Lesions, layers: Layers) -> Phantom {
    let (width, height) = (pose.width, pose.height);
    let take = Take::draw(rng, pose, &layers);
    let (sx, sy) = (pose.across, pose.down);
    let fine = rng.plane(width, height, (3.5 * sx.max(0.5), 2.5 * sy.max(0.5)));
    let coarse = rng.plane(width, height, (24.0 * sx.max(0.3), 9.0 * sy.max(0.3)));
    let vessels = rng.plane(width, height, (15.0 * sx.max(0.3), 13.0 * sy.max(0.3)));
    let cysts: Vec<(&Blob, f32)> = lesions.cysts.iter().map(|b| (b, b.row(&layers))).collect();
    let dots: Vec<(&Blob, f32)> = lesions.exudates.iter().map(|b| (b, b.row(&layers))).collect();
    let swollen = lesions.swelling.iter().copied().fold(0.0, f32::max);

    let mut power = vec![0.0f32; width * height];
    let mut mask = vec![0u8; width * height];
    for x in 0..width {
        let column = layers.column(x);
        let here = |blobs: &[(&Blob, f32)]| -> Vec<usize> {
            let near = |b: &Blob| (x as f32 - b.x).abs() <= b.radius.0 * 1.2 + 1.0;
            (0..blobs.len()).filter(|i| near(blobs[*i].0)).collect()
        };
        let (my_cysts, my_dots) = (here(&cysts), here(&dots));
        let vessel: f32 = take
            .vessels
            .iter()
            .map(|v| v.shade * (-0.5 * ((x as f32 - v.x) / v.half).powi(2)).exp())
            .fold(0.0, f32::max);
        let mut light = take.gain[x] * take.bright;
        let mut shaded = false;
        for y in 0..height {
            let (i, row) = (y * width + x, y as f32 + 0.5);
            let (mut value, mut sick) = tissue(lesions, &take, column, x, row, sy);
            if !shaded && row > column[Edge::Nfl as usize] + 3.0 * sy {
                light *= 1.0 - vessel;
                shaded = true;
            } else if !shaded && row > column[Edge::Ilm as usize] && vessel > 0.12 {
                value = value.max(150.0 + 60.0 * vessel);
            }
            let inside = row > column[Edge::Nfl as usize] + 2.0 * sy && row < column[Edge::Elm as usize] - sy;
            if row > column[Edge::Bruch as usize] {
                let depth = (row - column[Edge::Bruch as usize]) / sy;
                value *= choroid(&take, 0.7 * vessels[i] + 0.5 * coarse[i], depth) * take.streak[x];
            } else if row > column[Edge::Ilm as usize] {
                let grain = if (column[Edge::Inl as usize]..column[Edge::Opl as usize]).contains(&row) {
                    0.16
                } else {
                    0.07
                };
                let grain = if row > column[Edge::Ez as usize] { 0.13 } else { grain };
                value *= 1.0 + grain * fine[i] + 0.07 * coarse[i];
                if sick {
                    value *= 1.0 + 0.14 * coarse[i] + 0.1 * vessels[i];
                }
            }
            if inside {
                // Swollen nuclear layers belong to the lesion, with what is in them.
                let nuclear = row > column[Edge::Ipl as usize];
                sick |= nuclear && lesions.swelling[x] > (0.4 * swollen).max(9.0 * sy);
                for (blob, at) in my_cysts.iter().map(|k| &cysts[*k]) {
                    let d = blob.distance(*at, x as f32, row);
                    if d < 1.0 {
                        value = 24.0 + 8.0 * fine[i].max(0.0);
                        sick = true;
                    } else if d < 1.0 + 2.0 / blob.radius.0.min(blob.radius.1) {
                        value = (value * 1.08).max(72.0);
                    }
                }
            }
            if row > column[Edge::Nfl as usize] && row < column[Edge::Ez as usize] {
                for (blob, at) in my_dots.iter().map(|k| &dots[*k]) {
                    if blob.distance(*at, x as f32, row) < 1.0 {
                        value = 205.0;
                        light *= 0.94;
                        sick = true;
                    }
                }
            }
            power[i] = (value * light / 255.0).max(0.0).powi(4);
            mask[i] = if sick { 255 } else { 0 };
            if row > column[Edge::RpeBottom as usize] && row < column[Edge::Bruch as usize] {
                light *= 1.0 - lesions.absorption / sy;
            } else if row > column[Edge::Ez as usize]
                && row < column[Edge::RpeTop as usize]
                && lesions.material[x] > sy
            {
                light *= 1.0 - lesions.absorption * 0.7 / sy;
            }
        }
    }
    let power = blur_plane(&power, width, (1.0, 0.85));
    let mut pixels = develop(rng, &power, pose);
    margins(rng, &mut pixels, pose, &layers);
    Phantom { width, height, pixels, mask, layers }
}

/// Brightness of a place and whether it belongs to a lesion.
fn tissue(lesions: &Lesions, take: &Take, column: &[f32], x: usize, row: f32, sy: f32) -> (f32, bool) {
    let [ilm, nfl, ipl, inl, opl, elm, ez, top, bottom, bruch] = *column else { return (0.0, false) };
    let line = |at: f32, half: f32| (-0.5 * ((row - at) / (half * sy)).powi(2)).exp();
    let share = |from: f32, to: f32| ((row - from) / (to - from).max(0.5)).clamp(0.0, 1.0);
    let up = bottom + 2.0 * sy < bruch;
    if row < ilm {
        let mut haze = take.haze * (1.0 - row / ilm.max(1.0));
        if let Some((glow, rows)) = &take.hyaloid {
            haze = haze.max(glow * line(rows[x], 1.5));
        }
        return (haze, false);
    }
    let value = if row < nfl {
        // Thick fibre bundles shine, thin ones hardly.
        let thick = ((nfl - ilm) / (9.0 * sy)).clamp(0.0, 1.0);
        (118.0 + 45.0 * thick).max(128.0 * line(ilm + 1.5 * sy, 1.6))
    } else if row < ipl {
        104.0 + 10.0 * share(nfl, ipl)
    } else if row < inl {
        84.0
    } else if row < opl {
        102.0
    } else if row < elm - 1.5 * sy {
        60.0 + 9.0 * (lesions.swelling[x] / (30.0 * sy)).min(1.0)
    } else if row < ez {
        let membrane = 60.0 + 20.0 * line(elm, 1.1) * (1.0 - lesions.loss[x]);
        membrane.max((68.0 + 92.0 * line(ez, 1.8)) * (1.0 - 0.5 * lesions.loss[x]))
    } else if row < top {
        let material = lesions.material[x];
        let below = top - row;
        if material > 1.5 * sy && below < material {
            return (138.0, true);
        }
        if lesions.fluid[x] > 1.5 * sy && row > ez + 2.5 * sy {
            return (20.0, true);
        }
        let zone = 135.0 * line(top - 0.5 * sy, 1.6);
        96.0f32.max(165.0 * line(ez, 1.8)).max(zone) * (1.0 - 0.35 * lesions.loss[x])
    } else if row < bottom {
        let membrane = 116.0 + 96.0 * line((top + bottom) / 2.0 + 0.8 * sy, 2.8);
        let worn = if up { 0.07 } else { 0.0 };
        return (membrane * (1.0 - worn - 0.06 * lesions.loss[x]), up);
    } else if row < bruch {
        return (lesions.content.max(105.0 * line(bruch - sy, 1.0)), up);
    } else {
        let depth = (row - bruch) / sy;
        let (gain, _, _) = take.choroid;
        let decay = 58.0 * (-depth / take.choroid_depth).exp() + 42.0 * (-depth / take.choroid_fade).exp();
        return (gain * decay, false);
    };
    (value, false)
}

/// Texture of the choroid: dark vessel lumina in brighter stroma, fading with depth.
fn choroid(take: &Take, noise: f32, depth: f32) -> f32 {
    let (_, amount, cut) = take.choroid;
    // The choriocapillaris just under Bruch's membrane is even.
    let seen = ((depth - 6.0) / 10.0).clamp(0.0, 1.0) * (-depth / 90.0).exp();
    let lumen = ((noise - cut * 0.5) * 3.5).clamp(0.0, 1.0);
    1.0 + seen * amount * (0.25 * noise + 0.35 - 1.6 * lumen)
}

/// Speckle, noise and the display's fourth root.
fn develop(rng: &mut Rng, power: &[f32], pose: &Pose) -> Vec<u8> {
    let (width, height) = (pose.width, pose.height);
    let looks = rng.whole(4, 8);
    // Lateral and axial correlation of speckle as measured: 0.19 and 0.68 from one pixel to the next.
    let grain = (0.55, 1.1);
    let mut field = |looks: u32| {
        let mut sum = vec![0.0f32; power.len()];
        for _ in 0..2 * looks {
            let white: Vec<f32> = (0..power.len()).map(|_| rng.normal()).collect();
            for (sum, v) in sum.iter_mut().zip(blur_plane(&white, width, grain)) {
                *sum += v * v;
            }
        }
        let mean = sum.iter().sum::<f32>() / sum.len() as f32;
        sum.iter_mut().for_each(|v| *v /= mean);
        sum
    };
    let speckle = field(looks);
    let noise = field(2);
    // Power of the noise, and how much of it the machine subtracts: more of it deep down.
    let level = rng.within(0.00022, 0.0008);
    let taken = rng.within(0.3, 0.75);
    (0..power.len())
        .map(|i| {
            let deep = (i / width) as f32 / height as f32;
            let floor = level * (noise[i] * (1.0 - 0.45 * deep) - taken * (0.85 + 0.05 * deep));
            let seen = (power[i] * speckle[i] + floor).max(0.0);
            (255.0 * seen.sqrt().sqrt() + 0.5).clamp(0.0, 250.0) as u8
        })
        .collect()
}

/// White wedges where registration left the picture empty, never over the retina.
fn margins(rng: &mut Rng, pixels: &mut [u8], pose: &Pose, layers: &Layers) {
    if !rng.chance(0.5) {
        return;
    }
    let (width, height) = (pose.width, pose.height);
    let (above, below) = (rng.within(0.0, 0.16), rng.within(0.0, 0.16));
    let slope = rng.within(-0.12, 0.12);
    let side = if rng.chance(0.4) { rng.whole(1, 8) as usize } else { 0 };
    for x in 0..width {
        let lean = slope * (x as f32 - width as f32 / 2.0);
        let top = (above * height as f32 - 0.06 * height as f32 + lean)
            .min(layers.at(x, Edge::Ilm) - 8.0 * pose.down);
        let low = (height as f32 - below * height as f32 + 0.06 * height as f32 + lean)
            .max(layers.at(x, Edge::Bruch) + 40.0 * pose.down);
        for y in 0..height {
            if (y as f32) < top || (y as f32) > low || x < side {
                pixels[y * width + x] = 255;
            }
        }
    }
}
