//! `extract`: the frozen part of the network, computed once and kept on disk.
//!
//! A cache is a folder with `cache.toml` and `features.f16`: one record for each picture and variant, in the order of the
//! index, each `rows x columns x channels` in half precision. A broken-off run goes on after its last whole record.

use crate::augment::{self, source::Strength};
use crate::backbone;
use crate::network::inception_v3;
use crate::nn::Layout;
use crate::nn::product::{self, Precision};
use crate::section::{Cut, HeadKind, Section};
use crate::shards::Shard;
use crate::split::{self, Row, Split};
use anyhow::{Context, bail};
use burn::tensor::Device;
use fovea::Frame;
use fovea::prepare::{NetworkInput, Preparation, SIDE};
use half::f16;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What random variants are made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vary {
    /// The prepared 299x299 pixels: small turns, shifts, zooms, brightness, speckle.
    #[default]
    Prepared,
    /// The source picture, with larger changes; it is prepared afterwards.
    Source,
}

/// Compute the frozen part of the network once, for all pictures.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  fovea-train extract --data OCT --split split.csv --weights inception_v3.safetensors --cut Mixed_6e --cache cache\n\n\
    Interrupted, it goes on where it stopped."
)]
pub struct ExtractArgs {
    /// Folder of the pictures
    #[arg(long)]
    pub data: PathBuf,
    /// Index made by `prepare`
    #[arg(long, default_value = "split.csv")]
    pub split: PathBuf,
    /// InceptionV3 weights: safetensors (timm), .pth (torchvision) or .h5 (Keras)
    #[arg(long)]
    pub weights: PathBuf,
    /// The last frozen block: Input (nothing), Stem, Mixed_5b … Mixed_7c (all)
    #[arg(long, default_value = "Mixed_6e")]
    pub cut: Cut,
    /// Variants of each training picture: itself, its mirror image, then random ones
    #[arg(long, default_value_t = 4)]
    pub variants: usize,
    /// What random variants are made from
    #[arg(long, value_enum, default_value_t = Vary::Prepared)]
    pub vary: Vary,
    /// Seed of the random variants
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The CPU's precision in products: mixed is several times faster where the CPU has bfloat16 tile units (Intel AMX)
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Compute only this part of the records, NUMBER/COUNT with the number from 0; `merge` puts the parts together
    #[arg(long)]
    pub shard: Option<Shard>,
    /// Folder of the cache
    #[arg(long, default_value = "cache")]
    pub cache: PathBuf,
}

/// What a cache was made from; another cache must not be mixed in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    cut: String,
    pub(crate) shape: [usize; 3],
    variants: usize,
    #[serde(default)]
    vary: Vary,
    seed: u64,
    weights_sha256: String,
    split_sha256: String,
    preparation: Preparation,
}

/// A picture and variant with its place in the cache.
#[derive(Clone, Debug)]
pub struct Record {
    /// The picture, shared by its variants.
    pub row: Arc<Row>,
    /// 0 is the picture itself.
    pub variant: usize,
    /// Number of the record.
    pub place: u64,
}

/// A cache to read from.
#[derive(Debug)]
pub struct Cache {
    file: File,
    /// Rows, columns, channels of a record.
    pub shape: [usize; 3],
    /// The cut's name.
    pub cut: String,
    /// SHA-256 of the frozen weights.
    pub weights_sha256: String,
    /// All records.
    pub records: Vec<Record>,
}

fn records(rows: Vec<Row>, variants: usize) -> Vec<Record> {
    let mut all = Vec::new();
    for row in rows.into_iter().map(Arc::new) {
        let count = if row.split == Split::Train { variants } else { 1 };
        for variant in 0..count {
            all.push(Record { row: Arc::clone(&row), variant, place: all.len() as u64 });
        }
    }
    all
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn file_sha256(path: &Path) -> anyhow::Result<String> {
    let unread = || format!("{}: cannot be read", path.display());
    let mut file = File::open(path).with_context(unread)?;
    // In pieces: weights and indices of large sets need not fit into memory for this.
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let count = file.read(&mut piece).with_context(unread)?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
    }
    Ok(split::hex(&hash.finalize()))
}

/// The network's input of a picture.
///
/// # Errors
/// When the file cannot be read.
pub fn input(data: &Path, row: &Row) -> anyhow::Result<NetworkInput> {
    let frame = Frame::read(&data.join(&row.path))?;
    Ok(Preparation::default().prepare(&frame, None)?.input)
}

/// Runs `extract`.
///
/// # Errors
/// When pictures, weights or cache cannot be read or written, or the cache there was made from something else.
pub fn extract(args: &ExtractArgs) -> anyhow::Result<()> {
    if args.precision == Precision::Mixed && !product::choose(Precision::Mixed) {
        eprintln!("--precision mixed: this CPU has no bfloat16 tile units; going on in f32");
    }
    if args.variants == 0 {
        bail!("--variants 0: write 1 for the pictures alone, 2 with mirror images");
    }
    let rows = split::read(&args.split)?;
    let header = Header {
        cut: args.cut.name().into(),
        shape: args.cut.shape(),
        // With nothing frozen, variants are made while training.
        variants: if args.cut.frozen().is_empty() { 1 } else { args.variants },
        vary: args.vary,
        seed: args.seed,
        weights_sha256: file_sha256(&args.weights)?,
        split_sha256: file_sha256(&args.split)?,
        preparation: Preparation::default(),
    };
    std::fs::create_dir_all(&args.cache)
        .with_context(|| format!("{}: cannot be made", args.cache.display()))?;
    let note = args.cache.join("cache.toml");
    if !note.exists() {
        // Whole or not there: shards may start at the same time.
        let part = args.cache.join(format!("cache.{}.part", std::process::id()));
        std::fs::write(&part, toml::to_string(&header)?)
            .and_then(|()| std::fs::rename(&part, &note))
            .with_context(|| format!("{}: cannot be written", note.display()))?;
    }
    match std::fs::read_to_string(&note) {
        Ok(text) if toml::from_str::<Header>(&text).ok() != Some(header.clone()) => bail!(
            "{}: made from another split, weights, cut or settings; name another --cache or remove it",
            args.cache.display()
        ),
        Ok(_) => {}
        Err(error) => return Err(error).with_context(|| format!("{}: cannot be read", note.display())),
    }
    let weights = backbone::read(&args.weights, &inception_v3(3))?;
    if backbone::averages_differ(&weights, &args.cut.frozen()) {
        bail!(
            "{}: trained with averages that count padding, as PyTorch's do, and the network's leave it out; freeze no block \
             with averages, so that training adapts them: --cut Stem or --cut Input",
            args.weights.display()
        );
    }
    let device = Device::flex();
    let (section, params, _) =
        Section::load(&args.cut.frozen(), &weights, HeadKind::Gap, 0, Layout::Nhwc, &device)?;
    let all = records(rows, header.variants);
    let (all, name) = match args.shard {
        None => (&all[..], "features.f16".into()),
        Some(shard) => (&all[shard.records(all.len())], shard.file()),
    };
    let size = header.size();
    let path = args.cache.join(name);
    let mut file =
        File::options().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
    let done = (file.metadata()?.len() / size).min(all.len() as u64);
    file.set_len(done * size)?;
    file.seek(SeekFrom::End(0))?;
    let bar = crate::bar(all.len(), "extracting");
    bar.set_position(done);
    bar.reset_eta();
    let stop = crate::interrupt()?;
    for chunk in all[done as usize..].chunks(16) {
        let inputs: Vec<NetworkInput> =
            chunk.par_iter().map(|r| variant(args, r)).collect::<anyhow::Result<_>>()?;
        let values = if args.cut.frozen().is_empty() {
            inputs.iter().flat_map(|i| i.0.iter().map(|&b| f32::from(b) / 255.0)).collect()
        } else {
            let x = section.batch(colour(&inputs), [chunk.len(), SIDE, SIDE, 3]);
            section
                .forward(&params, x)
                .into_data()
                .try_to_vec::<f32>()
                .map_err(|e| anyhow::anyhow!("{e:?}"))?
        };
        let bytes: Vec<u8> = values.par_iter().flat_map_iter(|&v| f16::from_f32(v).to_le_bytes()).collect();
        file.write_all(&bytes).with_context(|| {
            format!("{}: cannot be written; free space and start again, it goes on", path.display())
        })?;
        bar.inc(chunk.len() as u64);
        if stop() {
            bar.abandon();
            bail!("stopped; the same command goes on after {} of {} records", bar.position(), all.len());
        }
    }
    bar.finish();
    println!("{}: {} records after {}, {:?} each", args.cache.display(), all.len(), header.cut, header.shape);
    Ok(())
}

/// The network's input of a record.
fn variant(args: &ExtractArgs, record: &Record) -> anyhow::Result<NetworkInput> {
    let (row, seed) = (&record.row, seed(args.seed, &record.row));
    // The first two are the picture and its mirror image.
    if args.vary == Vary::Source && record.variant > 1 {
        let frame = Frame::read(&args.data.join(&row.path))?;
        let stream = record.variant as u64;
        return Ok(Strength::default().input(&Preparation::default(), &frame, seed, stream)?);
    }
    Ok(augment::variant(&input(&args.data, row)?, record.variant, seed))
}

fn seed(seed: u64, row: &Row) -> u64 {
    let digest = Sha256::digest(row.sha256.as_bytes());
    digest[..8].iter().fold(seed, |s, &b| s.rotate_left(8) ^ u64::from(b))
}

/// Bytes to `[count, row, column, 3]` in 0 to 1, three equal channels.
pub fn colour(inputs: &[NetworkInput]) -> Vec<f32> {
    inputs.iter().flat_map(|i| i.0.iter().flat_map(|&b| [f32::from(b) / 255.0; 3])).collect()
}

/// What a cache was made from, and its number of records.
///
/// # Errors
/// When its note cannot be read, or is of another split.
pub(crate) fn plan(folder: &Path, split_file: &Path) -> anyhow::Result<(Header, usize)> {
    let header = header(folder, split_file)?;
    let count = records(split::read(split_file)?, header.variants).len();
    Ok((header, count))
}

/// The note of a cache that was made from this split.
fn header(folder: &Path, split_file: &Path) -> anyhow::Result<Header> {
    let note = folder.join("cache.toml");
    let text = std::fs::read_to_string(&note).with_context(|| {
        format!("{}: cannot be read; make the cache with `fovea-train extract`", note.display())
    })?;
    let header: Header = toml::from_str(&text).with_context(|| note.display().to_string())?;
    if header.split_sha256 != file_sha256(split_file)? {
        bail!(
            "{}: made from another split than {}; run `fovea-train extract` again",
            folder.display(),
            split_file.display()
        );
    }
    Ok(header)
}

impl Cache {
    /// Opens a complete cache that was made from this split.
    ///
    /// # Errors
    /// When it is not complete, or of another split.
    pub fn open(folder: &Path, split_file: &Path) -> anyhow::Result<Self> {
        let header = header(folder, split_file)?;
        if header.preparation != Preparation::default() {
            bail!(
                "{}: its pictures were prepared otherwise than this build does; run `fovea-train extract` again",
                folder.display()
            );
        }
        let path = folder.join("features.f16");
        let file = File::open(&path).with_context(|| {
            format!("{}: cannot be read; shards need `fovea-train merge`", path.display())
        })?;
        let records = records(split::read(split_file)?, header.variants);
        if file.metadata()?.len() != header.size() * records.len() as u64 {
            bail!("{}: not complete; run `fovea-train extract` again, it goes on", folder.display());
        }
        Ok(Self {
            file,
            shape: header.shape,
            cut: header.cut,
            weights_sha256: header.weights_sha256,
            records,
        })
    }

    /// The features of a record.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, place: u64) -> std::io::Result<Vec<f32>> {
        let size = self.shape.iter().product::<usize>() * 2;
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, place * size as u64)?;
        Ok(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_share_their_picture() {
        let row = |split| Row {
            path: "CNV/CNV-1-1.jpeg".into(),
            class: fovea::Class::Cnv,
            patient: "1".into(),
            split,
            width: 512,
            height: 496,
            origin: String::new(),
            sha256: String::new(),
        };
        let all = records(vec![row(Split::Train), row(Split::Test)], 3);
        assert_eq!(
            all.iter().map(|r| (r.variant, r.place)).collect::<Vec<_>>(),
            [(0, 0), (1, 1), (2, 2), (0, 3)]
        );
        assert_eq!(Arc::strong_count(&all[0].row), 3);
        assert!(Arc::ptr_eq(&all[0].row, &all[2].row) && !Arc::ptr_eq(&all[0].row, &all[3].row));
    }
}
