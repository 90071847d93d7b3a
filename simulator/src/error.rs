//! What can go wrong when a module is loaded or a kernel runs.

use thiserror::Error;

/// Why PTX could not be loaded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LoadError {
    /// The text is not PTX.
    #[error("PTX line {line}: {what}")]
    Syntax {
        /// Line from 1.
        line: u32,
        /// What was found.
        what: String,
    },
    /// Valid perhaps, but not simulated.
    #[error("PTX line {line}: the simulator does not know {what}")]
    Unsupported {
        /// Line from 1.
        line: u32,
        /// The opcode or directive.
        what: String,
    },
    /// The module has no kernel of this name.
    #[error("the module has no kernel `{0}`")]
    NoKernel(String),
    /// Device memory for the module's variables ran out.
    #[error(transparent)]
    Memory(#[from] crate::memory::MemoryError),
}

/// The kind of a fault, as the driver tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Outside every allocation, or of the shared, local or parameter memory.
    OutOfBounds,
    /// Not aligned to the access's size.
    Misaligned,
    /// Shared memory read before anything was written to it.
    Uninitialised,
    /// Two accesses without an order between them.
    Race,
    /// A barrier or warp-wide instruction reached by a part of the threads.
    Divergence,
    /// `trap`, or an integer operation that has no result here.
    Trap,
    /// More instructions than the limit: taken for a hang.
    Hang,
    /// The launch does not fit the kernel or the device.
    Launch,
}

/// A kernel stopped.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{kernel}: {what} (block {block:?}, warp {warp}; PTX line {line}: {text})")]
pub struct Fault {
    /// Its kind.
    pub kind: FaultKind,
    /// Kernel.
    pub kernel: String,
    /// What happened.
    pub what: String,
    /// Line of the PTX text, from 1; 0 when no single line is at fault.
    pub line: u32,
    /// That line.
    pub text: String,
    /// Block.
    pub block: [u32; 3],
    /// Warp in the block.
    pub warp: u32,
}
