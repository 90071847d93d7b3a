//! A data set as an archive: .tar.gz, .tgz, .tar or .zip.
//!
//! Only pictures and `index.csv` are unpacked, by names of our own making: an archive cannot write outside its folder.

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use fovea::frame::is_picture;
use indicatif::ProgressBar;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};

/// More than this in one file is no B-scan.
const LARGEST: u64 = 256 << 20;

/// What an archive is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tar,
    TarGz,
    Zip,
}

fn kind(path: &Path) -> Option<(Kind, String)> {
    let name = path.file_name()?.to_str()?;
    let lower = name.to_ascii_lowercase();
    [(".tar.gz", Kind::TarGz), (".tgz", Kind::TarGz), (".tar", Kind::Tar), (".zip", Kind::Zip)]
        .into_iter()
        .find(|(end, _)| lower.ends_with(end))
        .map(|(end, kind)| (kind, name[..name.len() - end.len()].to_owned()))
}

/// The folder of a data set: `data` itself, or where the archive `data` was unpacked to: `unpack`, or a folder beside
/// it that is called like it. What is there already at its full size is not written again, so a broken-off run goes on.
///
/// # Errors
/// When it is neither, or the archive is damaged or the disk full.
pub fn folder(data: &Path, unpack: Option<&Path>) -> Result<PathBuf> {
    if data.is_dir() {
        return Ok(data.to_path_buf());
    }
    let Some((kind, name)) = kind(data) else {
        bail!("{}: neither a folder nor a .tar.gz, .tgz, .tar or .zip archive", data.display());
    };
    let to = unpack.map_or_else(|| data.with_file_name(&name), Path::to_path_buf);
    let file = File::open(data).with_context(|| format!("{}: cannot be read", data.display()))?;
    let size = file.metadata()?.len();
    let bar = crate::bar(size as usize, "unpacking");
    let count = match kind {
        Kind::Zip => zip(file, &to, &bar),
        Kind::Tar => tar(BufReader::new(bar.wrap_read(file)), &to),
        Kind::TarGz => tar(GzDecoder::new(BufReader::new(bar.wrap_read(file))), &to),
    };
    bar.finish_and_clear();
    let count = count.with_context(|| {
        format!(
            "{}: cannot be unpacked into {}; download it again, or free space",
            data.display(),
            to.display()
        )
    })?;
    println!("{}: {count} pictures in {}", data.display(), to.display());
    Ok(to)
}

/// The place of an entry below the folder; `None` for what is not wanted or would leave it.
fn place(to: &Path, name: &Path) -> Option<PathBuf> {
    let mut path = to.to_path_buf();
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    let file = name.file_name()?.to_string_lossy().into_owned();
    // macOS puts `._name` beside every file.
    let wanted = !file.starts_with('.') && (is_picture(name) || file == "index.csv");
    wanted.then_some(path)
}

fn write(path: &Path, size: u64, mut from: impl Read) -> Result<()> {
    if size > LARGEST {
        bail!("{}: {size} bytes in one picture", path.display());
    }
    if path.metadata().is_ok_and(|m| m.len() == size) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Whole or not at all: the size decides whether it is written again.
    let part = path.with_extension("part");
    let written = std::io::copy(&mut from.by_ref().take(size), &mut File::create(&part)?)?;
    if written != size {
        bail!("{}: {written} bytes where {size} belong", path.display());
    }
    Ok(std::fs::rename(&part, path)?)
}

fn tar(from: impl Read, to: &Path) -> Result<usize> {
    let mut archive = tar::Archive::new(from);
    let mut count = 0;
    for entry in archive.entries()? {
        crate::export::runner::check_stop()?;
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if let Some(path) = place(to, &entry.path()?) {
            write(&path, entry.size(), entry)?;
            count += 1;
        }
    }
    Ok(count)
}

fn zip(file: File, to: &Path, bar: &ProgressBar) -> Result<usize> {
    let mut archive = zip::ZipArchive::new(BufReader::new(file))?;
    let mut count = 0;
    bar.set_length(archive.len() as u64);
    for i in 0..archive.len() {
        crate::export::runner::check_stop()?;
        let entry = archive.by_index(i)?;
        let name = entry.enclosed_name().map(Path::to_path_buf);
        if let Some(path) = name.filter(|_| entry.is_file()).and_then(|name| place(to, &name)) {
            write(&path, entry.size(), entry)?;
            count += 1;
        }
        bar.inc(1);
    }
    Ok(count)
}
