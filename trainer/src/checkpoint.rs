//! Weights on disk: one safetensors file under the names of timm and torchvision.

use safetensors::tensor::{Dtype, Metadata, SafeTensors};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A tensor in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row by row.
    pub values: Vec<f32>,
}

/// Named tensors and the notes that the file carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Weight>,
    /// Notes by name.
    pub notes: BTreeMap<String, String>,
}

/// Why weights could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read or written.
    #[error("{path}: {source}; check the path and the free space")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No file of weights that is understood.
    #[error(
        "{path}: no weights that can be read ({reason}); give a .safetensors file of f32, f16 or bf16, or as a backbone a .pth or .h5"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What was met.
        reason: String,
    },
    /// A tensor of a backbone is not there, has another shape, or cannot be read.
    #[error("{path}: tensor {tensor} {reason}; an InceptionV3 that was downloaded whole is needed")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name, as the file has it.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor is not there or has another shape.
    #[error(
        "tensor {name} of shape {shape:?} is not in the weights; an InceptionV3 with timm's or torchvision's names is needed"
    )]
    Missing {
        /// Its name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}

impl Weights {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let bytes = std::fs::read(path).map_err(|source| WeightsError::Io { path: path.into(), source })?;
        let format = |reason: String| WeightsError::Format { path: path.into(), reason };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| match cut_off(&bytes) {
            None => format(e.to_string()),
            Some(tensor) => {
                let reason = "lies behind the end of the file".into();
                WeightsError::Tensor { path: path.into(), tensor, reason }
            }
        })?;
        let notes = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let file = SafeTensors::deserialize(&bytes).map_err(|e| format(e.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let data = view.data();
            let pairs = || data.chunks_exact(2).map(|b| [b[0], b[1]]);
            let values = match view.dtype() {
                Dtype::F32 => {
                    data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
                }
                Dtype::F16 => pairs().map(|b| half::f16::from_le_bytes(b).to_f32()).collect(),
                Dtype::BF16 => pairs().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect(),
                // Counters of batches, as torchvision has them, are no weights.
                Dtype::I64 if name.ends_with("num_batches_tracked") => continue,
                other => return Err(format(format!("{name} is {other:?}"))),
            };
            tensors.insert(name.to_string(), Weight { shape: view.shape().to_vec(), values });
        }
        Ok(Self { tensors, notes })
    }

    /// Writes a file, whole or not at all. Equal weights give equal bytes: tensors and notes are sorted by name, which the
    /// safetensors crate does not do for notes.
    ///
    /// # Errors
    /// [`WeightsError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), WeightsError> {
        let io = |source: std::io::Error| WeightsError::Io { path: path.into(), source };
        let part = path.with_extension("part");
        let mut file = BufWriter::new(File::create(&part).map_err(io)?);
        let written = self.header().and_then(|header| {
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(header.as_bytes())?;
            for value in self.tensors.values().flat_map(|weight| &weight.values) {
                file.write_all(&value.to_le_bytes())?;
            }
            file.flush()
        });
        written.map_err(io)?;
        std::fs::rename(&part, path).map_err(io)
    }

    /// The JSON before the data, as <https://huggingface.co/docs/safetensors> describes it.
    fn header(&self) -> std::io::Result<String> {
        let mut header = BTreeMap::from([("__metadata__", serde_json::json!(self.notes))]);
        let mut end = 0;
        for (name, weight) in &self.tensors {
            let start = end;
            end += 4 * weight.values.len();
            let entry =
                serde_json::json!({"dtype": "F32", "shape": weight.shape, "data_offsets": [start, end]});
            header.insert(name, entry);
        }
        let mut text = serde_json::to_string(&header)?;
        // The data begins at a multiple of 8.
        text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
        Ok(text)
    }

    /// The values of a tensor that must have this shape.
    ///
    /// # Errors
    /// [`WeightsError::Missing`].
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<&[f32], WeightsError> {
        self.tensors
            .get(name)
            .filter(|w| w.shape == shape)
            .map(|w| w.values.as_slice())
            .ok_or_else(|| WeightsError::Missing { name: name.into(), shape: shape.into() })
    }

    /// Puts a tensor in.
    pub fn set(&mut self, name: impl Into<String>, shape: &[usize], values: Vec<f32>) {
        self.tensors.insert(name.into(), Weight { shape: shape.into(), values });
    }
}

/// The first tensor that lies behind the end of a file that was cut off.
fn cut_off(bytes: &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let header: Metadata = serde_json::from_slice(header).ok()?;
    let tensors = header.tensors();
    let beyond = tensors.iter().filter(|(_, info)| info.data_offsets.1 > data.len());
    beyond.min_by_key(|(_, info)| info.data_offsets.0).map(|(name, _)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_round_trip_and_mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let mut weights = Weights::default();
        weights.set("a.weight", &[2, 3], vec![1.0, -2.0, 3.5, 0.0, 1e-9, 7.0]);
        weights.notes.insert("head".into(), "gap".into());
        weights.set("b", &[0], vec![]);
        weights.set("c.\"quoted\"", &[], vec![2.5]);
        weights.write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert_eq!((length % 8, bytes.len() as u64), (0, 8 + length + 7 * 4));
        let read = Weights::read(&path).unwrap();
        assert_eq!(read, weights);
        let said = read.get("a.weight", &[3, 2]).unwrap_err().to_string();
        assert!(said.contains("a.weight") && said.contains("[3, 2]"), "{said}");
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let said = Weights::read(&path).unwrap_err().to_string();
        assert!(said.contains("tensor c.\"quoted\" lies behind the end"), "{said}");
        std::fs::write(&path, &bytes[..bytes.len() - 27]).unwrap();
        let said = Weights::read(&path).unwrap_err().to_string();
        assert!(said.contains("tensor a.weight lies behind the end"), "{said}");
        std::fs::write(&path, b"nothing").unwrap();
        assert!(Weights::read(&path).unwrap_err().to_string().contains("w.safetensors"));
    }
}
