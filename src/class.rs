//! The four classes of the OCT2017 set (Kermany et al., Cell 2018), in the alphabetical order of every model output.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A class that the network can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Class {
    /// Choroidal neovascularisation.
    Cnv,
    /// Diabetic macular oedema.
    Dme,
    /// Drusen, as in early age-related macular degeneration.
    Drusen,
    /// No finding of the three.
    Normal,
}

/// The name is none of `CNV`, `DME`, `DRUSEN`, `NORMAL`.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no class: write CNV, DME, DRUSEN or NORMAL")]
pub struct UnknownClass(pub String);

impl Class {
    /// All classes in model order.
    pub const ALL: [Class; 4] = [Class::Cnv, Class::Dme, Class::Drusen, Class::Normal];

    /// The name in capitals, as folders and outputs have it.
    pub fn name(self) -> &'static str {
        ["CNV", "DME", "DRUSEN", "NORMAL"][self.index()]
    }

    /// Position in the model's outputs, 0 to 3.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Class {
    type Err = UnknownClass;
    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        Self::ALL
            .into_iter()
            .find(|class| class.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownClass(text.into()))
    }
}
