//! The kernels over any vector unit, in the order of sums that `scalar.rs` defines.
//!
//! Everything here is inlined into functions that enable the unit's instructions; see [`kernels`].

use crate::LANES;

/// A vector of 8 floats.
///
/// # Safety
/// Every method needs a CPU that has the unit's instructions; loads and stores need 8 elements to be there
/// (the partial ones as many as they are told), aligned as their type.
pub(crate) trait Vector: Copy {
    /// 8 integers of 32 bits.
    type Sums: Copy;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_f16(from: *const u16) -> Self;
    unsafe fn load_bf16(from: *const u16) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self` where it is larger, else `other`; so `other` where either is not a number.
    unsafe fn max(self, other: Self) -> Self;
    /// `self` where it is smaller, else `other`; so `other` where either is not a number.
    unsafe fn min(self, other: Self) -> Self;
    /// `self + a * b`, rounded once if the unit can do so.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// Lanes that are at least `threshold`, and 0 elsewhere.
    unsafe fn keep_from(self, threshold: Self, value: Self) -> Self;
    /// A bit for each lane, the first lowest: whether it is from `low` on and below `high`.
    unsafe fn between(self, low: Self, high: Self) -> u32;
    /// The float whose bits are `(bits << 23) + bits(1.0)`: 2^n of an integer in the low bits.
    unsafe fn power_of_two(self) -> Self;
    /// Lanes 1, 0, 3, 2, 5, 4, 7, 6.
    unsafe fn swap_pairs(self) -> Self;
    /// The sums of the lanes of 8 vectors, each in pairs.
    unsafe fn sum_each(vectors: [Self; LANES]) -> Self;
    /// The larger magnitude, by their bits: not-a-number is larger than all. `most` is a magnitude.
    unsafe fn magnitude(self, most: Self) -> Self;
    /// Stores the lowest byte of each lane.
    unsafe fn store_low_bytes(self, to: *mut i8);
    /// Sums of nothing.
    unsafe fn no_sums() -> Self::Sums;
    /// Adds the products of 8 rows, each of 16 weights of eight bits, with 16 activations; none is -128.
    /// Four sums for each row, as in every array of sums.
    unsafe fn add_q8(sums: &mut [Self::Sums; 4], w: *const u8, x: *const i8);
    /// Adds the products of 8 rows, each of 32 numbers of four bits, from 0 to 15, with 32 activations.
    unsafe fn add_q4(sums: &mut [Self::Sums; 4], w: *const u8, x: *const i8);
    /// The sum of each row less `offset`, as a float.
    unsafe fn sum_rows(sums: [Self::Sums; 4], offset: i32) -> Self;
    /// Adds the products of a pair of numbers of 16 bits with two elements of 8 positions: a sum for each position.
    unsafe fn add_scores(sums: &mut Self::Sums, pair: u32, keys: *const i8);
    /// Adds the products of 8 weights of 16 bits with two elements of 8 positions: four sums for each element.
    unsafe fn add_values(sums: &mut Self::Sums, weights: *const f32, values: *const i8);
    unsafe fn store_sums(sums: Self::Sums, to: *mut i32);
    /// The first `len` elements, fewer than 8, and zeros.
    #[inline(always)]
    unsafe fn load_first(from: *const f32, len: usize) -> Self {
        // SAFETY: The caller promises the unit and `len` elements.
        unsafe { load_filled(from, len, 0.0) }
    }
}

/// Calls `$whole` with the start of each whole vector of `$len` elements, then `$rest` with what is left.
macro_rules! for_vectors {
    ($len:expr, |$i:ident| $whole:expr, |$from:ident, $count:ident| $rest:expr) => {{
        let len = $len;
        let whole = len - len % LANES;
        let mut $i = 0;
        while $i < whole {
            $whole;
            $i += LANES;
        }
        if whole < len {
            let ($from, $count) = (whole, len - whole);
            $rest;
        }
    }};
}

#[inline(always)]
unsafe fn sum<V: Vector>(v: V) -> f32 {
    let mut lanes = [0.0; LANES];
    // SAFETY: The caller promises the unit; the buffer holds 8 elements.
    unsafe { v.store(lanes.as_mut_ptr()) };
    crate::scalar::sum_lanes(lanes)
}

/// Loads `len` elements, fewer than 8, and fills up with `fill`.
#[inline(always)]
unsafe fn load_filled<V: Vector>(from: *const f32, len: usize, fill: f32) -> V {
    let mut buffer = [fill; LANES];
    // SAFETY: The caller promises `len` elements, fewer than the buffer's 8, and the unit.
    unsafe {
        core::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), len);
        V::load(buffer.as_ptr())
    }
}

#[inline(always)]
unsafe fn store_partial<V: Vector>(v: V, to: *mut f32, len: usize) {
    let mut buffer = [0.0; LANES];
    // SAFETY: The caller promises room for `len` elements, fewer than the buffer's 8, and the unit.
    unsafe {
        v.store(buffer.as_mut_ptr());
        core::ptr::copy_nonoverlapping(buffer.as_ptr(), to, len);
    }
}

mod attention;
mod functions;
mod matmul;
mod quantized;

pub(crate) use functions::*;
pub(crate) use matmul::matmul;
pub(crate) use quantized::quantize;

/// The kernels of a unit, as functions of a value that proves that the CPU has it. They trust their one caller,
/// `kernels.rs`, to have checked the lengths.
macro_rules! kernels {
    ($unit:ty, $vector:ty, $features:literal, {
        $(fn $name:ident($($arg:ident: $ty:ty),*) $(-> $result:ty)?;)*
    }) => {
        impl $unit {
            $(pub(crate) fn $name(self, $($arg: $ty),*) $(-> $result)? {
                #[target_feature(enable = $features)]
                unsafe fn with_unit($($arg: $ty),*) $(-> $result)? {
                    // SAFETY: The features that the vector's methods need are those enabled here.
                    unsafe { crate::arch::generic::$name::<$vector>($($arg),*) }
                }
                // SAFETY: `self` exists only where the CPU has these features; `Kernels` checked the lengths.
                unsafe { with_unit($($arg),*) }
            })*
        }
    };
    ($unit:ty, $vector:ty, $features:literal) => {
        kernels!($unit, $vector, $features, {
            fn matmul(w: crate::Rows<'_>, x: crate::quantized::Input<'_>, out: crate::Panel<'_>, add: bool);
            fn quantize(x: &[f32], group: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i32]);
            fn dot(a: &[f32], b: &[f32]) -> f32;
            fn sum_of_squares(x: &[f32]) -> f32;
            fn scale(x: &[f32], scale: f32, weight: &[f32], out: &mut [f32]);
            fn max(x: &[f32]) -> f32;
            fn softmax(x: &mut [f32]) -> f32;
            fn swiglu(gate: &mut [f32], up: &[f32]);
            fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]);
            fn attention(
                q: &[f32],
                keys: crate::Cache<'_>,
                values: crate::Cache<'_>,
                scores: &mut [f32],
                len: usize,
                out: &mut [f32]
            );
            fn mass_above(x: &[f32], threshold: f32) -> (f32, usize);
            fn between(x: &[f32], low: f32, high: f32, found: &mut [u32]) -> usize;
        });
    };
}
