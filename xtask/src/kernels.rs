//! `cargo xtask kernels`: from `kernels/*.cu` to what the build embeds, with gates on the way.

use crate::toolchain::{Toolchain, run as run_command};
use anyhow::{Context, ensure};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use fovea::engine::cuda::kernels::{CUBINS, OPTIONS, PTX, compile, fingerprint, source};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles the kernels for every board.
#[derive(Debug, clap::Args)]
pub struct KernelsArgs {
    /// Write nothing; fail where what is committed is not what comes out
    #[arg(long)]
    check: bool,
    /// Also keep the PTX and cubins, not compressed, in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// `built/kernels.toml`.
#[derive(Serialize)]
struct Lock {
    /// Of the sources and options.
    sources: String,
    options: String,
    compilers: [&'static str; 2],
    /// SHA-256 of each file before compression.
    files: BTreeMap<String, String>,
    /// Of each cubin's kernels: registers of a thread, bytes of shared memory of a block.
    kernels: BTreeMap<String, BTreeMap<String, Usage>>,
}

/// What ptxas says that a kernel takes.
#[derive(Clone, Copy, Serialize)]
struct Usage {
    registers: u32,
    shared: u32,
}

/// The PTX version that goes out: the highest that the oldest driver of a board knows. JetPack 4 (Nano, TX2, Xavier) has CUDA
/// 10.2, JetPack 5 (Orin) 11.4. The kernels need nothing newer, and ptxas is asked whether that is so.
fn version(architecture: u32) -> &'static str {
    if architecture < 80 { "6.5" } else { "7.4" }
}

/// The PTX with another version.
fn versioned(ptx: &str, version: &str) -> String {
    let line = |line: &str| {
        if line.starts_with(".version") { format!(".version {version}\n") } else { format!("{line}\n") }
    };
    ptx.lines().map(line).collect()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compiles PTX for a board and gives the cubin and what its kernels take; spills and stack are errors.
fn assemble(ptxas: &Path, ptx: &str, board: u32) -> anyhow::Result<(Vec<u8>, BTreeMap<String, Usage>)> {
    let folder = std::env::temp_dir().join(format!("fovea-xtask-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (from, to) = (folder.join("kernels.ptx"), folder.join("kernels.cubin"));
    std::fs::write(&from, ptx)?;
    let said = run_command(
        Command::new(ptxas).arg("-v").arg(format!("-arch=sm_{board}")).arg(&from).arg("-o").arg(&to),
    )?;
    let cubin = std::fs::read(&to)?;
    std::fs::remove_dir_all(folder)?;
    let mut name = String::new();
    let mut usage = BTreeMap::new();
    for line in said.lines() {
        if let Some(rest) = line.split("entry function '").nth(1) {
            name = rest.split('\'').next().unwrap_or_default().to_owned();
        }
        if line.contains("bytes stack frame") {
            let spills = line.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
            ensure!(
                spills.into_iter().all(|word| word == "0"),
                "{name} on sm_{board} spills: {}",
                line.trim()
            );
        }
        let number = |before: &str| -> Option<u32> {
            line.split(before)
                .next()?
                .split(|c: char| !c.is_ascii_digit())
                .rfind(|w| !w.is_empty())?
                .parse()
                .ok()
        };
        if line.contains("Used ") {
            let shared = if line.contains(" bytes smem") { number(" bytes smem").unwrap_or(0) } else { 0 };
            let registers = number(" registers").context("ptxas does not say how many registers are used")?;
            usage.insert(name.clone(), Usage { registers, shared });
        }
    }
    ensure!(!usage.is_empty(), "ptxas said nothing about the kernels:\n{said}");
    Ok((cubin, usage))
}

/// What is committed against what came out.
fn compare(folder: &Path, lock: &str, files: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
    let mut other = Vec::new();
    for (name, bytes) in files {
        let packed = std::fs::read(folder.join(format!("{name}.gz"))).unwrap_or_default();
        let mut committed = Vec::new();
        // What does not unpack is not the same either.
        let _ = GzDecoder::new(&packed[..]).read_to_end(&mut committed);
        if committed != *bytes {
            other.push(name.as_str());
        }
    }
    if std::fs::read_to_string(folder.join("kernels.toml")).unwrap_or_default() != lock {
        other.push("kernels.toml");
    }
    ensure!(
        other.is_empty(),
        "{} in {} are not what the sources give; run `cargo xtask kernels`",
        other.join(", "),
        folder.display()
    );
    println!("{} files in {} are what the sources give", files.len() + 1, folder.display());
    Ok(())
}

/// Compiles, examines, and writes.
pub fn run(args: &KernelsArgs) -> anyhow::Result<()> {
    let tools = Toolchain::open()?;
    let text = source();
    let mut ptx = BTreeMap::new();
    for architecture in PTX {
        let bytes = compile(&text, architecture).map_err(anyhow::Error::msg)?;
        let plain = versioned(&String::from_utf8(bytes)?, version(architecture));
        for forbidden in [".local", "call", ".extern"] {
            let found = plain
                .lines()
                .find(|line| line.split(['.', ' ', '\t']).any(|w| w == forbidden.trim_start_matches('.')));
            ensure!(found.is_none(), "compute_{architecture} has {forbidden}: {}", found.unwrap_or_default());
        }
        ptx.insert(architecture, plain);
    }
    let mut lock = Lock {
        sources: fingerprint(),
        options: OPTIONS.join(" "),
        compilers: ["NVRTC and ptxas 12.9.86", "for sm_110 ptxas 13.5.37"],
        files: BTreeMap::new(),
        kernels: BTreeMap::new(),
    };
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for board in CUBINS {
        let (_, text) = ptx.range(..=board).next_back().context("no PTX is old enough")?;
        let ptxas = if board >= 100 { &tools.ptxas_new } else { &tools.ptxas };
        let (cubin, usage) = assemble(ptxas, text, board)?;
        let steps = usage.get("steps").context("there is no kernel `steps`")?;
        println!(
            "sm_{board}: {} registers and {} bytes of shared memory in `steps`, no spills, {} kB",
            steps.registers,
            steps.shared,
            cubin.len() / 1000
        );
        lock.kernels.insert(format!("sm_{board}"), usage);
        files.push((format!("sm_{board}.cubin"), cubin));
    }
    files.extend(ptx.into_iter().map(|(a, text)| (format!("compute_{a}.ptx"), text.into_bytes())));
    if let Some(folder) = &args.keep {
        std::fs::create_dir_all(folder)?;
        for (name, bytes) in &files {
            std::fs::write(folder.join(name), bytes)?;
        }
    }
    lock.files = files.iter().map(|(name, bytes)| (name.clone(), hex(bytes))).collect();
    let folder = crate::root().join("src/engine/cuda/built");
    let head = "# Made by `cargo xtask kernels`; do not edit.\n";
    let text = format!("{head}{}", toml::to_string(&lock)?);
    if args.check {
        return compare(&folder, &text, &files);
    }
    let mut size = 0;
    for (name, bytes) in files {
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&bytes)?;
        let packed = packed.finish()?;
        size += packed.len();
        std::fs::write(folder.join(format!("{name}.gz")), packed)?;
    }
    std::fs::write(folder.join("kernels.toml"), text)?;
    println!("wrote {} ({} kB)", folder.display(), size / 1000);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_what_the_sources_give() {
        if std::env::var_os("FOVEA_CUDA_TOOLS").is_none() {
            println!("skipped: FOVEA_CUDA_TOOLS names no folder for NVIDIA's compilers (.ci/run names one)");
            return;
        }
        if let Err(error) = Toolchain::open() {
            println!("skipped: NVIDIA's compilers cannot be had: {error:#}");
            return;
        }
        run(&KernelsArgs { check: true, keep: None }).unwrap();
    }
}
