//! The occlusion test: a grey patch slides over the prepared input, and the fall of the logit is written down.

use super::Map;
use crate::Class;
use crate::engine::{Engine, EngineError};
use crate::prepare::{NetworkInput, SIDE};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How the patch slides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occlusion {
    /// Side of the patch in pixels of the 299x299 input, 1 to 299.
    pub patch: usize,
    /// Pixels from one place to the next, at least 1.
    pub stride: usize,
}

impl Default for Occlusion {
    fn default() -> Self {
        Self { patch: 40, stride: 24 }
    }
}

impl Occlusion {
    /// Places along one side.
    pub fn places(self) -> usize {
        (SIDE - self.patch.clamp(1, SIDE)) / self.stride.max(1) + 1
    }
}

/// Why there is no map.
#[derive(Debug, thiserror::Error)]
pub enum OcclusionError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The caller asked to stop.
    #[error("the occlusion test was stopped")]
    Stopped,
}

/// Slides the patch over the input and gives the fall of the class's logit at each place (positive: the place speaks for
/// the class). The patch has the input's mean grey, so that it is neither a lesion's brightness nor the background's.
/// Runs on all `engines` at once; `step` is told after each picture and stops the test by answering false.
///
/// # Errors
/// See [`OcclusionError`].
pub fn occlusion(
    engines: &mut [Box<dyn Engine>],
    input: &NetworkInput,
    class: Class,
    how: Occlusion,
    step: &(dyn Fn() -> bool + Sync),
) -> Result<Map, OcclusionError> {
    let (patch, stride, places) = (how.patch.clamp(1, SIDE), how.stride.max(1), how.places());
    // What the stride leaves over is shared between both edges.
    let start = (SIDE - patch - (places - 1) * stride) / 2;
    let mean = input.0.iter().map(|v| u64::from(*v)).sum::<u64>() / (SIDE * SIDE) as u64;
    let whole = match engines.first_mut() {
        Some(engine) => engine.run(input)?.logits[class.index()],
        None => return Err(OcclusionError::Stopped),
    };
    let next = AtomicUsize::new(0);
    let falls = Mutex::new(vec![0.0; places * places]);
    let work = |engine: &mut Box<dyn Engine>| -> Result<(), OcclusionError> {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= places * places {
                return Ok(());
            }
            let (top, left) = (start + i / places * stride, start + i % places * stride);
            let mut covered = input.clone();
            for row in covered.0.chunks_exact_mut(SIDE).skip(top).take(patch) {
                row[left..left + patch].fill(mean as u8);
            }
            let answer = engine.run(&covered);
            let going = step();
            if answer.is_err() || !going {
                next.store(places * places, Ordering::Relaxed);
            }
            let fall = whole - answer?.logits[class.index()];
            falls.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[i] = fall;
            if !going {
                return Err(OcclusionError::Stopped);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = engines.iter_mut().map(|engine| scope.spawn(|| work(engine))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(Map {
        rows: places,
        columns: places,
        values: falls.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()),
        first: (start as f32 + patch as f32 / 2.0) / SIDE as f32,
        step: stride as f32 / SIDE as f32,
    })
}
