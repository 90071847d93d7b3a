//! The model package's files, written whole or not at all.

use super::fold::{HIDDEN, Head};
use anyhow::{Context, Result, bail};
use fovea::engine::{FEATURE_CHANNELS, FEATURE_SIDE};
use safetensors::tensor::TensorView;
use std::path::Path;

/// A safetensors file of f32 tensors.
fn tensors(list: &[(&str, Vec<usize>, &[f32])]) -> Result<Vec<u8>> {
    let bytes: Vec<Vec<u8>> =
        list.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = list
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| {
            Ok((*name, TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize(views, None)?)
}

/// `head.safetensors`: the head's weights for the explanation.
///
/// # Errors
/// When shapes and values do not fit.
pub fn head_file(head: &Head) -> Result<Vec<u8>> {
    match head {
        Head::Gap { fc1, fc1_bias, fc2, fc2_bias } => tensors(&[
            ("fc1.weight", vec![HIDDEN, FEATURE_CHANNELS], fc1),
            ("fc1.bias", vec![HIDDEN], fc1_bias),
            ("fc2.weight", vec![4, HIDDEN], fc2),
            ("fc2.bias", vec![4], fc2_bias),
        ]),
        Head::Conv { conv, conv_bias, fc, fc_bias } => tensors(&[
            ("conv.weight", vec![HIDDEN, FEATURE_CHANNELS], conv),
            ("conv.bias", vec![HIDDEN], conv_bias),
            ("fc.weight", vec![4, FEATURE_SIDE, FEATURE_SIDE, HIDDEN], fc),
            ("fc.bias", vec![4], fc_bias),
        ]),
    }
}

/// Mean and scale of the averaged features over training pictures: how far a picture is from B-scans.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Scale of each channel, above 0.
    pub scale: Vec<f32>,
}

impl Gate {
    /// From the averaged features of the training pictures. A channel's scale is its standard deviation, but at least a
    /// tenth of all channels' mean one: a channel that is silent on the training pictures must not decide alone.
    pub fn fit(pooled: &[&[f32]]) -> Self {
        let n = pooled.len().max(1) as f64;
        let channels = pooled.first().map_or(0, |p| p.len());
        let moment =
            |c: usize, f: &dyn Fn(f64) -> f64| pooled.iter().map(|p| f(f64::from(p[c]))).sum::<f64>() / n;
        let mean: Vec<f64> = (0..channels).map(|c| moment(c, &|v| v)).collect();
        let deviation: Vec<f64> =
            mean.iter().enumerate().map(|(c, m)| moment(c, &|v| (v - m).powi(2)).sqrt()).collect();
        let least = (deviation.iter().sum::<f64>() / channels.max(1) as f64 / 10.0).max(1e-6);
        Self {
            mean: mean.iter().map(|v| *v as f32).collect(),
            scale: deviation.iter().map(|v| v.max(least) as f32).collect(),
        }
    }

    /// `mean(((pooled - mean) / scale)²)`, summed in f64 as the appliance does.
    pub fn distance(&self, pooled: &[f32]) -> f32 {
        let sum: f64 = pooled
            .iter()
            .zip(self.mean.iter().zip(&self.scale))
            .map(|(v, (mean, scale))| f64::from((v - mean) / scale).powi(2))
            .sum();
        (sum / pooled.len().max(1) as f64) as f32
    }

    /// `gate.safetensors`.
    ///
    /// # Errors
    /// When the file cannot be built.
    pub fn file(&self) -> Result<Vec<u8>> {
        tensors(&[
            ("mean", vec![self.mean.len()], &self.mean),
            ("scale", vec![self.scale.len()], &self.scale),
        ])
    }
}

/// Writes a package's files into a new folder beside `out`, then puts that in `out`'s place: a power cut or Ctrl-C leaves
/// the old package or the new one, never half of one.
///
/// `verify` looks at the new folder first: what the appliance would refuse never takes the place of a good package.
///
/// # Errors
/// When `out` exists and is no package, the disk does not take it, or `verify` refuses it.
pub fn write(out: &Path, files: &[(&str, Vec<u8>)], verify: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = match out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let empty = |folder: &Path| std::fs::read_dir(folder).is_ok_and(|mut list| list.next().is_none());
    if out.exists() && !out.join("manifest.toml").is_file() && !empty(out) {
        bail!("{}: holds something that is no model package; choose another --out", out.display());
    }
    std::fs::create_dir_all(parent).with_context(|| format!("{}: cannot be made", parent.display()))?;
    let temporary = tempfile::Builder::new().prefix(".fovea-export-").tempdir_in(parent)?;
    let fresh = temporary.path().join("new");
    std::fs::create_dir(&fresh)?;
    for (name, bytes) in files {
        let path = fresh.join(name);
        let mut file = std::fs::File::create(&path)?;
        std::io::Write::write_all(&mut file, bytes)
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        file.sync_all()?;
    }
    verify(&fresh)?;
    if out.exists() {
        std::fs::rename(out, temporary.path().join("old"))
            .with_context(|| format!("{}: cannot be replaced", out.display()))?;
    }
    if let Err(error) = std::fs::rename(&fresh, out) {
        // Put the old one back before saying so.
        let _ = std::fs::rename(temporary.path().join("old"), out);
        return Err(error).with_context(|| format!("{}: cannot be put in place", out.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_replace_packages_only() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model");
        write(&out, &[("manifest.toml", b"a".to_vec())], |_| Ok(())).unwrap();
        write(&out, &[("manifest.toml", b"b".to_vec()), ("NOTICE", vec![])], |_| Ok(())).unwrap();
        write(&out, &[("manifest.toml", b"c".to_vec())], |_| bail!("bad")).unwrap_err();
        assert_eq!(std::fs::read(out.join("manifest.toml")).unwrap(), b"b");
        let other = folder.path().join("other");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("thesis.doc"), "dear").unwrap();
        assert!(
            write(&other, &[("manifest.toml", vec![])], |_| Ok(()))
                .unwrap_err()
                .to_string()
                .contains("no model package")
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary folder stays");
    }

    // The trainer measures averaged features, the appliance whole ones: both must mean the same distance.
    #[test]
    fn gate_is_the_appliance_s() {
        let cells = FEATURE_SIDE * FEATURE_SIDE;
        let features =
            |seed: usize| (0..FEATURE_CHANNELS * cells).map(move |i| ((i * seed) % 97) as f32 * 0.01);
        let pooled = |features: &[f32]| -> Vec<f32> {
            fovea::model::pooled(features).iter().map(|v| *v as f32).collect()
        };
        let seen: Vec<Vec<f32>> = (3..9).map(|s| pooled(&features(s).collect::<Vec<_>>())).collect();
        let gate = Gate::fit(&seen.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let read = fovea::model::Gate::decode(&gate.file().unwrap(), Path::new("gate.safetensors")).unwrap();
        let new: Vec<f32> = features(31).collect();
        let (here, there) = (gate.distance(&pooled(&new)), read.distance(&new));
        assert!((here - there).abs() <= 1e-4 * there, "{here} {there}");
    }

    #[test]
    fn gate_distance_is_one_on_its_own_pictures() {
        let pooled: Vec<Vec<f32>> =
            (0..50).map(|i| vec![(i % 7) as f32, 5.0 + (i % 3) as f32, 0.0]).collect();
        let slices: Vec<&[f32]> = pooled.iter().map(Vec::as_slice).collect();
        let gate = Gate::fit(&slices);
        let mean = slices.iter().map(|p| gate.distance(p)).sum::<f32>() / 50.0;
        assert!((mean - 2.0 / 3.0).abs() < 1e-4, "two of three channels vary: {mean}");
        assert!(gate.scale.iter().all(|s| *s > 0.0));
        assert!(gate.distance(&[100.0, 0.0, 9.0]) > 100.0);
    }

    #[test]
    fn head_files_have_the_package_s_names() {
        let head = Head::Conv {
            conv: vec![0.5; HIDDEN * FEATURE_CHANNELS],
            conv_bias: vec![0.0; HIDDEN],
            fc: vec![0.25; 4 * 64 * HIDDEN],
            fc_bias: vec![1.0; 4],
        };
        let bytes = head_file(&head).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("fc.weight").unwrap().shape(), [4, 8, 8, 64]);
        assert_eq!(file.tensor("conv.weight").unwrap().shape(), [64, 2048]);
    }
}
