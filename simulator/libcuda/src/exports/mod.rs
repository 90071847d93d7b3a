//! The functions by the names that programs look for, with the types of `cuda.h`: a `CUresult` is an unsigned int, handles are
//! pointers that nobody may follow.

pub mod device;
pub mod memory;
pub mod module;
pub mod stream;

use crate::code::{self, Code, Outcome};
use crate::driver::{Driver, Handle};
use crate::settings::Settings;
use crate::work::said;
use std::cell::Cell;
use std::sync::{Arc, OnceLock};

static DRIVER: OnceLock<Arc<Driver>> = OnceLock::new();

thread_local! {
    /// The current context of this thread.
    static CURRENT: Cell<Handle> = const { Cell::new(0) };
}

/// The driver, once `cuInit` was called.
fn driver() -> Outcome<&'static Arc<Driver>> {
    DRIVER.get().ok_or(code::NOT_INITIALIZED)
}

/// The settings of this process.
fn settings() -> Outcome<Settings> {
    Settings::read(|name| std::env::var(name).ok()).map_err(|error| said(&error, code::INVALID_VALUE))
}

/// Driver and current context.
fn here() -> Outcome<(&'static Arc<Driver>, Handle)> {
    let driver = driver()?;
    match CURRENT.get() {
        0 => Err(code::INVALID_CONTEXT),
        handle => Ok((driver, handle)),
    }
}

fn answer(done: Outcome) -> Code {
    done.err().unwrap_or(code::SUCCESS)
}

/// Writes a result to the caller's place.
///
/// # Safety
/// `to` is null or a place for a `T`.
unsafe fn put<T>(to: *mut T, value: T) -> Outcome {
    if to.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}
