//! `fovea tune`: how the network is cut into blocks, measured on this machine's device.

use super::{FAILED, ModelArgs};
use std::process::ExitCode;

/// Times ways to cut the network into blocks on this machine's NVIDIA device and keeps the fastest in a table.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  fovea tune\n\nThe engine cuda reads the table at its start. No table changes an answer; delete it to go \
                  back.\n\nExit codes: 0 measured, 2 there is no device, or it failed."
)]
pub struct TuneArgs {
    #[command(flatten)]
    model: ModelArgs,
}

/// Tunes.
#[cfg(feature = "cuda")]
pub fn run(args: TuneArgs) -> anyhow::Result<ExitCode> {
    use fovea::engine::cuda::{Options, tune::tune};
    use std::time::Duration;
    let package = args.model.package()?;
    let plan = fovea::engine::plan::Plan::read(&package.onnx)?;
    // Cuts that do not suit a device may be slow.
    let options = Options { limit: Duration::from_secs(60), ..Options::default() };
    let input = fovea::model::golden_input();
    let tuned = match tune(&plan, options, &input.0[..], &mut |line| println!("{line}")) {
        Ok(tuned) => tuned,
        Err(error) => {
            eprintln!("fovea: {error}");
            return Ok(ExitCode::from(FAILED));
        }
    };
    let (before, after) = (tuned.before, tuned.after);
    println!("{} shapes cut otherwise: {before:.3} ms before, {after:.3} after", tuned.table.cuts.len());
    match after < before {
        true => println!("wrote {}", tuned.place.display()),
        false => println!("nothing was gained and nothing is written"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Tunes.
#[cfg(not(feature = "cuda"))]
pub fn run(_: TuneArgs) -> anyhow::Result<ExitCode> {
    eprintln!("fovea: this build has no engine for an NVIDIA device; build it with the feature `cuda`");
    Ok(ExitCode::from(FAILED))
}
