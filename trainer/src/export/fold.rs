//! A checkpoint read and made ready for inference: batch norm folded into the convolutions, three equal input channels
//! into one.

use crate::network::{BN_EPSILON, Conv, convs, inception_v3};
use fovea::engine::{FEATURE_CHANNELS, FEATURE_SIDE};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Hidden units of both heads.
pub const HIDDEN: usize = 64;

/// Why a checkpoint cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("{path}: cannot be read ({source}); give the .safetensors file that `fovea-train train` wrote")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is no safetensors file, or a tensor in it is missing or has a wrong form.
    #[error("{path}: {reason}; give the .safetensors file that `fovea-train train` wrote")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A convolution with its batch norm folded in.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// Output and input channels, kernel height and width.
    pub shape: [usize; 4],
    /// Weights, OIHW.
    pub weight: Vec<f32>,
    /// Bias, one an output channel.
    pub bias: Vec<f32>,
}

/// A head with its batch norm folded in; weights row by row.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// Global average, dense, ReLU, dense.
    Gap {
        /// `[64, 2048]`
        fc1: Vec<f32>,
        /// `[64]`
        fc1_bias: Vec<f32>,
        /// `[4, 64]`
        fc2: Vec<f32>,
        /// `[4]`
        fc2_bias: Vec<f32>,
    },
    /// 1x1 convolution, ReLU, dense over rows, columns, channels.
    Conv {
        /// `[64, 2048]`
        conv: Vec<f32>,
        /// `[64]`
        conv_bias: Vec<f32>,
        /// `[4, 4096]`
        fc: Vec<f32>,
        /// `[4]`
        fc_bias: Vec<f32>,
    },
}

impl Head {
    /// `gap` or `conv`, as the manifest has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Head::Gap { .. } => "gap",
            Head::Conv { .. } => "conv",
        }
    }
}

/// A checkpoint ready for inference.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Convolutions by name; the first takes one channel.
    pub convs: BTreeMap<String, Folded>,
    /// The head.
    pub head: Head,
    /// What the trainer noted in the file.
    pub metadata: BTreeMap<String, String>,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// Folds `batch norm(conv(x))` into one convolution: `w·γ/√(var+ε)` and `β - mean·γ/√(var+ε)`.
///
/// `weight` is OIHW; the norm's slices hold one value an output channel, `gamma` may be left out (1).
pub fn fold_norm(
    weight: &mut [f32],
    gamma: Option<&[f32]>,
    beta: &[f32],
    mean: &[f32],
    var: &[f32],
) -> Vec<f32> {
    let taps = weight.len() / beta.len().max(1);
    let mut bias = Vec::with_capacity(beta.len());
    for (o, filter) in weight.chunks_exact_mut(taps).enumerate() {
        // In f64, so that folding adds no error of its own.
        let factor =
            gamma.map_or(1.0, |g| f64::from(g[o])) / (f64::from(var[o]) + f64::from(BN_EPSILON)).sqrt();
        filter.iter_mut().for_each(|w| *w = (f64::from(*w) * factor) as f32);
        bias.push((f64::from(beta[o]) - f64::from(mean[o]) * factor) as f32);
    }
    bias
}

/// Sums OIHW weights over their `channels` input channels: right where all of these are equal.
pub fn fold_grey(weight: &[f32], channels: usize, taps: usize) -> Vec<f32> {
    weight
        .chunks_exact(channels * taps)
        .flat_map(|filter| {
            (0..taps).map(|t| (0..channels).map(|c| f64::from(filter[c * taps + t])).sum::<f64>() as f32)
        })
        .collect()
}

/// The tensors of a file with errors that name it.
struct Source<'a> {
    tensors: SafeTensors<'a>,
    path: &'a Path,
}

impl Source<'_> {
    fn error(&self, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Content { path: self.path.into(), reason: reason.into() }
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let view = self.tensors.tensor(name).map_err(|_| self.error(format!("no tensor `{name}` in it")))?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            return Err(self.error(format!(
                "`{name}` is {:?} {:?} where F32 {shape:?} is needed",
                view.dtype(),
                view.shape()
            )));
        }
        let values: Vec<f32> =
            view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if values.iter().any(|v| !v.is_finite()) {
            return Err(
                self.error(format!("`{name}` holds infinite or undefined numbers; the training diverged"))
            );
        }
        Ok(values)
    }

    /// A convolution's weights with the norm under `{norm}.bn`, folded.
    fn folded(&self, weight: &str, norm: &str, shape: [usize; 4]) -> Result<Folded, CheckpointError> {
        let o = [shape[0]];
        let mut weight = self.get(weight, &shape)?;
        let gamma_name = format!("{norm}.bn.weight");
        let gamma = if self.has(&gamma_name) { Some(self.get(&gamma_name, &o)?) } else { None };
        let var = self.get(&format!("{norm}.bn.running_var"), &o)?;
        if var.iter().any(|v| *v < 0.0) {
            return Err(self.error(format!("`{norm}.bn.running_var` holds negative numbers")));
        }
        let bias = fold_norm(
            &mut weight,
            gamma.as_deref(),
            &self.get(&format!("{norm}.bn.bias"), &o)?,
            &self.get(&format!("{norm}.bn.running_mean"), &o)?,
            &var,
        );
        Ok(Folded { shape, weight, bias })
    }

    fn head(&self, kind: Option<&str>) -> Result<Head, CheckpointError> {
        let kind = match kind {
            Some(kind) => kind,
            None if self.has("head.fc1.weight") => "gap",
            None => "conv",
        };
        match kind {
            "gap" => Ok(Head::Gap {
                fc1: self.get("head.fc1.weight", &[HIDDEN, FEATURE_CHANNELS])?,
                fc1_bias: self.get("head.fc1.bias", &[HIDDEN])?,
                fc2: self.get("head.fc2.weight", &[4, HIDDEN])?,
                fc2_bias: self.get("head.fc2.bias", &[4])?,
            }),
            "conv" => {
                let conv = self.folded("head.conv.weight", "head.conv", [HIDDEN, FEATURE_CHANNELS, 1, 1])?;
                Ok(Head::Conv {
                    conv: conv.weight,
                    conv_bias: conv.bias,
                    fc: self.get("head.fc.weight", &[4, FEATURE_SIDE * FEATURE_SIDE * HIDDEN])?,
                    fc_bias: self.get("head.fc.bias", &[4])?,
                })
            }
            other => Err(self.error(format!("metadata `head` is '{other}', neither gap nor conv"))),
        }
    }
}

impl Checkpoint {
    /// Reads and folds a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError`]; the message names the file and the tensor.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let bytes =
            std::fs::read(path).map_err(|source| CheckpointError::Io { path: path.into(), source })?;
        Self::decode(&bytes, path)
    }

    /// Reads and folds a checkpoint's bytes; `path` is for messages.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self, CheckpointError> {
        let broken = |error: safetensors::SafeTensorError| CheckpointError::Content {
            path: path.into(),
            reason: format!("no safetensors file ({error})"),
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let metadata: BTreeMap<String, String> =
            header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let source = Source { tensors: SafeTensors::deserialize(bytes).map_err(broken)?, path };
        let mut folded = BTreeMap::new();
        for (i, Conv { name, input, output, kernel, .. }) in
            inception_v3(3).iter().flat_map(|block| convs(&block.nodes)).enumerate()
        {
            let shape = [*output, *input, kernel[0], kernel[1]];
            let mut conv = source.folded(&format!("{name}.conv.weight"), name, shape)?;
            if i == 0 {
                conv.weight = fold_grey(&conv.weight, 3, kernel[0] * kernel[1]);
                conv.shape[1] = 1;
            }
            folded.insert(name.clone(), conv);
        }
        let head = source.head(metadata.get("head").map(String::as_str))?;
        Ok(Self { convs: folded, head, metadata, sha256: fovea::model::sha256(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Folded against the definition: norm(conv(x)) on a 1x1 convolution of three channels.
    #[test]
    fn folding_is_the_norm_after_the_convolution() {
        let weight = [0.5f32, -1.0, 2.0, 0.25, 0.75, -0.125];
        let (gamma, beta, mean, var) = ([1.5, 0.5], [0.1, -0.2], [0.3, 0.7], [2.0, 1e-6]);
        for gamma in [None, Some(&gamma[..])] {
            let mut folded = weight;
            let bias = fold_norm(&mut folded, gamma, &beta, &mean, &var);
            let x = [0.9f32, 0.4, -0.6];
            for o in 0..2 {
                let dot = |w: &[f32]| (0..3).map(|i| w[o * 3 + i] * x[i]).sum::<f32>();
                let g = gamma.map_or(1.0, |g| g[o]);
                let direct = (dot(&weight) - mean[o]) / (var[o] + BN_EPSILON).sqrt() * g + beta[o];
                assert!((dot(&folded) + bias[o] - direct).abs() < 1e-4, "{o}: {direct}");
            }
        }
    }

    #[test]
    fn grey_folding_sums_channels() {
        // Two filters of three channels and two taps.
        let weight: Vec<f32> = (0..12).map(|v| v as f32).collect();
        assert_eq!(fold_grey(&weight, 3, 2), [0.0 + 2.0 + 4.0, 1.0 + 3.0 + 5.0, 24.0, 27.0]);
    }

    // The names and shapes of the seam with the training: both heads are read, and a missing tensor is named.
    #[test]
    fn checkpoints_of_both_heads_are_read() {
        let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
        let norm = |shapes: &mut Vec<(String, Vec<usize>)>, name: &str, o: usize| {
            for part in ["bias", "running_mean", "running_var"] {
                shapes.push((format!("{name}.bn.{part}"), vec![o]));
            }
        };
        for block in inception_v3(3) {
            for c in convs(&block.nodes) {
                shapes.push((
                    format!("{}.conv.weight", c.name),
                    vec![c.output, c.input, c.kernel[0], c.kernel[1]],
                ));
                norm(&mut shapes, &c.name, c.output);
            }
        }
        let mut conv = shapes.clone();
        conv.push(("head.conv.weight".into(), vec![64, 2048, 1, 1]));
        norm(&mut conv, "head.conv", 64);
        conv.extend([("head.fc.weight".into(), vec![4, 4096]), ("head.fc.bias".into(), vec![4])]);
        let mut gap = shapes;
        for (name, shape) in [
            ("fc1.weight", vec![64, 2048]),
            ("fc1.bias", vec![64]),
            ("fc2.weight", vec![4, 64]),
            ("fc2.bias", vec![4]),
        ] {
            gap.push((format!("head.{name}"), shape));
        }
        let zeros = vec![0u8; 4 * 448 * 384 * 9];
        for (kind, mut shapes) in [("conv", conv), ("gap", gap)] {
            let encode = |shapes: &[(String, Vec<usize>)]| {
                let views = shapes.iter().map(|(name, shape)| {
                    let bytes = &zeros[..4 * shape.iter().product::<usize>()];
                    (name, safetensors::tensor::TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
                });
                let metadata = std::collections::HashMap::from([("head".to_owned(), kind.to_owned())]);
                safetensors::serialize(views, Some(metadata)).unwrap()
            };
            let read = Checkpoint::decode(&encode(&shapes), Path::new("a.safetensors")).unwrap();
            assert_eq!((read.head.kind(), read.convs.len()), (kind, 94));
            assert_eq!(read.convs["Conv2d_1a_3x3"].shape, [32, 1, 3, 3]);
            let (lost, _) = shapes.pop().unwrap();
            let error =
                Checkpoint::decode(&encode(&shapes), Path::new("a.safetensors")).unwrap_err().to_string();
            assert!(error.contains("a.safetensors") && error.contains(&lost), "{error}");
        }
    }

    #[test]
    fn a_broken_file_is_an_error() {
        let error = Checkpoint::decode(b"not a checkpoint", Path::new("model.safetensors")).unwrap_err();
        assert!(error.to_string().contains("model.safetensors: no safetensors file"), "{error}");
    }
}
