//! Memory of the device and page-locked memory of the host.

use super::{answer, here, put};
use crate::code::{self, Code, Outcome};
use crate::driver::Handle;
use crate::settings::Kind;
use crate::work::{Host, Work, copy_in, copy_out, said};
use fovea_simulator::DeviceMemory;
use std::sync::Arc;

fn memory() -> Outcome<Arc<DeviceMemory>> {
    let (driver, context) = here()?;
    driver.with(context, |context, _| Ok(Arc::clone(&context.memory)))
}

/// Memory of the device, full of poison.
///
/// # Safety
/// As in `cuda.h`, here and below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> Code {
    let take = || -> Outcome {
        let memory = memory()?;
        if bytes == 0 {
            return Err(code::INVALID_VALUE);
        }
        if here()?.0.happens(Kind::Allocation) {
            return Err(code::OUT_OF_MEMORY);
        }
        let start = memory.allocate(bytes).map_err(|error| said(&error, code::OUT_OF_MEMORY))?;
        // SAFETY: the caller's promise.
        unsafe { put(address, start) }
    };
    answer(take())
}

/// Frees it once all work is done.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> Code {
    let free = || -> Outcome {
        let (driver, context) = here()?;
        driver.synchronize(context, None)?;
        memory()?.free(address).map_err(|error| said(&error, code::INVALID_VALUE))
    };
    answer(free())
}

/// `CU_MEMHOSTALLOC_DEVICEMAP`.
const MAPPED: u32 = 2;

/// Memory of both sides; the device knows it by another address, and kernels may use it where the flags say so.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(pointer: *mut *mut u8, bytes: usize, flags: u32) -> Code {
    let take = || -> Outcome {
        let memory = memory()?;
        if bytes == 0 || flags > 7 {
            return Err(code::INVALID_VALUE);
        }
        if here()?.0.happens(Kind::Pinned) {
            return Err(code::OUT_OF_MEMORY);
        }
        let mapped = flags & MAPPED != 0;
        let start =
            memory.allocate_pinned(bytes, mapped).map_err(|error| said(&error, code::OUT_OF_MEMORY))?;
        let host = memory.host_pointer(start).ok_or(code::OUT_OF_MEMORY)?;
        // SAFETY: the caller's promise.
        unsafe { put(pointer, host) }
    };
    answer(take())
}

/// Frees it once all work is done.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(pointer: *mut u8) -> Code {
    let free = || -> Outcome {
        let (driver, context) = here()?;
        driver.synchronize(context, None)?;
        let (start, _) = memory()?.device_address(pointer).ok_or(code::INVALID_VALUE)?;
        memory()?.free(start).map_err(|error| said(&error, code::INVALID_VALUE))
    };
    answer(free())
}

/// The address by which kernels know mapped memory.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostGetDevicePointer_v2(
    address: *mut u64,
    pointer: *mut u8,
    flags: u32,
) -> Code {
    let say = || -> Outcome {
        if flags != 0 {
            return Err(code::INVALID_VALUE);
        }
        let start = memory()?.mapped_address(pointer).ok_or(code::INVALID_VALUE)?;
        // SAFETY: the caller's promise.
        unsafe { put(address, start) }
    };
    answer(say())
}

/// Bytes free and in all.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, all: *mut usize) -> Code {
    let say = || -> Outcome {
        let (left, capacity) = memory()?.info();
        // SAFETY: the caller's promise.
        unsafe { put(free, left as usize).and(put(all, capacity as usize)) }
    };
    answer(say())
}

/// Copies at once. Streams that do not wait for the default one, as fovea's, go on meanwhile.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const u8, bytes: usize) -> Code {
    // SAFETY: the caller's promise.
    answer(memory().and_then(|memory| unsafe { copy_in(&memory, to, Host(from.cast_mut()), bytes) }))
}

/// Copies at once.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut u8, from: u64, bytes: usize) -> Code {
    let copy = || -> Outcome {
        let wrong = here()?.0.happens(Kind::Wrong);
        // SAFETY: the caller's promise.
        unsafe { copy_out(&*memory()?, Host(to), from, bytes, wrong) }
    };
    answer(copy())
}

/// Copies when its turn comes: from page-locked memory then, from other memory now, as drivers do.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const u8,
    bytes: usize,
    stream: Handle,
) -> Code {
    let give = || -> Outcome {
        let (driver, context) = here()?;
        if memory()?.device_address(from).is_none_or(|(_, left)| left < bytes) {
            return Err(said(
                &"an asynchronous copy from memory that is not page-locked",
                code::INVALID_VALUE,
            ));
        }
        driver.give(context, stream, [Work::In(to, Host(from.cast_mut()), bytes)])
    };
    answer(give())
}

/// Copies when its turn comes.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, stream: Handle) -> Code {
    let give = || -> Outcome {
        let (driver, context) = here()?;
        if memory()?.device_address(to).is_none_or(|(_, left)| left < bytes) {
            return Err(said(&"an asynchronous copy to memory that is not page-locked", code::INVALID_VALUE));
        }
        driver.give(context, stream, [Work::Out(Host(to), from, bytes)])
    };
    answer(give())
}

/// Sets bytes when its turn comes.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, stream: Handle) -> Code {
    answer(here().and_then(|(driver, context)| driver.give(context, stream, [Work::Fill(to, value, bytes)])))
}
