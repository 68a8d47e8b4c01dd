//! Attention over integers with the words of a CPU.

use crate::attention::{Products, halves};
use crate::{Cache, LANES, attention as integers, scalar};

/// See [`crate::Kernels::attention`].
pub(crate) fn attention(
    q: &[f32],
    keys: Cache<'_>,
    values: Cache<'_>,
    scores: &mut [f32],
    len: usize,
    out: &mut [f32],
) {
    match keys {
        Cache::F32(_) => scalar::attention(q, keys, values, scores, len, out),
        Cache::Q8 { .. } => {
            integers::attention(Words, q, keys.integers(), values.integers(), scores, len, out);
        }
    }
}

#[derive(Clone, Copy)]
struct Words;

/// Elements that share what is made of the weights.
const ELEMENTS: usize = 4;

impl Products for Words {
    const PAIRS: [[usize; 2]; 4] = super::unit::PAIRS;
    const WIDTH: usize = 1;

    #[inline(always)]
    fn largest(self, scales: &[u16]) -> u16 {
        super::unit::largest(scales)
    }

    #[inline(always)]
    fn scores(self, query: &[f32], keys: &[i8]) -> [i32; LANES] {
        let mut sums = [0; LANES];
        for (query, keys) in query.iter().zip(keys.as_chunks::<{ 2 * LANES }>().0) {
            super::unit::add_scores(&mut sums, halves(*query), keys);
        }
        sums
    }

    #[inline(always)]
    fn mix(self, weights: &[[f32; LANES]], values: &[i8], out: &mut [f32]) {
        let block_len = out.len() * LANES;
        for (i, out) in out.chunks_mut(ELEMENTS).enumerate() {
            let values = &values[i * ELEMENTS * LANES..];
            // Heads have an even number of elements.
            match out.len() {
                ELEMENTS => mix::<ELEMENTS>(weights, values, block_len, out),
                _ => mix::<2>(weights, values, block_len, out),
            }
        }
    }
}

/// Mixes N elements, which come first in each of the blocks.
#[inline(always)]
fn mix<const N: usize>(weights: &[[f32; LANES]], values: &[i8], block_len: usize, out: &mut [f32]) {
    let mut sums = [0; N];
    for (weights, values) in weights.iter().zip(values.chunks(block_len)) {
        if let Some(values) = values.as_chunks().0.first_chunk() {
            super::unit::add_values(&mut sums, weights, values);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out += sum as f32;
    }
}
