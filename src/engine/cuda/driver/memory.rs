//! Memory on both sides.

use super::super::CudaError;
use super::Context;
use std::ptr::null_mut;
use std::sync::Arc;

/// Memory of the device.
#[derive(Debug)]
pub struct DeviceMemory {
    context: Arc<Context>,
    start: u64,
    bytes: usize,
}

impl DeviceMemory {
    /// That many bytes, at least one, of no certain value.
    ///
    /// # Errors
    /// [`CudaError::Call`] when there is not so much.
    pub fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, CudaError> {
        let api = context.current()?;
        let mut start = 0;
        // SAFETY: the place for the result is valid; freed in `drop`.
        let code = unsafe { (api.allocate)(&raw mut start, bytes.max(1)) };
        context.check(code, "taking memory of the device")?;
        Ok(Self { context: Arc::clone(context), start, bytes })
    }

    /// Memory that holds these bytes.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn of<T: Plain>(context: &Arc<Context>, values: &[T]) -> Result<Self, CudaError> {
        let mut memory = Self::new(context, size_of_val(values))?;
        memory.write(0, values)?;
        Ok(memory)
    }

    /// Copies values to it from byte `from` on, and waits.
    ///
    /// # Errors
    /// [`CudaError::Bounds`] and [`CudaError::Call`].
    pub fn write<T: Plain>(&mut self, from: usize, values: &[T]) -> Result<(), CudaError> {
        let start = self.at(from, size_of_val(values))?;
        if values.is_empty() {
            return Ok(());
        }
        let api = self.context.current()?;
        // SAFETY: both sides have as many bytes, as was examined.
        let code = unsafe { (api.copy_in)(start, values.as_ptr().cast(), size_of_val(values)) };
        self.context.check(code, "copying to the device")
    }

    /// Its address on the device.
    pub fn address(&self) -> u64 {
        self.start
    }

    pub(super) fn at(&self, from: usize, bytes: usize) -> Result<u64, CudaError> {
        let fits = from.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        if fits { Ok(self.start + from as u64) } else { Err(CudaError::Bounds) }
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if let Ok(api) = self.context.current() {
            // SAFETY: allocated in `new`, freed once.
            unsafe { (api.free)(self.start) };
        }
    }
}

/// Types that any bytes are a value of.
pub trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for i8 {}
impl Plain for i32 {}
impl Plain for u32 {}
impl Plain for f32 {}

/// Page-locked memory of this machine: the device copies from and to it by itself, and kernels read and write it in place.
#[derive(Debug)]
pub struct HostMemory {
    context: Arc<Context>,
    pub(super) start: *mut u8,
    pub(super) bytes: usize,
    address: u64,
}
// SAFETY: the memory belongs to this value alone.
unsafe impl Send for HostMemory {}

impl HostMemory {
    /// That many bytes of 0.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, CudaError> {
        // Mapped, and not write-combined, which would make reading slow.
        const MAPPED: u32 = 2;
        let api = context.current()?;
        let mut start = null_mut();
        // SAFETY: the places for results are valid; freed in `drop`.
        let code = unsafe { (api.host_allocate)(&raw mut start, bytes.max(1), MAPPED) };
        context.check(code, "taking page-locked memory")?;
        let mut memory = Self { context: Arc::clone(context), start: start.cast(), bytes, address: 0 };
        memory.bytes_mut().fill(0);
        // SAFETY: the memory was allocated above, mapped, and the place for the result is valid.
        let code = unsafe { (api.host_address)(&raw mut memory.address, start, 0) };
        context.check(code, "asking where the device finds page-locked memory").map(|()| memory)
    }

    /// Its address for kernels.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its bytes; the device must not be writing.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: allocated with this length and zeroed. Work that writes to it ends before `Stream::wait` returns.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }

    /// Its bytes; the device must be doing nothing with it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if let Ok(api) = self.context.current() {
            // SAFETY: allocated in `new`, freed once.
            unsafe { (api.host_free)(self.start.cast()) };
        }
    }
}
