//! Attention over keys and values of eight bits: integers from the query to the sum of the values.
//!
//! Chips without a unit for floats spend most of a long context on float attention, and vectors of integers are
//! twice as wide. Sums are exact, so a unit may add up its products in any order; what rounds is written here once,
//! for eight positions at a time, and is the same on every CPU.
//!
//! 1. The query becomes integers of 15 bits with a power of two as scale, so that scores need shifts alone.
//! 2. Scores are powers of two in steps of 1/2048: query · key, times the key's scale.
//! 3. Probabilities, not yet divided by their sum, have 14 bits behind the point; 1 is that of the largest score.
//! 4. Times the scale of its position's values, relative to the largest, each is the 16-bit weight of the values.

use crate::LANES;
use crate::scalar::{exp_constants::MAGIC, magnitude};

/// What differs between CPUs; a value proves that the CPU has the unit.
///
/// Neighbouring elements of the query, and weights of neighbouring positions, come in pairs of 16 bits each, the first
/// lower, in the memory of floats.
pub(crate) trait Products: Copy {
    /// Query · key of eight positions. `query` has a pair for every two elements, `keys` is (head_size, 8).
    fn scores(self, query: &[f32], keys: &[i8]) -> [i32; LANES];
    /// Adds to each element of `out`, (head_size,), the sum of its values times their weights, which fits 32 bits.
    ///
    /// `weights` has eight positions in each, four pairs in the order of [`Products::PAIRS`] and then nothing of use;
    /// `values` is (positions / 8, head_size, 8).
    fn mix(self, weights: &[[f32; LANES]], values: &[i8], out: &mut [f32]);
    /// As many numbers as the unit adds at once: the sum of the probabilities is kept in so many lanes.
    const WIDTH: usize;
    /// Scores of eight positions: of their sums of products, less `drop` bits, and the scales of their keys.
    #[inline(always)]
    fn score(
        self,
        query: &[f32],
        keys: &[i8],
        scales: &[u16; LANES],
        [drop, shift]: [i32; 2],
        scores: &mut [f32; LANES],
    ) {
        let sums = self.scores(query, keys);
        *scores = core::array::from_fn(|i| {
            let shift = (shift - exponent_of(scales[i])).clamp(0, 31);
            f32::from_bits((((sums[i] >> drop) * mantissa(scales[i])) >> shift) as u32)
        });
    }
    /// The largest score.
    #[inline(always)]
    fn most(self, scores: &[[f32; LANES]]) -> i32 {
        scores.as_flattened().iter().map(|score| score.to_bits() as i32).fold(NONE, i32::max)
    }
    /// Makes of eight scores the weights, of which the largest score, the scales of the values, and the exponent of the
    /// largest of these; the probabilities are added to `sum`.
    #[inline(always)]
    fn weigh(
        self,
        scores: &mut [f32; LANES],
        most: i32,
        scales: &[u16; LANES],
        exponent: i32,
        sum: &mut [i32; LANES],
    ) {
        let mut weights = [0; LANES];
        for i in 0..LANES {
            let probability = exp2(scores[i].to_bits() as i32 - most);
            sum[i % Self::WIDTH] += probability;
            let shift = (6 + exponent - exponent_of(scales[i])).clamp(0, 31);
            weights[i] = (((probability * mantissa(scales[i])) >> shift) + 1) >> 1;
        }
        for (to, [low, high]) in scores.iter_mut().zip(Self::PAIRS) {
            *to = pair(weights[low], weights[high]);
        }
    }
    /// [`Products::score`] of all blocks.
    #[inline(always)]
    fn score_all(
        self,
        query: &[f32],
        keys: &[i8],
        scales: &[[u16; LANES]],
        drop_and_shift: [i32; 2],
        scores: &mut [[f32; LANES]],
    ) {
        let keys = keys.chunks_exact(query.len() * 2 * LANES).zip(scales);
        for (scores, (keys, scales)) in scores.iter_mut().zip(keys) {
            self.score(query, keys, scales, drop_and_shift, scores);
        }
    }
    /// [`Products::weigh`] of all blocks; returns the sum of the probabilities.
    #[inline(always)]
    fn weigh_all(
        self,
        scores: &mut [[f32; LANES]],
        most: i32,
        scales: &[[u16; LANES]],
        exponent: i32,
    ) -> i32 {
        let mut sum = [0; LANES];
        for (scores, scales) in scores.iter_mut().zip(scales) {
            self.weigh(scores, most, scales, exponent, &mut sum);
        }
        sum.into_iter().sum()
    }
    /// The positions of a block whose weights are a pair.
    const PAIRS: [[usize; 2]; 4] = IN_ORDER;
    /// See [`largest`].
    #[inline(always)]
    fn largest(self, scales: &[u16]) -> u16 {
        largest(scales)
    }
}

/// Neighbouring positions.
pub(crate) const IN_ORDER: [[usize; 2]; 4] = [[0, 1], [2, 3], [4, 5], [6, 7]];

/// The largest of scales, none of which is negative, as bits; not-a-number and infinity are larger than all.
#[inline(always)]
pub(crate) fn largest(scales: &[u16]) -> u16 {
    scales.iter().fold(0, |most, &scale| most.max(scale))
}

/// A pair in the memory of a float.
#[inline(always)]
fn pair(low: i32, high: i32) -> f32 {
    f32::from_bits(low as u32 & 0xffff | (high as u32) << 16)
}

/// The numbers of a pair.
#[inline(always)]
pub(crate) fn halves(pair: f32) -> [i32; 2] {
    let bits = pair.to_bits() as i32;
    [i32::from(bits as i16), bits >> 16]
}

/// Eight blocks of this many positions are as many as a sum of 32 bits surely holds: 512 · 32640 · 127.
const BLOCKS: usize = 64;
/// Bits behind the point of a score.
pub(crate) const SCORE_BITS: i32 = 11;
/// Bits that a score is shifted by at least. Scores are below 2^22 then, 2048 powers of two, and their mantissas shifted the
/// other way, for units that multiply into an upper half, below 2^31.
pub(crate) const LEAST_SHIFT: i32 = 9;
/// A score that is none: farther below every other than a probability can tell, which are less than half as far from 0.
const NONE: i32 = -(1 << 30);

/// See [`crate::Kernels::attention`]; keys and values with their scales.
#[inline(always)]
pub(crate) fn attention<P: Products>(
    unit: P,
    q: &[f32],
    (keys, key_scales): (&[i8], &[u16]),
    (values, value_scales): (&[i8], &[u16]),
    scores: &mut [f32],
    len: usize,
    out: &mut [f32],
) {
    let (blocks, block_len) = (len.div_ceil(LANES), q.len() * LANES);
    let positions = ..blocks * LANES;
    // Of these positions alone: others may hold what was guessed and rejected.
    let (most_key, most_value) = (unit.largest(&key_scales[..len]), unit.largest(&value_scales[..len]));
    let magnitude = magnitude(q);
    if [f32_bits(most_key), f32_bits(most_value), magnitude].iter().any(|x| !x.is_finite()) {
        return out.fill(f32::NAN);
    }

    let size_bits = q.len().next_power_of_two().ilog2() as i32;
    let exponent = query(q, size_bits, magnitude, out);
    let query = &out[..q.len() / 2];
    // So many bits that a score less them, times 255, fits 32.
    let drop = (size_bits - 2).clamp(0, 8);
    // At least so much for the largest scale, and more for all others.
    let shift = (exponent + 127 + 7 - SCORE_BITS - drop).max(exponent_of(most_key) + LEAST_SHIFT);
    let scores = scores[positions].as_chunks_mut::<LANES>().0;
    let scales = key_scales[positions].as_chunks().0;
    unit.score_all(query, keys, scales, [drop, shift], scores);
    scores.as_flattened_mut()[len..].fill(f32::from_bits(NONE as u32));
    let most = unit.most(scores);

    // The weights of a block take the first half of the room of its scores.
    let exponent = exponent_of(most_value);
    let sum = unit.weigh_all(scores, most, value_scales[positions].as_chunks().0, exponent);

    out.fill(0.0);
    for (weights, values) in scores.chunks(BLOCKS).zip(values.chunks(BLOCKS * block_len)) {
        unit.mix(weights, &values[..weights.len() * block_len], out);
    }
    let scale = f32::from_bits((exponent as u32) << 23) / sum as f32;
    for out in out {
        *out *= scale;
    }
}

/// Writes the query, of up to 2^`size_bits` numbers, as pairs of integers; they are what it was times log2(e) and 2 to the
/// power that is returned.
#[inline(always)]
fn query(q: &[f32], size_bits: i32, magnitude: f32, pairs: &mut [f32]) -> i32 {
    // Of 15 bits, fewer in heads so large that the sum of products would not fit 32.
    let spare = (size_bits - 10).max(0);
    let magnitude = magnitude.max(1e-30) * core::f32::consts::LOG2_E;
    let exponent = 13 - spare - ((magnitude.to_bits() >> 23) as i32 - 127);
    let scale = core::f32::consts::LOG2_E * f32::from_bits(((exponent + 127).clamp(1, 254) as u32) << 23);
    // Rounded to the nearest integer, which is then in the low bits.
    let integer = |x: f32| (x * scale + MAGIC).to_bits() as i32;
    for (to, &[a, b]) in pairs.iter_mut().zip(q.as_chunks::<2>().0) {
        *to = pair(integer(a), integer(b));
    }
    exponent
}

fn f32_bits(scale: u16) -> f32 {
    f32::from_bits(u32::from(scale) << 16)
}

/// A scale is `mantissa * 2^(exponent - 127 - 7)`.
#[inline(always)]
fn mantissa(scale: u16) -> i32 {
    i32::from(scale) & 127 | 128
}

#[inline(always)]
fn exponent_of(scale: u16) -> i32 {
    i32::from(scale) >> 7
}

/// 2^x - 1 for x from 0 to 1 is x * (a + x * (b + x * c)), within 0.011 %; with 16 bits behind the point.
pub(crate) const CUBIC: [u32; 3] = [45_580, 14_812, 5_144];

/// 2 to the power of a score that is at most 0, with 14 bits behind the point.
#[inline(always)]
fn exp2(score: i32) -> i32 {
    // Below, it is 0. Limits of 16 bits are an instruction of some CPUs.
    let score = score.clamp(-16 << SCORE_BITS, (16 << SCORE_BITS) - 1);
    let x = (score as u32 & ((1 << SCORE_BITS) - 1)) << (16 - SCORE_BITS);
    let [a, b, c] = CUBIC;
    let power = (x * (a + ((x * (b + ((x * c) >> 16))) >> 16))) >> 17;
    (((0x8000 + power) >> -(score >> SCORE_BITS)) as i32 + 1) >> 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CacheMut, Kernels};

    #[test]
    fn powers_rise_and_are_near_those_of_two() {
        let mut last = 0;
        for score in -40_000..=0 {
            let power = exp2(score);
            let exact = f64::from(score).mul_add(1.0 / 2048.0, 14.0).exp2();
            assert!((f64::from(power) - exact).abs() <= 0.51 + exact * 1.1e-4, "{power} for {exact}");
            assert!(power >= last);
            last = power;
        }
        assert_eq!((exp2(0), exp2(-2048), exp2(NONE - (1 << 29))), (1 << 14, 1 << 13, 0));
    }

    /// Random keys and values in a cache, and what each unit and double precision make of them.
    struct Case {
        head_size: usize,
        keys: (Vec<i8>, Vec<u16>),
        values: (Vec<i8>, Vec<u16>),
        q: Vec<f32>,
    }

    impl Case {
        fn new(head_size: usize, len: usize, range: f32) -> Self {
            let mut state = 0x2545_f491_u32;
            let mut number = |range: f32| {
                state = state.wrapping_mul(0x915f_77f5).wrapping_add(0x3c6e_f35f);
                ((state >> 8) as f32 / 8_388_608.0 - 1.0) * range
            };
            let positions = len.next_multiple_of(LANES);
            let mut filled = |range: f32| {
                let mut numbers = vec![99; positions * head_size];
                let mut scales = vec![0x4242; positions];
                for position in 0..len {
                    let head: Vec<f32> = (0..head_size).map(|_| number(range)).collect();
                    CacheMut::Q8 { values: &mut numbers, scales: &mut scales }.remember(position, &head);
                }
                (numbers, scales)
            };
            let (keys, values) = (filled(range), filled(3.0));
            let q = (0..head_size).map(|_| number(1.0)).collect();
            Self { head_size, keys, values, q }
        }

        fn attention(&self, kernels: Kernels, len: usize) -> Vec<f32> {
            let [keys, values] =
                [&self.keys, &self.values].map(|(values, scales)| crate::Cache::Q8 { values, scales });
            let mut scores = vec![f32::NAN; len.next_multiple_of(LANES)];
            let mut out = vec![f32::NAN; self.head_size];
            kernels.attention(&self.q, keys, values, &mut scores, len, &mut out);
            out
        }

        fn exact(&self, len: usize) -> Vec<f64> {
            let number = |(values, scales): &(Vec<i8>, Vec<u16>), position: usize, i: usize| {
                let value = values[(position / LANES * self.head_size + i) * LANES + position % LANES];
                f64::from(value) * f64::from(f32_bits(scales[position]))
            };
            let score = |p: usize| -> f64 {
                self.q.iter().enumerate().map(|(i, &q)| f64::from(q) * number(&self.keys, p, i)).sum()
            };
            let scores: Vec<f64> = (0..len).map(score).collect();
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mixed = |i| {
                weights.iter().enumerate().map(|(p, w)| w * number(&self.values, p, i)).sum::<f64>() / sum
            };
            (0..self.head_size).map(mixed).collect()
        }
    }

    #[test]
    fn it_is_near_double_precision() {
        for (head_size, len, range) in
            [(2, 3, 4.0), (8, 200, 3.0), (16, 77, 1.0), (64, 512, 1.0), (48, 1300, 0.5), (2048, 40, 0.05)]
        {
            let case = Case::new(head_size, len, range);
            let found = case.attention(Kernels::SCALAR, len);
            for (i, (found, exact)) in found.iter().zip(case.exact(len)).enumerate() {
                assert!(
                    (f64::from(*found) - exact).abs() < 3e-3,
                    "{head_size}, {len}: {i}: {found} for {exact}"
                );
            }
            for kernels in [Kernels::detect(), Kernels::WORDS] {
                assert_eq!(case.attention(kernels, len), found, "{}", kernels.name());
            }
        }
    }

    #[test]
    fn a_score_far_above_the_others_takes_its_value() {
        // Also where scores leave every range.
        for range in [1e4, 1e15, 1e30] {
            let case = Case::new(8, 20, range);
            let exact = case.exact(20);
            for (found, exact) in case.attention(Kernels::SCALAR, 20).iter().zip(exact) {
                assert!(
                    found.is_finite() && (range > 1e5 || (f64::from(*found) - exact).abs() < 2e-3),
                    "{found}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_number_spreads() {
        let mut case = Case::new(8, 20, 1.0);
        case.values.1[7] = 0x7fc0;
        assert!(case.attention(Kernels::SCALAR, 20).iter().all(|x| x.is_nan()));
        assert!(
            case.attention(Kernels::SCALAR, 7).iter().all(|x| x.is_finite()),
            "not from a position to come"
        );
        let mut case = Case::new(8, 20, 1.0);
        case.q[3] = f32::INFINITY;
        assert!(case.attention(Kernels::SCALAR, 20).iter().all(|x| x.is_nan()));
        case.q = vec![0.0; 8];
        assert!(case.attention(Kernels::SCALAR, 20).iter().all(|x| x.is_finite()));
    }
}
