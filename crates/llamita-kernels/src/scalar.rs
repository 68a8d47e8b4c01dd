//! The reference: plain loops that define every answer.
//!
//! Sums run in [`LANES`] lanes, element `i` in lane `i % LANES`, and the lanes are added in pairs. A vector
//! unit of 4 or 8 lanes can do exactly that, so it gives the same bits. Multiplications and additions are
//! separate roundings; only [`matmul`] and [`dot`] may be fused by a vector unit that has it, and then
//! differ from this in the last bits.

use crate::quantized::{Input, Quant, Quantized, QuantizedRows};
use crate::rows::{Bf16, Element, F16, F32};
use crate::{Cache, LANES, Panel, Rows, attention};

/// Sums 8 lanes in pairs.
pub(crate) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// The sum of products of two vectors.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    dot_of::<F32>(a, b)
}

/// The sum of products of a vector and a row of weights.
fn dot_of<E: Element>(a: &[f32], b: &[E::Raw]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for i in 0..LANES {
            lanes[i] += a[i] * E::to_f32(b[i]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += a * E::to_f32(*b);
    }
    sum_lanes(lanes)
}

/// `out[b][r] (+)= w[r] · x[b]`.
pub(crate) fn matmul(w: Rows<'_>, x: Input<'_>, out: Panel<'_>, add: bool) {
    match w {
        Rows::F32(w) => matmul_of::<F32>(w, x.floats, out, add),
        Rows::F16(w) => matmul_of::<F16>(w, x.floats, out, add),
        Rows::Bf16(w) => matmul_of::<Bf16>(w, x.floats, out, add),
        Rows::Quantized(w) => matmul_quantized(w, x.quantized, out, add),
    }
}

fn matmul_of<E: Element>(w: &[E::Raw], x: &[f32], mut out: Panel<'_>, add: bool) {
    let columns = x.len() / out.rows();
    for (b, x) in x.chunks_exact(columns).enumerate() {
        for (out, w) in out.row_mut(b).iter_mut().zip(w.chunks_exact(columns)) {
            let product = dot_of::<E>(x, w);
            *out = if add { *out + product } else { product };
        }
    }
}

fn matmul_quantized(w: QuantizedRows<'_>, x: Quantized<'_>, mut out: Panel<'_>, add: bool) {
    let groups = w.groups();
    let tokens = x.values.chunks_exact(w.padded);
    let scales = x.scales.chunks_exact(groups).zip(x.sums.chunks_exact(groups));
    for (b, (values, (scales, sums))) in tokens.zip(scales).enumerate() {
        for (row, out) in out.row_mut(b).iter_mut().enumerate() {
            let mut product = 0.0;
            for group in 0..groups {
                let values = &values[group * w.group..][..w.group];
                let sum = group_sum(&w, row, group, values, sums[group]);
                product += sum as f32 * (w.scale(row, group) * scales[group]);
            }
            *out = if add { *out + product } else { product };
        }
    }
}

/// The sum of products of a group of a row, which is exact; `sum` is that of `x`.
fn group_sum(w: &QuantizedRows<'_>, row: usize, group: usize, x: &[i8], sum: i32) -> i32 {
    let (runs, _) = x.as_chunks::<16>();
    match w.quant {
        Quant::Q8 => {
            let first = group * runs.len();
            let product = |(i, x): (usize, &[i8; 16])| {
                let w = w.run(row, first + i);
                (0..16).map(|j| i32::from(w[j] as i8) * i32::from(x[j])).sum::<i32>()
            };
            runs.iter().enumerate().map(product).sum()
        }
        Quant::Q4 => {
            let (pairs, _) = runs.as_chunks::<2>();
            let first = group * pairs.len();
            let product = |(i, [low, high]): (usize, &[[i8; 16]; 2])| {
                let w = w.run(row, first + i);
                (0..16)
                    .map(|j| {
                        i32::from(w[j] & 15) * i32::from(low[j]) + i32::from(w[j] >> 4) * i32::from(high[j])
                    })
                    .sum::<i32>()
            };
            // The stored numbers are greater by 8 than the weights.
            pairs.iter().enumerate().map(product).sum::<i32>() - 8 * sum
        }
    }
}

/// Rounds activations to eight bits; see [`crate::Kernels::quantize`].
pub(crate) fn quantize(x: &[f32], group: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    let outs = values.chunks_exact_mut(group).zip(scales).zip(sums);
    for (((values, scale), sum), x) in outs.zip(x.chunks(group)) {
        let inverse;
        (*scale, inverse) = quantum(magnitude(x));
        for (value, x) in values.iter_mut().zip(x) {
            // Rounded to the nearest integer, which is then in the low bits.
            *value = (x * inverse + exp_constants::MAGIC).to_bits() as i8;
        }
        values[x.len()..].fill(0);
        *sum = values.iter().map(|&value| i32::from(value)).sum();
    }
}

/// The largest magnitude; not-a-number counts as larger than all.
pub(crate) fn magnitude(x: &[f32]) -> f32 {
    // Magnitudes are in the order of their bits.
    f32::from_bits(x.iter().map(|x| x.to_bits() & i32::MAX as u32).max().unwrap_or(0))
}

/// The step between the integers of a group with this largest magnitude, and what to multiply with to get them.
pub(crate) fn quantum(magnitude: f32) -> (f32, f32) {
    // So small that the inverse might overflow: as good as nothing. Not-a-number is to spread.
    if magnitude < 1e-30 { (0.0, 0.0) } else { (magnitude / 127.0, 127.0 / magnitude) }
}

/// The sum of squares of a vector.
pub(crate) fn sum_of_squares(x: &[f32]) -> f32 {
    dot(x, x)
}

/// `out = weight * (scale * x)`.
pub(crate) fn scale(x: &[f32], scale: f32, weight: &[f32], out: &mut [f32]) {
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = weight * (scale * x);
    }
}

/// The largest element; minus infinity if there is none.
pub(crate) fn max(x: &[f32]) -> f32 {
    // Two zeros may differ in sign; the sum does not.
    x.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max }) + 0.0
}

/// Constants of [`exp`]: the polynomial of Cephes' `expf` (S. L. Moshier), relative error about 1e-7.
pub(crate) mod exp_constants {
    /// Below this, the result would be subnormal: it is 0.
    pub(crate) const LOW: f32 = -87.0;
    /// Above this, the result would overflow: it is `exp(HIGH)`.
    pub(crate) const HIGH: f32 = 88.0;
    /// Adding it rounds a float below 2^22 to an integer in the low bits of the mantissa.
    pub(crate) const MAGIC: f32 = 12_582_912.0;
    /// ln 2 in two parts: the first times an integer is exact.
    pub(crate) const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    /// From the highest power down; the lowest two are 1 and 1.
    pub(crate) const POLYNOMIAL: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
}

/// e to the power of `x`, in arithmetic that gives the same bits on every machine.
pub(crate) fn exp(x: f32) -> f32 {
    use exp_constants::{HIGH, LN2, LOW, MAGIC, POLYNOMIAL};
    // So that not-a-number becomes 0 as well.
    if !(x >= LOW) {
        return 0.0;
    }
    let x = if x > HIGH { HIGH } else { x };
    let shifted = x * core::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (x - n * LN2[0]) - n * LN2[1];
    let p = POLYNOMIAL[1..].iter().fold(POLYNOMIAL[0], |p, c| p * r + c);
    let y = (p * (r * r) + r) + 1.0;
    // The integer is in the low bits of `shifted`; moved to the exponent it is 2^n, less its bias.
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// Turns scores into exponentials of their distance to the largest; returns their sum.
fn exponentials(x: &mut [f32]) -> f32 {
    let max = max(x);
    let mut lanes = [0.0; LANES];
    for (i, x) in x.iter_mut().enumerate() {
        *x = exp(*x - max);
        lanes[i % LANES] += *x;
    }
    sum_lanes(lanes)
}

/// Turns scores into probabilities; returns the sum of the exponentials, 1 or more if all went well.
pub(crate) fn softmax(x: &mut [f32]) -> f32 {
    let sum = exponentials(x);
    let scale = 1.0 / sum;
    for x in x {
        *x *= scale;
    }
    sum
}

/// `gate = silu(gate) * up`, where `silu(x) = x / (1 + exp(-x))`.
pub(crate) fn swiglu(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// Rotates pairs of `x`; `cos` and `sin` hold a factor for each element, `sin` negative for even ones.
pub(crate) fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let pairs = x.as_chunks_mut::<2>().0.iter_mut();
    for ((x, cos), sin) in pairs.zip(cos.as_chunks::<2>().0).zip(sin.as_chunks::<2>().0) {
        *x = [x[0] * cos[0] + x[1] * sin[0], x[1] * cos[1] + x[0] * sin[1]];
    }
}

/// Attention of one query head; see [`crate::Kernels::attention`].
pub(crate) fn attention(
    q: &[f32],
    keys: Cache<'_>,
    values: Cache<'_>,
    scores: &mut [f32],
    len: usize,
    out: &mut [f32],
) {
    match (keys, values) {
        (Cache::F32(keys), Cache::F32(values)) => {
            let scores = &mut scores[..len.next_multiple_of(LANES)];
            score(q, keys, scores);
            scores[len..].fill(f32::NEG_INFINITY);
            let scale = 1.0 / exponentials(scores);
            mix(scores, values, scale, out);
        }
        _ => attention::attention(Scalar, q, keys.integers(), values.integers(), scores, len, out),
    }
}

/// Products of the query with the keys of all positions.
fn score(q: &[f32], keys: &[f32], scores: &mut [f32]) {
    for (scores, keys) in scores.as_chunks_mut().0.iter_mut().zip(keys.chunks_exact(q.len() * LANES)) {
        *scores = [0.0; LANES];
        for (q, keys) in q.iter().zip(keys.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                scores[i] += q * keys[i];
            }
        }
    }
}

/// The sum of the values, each times the score of its position, and all times `scale`.
fn mix(scores: &[f32], values: &[f32], scale: f32, out: &mut [f32]) {
    let head_size = out.len();
    for (i, out) in out.iter_mut().enumerate() {
        let mut lanes = [0.0; LANES];
        let values = values.as_chunks::<LANES>().0.iter().skip(i).step_by(head_size);
        for (scores, values) in scores.as_chunks::<LANES>().0.iter().zip(values) {
            for i in 0..LANES {
                lanes[i] += scores[i] * values[i];
            }
        }
        *out = sum_lanes(lanes) * scale;
    }
}

/// The products of integer attention, as they are defined.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

impl attention::Products for Scalar {
    const WIDTH: usize = 1;

    fn scores(self, query: &[f32], keys: &[i8]) -> [i32; LANES] {
        let mut sums = [0; LANES];
        for (query, keys) in query.iter().zip(keys.as_chunks::<LANES>().0.as_chunks::<2>().0) {
            for (query, keys) in attention::halves(*query).into_iter().zip(keys) {
                for i in 0..LANES {
                    sums[i] += query * i32::from(keys[i]);
                }
            }
        }
        sums
    }

    fn mix(self, weights: &[[f32; LANES]], values: &[i8], out: &mut [f32]) {
        let head_size = out.len();
        for (i, out) in out.iter_mut().enumerate() {
            let mut sum = 0;
            let values = values.as_chunks::<LANES>().0.iter().skip(i).step_by(head_size);
            for (weights, values) in weights.iter().zip(values) {
                for (weights, values) in weights.iter().zip(values.as_chunks::<2>().0) {
                    let [a, b] = attention::halves(*weights);
                    sum += a * i32::from(values[0]) + b * i32::from(values[1]);
                }
            }
            *out += sum as f32;
        }
    }
}

/// Lanes of [`mass_above`]: four vectors, so that their additions overlap.
pub(crate) const MASS_LANES: usize = 4 * LANES;

/// Sum and number of the elements that are `threshold` or more.
pub(crate) fn mass_above(x: &[f32], threshold: f32) -> (f32, usize) {
    let mut lanes = [0.0; MASS_LANES];
    let count = add_above(x, threshold, &mut lanes);
    (sum_masses(lanes), count)
}

/// Adds the elements that are `threshold` or more to the lanes; returns their number.
#[inline(always)]
pub(crate) fn add_above(x: &[f32], threshold: f32, lanes: &mut [f32; MASS_LANES]) -> usize {
    let mut count = 0;
    for (i, &x) in x.iter().enumerate() {
        if x >= threshold {
            lanes[i % MASS_LANES] += x;
            count += 1;
        }
    }
    count
}

/// Sums the lanes of [`mass_above`].
#[inline(always)]
pub(crate) fn sum_masses(lanes: [f32; MASS_LANES]) -> f32 {
    let sum = |i| (lanes[i] + lanes[LANES + i]) + (lanes[2 * LANES + i] + lanes[3 * LANES + i]);
    sum_lanes(core::array::from_fn(sum))
}

/// Finds the elements from `low` on that are below `high`; see [`crate::Kernels::between`].
pub(crate) fn between(x: &[f32], low: f32, high: f32, found: &mut [u32]) -> usize {
    let inside = x.iter().enumerate().filter(|&(_, &x)| x >= low && x < high);
    let mut count = 0;
    for (slot, (i, _)) in found.iter_mut().zip(inside) {
        *slot = i as u32;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0_f64;
        for i in 0..2_000_000 {
            let x = -87.0 + i as f32 * (175.0 / 2_000_000.0);
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 1.5e-7, "{worst:e}");
    }

    #[test]
    fn exp_ends_without_overflow() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(f32::NAN), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::INFINITY).is_finite());
    }

    #[test]
    fn softmax_of_anything_sums_to_one() {
        let mut x = [1.0, 2.0, f32::NEG_INFINITY, 3.0, 1000.0, -5.0, 999.0, 0.0, 4.0];
        let sum = softmax(&mut x);
        assert!((sum - 1.367_879_4).abs() < 1e-6, "{sum}");
        assert!((x.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(x[2], 0.0);
        assert!(!(softmax(&mut [f32::NAN; 3]) >= 1.0), "the caller can tell that this went wrong");
    }
}
