//! The plan on the CPU's vector units, exact to the bit with [`super::scalar`].
//!
//! Weights are packed once: panels of 16 outputs, in each the bytes of four inputs side by side, as dot-product
//! instructions want them. Patches are never gathered (but for inputs whose channels are no multiple of 4, the first
//! layer): a tile of output pixels has a pointer for each pixel and tap, beside the picture to a row of zeros.
//! Requantisation happens in registers. Nothing is allocated while a picture is computed.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod peak;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use peak::peak;

use super::plan::{Convolution, Plan, PlanError, Pool, PoolKind, Step, Tensor, Window};
use super::{Engine, EngineError, Output, scalar};
use crate::prepare::NetworkInput;
use std::sync::Arc;

/// The engine's name.
pub const NAME: &str = "simd";

/// Outputs in a panel of packed weights.
const PANEL: usize = 16;
/// The most output pixels in a tile.
const ROWS: usize = 14;
/// The most bytes of a gathered patch.
const GATHERED: usize = 1024;
/// The most taps of a window.
const TAPS: usize = 64;

/// Which instructions compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with VNNI: 64 products an instruction.
    Avx512Vnni,
    /// AVX-VNNI: 32 products an instruction.
    AvxVnni,
    /// AVX2 with `vpmaddubsw`; a convolution whose pairs could saturate widens to 16 bits first.
    Avx2,
    /// FEAT_I8MM of Arm: `usmmla`, 32 products an instruction.
    I8mm,
    /// FEAT_DotProd of Arm: `sdot`, 16 products an instruction.
    DotProd,
    /// Any 64-bit Arm: `smlal`, 8 products an instruction.
    Neon,
}

impl Isa {
    /// All, the fastest first.
    pub const ALL: [Isa; 6] = [Isa::Avx512Vnni, Isa::AvxVnni, Isa::Avx2, Isa::I8mm, Isa::DotProd, Isa::Neon];

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx2 => "avx2",
            Isa::I8mm => "i8mm",
            Isa::DotProd => "dotprod",
            Isa::Neon => "neon",
        }
    }

    /// This CPU has the instructions.
    pub fn is_here(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2");
            return match self {
                Isa::Avx512Vnni => {
                    avx2 && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512vnni")
                }
                Isa::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
                Isa::Avx2 => avx2,
                Isa::I8mm | Isa::DotProd | Isa::Neon => false,
            };
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected;
            return match self {
                Isa::I8mm => is_aarch64_feature_detected!("i8mm"),
                Isa::DotProd => is_aarch64_feature_detected!("dotprod"),
                Isa::Neon => is_aarch64_feature_detected!("neon"),
                Isa::Avx512Vnni | Isa::AvxVnni | Isa::Avx2 => false,
            };
        }
        #[allow(unreachable_code)]
        false
    }

    /// The fastest that this CPU has.
    pub fn best() -> Option<Isa> {
        Self::ALL.into_iter().find(|isa| isa.is_here())
    }

    /// Output pixels and panels in a tile: as many sums as registers hold.
    fn tile(self) -> (usize, usize) {
        match self {
            Isa::Avx512Vnni => (14, 2),
            Isa::AvxVnni => (6, 1),
            Isa::Avx2 => (4, 1),
            Isa::I8mm => (6, 1),
            Isa::DotProd => (5, 1),
            Isa::Neon => (2, 1),
        }
    }

    /// Inputs of one output side by side in a block of packed weights.
    fn inputs(self) -> usize {
        if self == Isa::I8mm { 8 } else { 4 }
    }
}

/// A convolution's weights in panels `[panel][tap][quad of inputs][16 outputs][4 inputs]` (for `usmmla` eight inputs
/// instead of four), with bias and multiplier padded to whole panels.
#[derive(Debug)]
struct Packed {
    weight: Vec<Block>,
    bias: Vec<i32>,
    multiplier: Vec<f32>,
    /// Quads of inputs a tap; of the whole patch where it is gathered.
    quads: usize,
    /// Taps that the kernel walks over: 1 where the patch is gathered.
    taps: usize,
    gathered: bool,
    /// Blocks of a panel.
    blocks: usize,
    /// Products that fit a sum of 16 bits, for NEON.
    #[cfg(target_arch = "aarch64")]
    depth: usize,
}

/// 64 weights that share a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Block([i8; 64]);

impl Packed {
    fn new(conv: &Convolution, channels: usize, isa: Isa) -> Self {
        let outputs = conv.bias.len();
        let taps = conv.window.kernel[0] * conv.window.kernel[1];
        let gathered = channels % 4 != 0;
        let (taps, channels) = if gathered { (1, taps * channels) } else { (taps, channels) };
        let (quads, panels) = (channels.div_ceil(4), outputs.div_ceil(PANEL));
        let inputs = isa.inputs();
        let blocks = channels.div_ceil(inputs) * inputs / 4;
        let mut weight = vec![Block([0; 64]); panels * taps * blocks];
        for o in 0..outputs {
            for tap in 0..taps {
                for c in 0..channels {
                    let byte = (c / inputs * PANEL + o % PANEL) * inputs + c % inputs;
                    let block = (o / PANEL * taps + tap) * blocks + byte / 64;
                    weight[block].0[byte % 64] = conv.weight[(o * taps + tap) * channels + c];
                }
            }
        }
        let mut bias = conv.bias.clone();
        #[cfg(target_arch = "aarch64")]
        for (bias, weights) in bias.iter_mut().zip(conv.weight.chunks(taps * channels)) {
            *bias = bias.wrapping_add(aarch64::correction(isa, weights));
        }
        bias.resize(panels * PANEL, 0);
        let mut multiplier = conv.multiplier.clone();
        multiplier.resize(panels * PANEL, 0.0);
        Self {
            weight,
            bias,
            multiplier,
            quads,
            taps,
            gathered,
            blocks: taps * blocks,
            #[cfg(target_arch = "aarch64")]
            depth: aarch64::depth(conv, channels),
        }
    }
}

/// The SIMD engine.
pub struct Simd {
    plan: Arc<Plan>,
    packed: Arc<Vec<Option<Packed>>>,
    arena: Vec<u8>,
    isa: Isa,
    /// Threads of its own; without it the caller's thread computes.
    pool: Option<rayon::ThreadPool>,
}

impl std::fmt::Debug for Simd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Simd({}, {} threads)", self.isa.name(), self.threads())
    }
}

/// Why there is no such engine.
#[derive(Debug, thiserror::Error)]
pub enum SimdError {
    /// The model is no integer program.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The CPU lacks the instructions.
    #[error(
        "this CPU has none of AVX2, AVX-VNNI, AVX-512-VNNI and NEON, or not the one asked for; use the engine tract"
    )]
    Cpu,
    /// The model has a window that the kernels were not made for.
    #[error("layer {0}: a window of more than 64 taps; use the engine tract")]
    Window(String),
    /// No threads.
    #[error("threads could not be started ({0}); free memory and try again")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// The arena as the threads of one step see it: they write disjoint bytes.
#[derive(Clone, Copy)]
struct Arena(*mut u8);
// SAFETY: the tasks of a step write disjoint ranges of its output tensor, which no task reads; see `Job::run`.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// A method, so that closures take the whole and not the bare pointer in it.
    fn start(self) -> *mut u8 {
        self.0
    }
}

/// One tile for a kernel: pointers for `[tap][row]`, and where each row's outputs go.
struct Tile {
    /// A pointer to the first input byte for each tap and row.
    rows: [*const u8; ROWS * TAPS],
    /// Where the outputs of the panel go, for each row.
    out: [*mut u8; ROWS],
    count: usize,
    taps: usize,
    quads: usize,
    weight: *const i8,
    bias: *const i32,
    multiplier: *const f32,
    /// Outputs to write: 16 a panel, fewer in the last.
    width: usize,
    /// Bytes of a panel.
    #[cfg(target_arch = "x86_64")]
    panel: usize,
    #[cfg(target_arch = "x86_64")]
    pairs_fit: bool,
    /// Products that fit a sum of 16 bits.
    #[cfg(target_arch = "aarch64")]
    depth: usize,
}

impl Simd {
    /// An engine for a model's ONNX bytes; `isa` and `threads` are chosen where they are not given.
    ///
    /// # Errors
    /// See [`SimdError`].
    pub fn new(onnx: &[u8], isa: Option<Isa>, threads: Option<usize>) -> Result<Self, SimdError> {
        Self::of(Plan::read(onnx)?, isa, threads)
    }

    /// An engine for a plan.
    ///
    /// # Errors
    /// See [`SimdError`].
    pub fn of(mut plan: Plan, isa: Option<Isa>, threads: Option<usize>) -> Result<Self, SimdError> {
        let isa = match isa {
            Some(isa) => Some(isa).filter(|isa| isa.is_here()),
            None => Isa::best(),
        };
        let isa = isa.ok_or(SimdError::Cpu)?;
        let mut packed = Vec::new();
        for step in &mut plan.steps {
            let (from, _) = step.tensors();
            packed.push(match step {
                Step::Convolution(conv) => {
                    let channels = plan.tensors[from].shape[2];
                    let taps = conv.window.kernel[0] * conv.window.kernel[1];
                    if taps > TAPS || channels % 4 != 0 && taps * channels > GATHERED {
                        return Err(SimdError::Window(conv.name.clone()));
                    }
                    let packed = Packed::new(conv, channels, isa);
                    // The packed form replaces the plain one, which would double the memory.
                    conv.weight = Vec::new();
                    Some(packed)
                }
                Step::Pool(p) if p.window.kernel[0] * p.window.kernel[1] > TAPS => {
                    return Err(SimdError::Window(p.name.clone()));
                }
                Step::Pool(_) => None,
            });
        }
        let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let pool = match threads {
            0 | 1 => None,
            _ => Some(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?),
        };
        Ok(Self { arena: vec![0; plan.arena], plan: Arc::new(plan), packed: Arc::new(packed), isa, pool })
    }

    /// Runs all steps over the input tensor's bytes and gives the features' bytes, `[row, column, channel]`.
    pub fn run_bytes(&mut self, input: &[u8]) -> Vec<u8> {
        scalar::write_input(&self.plan, &mut self.arena, input);
        self.steps(|_| {});
        scalar::read_bytes(&self.plan, &self.arena)
    }

    /// The instructions in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs the steps and calls `after` with each one's number.
    fn steps(&mut self, mut after: impl FnMut(usize) + Send) {
        let threads = self.threads();
        let Self { plan, packed, arena, isa, pool } = self;
        let arena = Arena(arena.as_mut_ptr());
        let mut work = || {
            for (number, (step, packed)) in plan.steps.iter().zip(packed.iter()).enumerate() {
                let (from, to) = step.tensors();
                let (from, to) = (&plan.tensors[from], &plan.tensors[to]);
                match (step, packed) {
                    (Step::Convolution(conv), Some(packed)) => {
                        Job { conv, packed, from, to, arena, isa: *isa }.run(threads);
                    }
                    (Step::Pool(p), _) => {
                        let rows = to.shape[0];
                        split(0, rows, rows.div_ceil(threads), &|start, end| {
                            pool_rows(p, from, to, arena, start, end)
                        });
                    }
                    (Step::Convolution(_), None) => {}
                }
                after(number);
            }
        };
        match pool {
            Some(pool) => pool.install(&mut work),
            None => work(),
        }
    }

    /// Time of each step in seconds, for benches.
    pub fn profile(&mut self, input: &NetworkInput) -> Vec<(String, u64, f64)> {
        scalar::write_input(&self.plan, &mut self.arena, &input.0[..]);
        let mut times = Vec::with_capacity(self.plan.steps.len());
        let mut last = std::time::Instant::now();
        self.steps(|_| {
            let now = std::time::Instant::now();
            times.push((now - last).as_secs_f64());
            last = now;
        });
        let name = |(step, time): (&Step, f64)| (step.name().to_string(), self.macs(step), time);
        self.plan.steps.iter().zip(times).map(name).collect()
    }

    fn macs(&self, step: &Step) -> u64 {
        let (from, to) = step.tensors();
        match step {
            Step::Convolution(c) => {
                let [kh, kw] = c.window.kernel;
                (self.plan.tensors[to].shape.iter().product::<usize>()
                    * kh
                    * kw
                    * self.plan.tensors[from].shape[2]) as u64
            }
            Step::Pool(_) => 0,
        }
    }
}

impl Engine for Simd {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run(&mut self, input: &NetworkInput) -> Result<Output, EngineError> {
        scalar::write_input(&self.plan, &mut self.arena, &input.0[..]);
        self.steps(|_| {});
        Ok(scalar::read_output(&self.plan, &self.arena))
    }

    fn share(&self) -> Option<Box<dyn Engine>> {
        let (plan, packed) = (Arc::clone(&self.plan), Arc::clone(&self.packed));
        Some(Box::new(Self { arena: vec![0; plan.arena], plan, packed, isa: self.isa, pool: None }))
    }
}

/// Calls `f` on pieces of `start..end` of at most `size`, on as many threads as are free.
fn split(start: usize, end: usize, size: usize, f: &(impl Fn(usize, usize) + Sync)) {
    let pieces = (end - start).div_ceil(size.max(1));
    if pieces <= 1 {
        f(start, end);
    } else {
        let middle = start + pieces / 2 * size;
        rayon::join(|| split(start, middle, size, f), || split(middle, end, size, f));
    }
}

/// First byte of the pixel that a tap reads, or none beside the picture.
fn tap(from: &Tensor, window: &Window, oy: usize, ox: usize, k: usize) -> Option<usize> {
    let [h, w, _] = from.shape;
    let (ky, kx) = (k / window.kernel[1], k % window.kernel[1]);
    let y = (oy * window.stride[0] + ky).wrapping_sub(window.padding[0]);
    let x = (ox * window.stride[1] + kx).wrapping_sub(window.padding[1]);
    (y < h && x < w).then(|| from.place + (y * w + x) * from.step)
}

/// A convolution on its way.
struct Job<'a> {
    conv: &'a Convolution,
    packed: &'a Packed,
    from: &'a Tensor,
    to: &'a Tensor,
    arena: Arena,
    isa: Isa,
}

impl Job<'_> {
    /// Splits by tiles of pixels where there are many, else by panels of outputs.
    fn run(&self, threads: usize) {
        let (rows, group) = self.isa.tile();
        let pixels = self.to.shape[0] * self.to.shape[1];
        let panels = self.packed.bias.len() / PANEL;
        let tiles = pixels.div_ceil(rows);
        if tiles >= 8 * threads || threads == 1 {
            split(0, tiles, tiles.div_ceil(threads), &|start, end| self.tiles(start..end, tiles, 0..panels));
        } else {
            let size = panels.div_ceil(threads).next_multiple_of(group);
            split(0, panels, size, &|start, end| self.tiles(0..tiles, tiles, start..end));
        }
    }

    /// Computes tiles `range` of `tiles` equal ones, and of their outputs the panels `panels`.
    fn tiles(&self, range: std::ops::Range<usize>, tiles: usize, panels: std::ops::Range<usize>) {
        let (from, to, packed) = (self.from, self.to, self.packed);
        let [h, w, outputs] = to.shape;
        let kernel = self.conv.window.kernel[0] * self.conv.window.kernel[1];
        let (_, group) = self.isa.tile();
        let mut gathered = [0u8; ROWS * GATHERED];
        let mut tile = Tile {
            rows: [std::ptr::null(); ROWS * TAPS],
            out: [std::ptr::null_mut(); ROWS],
            count: 0,
            taps: packed.taps,
            quads: packed.quads,
            weight: std::ptr::null(),
            bias: std::ptr::null(),
            multiplier: std::ptr::null(),
            width: 0,
            #[cfg(target_arch = "x86_64")]
            panel: packed.blocks * 64,
            #[cfg(target_arch = "x86_64")]
            pairs_fit: self.conv.pairs_fit,
            #[cfg(target_arch = "aarch64")]
            depth: packed.depth,
        };
        let start = self.arena.start();
        for number in range {
            let (first, last) = (h * w * number / tiles, h * w * (number + 1) / tiles);
            tile.count = last - first;
            for row in 0..tile.count {
                let (oy, ox) = ((first + row) / w, (first + row) % w);
                let place = |k| tap(from, &self.conv.window, oy, ox, k);
                if packed.gathered {
                    let channels = from.shape[2];
                    let patch = &mut gathered[row * GATHERED..][..kernel * channels];
                    for (k, bytes) in patch.chunks_exact_mut(channels).enumerate() {
                        match place(k) {
                            // SAFETY: `tap` gives a pixel of `from`, whose bytes lie in the arena (Plan's memory); no task of
                            // this step writes them.
                            Some(at) => bytes.copy_from_slice(unsafe {
                                std::slice::from_raw_parts(start.add(at), channels)
                            }),
                            None => bytes.fill(0),
                        }
                    }
                    tile.rows[row] = gathered[row * GATHERED..].as_ptr();
                } else {
                    for k in 0..kernel {
                        // Without a pixel the offset is 0: the arena's first bytes stay 0.
                        // SAFETY: the offset lies in the arena.
                        tile.rows[k * tile.count + row] = unsafe { start.add(place(k).unwrap_or(0)) };
                    }
                }
            }
            for panel in panels.clone().step_by(group) {
                let wide = group.min(panels.end - panel);
                for row in 0..tile.count {
                    // SAFETY: pixel and panel lie in the output tensor, hence in the arena.
                    tile.out[row] = unsafe { start.add(to.place + (first + row) * to.step + panel * PANEL) };
                }
                tile.weight = packed.weight[panel * packed.blocks..].as_ptr().cast();
                tile.bias = packed.bias[panel * PANEL..].as_ptr();
                tile.multiplier = packed.multiplier[panel * PANEL..].as_ptr();
                tile.width = (outputs - panel * PANEL).min(wide * PANEL);
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the pointers of the tile are valid for what its sizes say: rows point to `quads · 4` input bytes or
                // to as many zeros (or into `gathered`, zero-padded), weights, bias and multiplier hold `wide` panels, `out`
                // points to `width` bytes of the output tensor that only this task writes. `isa` was found on this CPU.
                unsafe {
                    x86::compute(self.isa, &tile, wide);
                }
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                unsafe {
                    aarch64::compute(self.isa, &tile);
                }
            }
        }
    }
}

/// Computes rows `first..last` of a pool.
fn pool_rows(pool: &Pool, from: &Tensor, to: &Tensor, arena: Arena, first: usize, last: usize) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2.
        return unsafe { pool_rows_avx2(pool, from, to, arena, first, last) };
    }
    pool_rows_any(pool, from, to, arena, first, last);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn pool_rows_avx2(pool: &Pool, from: &Tensor, to: &Tensor, arena: Arena, first: usize, last: usize) {
    pool_rows_any(pool, from, to, arena, first, last);
}

#[inline(always)]
fn pool_rows_any(pool: &Pool, from: &Tensor, to: &Tensor, arena: Arena, first: usize, last: usize) {
    let [_, ow, channels] = to.shape;
    let kernel = pool.window.kernel[0] * pool.window.kernel[1];
    for oy in first..last {
        for ox in 0..ow {
            let mut places = [0usize; TAPS];
            let mut count = 0;
            for place in (0..kernel.min(TAPS)).filter_map(|k| tap(from, &pool.window, oy, ox, k)) {
                places[count] = place;
                count += 1;
            }
            let multiplier = match pool.kind {
                PoolKind::Max => pool.multiplier,
                PoolKind::Average => pool.multiplier / count as f32,
            };
            let to_place = to.place + (oy * ow + ox) * to.step;
            let mut c = 0;
            // Widths known to the compiler become vector instructions.
            while c + 64 <= channels {
                pool_chunk::<64>(pool.kind, &places[..count], to_place, c, multiplier, arena);
                c += 64;
            }
            while c + 16 <= channels {
                pool_chunk::<16>(pool.kind, &places[..count], to_place, c, multiplier, arena);
                c += 16;
            }
            while c < channels {
                pool_chunk::<1>(pool.kind, &places[..count], to_place, c, multiplier, arena);
                c += 1;
            }
        }
    }
}

/// Pools `WIDTH` channels from channel `c` of one output pixel.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn pool_chunk<const WIDTH: usize>(
    kind: PoolKind,
    places: &[usize],
    to: usize,
    c: usize,
    multiplier: f32,
    arena: Arena,
) {
    let mut sums = [0u16; WIDTH];
    for &place in places {
        // SAFETY: `tap` gives a pixel of the input tensor, which has at least `c + WIDTH` channels and lies in the arena; no
        // task of this step writes it.
        let bytes: [u8; WIDTH] =
            unsafe { arena.start().add(place + c).cast::<[u8; WIDTH]>().read_unaligned() };
        // Plain loops: closures would not be compiled with the caller's instructions.
        match kind {
            PoolKind::Max => {
                for i in 0..WIDTH {
                    sums[i] = sums[i].max(u16::from(bytes[i]));
                }
            }
            PoolKind::Average => {
                for i in 0..WIDTH {
                    sums[i] += u16::from(bytes[i]);
                }
            }
        }
    }
    let mut out = [0u8; WIDTH];
    for i in 0..WIDTH {
        // At least 0 and at most 255, so the cast cuts nothing off.
        out[i] = (f32::from(sums[i]) * multiplier).round_ties_even().min(255.0) as u8;
    }
    // SAFETY: these bytes of the output tensor lie in the arena and belong to this task alone.
    unsafe { arena.start().add(to + c).cast::<[u8; WIDTH]>().write_unaligned(out) }
}
