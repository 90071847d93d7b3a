//! Threads made once that walk the plan together: one hand-over a picture, a barrier between steps.
//!
//! A barrier is reached every few microseconds, so those who wait spin for a while before they sleep.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Looks at the flag before a thread sleeps: some 50 to 100 microseconds.
const SPINS: u32 = 2000;

/// Work of one run, lent to the other threads while the caller waits.
#[derive(Clone, Copy)]
struct Work(*const (dyn Fn(usize) + Sync));
// SAFETY: the closure is `Sync`, and `Team::run` does not return before all threads have left it.
unsafe impl Send for Work {}

/// A counter that threads wait on.
#[derive(Debug, Default)]
struct Signal {
    value: AtomicUsize,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    bell: Condvar,
}

impl Signal {
    fn raise(&self) {
        self.value.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.bell.notify_all();
        }
    }

    /// Returns once the counter is no longer `seen`, or `stop` is set.
    fn wait(&self, seen: usize, stop: &AtomicBool) {
        let go = || self.value.load(Ordering::SeqCst) != seen || stop.load(Ordering::SeqCst);
        for _ in 0..SPINS {
            if go() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !go() {
            guard = self.bell.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Shared {
    threads: usize,
    start: Signal,
    work: Mutex<Option<Work>>,
    barrier: Signal,
    arrived: AtomicUsize,
    /// A thread panicked or the team ends: nobody waits any more.
    over: AtomicBool,
}

/// Threads, the caller's among them.
pub struct Team {
    shared: Arc<Shared>,
    handles: Vec<std::thread::JoinHandle<()>>,
}

impl Team {
    /// A team of `threads`, of which one is the caller of [`Team::run`].
    ///
    /// # Errors
    /// The system starts no more threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            threads: threads.max(1),
            start: Signal::default(),
            work: Mutex::new(None),
            barrier: Signal::default(),
            arrived: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        // Threads already started end when the team is dropped on the way out.
        let mut team = Self { shared, handles: Vec::new() };
        for number in 1..threads {
            let shared = Arc::clone(&team.shared);
            let builder = std::thread::Builder::new().name(format!("engine {number}"));
            team.handles.push(builder.spawn(move || shared.serve(number))?);
        }
        Ok(team)
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Calls `work` with each thread's number, on all threads at once.
    pub fn run(&mut self, work: &(dyn Fn(usize) + Sync)) {
        if self.handles.is_empty() {
            assert!(self.shared.threads == 1, "a thread of the engine panicked before");
            return work(0);
        }
        // SAFETY: only the lifetime is cut off; `barrier` below keeps the caller here until no thread uses `work`.
        let lent: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        *self.shared.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(Work(lent));
        self.shared.start.raise();
        let result = catch_unwind(AssertUnwindSafe(|| {
            work(0);
            self.shared.wait();
        }));
        if let Err(panic) = result {
            // The others leave `work` at their next barrier; only then may the borrow end.
            self.end();
            resume_unwind(panic);
        }
    }

    /// Where the threads of a run meet.
    pub fn barrier(&self) -> Barrier {
        Barrier(Arc::clone(&self.shared))
    }

    fn end(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.shared.start.wake();
        self.shared.barrier.wake();
        for handle in self.handles.drain(..) {
            // Its panic was reported when it happened.
            let _ = handle.join();
        }
    }
}

/// Where the threads of a run meet.
pub struct Barrier(Arc<Shared>);

impl Barrier {
    /// Waits until all threads are here.
    ///
    /// # Panics
    /// Another thread panicked.
    pub fn wait(&self) {
        self.0.wait();
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn wait(&self) {
        if self.threads == 1 {
            return;
        }
        let seen = self.barrier.value.load(Ordering::SeqCst);
        if self.arrived.fetch_add(1, Ordering::SeqCst) + 1 == self.threads {
            self.arrived.store(0, Ordering::SeqCst);
            self.barrier.raise();
        } else {
            self.barrier.wait(seen, &self.over);
        }
        // Where the barrier opened, a team that ends right after it is none of this thread's business.
        assert!(self.barrier.value.load(Ordering::SeqCst) != seen, "a thread of the engine panicked");
    }

    fn serve(&self, number: usize) {
        let mut seen = 0;
        loop {
            self.start.wait(seen, &self.over);
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            seen += 1;
            let work = *self.work.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(Work(work)) = work else { return };
            let result = catch_unwind(AssertUnwindSafe(|| {
                // SAFETY: the caller of `Team::run` keeps the closure until this thread has passed the barrier or ended.
                unsafe { (*work)(number) };
                self.wait();
            }));
            if result.is_err() {
                self.over.store(true, Ordering::SeqCst);
                self.start.wake();
                self.barrier.wake();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_pass_every_barrier_together() {
        for threads in [1, 2, 3, 5] {
            let mut team = Team::new(threads).unwrap();
            for _ in 0..50 {
                let count = AtomicUsize::new(0);
                let shared = Arc::clone(&team.shared);
                team.run(&|_| {
                    for round in 1..=20 {
                        count.fetch_add(1, Ordering::SeqCst);
                        shared.wait();
                        assert_eq!(count.load(Ordering::SeqCst), round * threads);
                        shared.wait();
                    }
                });
                assert_eq!(count.into_inner(), 20 * threads);
            }
        }
    }

    #[test]
    fn sleepers_wake() {
        let mut team = Team::new(2).unwrap();
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let count = AtomicUsize::new(0);
            team.run(&|_| {
                count.fetch_add(1, Ordering::SeqCst);
            });
            assert_eq!(count.into_inner(), 2);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        for culprit in 0..3 {
            let mut team = Team::new(3).unwrap();
            let result = catch_unwind(AssertUnwindSafe(|| {
                let shared = Arc::clone(&team.shared);
                team.run(&|number| {
                    assert_ne!(number, culprit, "expected");
                    shared.wait();
                });
            }));
            assert!(result.is_err());
        }
    }
}
