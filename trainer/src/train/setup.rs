//! From arguments to a trainer that can start.

use super::Trainer;
use super::args::{ClassWeights, Rule, TrainArgs};
use super::state::Progress;
use crate::backbone;
use crate::cache::{self, Cache};
use crate::checkpoint::Weights;
use crate::dashboard::Dashboard;
use crate::device::DeviceKind;
use crate::nn::adam::Adam;
use crate::section::{Cut, Section};
use crate::split::Split;
use anyhow::{Context, bail};
use fovea::prepare::Preparation;
use std::path::Path;

impl<'a> Trainer<'a> {
    pub(super) fn new(args: &'a TrainArgs) -> anyhow::Result<Self> {
        if args.batch == 0 || args.passes == 0 || args.epochs == 0 {
            bail!("--batch, --passes and --epochs must be at least 1");
        }
        if !(0.0..=1.0).contains(&args.mixup) {
            bail!("--mixup {}: write a number from 0 (none) to 1", args.mixup);
        }
        let mut caches = vec![Cache::open(&args.cache, &args.split)?];
        for pair in &args.also {
            let (index, folder) =
                pair.split_once(':').with_context(|| format!("'{pair}': write SPLIT.csv:CACHE"))?;
            let cache = Cache::open(Path::new(folder), Path::new(index))?;
            if (&cache.cut, &cache.weights_sha256) != (&caches[0].cut, &caches[0].weights_sha256) {
                bail!("{folder}: made with another cut or other weights than {}", args.cache.display());
            }
            caches.push(cache);
        }
        if args.data.is_some() && (caches[0].cut != "Input" || caches.len() > 1) {
            bail!(
                "--data changes source pictures, and the cache holds what frozen blocks made of them: extract one with --cut Input \
                 (and without --also), or leave --data out"
            );
        }
        if !(0.0..1.0).contains(&args.weight_decay) {
            bail!("--weight-decay {}: write a number from 0 to 1", args.weight_decay);
        }
        if cache::file_sha256(&args.weights)? != caches[0].weights_sha256 {
            bail!(
                "{}: the cache was made with other weights; extract again or name those",
                args.weights.display()
            );
        }
        if !args.precision.choose() {
            println!("this CPU has no bfloat16 tile units: products are computed in f32");
        }
        let cut: Cut = caches[0].cut.parse()?;
        let weights = match &args.from {
            Some(checkpoint) => Weights::read(checkpoint)?,
            None => backbone::read(&args.weights, &cut.trained())?,
        };
        if let Some(from) = &args.from {
            let note = |name: &str| weights.notes.get(name).map_or("", String::as_str);
            let wanted = [
                ("cut", caches[0].cut.as_str()),
                ("weights_sha256", &caches[0].weights_sha256),
                ("head", args.head.name()),
            ];
            if let Some((name, wanted)) = wanted.into_iter().find(|(name, wanted)| note(name) != *wanted) {
                bail!(
                    "{}: its {name} is '{}', the cache and the arguments want '{wanted}'; name a checkpoint that was \
                     trained on this cache",
                    from.display(),
                    note(name)
                );
            }
        }
        let (device, layout) = args.device.open()?;
        let (section, params, norm) =
            Section::load(&cut.trained(), &weights, args.head, args.seed, layout, &device)?;
        let cpu = args.device == DeviceKind::Cpu;
        let optimizer = match args.rule {
            Rule::Adam => Adam::optimizer(1e-7, 0.0, cpu),
            Rule::Adamw => Adam::optimizer(1e-8, args.weight_decay, cpu),
        };
        let (mut train, mut validation) = (Vec::new(), Vec::new());
        for (number, cache) in caches.iter().enumerate() {
            for record in &cache.records {
                match record.row.split {
                    Split::Train if record.variant == 0 => train.push(vec![(number, record.clone())]),
                    Split::Train => {
                        train.last_mut().into_iter().for_each(|v| v.push((number, record.clone())))
                    }
                    Split::Validation if number == 0 => validation.push((number, record.clone())),
                    _ => {}
                }
            }
        }
        if validation.is_empty() {
            bail!("{}: no validation pictures; make the split with --validation 0.1", args.split.display());
        }
        let mut counts = [0.0f32; 4];
        train.iter().for_each(|v| counts[v[0].1.row.class.index()] += 1.0);
        let class_weights = counts.map(|count| {
            let inverse = train.len() as f32 / 4.0 / count.max(1.0);
            match args.class_weights {
                ClassWeights::None => 1.0,
                ClassWeights::Sqrt => inverse.sqrt(),
                ClassWeights::Full => inverse,
            }
        });
        let mut trainer = Self {
            args,
            caches,
            section,
            device,
            preparation: Preparation::default(),
            params,
            norm,
            scales: None,
            average: None,
            optimizer,
            weights,
            class_weights,
            progress: Progress { arguments: trainer_arguments(), rate: args.rate, ..Progress::default() },
            train,
            validation,
            dashboard: Dashboard::open(args.out.display().to_string(), args.device, args.plain),
        };
        std::fs::create_dir_all(&args.out)
            .with_context(|| format!("{}: cannot be made", args.out.display()))?;
        if args.resume {
            trainer.resume()?;
        } else if args.out.join("state.toml").exists() {
            bail!("{}: holds a run already; add --resume or name another --out", args.out.display());
        }
        Ok(trainer)
    }
}

/// The command line without the folders before file names, for the model card.
fn trainer_arguments() -> String {
    let short = |text: String| match text.rsplit_once('/') {
        Some((_, name)) if !text.starts_with("--") => name.to_string(),
        _ => text,
    };
    format!("fovea-train {}", std::env::args().skip(1).map(short).collect::<Vec<_>>().join(" "))
}
