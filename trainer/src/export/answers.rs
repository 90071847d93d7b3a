//! `fovea-train answers`: our own answers as files, for a runtime elsewhere to be compared with.

use super::runner::Network;
use super::{fold::Checkpoint, graph, runner};
use crate::data::find;
use crate::report::model::Model;
use anyhow::{Context, Result, bail};
use fovea::Frame;
use prost::Message;
use std::path::{Path, PathBuf};

/// Writes the network's inputs and our answers, for `scripts/check-onnxruntime`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example:\n  fovea-train answers --model models/oct-inception-v3 --out answers examples/bscans\n\n\
    OUT holds inputs.u8 (COUNT x 299 x 299 bytes), answers.json (path, logits of the package by our engine, and with \
    --checkpoint those of the f32 network by tract), and with --checkpoint float.onnx."
)]
pub struct AnswersArgs {
    /// Model package
    #[arg(long)]
    pub model: PathBuf,
    /// The checkpoint that the package was exported from: its f32 network is written and answered too
    #[arg(long)]
    pub checkpoint: Option<PathBuf>,
    /// The engine for the package: auto, simd, tract, scalar
    #[arg(long, default_value = "auto")]
    pub engine: String,
    /// Where the files go
    #[arg(long)]
    pub out: PathBuf,
    /// Pictures and folders of pictures
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// Runs `answers`.
///
/// # Errors
/// When the model or a picture cannot be read, or a file cannot be written.
pub fn run(args: &AnswersArgs) -> Result<()> {
    let _pressed = crate::interrupt()?;
    if !args.model.is_dir() {
        bail!("{}: no model package; give the folder that `fovea-train export` wrote", args.model.display());
    }
    let mut files = Vec::new();
    for path in &args.paths {
        if path.is_dir() { files.extend(find::pictures_below(path)?) } else { files.push(path.clone()) }
    }
    let mut model = Model::open(&args.model, &args.engine)?;
    let (mut inputs, mut lines) = (Vec::new(), Vec::new());
    let bar = crate::bar(files.len(), "answers");
    for path in &files {
        runner::check_stop()?;
        let answer = model.reader().read(&Frame::read(path)?)?;
        lines.push(serde_json::json!({"path": path.display().to_string(), "logits": answer.output.logits}));
        inputs.push(answer.input);
        bar.inc(1);
    }
    bar.finish_and_clear();
    std::fs::create_dir_all(&args.out).with_context(|| format!("{}: cannot be made", args.out.display()))?;
    let save = |name: &str, bytes: &[u8]| {
        let path = args.out.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("{}: cannot be written", path.display()))
    };
    if let Some(path) = &args.checkpoint {
        let onnx = graph::float(&Checkpoint::read(path)?, false).encode_to_vec();
        let answers = Network::load(&onnx, rayon::current_num_threads())?.answers(&inputs, "f32")?;
        for (line, answer) in lines.iter_mut().zip(answers) {
            line["float"] = serde_json::json!(answer.logits);
        }
        save("float.onnx", &onnx)?;
    }
    let bytes: Vec<u8> = inputs.iter().flat_map(|input| input.0.iter().copied()).collect();
    save("inputs.u8", &bytes)?;
    save("answers.json", format!("{:#}\n", serde_json::Value::from(lines)).as_bytes())?;
    println!("{} pictures, engine {}: {}", files.len(), model.engine(), args.out.display());
    Ok(())
}

/// Writes the signal-to-noise of every layer as `layers.csv` and `layers.svg`, worst first.
///
/// # Errors
/// When the folder cannot be written.
pub fn layers(layers: &[(String, f64)], folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let lines: String = layers.iter().map(|(name, db)| format!("{name},{db:.2}\n")).collect();
    let title = "Signal to quantisation noise of every activation, worst first";
    for (name, text) in [
        ("layers.csv", format!("activation,decibels\n{lines}")),
        ("layers.svg", crate::svg::bars(title, "dB", layers)),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_keep_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let worst = [("Mixed_5b".to_owned(), 17.25), ("features".to_owned(), 31.0)];
        layers(&worst, folder.path()).unwrap();
        let csv = std::fs::read_to_string(folder.path().join("layers.csv")).unwrap();
        assert_eq!(csv, "activation,decibels\nMixed_5b,17.25\nfeatures,31.00\n");
        let svg = std::fs::read_to_string(folder.path().join("layers.svg")).unwrap();
        assert!(svg.find("Mixed_5b").unwrap() < svg.find("features").unwrap());
    }
}
