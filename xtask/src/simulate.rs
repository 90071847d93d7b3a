//! `cargo xtask simulate`: the shipped network on simulated boards, exact to the bit.

use crate::board::{Board, built_ptx, ptx_for};
use crate::root;
use anyhow::ensure;
use fovea::engine::{plan::Plan, scalar::Scalar};
use fovea::{frame::Frame, model::Package};
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

/// The shipped network's plan and the input that it makes of a picture.
pub fn shipped(picture: Option<&Path>) -> anyhow::Result<(Plan, Vec<u8>)> {
    let package = Package::open(&root().join("models/oct-inception-v3"))?;
    let phantom = root().join("examples/bscans/phantom-dme-1.jpeg");
    let frame = Frame::read(picture.unwrap_or(&phantom))?;
    let input = package.manifest.preparation.prepare(&frame, None)?.input;
    Ok((Plan::read(&package.onnx)?, input.0.to_vec()))
}

/// Runs it.
pub fn run(args: &SimulateArgs) -> anyhow::Result<()> {
    let (plan, input) = shipped(args.picture.as_deref())?;
    let start = Instant::now();
    let expected = Scalar::of(plan.clone()).run_bytes(&input);
    println!("scalar engine: {} bytes of features in {:.1} s", expected.len(), start.elapsed().as_secs_f32());
    for board in &args.boards {
        let architecture = ptx_for(*board)?;
        let device = Board::new(&built_ptx(architecture)?)?;
        let schedule = device.schedule(&plan, args.blocks)?;
        let network = device.network(&schedule)?;
        let start = Instant::now();
        let options = Options { schedule: args.schedule, ..Options::default() };
        let (got, counts) = network.run(&input, &options)??;
        let instructions: u64 = counts.iter().map(|c| c.instructions).sum();
        println!(
            "sm_{board} (compute_{architecture}): {} launches, {:.0} million warp instructions in {:.0} s",
            counts.len(),
            instructions as f64 / 1e6,
            start.elapsed().as_secs_f32()
        );
        let wrong = got.iter().zip(&expected).filter(|(a, b)| a != b).count();
        ensure!(wrong == 0, "sm_{board}: {wrong} of {} bytes differ from the scalar engine", got.len());
    }
    println!("all boards give the scalar engine's bytes");
    Ok(())
}
