//! The products of attention over integers.

use core::marker::PhantomData;

use super::Vector;
use crate::LANES;
use crate::attention::Products;

/// Proof that the CPU has the unit.
#[derive(Clone, Copy)]
pub(super) struct Integers<V>(PhantomData<V>);

impl<V: Vector> Integers<V> {
    /// # Safety
    /// The CPU has the unit.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(PhantomData)
    }
}

impl<V: Vector> Products for Integers<V> {
    #[inline(always)]
    fn scores(self, query: &[f32], keys: &[i8]) -> [i32; LANES] {
        let mut scores = [0; LANES];
        // SAFETY: The CPU has the unit; a chunk has two elements of 8 positions.
        unsafe {
            let mut sums = V::no_sums();
            for (pair, keys) in query.iter().zip(keys.as_chunks::<{ 2 * LANES }>().0) {
                V::add_scores(&mut sums, pair.to_bits(), keys.as_ptr());
            }
            V::store_sums(sums, scores.as_mut_ptr());
        }
        scores
    }

    #[inline(always)]
    fn mix(self, weights: &[f32], values: &[i8], out: &mut [f32]) {
        let block_len = out.len() * LANES;
        let (fours, rest) = out.as_chunks_mut::<8>();
        for (i, out) in fours.iter_mut().enumerate() {
            mix_pairs::<V, 4>(weights, &values[i * 8 * LANES..], block_len, out);
        }
        let done = fours.len() * 8;
        for (i, out) in rest.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            mix_pairs::<V, 1>(weights, &values[(done + 2 * i) * LANES..], block_len, out);
        }
    }
}

/// Mixes N pairs of elements, which come first in each of the blocks.
#[inline(always)]
fn mix_pairs<V: Vector, const N: usize>(weights: &[f32], values: &[i8], block_len: usize, out: &mut [f32]) {
    // SAFETY: The CPU has the unit, as this is called by who has proof of it; a block has N pairs of 8 positions, and
    // four pairs of weights.
    unsafe {
        let mut sums = [V::no_sums(); N];
        for (weights, values) in weights.as_chunks::<4>().0.iter().zip(values.chunks(block_len)) {
            let values = &values[..2 * N * LANES];
            for (pair, sums) in sums.iter_mut().enumerate() {
                V::add_values(sums, weights.as_ptr(), values.as_ptr().add(2 * pair * LANES));
            }
        }
        for (sums, out) in sums.into_iter().zip(out.as_chunks_mut::<2>().0) {
            let mut lanes = [0; LANES];
            V::store_sums(sums, lanes.as_mut_ptr());
            out[0] += lanes[..4].iter().sum::<i32>() as f32;
            out[1] += lanes[4..].iter().sum::<i32>() as f32;
        }
    }
}
