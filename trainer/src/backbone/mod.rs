//! Backbones as users have them: safetensors of timm, `.pth` of torchvision, `.h5` of Keras, read into one form.
//!
//! The form is this crate's: names of timm and torchvision, OIHW, input `pixel / 255`, average pools that leave padding
//! out. Files differ in two ways that their tensors do not say. TensorFlow and Keras train on inputs from -1 to 1
//! and leave padding out of averages; PyTorch trains on inputs normalised by ImageNet's mean and deviation, and its
//! averages count the padding. torchvision's own file was trained by TensorFlow: there, as in every such file, batch norm
//! has no scale, so all its gammas are 1, and that tells. Epsilon is 1e-3 everywhere.

mod keras;
mod pickle;
mod torch;

use crate::checkpoint::{Weights, WeightsError};
use crate::network::{Block, Conv, Node, inception_v3};
use crate::section::convs_of;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What the network was trained to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Input {
    /// `pixel / 255`.
    Unit,
    /// From -1 to 1: Keras, TensorFlow, torchvision.
    Signed,
    /// Less ImageNet's mean, over its deviation, each channel by itself.
    Imagenet,
}

/// What an average at the border divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Average {
    /// The pixels of the picture: Keras, TensorFlow.
    Excluding,
    /// All nine places: PyTorch.
    Including,
}

/// Note under which [`Average::Including`] is kept.
const AVERAGE: &str = "average";

/// What is assumed of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// Its input.
    pub input: Input,
    /// Its averages.
    pub average: Average,
}

/// Checks a backbone of any kind, says what is assumed of it, and writes it in the trainer's form.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fovea-train weights inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5 --out inception_v3.safetensors\n  \
    fovea-train weights inception_v3_google-0cc3c7bd.pth --out inception_v3.safetensors\n\n\
    `extract` and `train` read these files as they are too; with this command what is assumed of them can be changed."
)]
pub struct WeightsArgs {
    /// InceptionV3 weights: .safetensors (timm), .pth (torchvision), .h5 (Keras; with top or without)
    pub file: PathBuf,
    /// Where they go as safetensors
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// What the network was trained to see, where it is known better
    #[arg(long, value_enum)]
    pub input: Option<Input>,
    /// What its averages divide by, where it is known better
    #[arg(long, value_enum)]
    pub average: Option<Average>,
}

/// Runs `weights`.
///
/// # Errors
/// When the file is no InceptionV3 or cannot be read, or the new one cannot be written.
pub fn run(args: &WeightsArgs) -> anyhow::Result<()> {
    let (mut weights, mut assumed) = raw(&args.file)?;
    let blocks = inception_v3(3);
    fits(&weights, &convs_of(&blocks).collect::<Vec<_>>(), &args.file)?;
    assumed.input = args.input.unwrap_or(assumed.input);
    assumed.average = args.average.unwrap_or(assumed.average);
    settle(&mut weights, assumed);
    let count: usize = weights.tensors.values().map(|w| w.values.len()).sum();
    println!(
        "{}: InceptionV3, {} tensors, {:.1} million numbers; input {}; averages {} padding",
        args.file.display(),
        weights.tensors.len(),
        count as f64 / 1e6,
        match assumed.input {
            Input::Unit => "0 to 1",
            Input::Signed => "-1 to 1, folded into the first convolution",
            Input::Imagenet => "normalised as ImageNet, folded into the first convolution",
        },
        if assumed.average == Average::Including { "count" } else { "leave out" }
    );
    if let Some(out) = &args.out {
        weights.write(out)?;
        println!("written: {}", out.display());
    }
    Ok(())
}

/// Reads a backbone of any kind into the trainer's form. The tensors of `blocks` must be there.
///
/// # Errors
/// See [`WeightsError`]; a tensor that does not fit is named, the first in the network's order.
pub fn read(path: &Path, blocks: &[Block]) -> Result<Weights, WeightsError> {
    let (mut weights, assumed) = raw(path)?;
    fits(&weights, &convs_of(blocks).collect::<Vec<_>>(), path)?;
    settle(&mut weights, assumed);
    Ok(weights)
}

/// Whether frozen blocks would compute other averages than the backbone was trained with.
pub fn averages_differ(weights: &Weights, frozen: &[Block]) -> bool {
    fn pools(nodes: &[Node]) -> bool {
        nodes.iter().any(|node| match node {
            Node::AveragePool => true,
            Node::Fork(branches) => branches.iter().any(|branch| pools(branch)),
            Node::Conv(_) | Node::MaxPool => false,
        })
    }
    notes_including(weights) && frozen.iter().any(|b| pools(&b.nodes))
}

/// The tensors as the file has them, under our names, and what is assumed of them.
fn raw(path: &Path) -> Result<(Weights, Assumed), WeightsError> {
    let mut start = [0; 8];
    let io = |source| WeightsError::Io { path: path.into(), source };
    let length = std::fs::File::open(path).and_then(|file| file.take(8).read(&mut start)).map_err(io)?;
    let blocks = inception_v3(3);
    let all = convs_of(&blocks).collect::<Vec<_>>();
    let (weights, trained) = match &start[..length] {
        b"\x89HDF\r\n\x1a\n" => {
            let tensorflow = Assumed { input: Input::Signed, average: Average::Excluding };
            (keras::read(path, &all)?, Some(tensorflow))
        }
        // A zip, or a pickle of a long number: the two forms of torch.save.
        [b'P', b'K', 3, 4, ..] | [0x80, 2, 0x8a, ..] => (torch::read(path, &all)?, None),
        _ => {
            let weights = Weights::read(path)?;
            // timm keeps the top; ours and those that were made for us have none, and see pixels from 0 to 1.
            let ours = !weights.tensors.contains_key("fc.weight");
            let plain = Assumed { input: Input::Unit, average: Average::Excluding };
            let mut assumed = ours.then_some(plain);
            if let (Some(assumed), true) = (&mut assumed, notes_including(&weights)) {
                assumed.average = Average::Including;
            }
            (weights, assumed)
        }
    };
    let assumed = trained.unwrap_or_else(|| {
        let gammas = all.iter().filter_map(|c| weights.tensors.get(&format!("{}.bn.weight", c.name)));
        if gammas.flat_map(|w| &w.values).all(|&gamma| gamma == 1.0) {
            Assumed { input: Input::Signed, average: Average::Excluding }
        } else {
            Assumed { input: Input::Imagenet, average: Average::Including }
        }
    });
    Ok((weights, assumed))
}

fn notes_including(weights: &Weights) -> bool {
    weights.notes.get(AVERAGE).is_some_and(|n| n == "including")
}

/// Names the first tensor of the network that is not there, has another shape, or holds no numbers.
fn fits(weights: &Weights, all: &[&Conv], path: &Path) -> Result<(), WeightsError> {
    let wrong = |tensor: String, reason: String| WeightsError::Tensor { path: path.into(), tensor, reason };
    for conv in all {
        let name = &conv.name;
        let [kh, kw] = conv.kernel;
        let (kernel, channels) = (vec![conv.output, conv.input, kh, kw], vec![conv.output]);
        let mut wanted = vec![(format!("{name}.conv.weight"), &kernel)];
        for part in ["weight", "bias", "running_mean", "running_var"] {
            let norm = format!("{name}.bn.{part}");
            // Only the scale may be left out.
            if part != "weight" || weights.tensors.contains_key(&norm) {
                wanted.push((norm, &channels));
            }
        }
        for (name, shape) in wanted {
            let Some(weight) = weights.tensors.get(&name) else {
                return Err(wrong(name, "is not there".into()));
            };
            if weight.shape != *shape {
                let reason = format!("is {:?} where {shape:?} is needed", weight.shape);
                return Err(wrong(name, reason));
            }
            if weight.values.iter().any(|v| !v.is_finite()) {
                return Err(wrong(name, "holds infinite or undefined numbers".into()));
            }
            if name.ends_with("running_var") && weight.values.iter().any(|v| *v < 0.0) {
                return Err(wrong(name, "holds negative numbers, and is a variance".into()));
            }
        }
    }
    Ok(())
}

/// Folds the input into the first convolution, which has no padding, and drops what is not the backbone.
fn settle(weights: &mut Weights, assumed: Assumed) {
    weights.tensors.retain(|name, _| !name.starts_with("fc.") && !name.starts_with("AuxLogits."));
    // The network's input of channel c is (pixel - mean[c]) / deviation[c].
    let (mean, deviation) = match assumed.input {
        Input::Unit => ([0.0; 3], [1.0; 3]),
        Input::Signed => ([0.5; 3], [0.5; 3]),
        Input::Imagenet => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    };
    if assumed.input != Input::Unit {
        let mut shifts = Vec::new();
        if let Some(kernel) = weights.tensors.get_mut("Conv2d_1a_3x3.conv.weight") {
            for filter in kernel.values.chunks_exact_mut(27) {
                let mut shift = 0.0;
                for (i, w) in filter.iter_mut().enumerate() {
                    let scaled = f64::from(*w) / deviation[i / 9];
                    shift += scaled * mean[i / 9];
                    *w = scaled as f32;
                }
                shifts.push(shift);
            }
        }
        // The norm subtracts its mean: a mean that is larger by the shift takes that away too.
        if let Some(mean) = weights.tensors.get_mut("Conv2d_1a_3x3.bn.running_mean") {
            mean.values.iter_mut().zip(shifts).for_each(|(m, shift)| *m = (f64::from(*m) + shift) as f32);
        }
    }
    match assumed.average {
        Average::Including => weights.notes.insert(AVERAGE.into(), "including".into()),
        Average::Excluding => weights.notes.remove(AVERAGE),
    };
}

#[cfg(test)]
mod tests;
