//! `cargo xtask simulate`: the shipped network on simulated boards, from the frame's bytes to the picture for the screen: exact to the bit.

use crate::board::{Board, built_ptx, ptx_for};
use crate::root;
use anyhow::ensure;
use fovea::engine::cuda::examine::compare;
use fovea::engine::suite::View;
use fovea::engine::{Engine as _, plan::Plan, scalar::Scalar};
use fovea::model::{Head, Package};
use fovea::{frame::Frame, screen::room};
use fovea_simulator::Options;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Runs the shipped network on simulated boards and compares with the scalar engine.
#[derive(Debug, clap::Args)]
pub struct SimulateArgs {
    /// Boards, by their architecture
    #[arg(long, value_delimiter = ',', default_value = "53,62,72,87")]
    boards: Vec<u32>,
    /// The picture; a phantom of the examples by default
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Order of warps, blocks and copies: late, eager, reversed or random:SEED
    #[arg(long, default_value = "late")]
    schedule: fovea_simulator::Schedule,
    /// Blocks that a launch should have at least
    #[arg(long, default_value_t = 24)]
    blocks: usize,
}

/// The shipped network before a picture.
pub struct Shipped {
    /// Its program.
    pub plan: Plan,
    /// Its head.
    pub head: Head,
    /// The picture, prepared as the model wants it, for a screen of 1280x720.
    pub view: View,
}

/// Reads the model, and a phantom of the examples where no picture is named.
pub fn shipped(picture: Option<&Path>) -> anyhow::Result<Shipped> {
    let package = Package::open(&root().join("models/oct-inception-v3"))?;
    let phantom = root().join("examples/bscans/phantom-dme-1.jpeg");
    let view = View {
        frame: Frame::read(picture.unwrap_or(&phantom))?,
        region: None,
        preparation: package.manifest.preparation.clone(),
        room: room(1280, 720),
    };
    Ok(Shipped { plan: Plan::read(&package.onnx)?, head: package.head, view })
}

/// Runs it.
pub fn run(args: &SimulateArgs) -> anyhow::Result<()> {
    let Shipped { plan, head, view } = shipped(args.picture.as_deref())?;
    let ask = view.ask()?;
    let start = Instant::now();
    let expected = Scalar::of(plan.clone()).read(&ask)?;
    println!("scalar engine: logits {:?} in {:.1} s", expected.output.logits, start.elapsed().as_secs_f32());
    for board in &args.boards {
        let architecture = ptx_for(*board)?;
        let device = Board::new(&built_ptx(architecture)?)?;
        let schedule = device.schedule(&plan, args.blocks)?;
        let network = device.network(&schedule)?;
        let start = Instant::now();
        let options = Options { schedule: args.schedule, ..Options::default() };
        let (seen, counts) = network.read(&ask, &head, &options)??;
        let million = |around: bool| {
            let all = counts.iter().filter(|(kernel, _)| (*kernel != "steps") == around);
            all.map(|(_, counters)| counters.instructions).sum::<u64>() as f64 / 1e6
        };
        println!(
            "sm_{board} (compute_{architecture}): {} launches, {:.1} million warp instructions of the network, {:.1} around it, in {:.0} s",
            counts.len(),
            million(false),
            million(true),
            start.elapsed().as_secs_f32()
        );
        let wrong = compare(&seen, &ask, &head);
        ensure!(wrong.is_none(), "sm_{board}: {}", wrong.unwrap_or_default());
        ensure!(seen.output == expected.output, "sm_{board}: the features are not the scalar engine's");
    }
    println!("all boards give the scalar engine's answer, and what lies around it the processor's");
    Ok(())
}
