//! Loops over pixels, compiled for the widest common vector units: what runs beside the network must not cost what the
//! network saved. Every path gives the same bytes.

#[cfg(feature = "appliance")]
mod colour;
mod resize;

#[cfg(feature = "appliance")]
pub use colour::{Colours, colour};
pub use resize::{Filter, columns, rows};

/// Runs `work` compiled for AVX2 where the CPU has it, else as it is: the compiler makes wider loops, not
/// other results. `work` calls functions that are always inlined.
#[inline(always)]
pub fn wide<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if avx2() {
        #[target_feature(enable = "avx2")]
        fn compiled<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        // SAFETY: the CPU has AVX2.
        return unsafe { compiled(work) };
    }
    work()
}

/// Whether the CPU has AVX2.
#[cfg(target_arch = "x86_64")]
fn avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}
