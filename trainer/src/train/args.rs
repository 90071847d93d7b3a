//! What `train` is told.

use crate::device::DeviceKind;
use crate::nn::Precision;
use crate::section::HeadKind;
use std::path::PathBuf;

/// How the learning rate moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Schedule {
    /// Halved when validation loss has not fallen for two epochs.
    Plateau,
    /// Up over the first three tenths, then down to nothing along a cosine (Smith and Topin, 2018).
    OneCycle,
    /// Down to nothing along half a cosine (Loshchilov and Hutter, 2017), after a twentieth of the steps to warm up.
    Cosine,
}

/// The rule that moves the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rule {
    /// Adam (Kingma and Ba, 2015).
    Adam,
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
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
    fovea-train train --cache cache --weights inception_v3.safetensors --out run --rule adamw --schedule one-cycle --rate 3e-4 --ema 0.99\n  \
    fovea-train extract --data OCT --weights inception_v3.h5 --cut Input --cache pictures\n  \
    fovea-train train --data OCT --cache pictures --weights inception_v3.h5 --out full --rule adamw --schedule cosine --rate 1e-4 --passes 1\n\n\
    OUT gets model.EPOCH-ACCURACY.safetensors (the best), history.csv, metrics.jsonl, curves.svg and .png, events for \
    `tensorboard --logdir OUT`, and the state for --resume.\n\
    Ctrl-C stops after the batch; --resume goes on from there."
)]
pub struct TrainArgs {
    /// Index made by `prepare`
    #[arg(long, default_value = "split.csv")]
    pub split: PathBuf,
    /// Cache made by `extract`
    #[arg(long, default_value = "cache")]
    pub cache: PathBuf,
    /// Folder of the pictures, for a cache with --cut Input: each time one is shown, its source is cut, scaled, turned, mirrored,
    /// shadowed, blurred, given speckle, another gamma and JPEG's losses at random, and then prepared
    #[arg(long)]
    pub data: Option<PathBuf>,
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
    /// Stop early: after so many epochs without a better checkpoint; 0 for never
    #[arg(long, default_value_t = 0)]
    pub patience: usize,
    /// Pictures a step
    #[arg(long, default_value_t = 16)]
    pub batch: usize,
    /// Variants of each picture that an epoch shows
    #[arg(long, default_value_t = 2)]
    pub passes: usize,
    /// Rule
    #[arg(long, value_enum, default_value_t = Rule::Adam)]
    pub rule: Rule,
    /// Share of the rate by which `adamw` shrinks the weights at each step
    #[arg(long, default_value_t = 0.01)]
    pub weight_decay: f32,
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
    /// Plain lines in a terminal too, instead of the dashboard
    #[arg(long)]
    pub plain: bool,
    /// Go on where the run in OUT stopped
    #[arg(long)]
    pub resume: bool,
}
