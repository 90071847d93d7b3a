//! Tasks of the developers, as `cargo xtask NAME`.

mod kernels;
mod toolchain;
#[cfg(unix)]
mod vm;

use clap::{Parser, Subcommand};

/// Tasks of the developers.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    after_help = "Examples:\n  cargo xtask kernels            compile the CUDA kernels and put them where the build finds them\n  \
                  cargo xtask kernels --check    only see that they compile for every board and every old driver\n  \
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
    /// Run the appliance before the kernel's own devices in a virtual machine
    #[cfg(unix)]
    VmTest(vm::VmArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Kernels(args) => kernels::run(&args),
        #[cfg(unix)]
        Task::VmTest(args) => vm::run(&args),
    }
}
