//! Sixteen sums side by side, as each instruction set holds them.

/// Sixteen f32 and what a convolution does with them.
///
/// # Safety
/// Every function needs a CPU with the instructions of the type; pointers lead to sixteen values (`splat`'s to one).
pub trait Lanes: Copy {
    /// One value in all lanes of a register.
    type One: Copy;
    /// All zeros.
    unsafe fn zero() -> Self;
    /// Sixteen values from memory.
    unsafe fn load(from: *const f32) -> Self;
    /// One value from memory.
    unsafe fn splat(from: *const f32) -> Self::One;
    /// `self + one · weights`.
    unsafe fn add_product(self, one: Self::One, weights: Self) -> Self;
    /// The larger of each lane.
    unsafe fn max(self, other: Self) -> Self;
    /// To memory.
    unsafe fn store(self, to: *mut f32);
    /// Fetches a cache line that is read soon; the address may lie anywhere.
    #[inline(always)]
    unsafe fn fetch(_from: *const f32) {}
}

/// On any CPU.
impl Lanes for [f32; 16] {
    type One = f32;
    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 16]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the trait's.
        unsafe { from.cast::<Self>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> f32 {
        // SAFETY: the trait's.
        unsafe { *from }
    }
    #[inline(always)]
    unsafe fn add_product(self, one: f32, weights: Self) -> Self {
        std::array::from_fn(|i| self[i] + one * weights[i])
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the trait's.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    /// AVX-512: one register.
    impl Lanes for __m512 {
        type One = __m512;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the trait's.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the trait's.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: the trait's.
            unsafe { _mm512_set1_ps(*from) }
        }
        #[inline(always)]
        unsafe fn add_product(self, one: Self, weights: Self) -> Self {
            // SAFETY: the trait's.
            unsafe { _mm512_fmadd_ps(one, weights, self) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: the trait's.
            unsafe { _mm512_max_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the trait's.
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn fetch(from: *const f32) {
            // SAFETY: a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
    }

    /// AVX2 with FMA: two registers.
    impl Lanes for [__m256; 2] {
        type One = __m256;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the trait's.
            unsafe { [_mm256_setzero_ps(); 2] }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the trait's.
            unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> __m256 {
            // SAFETY: the trait's.
            unsafe { _mm256_set1_ps(*from) }
        }
        #[inline(always)]
        unsafe fn add_product(self, one: __m256, weights: Self) -> Self {
            // SAFETY: the trait's.
            unsafe { [_mm256_fmadd_ps(one, weights[0], self[0]), _mm256_fmadd_ps(one, weights[1], self[1])] }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: the trait's.
            unsafe { [_mm256_max_ps(self[0], other[0]), _mm256_max_ps(self[1], other[1])] }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the trait's.
            unsafe {
                _mm256_storeu_ps(to, self[0]);
                _mm256_storeu_ps(to.add(8), self[1]);
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Lanes;
    use std::arch::aarch64::*;

    /// NEON: four registers.
    impl Lanes for [float32x4_t; 4] {
        type One = float32x4_t;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the trait's.
            unsafe { [vdupq_n_f32(0.0); 4] }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the trait's.
            std::array::from_fn(|i| unsafe { vld1q_f32(from.add(4 * i)) })
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> float32x4_t {
            // SAFETY: the trait's.
            unsafe { vld1q_dup_f32(from) }
        }
        #[inline(always)]
        unsafe fn add_product(self, one: float32x4_t, weights: Self) -> Self {
            // SAFETY: the trait's.
            std::array::from_fn(|i| unsafe { vfmaq_f32(self[i], one, weights[i]) })
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: the trait's.
            std::array::from_fn(|i| unsafe { vmaxq_f32(self[i], other[i]) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            for (i, four) in self.into_iter().enumerate() {
                // SAFETY: the trait's.
                unsafe { vst1q_f32(to.add(4 * i), four) }
            }
        }
    }
}
