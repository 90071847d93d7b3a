//! Lesions of the three diseases as shapes.

use super::anatomy::{Edge, Layers, Pose};
use super::rng::Rng;
use fovea::Class;

/// An ellipse with a wavy edge.
pub struct Blob {
    /// Centre column.
    pub x: f32,
    /// Centre, as a share of the way from one edge down to the next.
    pub depth: f32,
    /// The edges between which it lies.
    pub between: (Edge, Edge),
    /// Half-axes in pixels.
    pub radius: (f32, f32),
    /// Phase of the wave along its edge.
    pub phase: f32,
}

impl Blob {
    /// Centre row in a retina.
    pub fn row(&self, layers: &Layers) -> f32 {
        let x = (self.x.max(0.0) as usize).min(layers.width() - 1);
        let (a, b) = (layers.at(x, self.between.0), layers.at(x, self.between.1));
        a + (b - a) * self.depth
    }

    /// 1 on the edge, less inside.
    pub fn distance(&self, row: f32, x: f32, y: f32) -> f32 {
        let (dx, dy) = ((x - self.x) / self.radius.0, (y - row) / self.radius.1);
        let angle = dy.atan2(dx);
        let wave = 1.0 + 0.1 * (3.0 * angle + self.phase).sin() + 0.05 * (5.0 * angle - self.phase).sin();
        (dx * dx + dy * dy).sqrt() / wave
    }
}

/// All lesions of an eye; the vectors have one value a column, in pixels.
pub struct Lesions {
    /// Height of the pigment epithelium over Bruch's membrane.
    pub elevation: Vec<f32>,
    /// Reflective material on the pigment epithelium.
    pub material: Vec<f32>,
    /// Clear fluid under the retina.
    pub fluid: Vec<f32>,
    /// Added thickness within the retina.
    pub swelling: Vec<f32>,
    /// Loss of the ellipsoid zone, 0 to 1.
    pub loss: Vec<f32>,
    /// Clear cysts within the retina.
    pub cysts: Vec<Blob>,
    /// Hard exudates and reflective dots.
    pub exudates: Vec<Blob>,
    /// Share of what lies below that the inner retina is lifted by.
    pub lift: f32,
    /// Brightness (0 to 255) of what lies under the pigment epithelium.
    pub content: f32,
    /// Light lost in a pixel of that content.
    pub absorption: f32,
}

impl Lesions {
    fn none(width: usize) -> Self {
        let flat = || vec![0.0; width];
        Self {
            elevation: flat(),
            material: flat(),
            fluid: flat(),
            swelling: flat(),
            loss: flat(),
            cysts: Vec::new(),
            exudates: Vec::new(),
            lift: 0.25,
            content: 115.0,
            absorption: 0.004,
        }
    }

    /// Draws the lesions of a class.
    pub fn draw(rng: &mut Rng, pose: &Pose, class: Class) -> Self {
        let mut lesions = Self::none(pose.width);
        match class {
            Class::Normal => {}
            Class::Drusen => lesions.drusen(rng, pose),
            Class::Dme => lesions.oedema(rng, pose),
            Class::Cnv => lesions.neovascular(rng, pose),
        }
        lesions
    }

    /// Several domes under the pigment epithelium.
    fn drusen(&mut self, rng: &mut Rng, pose: &Pose) {
        let count = rng.whole(3, 9);
        let spread = rng.within(45.0, 130.0) * pose.across;
        let size = rng.within(0.6, 1.2);
        let mut place = Vec::new();
        for k in 0..count {
            let half = rng.within(7.0, 17.0) * size * pose.across;
            let height = (rng.within(7.0, 19.0) * size).max(if k == 0 { 13.0 } else { 0.0 }) * pose.down;
            // Domes stand beside each other: a few tries for a free place.
            let mut x = pose.fovea;
            for _ in 0..12 {
                x = pose.fovea + rng.normal() * spread;
                if place.iter().all(|(other, reach): &(f32, f32)| (x - other).abs() > 0.8 * (half + reach)) {
                    break;
                }
            }
            let x = x.clamp(half * 2.0, pose.width as f32 - half * 2.0);
            place.push((x, half));
            dome(&mut self.elevation, x, half, height);
            dome(&mut self.loss, x, half * 0.8, rng.within(0.2, 0.75));
        }
        self.lift = rng.within(0.05, 0.22);
        self.content = rng.within(100.0, 135.0);
    }

    /// Cysts in thickened inner and outer nuclear layers, exudates, at times fluid under the fovea.
    fn oedema(&mut self, rng: &mut Rng, pose: &Pose) {
        let central = rng.chance(0.7);
        let centre = if central {
            pose.fovea + rng.normal() * 12.0 * pose.across
        } else {
            pose.fovea + (if rng.chance(0.5) { 1.0 } else { -1.0 }) * rng.within(70.0, 130.0) * pose.across
        };
        let centre = centre.clamp(0.2 * pose.width as f32, 0.8 * pose.width as f32);
        let half = rng.within(60.0, 120.0) * pose.across;
        let peak = rng.within(32.0, 95.0) * pose.down;
        bump(&mut self.swelling, centre, half, peak);
        let big = peak / pose.down;
        // Outer nuclear layer: cysts side by side, the tallest in the middle.
        let mut x = centre - half * rng.within(0.75, 1.1);
        while x < centre + half * 0.95 {
            let near = (-((x - centre) / half).powi(2)).exp();
            let rx = rng.within(5.0, 10.0 + 0.11 * big * near) * pose.across;
            let ry = (5.0 + rng.within(0.2, 0.36) * big * near) * pose.down;
            if rng.chance(0.85) {
                self.cysts.push(Blob {
                    x: x + rx,
                    depth: rng.within(0.35, 0.6),
                    between: (Edge::Opl, Edge::Elm),
                    radius: (rx, ry),
                    phase: rng.within(0.0, 6.0),
                });
            }
            x += 2.0 * rx + rng.within(1.0, 9.0) * pose.across;
        }
        // Inner nuclear layer: smaller and rounder.
        for _ in 0..rng.whole(2, 9) {
            let r = rng.within(3.0, 6.5 + 0.03 * big);
            self.cysts.push(Blob {
                x: centre + rng.normal() * half * 0.75,
                depth: rng.within(0.3, 0.7),
                between: (Edge::Ipl, Edge::Inl),
                radius: (r * pose.across * rng.within(0.9, 1.5), r * pose.down),
                phase: rng.within(0.0, 6.0),
            });
        }
        if rng.chance(0.7) {
            let around = centre + rng.within(-0.8, 0.8) * half;
            for _ in 0..rng.whole(3, 14) {
                self.dot(rng, pose, (around, half * 0.45), (1.4, 3.6));
            }
        }
        if rng.chance(0.3) {
            bump(
                &mut self.fluid,
                pose.fovea,
                rng.within(28.0, 60.0) * pose.across,
                rng.within(10.0, 28.0) * pose.down,
            );
        }
        dome(&mut self.loss, centre, half * 0.6, rng.within(0.0, 0.6));
        self.lift = 0.85;
    }

    fn dot(&mut self, rng: &mut Rng, pose: &Pose, around: (f32, f32), size: (f32, f32)) {
        let x = around.0 + rng.normal() * around.1;
        let r = rng.within(size.0, size.1);
        self.exudates.push(Blob {
            x: x.clamp(0.0, pose.width as f32 - 1.0),
            depth: rng.within(-0.2, 0.75),
            between: (Edge::Inl, Edge::Elm),
            radius: (r * pose.across * rng.within(0.8, 1.2), r * pose.down),
            phase: rng.within(0.0, 6.0),
        });
    }

    /// A membrane: irregular elevation or material on the epithelium, with fluid under and within the retina.
    fn neovascular(&mut self, rng: &mut Rng, pose: &Pose) {
        let centre = (pose.fovea + rng.normal() * 35.0 * pose.across)
            .clamp(0.22 * pose.width as f32, 0.78 * pose.width as f32);
        let half = rng.within(40.0, 85.0) * pose.across;
        let kind = rng.whole(0, 2);
        let rough = rng.line(pose.width, 3.0 * pose.across);
        let coarse = rng.line(pose.width, 16.0 * pose.across);
        if kind != 1 {
            // Fibrovascular detachment of the pigment epithelium.
            let height =
                if rng.chance(0.3) { rng.within(45.0, 85.0) } else { rng.within(20.0, 45.0) } * pose.down;
            bump(&mut self.elevation, centre, half, height);
            if rng.chance(0.5) {
                let side = centre + (if rng.chance(0.5) { 1.1 } else { -1.1 }) * half;
                bump(&mut self.elevation, side, half * 0.45, height * rng.within(0.3, 0.6));
            }
            self.content = rng.within(70.0, 110.0);
            self.absorption = rng.within(0.006, 0.014);
        }
        if kind != 0 {
            // Reflective material between retina and pigment epithelium.
            let place = centre + rng.within(-0.4, 0.4) * half;
            bump(&mut self.material, place, half * rng.within(0.5, 0.85), rng.within(18.0, 42.0) * pose.down);
            if kind == 1 {
                bump(&mut self.elevation, place, half * 0.7, rng.within(6.0, 16.0) * pose.down);
            }
            self.absorption = rng.within(0.006, 0.012);
        }
        for x in 0..pose.width {
            let share = (self.elevation[x] / (12.0 * pose.down)).min(1.0);
            self.elevation[x] += share * (rough[x] * 2.2 + coarse[x] * 4.0) * pose.down;
            self.elevation[x] = self.elevation[x].max(0.0);
            let share = (self.material[x] / (12.0 * pose.down)).min(1.0);
            self.material[x] =
                (self.material[x] + share * (rough[x] * 1.6 + coarse[x] * 3.4) * pose.down).max(0.0);
        }
        let fluid = if rng.chance(0.75) { rng.within(9.0, 30.0) } else { 0.0 };
        if fluid > 0.0 {
            let side = if rng.chance(0.5) { 1.0 } else { -1.0 };
            let at = (centre + side * half * rng.within(0.5, 1.1)).clamp(0.0, pose.width as f32);
            bump(&mut self.fluid, at, rng.within(35.0, 75.0) * pose.across, fluid * pose.down);
        }
        let swell = rng.within(6.0, 38.0);
        bump(&mut self.swelling, centre, half * rng.within(0.9, 1.4), swell * pose.down);
        if swell > 16.0 || rng.chance(0.4) {
            for _ in 0..rng.whole(2, 8) {
                let r = rng.within(3.0, 5.0 + 0.2 * swell);
                let inner = rng.chance(0.4);
                self.cysts.push(Blob {
                    x: centre + rng.normal() * half * 0.6,
                    depth: rng.within(0.3, 0.6),
                    between: if inner { (Edge::Ipl, Edge::Inl) } else { (Edge::Opl, Edge::Elm) },
                    radius: (r * pose.across * rng.within(0.9, 1.6), r * pose.down),
                    phase: rng.within(0.0, 6.0),
                });
            }
        }
        for _ in 0..rng.whole(0, 7) {
            self.dot(rng, pose, (centre, half * 0.7), (1.2, 2.4));
        }
        bump(&mut self.loss, centre, half * 1.2, rng.within(0.75, 1.0));
        self.lift = rng.within(0.7, 0.95);
    }
}

/// Adds a smooth bell.
fn bump(line: &mut [f32], centre: f32, half: f32, height: f32) {
    for (x, v) in line.iter_mut().enumerate() {
        let d = (x as f32 - centre) / half;
        // Falls to nothing at 1.6 half-widths, so that fluid ends instead of thinning out.
        let bell = (1.0 - (d / 1.6).powi(2)).max(0.0);
        *v += height * bell * bell;
    }
}

/// Raises the line to a round dome.
fn dome(line: &mut [f32], centre: f32, half: f32, height: f32) {
    for (x, v) in line.iter_mut().enumerate() {
        let d = (x as f32 - centre) / half;
        let round = (1.0 - (d / 1.25).powi(2)).max(0.0).powf(1.1);
        *v = v.max(height * round);
    }
}
