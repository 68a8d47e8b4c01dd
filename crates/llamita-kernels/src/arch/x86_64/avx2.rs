//! AVX2 with FMA and F16C: Intel since Haswell (2013), AMD since Excavator (2015).

use core::arch::x86_64::*;

use crate::LANES;
use crate::arch::generic::Vector;

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// Looks for every feature that is used.
    pub(crate) fn new() -> Option<Self> {
        #[cfg(feature = "std")]
        let found = std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c");
        #[cfg(not(feature = "std"))]
        let found = cfg!(all(target_feature = "avx2", target_feature = "fma", target_feature = "f16c"));
        found.then_some(Self(()))
    }
}

kernels!(Avx2, F32x8, "avx2,fma,f16c");

#[derive(Clone, Copy)]
struct F32x8(__m256);

impl F32x8 {
    /// Sums of neighbours: of `a` in the lower half of each 128 bits, of `b` in the upper.
    #[inline(always)]
    unsafe fn add_pairs(a: __m256, b: __m256) -> __m256 {
        // SAFETY: The caller promises AVX2.
        unsafe { _mm256_hadd_ps(a, b) }
    }
}

// SAFETY of every block below: the trait's callers promise AVX2, FMA and F16C, and the elements for loads and
// stores, which need no alignment beyond the element's.
impl Vector for F32x8 {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: As above.
        Self(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: As above.
        Self(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: As above.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: As above.
        Self(unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: As above.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: As above.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: As above.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: As above.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: As above.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: As above.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: As above.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: As above.
        Self(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    unsafe fn keep_from(self, threshold: Self, value: Self) -> Self {
        // SAFETY: As above.
        Self(unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(self.0, threshold.0), value.0) })
    }
    #[inline(always)]
    unsafe fn between(self, low: Self, high: Self) -> u32 {
        // SAFETY: As above.
        unsafe {
            let from_low = _mm256_cmp_ps::<_CMP_GE_OQ>(self.0, low.0);
            _mm256_movemask_ps(_mm256_and_ps(from_low, _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, high.0))) as u32
        }
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: As above.
        Self(unsafe {
            let shifted = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.0));
            _mm256_castsi256_ps(_mm256_add_epi32(shifted, _mm256_castps_si256(_mm256_set1_ps(1.0))))
        })
    }
    #[inline(always)]
    unsafe fn swap_pairs(self) -> Self {
        // SAFETY: As above.
        Self(unsafe { _mm256_permute_ps::<0b10_11_00_01>(self.0) })
    }
    #[inline(always)]
    unsafe fn sum_each(vectors: [Self; LANES]) -> Self {
        let [a, b, c, d, e, f, g, h] = vectors.map(|v| v.0);
        // SAFETY: As above.
        Self(unsafe {
            let abcd = Self::add_pairs(Self::add_pairs(a, b), Self::add_pairs(c, d));
            let efgh = Self::add_pairs(Self::add_pairs(e, f), Self::add_pairs(g, h));
            // Lower halves of lanes beside lower halves, upper beside upper.
            let lower = _mm256_permute2f128_ps::<0x20>(abcd, efgh);
            let upper = _mm256_permute2f128_ps::<0x31>(abcd, efgh);
            _mm256_add_ps(lower, upper)
        })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, len: usize) -> Self {
        /// From `8 - len` on: `len` lanes to load, the rest not.
        static MASK: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        // SAFETY: As above; lanes past `len` are not read.
        Self(unsafe {
            let mask = _mm256_loadu_si256(MASK.as_ptr().add(LANES - len).cast());
            _mm256_maskload_ps(from, mask)
        })
    }
}
