//! Loops over pixels, compiled for the widest common vector units: what runs beside the network must not cost what the
//! network saved. Every path gives the same bytes.

mod resize;

pub use resize::{Filter, columns, rows};

/// Whether the CPU has AVX2.
#[cfg(target_arch = "x86_64")]
fn avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}
