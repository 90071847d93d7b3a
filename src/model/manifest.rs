//! `manifest.toml`: typed, unknown keys refused.

use super::{MANIFEST, ModelError};
use crate::Class;
use crate::prepare::{Preparation, SIDE};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// The format of the package that this build reads and writes.
pub const FORMAT: u32 = 1;

/// The two heads of the article.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// Global average pool, dense 64 with ReLU, dense 4.
    Gap,
    /// 1x1 convolution to 64 with batch norm and ReLU, dense 4 over all 8x8x64.
    Conv,
}

/// What a package says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: u32,
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The classes in the order of the logits; always those of [`Class::ALL`].
    pub labels: Vec<Class>,
    /// The head.
    pub head: HeadKind,
    /// How a frame becomes the input.
    pub preparation: Preparation,
    /// From logits to a confidence.
    pub calibration: Calibration,
    /// What is no B-scan.
    #[serde(default)]
    pub gate: GateLimits,
    /// Name and SHA-256 of each other file of the package.
    pub files: BTreeMap<String, String>,
    /// The answer to [`super::golden_input`].
    pub golden: Golden,
    /// A summary of the training, for people.
    #[serde(default)]
    pub training: toml::Table,
    /// Activation scales by tensor name.
    #[serde(default)]
    pub scales: BTreeMap<String, f32>,
}

/// Temperature scaling (Guo et al., ICML 2017) and abstention, both fitted on validation patients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Logits are divided by this before the softmax.
    pub temperature: f32,
    /// Below this calibrated confidence the finding is UNCERTAIN.
    pub threshold: f32,
}

/// Limits of the gate; see [`crate::diagnosis`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateLimits {
    /// Feature distance above which a picture is no B-scan; without it the features are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f32>,
}

/// The expected answer to the golden picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Logits in the order of the labels.
    pub logits: [f32; 4],
}

impl Manifest {
    /// Reads a package's manifest; its files are not looked at.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(MANIFEST);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(ModelError::Missing(folder.into()))
            }
            Err(source) => Err(ModelError::Io { path, source }),
        }
    }

    /// Reads a manifest's text; `path` is for messages.
    ///
    /// # Errors
    /// [`ModelError::Manifest`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ModelError> {
        let wrong = |place: String, reason: String| ModelError::Manifest { path: path.into(), place, reason };
        let manifest: Self = toml::from_str(text).map_err(|error| {
            let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or(text);
            let start = before.rfind('\n').map_or(0, |i| i + 1);
            let place =
                format!(":{}:{}", before.matches('\n').count() + 1, before[start..].chars().count() + 1);
            wrong(place, error.message().replace('\n', ", "))
        })?;
        manifest.check().map_err(|reason| wrong(String::new(), reason))?;
        Ok(manifest)
    }

    /// The manifest as TOML.
    ///
    /// # Errors
    /// When `training` holds something that TOML cannot.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format {} where this build reads {FORMAT}", self.format));
        }
        if self.labels != Class::ALL {
            return Err(format!("labels {:?} where this build needs CNV, DME, DRUSEN, NORMAL", self.labels));
        }
        if self.preparation.side != SIDE || self.preparation.filter != "triangle" {
            return Err(format!(
                "preparation {}/{} where this build has {SIDE}/triangle",
                self.preparation.side, self.preparation.filter
            ));
        }
        let c = &self.calibration;
        if !(c.temperature.is_finite() && c.temperature > 0.0 && (0.0..=1.0).contains(&c.threshold)) {
            return Err(format!("temperature {} and threshold {} make no sense", c.temperature, c.threshold));
        }
        if self.gate.limit.is_some_and(|limit| !(limit.is_finite() && limit > 0.0)) {
            return Err("gate.limit must be above 0".into());
        }
        if !self.golden.logits.iter().all(|logit| logit.is_finite()) {
            return Err("golden.logits are not finite".into());
        }
        for (name, hash) in &self.files {
            // A package never reaches out of its folder.
            let mut parts = Path::new(name).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(format!("[files] names '{name}', which is no plain file name"));
            }
            if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(format!("[files] gives '{name}' no SHA-256 of 64 hexadecimal digits"));
            }
        }
        Ok(())
    }
}
