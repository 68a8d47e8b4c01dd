//! NEON: every 64-bit Arm core.

use core::arch::aarch64::*;

use crate::LANES;
use crate::arch::generic::Vector;

/// Proof that the CPU has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// Looks for every feature that is used.
    pub(crate) fn new() -> Option<Self> {
        // NEON belongs to the architecture; a target without it is compiled without this feature.
        cfg!(target_feature = "neon").then_some(Self(()))
    }
}

kernels!(Neon, F32x8, "neon");

/// Lanes 0 to 3 and 4 to 7.
#[derive(Clone, Copy)]
struct F32x8([float32x4_t; 2]);

impl F32x8 {
    /// Applies an operation to both halves.
    #[inline(always)]
    fn each(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Self([f(self.0[0], other.0[0]), f(self.0[1], other.0[1])])
    }
}

// SAFETY of every block below: the trait's callers promise NEON, and the elements for loads and stores, which
// need no alignment beyond the element's.
impl Vector for F32x8 {
    type Sums = [int32x4_t; 2];
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: As above.
        Self([unsafe { vdupq_n_f32(x) }; 2])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: As above.
        Self(unsafe { [vld1q_f32(from), vld1q_f32(from.add(4))] })
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        /// See `F16::to_f32`; conversion in one instruction needs `float16x4_t`, which is not stable.
        #[inline(always)]
        unsafe fn half(bits: uint16x4_t) -> float32x4_t {
            // SAFETY: As below.
            unsafe {
                let sign = vshll_n_u16::<16>(vand_u16(bits, vdup_n_u16(0x8000)));
                let magnitude = vshlq_n_u32::<13>(vmovl_u16(vand_u16(bits, vdup_n_u16(0x7fff))));
                let special =
                    vandq_u32(vcgeq_u32(magnitude, vdupq_n_u32(0x1f << 23)), vdupq_n_u32(0xff << 23));
                let scaled =
                    vmulq_n_f32(vreinterpretq_f32_u32(magnitude), f32::from_bits((127 + 127 - 15) << 23));
                let scaled = vreinterpretq_u32_f32(scaled);
                let magnitude =
                    vbslq_u32(vceqq_u32(special, vdupq_n_u32(0)), scaled, vorrq_u32(magnitude, special));
                vreinterpretq_f32_u32(vorrq_u32(magnitude, sign))
            }
        }
        // SAFETY: As above.
        Self(unsafe {
            let bits = vld1q_u16(from);
            [half(vget_low_u16(bits)), half(vget_high_u16(bits))]
        })
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: As above.
        Self(unsafe {
            let bits = vld1q_u16(from);
            [
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(bits))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(bits))),
            ]
        })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: As above.
        unsafe {
            vst1q_f32(to, self.0[0]);
            vst1q_f32(to.add(4), self.0[1]);
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: As above.
        self.each(other, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: As above.
        self.each(other, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: As above.
        self.each(other, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: As above.
        self.each(other, |a, b| unsafe { vdivq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: As above.
        self.each(other, |a, b| unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: As above.
        self.each(other, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: As above.
        Self(unsafe { [vfmaq_f32(self.0[0], a.0[0], b.0[0]), vfmaq_f32(self.0[1], a.0[1], b.0[1])] })
    }
    #[inline(always)]
    unsafe fn keep_from(self, threshold: Self, value: Self) -> Self {
        /// One half.
        #[inline(always)]
        unsafe fn keep(x: float32x4_t, threshold: float32x4_t, value: float32x4_t) -> float32x4_t {
            // SAFETY: As above.
            unsafe { vreinterpretq_f32_u32(vandq_u32(vcgeq_f32(x, threshold), vreinterpretq_u32_f32(value))) }
        }
        // SAFETY: As above.
        Self(unsafe {
            [keep(self.0[0], threshold.0[0], value.0[0]), keep(self.0[1], threshold.0[1], value.0[1])]
        })
    }
    #[inline(always)]
    unsafe fn between(self, low: Self, high: Self) -> u32 {
        static BITS: [u32; LANES] = [1, 2, 4, 8, 16, 32, 64, 128];
        // SAFETY: As above.
        unsafe {
            let half = |i: usize| {
                let inside = vandq_u32(vcgeq_f32(self.0[i], low.0[i]), vcltq_f32(self.0[i], high.0[i]));
                vaddvq_u32(vandq_u32(inside, vld1q_u32(BITS.as_ptr().add(4 * i))))
            };
            half(0) | half(1)
        }
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: As above.
        Self(self.0.map(|x| unsafe {
            let shifted = vshlq_n_u32::<23>(vreinterpretq_u32_f32(x));
            vreinterpretq_f32_u32(vaddq_u32(shifted, vdupq_n_u32(1.0f32.to_bits())))
        }))
    }
    #[inline(always)]
    unsafe fn swap_pairs(self) -> Self {
        // SAFETY: As above.
        Self(self.0.map(|x| unsafe { vrev64q_f32(x) }))
    }
    #[inline(always)]
    unsafe fn sum_each(vectors: [Self; LANES]) -> Self {
        let [a, b, c, d, e, f, g, h] = vectors.map(|v| v.0);
        // SAFETY: As above.
        unsafe {
            let sum4 = |v: [float32x4_t; 4]| vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3]));
            let lower = Self([sum4([a[0], b[0], c[0], d[0]]), sum4([e[0], f[0], g[0], h[0]])]);
            let upper = Self([sum4([a[1], b[1], c[1], d[1]]), sum4([e[1], f[1], g[1], h[1]])]);
            lower.add(upper)
        }
    }
    #[inline(always)]
    unsafe fn magnitude(self, most: Self) -> Self {
        self.each(most, |x, most| {
            // SAFETY: As above. Magnitudes are in the order of their bits.
            unsafe {
                let magnitude = vreinterpretq_u32_f32(vabsq_f32(x));
                vreinterpretq_f32_u32(vmaxq_u32(magnitude, vreinterpretq_u32_f32(most)))
            }
        })
    }
    #[inline(always)]
    unsafe fn store_low_bytes(self, to: *mut i8) {
        // SAFETY: As above.
        unsafe {
            let [low, high] = self.0.map(|x| vmovn_u32(vreinterpretq_u32_f32(x)));
            vst1_s8(to, vreinterpret_s8_u8(vmovn_u16(vcombine_u16(low, high))));
        }
    }
    #[inline(always)]
    unsafe fn add_q8(sums: &mut [[int32x4_t; 2]; 4], w: *const u8, x: *const i8) {
        // SAFETY: As above.
        unsafe {
            let x = vld1q_s8(x);
            for (row, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
                let w = vld1q_s8(w.add(16 * row).cast());
                // At most 2 * 128 * 127, which 16 bits hold.
                let pairs = vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x);
                *sum = vpadalq_s16(*sum, pairs);
            }
        }
    }
    #[inline(always)]
    unsafe fn add_q4(sums: &mut [[int32x4_t; 2]; 4], w: *const u8, x: *const i8) {
        // SAFETY: As above.
        unsafe {
            let [low_x, high_x] = [vld1q_s8(x), vld1q_s8(x.add(16))];
            for (row, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
                let w = vld1q_u8(w.add(16 * row));
                let low = vreinterpretq_s8_u8(vandq_u8(w, vdupq_n_u8(15)));
                let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(w));
                // At most 4 * 15 * 127, which 16 bits hold.
                let sums = vmlal_high_s8(vmull_s8(vget_low_s8(low), vget_low_s8(low_x)), low, low_x);
                let sums = vmlal_s8(sums, vget_low_s8(high), vget_low_s8(high_x));
                *sum = vpadalq_s16(*sum, vmlal_high_s8(sums, high, high_x));
            }
        }
    }
    #[inline(always)]
    unsafe fn sum_rows(sums: [[int32x4_t; 2]; 4], offset: i32) -> Self {
        // SAFETY: As above.
        Self(unsafe {
            let [[a, b], [c, d], [e, f], [g, h]] = sums;
            [vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)), vpaddq_s32(vpaddq_s32(e, f), vpaddq_s32(g, h))]
                .map(|rows| vcvtq_f32_s32(vsubq_s32(rows, vdupq_n_s32(offset))))
        })
    }
    #[inline(always)]
    unsafe fn no_sums() -> [int32x4_t; 2] {
        // SAFETY: As above.
        [unsafe { vdupq_n_s32(0) }; 2]
    }
    #[inline(always)]
    unsafe fn add_scores(sums: &mut [int32x4_t; 2], pair: u32, keys: *const i8) {
        // SAFETY: As above.
        unsafe {
            let keys = vld1q_s8(keys);
            let elements =
                [(vmovl_s8(vget_low_s8(keys)), pair as i16), (vmovl_high_s8(keys), (pair >> 16) as i16)];
            for (keys, query) in elements {
                sums[0] = vmlal_n_s16(sums[0], vget_low_s16(keys), query);
                sums[1] = vmlal_high_n_s16(sums[1], keys, query);
            }
        }
    }
    #[inline(always)]
    unsafe fn add_values(sums: &mut [int32x4_t; 2], weights: *const f32, values: *const i8) {
        // SAFETY: As above.
        unsafe {
            let (weights, values) = (vld1q_s16(weights.cast()), vld1q_s8(values));
            for (sum, values) in sums.iter_mut().zip([vmovl_s8(vget_low_s8(values)), vmovl_high_s8(values)]) {
                let low = vmlal_s16(*sum, vget_low_s16(values), vget_low_s16(weights));
                *sum = vmlal_high_s16(low, values, weights);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_sums(sums: [int32x4_t; 2], to: *mut i32) {
        // SAFETY: As above.
        unsafe {
            vst1q_s32(to, sums[0]);
            vst1q_s32(to.add(4), sums[1]);
        }
    }
}
