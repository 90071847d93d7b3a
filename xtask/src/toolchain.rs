//! NVIDIA's compilers from pinned wheels, in a scratch folder outside the repository's files.
//!
//! The wheels are proprietary: they are fetched, never kept in the repository; `requirements-*.txt` holds their checksums.

use anyhow::{Context, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compilers.
pub struct Toolchain {
    /// ptxas of CUDA 12.9: all boards but Thor.
    pub ptxas: PathBuf,
    /// ptxas of CUDA 13: Thor.
    pub ptxas_new: PathBuf,
}

/// Where the wheels are unpacked: `FOVEA_CUDA_TOOLS`, or below the user's cache, so that `cargo clean` does not throw them away.
fn folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("FOVEA_CUDA_TOOLS") {
        return Ok(folder.into());
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(base
        .context("neither FOVEA_CUDA_TOOLS nor HOME says where to put the compilers")?
        .join("fovea/cuda-tools"))
}

/// Runs a program and gives what it said on both outputs.
///
/// # Errors
/// When it cannot be started or fails, with what it said.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.output().with_context(|| format!("{:?} cannot be started", command.get_program()))?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?} failed:\n{text}");
    Ok(text)
}

/// A virtual environment with exactly the wheels of a list.
fn environment(name: &str) -> anyhow::Result<PathBuf> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("requirements-{name}.txt"));
    let wanted = std::fs::read_to_string(&list)?;
    let place = folder()?.join(name);
    let done = place.join("installed.txt");
    if std::fs::read_to_string(&done).is_ok_and(|there| there == wanted) {
        return Ok(place);
    }
    println!("fetching the wheels of {} into {}", list.display(), place.display());
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place))?;
    let pip = place.join("bin/python");
    run(Command::new(pip)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "-r",
        ])
        .arg(&list))?;
    std::fs::write(done, wanted)?;
    Ok(place)
}

/// The file of that name below a folder.
fn find(below: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let mut folders = vec![below.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() == name {
                return Ok(entry.path());
            }
        }
    }
    bail!("there is no {name} below {}; delete that folder and try again", below.display())
}

impl Toolchain {
    /// Fetches what is missing and loads NVRTC into this program, where `cudarc` finds it by its name.
    ///
    /// # Errors
    /// Without Python or a network, and when a wheel is not the pinned one.
    pub fn open() -> anyhow::Result<Self> {
        let (old, new) = (environment("12")?, environment("13")?);
        let nvrtc = find(&old, "libnvrtc.so.12")?;
        // SAFETY: NVIDIA's library, by its checksum the pinned one; its start-up code has no conditions to be broken here.
        let library = unsafe { libloading::Library::new(&nvrtc) };
        // It stays loaded until the program ends.
        std::mem::forget(library.with_context(|| format!("{} cannot be loaded", nvrtc.display()))?);
        Ok(Self { ptxas: find(&old, "ptxas")?, ptxas_new: find(&new, "ptxas")? })
    }
}
