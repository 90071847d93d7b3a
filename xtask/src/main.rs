//! Tasks of the developers, as `cargo xtask NAME`.

mod board;
mod cost;
mod kernels;
mod mutants;
mod simulate;
mod toolchain;
#[cfg(unix)]
mod vm;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};

/// Tasks of the developers.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    after_help = "Examples:\n  cargo xtask kernels            compile the CUDA kernels and put them where the build finds them\n  \
                  cargo xtask kernels --check    see that they compile, and that what is committed is what comes out\n  \
                  cargo xtask mutants            plant bugs in the kernels and see that the simulator finds each\n  \
                  cargo xtask simulate           run the shipped network on simulated boards\n  \
                  cargo xtask vm-test phantom    B-scans through a capture device onto a screen, in a virtual machine"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Compile the CUDA kernels with NVRTC and ptxas from pinned wheels
    Kernels(kernels::KernelsArgs),
    /// Count what the network costs on each board; limits that are passed are errors
    GpuCost(cost::CostArgs),
    /// Run the appliance before the kernel's own devices in a virtual machine
    #[cfg(unix)]
    VmTest(vm::VmArgs),
    /// Plant bugs in the kernels; each must be caught
    Mutants(mutants::MutantsArgs),
    /// Run the shipped network on simulated boards; the bytes must be the scalar engine's
    Simulate(simulate::SimulateArgs),
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Kernels(args) => kernels::run(&args),
        Task::GpuCost(args) => cost::run(&args),
        #[cfg(unix)]
        Task::VmTest(args) => vm::run(&args),
        Task::Mutants(args) => mutants::run(&args),
        Task::Simulate(args) => simulate::run(&args),
    }
}
