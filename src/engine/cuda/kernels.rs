//! The kernels in the forms that a driver may take, best first.
//!
//! `cargo xtask kernels` compiles `kernels/*.cu` with NVRTC and ptxas and puts the results, compressed, into `built/`, which is
//! committed: they are our own sources compiled, and so an ordinary build needs neither CUDA nor a network, a fresh clone
//! tests the very instructions that a board runs, and a board without a just-in-time compiler (small L4T images) finds its
//! cubin. `built/kernels.toml` names the compilers and holds the checksum of the sources and of every result; a test compares
//! them, so sources and results cannot part ways.
//!
//! A cubin runs on its own architecture alone; PTX is compiled by the driver for any that is as new or newer; where both fail
//! NVRTC compiles the sources on the machine, and the result is kept in the user's cache.

use super::CudaError;
use super::driver::{Context, Module};
use sha2::{Digest, Sha256};
use std::ffi::CString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that includes all others.
pub const MAIN: &str = "steps.cu";

/// The sources, by name.
pub const SOURCES: [(&str, &str); 11] = [
    (MAIN, include_str!("kernels/steps.cu")),
    ("job.cuh", include_str!("kernels/job.cuh")),
    ("loads.cuh", include_str!("kernels/loads.cuh")),
    ("convolve_mma.cuh", include_str!("kernels/convolve_mma.cuh")),
    ("convolve_wmma.cuh", include_str!("kernels/convolve_wmma.cuh")),
    ("convolve_plain.cuh", include_str!("kernels/convolve_plain.cuh")),
    ("pool.cuh", include_str!("kernels/pool.cuh")),
    ("picture.cuh", include_str!("kernels/picture.cuh")),
    ("prepare.cuh", include_str!("kernels/prepare.cuh")),
    ("explain.cuh", include_str!("kernels/explain.cuh")),
    ("light.cuh", include_str!("kernels/light.cuh")),
];

/// What NVRTC is told besides the architecture: no product and sum may become one rounding.
pub const OPTIONS: [&str; 3] = ["-fmad=false", "--std=c++17", "-default-device"];

/// Architectures for which PTX is built, oldest first: plain, dp4a, wmma, mma.
pub const PTX: [u32; 4] = [53, 61, 72, 80];
/// Boards for which a cubin is built: Nano, TX2, Xavier, Orin, Thor.
pub const CUBINS: [u32; 5] = [53, 62, 72, 87, 110];

/// The first architecture with activations read as signed bytes, and the first without again.
pub const SIGNED: std::ops::Range<u32> = 72..80;

/// Compiled kernels, compressed: architecture, bytes.
const BUILT_PTX: [(u32, &[u8]); 4] = [
    (53, include_bytes!("built/compute_53.ptx.gz")),
    (61, include_bytes!("built/compute_61.ptx.gz")),
    (72, include_bytes!("built/compute_72.ptx.gz")),
    (80, include_bytes!("built/compute_80.ptx.gz")),
];
const BUILT_CUBINS: [(u32, &[u8]); 5] = [
    (53, include_bytes!("built/sm_53.cubin.gz")),
    (62, include_bytes!("built/sm_62.cubin.gz")),
    (72, include_bytes!("built/sm_72.cubin.gz")),
    (87, include_bytes!("built/sm_87.cubin.gz")),
    (110, include_bytes!("built/sm_110.cubin.gz")),
];

/// What was compiled with what, and the checksums.
pub const LOCK: &str = include_str!("built/kernels.toml");

/// One text with every `#include "..."` put in place, each file once.
pub fn source() -> String {
    fn add(name: &str, seen: &mut Vec<String>, text: &mut String) {
        let Some((_, body)) = SOURCES.iter().find(|(known, _)| *known == name) else { return };
        seen.push(name.to_owned());
        for line in body.lines() {
            let included = line.trim().strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
            match included {
                Some(file) if !seen.iter().any(|s| s == file) => add(file, seen, text),
                Some(_) => {}
                None if line.starts_with("#pragma once") => {}
                None => {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    let mut text = String::new();
    add(MAIN, &mut Vec::new(), &mut text);
    text
}

/// SHA-256 of [`source`] and [`OPTIONS`], in hexadecimal.
pub fn fingerprint() -> String {
    let mut hash = Sha256::new_with_prefix(source());
    OPTIONS.iter().for_each(|option| hash.update(option));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A form of the kernels.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it is, for messages.
    pub what: String,
    /// The architecture that it was compiled for.
    pub architecture: u32,
    /// PTX or cubin.
    pub bytes: Vec<u8>,
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    // The bytes are part of the program; that they unpack is tested. Were they damaged, the driver would refuse what came out.
    let _ = flate2::read::GzDecoder::new(bytes).read_to_end(&mut all);
    all
}

/// All built forms: cubins, then PTX.
pub fn built() -> Vec<Image> {
    let form = |what: &str, list: &[(u32, &[u8])]| -> Vec<Image> {
        let one = |(architecture, bytes): &(u32, &[u8])| Image {
            what: format!("{what}_{architecture}"),
            architecture: *architecture,
            bytes: unpacked(bytes),
        };
        list.iter().map(one).collect()
    };
    [form("sm", &BUILT_CUBINS), form("compute", &BUILT_PTX)].concat()
}

/// The built forms that may run on a device, best first.
fn candidates(capability: u32) -> impl Iterator<Item = Image> {
    let cubin = BUILT_CUBINS.iter().filter(move |(architecture, _)| *architecture == capability);
    let ptx = BUILT_PTX.iter().rev().filter(move |(architecture, _)| *architecture <= capability);
    let image = |what: &'static str| {
        move |(architecture, bytes): &(u32, &[u8])| Image {
            what: format!("{what}_{architecture}"),
            architecture: *architecture,
            bytes: unpacked(bytes),
        }
    };
    cubin.map(image("sm")).chain(ptx.take(1).map(image("compute")))
}

/// Kernels that the driver has loaded.
#[derive(Debug)]
pub struct Loaded {
    /// Them.
    pub module: Module,
    /// Which form was taken.
    pub what: String,
    /// They read activations as signed bytes.
    pub signed: bool,
}

/// Loads the first form that the driver takes.
///
/// # Errors
/// [`CudaError::Architecture`] and [`CudaError::Kernels`].
pub fn load(context: &Arc<Context>) -> Result<Loaded, CudaError> {
    let capability = context.device.capability;
    if capability < PTX[0] {
        return Err(CudaError::Architecture { name: context.device.name.clone(), capability });
    }
    let mut failed = Vec::new();
    for image in candidates(capability) {
        match Module::load(context, &image.bytes) {
            Ok(module) => {
                let signed = SIGNED.contains(&image.architecture);
                return Ok(Loaded { module, what: image.what, signed });
            }
            Err(error) => failed.push(format!("{}: {error}", image.what)),
        }
    }
    let what = format!("NVRTC for sm_{capability}");
    match compiled(capability).and_then(|ptx| Module::load(context, &ptx).map_err(|error| error.to_string()))
    {
        Ok(module) => Ok(Loaded { module, what, signed: SIGNED.contains(&capability) }),
        Err(error) => {
            failed.push(format!("{what}: {error}"));
            Err(CudaError::Kernels(failed.join("; ")))
        }
    }
}

/// PTX from NVRTC on this machine, or from the cache that an earlier run filled.
fn compiled(capability: u32) -> Result<Vec<u8>, String> {
    let cache = cache().map(|folder| folder.join(format!("{}-{capability}.ptx", fingerprint())));
    if let Some(known) = cache.as_ref().and_then(|path| std::fs::read(path).ok()) {
        return Ok(known);
    }
    let ptx = compile(&source(), capability)?;
    if let Some(path) = cache {
        // A cache that cannot be written costs seconds at the next start, no more.
        let _ = keep(&path, &ptx);
    }
    Ok(ptx)
}

/// Writes a file of the cache beside its place and renames it, so that a power cut leaves no half of it.
pub(super) fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes)?;
    std::fs::rename(beside, path)
}

/// Where compiled kernels and tables of cuts are kept.
pub(super) fn cache() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute()).or_else(home);
    base.map(|folder| folder.join("fovea/kernels"))
}

/// Compiles a text with the NVRTC of this machine to PTX.
///
/// # Errors
/// In words, with the compiler's own where it has some.
pub fn compile(source: &str, architecture: u32) -> Result<Vec<u8>, String> {
    use cudarc::nvrtc::{result, sys};
    // SAFETY: loads the system's NVRTC, whose start-up code has no conditions that could be broken here.
    if !unsafe { sys::is_culib_present() } {
        return Err("NVRTC (libnvrtc.so) is not on this machine; install cuda-nvrtc".into());
    }
    let text = CString::new(source).map_err(|error| error.to_string())?;
    let program = result::create_program(&text, None).map_err(|error| error.to_string())?;
    let options: Vec<String> = [format!("-arch=compute_{architecture}")]
        .into_iter()
        .chain(OPTIONS.iter().map(ToString::to_string))
        .collect();
    let bytes = |chars: Vec<std::ffi::c_char>| -> Vec<u8> {
        chars.into_iter().map(|c| c as u8).take_while(|byte| *byte != 0).collect()
    };
    // SAFETY: the program was made above, is used here alone, and is destroyed once.
    unsafe {
        let made = match result::compile_program(program, &options) {
            Ok(()) => result::get_ptx(program).map(bytes).map_err(|error| error.to_string()),
            Err(error) => {
                let log = result::get_program_log(program).map(bytes).unwrap_or_default();
                Err(format!("{error}: {}", String::from_utf8_lossy(&log).trim()))
            }
        };
        let _ = result::destroy_program(program);
        made
    }
}
