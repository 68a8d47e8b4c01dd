//! The vector unit of the ESP32-S3, which Espressif calls PIE: sixteen products of eight bits, or eight of sixteen, are
//! added up by an instruction that loads the next operand as well.
//!
//! Its registers of 128 bits are no registers to the compiler, which neither uses nor keeps them, so each `asm!` loads
//! all that it needs. Its loads leave out the lowest four bits of an address: what does not lie at a multiple of 16 bytes
//! is left to `words.rs`, which gives the same bits. What is not here is `scalar.rs`'s own.

mod attention;
mod floats;
mod products;
mod quantize;

use crate::quantized::{Input, Quantized, QuantizedRows};
use crate::{Cache, Panel, Rows, scalar, words};

/// Proof that the program is for an ESP32-S3, whose start has to enable its coprocessors.
#[derive(Clone, Copy, Debug)]
pub struct Pie(());

/// Kernels that have no instructions of their own.
macro_rules! scalar_kernels {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) $(-> $result:ty)?;)*) => {
        impl Pie {
            $(#[inline(always)]
            pub(crate) fn $name(self, $($arg: $ty),*) $(-> $result)? {
                scalar::$name($($arg),*)
            })*
        }
    };
}

scalar_kernels! {
    fn dot(a: &[f32], b: &[f32]) -> f32;
    fn sum_of_squares(x: &[f32]) -> f32;
    fn scale(x: &[f32], scale: f32, weight: &[f32], out: &mut [f32]);
    fn max(x: &[f32]) -> f32;
    fn softmax(x: &mut [f32]) -> f32;
    fn swiglu(gate: &mut [f32], up: &[f32]);
    fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]);
    fn mass_above(x: &[f32], threshold: f32) -> (f32, usize);
    fn between(x: &[f32], low: f32, high: f32, found: &mut [u32]) -> usize;
}

impl Pie {
    /// The build script has seen that the target has the unit.
    pub(crate) const fn new() -> Self {
        Self(())
    }

    pub(crate) fn matmul(self, w: Rows<'_>, x: Input<'_>, out: Panel<'_>, add: bool) {
        match w {
            Rows::Quantized(w) if fits(&w, x.quantized) => products::matmul(w, x.quantized, out, add),
            Rows::F32(w) => floats::matmul(w, x.floats, out, add),
            _ => words::matmul(w, x, out, add),
        }
    }

    pub(crate) fn quantize(
        self,
        x: &[f32],
        group: usize,
        values: &mut [i8],
        scales: &mut [f32],
        sums: &mut [i32],
    ) {
        if aligned(x.as_ptr()) && aligned(values.as_ptr()) {
            quantize::quantize(x, group, values, scales, sums);
        } else {
            scalar::quantize(x, group, values, scales, sums);
        }
    }

    pub(crate) fn attention(
        self,
        q: &[f32],
        keys: Cache<'_>,
        values: Cache<'_>,
        scores: &mut [f32],
        len: usize,
        out: &mut [f32],
    ) {
        attention::attention(q, keys, values, scores, len, out);
    }
}

/// Whether the unit can load from here.
#[inline(always)]
fn aligned<T>(pointer: *const T) -> bool {
    pointer.addr().is_multiple_of(16)
}

/// Whether weights and activations are where the unit can load them, and the scales of the activations such that their
/// products with those of weights can be had from scales that are multiplied with a power of two.
#[inline(always)]
fn fits(w: &QuantizedRows<'_>, x: Quantized<'_>) -> bool {
    // Written so that not-a-number fails.
    aligned(w.bytes.as_ptr()) && aligned(x.values.as_ptr()) && x.scales.iter().all(|&scale| scale < 32_768.0)
}

/// Memory that the unit can load and store.
#[repr(align(16))]
struct Aligned<T>(T);
