//! Boards as data: a profile says what is connected where, and inherits what it does not say.

mod parts;

use parts::{
    ButtonPart, BuzzerPart, CapturePart, DisplayPart, EnginePart, LightPart, PowerPart, ThermalPart,
    WatchdogPart,
};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The profiles of this build.
const BUNDLED: [(&str, &str); 8] = [
    ("generic", include_str!("../../profiles/generic.toml")),
    ("jetson", include_str!("../../profiles/jetson.toml")),
    ("nano", include_str!("../../profiles/nano.toml")),
    ("orin-nano", include_str!("../../profiles/orin-nano.toml")),
    ("qemu-arm64", include_str!("../../profiles/qemu-arm64.toml")),
    ("qemu-x86", include_str!("../../profiles/qemu-x86.toml")),
    ("x86-kiosk", include_str!("../../profiles/x86-kiosk.toml")),
    ("xavier-nx", include_str!("../../profiles/xavier-nx.toml")),
];

/// Why a profile was refused.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No such profile.
    #[error("no board '{0}'; `fovea board list` names those of this build, a file of your own ends in .toml")]
    Unknown(String),
    /// The file cannot be read.
    #[error("{path}: cannot be read ({source}); check the name after --board")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{name}:{line}:{column}: {reason}; mend this line")]
    Line {
        /// The profile.
        name: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// Profiles that inherit each other.
    #[error("board {0} inherits itself; take out one `inherits`")]
    Cycle(String),
}

/// Line and column (in characters, from 1) of a mistake in a TOML text, and its reason on one line.
pub fn place(text: &str, error: &toml::de::Error) -> (usize, usize, String) {
    let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    let column = before[start..].chars().count() + 1;
    (before.matches('\n').count() + 1, column, error.message().replace('\n', ", "))
}

/// What is connected where. What a profile leaves out it inherits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// The profile on which this one stands.
    pub inherits: Option<String>,
    /// The board in a few words.
    pub about: Option<String>,
    /// Where the screen goes.
    pub display: DisplayPart,
    /// Buttons.
    pub buttons: ButtonPart,
    /// Lights.
    pub lights: LightPart,
    /// A buzzer.
    pub buzzer: BuzzerPart,
    /// Capture devices.
    pub capture: CapturePart,
    /// Which engine computes.
    pub engine: EnginePart,
    /// What the supply allows.
    pub power: PowerPart,
    /// What the heat allows.
    pub thermal: ThermalPart,
    /// The hardware's watchdog.
    pub watchdog: WatchdogPart,
}

impl Profile {
    /// Reads a text; `name` is for messages.
    ///
    /// # Errors
    /// [`ProfileError::Line`] with the place of the mistake.
    fn parse(text: &str, name: &str) -> Result<Self, ProfileError> {
        toml::from_str(text).map_err(|error| {
            let (line, column, reason) = place(text, &error);
            ProfileError::Line { name: name.into(), line, column, reason }
        })
    }

    /// The options for a source that is a capture device and states none: those of the first quirk that fits its card's name.
    pub fn quirk(&self, card: &str) -> Option<&str> {
        let mut quirks = self.capture.quirks.iter().flatten();
        quirks.find(|quirk| card.starts_with(&quirk.card)).map(|quirk| quirk.options.as_str())
    }
}

/// The names of the bundled profiles.
pub fn profiles() -> impl Iterator<Item = &'static str> {
    BUNDLED.iter().map(|(name, _)| *name)
}

/// Reads a bundled profile, or a file whose name ends in `.toml`.
fn read(name: &str) -> Result<Profile, ProfileError> {
    if name.ends_with(".toml") {
        let path = Path::new(name);
        let text = std::fs::read_to_string(path);
        return Profile::parse(&text.map_err(|source| ProfileError::Io { path: path.into(), source })?, name);
    }
    let bundled = BUNDLED.iter().find(|(known, _)| *known == name);
    let (_, text) = bundled.ok_or_else(|| ProfileError::Unknown(name.into()))?;
    Profile::parse(text, &format!("board/profiles/{name}.toml"))
}

/// A profile with all that it inherits, and where each value comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    /// The values.
    pub profile: Profile,
    /// The profiles from the first to the last that it inherits.
    pub line: Vec<String>,
    /// Section, key, value and the profile that says so.
    values: BTreeMap<(String, String), (toml::Value, String)>,
}

impl Board {
    /// A profile by its name; see [`Board::over`].
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        Self::over(read(name)?, name)
    }

    /// A profile laid over all that it inherits; `name` is for messages.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn over(profile: Profile, name: &str) -> Result<Self, ProfileError> {
        let mut chain = vec![(name.to_owned(), profile)];
        while let Some(parent) = chain.last().and_then(|(_, last)| last.inherits.clone()) {
            if chain.iter().any(|(known, _)| *known == parent) {
                return Err(ProfileError::Cycle(parent));
            }
            let profile = read(&parent)?;
            chain.push((parent, profile));
        }
        let mut values = BTreeMap::new();
        for (name, profile) in chain.iter().rev() {
            // Every value came from such a table, so this holds.
            let table = toml::Table::try_from(profile).unwrap_or_default();
            for (section, part) in &table {
                for (key, value) in part.as_table().into_iter().flatten() {
                    values.insert((section.clone(), key.clone()), (value.clone(), name.clone()));
                }
            }
        }
        let mut merged = toml::Table::new();
        for ((section, key), (value, _)) in &values {
            let part = merged.entry(section.clone()).or_insert_with(|| toml::Table::new().into());
            if let Some(part) = part.as_table_mut() {
                part.insert(key.clone(), value.clone());
            }
        }
        let line: Vec<String> = chain.iter().map(|(name, _)| name.clone()).collect();
        let mut profile: Profile =
            toml::Value::Table(merged).try_into().map_err(|error: toml::de::Error| ProfileError::Line {
                name: name.into(),
                line: 1,
                column: 1,
                reason: error.message().into(),
            })?;
        profile.about = chain.iter().find_map(|(_, profile)| profile.about.clone());
        Ok(Self { profile, line, values })
    }

    /// The merged profile as TOML, each value with the profile that says so.
    pub fn show(&self) -> String {
        let mut text = format!("# {}\n", self.line.join(" < "));
        if let Some(about) = &self.profile.about {
            let _ = writeln!(text, "# {about}");
        }
        let mut last = "";
        for ((section, key), (value, from)) in &self.values {
            if section != last {
                let _ = writeln!(text, "\n[{section}]");
                last = section;
            }
            let _ = writeln!(text, "{:44} # {from}", format!("{key} = {value}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundled_profile_is_whole() {
        for name in profiles() {
            let board = Board::named(name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(board.line.last().unwrap(), "generic", "{name}");
            assert!(board.profile.display.uri.is_some() && board.profile.about.is_some(), "{name}");
            // What is shown is TOML of the same values.
            let again = Profile::parse(&board.show(), name).unwrap();
            let about = board.profile.about.clone();
            assert_eq!(Profile { about, ..again }, board.profile, "{name}");
        }
    }

    #[test]
    fn a_profile_inherits_and_says_from_where() {
        let board = Board::named("nano").unwrap();
        assert_eq!(board.line, ["nano", "jetson", "generic"]);
        let p = &board.profile;
        assert_eq!(p.thermal.slow_at.unwrap().get(), 80.0);
        assert_eq!(p.buttons.long_press_ms.unwrap().get(), 800);
        let shown = board.show();
        let from = |key: &str| {
            let line = shown.lines().find(|line| line.starts_with(key)).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(["slow_at", "zones", "long_press_ms"].map(from), ["nano", "jetson", "generic"]);
        assert_eq!(p.quirk("USB Video: USB Video"), Some("format=yuyv"));
        assert_eq!(p.quirk("vivid"), None);
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, place, word) in [
            ("[lights]\nreddy = 'PQ.05'", "mine:2:1:", "reddy"),
            ("about = 'x'\n  colour = 1", "mine:2:3:", "colour"),
            ("[buttons]\nlong_press_ms = 20", "mine:2:17:", "200 to 5000"),
            ("[thermal]\nslow_at = 300.0", "mine:2:11:", "30 to 125"),
            ("[watchdog]\ntimeout_s = 'x'", "mine:2:13:", "string"),
            ("[[capture.quirks]]\ncard = 'x'", "mine:1:1:", "options"),
        ] {
            let said = Profile::parse(text, "mine").unwrap_err().to_string();
            assert!(said.starts_with(place) && said.contains(word), "{said}");
        }
        let said = Board::named("toaster").unwrap_err().to_string();
        assert!(said.contains("toaster") && said.contains("board list"), "{said}");
    }

    #[test]
    fn cycles_are_refused_and_own_files_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(at("a.toml"), format!("inherits = '{}'", at("b.toml"))).unwrap();
        std::fs::write(at("b.toml"), format!("inherits = '{}'", at("a.toml"))).unwrap();
        assert!(matches!(Board::named(&at("a.toml")), Err(ProfileError::Cycle(_))));
        std::fs::write(at("b.toml"), "inherits = 'orin-nano'\n[lights]\nready = 'led:ready'").unwrap();
        let board = Board::named(&at("a.toml")).unwrap();
        assert_eq!(board.line[2..], ["orin-nano", "jetson", "generic"]);
        assert_eq!(board.profile.lights.ready.as_deref(), Some("led:ready"));
        assert_eq!(board.profile.lights.working.as_deref(), Some("PY.00"));
    }
}
