//! Labelled pictures of a split, prepared for the network.

use super::runner::check_stop;
use crate::split::Row;
use anyhow::{Context, Result, bail};
use fovea::diagnosis::Statistics;
use fovea::model::sha256;
use fovea::prepare::{NetworkInput, Preparation};
use fovea::{Class, Frame};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// A prepared picture with its label.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The label.
    pub class: Class,
    /// Whose eye it is.
    pub patient: String,
    /// The network's input.
    pub input: NetworkInput,
    /// Whether the gate refuses it by its statistics, before any network.
    pub refused: bool,
}

impl Picture {
    /// Prepares a frame.
    ///
    /// # Errors
    /// When it is too small.
    pub fn new(frame: &Frame, class: Class, patient: &str, preparation: &Preparation) -> Result<Self> {
        let prepared = preparation.prepare(frame, None)?;
        let refused = Statistics::measure(frame, None, &prepared.whole).refusal().is_some();
        Ok(Self { class, patient: patient.into(), input: prepared.input, refused })
    }
}

/// Reads and prepares the pictures of `rows` below `folder`.
///
/// # Errors
/// The first picture that cannot be read or is not the one of the split, by name: an evaluation that leaves pictures out
/// would not be one.
pub fn load(rows: &[Row], folder: &Path, preparation: &Preparation) -> Result<Vec<Picture>> {
    let bar = crate::bar(rows.len(), "pictures");
    let pictures = rows
        .par_iter()
        .map(|row| {
            check_stop()?;
            let path = folder.join(&row.path);
            let bytes =
                std::fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
            // The same name stands for different pictures in different copies of the set.
            if !row.sha256.is_empty() && sha256(&bytes) != row.sha256 {
                bail!("{}: not the picture of the split (other SHA-256); use the same data", path.display());
            }
            let frame = Frame::decode(&bytes, &path)?;
            bar.inc(1);
            Picture::new(&frame, row.class, &row.patient, preparation)
        })
        .collect();
    bar.finish_and_clear();
    pictures
}

/// Picture files in `folder` and below, sorted, as frames. Files that are no pictures are skipped, with a line on the
/// error stream where they look like some.
///
/// # Errors
/// When the folder cannot be read or holds no picture.
pub fn load_folder(folder: &Path) -> Result<Vec<(PathBuf, Frame)>> {
    let mut folders = vec![folder.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let list =
            std::fs::read_dir(&folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
        for entry in list {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let known = ["jpg", "jpeg", "png", "bmp", "tif", "tiff"];
    files.retain(|f| {
        f.extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| known.contains(&e.to_ascii_lowercase().as_str()))
    });
    let mut out = Vec::new();
    for path in files {
        match Frame::read(&path) {
            Ok(frame) => out.push((path, frame)),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
    if out.is_empty() {
        bail!("{}: no readable picture in it", folder.display());
    }
    Ok(out)
}

/// `count` indices of `rows`, as evenly over the classes as they allow and with one picture a patient before any second
/// one, spread over the list: what calibration should see.
pub fn stratified(rows: &[(Class, &str)], count: usize) -> Vec<usize> {
    let mut queues: Vec<Vec<usize>> = Class::ALL
        .iter()
        .map(|class| {
            let mut seen = std::collections::BTreeMap::new();
            let mut queue: Vec<(usize, u64, usize)> = rows
                .iter()
                .enumerate()
                .filter(|(_, row)| row.0 == *class)
                .map(|(i, row)| {
                    let nth = seen.entry(row.1).and_modify(|n| *n += 1).or_insert(0usize);
                    // A fixed shuffle: names are sorted, and neighbours in the list come from one source.
                    (*nth, (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23), i)
                })
                .collect();
            queue.sort_unstable();
            queue.into_iter().rev().map(|(_, _, i)| i).collect()
        })
        .collect();
    let mut chosen = Vec::new();
    while chosen.len() < count && queues.iter().any(|queue| !queue.is_empty()) {
        for queue in &mut queues {
            if chosen.len() < count
                && let Some(i) = queue.pop()
            {
                chosen.push(i);
            }
        }
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_is_stratified_and_takes_patients_first() {
        let mut rows = vec![(Class::Cnv, "a"); 50];
        rows.extend([(Class::Cnv, "b"), (Class::Dme, "c"), (Class::Drusen, "d"), (Class::Drusen, "e")]);
        let chosen = stratified(&rows, 6);
        let count = |class| chosen.iter().filter(|&&i| rows[i].0 == class).count();
        assert_eq!((count(Class::Cnv), count(Class::Dme), count(Class::Drusen)), (3, 1, 2));
        assert!(chosen.contains(&50), "the second CNV patient comes before the first's next picture");
        assert_eq!(stratified(&rows, 1000).len(), rows.len());
    }
}
