//! Products with the instructions that every CPU has.

use super::{ROWS, Run};
use crate::LANES;
use crate::attention::halves;

pub(super) use super::scales;
pub(super) use crate::attention::{IN_ORDER as PAIRS, largest};

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

/// Adds the products of weights of eight bits: a run of each row.
#[inline(always)]
pub(super) fn add_q8(sums: &mut [i32; ROWS], rows: &[Run; ROWS], x: &[i8; 16]) {
    for i in 0..16 {
        let x = i32::from(x[i]);
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum += i32::from(row[i] as i8) * x;
        }
    }
}

/// Adds the products of weights of four bits, as they are stored: a run of each row.
#[inline(always)]
pub(super) fn add_q4(sums: &mut [i32; ROWS], rows: &[Run; ROWS], x: &[i8; 32]) {
    for i in 0..16 {
        let (low, high) = (i32::from(x[i]), i32::from(x[16 + i]));
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum += i32::from(row[i] & 15) * low + i32::from(row[i] >> 4) * high;
        }
    }
}
