//! The plan on the CPU's vector units, exact to the bit with [`super::scalar`].
//!
//! Weights are packed once: panels of 16 outputs, in each the bytes of four inputs side by side, as dot-product
//! instructions want them. Patches are never gathered (but for inputs whose channels are no multiple of 4, the first
//! layer): a tile of output pixels has a pointer for each pixel and tap, beside the picture to a row of zeros.
//! Requantisation happens in registers. Nothing is allocated while a picture is computed.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod amx;
mod isa;
mod job;
mod packing;
mod peak;
mod pools;
mod team;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use peak::peak;

use super::plan::{Plan, PlanError, Step};
use super::{Engine, EngineError, Output, scalar};
use crate::prepare::NetworkInput;
pub use isa::Isa;
use job::{Job, Scratch, Tile};
use packing::{Block, Packed};
use prost::bytes::Bytes;
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use team::Team;

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
/// Alignment of the arena, a cache line.
const ALIGN: usize = 64;
/// Pixels beyond the last that a tile may read.
const BEYOND: usize = 16;

/// The SIMD engine.
pub struct Simd {
    plan: Arc<Plan>,
    packed: Arc<Vec<Option<Packed>>>,
    /// The plan's arena from the first multiple of 64 bytes, and some more bytes that tiles may read, not write.
    arena: Vec<u8>,
    isa: Isa,
    team: Team,
    /// For each thread.
    scratch: Vec<Mutex<Scratch>>,
    /// For each step and thread how many pieces of the thread's share are taken.
    claims: Vec<AtomicUsize>,
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
        "this CPU has none of AVX2, AVX-VNNI, AVX-512-VNNI, AMX and NEON, or not the one asked for; use the engine tract"
    )]
    Cpu,
    /// The model has a window that the kernels were not made for.
    #[error("layer {0}: a window of more than 64 taps; use the engine tract")]
    Window(String),
    /// No threads.
    #[error("threads could not be started ({0}); free memory and try again")]
    Threads(#[from] std::io::Error),
}

/// The arena as the threads of one step see it: they write disjoint bytes.
#[derive(Clone, Copy)]
struct Arena(*mut u8);
// SAFETY: the pieces of a step write disjoint ranges of its output tensor, which no piece reads; see `Job::run`.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// A method, so that closures take the whole and not the bare pointer in it.
    fn start(self) -> *mut u8 {
        self.0
    }
}

impl Simd {
    /// An engine for a model's ONNX bytes; `isa` and `threads` are chosen where they are not given.
    ///
    /// # Errors
    /// See [`SimdError`].
    pub fn new(onnx: &Bytes, isa: Option<Isa>, threads: Option<usize>) -> Result<Self, SimdError> {
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
        let Plan { steps, tensors, .. } = &mut plan;
        let pack = |step: &mut Step| match step {
            Step::Convolution(conv) => {
                let channels = tensors[conv.from].shape[2];
                let taps = conv.window.kernel[0] * conv.window.kernel[1];
                if taps > TAPS || !channels.is_multiple_of(4) && taps * channels > GATHERED {
                    return Err(SimdError::Window(conv.name.clone()));
                }
                let packed = Packed::new(conv, &tensors[conv.from], isa);
                // The packed form replaces the plain one, which would double the memory.
                conv.weight = Vec::new();
                Ok(Some(packed))
            }
            Step::Pool(p) if p.window.kernel[0] * p.window.kernel[1] > TAPS => {
                Err(SimdError::Window(p.name.clone()))
            }
            Step::Pool(_) => Ok(None),
        };
        let packed: Result<Vec<_>, _> = steps.par_iter_mut().map(pack).collect();
        let packed = packed?;
        let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        Ok(Self::with(Arc::new(plan), Arc::new(packed), isa, Team::new(threads)?))
    }

    fn with(plan: Arc<Plan>, packed: Arc<Vec<Option<Packed>>>, isa: Isa, team: Team) -> Self {
        let deepest = plan.tensors.iter().map(|t| t.step).max().unwrap_or(0);
        Self {
            arena: vec![0; plan.arena + ALIGN + BEYOND * deepest + ALIGN],
            scratch: (0..team.threads()).map(|_| Mutex::new(Scratch::new(isa, &packed))).collect(),
            claims: (0..plan.steps.len() * team.threads()).map(|_| AtomicUsize::new(0)).collect(),
            plan,
            packed,
            isa,
            team,
        }
    }

    /// The arena as the plan knows it.
    fn arena(&mut self) -> &mut [u8] {
        let first = self.arena.as_ptr().align_offset(ALIGN);
        &mut self.arena[first..][..self.plan.arena]
    }

    /// Runs all steps over the input tensor's bytes; allocates nothing.
    pub fn compute(&mut self, input: &[u8]) {
        let plan = Arc::clone(&self.plan);
        scalar::write_input(&plan, self.arena(), input);
        self.steps(&plan.waves, |_| {});
    }

    /// Runs all steps over the input tensor's bytes and gives the features' bytes, `[row, column, channel]`.
    pub fn run_bytes(&mut self, input: &[u8]) -> Vec<u8> {
        self.compute(input);
        let plan = Arc::clone(&self.plan);
        scalar::read_bytes(&plan, self.arena())
    }

    /// The instructions in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Runs the steps, those of a wave without waiting for one another, and calls `after` with each wave's number.
    fn steps(&mut self, waves: &[usize], after: impl FnMut(usize) + Send) {
        let threads = self.threads();
        let arena = Arena(self.arena().as_mut_ptr());
        self.claims.iter().for_each(|claim| claim.store(0, Ordering::Relaxed));
        let Self { plan, packed, isa, team, scratch, claims, .. } = self;
        let (after, isa) = (Mutex::new(after), *isa);
        let barrier = team.barrier();
        team.run(&|thread| {
            let mut scratch = scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
            scratch.start();
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the CPU has AMX, or `isa` would be another.
            let _tiles = (isa == Isa::Amx).then(|| unsafe { amx::Tiles::take() });
            let job = |number: usize| {
                let (Step::Convolution(conv), Some(packed)) = (&plan.steps[number], &packed[number]) else {
                    return None;
                };
                let (from, to) = plan.steps[number].tensors();
                Some(Job { conv, packed, from: &plan.tensors[from], to: &plan.tensors[to], arena, isa })
            };
            let ahead = |number: usize| {
                (number + 1..plan.steps.len())
                    .find_map(job)
                    .map_or(&[][..], |job| job.weights(thread, threads))
            };
            let mut number = 0;
            for (wave, count) in waves.iter().enumerate() {
                for number in number..number + count {
                    // A thread's share is the same part of the picture in all steps and runs, so that most of what it reads
                    // lies in its own cache; then it helps with what others have left.
                    let each = |pieces: usize, ahead: &[Block], work: &mut dyn FnMut(usize, &[Block])| {
                        for owner in (0..threads).map(|k| (thread + k) % threads) {
                            let (first, last) = (pieces * owner / threads, pieces * (owner + 1) / threads);
                            loop {
                                // The start of the run made the counter's 0 known.
                                let taken = claims[number * threads + owner].fetch_add(1, Ordering::Relaxed);
                                if first + taken >= last {
                                    break;
                                }
                                // A thread's own pieces fetch, each its part, what it will read for the next layer.
                                let part = |k: usize| ahead.len() * k / (last - first);
                                let own = if owner == thread { part(taken)..part(taken + 1) } else { 0..0 };
                                work(first + taken, &ahead[own]);
                            }
                        }
                    };
                    if let Some(job) = job(number) {
                        each(job.pieces(threads), ahead(number), &mut |piece, ahead| {
                            job.run(piece, ahead, threads, &mut scratch);
                        });
                    } else if let Step::Pool(p) = &plan.steps[number] {
                        let (from, to) = (&plan.tensors[p.from], &plan.tensors[p.to]);
                        each(to.shape[0], &[], &mut |row, _| {
                            pools::pool_rows(p, from, to, arena, row, row + 1)
                        });
                    }
                }
                number += count;
                barrier.wait();
                if thread == 0 {
                    let mut after = after.lock().unwrap_or_else(PoisonError::into_inner);
                    (*after)(wave);
                }
            }
        });
    }

    /// Time of each step in seconds, for benches.
    pub fn profile(&mut self, input: &NetworkInput) -> Vec<(String, u64, f64)> {
        let plan = Arc::clone(&self.plan);
        scalar::write_input(&plan, self.arena(), &input.0[..]);
        let mut times = Vec::with_capacity(self.plan.steps.len());
        let mut last = std::time::Instant::now();
        // One after the other, so that each has its own time.
        self.steps(&vec![1; plan.steps.len()], |_| {
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
        self.compute(&input.0[..]);
        let plan = Arc::clone(&self.plan);
        Ok(scalar::read_output(&plan, self.arena()))
    }

    fn share(&self) -> Option<Box<dyn Engine>> {
        let (plan, packed) = (Arc::clone(&self.plan), Arc::clone(&self.packed));
        Some(Box::new(Self::with(plan, packed, self.isa, Team::new(1).ok()?)))
    }
}
