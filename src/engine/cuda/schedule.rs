//! The plan as the device runs it: launches of steps that do not wait for each other, each step cut into blocks.
//!
//! Everything here is arithmetic on the host and needs no device; `kernels/job.cuh` reads what it makes.

use super::CudaError;
use crate::engine::plan::{Convolution, Plan, Pool, PoolKind, Step, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Threads of every block that computes a step.
pub const THREADS: usize = 128;
/// Output pixels of a tile.
const TILE_M: usize = 64;
/// Bytes of the sum's direction that a block loads at once.
const SLICE: usize = 64;
/// Bytes of a vector load.
const CHUNK: usize = 16;
/// The fewest slices that are worth a block of their own.
const FEWEST: usize = 4;
/// The most blocks that share a tile.
const MOST: usize = 16;
/// A convolution of so many multiply-adds is long enough to keep a launch waiting, and has at least so many blocks.
const LONG: (u64, usize) = (5_000_000, 8);
/// The largest buffer; the kernels count bytes in 32 bits.
const LIMIT: usize = 1 << 30;

/// What the device wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// Blocks that a launch should have at least, for which small steps share their tiles among more blocks; and tiles.
    pub cut: CutAs,
    /// The kernels read activations as signed bytes, 128 lower (wmma): the bias makes up for it.
    pub signed: bool,
}

/// What a block must know of its step: the words of `Job` in `kernels/job.cuh`, in the same order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Job {
    /// 0 and 1: convolution in tiles of 64 and 32 outputs; 2: the same in 32, read byte by byte; 3: maximum; 4: mean.
    pub kind: i32,
    /// Blocks of the launch up to and with this job's.
    pub end: i32,
    from: i32,
    to: i32,
    size: [i32; 3],
    from_step: i32,
    out: [i32; 3],
    to_step: i32,
    kernel: [i32; 2],
    stride: [i32; 2],
    pad: [i32; 2],
    products: i32,
    weights: i32,
    scales: i32,
    tiles_n: i32,
    /// Blocks that share the sum of a tile.
    pub splits: i32,
    partial: i32,
    ticket: i32,
    wide_from: i32,
    wide_to: i32,
}

/// Words of a job.
pub const WORDS: usize = size_of::<Job>() / 4;

impl Job {
    /// As the kernels read it.
    pub fn words(&self) -> [i32; WORDS] {
        // SAFETY: a `repr(C)` structure of nothing but 32-bit numbers.
        unsafe { std::mem::transmute::<Self, [i32; WORDS]>(*self) }
    }
}

/// Jobs that run at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The first of its jobs in [`Schedule::jobs`].
    pub first: usize,
    /// How many there are.
    pub jobs: usize,
    /// Blocks of them all.
    pub blocks: usize,
    /// What they compute: the same words for the same shapes, which [`Cuts`] are found by.
    pub shape: String,
}

/// How a launch is cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutAs {
    /// Blocks that it should have at least.
    pub blocks: usize,
    /// Tiles of 32 outputs, also where 64 fit as well.
    pub narrow: bool,
}

/// Cuts for launches, by [`Launch::shape`]; others are cut as [`Wishes`] say.
pub type Cuts = BTreeMap<String, CutAs>;

/// The whole program and what lies in the device's memory for it.
#[derive(Debug)]
pub struct Schedule {
    /// The plan, its weights gone.
    pub plan: Plan,
    /// One launch for each wave, in order.
    pub launches: Vec<Launch>,
    /// All jobs, launch by launch.
    pub jobs: Vec<Job>,
    /// For each job its step in the plan.
    pub steps: Vec<usize>,
    /// Packed weights: for each convolution `[tile of outputs][slice][output][64]`, zeros beyond the ends.
    pub weights: Vec<i8>,
    /// Biases, each convolution's padded to whole tiles.
    pub bias: Vec<i32>,
    /// Multipliers in the same places; a pool's for each count of pixels inside the picture.
    pub multiplier: Vec<f32>,
    /// Partial sums that a launch needs at most.
    pub partial: usize,
    /// Tiles of a launch that are shared, at most.
    pub tickets: usize,
}

/// A convolution cut into tiles.
struct Cut {
    kind: i32,
    width: usize,
    tiles_m: usize,
    tiles_n: usize,
    slices: usize,
}

impl Cut {
    fn of(conv: &Convolution, from: &Tensor, to: &Tensor, narrow: bool) -> Self {
        let [oh, ow, outputs] = to.shape;
        let products = conv.window.kernel[0] * conv.window.kernel[1] * from.shape[2];
        let padded = |width: usize| outputs.next_multiple_of(width);
        let (kind, width) = match () {
            () if !wide(from) => (2, 32),
            () if padded(64) <= padded(32) && !narrow => (0, 64),
            () => (1, 32),
        };
        Self {
            kind,
            width,
            tiles_m: (oh * ow).div_ceil(TILE_M),
            tiles_n: outputs.div_ceil(width),
            slices: products.div_ceil(SLICE),
        }
    }

    fn tiles(&self) -> usize {
        self.tiles_m * self.tiles_n
    }

    /// Slices of all tiles, a narrow tile's counted half.
    fn work(&self) -> usize {
        (self.tiles() * self.slices * self.width).div_ceil(64)
    }
}

/// True when all pixels begin at a chunk and are whole chunks.
fn wide(tensor: &Tensor) -> bool {
    [tensor.place, tensor.step, tensor.shape[2]].iter().all(|n| n.is_multiple_of(CHUNK))
}

/// True when all pixels begin at a chunk.
fn aligned(tensor: &Tensor) -> bool {
    [tensor.place, tensor.step].iter().all(|n| n.is_multiple_of(CHUNK))
}

impl Schedule {
    /// The schedule of a plan.
    ///
    /// # Errors
    /// [`CudaError::Large`].
    pub fn new(plan: Plan, wishes: Wishes) -> Result<Self, CudaError> {
        Self::tuned(plan, wishes, &Cuts::new())
    }

    /// The schedule of a plan some of whose launches are cut as was measured to be best.
    ///
    /// # Errors
    /// [`CudaError::Large`].
    pub fn tuned(plan: Plan, wishes: Wishes, cuts: &Cuts) -> Result<Self, CudaError> {
        let waves = plan.waves.clone();
        let mut made = Self {
            launches: Vec::new(),
            jobs: Vec::new(),
            steps: Vec::new(),
            weights: Vec::new(),
            bias: Vec::new(),
            multiplier: Vec::new(),
            partial: 0,
            tickets: 0,
            plan,
        };
        let mut next = 0;
        for steps in waves {
            let wave: Vec<usize> = (next..next + steps).collect();
            next += steps;
            made.launch(&wave, wishes, cuts)?;
        }
        let sizes = [made.plan.arena, made.weights.len(), made.bias.len() * 4, made.partial * 4];
        if sizes.iter().any(|size| *size > LIMIT) {
            return Err(CudaError::Large);
        }
        for step in &mut made.plan.steps {
            if let Step::Convolution(conv) = step {
                // The packed form replaces the plain one, which would double the memory.
                conv.weight = Vec::new();
            }
        }
        Ok(made)
    }

    fn launch(&mut self, steps: &[usize], wishes: Wishes, tuned: &Cuts) -> Result<(), CudaError> {
        let shapes: Vec<String> =
            steps.iter().map(|&step| shape(&self.plan, &self.plan.steps[step])).collect();
        let shape = shapes.join(" + ");
        let CutAs { blocks: wanted, narrow } = tuned.get(&shape).copied().unwrap_or(wishes.cut);
        let cuts: Vec<Option<Cut>> = steps
            .iter()
            .map(|&step| match &self.plan.steps[step] {
                Step::Convolution(c) => {
                    Some(Cut::of(c, &self.plan.tensors[c.from], &self.plan.tensors[c.to], narrow))
                }
                Step::Pool(_) => None,
            })
            .collect();
        // Where tiles alone are too few blocks for the device, long sums are shared, such that all blocks have about as much to do.
        let work: usize = cuts.iter().flatten().map(Cut::work).sum();
        let each = (work / wanted.max(1)).max(FEWEST);
        let first = self.jobs.len();
        let (mut blocks, mut partial, mut tickets) = (0, 0, 0);
        for (&step, cut) in steps.iter().zip(&cuts) {
            let (from, to) = self.plan.steps[step].tensors();
            let (from, to) = (&self.plan.tensors[from], &self.plan.tensors[to]);
            let window = match &self.plan.steps[step] {
                Step::Convolution(c) => c.window,
                Step::Pool(p) => p.window,
            };
            let three = |shape: [usize; 3]| shape.map(|n| n as i32);
            let two = |pair: [usize; 2]| pair.map(|n| n as i32);
            let mut job = Job {
                from: from.place as i32,
                to: to.place as i32,
                size: three(from.shape),
                from_step: from.step as i32,
                out: three(to.shape),
                to_step: to.step as i32,
                kernel: two(window.kernel),
                stride: two(window.stride),
                pad: two([window.padding[0], window.padding[1]]),
                products: (window.kernel[0] * window.kernel[1] * from.shape[2]) as i32,
                weights: self.weights.len() as i32,
                scales: self.bias.len() as i32,
                splits: 1,
                wide_from: i32::from(wide(from)),
                wide_to: i32::from(aligned(to)),
                ..Job::default()
            };
            match (&self.plan.steps[step], cut) {
                (Step::Convolution(conv), Some(cut)) => {
                    let long = self.plan.macs(&self.plan.steps[step]) >= LONG.0;
                    let least = if long { LONG.1.div_ceil(cut.tiles().max(1)) } else { 1 };
                    let most = MOST.min(cut.slices / FEWEST).max(1);
                    let splits = cut.slices.div_ceil(each).max(least).min(most);
                    job.kind = cut.kind;
                    job.tiles_n = cut.tiles_n as i32;
                    job.splits = splits as i32;
                    if splits > 1 {
                        (job.partial, job.ticket) = (partial as i32, tickets as i32);
                        partial += cut.tiles() * splits * TILE_M * cut.width;
                        tickets += cut.tiles();
                    }
                    blocks += cut.tiles() * splits;
                    pack(conv, cut, &mut self.weights);
                    scales(conv, cut, wishes.signed, &mut self.bias, &mut self.multiplier);
                }
                (Step::Pool(pool), _) => {
                    let bytes: usize = to.shape.iter().product();
                    // A thread has a chunk where it can.
                    job.wide_from = i32::from(wide(from) && wide(to));
                    job.wide_to = job.wide_from;
                    job.kind = if pool.kind == PoolKind::Max { 3 } else { 4 };
                    blocks += (if job.wide_from == 1 { bytes / CHUNK } else { bytes }).div_ceil(THREADS);
                    self.multiplier.extend(shares(pool));
                    self.bias.resize(self.multiplier.len(), 0);
                }
                (Step::Convolution(_), None) => {}
            }
            job.end = i32::try_from(blocks).map_err(|_| CudaError::Large)?;
            if self.weights.len().max(partial * 4).max(self.bias.len() * 4) > LIMIT {
                return Err(CudaError::Large);
            }
            self.jobs.push(job);
            self.steps.push(step);
        }
        self.partial = self.partial.max(partial);
        self.tickets = self.tickets.max(tickets);
        self.launches.push(Launch { first, jobs: steps.len(), blocks, shape });
        Ok(())
    }

    /// The words of all jobs.
    pub fn words(&self) -> Vec<i32> {
        self.jobs.iter().flat_map(Job::words).collect()
    }
}

/// A step in words: picture read, window with its step, picture written.
fn shape(plan: &Plan, step: &Step) -> String {
    let (from, to) = step.tensors();
    let picture = |tensor: usize| plan.tensors[tensor].shape.map(|n| n.to_string()).join("x");
    let (window, what) = match step {
        Step::Convolution(c) => (c.window, ""),
        Step::Pool(Pool { window, kind: PoolKind::Max, .. }) => (*window, "maximum "),
        Step::Pool(Pool { window, kind: PoolKind::Average, .. }) => (*window, "mean "),
    };
    let [[kh, kw], [sy, sx]] = [window.kernel, window.stride];
    format!("{what}{} {kh}x{kw}/{sy}x{sx} {}", picture(from), picture(to))
}

/// Packs `[output][product]` into tiles and slices.
fn pack(conv: &Convolution, cut: &Cut, into: &mut Vec<i8>) {
    let outputs = conv.bias.len();
    let products = conv.weight.len() / outputs.max(1);
    let start = into.len();
    into.resize(start + cut.tiles_n * cut.slices * cut.width * SLICE, 0);
    for (output, row) in conv.weight.chunks_exact(products.max(1)).enumerate() {
        for (slice, bytes) in row.chunks(SLICE).enumerate() {
            let tile = output / cut.width * cut.slices + slice;
            let place = start + (tile * cut.width + output % cut.width) * SLICE;
            into[place..place + bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// Biases and multipliers, zeros up to whole tiles. Where activations are read 128 lower, the bias has 128 times the sum of the
/// weights more; sums wrap around alike on both sides, so nothing is lost.
fn scales(conv: &Convolution, cut: &Cut, signed: bool, bias: &mut Vec<i32>, multiplier: &mut Vec<f32>) {
    let outputs = conv.bias.len();
    let products = (conv.weight.len() / outputs.max(1)).max(1);
    let padded = bias.len() + cut.tiles_n * cut.width;
    bias.extend(conv.bias.iter().zip(conv.weight.chunks_exact(products)).map(|(bias, row)| {
        let sum = row.iter().fold(0i32, |sum, w| sum.wrapping_add(i32::from(*w)));
        if signed { bias.wrapping_add(sum.wrapping_mul(128)) } else { *bias }
    }));
    multiplier.extend(&conv.multiplier);
    bias.resize(padded, 0);
    multiplier.resize(padded, 0.0);
}

/// What a pool's value is multiplied by, for each count of pixels that the window has inside the picture.
fn shares(pool: &Pool) -> impl Iterator<Item = f32> + '_ {
    let most = pool.window.kernel[0] * pool.window.kernel[1];
    (0..=most).map(|count| match pool.kind {
        PoolKind::Max => pool.multiplier,
        // A window beside the picture has nothing to divide, and gives 0.
        PoolKind::Average if count == 0 => 0.0,
        PoolKind::Average => pool.multiplier / count as f32,
    })
}
