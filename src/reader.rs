//! One picture from frame to finding: preparation, engine, diagnosis, with what the explanation needs.

use crate::diagnosis::{Diagnosis, Quality, Statistics};
use crate::engine::{self, Ask, Engine, EngineError, Light, Output, Seen};
use crate::explain::light::{Heat, Lit, heat};
use crate::explain::{Contribution, contribution};
use crate::model::Package;
use crate::prepare::{Cut, NetworkInput, Prepared, Region, RegionError};
use crate::{Class, Frame};
use std::sync::Arc;

/// A model with an engine, ready for pictures.
pub struct Reader {
    package: Arc<Package>,
    engine: Box<dyn Engine>,
    region: Option<Region>,
    /// Width and height that the screen has for the picture.
    room: Option<[u32; 2]>,
}

/// What a picture gave.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What is said of it.
    pub diagnosis: Diagnosis,
    /// What the engine gave.
    pub output: Output,
    /// What the network saw.
    pub input: NetworkInput,
    /// Where in the frame that lies.
    pub place: Region,
    /// The engine's name.
    pub engine: &'static str,
    /// Why a better engine did not answer.
    pub note: Option<String>,
    /// The engine's time in milliseconds; a device's has the preparation in it.
    pub millis: f32,
    /// What the engine said of where its answer comes from.
    pub light: Option<Light>,
}

/// Why a picture has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The region does not fit the picture.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Reader {
    /// Opens the engine of that name (or `auto`, with the options of [`engine::Options::default`]) on a package; `region` is the B-scan's place in the pictures.
    ///
    /// # Errors
    /// See [`engine::open`].
    pub fn new(package: Arc<Package>, engine: &str, region: Option<Region>) -> Result<Self, EngineError> {
        Ok(Self::with(
            Arc::clone(&package),
            engine::open(engine, &package, &engine::Options::default())?,
            region,
        ))
    }

    /// A reader with an engine that is open already.
    pub fn with(package: Arc<Package>, engine: Box<dyn Engine>, region: Option<Region>) -> Self {
        Self { package, engine, region, room: None }
    }

    /// Says what room a screen has for the picture, so that a device may draw it.
    #[must_use]
    pub fn shown_in(self, room: [u32; 2]) -> Self {
        Self { room: Some(room), ..self }
    }

    /// Another reader for another thread; `None` where the engine cannot be shared.
    pub fn share(&self) -> Option<Self> {
        let engine = self.engine.share()?;
        Some(Self { package: Arc::clone(&self.package), engine, region: self.region, room: self.room })
    }

    /// The model.
    pub fn package(&self) -> &Package {
        &self.package
    }

    /// The B-scan's place in the pictures.
    pub fn region(&self) -> Option<Region> {
        self.region
    }

    /// The engine itself.
    pub fn engine(&mut self) -> &mut Box<dyn Engine> {
        &mut self.engine
    }

    /// Reads a picture.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&mut self, frame: &Frame) -> Result<Answer, ReadError> {
        let manifest = &self.package.manifest;
        let cut = Cut::new(frame, self.region)?;
        let ask = Ask { cut, preparation: &manifest.preparation, room: self.room };
        let Seen { prepared, output, millis, light } = engine::see(self.engine.as_mut(), &ask)?;
        let Prepared { input, whole, place } = prepared;
        let statistics = Statistics::measure(frame, self.region, &whole);
        let quality = Quality::measure(&statistics, &whole);
        let distance = self.package.gate.distance(&output.features);
        let diagnosis = Diagnosis::judge(
            &manifest.calibration,
            &manifest.gate,
            output.logits,
            &statistics,
            quality,
            distance,
        );
        let (engine, note) = (self.engine.name(), self.engine.note());
        Ok(Answer { diagnosis, output, input, place, engine, note, millis, light })
    }

    /// What each position adds to the logit of a class.
    pub fn contribution(&self, answer: &Answer, class: Class) -> Contribution {
        contribution(&self.package.head, &answer.output.features, class)
    }

    /// The heat of the answer's class, and the picture under it where a device has made it.
    pub fn heat(&self, answer: &Answer) -> (Heat, Option<Arc<Lit>>) {
        let class = answer.diagnosis.class;
        let light = answer.light.as_ref().filter(|light| light.class == class);
        let (map, lit) = match light {
            Some(light) => (light.map, light.picture.clone()),
            None => (self.contribution(answer, class).map, None),
        };
        (heat(&map), lit)
    }
}
