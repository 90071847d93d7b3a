//! The CUDA driver in safe clothes: a context, memory on both sides, streams, events, modules and graphs.
//!
//! Everything that lives on the device holds its [`Context`]. Once a kernel hung, the context is marked lost and nothing of
//! it is freed any more: the driver would wait for the kernel, for ever.

mod memory;

pub use memory::{DeviceMemory, HostMemory};

use super::CudaError;
use super::api::{Api, Code, api};
use cudarc::driver::sys::{CUcontext, CUevent, CUfunction, CUgraphExec, CUmodule, CUstream};
use std::ffi::{CStr, CString, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The oldest driver that is known to have all that is needed: CUDA 10.2, JetPack 4.
const OLDEST: i32 = 10020;
/// `CUDA_ERROR_NOT_READY`: an event has not come yet.
const NOT_READY: Code = 600;
/// Attributes of a device, as in `cuda.h`.
const MULTIPROCESSORS: i32 = 16;
const MAJOR: i32 = 75;
const MINOR: i32 = 76;

/// What the device is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Compute capability, major times ten plus minor: 87 is Orin.
    pub capability: u32,
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// The newest CUDA that the driver knows, as in `12.6`.
    pub driver: String,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, capability, multiprocessors, driver } = self;
        write!(f, "{name} (sm_{capability}, {multiprocessors} multiprocessors), driver for CUDA {driver}")
    }
}

/// The first device, ready for work.
#[derive(Debug)]
pub struct Context {
    api: &'static Api,
    raw: CUcontext,
    number: i32,
    /// What it is.
    pub device: Device,
    lost: AtomicBool,
}
// SAFETY: the driver's functions may be called from any thread; each call here makes the context current first.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// The primary context belongs to the process: how many hold it, and whether it was lost.
#[derive(Default)]
struct Holders {
    count: usize,
    lost: bool,
}

fn holders() -> MutexGuard<'static, Holders> {
    static HOLDERS: Mutex<Holders> = Mutex::new(Holders { count: 0, lost: false });
    HOLDERS.lock().unwrap_or_else(|e| e.into_inner())
}

/// The error of a call that was meant to do this.
fn check(api: &Api, code: Code, doing: &'static str) -> Result<(), CudaError> {
    if code == 0 {
        return Ok(());
    }
    let mut name = std::ptr::null();
    // SAFETY: the place for the pointer is valid.
    let known = api.error_name.is_some_and(|f| unsafe { f(code, &raw mut name) } == 0) && !name.is_null();
    let name = if known {
        // SAFETY: the driver's names are strings that it never frees.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    } else {
        "unknown".into()
    };
    Err(CudaError::Call { doing, code, name })
}

impl Context {
    /// Looks for a driver and a device and takes the first device.
    ///
    /// # Errors
    /// [`CudaError`] in a sentence where there is none that can be used; never panics.
    pub fn open() -> Result<Arc<Self>, CudaError> {
        let api = api()?;
        let (mut version, mut count, mut number) = (0, 0, 0);
        // SAFETY: the places for results are valid, here and below.
        unsafe {
            check(api, (api.driver_version)(&raw mut version), "asking for the driver's version")?;
            if version < OLDEST {
                return Err(CudaError::Old { major: version / 1000, minor: version % 1000 / 10 });
            }
            check(api, (api.init)(0), "starting the driver")?;
            check(api, (api.device_count)(&raw mut count), "counting the devices")?;
            if count < 1 {
                return Err(CudaError::NoDevice);
            }
            check(api, (api.device)(&raw mut number, 0), "choosing the device")?;
        }
        let attribute = |which: i32| -> Result<i32, CudaError> {
            let mut value = 0;
            // SAFETY: as above.
            let code = unsafe { (api.device_attribute)(&raw mut value, which, number) };
            check(api, code, "asking what the device can do").map(|()| value)
        };
        let capability = attribute(MAJOR)? * 10 + attribute(MINOR)?;
        let multiprocessors = attribute(MULTIPROCESSORS)?.max(1) as usize;
        let mut name = [0u8; 128];
        // SAFETY: the array is as long as is said, and its last byte stays 0.
        let code = unsafe { (api.device_name)(name.as_mut_ptr().cast(), name.len() as i32 - 1, number) };
        check(api, code, "asking for the device's name")?;
        let name =
            CStr::from_bytes_until_nul(&name).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let mut holders = holders();
        if holders.lost {
            if holders.count > 0 {
                return Err(CudaError::Lost);
            }
            // SAFETY: nobody holds the context, so that nothing of it is used any more.
            check(api, unsafe { (api.reset)(number) }, "resetting the device")?;
            holders.lost = false;
        }
        let mut raw = null_mut();
        // SAFETY: as above; every retained context is released in `drop`.
        check(api, unsafe { (api.retain)(&raw mut raw, number) }, "taking the device")?;
        let driver = format!("{}.{}", version / 1000, version % 1000 / 10);
        let device = Device { name, capability: capability as u32, multiprocessors, driver };
        holders.count += 1;
        drop(holders);
        let context = Self { api, raw, number, device, lost: AtomicBool::new(false) };
        context.current()?;
        Ok(Arc::new(context))
    }

    /// Makes the context this thread's.
    fn current(&self) -> Result<&'static Api, CudaError> {
        if self.lost.load(Ordering::Relaxed) {
            return Err(CudaError::Lost);
        }
        // SAFETY: the context is retained until `drop`.
        check(self.api, unsafe { (self.api.set_current)(self.raw) }, "entering the device's context")?;
        Ok(self.api)
    }

    fn check(&self, code: Code, doing: &'static str) -> Result<(), CudaError> {
        check(self.api, code, doing)
    }

    /// Says that nothing can be had from the device any more, until all who hold it let go and it is opened again.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
        holders().lost = true;
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let mut holders = holders();
        holders.count -= 1;
        if !self.lost.load(Ordering::Relaxed) {
            // SAFETY: retained once, and all that lives in it held it and is gone.
            unsafe { (self.api.release)(self.number) };
        }
    }
}

/// Compiled kernels.
#[derive(Debug)]
pub struct Module {
    context: Arc<Context>,
    raw: CUmodule,
}
// SAFETY: a handle that the driver lets any thread use.
unsafe impl Send for Module {}

impl Module {
    /// Loads a cubin or PTX.
    ///
    /// # Errors
    /// [`CudaError::Call`] when the driver cannot use it.
    pub fn load(context: &Arc<Context>, image: &[u8]) -> Result<Self, CudaError> {
        let api = context.current()?;
        // PTX ends with a 0; a cubin knows its length.
        let mut image = image.to_vec();
        image.push(0);
        let mut raw = null_mut();
        // SAFETY: the image is whole and lives through the call.
        let code = unsafe { (api.module_load)(&raw mut raw, image.as_ptr().cast()) };
        context.check(code, "loading the kernels")?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    /// A kernel by its name; it must not be used after the module is gone.
    ///
    /// # Errors
    /// [`CudaError::Call`] when there is none.
    pub fn kernel(&self, name: &str) -> Result<Kernel, CudaError> {
        let api = self.context.current()?;
        let name = CString::new(name).map_err(|_| CudaError::Bounds)?;
        let mut raw = null_mut();
        // SAFETY: the name is a string, the module is loaded.
        let code = unsafe { (api.module_function)(&raw mut raw, self.raw, name.as_ptr()) };
        self.context.check(code, "looking for a kernel")?;
        Ok(Kernel(raw))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if let Ok(api) = self.context.current() {
            // SAFETY: loaded once, unloaded once.
            unsafe { (api.module_unload)(self.raw) };
        }
    }
}

/// A kernel of a module.
#[derive(Clone, Copy, Debug)]
pub struct Kernel(CUfunction);
// SAFETY: a handle that the driver lets any thread use.
unsafe impl Send for Kernel {}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// An address on the device.
    Address(u64),
    /// A number.
    Int(i32),
}

/// Work in order.
#[derive(Debug)]
pub struct Stream {
    context: Arc<Context>,
    raw: CUstream,
    done: Event,
}
// SAFETY: a handle that the driver lets any thread use.
unsafe impl Send for Stream {}

impl Stream {
    /// A stream that does not wait for the default one.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn new(context: &Arc<Context>) -> Result<Self, CudaError> {
        const NON_BLOCKING: u32 = 1;
        let api = context.current()?;
        let done = Event::new(context)?;
        let mut raw = null_mut();
        // SAFETY: the place for the result is valid; destroyed in `drop`.
        let code = unsafe { (api.stream_create)(&raw mut raw, NON_BLOCKING) };
        context.check(code, "making a stream")?;
        Ok(Self { context: Arc::clone(context), raw, done })
    }

    /// Starts a kernel with so many blocks of so many threads.
    ///
    /// # Safety
    /// The arguments are those of the kernel in number and kind, its module is loaded, and with them it reads and writes only
    /// memory that lives until the work is done.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub unsafe fn launch(
        &self,
        kernel: Kernel,
        blocks: usize,
        threads: usize,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let api = self.context.current()?;
        let mut places: Vec<*mut c_void> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Address(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Argument::Int(value) => std::ptr::from_ref(value).cast_mut().cast(),
            })
            .collect();
        // SAFETY: the driver copies the arguments before it returns; the rest is the caller's promise.
        let code = unsafe {
            let (blocks, threads) = (blocks as u32, threads as u32);
            (api.launch)(kernel.0, blocks, 1, 1, threads, 1, 1, 0, self.raw, places.as_mut_ptr(), null_mut())
        };
        self.context.check(code, "starting a kernel")
    }

    /// Copies from page-locked memory to the device, when its turn comes.
    ///
    /// # Errors
    /// [`CudaError::Bounds`] and [`CudaError::Call`].
    pub fn copy_in(&self, to: &DeviceMemory, at: usize, from: &HostMemory) -> Result<(), CudaError> {
        let start = to.at(at, from.bytes)?;
        let api = self.context.current()?;
        // SAFETY: both sides are long enough; who owns them keeps them until the work is done.
        let code = unsafe { (api.copy_in_async)(start, from.start.cast(), from.bytes, self.raw) };
        self.context.check(code, "copying to the device")
    }

    /// Copies from the device to page-locked memory, when its turn comes.
    ///
    /// # Errors
    /// [`CudaError::Bounds`] and [`CudaError::Call`].
    pub fn copy_out(&self, to: &HostMemory, from: &DeviceMemory, at: usize) -> Result<(), CudaError> {
        let start = from.at(at, to.bytes)?;
        let api = self.context.current()?;
        // SAFETY: as in `copy_in`.
        let code = unsafe { (api.copy_out_async)(to.start.cast(), start, to.bytes, self.raw) };
        self.context.check(code, "copying from the device")
    }

    /// Records what `work` starts, as a graph that can be started in one call; `None` where the driver has no graphs.
    ///
    /// # Errors
    /// Those of `work`, and [`CudaError::Call`].
    pub fn record(
        &self,
        work: impl FnOnce(&Self) -> Result<(), CudaError>,
    ) -> Result<Option<Graph>, CudaError> {
        const THREAD_LOCAL: u32 = 1;
        let api = self.context.current()?;
        let (Some(begin), Some(end), Some(launch)) = (api.capture_begin, api.capture_end, api.graph_launch)
        else {
            return Ok(None);
        };
        let (Some(destroy), Some(destroy_exec)) = (api.graph_destroy, api.graph_exec_destroy) else {
            return Ok(None);
        };
        let mut graph = null_mut();
        // SAFETY: the stream lives, the places for results are valid, and the graph is destroyed once it is instantiated.
        unsafe {
            self.context.check(begin(self.raw, THREAD_LOCAL), "recording a graph")?;
            let worked = work(self);
            let code = end(self.raw, &raw mut graph);
            worked?;
            self.context.check(code, "recording a graph")?;
            let mut raw = null_mut();
            let code = match (api.graph_instantiate, api.graph_instantiate_old) {
                (Some(make), _) => make(&raw mut raw, graph, 0),
                (None, Some(make)) => make(&raw mut raw, graph, null_mut(), null_mut(), 0),
                (None, None) => {
                    destroy(graph);
                    return Ok(None);
                }
            };
            destroy(graph);
            self.context.check(code, "making a graph")?;
            Ok(Some(Graph { context: Arc::clone(&self.context), raw, launch, destroy: destroy_exec }))
        }
    }

    /// Notes a time in the stream.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn mark(&self, event: &Event) -> Result<(), CudaError> {
        let api = self.context.current()?;
        // SAFETY: both live.
        let code = unsafe { (api.event_record)(event.raw, self.raw) };
        self.context.check(code, "marking a time")
    }

    /// Waits until all that was started is done.
    ///
    /// # Errors
    /// [`CudaError::Hung`] when it takes longer than `limit`, which loses the device; [`CudaError::Call`] when a kernel failed.
    pub fn wait(&self, limit: Duration) -> Result<(), CudaError> {
        self.mark(&self.done)?;
        let start = Instant::now();
        loop {
            // SAFETY: the event lives.
            let code = unsafe { (self.context.api.event_query)(self.done.raw) };
            let waited = start.elapsed();
            match code {
                NOT_READY if waited > limit => {
                    self.context.lose();
                    return Err(CudaError::Hung(limit));
                }
                // A network takes milliseconds: the first of them are not worth a sleep.
                NOT_READY if waited < Duration::from_millis(1) => std::hint::spin_loop(),
                NOT_READY => std::thread::sleep(Duration::from_micros(50)),
                code => {
                    let done = self.context.check(code, "computing");
                    if done.is_err() {
                        // After a fault in a kernel every call of the context fails.
                        self.context.lose();
                    }
                    return done;
                }
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(api) = self.context.current() {
            // SAFETY: made once, destroyed once.
            unsafe { (api.stream_destroy)(self.raw) };
        }
    }
}

/// A time on the device.
#[derive(Debug)]
pub struct Event {
    context: Arc<Context>,
    raw: CUevent,
}
// SAFETY: a handle that the driver lets any thread use.
unsafe impl Send for Event {}

impl Event {
    /// One that has not come.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn new(context: &Arc<Context>) -> Result<Self, CudaError> {
        let api = context.current()?;
        let mut raw = null_mut();
        // SAFETY: the place for the result is valid; destroyed in `drop`.
        context.check(unsafe { (api.event_create)(&raw mut raw, 0) }, "making an event")?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    /// Milliseconds from this one to a later one, once both have come.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn until(&self, later: &Self) -> Result<f32, CudaError> {
        let api = self.context.current()?;
        let mut time = 0.0;
        // SAFETY: both live, and the place for the result is valid.
        let code = unsafe { (api.event_elapsed)(&raw mut time, self.raw, later.raw) };
        self.context.check(code, "measuring a time").map(|()| time)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(api) = self.context.current() {
            // SAFETY: made once, destroyed once.
            unsafe { (api.event_destroy)(self.raw) };
        }
    }
}

/// Recorded work.
#[derive(Debug)]
pub struct Graph {
    context: Arc<Context>,
    raw: CUgraphExec,
    launch: unsafe extern "C" fn(CUgraphExec, CUstream) -> Code,
    destroy: unsafe extern "C" fn(CUgraphExec) -> Code,
}
// SAFETY: a handle that the driver lets any thread use.
unsafe impl Send for Graph {}

impl Graph {
    /// Starts it.
    ///
    /// # Safety
    /// The memory and the modules that it was recorded with live until the work is done.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub unsafe fn start(&self, stream: &Stream) -> Result<(), CudaError> {
        self.context.current()?;
        // SAFETY: both live; the rest is the caller's promise.
        let code = unsafe { (self.launch)(self.raw, stream.raw) };
        self.context.check(code, "starting the graph")
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.context.current().is_ok() {
            // SAFETY: made once, destroyed once.
            unsafe { (self.destroy)(self.raw) };
        }
    }
}
