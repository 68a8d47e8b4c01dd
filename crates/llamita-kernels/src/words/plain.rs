//! Products with the instructions that every CPU has.

use super::{Bits, Q4, Q8, ROWS, Run};
use crate::LANES;
use crate::attention::halves;
use crate::quantized::BLOCK_ROWS;
use crate::rows::{Element, F16};

/// Scales of a block's rows, each times that of the activations.
#[inline(always)]
pub(super) fn scales(bytes: &[u8; 2 * BLOCK_ROWS], x_scale: f32) -> [f32; BLOCK_ROWS] {
    core::array::from_fn(|i| F16::to_f32(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])) * x_scale)
}

/// See [`crate::attention::Products::PAIRS`].
pub(super) const PAIRS: [[usize; 2]; 4] = [[0, 1], [2, 3], [4, 5], [6, 7]];

/// See [`crate::attention::Products::largest`].
#[inline(always)]
pub(super) fn largest(scales: &[u16]) -> u16 {
    scales.iter().fold(0, |most, &scale| most.max(scale))
}

/// Adds the products of two elements of the query with keys of 8 positions, (2, 8).
#[inline(always)]
pub(super) fn add_scores(sums: &mut [i32; LANES], query: [i32; 2], keys: &[i8; 2 * LANES]) {
    for i in 0..LANES {
        sums[i] += query[0] * i32::from(keys[i]) + query[1] * i32::from(keys[LANES + i]);
    }
}

/// Adds to each element's sum the products of its values at 8 positions with their weights.
#[inline(always)]
pub(super) fn add_values<const N: usize>(
    sums: &mut [i32; N],
    weights: &[f32; LANES],
    values: &[[i8; LANES]; N],
) {
    for (i, &weights) in weights[..4].iter().enumerate() {
        let [a, b] = halves(weights);
        for (sum, values) in sums.iter_mut().zip(values) {
            *sum += a * i32::from(values[2 * i]) + b * i32::from(values[2 * i + 1]);
        }
    }
}

impl Bits for Q8 {
    const OFFSET: i32 = 0;
    type Columns = [i8; 16];

    fn columns(x: &[i8]) -> &[[i8; 16]] {
        x.as_chunks().0
    }

    #[inline(always)]
    fn add(sums: &mut [i32; ROWS], rows: &[Run; ROWS], x: &[i8; 16]) {
        for i in 0..16 {
            let x = i32::from(x[i]);
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum += i32::from(row[i] as i8) * x;
            }
        }
    }
}

impl Bits for Q4 {
    const OFFSET: i32 = 8;
    type Columns = [i8; 32];

    fn columns(x: &[i8]) -> &[[i8; 32]] {
        x.as_chunks().0
    }

    #[inline(always)]
    fn add(sums: &mut [i32; ROWS], rows: &[Run; ROWS], x: &[i8; 32]) {
        for i in 0..16 {
            let (low, high) = (i32::from(x[i]), i32::from(x[16 + i]));
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum += i32::from(row[i] & 15) * low + i32::from(row[i] >> 4) * high;
            }
        }
    }
}
