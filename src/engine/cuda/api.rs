//! The driver's functions, found by name in the library that `cudarc` loads.
//!
//! `cudarc`'s own functions panic where the library or one of its symbols is missing, its context creation asks old drivers
//! for what they do not know, and its result type has no place for codes of newer drivers. Here a missing symbol is an error,
//! and a code is a number. So CUDA 10.2 (Jetson Nano, TX2) works as well as 13 (Thor).

use super::CudaError;
use cudarc::driver::sys::{self, CUcontext, CUevent, CUfunction, CUgraph, CUgraphExec, CUmodule, CUstream};
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

/// A driver's result: 0 is success.
pub type Code = u32;

macro_rules! api {
    ({$($(#[$doc:meta])* $name:ident($($kind:ty),*) = $($symbol:literal)|+;)*}
     optional {$($(#[$maybe_doc:meta])* $maybe:ident($($maybe_kind:ty),*) = $($maybe_symbol:literal)|+;)*}) => {
        /// The functions; the optional ones came with CUDA 10.1 or later.
        #[derive(Debug)]
        pub struct Api {
            $($(#[$doc])* pub $name: unsafe extern "C" fn($($kind),*) -> Code,)*
            $($(#[$maybe_doc])* pub $maybe: Option<unsafe extern "C" fn($($maybe_kind),*) -> Code>,)*
        }

        impl Api {
            fn load(library: &Library) -> Result<Self, CudaError> {
                Ok(Self {
                    $($name: library.first(&[$($symbol),+]).ok_or(CudaError::Symbol([$($symbol),+][0]))?,)*
                    $($maybe: library.first(&[$($maybe_symbol),+]),)*
                })
            }
        }
    };
}

api! {{
    init(u32) = "cuInit";
    driver_version(*mut i32) = "cuDriverGetVersion";
    device_count(*mut i32) = "cuDeviceGetCount";
    device(*mut i32, i32) = "cuDeviceGet";
    device_name(*mut c_char, i32, i32) = "cuDeviceGetName";
    device_attribute(*mut i32, i32, i32) = "cuDeviceGetAttribute";
    retain(*mut CUcontext, i32) = "cuDevicePrimaryCtxRetain";
    release(i32) = "cuDevicePrimaryCtxRelease_v2" | "cuDevicePrimaryCtxRelease";
    reset(i32) = "cuDevicePrimaryCtxReset_v2" | "cuDevicePrimaryCtxReset";
    set_current(CUcontext) = "cuCtxSetCurrent";
    allocate(*mut u64, usize) = "cuMemAlloc_v2";
    free(u64) = "cuMemFree_v2";
    host_allocate(*mut *mut c_void, usize, u32) = "cuMemHostAlloc";
    host_address(*mut u64, *mut c_void, u32) = "cuMemHostGetDevicePointer_v2" | "cuMemHostGetDevicePointer";
    host_free(*mut c_void) = "cuMemFreeHost";
    copy_in(u64, *const c_void, usize) = "cuMemcpyHtoD_v2";
    copy_in_async(u64, *const c_void, usize, CUstream) = "cuMemcpyHtoDAsync_v2";
    copy_out_async(*mut c_void, u64, usize, CUstream) = "cuMemcpyDtoHAsync_v2";
    module_load(*mut CUmodule, *const c_void) = "cuModuleLoadData";
    module_unload(CUmodule) = "cuModuleUnload";
    module_function(*mut CUfunction, CUmodule, *const c_char) = "cuModuleGetFunction";
    stream_create(*mut CUstream, u32) = "cuStreamCreate";
    stream_destroy(CUstream) = "cuStreamDestroy_v2" | "cuStreamDestroy";
    launch(CUfunction, u32, u32, u32, u32, u32, u32, u32, CUstream, *mut *mut c_void, *mut *mut c_void) = "cuLaunchKernel";
    event_create(*mut CUevent, u32) = "cuEventCreate";
    event_destroy(CUevent) = "cuEventDestroy_v2" | "cuEventDestroy";
    event_record(CUevent, CUstream) = "cuEventRecord";
    event_query(CUevent) = "cuEventQuery";
    event_elapsed(*mut f32, CUevent, CUevent) = "cuEventElapsedTime";
} optional {
    error_name(Code, *mut *const c_char) = "cuGetErrorName";
    capture_begin(CUstream, u32) = "cuStreamBeginCapture_v2";
    capture_end(CUstream, *mut CUgraph) = "cuStreamEndCapture";
    /// With flags, from CUDA 11.4 on.
    graph_instantiate(*mut CUgraphExec, CUgraph, u64) = "cuGraphInstantiateWithFlags";
    /// With a place for messages, before.
    graph_instantiate_old(*mut CUgraphExec, CUgraph, *mut *mut c_void, *mut c_char, usize) =
        "cuGraphInstantiate_v2" | "cuGraphInstantiate";
    graph_launch(CUgraphExec, CUstream) = "cuGraphLaunch";
    graph_exec_destroy(CUgraphExec) = "cuGraphExecDestroy";
    graph_destroy(CUgraph) = "cuGraphDestroy";
}}

/// The driver's library, loaded by `cudarc`.
struct Library;

impl Library {
    fn open() -> Result<Self, CudaError> {
        // SAFETY: loads the system's CUDA driver, whose start-up code has no conditions that could be broken here.
        if unsafe { sys::is_culib_present() } { Ok(Self) } else { Err(CudaError::Absent) }
    }

    /// The first of these symbols that there is.
    fn first<F: Copy>(&self, names: &[&str]) -> Option<F> {
        names.iter().find_map(|name| {
            // SAFETY: the library is present, or there were no `Library`, so `culib` does not panic; the types in `api!` are
            // those of the symbols in `cuda.h` (CUresult is an unsigned int there, CUdeviceptr 64 bits wide).
            unsafe { sys::culib().get::<F>(name.as_bytes()).ok().map(|symbol| *symbol) }
        })
    }
}

/// The functions of the driver on this machine.
///
/// # Errors
/// [`CudaError::Absent`] and [`CudaError::Symbol`].
pub fn api() -> Result<&'static Api, CudaError> {
    static API: OnceLock<Api> = OnceLock::new();
    if let Some(api) = API.get() {
        return Ok(api);
    }
    // A driver that is missing now may be there the next time, so only success is remembered.
    let loaded = Api::load(&Library::open()?)?;
    Ok(API.get_or_init(|| loaded))
}
