//! The device and its primary context.

use super::{CURRENT, DRIVER, answer, driver, here, put, settings};
use crate::code::{self, Code, Outcome};
use crate::driver::{Driver, Handle};
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// Multiprocessors of the boards that have the architecture.
fn multiprocessors(architecture: u32) -> i32 {
    match architecture {
        ..60 => 1,
        60..70 => 2,
        70..80 => 6,
        80..100 => 8,
        _ => 20,
    }
}

/// Reads the settings.
#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: u32) -> Code {
    let start = || -> Outcome {
        let settings = settings()?;
        if flags != 0 {
            return Err(code::INVALID_VALUE);
        }
        if settings.devices == 0 {
            return Err(code::NO_DEVICE);
        }
        DRIVER.get_or_init(|| Arc::new(Driver::new(settings)));
        Ok(())
    };
    answer(start())
}

/// The version, which is known before `cuInit`.
///
/// # Safety
/// As in `cuda.h`, here and below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut i32) -> Code {
    // SAFETY: the caller's promise.
    answer(settings().and_then(|settings| unsafe { put(version, settings.version) }))
}

/// One, or none.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut i32) -> Code {
    // SAFETY: the caller's promise.
    answer(driver().and_then(|driver| unsafe { put(count, i32::from(driver.is_there())) }))
}

fn first(number: i32) -> Outcome<&'static Arc<Driver>> {
    let driver = driver()?;
    if number == 0 && driver.is_there() { Ok(driver) } else { Err(code::INVALID_DEVICE) }
}

/// The first device is 0.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut i32, number: i32) -> Code {
    // SAFETY: the caller's promise.
    answer(first(number).and_then(|_| unsafe { put(device, 0) }))
}

/// A name that no device has.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: i32, number: i32) -> Code {
    let say = || -> Outcome {
        let text = format!("fovea simulator sm_{}", first(number)?.settings().architecture);
        let room = usize::try_from(length).map_err(|_| code::INVALID_VALUE)?.checked_sub(1);
        let text = &text.as_bytes()[..text.len().min(room.ok_or(code::INVALID_VALUE)?)];
        for (place, byte) in text.iter().chain(&[0]).enumerate() {
            // SAFETY: the caller gave so much room; one was kept for the 0.
            unsafe { put(name.wrapping_add(place), *byte as c_char)? };
        }
        Ok(())
    };
    answer(say())
}

/// What fovea asks; anything else is 0.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut i32, attribute: i32, number: i32) -> Code {
    let say = || -> Outcome {
        let architecture = first(number)?.settings().architecture;
        let known = match attribute {
            16 => multiprocessors(architecture),
            // Integrated, with memory that both sides map.
            18 | 19 | 41 => 1,
            75 => architecture as i32 / 10,
            76 => architecture as i32 % 10,
            _ => 0,
        };
        // SAFETY: the caller's promise.
        unsafe { put(value, known) }
    };
    answer(say())
}

/// Bytes of the device.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, number: i32) -> Code {
    // SAFETY: the caller's promise.
    answer(first(number).and_then(|_| unsafe { put(bytes, 1 << 30) }))
}

/// Takes the primary context.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, number: i32) -> Code {
    let take = || -> Outcome {
        let handle = driver().and_then(Driver::retain)?;
        first(number)?;
        // SAFETY: the caller's promise.
        unsafe { put(context, handle) }
    };
    answer(take())
}

/// Gives it back.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_: i32) -> Code {
    answer(driver().and_then(|driver| driver.release()))
}

/// Ends it, whatever still runs.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxReset_v2(_: i32) -> Code {
    answer(driver().map(|driver| driver.reset()))
}

/// Makes a context this thread's.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: Handle) -> Code {
    CURRENT.set(context);
    if context == 0 {
        return code::SUCCESS;
    }
    answer(driver().and_then(|driver| driver.with(context, |_, _| Ok(()))))
}

/// Which is this thread's.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut Handle) -> Code {
    // SAFETY: the caller's promise.
    answer(unsafe { put(context, CURRENT.get()) })
}

/// Waits for all work.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> Code {
    answer(here().and_then(|(driver, context)| driver.synchronize(context, None)))
}

/// The name of a result.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(result: Code, name: *mut *const c_char) -> Code {
    // SAFETY: the caller's promise; the names live for ever.
    answer(code::name(result).ok_or(code::INVALID_VALUE).and_then(|text| unsafe { put(name, text.as_ptr()) }))
}

/// The same.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(result: Code, text: *mut *const c_char) -> Code {
    // SAFETY: the caller's promise.
    unsafe { cuGetErrorName(result, text) }
}

/// NVRTC looks for this and ends the program where it is missing.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetExportTable(table: *mut *const c_void, _: *const c_void) -> Code {
    // SAFETY: the caller's promise.
    answer(unsafe { put(table, std::ptr::null()) }.and(Err(code::NOT_FOUND)))
}
