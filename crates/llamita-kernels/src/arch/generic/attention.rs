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
    const WIDTH: usize = LANES;

    #[inline(always)]
    fn scores(self, query: &[f32], keys: &[i8]) -> [i32; LANES] {
        let mut scores = [0; LANES];
        // SAFETY: The CPU has the unit; the buffer holds 8 sums.
        unsafe {
            let mut sums = V::no_sums();
            // Four at a time: a loop of known length needs no counting.
            let (fours, rest) = query.as_chunks::<4>();
            let (fours_of_keys, rest_of_keys) = keys.as_chunks::<{ 8 * LANES }>();
            for (query, keys) in fours.iter().zip(fours_of_keys) {
                add_scores::<V>(&mut sums, query, keys);
            }
            add_scores::<V>(&mut sums, rest, rest_of_keys);
            V::store_sums(sums, scores.as_mut_ptr());
        }
        scores
    }

    #[inline(always)]
    fn mix(self, weights: &[[f32; LANES]], values: &[i8], out: &mut [f32]) {
        let block_len = out.len() * LANES;
        for (i, out) in out.chunks_mut(LANES).enumerate() {
            let first = i * LANES;
            if out.len() == LANES {
                mix_pairs::<V, 4>(weights, values, block_len, first, out);
            } else {
                for (pair, out) in out.chunks_mut(2).enumerate() {
                    mix_pairs::<V, 1>(weights, values, block_len, first + 2 * pair, out);
                }
            }
        }
    }
}

/// Adds the products of pairs of the query with as many pairs of elements of 8 positions.
///
/// # Safety
/// The CPU has the unit.
#[inline(always)]
unsafe fn add_scores<V: Vector>(sums: &mut V::Sums, query: &[f32], keys: &[i8]) {
    for (pair, keys) in query.iter().zip(keys.as_chunks::<{ 2 * LANES }>().0) {
        // SAFETY: The caller promises the unit; a chunk has two elements of 8 positions.
        unsafe { V::add_scores(sums, pair.to_bits(), keys.as_ptr()) };
    }
}

/// Mixes N pairs of elements, which begin with the element `first` in each of the blocks.
#[inline(always)]
fn mix_pairs<V: Vector, const N: usize>(
    weights: &[[f32; LANES]],
    values: &[i8],
    block_len: usize,
    first: usize,
    out: &mut [f32],
) {
    assert!((first + 2 * N) * LANES <= block_len, "elements of a block");
    // SAFETY: The CPU has the unit, as this is called by who has proof of it; a block has the elements, as was just seen.
    unsafe {
        let mut sums = [V::no_sums(); 4];
        for (weights, values) in weights.iter().zip(values.chunks_exact(block_len)) {
            let values = values.as_ptr().add(first * LANES);
            for (pair, sums) in sums[..N].iter_mut().enumerate() {
                V::add_values(sums, weights.as_ptr(), values.add(2 * pair * LANES));
            }
        }
        let mut mixed = [0.0; LANES];
        V::sum_rows(sums, 0).store(mixed.as_mut_ptr());
        for (out, mixed) in out.iter_mut().zip(mixed) {
            *out += mixed;
        }
    }
}
