//! Extraction spread over machines: each makes a shard, `merge` puts them together.

use crate::cache::{self, Header};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// One of equal parts of the records, counted from 0 as Slurm's and Kubernetes's indices are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    number: usize,
    of: usize,
}

/// Not a shard.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{0}' is no shard: write NUMBER/COUNT, the number from 0 to COUNT - 1 and COUNT up to 99999, for example 0/8"
)]
pub struct NoShard(String);

impl FromStr for Shard {
    type Err = NoShard;
    fn from_str(text: &str) -> Result<Self, NoShard> {
        let parts = text.split_once('/').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match parts {
            Some((number, of)) if number < of && of <= 99_999 => Ok(Self { number, of }),
            _ => Err(NoShard(text.into())),
        }
    }
}

impl Shard {
    /// Its records of `all`.
    pub fn records(self, all: usize) -> Range<usize> {
        all * self.number / self.of..all * (self.number + 1) / self.of
    }

    /// The name of its file.
    pub fn file(self) -> String {
        format!("features-{:05}-of-{:05}.f16", self.number, self.of)
    }

    /// The shard of a file's name.
    fn of_file(name: &str) -> Option<Self> {
        let (number, of) = name.strip_prefix("features-")?.strip_suffix(".f16")?.split_once("-of-")?;
        format!("{}/{}", number.parse::<usize>().ok()?, of.parse::<usize>().ok()?).parse().ok()
    }
}

/// Puts the shards of `extract --shard` together.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example:\n  fovea-train extract --data OCT --weights w.safetensors --cache cache --shard 0/2\n  \
    fovea-train extract --data OCT --weights w.safetensors --cache cache --shard 1/2\n  fovea-train merge --cache cache\n\n\
    Shards that were made on several machines are copied into one folder first. While it runs it needs the cache's size once more."
)]
pub struct MergeArgs {
    /// Folder of the cache, with all its shards
    #[arg(long, default_value = "cache")]
    pub cache: PathBuf,
    /// Index that they were made from
    #[arg(long, default_value = "split.csv")]
    pub split: PathBuf,
}

/// Runs `merge`.
///
/// # Errors
/// When a shard is missing or not complete, they are of several counts, or the cache cannot be written.
pub fn merge(args: &MergeArgs) -> Result<()> {
    let folder = &args.cache;
    let (header, records) = cache::plan(folder, &args.split)?;
    let mut shards = found(folder)?;
    let Some(of) = shards.first().map(|shard| shard.of) else {
        bail!(
            "{}: no shards; make them with `fovea-train extract --shard 0/COUNT` and so on",
            folder.display()
        );
    };
    ensure!(
        shards.iter().all(|shard| shard.of == of),
        "{}: shards of several counts; remove those that are not meant",
        folder.display()
    );
    shards.sort_by_key(|shard| shard.number);
    let missing: Vec<String> = (0..of)
        .filter(|&n| shards.binary_search_by_key(&n, |shard| shard.number).is_err())
        .map(|n| n.to_string())
        .collect();
    ensure!(
        missing.is_empty(),
        "{}: of {of} shards these are missing: {}",
        folder.display(),
        missing.join(", ")
    );
    for shard in &shards {
        let path = folder.join(shard.file());
        let wanted = shard.records(records).len() as u64 * header.size();
        let held = std::fs::metadata(&path).with_context(|| path.display().to_string())?.len();
        ensure!(
            held == wanted,
            "{}: {held} bytes where {wanted} are needed; extract this shard again, it goes on",
            path.display()
        );
    }
    let part = folder.join("features.part");
    let written = || format!("{}: cannot be written; free space and merge again", part.display());
    let mut out = File::create(&part).with_context(written)?;
    for shard in &shards {
        let path = folder.join(shard.file());
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        std::io::copy(&mut file, &mut out).with_context(written)?;
    }
    out.sync_all().with_context(written)?;
    std::fs::rename(&part, folder.join("features.f16")).with_context(written)?;
    for shard in &shards {
        // What cannot be removed only takes room.
        let _ = std::fs::remove_file(folder.join(shard.file()));
    }
    println!("{}: {records} records of {of} shards", folder.display());
    Ok(())
}

/// The shards in a folder.
fn found(folder: &Path) -> Result<Vec<Shard>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<std::io::Result<_>>()?;
    Ok(names.iter().filter_map(|name| Shard::of_file(name)).collect())
}

impl Header {
    /// Bytes of a record.
    pub(crate) fn size(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_all_records_once() {
        for (all, of) in [(0, 3), (1, 3), (10, 3), (100, 7), (5, 5), (6331, 64)] {
            let mut next = 0;
            for number in 0..of {
                let shard: Shard = format!("{number}/{of}").parse().unwrap();
                let range = shard.records(all);
                assert_eq!(range.start, next);
                assert!(range.len() <= all / of + 1);
                next = range.end;
                assert_eq!(Shard::of_file(&shard.file()), Some(shard));
            }
            assert_eq!(next, all);
        }
        for wrong in ["3/3", "1", "-1/2", "0/0", "a/b", "0/100000"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        assert_eq!(Shard::of_file("features.f16"), None);
    }
}
