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
    type Sums = __m256i;
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
    #[inline(always)]
    unsafe fn magnitude(self, most: Self) -> Self {
        // SAFETY: As above.
        Self(unsafe {
            let magnitude = _mm256_and_si256(_mm256_castps_si256(self.0), _mm256_set1_epi32(i32::MAX));
            _mm256_castsi256_ps(_mm256_max_epi32(magnitude, _mm256_castps_si256(most.0)))
        })
    }
    #[inline(always)]
    unsafe fn store_low_bytes(self, to: *mut i8) {
        // SAFETY: As above.
        unsafe {
            let place = _mm256_setr_epi8(
                0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, //
                0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
            );
            let bytes = _mm256_shuffle_epi8(_mm256_castps_si256(self.0), place);
            let bytes =
                _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
            _mm_storel_epi64(to.cast(), bytes);
        }
    }
    #[inline(always)]
    unsafe fn add_q8(sums: &mut [__m256i; 4], w: *const u8, x: *const i8) {
        // SAFETY: As above.
        unsafe {
            let x = _mm256_broadcastsi128_si256(_mm_loadu_si128(x.cast()));
            let magnitudes = _mm256_abs_epi8(x);
            for (i, sum) in sums.iter_mut().enumerate() {
                let w = _mm256_loadu_si256(w.add(32 * i).cast());
                // The unit multiplies what has no sign with what has one, and adds pairs: at most 2 * 127 * 127,
                // which 16 bits hold.
                let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(w, x));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            }
        }
    }
    #[inline(always)]
    unsafe fn add_q4(sums: &mut [__m256i; 4], w: *const u8, x: *const i8) {
        // SAFETY: As above.
        unsafe {
            let low_half = _mm256_set1_epi8(15);
            let low_x = _mm256_broadcastsi128_si256(_mm_loadu_si128(x.cast()));
            let high_x = _mm256_broadcastsi128_si256(_mm_loadu_si128(x.add(16).cast()));
            for (i, sum) in sums.iter_mut().enumerate() {
                let w = _mm256_loadu_si256(w.add(32 * i).cast());
                let low = _mm256_and_si256(w, low_half);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(w), low_half);
                let pairs =
                    _mm256_add_epi16(_mm256_maddubs_epi16(low, low_x), _mm256_maddubs_epi16(high, high_x));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            }
        }
    }
    #[inline(always)]
    unsafe fn sum_rows(sums: [__m256i; 4], offset: i32) -> Self {
        // SAFETY: As above.
        Self(unsafe {
            // Rows 0, 2, 4, 6 in the lower half, 1, 3, 5, 7 in the upper.
            let rows =
                _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
            let rows = _mm256_permutevar8x32_epi32(rows, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            _mm256_cvtepi32_ps(_mm256_sub_epi32(rows, _mm256_set1_epi32(offset)))
        })
    }
    #[inline(always)]
    unsafe fn no_sums() -> __m256i {
        // SAFETY: As above.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn add_scores(sums: &mut __m256i, pair: u32, keys: *const i8) {
        // SAFETY: As above.
        unsafe {
            // Both elements of a position side by side.
            let place = _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
            let keys = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(_mm_loadu_si128(keys.cast()), place));
            *sums = _mm256_add_epi32(*sums, _mm256_madd_epi16(keys, _mm256_set1_epi32(pair as i32)));
        }
    }
    #[inline(always)]
    unsafe fn add_values(sums: &mut __m256i, weights: *const f32, values: *const i8) {
        // SAFETY: As above.
        unsafe {
            let weights = _mm256_broadcastsi128_si256(_mm_loadu_si128(weights.cast()));
            let values = _mm256_cvtepi8_epi16(_mm_loadu_si128(values.cast()));
            *sums = _mm256_add_epi32(*sums, _mm256_madd_epi16(values, weights));
        }
    }
    #[inline(always)]
    unsafe fn store_sums(sums: __m256i, to: *mut i32) {
        // SAFETY: As above.
        unsafe { _mm256_storeu_si256(to.cast(), sums) }
    }
}
