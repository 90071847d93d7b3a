//! Tasks of the developers, as `cargo xtask NAME`.

mod kernels;
mod toolchain;

use clap::{Parser, Subcommand};

/// Tasks of the developers.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    after_help = "Examples:\n  cargo xtask kernels            compile the CUDA kernels and put them where the build finds them\n  \
                  cargo xtask kernels --check    only see that they compile for every board and every old driver"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Compile the CUDA kernels with NVRTC and ptxas from pinned wheels
    Kernels(kernels::KernelsArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Kernels(args) => kernels::run(&args),
    }
}
