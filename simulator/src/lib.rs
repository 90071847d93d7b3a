//! Executes fovea's PTX kernels without a GPU.
//!
//! A PTX module is parsed and decoded ([`Module::load`]), then [`launch`]ed on [`DeviceMemory`]: 32 lanes at a time,
//! with checks that a card does not make.
//!
//! What it cannot show: speed, errors of ptxas, and the behaviour of a real driver.

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
