//! Streams, events and graphs.

use super::{answer, here, put};
use crate::code::{self, Code, Outcome};
use crate::driver::{Event, Handle, Stream};
use crate::settings::Kind;
use std::ffi::{c_char, c_void};

/// A stream.
///
/// # Safety
/// As in `cuda.h`, here and below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut Handle, _: u32) -> Code {
    let make = || -> Outcome {
        let (driver, context) = here()?;
        let handle = driver.with(context, |context, handle| {
            context.streams.insert(handle, Stream::default());
            Ok(handle)
        })?;
        // SAFETY: the caller's promise.
        unsafe { put(stream, handle) }
    };
    answer(make())
}

/// Ends a stream once its work is done.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: Handle) -> Code {
    let end = || -> Outcome {
        let (driver, context) = here()?;
        driver.synchronize(context, Some(stream))?;
        driver.with(context, |context, _| {
            context.streams.remove(&stream).map(|_| ()).ok_or(code::INVALID_HANDLE)
        })
    };
    answer(end())
}

/// Waits for a stream's work.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: Handle) -> Code {
    answer(here().and_then(|(driver, context)| driver.synchronize(context, Some(stream))))
}

/// A stream waits for an event.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, _: u32) -> Code {
    answer(here().and_then(|(driver, context)| driver.wait_event(context, stream, event)))
}

/// An event.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut Handle, _: u32) -> Code {
    let make = || -> Outcome {
        let (driver, context) = here()?;
        let handle = driver.with(context, |context, handle| {
            context.events.insert(handle, Event::default());
            Ok(handle)
        })?;
        // SAFETY: the caller's promise.
        unsafe { put(event, handle) }
    };
    answer(make())
}

/// Ends an event.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: Handle) -> Code {
    answer(here().and_then(|(driver, context)| {
        driver
            .with(context, |context, _| context.events.remove(&event).map(|_| ()).ok_or(code::INVALID_HANDLE))
    }))
}

/// The event comes when what the stream has to do now is done.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> Code {
    answer(here().and_then(|(driver, context)| driver.record(context, event, stream)))
}

/// Whether it came.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: Handle) -> Code {
    answer(here().and_then(|(driver, context)| driver.came(context, event).map(|_| ())))
}

/// Milliseconds between two that came.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(time: *mut f32, from: Handle, to: Handle) -> Code {
    let say = || -> Outcome {
        let (driver, context) = here()?;
        let came = |event| driver.came(context, event)?.ok_or(code::INVALID_HANDLE);
        let elapsed = came(to)?.saturating_duration_since(came(from)?);
        // SAFETY: the caller's promise.
        unsafe { put(time, elapsed.as_secs_f32() * 1000.0) }
    };
    answer(say())
}

/// From here on the stream's work is put down.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: Handle, _: u32) -> Code {
    answer(here().and_then(|(driver, context)| {
        driver.with(context, |context, _| {
            let stream = context.streams.get_mut(&stream).ok_or(code::INVALID_HANDLE)?;
            match stream.captured.replace(Vec::new()) {
                None => Ok(()),
                Some(_) => Err(code::STREAM_CAPTURE_UNSUPPORTED),
            }
        })
    }))
}

/// What was put down.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) -> Code {
    let end = || -> Outcome {
        let (driver, context) = here()?;
        let handle = driver.with(context, |context, handle| {
            let stream = context.streams.get_mut(&stream).ok_or(code::INVALID_HANDLE)?;
            let work = stream.captured.take().ok_or(code::STREAM_CAPTURE_UNSUPPORTED)?;
            context.graphs.insert(handle, work);
            Ok(handle)
        })?;
        // SAFETY: the caller's promise.
        unsafe { put(graph, handle) }
    };
    answer(end())
}

/// A graph that can be started.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(exec: *mut Handle, graph: Handle, _: u64) -> Code {
    let make = || -> Outcome {
        let (driver, context) = here()?;
        let handle = driver.with(context, |context, handle| {
            let work = context.graphs.get(&graph).cloned().ok_or(code::INVALID_HANDLE)?;
            context.graphs.insert(handle, work);
            Ok(handle)
        })?;
        // SAFETY: the caller's promise.
        unsafe { put(exec, handle) }
    };
    answer(make())
}

/// The same in drivers before CUDA 11.4.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiate_v2(
    exec: *mut Handle,
    graph: Handle,
    _: *mut c_void,
    _: *mut c_char,
    _: usize,
) -> Code {
    // SAFETY: the caller's promise.
    unsafe { cuGraphInstantiateWithFlags(exec, graph, 0) }
}

/// Starts all of it, in the order in which it was put down.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(exec: Handle, stream: Handle) -> Code {
    answer(here().and_then(|(driver, context)| {
        if driver.happens(Kind::Refuse) {
            return Err(code::LAUNCH_OUT_OF_RESOURCES);
        }
        let work = driver
            .with(context, |context, _| context.graphs.get(&exec).cloned().ok_or(code::INVALID_HANDLE))?;
        driver.give(context, stream, work)
    }))
}

fn end(graph: Handle) -> Code {
    answer(here().and_then(|(driver, context)| {
        driver
            .with(context, |context, _| context.graphs.remove(&graph).map(|_| ()).ok_or(code::INVALID_HANDLE))
    }))
}

/// Ends a graph that can be started.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(exec: Handle) -> Code {
    end(exec)
}

/// Ends a graph.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(graph: Handle) -> Code {
    end(graph)
}
