//! Pieces of work of a stream, and the thread that does them.

use crate::code::{self, Code, Outcome};
use crate::driver::{Driver, Handle};
use crate::settings::Kind;
use fovea_simulator::{DeviceMemory, FaultKind, Launch, Module, Options, launch};
use std::sync::Arc;

/// A place in the memory of the program.
#[derive(Clone, Copy, Debug)]
pub struct Host(pub *mut u8);
// SAFETY: an address; who gives the work promises that the memory lives until it is done.
unsafe impl Send for Host {}

/// A piece of work.
#[derive(Clone, Debug)]
pub enum Work {
    /// A kernel, by its number in the module.
    Kernel(Arc<Module>, usize, Launch),
    /// Bytes from the host.
    In(u64, Host, usize),
    /// Bytes to the host.
    Out(Host, u64, usize),
    /// Bytes on the device that become one value.
    Fill(u64, u8, usize),
    /// An event comes, for this recording of it.
    Mark(Handle, u64),
    /// Waits for that recording of an event.
    Await(Handle, u64),
}

/// Copies from the host.
///
/// # Safety
/// The host's memory has so many bytes, which nobody writes meanwhile.
///
/// # Errors
/// [`code::INVALID_VALUE`] where the device's are not inside one allocation.
pub unsafe fn copy_in(memory: &DeviceMemory, to: u64, from: Host, bytes: usize) -> Outcome {
    // SAFETY: the caller's promise.
    let from = unsafe { std::slice::from_raw_parts(from.0, bytes) };
    memory.write(to, from).map_err(|error| said(&error, code::INVALID_VALUE))
}

/// Copies to the host; `wrong` turns every bit.
///
/// # Safety
/// The host's memory has so many bytes, which nobody else uses meanwhile.
///
/// # Errors
/// As [`copy_in`].
pub unsafe fn copy_out(memory: &DeviceMemory, to: Host, from: u64, bytes: usize, wrong: bool) -> Outcome {
    // SAFETY: the caller's promise.
    let to = unsafe { std::slice::from_raw_parts_mut(to.0, bytes) };
    memory.read(from, to).map_err(|error| said(&error, code::INVALID_VALUE))?;
    if wrong {
        to.iter_mut().for_each(|byte| *byte = !*byte);
    }
    Ok(())
}

/// Tells the tester what the driver's code does not.
pub fn said(error: &dyn std::fmt::Display, code: Code) -> Code {
    eprintln!("fovea simulator: {error}");
    code
}

/// How a kernel's end is told.
fn of_kernel(kind: FaultKind) -> Code {
    match kind {
        FaultKind::OutOfBounds => code::ILLEGAL_ADDRESS,
        FaultKind::Misaligned => code::MISALIGNED_ADDRESS,
        FaultKind::Launch => code::LAUNCH_OUT_OF_RESOURCES,
        FaultKind::Hang => code::LAUNCH_TIMEOUT,
        _ => code::LAUNCH_FAILED,
    }
}

impl Driver {
    /// Does work of the context `context` until it is gone.
    pub(crate) fn serve(&self, context: Handle) {
        while let Some((stream, work)) = self.take(context) {
            let done = match &work {
                Work::Mark(event, recording) => {
                    self.come(context, *event, *recording);
                    Ok(())
                }
                work => self.perform(context, work),
            };
            self.finish(context, stream, done);
        }
    }

    fn perform(&self, context: Handle, work: &Work) -> Outcome {
        let Some(memory) = self.memory(context) else { return Ok(()) };
        match work {
            Work::Kernel(module, number, shape) => {
                if self.happens(Kind::Lost) {
                    self.lose();
                    return Err(code::DEVICE_UNAVAILABLE);
                }
                if self.happens(Kind::Launch) {
                    return Err(code::LAUNCH_FAILED);
                }
                if self.happens(Kind::Hang) {
                    self.stay(context);
                    return Ok(());
                }
                let kernel = module.kernels().get(*number).ok_or(code::INVALID_HANDLE)?;
                let settings = self.settings();
                let options = Options {
                    schedule: settings.schedule,
                    shared_races: settings.checks,
                    uninitialised: settings.checks,
                    ..Options::default()
                };
                launch(module, kernel, shape, &memory, &options)
                    .map(|_| ())
                    .map_err(|fault| said(&fault, of_kernel(fault.kind)))
            }
            // SAFETY: promised when the work was given.
            Work::In(to, from, bytes) => unsafe { copy_in(&memory, *to, *from, *bytes) },
            Work::Out(to, from, bytes) => {
                let wrong = self.happens(Kind::Wrong);
                // SAFETY: as above.
                unsafe { copy_out(&memory, *to, *from, *bytes, wrong) }
            }
            Work::Fill(to, value, bytes) => {
                memory.fill(*to, *bytes, *value).map_err(|error| said(&error, code::INVALID_VALUE))
            }
            Work::Mark(..) | Work::Await(..) => Ok(()),
        }
    }
}
