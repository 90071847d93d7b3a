//! What a launch cost, counted.

use serde::Serialize;

/// One PTX line's share of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Line of the PTX text.
    pub line: u32,
    /// The line.
    pub text: String,
    /// Times a warp executed it.
    pub warps: u64,
    /// Lanes that executed it.
    pub lanes: u64,
    /// Times it was a branch that parted a warp's lanes.
    pub divergent: u64,
    /// Most words of one shared-memory bank in one access (1: no conflict); 0 where not counted.
    pub bank_ways: u32,
    /// Shared-memory passes beyond those that conflict-free accesses need.
    pub extra_passes: u64,
    /// Accesses of shared memory by the most words of one bank: 1, 2, up to 4, up to 8, up to 16, more.
    pub degrees: [u64; 6],
    /// It lies in a loop.
    pub looped: bool,
}

/// Counts of one launch, or the sum of several of one kernel. Bytes, sectors and conflicts are zero unless
/// [`crate::Options::traffic`] is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Launches.
    pub launches: u64,
    /// Blocks.
    pub blocks: u64,
    /// Blocks in the last launch.
    pub last_blocks: u64,
    /// Threads a block in the last launch.
    pub threads_per_block: u32,
    /// Shared memory a block in bytes, static and dynamic, in the last launch.
    pub shared_bytes: usize,
    /// Local memory a thread in bytes.
    pub local_bytes: usize,
    /// Instructions executed by warps.
    pub instructions: u64,
    /// Branches that parted a warp's lanes.
    pub divergent_branches: u64,
    /// Multiply-accumulates issued to matrix units (mma, wmma). Useful ones follow from the layer's shape.
    pub matrix_macs: u64,
    /// Multiply-accumulates of dp4a and dp2a.
    pub dot_macs: u64,
    /// Multiply-accumulates of 16 bits into 32 (`mad.wide.s16`): what plain kernels multiply with.
    pub half_macs: u64,
    /// Integer mad instructions' lanes; these also compute addresses.
    pub mad_lanes: u64,
    /// Bytes read from global memory by lanes (also by cp.async).
    pub global_read: u64,
    /// Bytes written to global memory by lanes.
    pub global_written: u64,
    /// 32-byte sectors read by warps.
    pub sectors_read: u64,
    /// 32-byte sectors written by warps.
    pub sectors_written: u64,
    /// Different bytes read: the least that must come from memory.
    pub distinct_read: u64,
    /// Different bytes written.
    pub distinct_written: u64,
    /// Bytes read from memory behind a cache of [`crate::Options::cache`] bytes, empty at the start.
    pub memory_read: u64,
    /// Bytes written to memory behind that cache.
    pub memory_written: u64,
    /// Most words of one bank in one shared access.
    pub bank_ways: u32,
    /// Shared-memory passes of 128 bytes; wmma's own loads and stores are not counted.
    pub passes: u64,
    /// Shared-memory passes beyond the least.
    pub extra_passes: u64,
    /// By PTX line, those executed.
    pub lines: Vec<Line>,
}

impl Counters {
    /// Adds another launch of the same kernel.
    pub fn add(&mut self, other: &Self) {
        self.launches += other.launches;
        self.blocks += other.blocks;
        self.last_blocks = other.last_blocks;
        self.threads_per_block = other.threads_per_block;
        self.shared_bytes = other.shared_bytes;
        self.local_bytes = other.local_bytes;
        self.instructions += other.instructions;
        self.divergent_branches += other.divergent_branches;
        self.matrix_macs += other.matrix_macs;
        self.dot_macs += other.dot_macs;
        self.half_macs += other.half_macs;
        self.mad_lanes += other.mad_lanes;
        self.global_read += other.global_read;
        self.global_written += other.global_written;
        self.sectors_read += other.sectors_read;
        self.sectors_written += other.sectors_written;
        self.distinct_read += other.distinct_read;
        self.distinct_written += other.distinct_written;
        self.bank_ways = self.bank_ways.max(other.bank_ways);
        self.memory_read += other.memory_read;
        self.memory_written += other.memory_written;
        self.passes += other.passes;
        self.extra_passes += other.extra_passes;
        for line in &other.lines {
            match self.lines.binary_search_by_key(&line.line, |l| l.line) {
                Ok(at) => {
                    let own = &mut self.lines[at];
                    own.warps += line.warps;
                    own.lanes += line.lanes;
                    own.divergent += line.divergent;
                    own.bank_ways = own.bank_ways.max(line.bank_ways);
                    own.extra_passes += line.extra_passes;
                    own.degrees.iter_mut().zip(line.degrees).for_each(|(own, more)| *own += more);
                }
                Err(at) => self.lines.insert(at, line.clone()),
            }
        }
    }
}
