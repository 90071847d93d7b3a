//! Labelled pictures of a split, prepared for the network.

use super::runner::{bar, check_stop};
use anyhow::{Context, Result, bail};
use fovea::prepare::{NetworkInput, Preparation};
use fovea::{Class, Frame};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// A part of the split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Seen in training.
    Train,
    /// Decides choices: the checkpoint, the scales, the temperature, the thresholds.
    Validation,
    /// Decides nothing; measured once.
    Test,
}

/// A row of split.csv.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Path relative to the folder of pictures.
    pub path: PathBuf,
    /// The label.
    pub class: Class,
    /// Whose eye it is.
    pub patient: String,
    /// Its part.
    pub part: Part,
}

/// A prepared picture with its label.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The label.
    pub class: Class,
    /// Whose eye it is.
    pub patient: String,
    /// The network's input.
    pub input: NetworkInput,
}

/// Reads split.csv (`path,class,patient,split,…`) and refuses a patient in two parts.
///
/// # Errors
/// A missing column, an unknown class or part, a leak; each names file and line.
pub fn read_split(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read; make it with `fovea-train prepare`", path.display()))?;
    parse_split(&text).with_context(|| format!("{}", path.display()))
}

fn parse_split(text: &str) -> Result<Vec<Row>> {
    let mut lines = text.lines().enumerate();
    let header: Vec<&str> = lines.next().context("the split is empty")?.1.split(',').collect();
    let column = |name: &str| {
        header.iter().position(|h| h.trim() == name).with_context(|| format!("line 1: no column `{name}`"))
    };
    let (path, class, patient, split) =
        (column("path")?, column("class")?, column("patient")?, column("split")?);
    let mut rows = Vec::new();
    let mut parts = std::collections::BTreeMap::new();
    for (i, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let field =
            |c: usize| fields.get(c).copied().with_context(|| format!("line {}: too few fields", i + 1));
        let row = Row {
            path: field(path)?.into(),
            class: field(class)?.parse().with_context(|| format!("line {}", i + 1))?,
            patient: field(patient)?.into(),
            part: match field(split)? {
                "train" => Part::Train,
                "validation" => Part::Validation,
                "test" => Part::Test,
                other => bail!("line {}: '{other}' is no part: write train, validation or test", i + 1),
            },
        };
        if *parts.entry(row.patient.clone()).or_insert(row.part) != row.part {
            bail!("line {}: patient {} stands in two parts; make the split again", i + 1, row.patient);
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Reads and prepares the pictures of `rows` below `folder`.
///
/// # Errors
/// The first picture that cannot be read, by name: an evaluation that leaves pictures out would not be one.
pub fn load(rows: &[Row], folder: &Path, preparation: &Preparation) -> Result<Vec<Picture>> {
    let bar = bar(rows.len(), "reading pictures");
    let pictures = rows
        .par_iter()
        .map(|row| {
            check_stop()?;
            let frame = Frame::read(&folder.join(&row.path))?;
            let input = preparation.prepare(&frame, None)?;
            bar.inc(1);
            Ok(Picture { class: row.class, patient: row.patient.clone(), input })
        })
        .collect();
    bar.finish();
    pictures
}

/// Picture files in `folder` and below, sorted; prepared, without labels. Files that are no pictures are skipped.
///
/// # Errors
/// When the folder cannot be read or holds no picture.
pub fn load_folder(folder: &Path, preparation: &Preparation) -> Result<Vec<(PathBuf, NetworkInput)>> {
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
        match Frame::read(&path).map_err(anyhow::Error::from).and_then(|f| Ok(preparation.prepare(&f, None)?))
        {
            Ok(input) => out.push((path, input)),
            Err(error) => eprintln!("skipped: {error:#}"),
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
    fn splits_are_read_and_leaks_refused() {
        let good =
            "path,class,patient,split,width\nCNV/a.jpeg,CNV,7,train,512\nDME/b.jpeg,DME,8,test,512\n\n";
        let rows = parse_split(good).unwrap();
        assert_eq!(
            rows[1],
            Row { path: "DME/b.jpeg".into(), class: Class::Dme, patient: "8".into(), part: Part::Test }
        );
        for (bad, word) in [
            ("path,class,patient\n", "split"),
            ("path,class,patient,split\na,CNV,1,train\nb,CNV,1,test\n", "two parts"),
            ("path,class,patient,split\na,XYZ,1,train\n", "line 2"),
            ("path,class,patient,split\na,CNV,1,elsewhere\n", "elsewhere"),
            ("path,class,patient,split\na,CNV\n", "too few"),
            ("", "empty"),
        ] {
            let error = format!("{:#}", parse_split(bad).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }

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
