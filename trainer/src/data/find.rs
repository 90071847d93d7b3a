//! Pictures of a data set as it is downloaded, by its `index.csv` or by its folders and names.

use crate::split::{Row, Split, hex};
use anyhow::{Context, Result, bail};
use fovea::frame::is_picture;
use fovea::{Class, Frame};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Folders below the data folder that are looked into, as `OCT2017/train/CNV` needs.
const DEPTH: usize = 5;

/// A picture that is named but not yet read.
struct Named {
    class: Class,
    path: String,
    patient: String,
    origin: String,
}

/// Files that cannot be used, with the reason.
pub type Damaged = Vec<(String, String)>;

/// Reads every picture of a folder once and maps it by `look`. All are in [`Split::Train`] yet. Pictures that cannot be
/// read are listed, never fatal.
///
/// # Errors
/// When the folder cannot be read or names no picture, when a name tells no patient, or Ctrl-C was pressed.
pub fn read<T: Send>(data: &Path, look: impl Fn(&Frame) -> T + Sync) -> Result<(Vec<(Row, T)>, Damaged)> {
    let mut named = match data.join("index.csv") {
        listed if listed.is_file() => listed_in(&listed)?,
        _ => by_folders(data)?,
    };
    if named.is_empty() {
        bail!(
            "{}: no picture; it should hold <CLASS>/<CLASS>-<PATIENT>-<NUMBER>.jpeg (under train, val, test or not), or an \
             index.csv with the columns class, file and patient",
            data.display()
        );
    }
    named.sort_by(|a, b| a.path.cmp(&b.path));
    let bar = crate::bar(named.len(), "pictures");
    let results: Vec<(String, Result<(Row, T)>)> = named
        .into_par_iter()
        .map(|name| {
            let path = name.path.clone();
            let result = one(data, name, &look);
            bar.inc(1);
            (path, result)
        })
        .collect();
    bar.finish_and_clear();
    crate::export::runner::check_stop()?;
    let (mut rows, mut damaged) = (Vec::new(), Vec::new());
    for (path, result) in results {
        match result {
            Ok(row) => rows.push(row),
            Err(error) => damaged.push((path, format!("{error:#}"))),
        }
    }
    Ok((rows, damaged))
}

fn one<T>(data: &Path, name: Named, look: &(impl Fn(&Frame) -> T + Sync)) -> Result<(Row, T)> {
    crate::export::runner::check_stop()?;
    // split.csv has no quotes.
    if [&name.path, &name.patient, &name.origin].iter().any(|text| text.contains([',', '\n', '\r'])) {
        bail!("its name holds a comma; rename it");
    }
    let full = data.join(&name.path);
    let bytes = std::fs::read(&full).with_context(|| format!("{}: cannot be read", full.display()))?;
    if bytes.is_empty() {
        bail!("{}: the file is empty", full.display());
    }
    let frame = Frame::decode(&bytes, &full)?;
    let row = Row {
        path: name.path,
        class: name.class,
        patient: name.patient,
        split: Split::Train,
        width: frame.width(),
        height: frame.height(),
        origin: name.origin,
        sha256: hex(&Sha256::digest(&bytes)),
    };
    Ok((row, look(&frame)))
}

/// The pictures that an index.csv lists, `<class>/<file>` each.
fn listed_in(listed: &Path) -> Result<Vec<Named>> {
    let text =
        std::fs::read_to_string(listed).with_context(|| format!("{}: cannot be read", listed.display()))?;
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name: &str| head.iter().position(|h| *h == name);
    let (Some(class), Some(file), Some(patient)) = (column("class"), column("file"), column("patient"))
    else {
        bail!("{}: the first line must name the columns class, file and patient", listed.display());
    };
    let origin = column("origin");
    let mut named = Vec::new();
    for (number, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let place = || format!("{}:{}", listed.display(), number + 2);
        let cells: Vec<&str> = line.split(',').collect();
        if cells.len() != head.len() {
            bail!("{}: {} cells, but {} columns", place(), cells.len(), head.len());
        }
        let class: Class = cells[class].parse().with_context(place)?;
        named.push(Named {
            class,
            path: format!("{class}/{}", cells[file]),
            patient: cells[patient].into(),
            origin: origin.map_or("", |c| cells[c]).into(),
        });
    }
    Ok(named)
}

/// Entries of a folder, sorted; hidden ones, which systems leave behind, are left out.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = std::fs::read_dir(folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    let mut paths = Vec::new();
    for entry in list {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Pictures in folders that are called like a class, at any depth; the folder above (train, val, test) is the origin.
fn by_folders(data: &Path) -> Result<Vec<Named>> {
    let mut folders = vec![(data.to_path_buf(), 0)];
    let mut named = Vec::new();
    while let Some((folder, depth)) = folders.pop() {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().trim().to_owned();
        let class = if depth == 0 { None } else { name(&folder).parse::<Class>().ok() };
        for path in entries(&folder)? {
            if path.is_dir() {
                if depth < DEPTH {
                    folders.push((path, depth + 1));
                }
            } else if let (Some(class), true) = (class, is_picture(&path)) {
                let relative = path.strip_prefix(data).unwrap_or(&path).to_string_lossy().into_owned();
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let mut parts = stem.split('-');
                let (Some(label), Some(patient), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
                    bail!("{relative}: not CLASS-PATIENT-NUMBER; without the patient no split is safe");
                };
                if label != class.name() || patient.is_empty() {
                    bail!("{relative}: not {class}-PATIENT-NUMBER; without the patient no split is safe");
                }
                let origin = match folder.parent() {
                    Some(parent) if depth > 1 => name(parent).to_lowercase(),
                    _ => String::new(),
                };
                named.push(Named { class, path: relative, patient: patient.into(), origin });
            }
        }
    }
    Ok(named)
}

/// Picture files in a folder and below, sorted.
///
/// # Errors
/// When a folder cannot be read.
pub fn pictures_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![folder.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in entries(&folder)? {
            if path.is_dir() {
                folders.push(path);
            } else if is_picture(&path) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
