//! A model package on disk: `manifest.toml`, `model.onnx`, the head's and the gate's weights, and the SHA-256 of each.
//!
//! Every file is read once and checked before anything uses it; what was checked is what runs.

mod golden;
mod head;
mod manifest;
pub mod onnx;

pub use golden::golden_input;
pub use head::{Gate, Head, pooled};
pub use manifest::{Calibration, FORMAT, GateLimits, Golden, HeadKind, Manifest};

use prost::bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

/// The network.
pub const ONNX: &str = "model.onnx";
/// The head's weights for the explanation.
pub const HEAD: &str = "head.safetensors";
/// Feature statistics of the training pictures for the gate.
pub const GATE: &str = "gate.safetensors";
/// Bytes of a file that are read while those before them are summed.
const PART: usize = 1 << 20;
/// The manifest's own name.
pub const MANIFEST: &str = "manifest.toml";

/// Why a model package was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The folder holds no package.
    #[error(
        "{0}: no model package (no manifest.toml in it); give the package's folder with --model or FOVEA_MODEL"
    )]
    Missing(PathBuf),
    /// A file cannot be read.
    #[error("{path}: cannot be read ({source}); copy the model package again, whole")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file is larger than any of a package.
    #[error(
        "{path}: {bytes} bytes, more than the 256 MB that a package's file may have; copy the model package again"
    )]
    Large {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The manifest is wrong.
    #[error("{path}{place}: {reason}; copy the model package again, or export it with a fitting fovea-train")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// `:line:column`, or empty where the whole is meant.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A file's checksum is not the manifest's.
    #[error(
        "{path}: altered or damaged (SHA-256 {got}, the manifest says {expected}); copy the model package again, whole"
    )]
    Altered {
        /// The file.
        path: PathBuf,
        /// The manifest's checksum.
        expected: String,
        /// The file's.
        got: String,
    },
    /// Weights are missing or have a wrong form.
    #[error("{path}: {reason}; export the model again with a fitting fovea-train")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A verified package in memory.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its folder.
    pub folder: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
    /// The bytes of `model.onnx`.
    pub onnx: Bytes,
    /// The head, for the explanation.
    pub head: Head,
    /// The gate's feature statistics.
    pub gate: Gate,
}

impl Package {
    /// Reads a package and verifies every file that the manifest names.
    ///
    /// # Errors
    /// See [`ModelError`]; each message names the file and what to do.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let manifest = Manifest::read(folder)?;
        let (mut onnx, mut head, mut gate) = (None, None, None);
        for (name, expected) in &manifest.files {
            let bytes = checked(&folder.join(name), expected)?;
            match name.as_str() {
                ONNX => onnx = Some(bytes),
                HEAD => head = Some(Head::decode(&bytes, manifest.head, &folder.join(name))?),
                GATE => gate = Some(Gate::decode(&bytes, &folder.join(name))?),
                _ => {}
            }
        }
        let unlisted = |name: &str| ModelError::Manifest {
            path: folder.join(MANIFEST),
            place: String::new(),
            reason: format!("[files] does not name {name}"),
        };
        Ok(Self {
            folder: folder.into(),
            onnx: onnx.ok_or_else(|| unlisted(ONNX))?.into(),
            head: head.ok_or_else(|| unlisted(HEAD))?,
            gate: gate.ok_or_else(|| unlisted(GATE))?,
            manifest,
        })
    }

    /// Name and version, as shown to people.
    pub fn identity(&self) -> String {
        format!("{} {}", self.manifest.name, self.manifest.version)
    }
}

/// Reads a file and compares its checksum.
fn checked(path: &Path, expected: &str) -> Result<Vec<u8>, ModelError> {
    let read = |source| ModelError::Io { path: path.into(), source };
    let size = std::fs::metadata(path).map_err(read)?.len();
    if size > onnx::LARGEST_FILE as u64 {
        return Err(ModelError::Large { path: path.into(), bytes: size });
    }
    let (bytes, sum) = read_and_sum(path, size as usize).map_err(read)?;
    let got = hexadecimal(&sum);
    if got.eq_ignore_ascii_case(expected) {
        Ok(bytes)
    } else {
        Err(ModelError::Altered { path: path.into(), expected: expected.into(), got })
    }
}

/// The first `size` bytes of a file and their SHA-256, which another thread computes behind the reading.
fn read_and_sum(path: &Path, size: usize) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; size];
    let sum = std::thread::scope(|scope| {
        let (send, parts) = mpsc::channel::<&[u8]>();
        let sum = scope.spawn(move || {
            let mut sum = Sha256::new();
            parts.iter().for_each(|part| sum.update(part));
            sum.finalize().to_vec()
        });
        for part in bytes.chunks_mut(PART) {
            file.read_exact(part)?;
            // The other side listens until all is sent.
            let _ = send.send(part);
        }
        drop(send);
        sum.join().map_err(|_| std::io::Error::other("the checksum's thread panicked"))
    })?;
    Ok((bytes, sum))
}

/// SHA-256 in lower-case hexadecimal, as the manifest's `[files]` has it.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
