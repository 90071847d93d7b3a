//! `train`: what lies behind the cut, and a head, on cached features.

use crate::cache::{self, Cache, Record};
use crate::checkpoint::Weights;
use crate::curves::{self, Epoch};
use crate::device::DeviceKind;
use crate::export::graph::{INPUT_SCALE, Scales};
use crate::mixup::Mix;
use crate::nn::adam::Adam;
use crate::nn::product::{self, Precision};
use crate::quantise_aware::{Rounded, Watch};
use crate::score::{Confusion, best};
use crate::section::{Cut, HeadKind, Norm, Params, Section};
use crate::split::Split;
use crate::{augment, split};
use anyhow::{Context, bail};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData, activation::log_softmax};
use fovea::Class;
use fovea::prepare::{NetworkInput, SIDE};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How the learning rate moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Schedule {
    /// Halved when validation loss has not fallen for two epochs.
    Plateau,
    /// Up over the first three tenths, then down to nothing along a cosine (Smith and Topin, 2018).
    OneCycle,
}

/// The rule that moves the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rule {
    /// Adam (Kingma and Ba, 2015).
    Adam,
    /// Adam with decoupled weight decay 0.01 (Loshchilov and Hutter, 2019).
    Adamw,
}

/// How much rare classes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ClassWeights {
    /// All pictures alike.
    None,
    /// By the square root of the inverse frequency.
    Sqrt,
    /// By the inverse frequency.
    Full,
}

/// Train what is behind the cut, and a head.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fovea-train train --split split.csv --cache cache --weights inception_v3.safetensors --out run\n  \
    fovea-train train --cache cache --weights inception_v3.safetensors --out run --rule adamw --schedule one-cycle --rate 3e-4 --ema 0.99\n\n\
    OUT gets model.EPOCH-ACCURACY.safetensors (the best), history.csv, curves.svg and the state for --resume.\n\
    Ctrl-C stops after the batch; the best checkpoint stays."
)]
pub struct TrainArgs {
    /// Index made by `prepare`
    #[arg(long, default_value = "split.csv")]
    pub split: PathBuf,
    /// Cache made by `extract`
    #[arg(long, default_value = "cache")]
    pub cache: PathBuf,
    /// More training pictures: SPLIT.csv:CACHE; their train part alone is used
    #[arg(long, value_name = "SPLIT:CACHE")]
    pub also: Vec<String>,
    /// The weights that the cache was made with
    #[arg(long)]
    pub weights: PathBuf,
    /// Start from this checkpoint of `train` (same cut, weights and head) instead of the weights' blocks and a new head
    #[arg(long, value_name = "CHECKPOINT")]
    pub from: Option<PathBuf>,
    /// Round weights and activations in the forward pass as the int8 model will (Jacob et al., 2018), and validate so;
    /// two or three epochs with --from and a tenth of the rate are usual
    #[arg(long)]
    pub quantise_aware: bool,
    /// The head
    #[arg(long, value_enum, default_value_t = HeadKind::Gap)]
    pub head: HeadKind,
    /// Epochs
    #[arg(long, default_value_t = 12)]
    pub epochs: usize,
    /// Pictures a step
    #[arg(long, default_value_t = 16)]
    pub batch: usize,
    /// Variants of each picture that an epoch shows
    #[arg(long, default_value_t = 2)]
    pub passes: usize,
    /// Rule
    #[arg(long, value_enum, default_value_t = Rule::Adam)]
    pub rule: Rule,
    /// Learning rate's course
    #[arg(long, value_enum, default_value_t = Schedule::Plateau)]
    pub schedule: Schedule,
    /// Learning rate (its highest for one-cycle)
    #[arg(long, default_value_t = 1e-3)]
    pub rate: f64,
    /// Weights of the classes in the loss
    #[arg(long, value_enum, default_value_t = ClassWeights::Sqrt)]
    pub class_weights: ClassWeights,
    /// Share of each label spread over all classes
    #[arg(long, default_value_t = 0.1)]
    pub label_smoothing: f32,
    /// Decay of the moving average of the weights, which is validated and kept; 0 for none
    #[arg(long, default_value_t = 0.0)]
    pub ema: f32,
    /// Dropout before the last layer (default: 0.5 for conv, 0 for gap)
    #[arg(long)]
    pub dropout: Option<f32>,
    /// Mixup: each picture's features and label are blended with another's, by a share from Beta(ALPHA, ALPHA) (Zhang et
    /// al., 2018; at a hidden layer as Verma et al., 2019); 0 for none, at most 1
    #[arg(long, value_name = "ALPHA", default_value_t = 0.0)]
    pub mixup: f64,
    /// Seed of the head, the order and the variants
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where it is computed
    #[arg(long, value_enum, default_value_t = DeviceKind::Cpu)]
    pub device: DeviceKind,
    /// The CPU's precision in products: mixed is several times faster where the CPU has bfloat16 tile units (Intel AMX)
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Folder of the results
    #[arg(long, default_value = "run")]
    pub out: PathBuf,
    /// Go on after the last whole epoch in OUT
    #[arg(long)]
    pub resume: bool,
}

/// What `--resume` needs besides the tensors.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    arguments: String,
    history: Vec<Epoch>,
    best: Option<(f64, f64, PathBuf)>,
    rate: f64,
    stale: usize,
    step: usize,
}

struct Trainer<'a> {
    args: &'a TrainArgs,
    caches: Vec<Cache>,
    section: Section,
    device: Device,
    params: Params,
    norm: Norm,
    /// Scales of the activations, where the forward pass rounds; found anew before each epoch.
    scales: Option<Scales>,
    average: Option<Vec<Vec<f32>>>,
    optimizer: ModuleOptimizer,
    weights: Weights,
    class_weights: [f32; 4],
    progress: Progress,
    train: Vec<Vec<(usize, Record)>>,
    validation: Vec<(usize, Record)>,
}

/// Runs `train`.
///
/// # Errors
/// When caches, weights or results cannot be read or written.
pub fn train(args: &TrainArgs) -> anyhow::Result<()> {
    let mut trainer = Trainer::new(args)?;
    trainer.run()
}

/// Rate at a step of `total`, one cycle up to `top`.
fn one_cycle(top: f64, step: usize, total: usize) -> f64 {
    let t = step as f64 / total.max(1) as f64;
    let cosine = |from: f64, to: f64, share: f64| {
        to + (from - to) * (1.0 + (std::f64::consts::PI * share).cos()) / 2.0
    };
    if t < 0.3 { cosine(top / 25.0, top, t / 0.3) } else { cosine(top, top / 2.5e5, (t - 0.3) / 0.7) }
}

impl<'a> Trainer<'a> {
    fn new(args: &'a TrainArgs) -> anyhow::Result<Self> {
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
        if cache::file_sha256(&args.weights)? != caches[0].weights_sha256 {
            bail!(
                "{}: the cache was made with other weights; extract again or name those",
                args.weights.display()
            );
        }
        if args.precision == Precision::Mixed && !product::choose(Precision::Mixed) {
            println!("this CPU has no bfloat16 tile units: products are computed in f32");
        }
        let weights = Weights::read(args.from.as_ref().unwrap_or(&args.weights))?;
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
        let cut: Cut = caches[0].cut.parse()?;
        let (section, params, norm) =
            Section::load(&cut.trained(), &weights, args.head, args.seed, layout, &device)?;
        let cpu = args.device == DeviceKind::Cpu;
        let optimizer = match args.rule {
            Rule::Adam => Adam::optimizer(1e-7, 0.0, cpu),
            Rule::Adamw => Adam::optimizer(1e-8, 0.01, cpu),
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

    fn run(&mut self) -> anyhow::Result<()> {
        let stop = crate::interrupt()?;
        println!(
            "{} training pictures, {} for validation, cut after {}, class weights {:.2?}",
            self.train.len(),
            self.validation.len(),
            self.caches[0].cut,
            self.class_weights
        );
        for epoch in self.progress.history.len() + 1..=self.args.epochs {
            let Some((loss, accuracy)) = self.epoch(epoch, &stop)? else {
                println!("stopped; --resume goes on after epoch {}", epoch - 1);
                return self.tell();
            };
            let kept = self.average.clone().unwrap_or_else(|| self.section.snapshot(&self.params));
            let (validation_loss, confusion) = self.validate(&kept)?;
            let figures = Epoch {
                epoch,
                rate: self.progress.rate,
                loss,
                accuracy,
                validation_loss,
                validation_accuracy: confusion.accuracy(),
            };
            println!(
                "epoch {epoch:>2}: loss {loss:.4}, accuracy {:.2} %; validation loss {validation_loss:.4}, accuracy {:.2} %",
                100.0 * accuracy,
                100.0 * figures.validation_accuracy
            );
            self.keep(&figures, &kept)?;
            self.progress.history.push(figures);
            self.plateau();
            curves::write(&self.progress.history, &self.args.out)?;
            self.save()?;
        }
        self.tell()
    }

    fn tell(&self) -> anyhow::Result<()> {
        match &self.progress.best {
            Some((accuracy, _, path)) => {
                println!("best: {} ({:.2} % of validation)", path.display(), 100.0 * accuracy);
                Ok(())
            }
            None => bail!("no epoch was finished, so there is no checkpoint"),
        }
    }

    /// Features and labels of a batch. With nothing frozen, each picture is changed at random (`seed`). `mix` blends each
    /// with its partner.
    fn batch(
        &self,
        items: &[&(usize, Record)],
        seed: Option<u64>,
        mix: Option<&Mix>,
    ) -> anyhow::Result<(Tensor<4>, Vec<Class>)> {
        let [h, w, c] = self.caches[0].shape;
        let parts: Vec<Vec<f32>> = items
            .par_iter()
            .map(|(cache, record)| {
                let values = self.caches[*cache].read(record.place)?;
                if c > 1 {
                    return Ok(values);
                }
                let mut bytes = Box::new([0u8; SIDE * SIDE]);
                bytes.iter_mut().zip(&values).for_each(|(b, v)| *b = (v * 255.0).round() as u8);
                let mut input = NetworkInput(bytes);
                if let Some(seed) = seed {
                    input = augment::random(&input, &mut StdRng::seed_from_u64(seed ^ record.place));
                }
                Ok(cache::colour(&[input]))
            })
            .collect::<std::io::Result<_>>()?;
        let parts = match mix {
            None => parts.concat(),
            Some(mix) => mix.blend(&parts),
        };
        let shape = [items.len(), h, w, if c > 1 { c } else { 3 }];
        let labels = items.iter().map(|(_, record)| record.row.class).collect();
        Ok((self.section.batch(parts, shape), labels))
    }

    /// What comes out behind the cut; rounded where the run is quantisation-aware.
    fn features(&self, params: &Params, x: Tensor<4>) -> Tensor<4> {
        match &self.scales {
            None => self.section.forward(params, x),
            Some(scales) => self.section.forward_with(params, x, self.entry(), &mut Rounded(scales)),
        }
    }

    /// The name of the activation that enters, as scales have it.
    fn entry(&self) -> &str {
        let cut = &self.caches[0].cut;
        if cut == "Input" { "image" } else { cut }
    }

    /// Reads the activations' scales from the first batches of an epoch, with the weights as they are.
    fn calibrate(&mut self, order: &[(usize, Record)]) -> anyhow::Result<()> {
        const BATCHES: usize = 8;
        let mut watch = Watch::default();
        for chunk in order.chunks(self.args.batch).take(BATCHES) {
            let (x, _) = self.batch(&chunk.iter().collect::<Vec<_>>(), None, None)?;
            self.section.forward_with(&self.params, x, self.entry(), &mut watch);
        }
        let mut scales = watch.scales()?;
        if self.entry() == "image" {
            scales.insert("image".into(), INPUT_SCALE);
        }
        self.scales = Some(scales);
        Ok(())
    }

    /// Smoothed labels times class weights, and the sum of the weights.
    fn targets(&self, labels: &[Class], smoothing: f32, mix: Option<&Mix>) -> (Tensor<2>, f32) {
        let mut values = Vec::with_capacity(labels.len());
        for label in labels {
            let weight = self.class_weights[label.index()];
            values.push(
                (0..4)
                    .map(|k| {
                        let hard = if k == label.index() { 1.0 } else { 0.0 };
                        weight * (hard * (1.0 - smoothing) + smoothing / 4.0)
                    })
                    .collect::<Vec<f32>>(),
            );
        }
        // A blend of targets weighs as the blend of the weights: over the batch the sum stays the same.
        let values = match mix {
            None => values.concat(),
            Some(mix) => mix.blend(&values),
        };
        let sum = labels.iter().map(|l| self.class_weights[l.index()]).sum();
        (Tensor::from_data(TensorData::new(values, [labels.len(), 4]), &self.device), sum)
    }

    fn epoch(&mut self, epoch: usize, stop: &impl Fn() -> bool) -> anyhow::Result<Option<(f64, f64)>> {
        let mut random = StdRng::seed_from_u64(self.args.seed.wrapping_mul(1_000_003) ^ epoch as u64);
        let mut order: Vec<(usize, Record)> = Vec::new();
        for variants in &self.train {
            let mut picks: Vec<usize> = (0..variants.len()).collect();
            picks.shuffle(&mut random);
            order.extend((0..self.args.passes).map(|pass| variants[picks[pass % picks.len()]].clone()));
        }
        order.shuffle(&mut random);
        if self.args.quantise_aware {
            self.calibrate(&order)?;
        }
        let steps = order.len().div_ceil(self.args.batch);
        let (mut sum, mut count, mut right) = (0.0, 0.0, 0);
        let bar = crate::bar(order.len(), &format!("epoch {epoch}"));
        for chunk in order.chunks(self.args.batch) {
            if stop() {
                bar.abandon();
                return Ok(None);
            }
            if self.args.schedule == Schedule::OneCycle {
                self.progress.rate = one_cycle(self.args.rate, self.progress.step, steps * self.args.epochs);
            }
            let items: Vec<&(usize, Record)> = chunk.iter().collect();
            let mix = Mix::draw(self.args.mixup, items.len(), &mut random);
            let (x, labels) = self.batch(&items, Some(random.random()), mix.as_ref())?;
            let features = self.features(&self.params, x);
            let factors = self.dropout(labels.len(), &mut random);
            let logits = self.section.logits(&self.params, &mut self.norm, features, factors);
            let (targets, weight) = self.targets(&labels, self.args.label_smoothing, mix.as_ref());
            let loss = (log_softmax(logits.clone(), 1) * targets).sum().neg().div_scalar(weight);
            let value = f64::from(loss.clone().into_scalar::<f32>());
            if !value.is_finite() {
                bail!("the loss is {value} in epoch {epoch}: lower --rate");
            }
            let gradients = GradientsParams::from_grads(loss.backward(), &self.params);
            self.params = self.optimizer.step(self.progress.rate, self.params.clone(), gradients);
            self.progress.step += 1;
            self.follow();
            sum += value * f64::from(weight);
            count += f64::from(weight);
            right += answers(logits).iter().zip(&labels).filter(|(a, l)| best(**a) == **l).count();
            bar.inc(labels.len() as u64);
            bar.set_message(format!("loss {:.3}", sum / count));
        }
        bar.finish_and_clear();
        Ok(Some((sum / count, right as f64 / order.len() as f64)))
    }

    fn dropout(&self, count: usize, random: &mut StdRng) -> Option<Tensor<2>> {
        let rate = self.args.dropout.unwrap_or(if self.args.head == HeadKind::Conv { 0.5 } else { 0.0 });
        let width = if self.args.head == HeadKind::Conv { 64 * 64 } else { 64 };
        if self.args.head == HeadKind::Gap && rate == 0.0 {
            return None;
        }
        let factors: Vec<f32> = (0..count * width)
            .map(|_| if random.random::<f32>() < rate { 0.0 } else { 1.0 / (1.0 - rate) })
            .collect();
        Some(Tensor::from_data(TensorData::new(factors, [count, width]), &self.device))
    }

    /// Moves the average of the weights; every fourth step is enough, with the decay of four.
    fn follow(&mut self) {
        const EVERY: usize = 4;
        if self.args.ema <= 0.0 || !self.progress.step.is_multiple_of(EVERY) {
            return;
        }
        let now = self.section.snapshot(&self.params);
        match &mut self.average {
            // Young averages follow faster, so that the start is soon forgotten.
            Some(average) => {
                let age = self.progress.step as f32 / EVERY as f32;
                let decay = self.args.ema.powi(EVERY as i32).min((1.0 + age) / (10.0 + age));
                average.par_iter_mut().zip(now).for_each(|(a, b)| {
                    a.iter_mut().zip(b).for_each(|(a, b)| *a += (1.0 - decay) * (b - *a));
                });
            }
            None => self.average = Some(now),
        }
    }

    fn validate(&mut self, lists: &[Vec<f32>]) -> anyhow::Result<(f64, Confusion)> {
        let params = self.section.restore(&self.params, lists);
        let (mut loss, mut weights) = (0.0, 0.0);
        let mut confusion = Confusion::default();
        let mut norm = self.norm.clone();
        for chunk in self.validation.chunks(self.args.batch) {
            let items: Vec<&(usize, Record)> = chunk.iter().collect();
            let (x, labels) = self.batch(&items, None, None)?;
            let features = self.features(&params, x);
            let logits = self.section.logits(&params, &mut norm, features, None);
            let (targets, weight) = self.targets(&labels, 0.0, None);
            loss += f64::from((log_softmax(logits.clone(), 1) * targets).sum().neg().into_scalar::<f32>());
            weights += f64::from(weight);
            answers(logits)
                .into_iter()
                .zip(labels)
                .for_each(|(answer, label)| confusion.add(label, best(answer)));
        }
        Ok((loss / weights, confusion))
    }

    /// Keeps the checkpoint where it is the best: the highest accuracy, then the lowest loss.
    fn keep(&mut self, figures: &Epoch, lists: &[Vec<f32>]) -> anyhow::Result<()> {
        let better = self.progress.best.as_ref().is_none_or(|(accuracy, loss, _)| {
            figures.validation_accuracy > *accuracy
                || figures.validation_accuracy == *accuracy && figures.validation_loss < *loss
        });
        if !better {
            return Ok(());
        }
        let name = format!("model.{:02}-{:.2}.safetensors", figures.epoch, figures.validation_accuracy);
        let path = self.args.out.join(name);
        let mut weights = self.weights.clone();
        self.section.store(lists, &self.norm, &mut weights);
        for (name, value) in [
            ("cut", self.caches[0].cut.clone()),
            ("command", self.progress.arguments.clone()),
            ("epoch", figures.epoch.to_string()),
            ("validation_accuracy", format!("{:.4}", figures.validation_accuracy)),
            ("split_sha256", cache::file_sha256(&self.args.split)?),
            ("weights_sha256", self.caches[0].weights_sha256.clone()),
        ] {
            weights.notes.insert(name.into(), value);
        }
        weights.write(&path)?;
        if let Some((_, _, old)) = self.progress.best.take().filter(|(_, _, old)| *old != path) {
            // A checkpoint that cannot be removed only takes room.
            let _ = std::fs::remove_file(old);
        }
        self.progress.best = Some((figures.validation_accuracy, figures.validation_loss, path));
        Ok(())
    }

    fn plateau(&mut self) {
        if self.args.schedule != Schedule::Plateau {
            return;
        }
        let losses: Vec<f64> = self.progress.history.iter().map(|e| e.validation_loss).collect();
        let (last, earlier) = losses.split_last().map_or((0.0, &[][..]), |(l, e)| (*l, e));
        let fell = earlier.iter().all(|&loss| last < loss - 1e-4);
        self.progress.stale = if fell { 0 } else { self.progress.stale + 1 };
        if self.progress.stale >= 2 {
            self.progress.rate /= 2.0;
            self.progress.stale = 0;
            println!("validation loss has not fallen for two epochs: rate {:.1e}", self.progress.rate);
        }
    }

    fn save(&self) -> anyhow::Result<()> {
        let mut tensors = Weights::default();
        let mut put = |prefix: &str, lists: &[&[f32]]| {
            for (i, list) in lists.iter().enumerate() {
                tensors.set(format!("{prefix}{i}"), &[list.len()], list.to_vec());
            }
        };
        let now = self.section.snapshot(&self.params);
        put("params", &now.iter().map(Vec::as_slice).collect::<Vec<_>>());
        put("norm", &self.norm.lists());
        if let Some(average) = &self.average {
            put("average", &average.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
        let out = &self.args.out;
        tensors.write(&out.join("state.safetensors"))?;
        self.optimizer
            .save(out.join("optimizer"))
            .map_err(|e| anyhow::anyhow!("{}: {e:?}", out.display()))?;
        let part = out.join("state.part");
        std::fs::write(&part, toml::to_string(&self.progress)?)?;
        std::fs::rename(part, out.join("state.toml"))?;
        Ok(())
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        let out = &self.args.out;
        let note = out.join("state.toml");
        let text = std::fs::read_to_string(&note)
            .with_context(|| format!("{}: nothing to resume; start without --resume", note.display()))?;
        let tensors = Weights::read(&out.join("state.safetensors"))?;
        let lists = |prefix: &str| -> Vec<Vec<f32>> {
            (0..)
                .map_while(|i| tensors.tensors.get(&format!("{prefix}{i}")).map(|w| w.values.clone()))
                .collect()
        };
        let params = lists("params");
        let now = self.section.snapshot(&self.params);
        if params.iter().map(Vec::len).ne(now.iter().map(Vec::len)) {
            bail!("{}: a run with another cut or head; name its --cache and --head", out.display());
        }
        self.params = self.section.restore(&self.params, &params);
        if let [mean, variance] = &lists("norm")[..] {
            self.norm = Norm::of(mean.clone(), variance.clone());
        }
        self.average = Some(lists("average")).filter(|a| !a.is_empty());
        self.optimizer = self.optimizer.clone().load(out.join("optimizer")).map_err(|e| {
            anyhow::anyhow!("{}: the optimizer's state cannot be read ({e:?})", out.display())
        })?;
        self.progress = toml::from_str(&text).with_context(|| note.display().to_string())?;
        println!("resuming after epoch {}", self.progress.history.len());
        Ok(())
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

fn answers(logits: Tensor<2>) -> Vec<[f32; 4]> {
    let values = logits.into_data().try_to_vec::<f32>().unwrap_or_default();
    values.chunks_exact(4).map(|v| [v[0], v[1], v[2], v[3]]).collect()
}

/// Answers of a checkpoint on all pictures of an index, in full precision.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  fovea-train evaluate --checkpoint run/model.09-0.97.safetensors --data OCT --split split.csv --out predictions.csv"
)]
pub struct EvaluateArgs {
    /// Checkpoint made by `train`
    #[arg(long)]
    pub checkpoint: PathBuf,
    /// Folder of the pictures
    #[arg(long)]
    pub data: PathBuf,
    /// Index made by `prepare`
    #[arg(long, default_value = "split.csv")]
    pub split: PathBuf,
    /// Where a line for each picture goes
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Where it is computed
    #[arg(long, value_enum, default_value_t = DeviceKind::Cpu)]
    pub device: DeviceKind,
}

/// Runs `evaluate`.
///
/// # Errors
/// When the checkpoint or a picture cannot be read.
pub fn evaluate(args: &EvaluateArgs) -> anyhow::Result<()> {
    let weights = Weights::read(&args.checkpoint)?;
    let head = match weights.notes.get("head").map(String::as_str) {
        Some("gap") => HeadKind::Gap,
        Some("conv") => HeadKind::Conv,
        _ => bail!(
            "{}: no head in it; give a checkpoint made by `fovea-train train`",
            args.checkpoint.display()
        ),
    };
    let rows = split::read(&args.split)?;
    let (device, layout) = args.device.open()?;
    let device = device.inner();
    let blocks = "Input".parse::<Cut>()?.trained();
    let (section, params, mut norm) = Section::load(&blocks, &weights, head, 0, layout, &device)?;
    let mut confusions = [Confusion::default(); 3];
    let mut lines = "path,split,class,answer,cnv,dme,drusen,normal\n".to_string();
    let bar = crate::bar(rows.len(), "evaluating");
    let stop = crate::interrupt()?;
    for chunk in rows.chunks(8) {
        if stop() {
            bail!("stopped");
        }
        let inputs: Vec<NetworkInput> =
            chunk.par_iter().map(|row| cache::input(&args.data, row)).collect::<anyhow::Result<_>>()?;
        let x = section.batch(cache::colour(&inputs), [chunk.len(), SIDE, SIDE, 3]);
        let features = section.forward(&params, x);
        for (row, logits) in chunk.iter().zip(answers(section.logits(&params, &mut norm, features, None))) {
            confusions[row.split as usize].add(row.class, best(logits));
            let [a, b, c, d] = logits;
            lines += &format!(
                "{},{},{},{},{a},{b},{c},{d}\n",
                row.path,
                row.split.name(),
                row.class,
                best(logits)
            );
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    for (part, c) in Split::ALL.iter().zip(&confusions).filter(|(_, c)| c.total() > 0) {
        println!(
            "{}: {} of {} right, {:.2} %\n{}",
            part.name(),
            c.right(),
            c.total(),
            100.0 * c.accuracy(),
            c.table()
        );
    }
    if let Some(path) = &args.out {
        std::fs::write(path, lines).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cycle_rises_and_falls() {
        let rates: Vec<f64> = (0..=100).map(|s| one_cycle(1.0, s, 100)).collect();
        assert!((rates[0] - 0.04).abs() < 1e-9 && (rates[30] - 1.0).abs() < 1e-9 && rates[100] < 1e-5);
        assert!(rates[..30].is_sorted() && rates[30..].iter().rev().is_sorted());
    }
}
