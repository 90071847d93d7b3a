//! `fovea.toml`: typed, unknown keys refused, errors with file, line and column.

use crate::engine::Options;
use crate::region::Layout;
use fovea_board::Profile;
use serde::Deserialize;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the appliance does. Every key may be left out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where pictures come from: `folder:DIR`, `replay:DIR?fps=N` or `v4l2:///dev/video0`.
    pub source: String,
    /// Where the screen goes: `auto`, `png:DIR`, `window`, `drm:///dev/dri/card0`, `fb:///dev/fb0` or `none`; `NAME+png:DIR` also keeps the screens.
    pub display: String,
    /// The model package's folder; without it the bundled one.
    pub model: Option<PathBuf>,
    /// `auto`, an engine's name, or several with commas between, tried in that order.
    pub engine: String,
    /// Keeps captured pictures in this folder: at most one a second, and 1 GiB, the oldest going first.
    pub record: Option<PathBuf>,
    /// How `auto` looks after an NVIDIA device.
    pub gpu: Gpu,
    /// The B-scan's place in a larger picture: x, y, width, height in pixels.
    pub region: Option<[u32; 4]>,
    /// The look of the screen around the region, written by `fovea region`; another look is a fault.
    pub layout: Option<Layout>,
    /// Equal results in a row before a finding is published.
    pub hold: NonZeroU32,
    /// Seconds without a sign of life from the source after which the finding leaves the screen.
    pub stale_after: Seconds,
    /// Seconds after which an engine that does not answer is given up: a fault on the screen.
    pub answer_within: Seconds,
    /// Width and height of the screen in pixels, see [`Config::screen`].
    pub size: Option<Size>,
    /// The board, as a profile of its own: `inherits` names the one on which it stands.
    pub board: Profile,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: "folder:.".into(),
            display: "auto".into(),
            model: None,
            engine: "auto".into(),
            record: None,
            gpu: Gpu::default(),
            region: None,
            layout: None,
            hold: NonZeroU32::MIN,
            stale_after: Seconds(2.0),
            answer_within: Seconds(20.0),
            size: None,
            board: Profile::default(),
        }
    }
}

/// The section `[gpu]`; the engine `auto` alone uses it.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gpu {
    /// Seconds after which a picture has hung: the processor answers it.
    pub answer_within: Seconds,
    /// Seconds of rest before a device that failed is tried again; doubles with each failure, up to ten minutes.
    pub retry_after: Seconds,
    /// Seconds after which a device reads the golden picture again before the next of the operator's.
    pub prove_every: Seconds,
}

impl Default for Gpu {
    fn default() -> Self {
        let Options { limit, retry, prove } = Options::default();
        let [answer_within, retry_after, prove_every] =
            [limit, retry, prove].map(|time| Seconds(time.as_secs_f64()));
        Self { answer_within, retry_after, prove_every }
    }
}

impl Gpu {
    /// As engines are opened with.
    pub fn options(self) -> Options {
        let [limit, retry, prove] =
            [self.answer_within, self.retry_after, self.prove_every].map(Seconds::duration);
        Options { limit, retry, prove }
    }
}

/// A time in seconds, 0.2 to 60.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Seconds(f64);

impl Seconds {
    /// As a duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs_f64(self.0)
    }
}

impl TryFrom<f64> for Seconds {
    type Error = String;
    fn try_from(seconds: f64) -> Result<Self, String> {
        if (0.2..=60.0).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(format!("{seconds} seconds: write 0.2 to 60"))
        }
    }
}

/// A screen's size, 480x320 to 1920x1080 pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "[u32; 2]")]
pub struct Size {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl TryFrom<[u32; 2]> for Size {
    type Error = String;
    fn try_from([width, height]: [u32; 2]) -> Result<Self, String> {
        if (480..=1920).contains(&width) && (320..=1080).contains(&height) {
            Ok(Self { width, height })
        } else {
            Err(format!("a screen of {width}x{height}: write 480x320 to 1920x1080, as [1280, 720]"))
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot be read ({source}); check the name after --config")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{path}:{line}:{column}: {reason}; mend this line")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong.
        reason: String,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.into(), source })?;
        Self::parse(&text, path)
    }

    /// Reads a text; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError::Line`] with the place of the mistake.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let (line, column, reason) = fovea_board::place(text, &error);
            ConfigError::Line { path: path.into(), line, column, reason }
        })
    }

    /// The screen's size: 1280x720 where none is stated.
    pub fn screen(&self) -> Size {
        self.size.unwrap_or(Size { width: 1280, height: 720 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_the_default_and_mistakes_have_a_place() {
        let parse = |text| Config::parse(text, Path::new("fovea.toml"));
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(parse("size = [480, 320]").unwrap().screen(), Size { width: 480, height: 320 });
        assert_eq!(parse("[gpu]").unwrap().gpu.options(), Options::default());
        let quick = parse("[gpu]\nanswer_within = 0.3").unwrap().gpu.options();
        assert_eq!(quick.limit, Duration::from_millis(300));
        for (text, place, word) in [
            ("hold = 1\n sauce = 'x'", "fovea.toml:2:2:", "sauce"),
            ("hold = 0", "fovea.toml:1:8:", "zero"),
            ("\n\nsize = [100, 100]", "fovea.toml:3:8:", "480x320"),
            ("[board.lights]\nreddy = 'x'", "fovea.toml:2:1:", "reddy"),
            ("stale_after = 0.0", "fovea.toml:1:15:", "0.2 to 60"),
            ("[gpu]\nretry = 5", "fovea.toml:2:1:", "retry_after"),
        ] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.starts_with(place) && said.contains(word), "{said}");
        }
    }
}
