//! What lies around the network on the device: memory and launches of preparation and explanation.

use super::super::driver::{Argument, Context, DeviceMemory, HostMemory, Kernel, Module, Stream};
use super::super::reading::{BUFFERS, Buffer, Call, KERNELS, Picture, before, behind, blocks};
use super::super::schedule::THREADS;
use super::CudaError;
use crate::engine::plan::Plan;
use crate::model::Head;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Memory of one side or of both.
#[derive(Debug)]
enum Memory {
    Device(DeviceMemory, usize),
    Mapped(HostMemory),
}

impl Memory {
    fn bytes(&self) -> usize {
        match self {
            Memory::Device(_, bytes) => *bytes,
            Memory::Mapped(memory) => memory.as_bytes().len(),
        }
    }

    fn address(&self) -> u64 {
        match self {
            Memory::Device(memory, _) => memory.address(),
            Memory::Mapped(memory) => memory.address(),
        }
    }
}

/// Memory and kernels around the network.
#[derive(Debug)]
pub struct Surroundings {
    context: Arc<Context>,
    head: Option<Head>,
    kernels: BTreeMap<&'static str, Kernel>,
    memory: BTreeMap<Buffer, Memory>,
    /// What is the same for all pictures, until it has its memory.
    constants: BTreeMap<Buffer, Vec<u8>>,
}

impl Surroundings {
    /// Finds the kernels; memory is taken with the first picture. Without a head nothing is explained.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn new(
        context: &Arc<Context>,
        module: &Module,
        plan: &Plan,
        head: Option<Head>,
    ) -> Result<Self, CudaError> {
        let kernel = |name: &'static str| Ok((name, module.kernel(name)?));
        let features = &plan.tensors[plan.features];
        // The explanation reads four channels at a time.
        let words = features.place.is_multiple_of(4) && features.step.is_multiple_of(4);
        let head = head.filter(|_| words);
        let constant = |buffer: Buffer| Some((buffer, buffer.constant(plan, head.as_ref())?));
        Ok(Self {
            context: Arc::clone(context),
            kernels: KERNELS.into_iter().map(kernel).collect::<Result<_, CudaError>>()?,
            constants: BUFFERS.into_iter().filter_map(constant).collect(),
            memory: BTreeMap::new(),
            head,
        })
    }

    /// True where answers are explained.
    pub fn explains(&self) -> bool {
        self.head.is_some()
    }

    /// Takes what memory a picture needs more; true where launches that were recorded before have other memory.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn make_room(&mut self, picture: &Picture) -> Result<bool, CudaError> {
        let mut changed = false;
        for buffer in BUFFERS {
            let wanted = buffer.bytes(picture).max(1);
            if self.memory.get(&buffer).is_some_and(|memory| memory.bytes() >= wanted) {
                continue;
            }
            changed = true;
            // First the old, for there may be no room for both.
            self.memory.remove(&buffer);
            let memory = if buffer.is_mapped() {
                Memory::Mapped(HostMemory::new(&self.context, wanted)?)
            } else {
                let mut memory = DeviceMemory::new(&self.context, wanted)?;
                if let Some(bytes) = self.constants.remove(&buffer) {
                    memory.write(0, &bytes)?;
                }
                Memory::Device(memory, wanted)
            };
            self.memory.insert(buffer, memory);
        }
        Ok(changed)
    }

    /// Puts a picture where the kernels find it; the device must be doing nothing.
    ///
    /// # Errors
    /// [`CudaError::Bounds`] without room.
    pub fn put(&mut self, picture: &Picture, frame: &[u8]) -> Result<(), CudaError> {
        for (buffer, bytes) in [(Buffer::Frame, frame), (Buffer::Picture, &picture.bytes()[..])] {
            let Some(Memory::Mapped(memory)) = self.memory.get_mut(&buffer) else {
                return Err(CudaError::Bounds);
            };
            memory.bytes_mut().get_mut(..bytes.len()).ok_or(CudaError::Bounds)?.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// The bytes of [`Buffer::Seen`] and [`Buffer::Lit`]; the device must be doing nothing.
    pub fn results(&self) -> (&[u8], &[u8]) {
        let bytes = |buffer| match self.memory.get(&buffer) {
            Some(Memory::Mapped(memory)) => memory.as_bytes(),
            _ => &[],
        };
        (bytes(Buffer::Seen), bytes(Buffer::Lit))
    }

    /// Starts the preparation.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn before(&self, stream: &Stream, arena: u64) -> Result<(), CudaError> {
        before(self.blocks()).iter().try_for_each(|call| self.start(stream, arena, call))
    }

    /// Starts the explanation, where there is a head.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn behind(&self, stream: &Stream, arena: u64, picture: &Picture) -> Result<(), CudaError> {
        let Some(head) = &self.head else { return Ok(()) };
        behind(head, picture, self.blocks()).iter().try_for_each(|call| self.start(stream, arena, call))
    }

    fn blocks(&self) -> usize {
        blocks(self.context.device.multiprocessors)
    }

    fn start(&self, stream: &Stream, arena: u64, call: &Call) -> Result<(), CudaError> {
        let address = |buffer: &Buffer| match buffer {
            Buffer::Arena => Ok(Argument::Address(arena)),
            other => {
                let memory = self.memory.get(other).ok_or(CudaError::Bounds)?;
                Ok(Argument::Address(memory.address()))
            }
        };
        let arguments: Vec<Argument> = call.buffers.iter().map(address).collect::<Result<_, CudaError>>()?;
        let kernel = self.kernels.get(call.kernel).ok_or(CudaError::Bounds)?;
        // SAFETY: these are the kernel's arguments; it stays inside the buffers, which were made for the picture that it reads, and who
        // starts it waits for the work, or loses the device, before they go.
        unsafe { stream.launch(*kernel, call.blocks, THREADS, &arguments) }
    }
}
