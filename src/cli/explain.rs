//! `fovea explain`: where a finding comes from.

use super::{ModelArgs, STOPPED, UNREAD};
use anyhow::Context;
use fovea::explain::{Map, Method, Occlusion, OcclusionError, grad_cam, occlusion, overlay};
use fovea::reader::{Answer, ReadError};
use fovea::{Class, Frame, Reader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// Lays a heatmap over a picture, at the picture's own size.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fovea explain scan.png --out overlay.png\n  \
                        fovea explain scan.png --out overlay.png --class DME --raw map.json\n  \
                        fovea explain scan.png --out slow.png --method occlusion --stride 16\n\n\
                        The raw map holds the values row by row. Contributions sum to the logit less the constant.\n\n\
                        Exit codes:\n  0  done\n  1  the picture could not be read\n  \
                        2  wrong usage, configuration, model or engine, or nothing could be written\n  130  stopped by Ctrl-C")]
pub struct ExplainArgs {
    /// The picture
    path: PathBuf,
    /// The overlay to write (png, jpeg, bmp or tiff by its name)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// contribution: what each place adds to the logit; gradcam: Selvaraju et al. 2017; occlusion: slide a grey patch
    #[arg(long, default_value = "contribution", value_parser = ["contribution", "gradcam", "occlusion"])]
    method: String,
    /// The class to explain; without it the most probable
    #[arg(long)]
    class: Option<Class>,
    /// Write the map's values as JSON
    #[arg(long, value_name = "FILE")]
    raw: Option<PathBuf>,
    /// Occlusion: side of the patch in pixels of the 299x299 input
    #[arg(long, default_value_t = Occlusion::default().patch as u32, value_parser = clap::value_parser!(u32).range(1..=299))]
    patch: u32,
    /// Occlusion: pixels from one place to the next
    #[arg(long, default_value_t = Occlusion::default().stride as u32, value_parser = clap::value_parser!(u32).range(1..=299))]
    stride: u32,
    #[command(flatten)]
    model: ModelArgs,
}

/// Explains.
pub fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    // What cannot be written is said before the work.
    image::ImageFormat::from_path(&args.out).ok().filter(|kind| kind.writing_enabled()).with_context(
        || format!("{}: write a name that ends in .png, .jpg, .bmp or .tif", args.out.display()),
    )?;
    let method = [Method::Contribution, Method::GradCam, Method::Occlusion]
        .into_iter()
        .find(|method| method.name() == args.method)
        .context("no such method")?;
    let unread = |error: &dyn std::fmt::Display| {
        eprintln!("fovea: {error}");
        Ok(ExitCode::from(UNREAD))
    };
    let frame = match Frame::read(&args.path) {
        Ok(frame) => frame,
        Err(error) => return unread(&error),
    };
    let mut reader = args.model.reader()?;
    let answer = match reader.read(&frame) {
        Ok(answer) => answer,
        Err(ReadError::Region(error)) => return unread(&error),
        Err(error) => return Err(error.into()),
    };
    let class = args.class.unwrap_or(answer.diagnosis.class);
    let features = &answer.output.features;
    let (map, constant) = match method {
        Method::Contribution => {
            let contribution = reader.contribution(&answer, class);
            (Map::of_features(&contribution.map), Some(contribution.constant))
        }
        Method::GradCam => (Map::of_features(&grad_cam(&reader.package().head, features, class)), None),
        Method::Occlusion => {
            let how = Occlusion { patch: args.patch as usize, stride: args.stride as usize };
            match slide(&mut reader, &answer, class, how)? {
                Some(map) => (map, None),
                None => return Ok(ExitCode::from(STOPPED)),
            }
        }
    };
    let rgb = overlay(&frame, answer.place, &map);
    image::save_buffer(&args.out, &rgb, frame.width(), frame.height(), image::ExtendedColorType::Rgb8)
        .with_context(|| {
            format!("{}: cannot be written; check the folder and the free space", args.out.display())
        })?;
    let logit = answer.output.logits[class.index()];
    let sum: f32 = map.values.iter().sum();
    if let Some(path) = &args.raw {
        let text = raw(&args.path, &reader, class, method, &map, logit, constant);
        std::fs::write(path, text).with_context(|| {
            format!("{}: cannot be written; check the folder and the free space", path.display())
        })?;
    }
    let said = &answer.diagnosis;
    let told = match constant {
        Some(constant) => format!("logit {logit:.4} = sum {sum:.4} + constant {constant:.4}"),
        None => format!("logit {logit:.4}"),
    };
    let (name, finding) = (args.path.display(), said.finding.name());
    println!("{name}: {finding}; {class} by {}: {told}; {}", method.name(), args.out.display());
    if !said.reason.is_empty() {
        println!("{name}: {}", said.reason);
    }
    Ok(ExitCode::SUCCESS)
}

/// The occlusion test on all cores; `None` when Ctrl-C stopped it.
fn slide(reader: &mut Reader, answer: &Answer, class: Class, how: Occlusion) -> anyhow::Result<Option<Map>> {
    let stop = super::stop_flag()?;
    let total = how.places() * how.places();
    let mut engines = Vec::new();
    while engines.len() < super::workers(total) {
        let Some(engine) = reader.engine().share() else { break };
        engines.push(engine);
    }
    let bar = super::progress(total as u64, "occlusion");
    let step = || {
        bar.inc(1);
        !stop.load(Ordering::Relaxed)
    };
    let engines = if engines.is_empty() { std::slice::from_mut(reader.engine()) } else { &mut engines[..] };
    let result = occlusion(engines, &answer.input, class, how, &step);
    bar.finish_and_clear();
    match result {
        Ok(map) => Ok(Some(map)),
        Err(OcclusionError::Stopped) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn raw(
    path: &Path,
    reader: &Reader,
    class: Class,
    method: Method,
    map: &Map,
    logit: f32,
    constant: Option<f32>,
) -> String {
    let rows: Vec<&[f32]> = map.values.chunks_exact(map.columns).collect();
    let object = serde_json::json!({
        "path": path.display().to_string(),
        "model": reader.package().identity(),
        "class": class,
        "method": method.name(),
        "rows": map.rows,
        "columns": map.columns,
        "first": map.first,
        "step": map.step,
        "map": rows,
        "logit": logit,
        "constant": constant,
        "sum": map.values.iter().map(|v| f64::from(*v)).sum::<f64>(),
    });
    format!("{object:#}\n")
}
