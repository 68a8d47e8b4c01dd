//! The 128-bit vectors of WebAssembly. They do not fuse multiplication and addition, so here the matrix
//! product too gives the bits of `scalar.rs`.

use core::arch::wasm32::*;

use crate::LANES;
use crate::arch::generic::Vector;

/// Proof that the module is compiled with 128-bit vectors: an engine without them does not load it.
#[derive(Clone, Copy, Debug)]
pub struct Simd128(());

impl Simd128 {
    /// Looks for every feature that is used.
    pub(crate) fn new() -> Option<Self> {
        cfg!(target_feature = "simd128").then_some(Self(()))
    }
}

kernels!(Simd128, F32x8, "simd128");

/// Lanes 0 to 3 and 4 to 7.
#[derive(Clone, Copy)]
struct F32x8([v128; 2]);

impl F32x8 {
    /// Applies an operation to both halves.
    #[inline(always)]
    fn each(self, other: Self, f: impl Fn(v128, v128) -> v128) -> Self {
        Self([f(self.0[0], other.0[0]), f(self.0[1], other.0[1])])
    }
}

// SAFETY of every block below: the trait's callers promise the elements for loads and stores, which need no
// alignment beyond the element's.
impl Vector for F32x8 {
    type Sums = [v128; 2];
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([f32x4_splat(x); 2])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: As above.
        Self(unsafe { [v128_load(from.cast()), v128_load(from.add(4).cast())] })
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        /// See `F16::to_f32`: there is no instruction for this conversion. `bits` has four of them.
        #[inline(always)]
        fn half(bits: v128) -> v128 {
            let sign = i32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16);
            let magnitude = i32x4_shl(v128_and(bits, u32x4_splat(0x7fff)), 13);
            let special = u32x4_ge(magnitude, u32x4_splat(0x1f << 23));
            let scaled = f32x4_mul(magnitude, f32x4_splat(f32::from_bits((127 + 127 - 15) << 23)));
            let magnitude = v128_bitselect(v128_or(magnitude, u32x4_splat(0xff << 23)), scaled, special);
            v128_or(magnitude, sign)
        }
        // SAFETY: As above.
        let bits = unsafe { v128_load(from.cast()) };
        Self([half(u32x4_extend_low_u16x8(bits)), half(u32x4_extend_high_u16x8(bits))])
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: As above.
        let bits = unsafe { v128_load(from.cast()) };
        Self([i32x4_shl(u32x4_extend_low_u16x8(bits), 16), i32x4_shl(u32x4_extend_high_u16x8(bits), 16)])
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: As above.
        unsafe {
            v128_store(to.cast(), self.0[0]);
            v128_store(to.add(4).cast(), self.0[1]);
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.each(other, |a, b| f32x4_add(a, b))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.each(other, |a, b| f32x4_sub(a, b))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.each(other, |a, b| f32x4_mul(a, b))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.each(other, |a, b| f32x4_div(a, b))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        other.each(self, |a, b| f32x4_pmax(a, b))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        other.each(self, |a, b| f32x4_pmin(a, b))
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: As above.
        unsafe { self.add(a.mul(b)) }
    }
    #[inline(always)]
    unsafe fn keep_from(self, threshold: Self, value: Self) -> Self {
        let kept = self.each(threshold, |a, b| f32x4_ge(a, b));
        kept.each(value, |a, b| v128_and(a, b))
    }
    #[inline(always)]
    unsafe fn between(self, low: Self, high: Self) -> u32 {
        let inside = self
            .each(low, |a, b| f32x4_ge(a, b))
            .each(self.each(high, |a, b| f32x4_lt(a, b)), |a, b| v128_and(a, b));
        u32::from(i32x4_bitmask(inside.0[0])) | u32::from(i32x4_bitmask(inside.0[1])) << 4
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        Self(self.0.map(|x| i32x4_add(i32x4_shl(x, 23), f32x4_splat(1.0))))
    }
    #[inline(always)]
    unsafe fn swap_pairs(self) -> Self {
        Self(self.0.map(|x| i32x4_shuffle::<1, 0, 3, 2>(x, x)))
    }
    #[inline(always)]
    unsafe fn sum_each(vectors: [Self; LANES]) -> Self {
        /// Sums of neighbours, of `a` and then of `b`.
        #[inline(always)]
        fn add_pairs(a: v128, b: v128) -> v128 {
            f32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
        }
        let sum4 = |half: usize, v: &[Self]| {
            let [a, b, c, d] = [v[0].0[half], v[1].0[half], v[2].0[half], v[3].0[half]];
            add_pairs(add_pairs(a, b), add_pairs(c, d))
        };
        let lower = Self([sum4(0, &vectors[..4]), sum4(0, &vectors[4..])]);
        let upper = Self([sum4(1, &vectors[..4]), sum4(1, &vectors[4..])]);
        lower.each(upper, |a, b| f32x4_add(a, b))
    }
    #[inline(always)]
    unsafe fn magnitude(self, most: Self) -> Self {
        self.each(most, |x, most| u32x4_max(f32x4_abs(x), most))
    }
    #[inline(always)]
    unsafe fn store_low_bytes(self, to: *mut i8) {
        let bytes =
            u8x16_shuffle::<0, 4, 8, 12, 16, 20, 24, 28, 0, 0, 0, 0, 0, 0, 0, 0>(self.0[0], self.0[1]);
        // SAFETY: As above.
        unsafe { v128_store64_lane::<0>(bytes, to.cast()) }
    }
    #[inline(always)]
    unsafe fn add_q8(sums: &mut [[v128; 2]; 4], w: *const u8, x: *const i8) {
        // SAFETY: As above.
        let x = unsafe { v128_load(x.cast()) };
        for (row, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
            // SAFETY: As above.
            let w = unsafe { v128_load(w.add(16 * row).cast()) };
            // At most 2 * 128 * 127, which 16 bits hold.
            let pairs = i16x8_add(i16x8_extmul_low_i8x16(w, x), i16x8_extmul_high_i8x16(w, x));
            *sum = i32x4_add(*sum, i32x4_extadd_pairwise_i16x8(pairs));
        }
    }
    #[inline(always)]
    unsafe fn add_q4(sums: &mut [[v128; 2]; 4], w: *const u8, x: *const i8) {
        // SAFETY: As above.
        let [low_x, high_x] = unsafe { [v128_load(x.cast()), v128_load(x.add(16).cast())] };
        for (row, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
            // SAFETY: As above.
            let w = unsafe { v128_load(w.add(16 * row).cast()) };
            let (low, high) = (v128_and(w, u8x16_splat(15)), u8x16_shr(w, 4));
            // At most 4 * 15 * 127, which 16 bits hold.
            let pairs = i16x8_add(
                i16x8_add(i16x8_extmul_low_i8x16(low, low_x), i16x8_extmul_high_i8x16(low, low_x)),
                i16x8_add(i16x8_extmul_low_i8x16(high, high_x), i16x8_extmul_high_i8x16(high, high_x)),
            );
            *sum = i32x4_add(*sum, i32x4_extadd_pairwise_i16x8(pairs));
        }
    }
    #[inline(always)]
    unsafe fn sum_rows(sums: [[v128; 2]; 4], offset: i32) -> Self {
        /// Sums of neighbours, of `a` and then of `b`.
        #[inline(always)]
        fn add_pairs(a: v128, b: v128) -> v128 {
            i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
        }
        let [[a, b], [c, d], [e, f], [g, h]] = sums;
        let rows = [add_pairs(add_pairs(a, b), add_pairs(c, d)), add_pairs(add_pairs(e, f), add_pairs(g, h))];
        Self(rows.map(|rows| f32x4_convert_i32x4(i32x4_sub(rows, i32x4_splat(offset)))))
    }
    #[inline(always)]
    unsafe fn no_sums() -> [v128; 2] {
        [i32x4_splat(0); 2]
    }
    #[inline(always)]
    unsafe fn add_scores(sums: &mut [v128; 2], pair: u32, keys: *const i8) {
        // SAFETY: As above.
        let keys = unsafe { v128_load(keys.cast()) };
        // Both elements of a position side by side.
        let keys = i8x16_shuffle::<0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15>(keys, keys);
        let halves = [i16x8_extend_low_i8x16(keys), i16x8_extend_high_i8x16(keys)];
        for (sum, keys) in sums.iter_mut().zip(halves) {
            *sum = i32x4_add(*sum, i32x4_dot_i16x8(keys, i32x4_splat(pair as i32)));
        }
    }
    #[inline(always)]
    unsafe fn add_values(sums: &mut [v128; 2], weights: *const f32, values: *const i8) {
        // SAFETY: As above.
        let (weights, values) = unsafe { (v128_load(weights.cast()), v128_load(values.cast())) };
        let elements = [i16x8_extend_low_i8x16(values), i16x8_extend_high_i8x16(values)];
        for (sum, values) in sums.iter_mut().zip(elements) {
            *sum = i32x4_add(*sum, i32x4_dot_i16x8(values, weights));
        }
    }
    #[inline(always)]
    unsafe fn store_sums(sums: [v128; 2], to: *mut i32) {
        // SAFETY: As above.
        unsafe {
            v128_store(to.cast(), sums[0]);
            v128_store(to.add(4).cast(), sums[1]);
        }
    }
}
