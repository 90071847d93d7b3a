//! Executes fovea's PTX kernels without a GPU.
//!
//! A PTX module is parsed and decoded ([`Module::load`]), then [`launch`]ed on [`DeviceMemory`]: 32 lanes at a time,
//! with checks that a card does not make.
//!
//! # What it can show
//! - Results, bit for bit, of integer kernels: `mma`, `wmma`, `dp4a`, `ldmatrix` and `cp.async` included.
//! - Accesses outside an allocation, misaligned ones, reads of shared memory that nothing was written to.
//! - Races in shared memory (a missing barrier, a copy not waited for) and, where [`Options::global_races`] is set,
//!   between blocks.
//! - Results that depend on the order of warps, blocks and copies: run the kernel under each [`Schedule`].
//! - Counts: instructions, divergent branches, bytes, sectors, bank conflicts ([`Counters`]).
//!
//! # What it cannot show
//! Speed, errors of ptxas, and the behaviour of a real driver. Approximate float instructions are computed to the
//! nearest value, so that their last bits may differ from a card's.
//!
//! # Example
//! ```
//! use fovea_simulator::{DeviceMemory, Launch, Module, Options, launch, pack_args};
//!
//! let ptx = "
//! .version 7.4
//! .target sm_87
//! .address_size 64
//! .visible .entry double(.param .u64 data)
//! {
//!     .reg .b32 %r<3>;
//!     .reg .b64 %rd<4>;
//!     ld.param.u64 %rd1, [data];
//!     mov.u32 %r1, %tid.x;
//!     mul.wide.u32 %rd2, %r1, 4;
//!     add.s64 %rd3, %rd1, %rd2;
//!     ld.global.u32 %r2, [%rd3];
//!     add.s32 %r2, %r2, %r2;
//!     st.global.u32 [%rd3], %r2;
//!     ret;
//! }";
//! let memory = DeviceMemory::new(1 << 20);
//! let module = Module::load(ptx, &memory)?;
//! let kernel = module.kernel("double")?;
//! let data = memory.allocate(12)?;
//! memory.write(data, &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0])?;
//! let args = pack_args(&module, kernel, &[&data.to_le_bytes()])?;
//! let shape = Launch { grid: [1, 1, 1], block: [3, 1, 1], dynamic_shared: 0, args };
//! launch(&module, kernel, &shape, &memory, &Options::default())?;
//! let mut bytes = [0; 12];
//! memory.read(data, &mut bytes)?;
//! assert_eq!(bytes, [2, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0]);
//! // A fourth thread would leave the allocation: a fault that names the PTX line.
//! let shape = Launch { block: [4, 1, 1], ..shape };
//! let fault = launch(&module, kernel, &shape, &memory, &Options::default()).unwrap_err();
//! assert_eq!(fault.text, "ld.global.u32 %r2, [%rd3];");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod counters;
mod decode;
mod error;
mod exec;
pub mod memory;
mod program;
pub mod ptx;
mod schedule;

use std::sync::Arc;

pub use counters::Counters;
pub use error::{Fault, FaultKind, LoadError};
pub use exec::{Launch, launch, pack_args};
pub use memory::DeviceMemory;
pub use program::Kernel;
pub use schedule::{Options, Schedule};

/// A decoded module.
#[derive(Debug)]
pub struct Module {
    text: ptx::Text,
    kernels: Vec<Kernel>,
    source: Arc<[String]>,
    /// Addresses of the module's variables, by index; 0 for shared ones.
    addresses: Vec<u64>,
}

impl Module {
    /// Parses and decodes PTX, and puts the module's variables into device memory.
    ///
    /// # Errors
    /// [`LoadError`] with the line of what is not PTX or not simulated.
    pub fn load(source: &str, memory: &DeviceMemory) -> Result<Self, LoadError> {
        let text = ptx::parse(source)?;
        let kernels =
            text.entries.iter().map(|e| decode::decode(e, &text.variables)).collect::<Result<Vec<_>, _>>()?;
        let mut addresses = Vec::with_capacity(text.variables.len());
        for variable in &text.variables {
            addresses.push(match variable.space {
                ptx::Space::Global | ptx::Space::Const => {
                    let at = memory.allocate(variable.size)?;
                    memory.fill(at, variable.size, 0)?;
                    memory.write(at, &variable.init)?;
                    at
                }
                _ => 0,
            });
        }
        let source = source.lines().map(|l| l.trim().to_owned()).collect();
        Ok(Self { text, kernels, source, addresses })
    }

    /// `.target`: 87 for sm_87.
    pub fn target(&self) -> u32 {
        self.text.target
    }

    /// `.version`.
    pub fn version(&self) -> (u32, u32) {
        self.text.version
    }

    /// All kernels.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// A kernel by name.
    ///
    /// # Errors
    /// [`LoadError::NoKernel`].
    pub fn kernel(&self, name: &str) -> Result<&Kernel, LoadError> {
        let found = self.kernels.iter().find(|k| k.name() == name);
        found.ok_or_else(|| LoadError::NoKernel(name.into()))
    }

    /// Address and size of a variable at module scope.
    pub fn variable(&self, name: &str) -> Option<(u64, usize)> {
        let index = self.text.variables.iter().position(|v| v.name == name)?;
        (self.addresses[index] != 0).then(|| (self.addresses[index], self.text.variables[index].size))
    }

    /// Frees the module's variables.
    pub fn unload(&self, memory: &DeviceMemory) {
        for address in self.addresses.iter().filter(|a| **a != 0) {
            // A context that was reset has freed them already.
            let _ = memory.free(*address);
        }
    }

    pub(crate) fn line(&self, line: u32) -> String {
        let index = (line as usize).checked_sub(1);
        index.and_then(|i| self.source.get(i)).cloned().unwrap_or_default()
    }

    pub(crate) fn addresses(&self) -> &[u64] {
        &self.addresses
    }
}
