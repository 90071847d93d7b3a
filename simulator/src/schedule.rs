//! Orders in which a launch may legally run, and what is checked while it does.

use std::str::FromStr;

/// When `cp.async` lands and in which order warps and blocks run. All are legal on a card; a correct kernel gives
/// the same result under each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Schedule {
    /// Copies land when they are waited for; warps and blocks ascending.
    #[default]
    Late,
    /// Copies land at once; warps and blocks ascending.
    Eager,
    /// Copies land at once; warps and blocks descending.
    EagerReversed,
    /// Copies land at any moment, warps take turns at any instruction, blocks in any order.
    Random(u64),
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "late" => Ok(Self::Late),
            "eager" => Ok(Self::Eager),
            "reversed" => Ok(Self::EagerReversed),
            _ => text
                .strip_prefix("random:")
                .and_then(|seed| seed.parse().ok())
                .map(Self::Random)
                .ok_or_else(|| format!("`{text}` is no schedule: late, eager, reversed or random:SEED")),
        }
    }
}

/// How a launch is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Order.
    pub schedule: Schedule,
    /// Host threads; blocks are shared among them.
    pub threads: usize,
    /// Finds accesses to shared memory without a barrier between them, and reads of `cp.async` in flight.
    pub shared_races: bool,
    /// Finds accesses to global memory by different blocks without an order; runs the blocks one by one.
    pub global_races: bool,
    /// Refuses to read shared memory that nothing was written to.
    pub uninitialised: bool,
    /// Counts bank conflicts and bytes touched.
    pub traffic: bool,
    /// Bytes of a cache in front of global memory, where `traffic` is counted; the blocks then run one by one.
    pub cache: Option<usize>,
    /// Instructions a block may execute before it is taken for hung.
    pub max_instructions: u64,
    /// Multiprocessors of the device.
    pub multiprocessors: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schedule: Schedule::Late,
            threads: std::thread::available_parallelism().map_or(1, Into::into),
            shared_races: true,
            global_races: false,
            uninitialised: true,
            traffic: false,
            cache: None,
            max_instructions: 2_000_000_000,
            multiprocessors: 8,
        }
    }
}

/// A small deterministic generator (xorshift64*, Vigna 2016), enough to vary schedules.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound.max(1)
    }
}
