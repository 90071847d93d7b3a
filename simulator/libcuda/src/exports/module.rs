//! Modules and kernels.

use super::{answer, here, put};
use crate::code::{self, Code, Outcome};
use crate::driver::Handle;
use crate::settings::Kind;
use crate::work::{Work, said};
use fovea_simulator::{Launch, Module, pack_args};
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

/// The newest PTX that a driver takes, major times ten plus minor.
fn newest(version: i32) -> u32 {
    match version {
        ..10020 => 64,
        10020..11000 => 65,
        // CUDA 11.0 has PTX 7.0, 11.4 has 7.4, and so on to 12.0 with 8.0 and 13.0 with 9.0.
        _ => ((version / 1000 - 4) * 10 + version % 1000 / 10) as u32,
    }
}

/// Loads PTX. A cubin is for another device.
///
/// # Safety
/// As in `cuda.h`, here and below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut Handle, image: *const c_char) -> Code {
    let load = || -> Outcome {
        let (driver, context) = here()?;
        if image.is_null() {
            return Err(code::INVALID_VALUE);
        }
        if driver.happens(Kind::Module) {
            return Err(code::NO_BINARY_FOR_GPU);
        }
        // SAFETY: PTX ends with a 0, and a cubin has zeros behind its first bytes.
        let text = unsafe { CStr::from_ptr(image) };
        if text.to_bytes().starts_with(b"\x7fELF") {
            return Err(code::NO_BINARY_FOR_GPU);
        }
        let text = text.to_str().map_err(|_| code::INVALID_PTX)?;
        let memory = driver.with(context, |context, _| Ok(Arc::clone(&context.memory)))?;
        let loaded = Module::load(text, &memory).map_err(|error| said(&error, code::INVALID_PTX))?;
        let (major, minor) = loaded.version();
        if major * 10 + minor > newest(driver.settings().version) {
            return Err(code::UNSUPPORTED_PTX_VERSION);
        }
        if loaded.target() > driver.settings().architecture {
            return Err(code::NO_BINARY_FOR_GPU);
        }
        let handle = driver.with(context, |context, handle| {
            context.modules.insert(handle, Arc::new(loaded));
            Ok(handle)
        })?;
        // SAFETY: the caller's promise.
        unsafe { put(module, handle) }
    };
    answer(load())
}

/// Unloads a module once all work is done.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: Handle) -> Code {
    let unload = || -> Outcome {
        let (driver, context) = here()?;
        driver.synchronize(context, None)?;
        driver.with(context, |context, _| {
            let module = context.modules.remove(&module).ok_or(code::INVALID_HANDLE)?;
            context.functions.retain(|_, (of, _)| !Arc::ptr_eq(of, &module));
            module.unload(&context.memory);
            Ok(())
        })
    };
    answer(unload())
}

/// A kernel by its name.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut Handle,
    module: Handle,
    name: *const c_char,
) -> Code {
    let find = || -> Outcome {
        let (driver, context) = here()?;
        // SAFETY: the caller's promise.
        let name = unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| code::NOT_FOUND)?;
        let handle = driver.with(context, |context, handle| {
            let module = context.modules.get(&module).ok_or(code::INVALID_HANDLE)?;
            let number = module.kernels().iter().position(|kernel| kernel.name() == name);
            let kernel = (Arc::clone(module), number.ok_or(code::NOT_FOUND)?);
            context.functions.insert(handle, kernel);
            Ok(handle)
        })?;
        // SAFETY: the caller's promise.
        unsafe { put(function, handle) }
    };
    answer(find())
}

/// Starts a kernel.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "as in cuda.h")]
pub unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: u32,
    stream: Handle,
    arguments: *const *const c_void,
    extra: *const *const c_void,
) -> Code {
    let start = || -> Outcome {
        let (driver, context) = here()?;
        if driver.happens(Kind::Refuse) {
            return Err(code::LAUNCH_OUT_OF_RESOURCES);
        }
        if !extra.is_null() {
            return Err(code::INVALID_VALUE);
        }
        let (module, number) = driver.with(context, |context, _| {
            context.functions.get(&function).cloned().ok_or(code::INVALID_HANDLE)
        })?;
        let kernel = module.kernels().get(number).ok_or(code::INVALID_HANDLE)?;
        let values: Vec<&[u8]> = kernel
            .parameter_sizes()
            .enumerate()
            .map(|(k, size)| {
                // SAFETY: there is a pointer for each parameter, to a value of its size.
                unsafe { std::slice::from_raw_parts((*arguments.wrapping_add(k)).cast(), size) }
            })
            .collect();
        let args = pack_args(&module, kernel, &values).map_err(|fault| said(&fault, code::INVALID_VALUE))?;
        let launch = Launch {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            dynamic_shared: shared as usize,
            args,
        };
        driver.give(context, stream, [Work::Kernel(module, number, launch)])
    };
    answer(start())
}
