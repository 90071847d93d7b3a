//! The integer engine allocates nothing while it computes, on any of its threads.

use fovea::engine::plan::{Convolution, Head, Plan, Pool, PoolKind, Step, Tensor, Window};
use fovea::engine::simd::{Isa, Simd};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator answers; only a counter is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::SeqCst);
        // SAFETY: as this function's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as this function's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn plan() -> Plan {
    let tensor = |shape| Tensor { name: String::new(), shape, scale: 1.0, part_of: None, place: 0, step: 0 };
    let tensors = vec![tensor([20, 19, 64]), tensor([20, 19, 48]), tensor([20, 19, 48])];
    let window = Window { kernel: [3, 3], stride: [1, 1], padding: [1; 4] };
    let conv = Convolution {
        name: String::new(),
        from: 0,
        to: 1,
        window,
        weight: vec![1; 48 * 9 * 64],
        bias: vec![0; 48],
        multiplier: vec![0.001; 48],
        pairs_fit: true,
    };
    let pool = Pool { name: String::new(), from: 1, to: 2, window, kind: PoolKind::Average, multiplier: 1.0 };
    Plan::of(tensors, vec![Step::Convolution(conv), Step::Pool(pool)], 0, 2, Head::default()).unwrap()
}

#[test]
fn computing_allocates_nothing() {
    let input = vec![7; 20 * 19 * 64];
    // The threads that pack weights allocate when they start, which they do once.
    rayon::broadcast(|_| ());
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
        for threads in [1, 2, 3] {
            let mut engine = Simd::of(plan(), Some(isa), Some(threads)).unwrap();
            engine.compute(&input);
            let before = COUNT.load(Ordering::SeqCst);
            engine.compute(&input);
            engine.compute(&input);
            assert_eq!(COUNT.load(Ordering::SeqCst) - before, 0, "{} with {threads} threads", isa.name());
        }
    }
}
