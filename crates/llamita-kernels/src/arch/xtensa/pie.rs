//! The vector unit of the ESP32-S3, which Espressif calls PIE: sixteen products of eight bits, or eight of sixteen, are
//! added up by an instruction that loads the next operand as well.
//!
//! Its registers of 128 bits are no registers to the compiler, which neither uses nor keeps them, so each `asm!` loads
//! all that it needs. Its loads leave out the lowest four bits of an address: what does not lie at a multiple of 16 bytes
//! is left to `words.rs`, which gives the same bits. What is not here is `scalar.rs`'s own.

/// Begins a loop of the core's own, which takes no instructions: so many times up to a label. What is between must be less than
/// 256 bytes, end with no jump, and be left by none for good. Label 9 is used.
///
/// The first instruction of such a loop must lie within four bytes that are aligned: `loopnez`, which has three, stands
/// behind one of those. Assemblers see to that where they align by themselves, and in inline assembler they do not.
macro_rules! begin_loop {
    ($count:literal, $end:literal) => {
        concat!("j 9f\n.p2align 2\nnop.n\nnop\n9:\nloopnez {", $count, "}, ", $end)
    };
}

mod attention;
mod floats;
mod functions;
mod products;
mod quantize;
mod sampling;

use crate::quantized::{Input, Quantized, QuantizedRows};
use crate::{Panel, Rows, scalar, words};

pub(crate) use attention::attention;
pub(crate) use floats::{rope, scale, sum_of_squares};
pub(crate) use functions::{softmax, swiglu};
pub(crate) use sampling::{between, mass_above, max};
pub(crate) use scalar::dot;

/// See [`crate::Kernels::matmul`].
pub(crate) fn matmul(w: Rows<'_>, x: Input<'_>, out: Panel<'_>, add: bool) {
    match w {
        Rows::Quantized(w) if fits(&w, x.quantized) => products::matmul(w, x.quantized, out, add),
        Rows::F32(w) => floats::matmul(w, x.floats, out, add),
        _ => words::matmul(w, x, out, add),
    }
}

/// See [`crate::Kernels::quantize`].
pub(crate) fn quantize(x: &[f32], group: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    if aligned(x.as_ptr()) && aligned(values.as_ptr()) {
        quantize::quantize(x, group, values, scales, sums);
    } else {
        scalar::quantize(x, group, values, scales, sums);
    }
}

/// Whether the unit can load from here.
#[inline(always)]
fn aligned<T>(pointer: *const T) -> bool {
    pointer.addr().is_multiple_of(16)
}

/// Whether weights and activations are where the unit can load them, and scales such that a product of them can be had from
/// numbers that are converted with a wrong exponent and multiplied with a power of two.
#[inline(always)]
fn fits(w: &QuantizedRows<'_>, x: Quantized<'_>) -> bool {
    // Written so that not-a-number fails.
    aligned(w.bytes.as_ptr())
        && aligned(x.values.as_ptr())
        && x.scales.iter().all(|scale| (0.0..32_768.0).contains(scale))
        && products::usable(w)
}

/// Memory that the unit can load and store.
#[repr(align(16))]
struct Aligned<T>(T);
