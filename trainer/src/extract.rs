//! `extract`: the frozen part of the network, computed once for all pictures.

use crate::augment::{self, source::Strength};
use crate::backbone;
use crate::cache::{Header, Record, Vary, file_sha256, input, records};
use crate::frozen::{Arena, Frozen};
use crate::network::inception_v3;
use crate::section::Cut;
use crate::shards::Shard;
use crate::split::{self, Row};
use anyhow::{Context, bail};
use fovea::Frame;
use fovea::prepare::{NetworkInput, Preparation};
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// Compute only this part of the records, NUMBER/COUNT with the number from 0; `merge` puts the parts together
    #[arg(long)]
    pub shard: Option<Shard>,
    /// Folder of the cache
    #[arg(long, default_value = "cache")]
    pub cache: PathBuf,
}

/// Runs `extract`.
///
/// # Errors
/// When pictures, weights or cache cannot be read or written, or the cache there was made from something else.
pub fn extract(args: &ExtractArgs) -> anyhow::Result<()> {
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
    let blocks = args.cut.frozen();
    let frozen = if blocks.is_empty() { None } else { Some(Frozen::load(&blocks, &weights)?) };
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
    // Each thread makes whole records, from file to bytes; they are written in order.
    let arenas = Mutex::new(Vec::<Arena>::new());
    let record = |record: &Record| -> anyhow::Result<Vec<u8>> {
        let input = variant(args, record)?;
        let mut features = vec![0.0; header.shape.iter().product()];
        match &frozen {
            None => features.iter_mut().zip(input.0.iter()).for_each(|(v, b)| *v = f32::from(*b) / 255.0),
            Some(frozen) => {
                let mut arena = lock(&arenas).pop().unwrap_or_default();
                frozen.run(&input, &mut arena, &mut features);
                lock(&arenas).push(arena);
            }
        }
        let mut bytes = vec![0; features.len() * 2];
        for (bytes, values) in bytes.chunks_mut(512).zip(features.chunks(256)) {
            let mut halves = [f16::ZERO; 256];
            halves[..values.len()].convert_from_f32_slice(values);
            bytes
                .chunks_exact_mut(2)
                .zip(halves)
                .for_each(|(to, half)| to.copy_from_slice(&half.to_le_bytes()));
        }
        Ok(bytes)
    };
    for chunk in all[done as usize..].chunks(16 * rayon::current_num_threads()) {
        let made: Vec<Vec<u8>> =
            chunk.par_iter().with_max_len(1).map(record).collect::<anyhow::Result<_>>()?;
        for bytes in made {
            file.write_all(&bytes).with_context(|| {
                format!("{}: cannot be written; free space and start again, it goes on", path.display())
            })?;
        }
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

/// The arenas; a thread that panicked left none half put back.
fn lock(arenas: &Mutex<Vec<Arena>>) -> MutexGuard<'_, Vec<Arena>> {
    arenas.lock().unwrap_or_else(PoisonError::into_inner)
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
