//! Quantized weights, and the activations for them.
//!
//! A vector holds a number for each of a block's eight rows. Sums of a group are exact, so a unit may add up
//! the products in any order.

use super::{Vector, load_filled, store_partial, sum};
use crate::quantized::{BLOCK_ROWS, Quant, Quantized, QuantizedRows};
use crate::scalar::exp_constants::MAGIC;
use crate::{LANES, Panel};

/// See [`crate::Kernels::quantize`].
#[inline(always)]
pub(crate) unsafe fn quantize<V: Vector>(
    x: &[f32],
    group: usize,
    values: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
) {
    let outs = values.chunks_exact_mut(group).zip(scales).zip(sums);
    for (((values, scale), total), x) in outs.zip(x.chunks(group)) {
        // SAFETY: The caller promises the unit; loads stay inside `x`, and stores inside `values`, which is at
        // least as long.
        unsafe {
            let (from, to) = (x.as_ptr(), values.as_mut_ptr());
            let mut most = V::splat(0.0);
            for_vectors!(x.len(), |i| most = V::load(from.add(i)).magnitude(most), |i, rest| most =
                load_filled::<V>(from.add(i), rest, 0.0).magnitude(most));
            let mut lanes = [0.0; LANES];
            most.store(lanes.as_mut_ptr());
            let inverse;
            (*scale, inverse) = crate::scalar::quantum(crate::scalar::magnitude(&lanes));
            let (inverse, magic) = (V::splat(inverse), V::splat(MAGIC));
            // Whole numbers, far below 2^24: their sum as floats is exact.
            let mut integers = V::splat(0.0);
            for_vectors!(
                x.len(),
                |i| {
                    let shifted = V::load(from.add(i)).mul(inverse).add(magic);
                    integers = integers.add(shifted.sub(magic));
                    shifted.store_low_bytes(to.add(i));
                },
                |i, rest| {
                    let shifted = load_filled::<V>(from.add(i), rest, 0.0).mul(inverse).add(magic);
                    integers = integers.add(shifted.sub(magic));
                    let mut bytes = [0; LANES];
                    shifted.store_low_bytes(bytes.as_mut_ptr());
                    values[i..i + rest].copy_from_slice(&bytes[..rest]);
                }
            );
            values[x.len()..].fill(0);
            *total = sum(integers) as i32;
        }
    }
}

/// Adds products of 8 rows and some columns to integer sums.
trait Add<V: Vector> {
    /// Columns at a time.
    const COLUMNS: usize;
    /// How much greater than the weight the stored number is.
    const OFFSET: i32;
    unsafe fn add(sums: &mut [V::Sums; 4], w: *const u8, x: *const i8);
}

struct Q8;
struct Q4;

impl<V: Vector> Add<V> for Q8 {
    const COLUMNS: usize = 16;
    const OFFSET: i32 = 0;
    #[inline(always)]
    unsafe fn add(sums: &mut [V::Sums; 4], w: *const u8, x: *const i8) {
        // SAFETY: The caller promises the unit, 128 bytes of weights and 16 activations.
        unsafe { V::add_q8(sums, w, x) }
    }
}

impl<V: Vector> Add<V> for Q4 {
    const COLUMNS: usize = 32;
    const OFFSET: i32 = 8;
    #[inline(always)]
    unsafe fn add(sums: &mut [V::Sums; 4], w: *const u8, x: *const i8) {
        // SAFETY: The caller promises the unit, 128 bytes of weights and 32 activations.
        unsafe { V::add_q4(sums, w, x) }
    }
}

/// The quantized part of [`crate::Kernels::matmul`].
#[inline(always)]
pub(super) unsafe fn matmul<V: Vector>(w: QuantizedRows<'_>, x: Quantized<'_>, out: Panel<'_>, add: bool) {
    // SAFETY: The caller promises the unit; a known group is that of the weights.
    unsafe {
        match (w.quant, w.group) {
            (Quant::Q8, 32) => matmul_of::<V, Q8, 32>(w, x, out, add),
            (Quant::Q8, 64) => matmul_of::<V, Q8, 64>(w, x, out, add),
            (Quant::Q8, _) => matmul_of::<V, Q8, UNKNOWN>(w, x, out, add),
            (Quant::Q4, 32) => matmul_of::<V, Q4, 32>(w, x, out, add),
            (Quant::Q4, 64) => matmul_of::<V, Q4, 64>(w, x, out, add),
            (Quant::Q4, _) => matmul_of::<V, Q4, UNKNOWN>(w, x, out, add),
        }
    }
}

/// In place of a group that is known when the code is compiled, so that its loop can be unrolled: a quarter of
/// all instructions.
const UNKNOWN: usize = 0;

#[inline(always)]
unsafe fn matmul_of<V: Vector, A: Add<V>, const GROUP: usize>(
    w: QuantizedRows<'_>,
    x: Quantized<'_>,
    mut out: Panel<'_>,
    add: bool,
) {
    let (tokens, rows) = (out.rows(), out.width());
    for row in (0..rows).step_by(BLOCK_ROWS) {
        let mut token = 0;
        // SAFETY: The caller promises the unit and the group; rows and tokens stay below those of `w` and `x`, as
        // `Kernels` asserts.
        unsafe {
            while token + MOST_TOKENS <= tokens {
                let products = block::<V, A, GROUP, MOST_TOKENS>(&w, x, row, token);
                store(products, &mut out, row, token, add);
                token += MOST_TOKENS;
            }
            while token < tokens {
                store(block::<V, A, GROUP, 1>(&w, x, row, token), &mut out, row, token, add);
                token += 1;
            }
        }
    }
}

/// Tokens that share a load of weights: as many sums as the registers hold.
const MOST_TOKENS: usize = 2;

/// Products of a block of rows and T tokens: a vector for each, of a lane for each row.
///
/// # Safety
/// The CPU has the unit; the block and the tokens are there, and groups have `GROUP` columns if that is known.
#[inline(always)]
unsafe fn block<V: Vector, A: Add<V>, const GROUP: usize, const T: usize>(
    w: &QuantizedRows<'_>,
    x: Quantized<'_>,
    row: usize,
    token: usize,
) -> [V; T] {
    let (columns, groups) = (if GROUP == UNKNOWN { w.group } else { GROUP }, w.groups());
    // SAFETY: The caller promises the unit, the block and the tokens; a row has `groups` groups of `columns`
    // columns in whole runs.
    unsafe {
        let scales = w.bytes.as_ptr().add(row / BLOCK_ROWS * w.block_len());
        let mut values = scales.add(w.scales_len());
        let x_values = x.values.as_ptr().add(token * w.padded);
        let (x_scales, x_sums) = (x.scales.as_ptr().add(token * groups), x.sums.as_ptr().add(token * groups));
        let mut products = [V::splat(0.0); T];
        for group in 0..groups {
            let mut sums = [[V::no_sums(); 4]; T];
            for column in (0..columns).step_by(A::COLUMNS) {
                for t in 0..T {
                    A::add(&mut sums[t], values, x_values.add(t * w.padded + group * columns + column));
                }
                values = values.add(BLOCK_ROWS * 16);
            }
            let scale = V::load_f16(scales.add(2 * group * BLOCK_ROWS).cast());
            for t in 0..T {
                let (x_scale, x_sum) = (*x_scales.add(t * groups + group), *x_sums.add(t * groups + group));
                let sum = V::sum_rows(sums[t], A::OFFSET * x_sum);
                products[t] = products[t].add(sum.mul(scale.mul(V::splat(x_scale))));
            }
        }
        products
    }
}

/// Writes the products of a block of rows and T tokens, or adds them to what is there.
///
/// # Safety
/// The CPU has the unit.
#[inline(always)]
unsafe fn store<V: Vector, const T: usize>(
    products: [V; T],
    out: &mut Panel<'_>,
    row: usize,
    token: usize,
    add: bool,
) {
    let count = (out.width() - row).min(BLOCK_ROWS);
    for (t, product) in products.into_iter().enumerate() {
        let out = &mut out.row_mut(token + t)[row..row + count];
        // SAFETY: The caller promises the unit; `out` has `count` elements, and `load_filled` and
        // `store_partial` are for fewer than 8.
        unsafe {
            let to = out.as_mut_ptr();
            if count == LANES {
                let sum = if add { V::load(to).add(product) } else { product };
                sum.store(to);
            } else {
                let sum = if add { load_filled::<V>(to, count, 0.0).add(product) } else { product };
                store_partial(sum, to, count);
            }
        }
    }
}
