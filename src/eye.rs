//! Which eye a picture is of.

/// An eye, by its usual abbreviation (DICOM's laterality R and L).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eye {
    /// Oculus dexter, the right one.
    Od,
    /// Oculus sinister, the left one.
    Os,
}

impl Eye {
    /// `OD right` or `OS left`.
    pub fn words(self) -> &'static str {
        match self {
            Eye::Od => "OD right",
            Eye::Os => "OS left",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Eye::Od => Eye::Os,
            Eye::Os => Eye::Od,
        }
    }
}
