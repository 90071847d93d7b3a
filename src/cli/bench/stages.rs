//! A picture's way through the appliance, stage by stage.

use super::spread::Spread;
use anyhow::Context;
use fovea::explain::Map;
use fovea::screen::{Picture, Shown, State, View, draw};
use fovea::{Frame, Reader};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// Milliseconds of each stage.
#[derive(Debug, Serialize)]
pub struct Stages {
    pub picture: String,
    pub decode: Spread,
    pub prepare: Spread,
    pub engine: Spread,
    pub explain: Spread,
    /// The screen of 1280x800 pixels with a finding and its heat.
    pub draw: Spread,
    /// Prepare, explain and draw together, as a share of the engine's time (medians).
    pub beside_engine: f64,
}

/// Sends the picture through all stages `runs` times.
pub fn measure(reader: &mut Reader, path: &Path, runs: usize) -> anyhow::Result<Stages> {
    let preparation = reader.package().manifest.preparation.clone();
    let (region, model) = (reader.region(), reader.package().identity());
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let answer = reader.read(&Frame::decode(&bytes, path)?)?;
    let mut times: [Vec<f64>; 5] = Default::default();
    for run in 0..runs + 1 {
        let mut last = Instant::now();
        let mut lap = |stage: usize| {
            let now = Instant::now();
            // The first run fills caches.
            if run > 0 {
                times[stage].push((now - last).as_secs_f64() * 1000.0);
            }
            last = Instant::now();
        };
        let frame = Frame::decode(&bytes, path)?;
        lap(0);
        let prepared = preparation.prepare(&frame, region)?;
        lap(1);
        let output = reader.engine().run(&prepared.input)?;
        lap(2);
        let mut seen = answer.clone();
        seen.output = output;
        let contribution = reader.contribution(&seen, seen.diagnosis.class);
        let heat = Map::of_features(&contribution.map).heat();
        let mut map = [0.0; 64];
        map.copy_from_slice(&heat.values);
        lap(3);
        let shown = Shown {
            picture: &frame,
            map: Some(&map),
            place: seen.place,
            finding: seen.diagnosis.finding.name(),
            probabilities: seen.diagnosis.probabilities,
            referral: seen.diagnosis.finding.referral(),
            quality: seen.diagnosis.quality.grade.word(),
            reason: &seen.diagnosis.reason,
            age: Duration::from_millis(40),
            engine: seen.engine,
            millis: seen.millis,
        };
        let mut screen = Picture::new(1280, 800);
        let Ok(()) = draw(&View { state: State::Finding, shown: Some(shown), model: &model }, &mut screen);
        std::hint::black_box(screen.rgb());
        lap(4);
    }
    let [decode, prepare, engine, explain, draw] = times.map(Spread::of);
    let beside_engine = (prepare.median + explain.median + draw.median) / engine.median;
    Ok(Stages { picture: path.display().to_string(), decode, prepare, engine, explain, draw, beside_engine })
}

impl Stages {
    /// A line a stage.
    pub fn table(&self) -> String {
        let line = |name: &str, s: &Spread| {
            format!(
                "  {name:<8} median {:>8.3} ms · p5 {:.3} · p95 {:.3} · minimum {:.3}\n",
                s.median, s.p5, s.p95, s.minimum
            )
        };
        format!(
            "stages of {}:\n{}{}{}{}{}  prepare + explain + draw are {:.1} % of the engine's time",
            self.picture,
            line("decode", &self.decode),
            line("prepare", &self.prepare),
            line("engine", &self.engine),
            line("explain", &self.explain),
            line("draw", &self.draw),
            self.beside_engine * 100.0
        )
    }
}
