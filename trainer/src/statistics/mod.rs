//! Statistics of an evaluation: intervals over patients, ranking measures, paired tests. Patients, not pictures, are the
//! independent witnesses: slices of one eye are nearly the same.

mod bootstrap;
mod paired;
mod ranking;

pub use bootstrap::{Bootstrap, Interval};
pub use paired::mcnemar;
pub use ranking::{Ranking, average_precision, precision_recall};

#[cfg(test)]
mod tests;
