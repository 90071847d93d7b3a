//! What the frozen part of the network made of all pictures, kept on disk; [`crate::extract`] writes it.
//!
//! A cache is a folder with `cache.toml` and `features.f16`: one record for each picture and variant, in the order of the
//! index, each `rows x columns x channels` in half precision. A broken-off run goes on after its last whole record.

use crate::split::{self, Row, Split};
use anyhow::{Context, bail};
use fovea::Frame;
use fovea::prepare::{NetworkInput, Preparation};
use half::f16;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// What random variants are made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vary {
    /// The prepared 299x299 pixels: small turns, shifts, zooms, brightness, speckle.
    #[default]
    Prepared,
    /// The source picture, with larger changes; it is prepared afterwards.
    Source,
}

/// What a cache was made from; another cache must not be mixed in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) cut: String,
    pub(crate) shape: [usize; 3],
    pub(crate) variants: usize,
    #[serde(default)]
    pub(crate) vary: Vary,
    pub(crate) seed: u64,
    pub(crate) weights_sha256: String,
    pub(crate) split_sha256: String,
    pub(crate) preparation: Preparation,
}

/// A picture and variant with its place in the cache.
#[derive(Clone, Debug)]
pub struct Record {
    /// The picture, shared by its variants.
    pub row: Arc<Row>,
    /// 0 is the picture itself.
    pub variant: usize,
    /// Number of the record.
    pub place: u64,
}

/// A cache to read from.
#[derive(Debug)]
pub struct Cache {
    file: File,
    /// Rows, columns, channels of a record.
    pub shape: [usize; 3],
    /// The cut's name.
    pub cut: String,
    /// SHA-256 of the frozen weights.
    pub weights_sha256: String,
    /// All records.
    pub records: Vec<Record>,
}

pub(crate) fn records(rows: Vec<Row>, variants: usize) -> Vec<Record> {
    let mut all = Vec::new();
    for row in rows.into_iter().map(Arc::new) {
        let count = if row.split == Split::Train { variants } else { 1 };
        for variant in 0..count {
            all.push(Record { row: Arc::clone(&row), variant, place: all.len() as u64 });
        }
    }
    all
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn file_sha256(path: &Path) -> anyhow::Result<String> {
    let unread = || format!("{}: cannot be read", path.display());
    let mut file = File::open(path).with_context(unread)?;
    // In pieces: weights and indices of large sets need not fit into memory for this.
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let count = file.read(&mut piece).with_context(unread)?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
    }
    Ok(split::hex(&hash.finalize()))
}

/// The network's input of a picture.
///
/// # Errors
/// When the file cannot be read.
pub fn input(data: &Path, row: &Row) -> anyhow::Result<NetworkInput> {
    let frame = Frame::read(&data.join(&row.path))?;
    Ok(Preparation::default().prepare(&frame, None)?.input)
}

/// Bytes to `[count, row, column, 3]` in 0 to 1, three equal channels.
pub fn colour(inputs: &[NetworkInput]) -> Vec<f32> {
    inputs.iter().flat_map(|i| i.0.iter().flat_map(|&b| [f32::from(b) / 255.0; 3])).collect()
}

/// What a cache was made from, and its number of records.
///
/// # Errors
/// When its note cannot be read, or is of another split.
pub(crate) fn plan(folder: &Path, split_file: &Path) -> anyhow::Result<(Header, usize)> {
    let header = header(folder, split_file)?;
    let count = records(split::read(split_file)?, header.variants).len();
    Ok((header, count))
}

/// The note of a cache that was made from this split.
fn header(folder: &Path, split_file: &Path) -> anyhow::Result<Header> {
    let note = folder.join("cache.toml");
    let text = std::fs::read_to_string(&note).with_context(|| {
        format!("{}: cannot be read; make the cache with `fovea-train extract`", note.display())
    })?;
    let header: Header = toml::from_str(&text).with_context(|| note.display().to_string())?;
    if header.split_sha256 != file_sha256(split_file)? {
        bail!(
            "{}: made from another split than {}; run `fovea-train extract` again",
            folder.display(),
            split_file.display()
        );
    }
    Ok(header)
}

impl Cache {
    /// Opens a complete cache that was made from this split.
    ///
    /// # Errors
    /// When it is not complete, or of another split.
    pub fn open(folder: &Path, split_file: &Path) -> anyhow::Result<Self> {
        let header = header(folder, split_file)?;
        if header.preparation != Preparation::default() {
            bail!(
                "{}: its pictures were prepared otherwise than this build does; run `fovea-train extract` again",
                folder.display()
            );
        }
        let path = folder.join("features.f16");
        let file = File::open(&path).with_context(|| {
            format!("{}: cannot be read; shards need `fovea-train merge`", path.display())
        })?;
        let records = records(split::read(split_file)?, header.variants);
        if file.metadata()?.len() != header.size() * records.len() as u64 {
            bail!("{}: not complete; run `fovea-train extract` again, it goes on", folder.display());
        }
        Ok(Self {
            file,
            shape: header.shape,
            cut: header.cut,
            weights_sha256: header.weights_sha256,
            records,
        })
    }

    /// The features of a record.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, place: u64) -> std::io::Result<Vec<f32>> {
        let size = self.shape.iter().product::<usize>() * 2;
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, place * size as u64)?;
        Ok(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_share_their_picture() {
        let row = |split| Row {
            path: "CNV/CNV-1-1.jpeg".into(),
            class: fovea::Class::Cnv,
            patient: "1".into(),
            split,
            width: 512,
            height: 496,
            origin: String::new(),
            sha256: String::new(),
        };
        let all = records(vec![row(Split::Train), row(Split::Test)], 3);
        assert_eq!(
            all.iter().map(|r| (r.variant, r.place)).collect::<Vec<_>>(),
            [(0, 0), (1, 1), (2, 2), (0, 3)]
        );
        assert_eq!(Arc::strong_count(&all[0].row), 3);
        assert!(Arc::ptr_eq(&all[0].row, &all[2].row) && !Arc::ptr_eq(&all[0].row, &all[3].row));
    }
}
