//! A picture's way through the appliance, stage by stage.

use super::spread::Spread;
use anyhow::Context;
use fovea::diagnosis::Referral;
use fovea::explain::{contribution, light::heat};
use fovea::prepare::Region;
use fovea::screen::{Screen, Shown, State, Strip, View};
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
    /// A screen of 1280x800 pixels whose finding, words, picture and heat are all replaced: what each picture costs.
    pub draw: Spread,
    /// The same screen made anew, with all letters to rasterise: what the start costs.
    pub first_draw: Spread,
    /// Prepare, explain and draw (not the first) together, as a share of the engine's time (medians).
    pub beside_engine: f64,
}

/// Sends the picture through all stages `runs` times.
pub fn measure(reader: &mut Reader, path: &Path, runs: usize) -> anyhow::Result<Stages> {
    let preparation = reader.package().manifest.preparation.clone();
    let (region, model) = (reader.region(), reader.package().identity());
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let answer = reader.read(&Frame::decode(&bytes, path)?)?;
    let mut times: [Vec<f64>; 6] = Default::default();
    // What stands on the screen before: another picture with another finding in other words.
    let frame = Frame::decode(&bytes, path)?;
    let turned =
        Frame::new(frame.width(), frame.height(), frame.pixels().iter().rev().copied().collect(), "turned")?;
    let before = View {
        state: State::Finding,
        shown: Some(Shown {
            picture: &turned,
            map: Some(&[0.5; 64]),
            place: Region::whole(&frame),
            lit: None,
            finding: "-",
            probabilities: [0.3, 0.4, 0.2, 0.1],
            referral: if answer.diagnosis.finding.referral() == Referral::Repeat {
                Referral::Observe
            } else {
                Referral::Repeat
            },
            quality: "-",
            reason: "-",
            age: Duration::from_secs(3000),
            engine: "-",
            note: "",
            millis: 0.0,
        }),
        model: &model,
        strip: Strip::default(),
    };
    let mut screen = Screen::new(1280, 800);
    for run in 0..runs + 1 {
        let mut last = Instant::now();
        let mut lap = |last: &mut Instant, stage: usize| {
            let now = Instant::now();
            // The first run fills caches.
            if run > 0 {
                times[stage].push((now - *last).as_secs_f64() * 1000.0);
            }
            *last = Instant::now();
        };
        let frame = Frame::decode(&bytes, path)?;
        lap(&mut last, 0);
        let prepared = preparation.prepare(&frame, region)?;
        lap(&mut last, 1);
        let output = reader.engine().run(&prepared.input)?;
        lap(&mut last, 2);
        let contribution = contribution(&reader.package().head, &output.features, answer.diagnosis.class);
        let map = heat(&contribution.map);
        lap(&mut last, 3);
        let shown = Shown {
            picture: &frame,
            map: Some(&map),
            place: answer.place,
            lit: None,
            finding: answer.diagnosis.finding.name(),
            probabilities: answer.diagnosis.probabilities,
            referral: answer.diagnosis.finding.referral(),
            quality: answer.diagnosis.quality.grade.word(),
            reason: &answer.diagnosis.reason,
            age: Duration::from_millis(40),
            engine: answer.engine,
            note: answer.note.as_deref().unwrap_or_default(),
            millis: answer.millis,
        };
        let view = View { state: State::Finding, shown: Some(shown), model: &model, strip: Strip::default() };
        screen.draw(&before);
        last = Instant::now();
        std::hint::black_box(screen.draw(&view));
        lap(&mut last, 4);
        std::hint::black_box(Screen::new(1280, 800).draw(&view));
        lap(&mut last, 5);
    }
    let [decode, prepare, engine, explain, draw, first_draw] = times.map(Spread::of);
    let beside_engine = (prepare.median + explain.median + draw.median) / engine.median;
    Ok(Stages {
        picture: path.display().to_string(),
        decode,
        prepare,
        engine,
        explain,
        draw,
        first_draw,
        beside_engine,
    })
}

impl Stages {
    /// A line a stage.
    pub fn table(&self) -> String {
        let line = |name: &str, s: &Spread| {
            format!(
                "  {name:<10} median {:>8.3} ms · p5 {:.3} · p95 {:.3} · minimum {:.3}\n",
                s.median, s.p5, s.p95, s.minimum
            )
        };
        format!(
            "stages of {}:\n{}{}{}{}{}{}  prepare + explain + draw are {:.1} % of the engine's time (draw: a screen of 1280x800 \
             that showed another finding before; first draw: all of it made anew)",
            self.picture,
            line("decode", &self.decode),
            line("prepare", &self.prepare),
            line("engine", &self.engine),
            line("explain", &self.explain),
            line("draw", &self.draw),
            line("first draw", &self.first_draw),
            self.beside_engine * 100.0
        )
    }
}
