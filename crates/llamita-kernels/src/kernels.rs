//! The choice of an implementation.

use crate::quantized::{Input, MAX_COLUMNS};
use crate::{Cache, LANES, Panel, Rows, scalar, words};

/// One implementation of every kernel, for a CPU that has been seen to support it.
///
/// Shapes are written as (rows, columns), row-major. Slices whose lengths do not fit together panic.
#[derive(Clone, Copy, Debug)]
pub struct Kernels(Unit);

#[derive(Clone, Copy, Debug)]
enum Unit {
    Scalar,
    /// That, but for products of integers.
    Words,
    #[cfg(target_arch = "x86_64")]
    Avx2(crate::arch::avx2::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(crate::arch::neon::Neon),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128(crate::arch::simd128::Simd128),
    #[cfg(llamita_pie)]
    Pie,
}

/// Calls a kernel of the unit.
macro_rules! call {
    ($kernels:expr, $name:ident($($arg:expr),*)) => {
        match $kernels.0 {
            Unit::Scalar => scalar::$name($($arg),*),
            Unit::Words => words::$name($($arg),*),
            #[cfg(target_arch = "x86_64")]
            Unit::Avx2(unit) => unit.$name($($arg),*),
            #[cfg(target_arch = "aarch64")]
            Unit::Neon(unit) => unit.$name($($arg),*),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Unit::Simd128(unit) => unit.$name($($arg),*),
            #[cfg(llamita_pie)]
            Unit::Pie => crate::arch::pie::$name($($arg),*),
        }
    };
}

impl Kernels {
    /// The reference, for any CPU.
    pub const SCALAR: Self = Self(Unit::Scalar);

    /// For CPUs without vectors: the reference, but for products of integers, which take fewer instructions.
    pub const WORDS: Self = Self(Unit::Words);

    /// The fastest implementation for this CPU.
    ///
    /// Without the feature `std` only what the target is compiled for can be used.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        let unit = crate::arch::avx2::Avx2::new().map(Unit::Avx2);
        #[cfg(target_arch = "aarch64")]
        let unit = crate::arch::neon::Neon::new().map(Unit::Neon);
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        let unit = crate::arch::simd128::Simd128::new().map(Unit::Simd128);
        #[cfg(llamita_pie)]
        let unit = Some(Unit::Pie);
        #[cfg(not(any(
            target_arch = "x86_64",
            target_arch = "aarch64",
            all(target_arch = "wasm32", target_feature = "simd128"),
            llamita_pie
        )))]
        let unit = None;
        Self(unit.unwrap_or(Unit::Words))
    }

    /// What the implementation uses, in a word.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Unit::Scalar => "scalar",
            Unit::Words if cfg!(llamita_dsp) => "dsp",
            Unit::Words => "words",
            #[cfg(target_arch = "x86_64")]
            Unit::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Unit::Neon(_) => "neon",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Unit::Simd128(_) => "simd128",
            #[cfg(llamita_pie)]
            Unit::Pie => "pie",
        }
    }

    /// A matrix of weights times the activations of some tokens: `out[b][r] = w[r] · x[b]`, or with `add`
    /// the product is added to what `out` holds.
    ///
    /// `w` is (rows, columns), `x` (batch, columns), `out` (batch, rows). An output is the same whatever
    /// rows and tokens are computed with it. Quantized weights need quantized activations of the same groups;
    /// their products have the same bits on every CPU, as [`quantized`](crate::quantized) defines them. Where the
    /// CPU fuses multiplication and addition, a product of floats differs from that of [`Kernels::SCALAR`] by at
    /// most `(columns / 4 + 2) * 2^-24 * Σ |w[r][i] * x[b][i]|`, a bound on the roundings of one lane and of the
    /// sum of the lanes.
    #[inline]
    pub fn matmul(self, w: Rows<'_>, x: Input<'_>, out: Panel<'_>, add: bool) {
        let (batch, rows) = (out.rows(), out.width());
        if batch == 0 || rows == 0 {
            return;
        }
        let fits = match w {
            Rows::F32(w) => covers_batch(w.len(), rows, x.floats.len(), batch),
            Rows::F16(w) | Rows::Bf16(w) => covers_batch(w.len(), rows, x.floats.len(), batch),
            Rows::Quantized(w) => {
                let x = x.quantized;
                w.fits()
                    && w.rows() >= rows
                    && w.padded.checked_mul(batch) == Some(x.values.len())
                    && w.groups().checked_mul(batch) == Some(x.scales.len())
                    && x.sums.len() == x.scales.len()
            }
        };
        assert!(fits, "operands of one shape");
        call!(self, matmul(w, x, out, add))
    }

    /// Rounds the activations of one token to integers from -127 to 127, each group with a scale of its own, so
    /// that `value * scale` is within half a scale of `x`, or 0 where `x` is below 1e-30.
    ///
    /// `x` is (columns,), `values` (padded,) with padded = columns filled up to a multiple of `group`, `scales`
    /// and `sums`, those of the values, (padded / group,). Values that are not finite make the scale so.
    #[inline]
    pub fn quantize(self, x: &[f32], group: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
        assert!(
            (1..=MAX_COLUMNS).contains(&group) && values.len() == x.len().next_multiple_of(group),
            "groups of the activations"
        );
        let groups = values.len() / group;
        assert!(scales.len() == groups && sums.len() == groups, "a scale and a sum for each group");
        call!(self, quantize(x, group, values, scales, sums))
    }

    /// The sum of the products of two vectors of one length; differs from that of [`Kernels::SCALAR`] by no
    /// more than [`Kernels::matmul`] does.
    #[inline]
    pub fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "vectors of one length");
        call!(self, dot(a, b))
    }

    /// The sum of squares of a vector.
    #[inline]
    pub fn sum_of_squares(self, x: &[f32]) -> f32 {
        call!(self, sum_of_squares(x))
    }

    /// `out = weight * (scale * x)`, all of one length: the second half of an rmsnorm.
    #[inline]
    pub fn scale(self, x: &[f32], scale: f32, weight: &[f32], out: &mut [f32]) {
        assert!(x.len() == out.len() && weight.len() == out.len(), "vectors of one length");
        call!(self, scale(x, scale, weight, out))
    }

    /// The largest element, passing over what is not a number; minus infinity if there is none.
    #[inline]
    pub fn max(self, x: &[f32]) -> f32 {
        call!(self, max(x))
    }

    /// Turns scores into probabilities, in place; what is not a number gets none. Returns the sum of
    /// `exp(x - max)`: at least 1, unless the scores held an infinity or not a single number.
    #[inline]
    pub fn softmax(self, x: &mut [f32]) -> f32 {
        call!(self, softmax(x))
    }

    /// `gate = silu(gate) * up`, of one length, where `silu(x) = x / (1 + exp(-x))` (N. Shazeer, 2020).
    #[inline]
    pub fn swiglu(self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "vectors of one length");
        call!(self, swiglu(gate, up))
    }

    /// Rotates neighbouring pairs of a head: (head_size,) (Su et al., 2021).
    ///
    /// `cos` and `sin` hold a factor for each element: those of a pair twice, `sin` first negated.
    #[inline]
    pub fn rope(self, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        assert!(x.len().is_multiple_of(2), "a head of pairs");
        assert!(cos.len() == x.len() && sin.len() == x.len(), "vectors of one length");
        call!(self, rope(x, cos, sin))
    }

    /// Attention of one query head over the first `len` positions, at least 1: `out = softmax(keys q) values`.
    ///
    /// `q`, which carries the factor `1 / sqrt(head_size)`, and `out` are (head_size,), an even size. `keys` and
    /// `values` are of one format; a last block in part used must be finite throughout. `scores` is room for `len`
    /// numbers, rounded up to whole blocks of [`LANES`]. Over a cache of integers all is in integers, see
    /// `attention.rs`; if a scale or the query is not finite, nor is the output.
    #[inline]
    pub fn attention(
        self,
        q: &[f32],
        keys: Cache<'_>,
        values: Cache<'_>,
        scores: &mut [f32],
        len: usize,
        out: &mut [f32],
    ) {
        let blocks = len.div_ceil(LANES);
        assert!(len > 0 && covers(scores.len(), blocks, LANES), "scores of {len} positions");
        // The scores cover the blocks, so their number of positions does not overflow.
        let cached = |cache: &Cache<'_>| cache.covers(blocks * LANES, q.len());
        assert!(cached(&keys) && cached(&values), "keys and values of {len} positions");
        assert!(
            out.len() == q.len() && q.len().is_multiple_of(2),
            "an output for each element of the query, in pairs"
        );
        let alike =
            matches!((keys, values), (Cache::F32(_), Cache::F32(_)) | (Cache::Q8 { .. }, Cache::Q8 { .. }));
        assert!(alike, "keys and values of one format");
        call!(self, attention(q, keys, values, scores, len, out))
    }

    /// Sum and number of the elements that are `threshold` or more.
    #[inline]
    pub fn mass_above(self, x: &[f32], threshold: f32) -> (f32, usize) {
        call!(self, mass_above(x, threshold))
    }

    /// Writes the indices of the elements that are `low` or more and less than `high` to `found`, in order,
    /// as many as fit; returns their number.
    #[inline]
    pub fn between(self, x: &[f32], low: f32, high: f32, found: &mut [u32]) -> usize {
        call!(self, between(x, low, high, found))
    }
}

/// Whether `weights` are `rows` rows of as many columns as `inputs` has for each of `batch` tokens.
fn covers_batch(weights: usize, rows: usize, inputs: usize, batch: usize) -> bool {
    inputs.is_multiple_of(batch) && covers(weights, rows, inputs / batch)
}

/// Whether `len` elements are at least `rows` rows of `columns`.
fn covers(len: usize, rows: usize, columns: usize) -> bool {
    rows.checked_mul(columns).is_some_and(|needed| len >= needed)
}
