//! Quantized products for CPUs without vectors, such as those of small chips: the sums of `scalar.rs` in the order in
//! which such a CPU makes them with fewest instructions.
//!
//! Four rows share what is read of the activations, as many as have their sums in registers; the loops over them have a
//! known length and need no checks of bounds. All else is `scalar.rs`'s own.

mod attention;
#[cfg(not(llamita_dsp))]
mod plain;

pub(crate) use attention::attention;
pub(crate) use scalar::{
    between, dot, mass_above, max, quantize, rope, scale, softmax, sum_of_squares, swiglu,
};

#[cfg(llamita_dsp)]
use crate::arch::dsp as unit;
#[cfg(not(llamita_dsp))]
use plain as unit;

use crate::quantized::{BLOCK_ROWS, Input, Quant, Quantized, QuantizedRows};
use crate::rows::{Element, F16};
use crate::{Panel, Rows, scalar};

/// Bytes of a row that lie together.
pub(crate) type Run = [u8; 16];

/// Rows at a time.
pub(crate) const ROWS: usize = BLOCK_ROWS / 2;

/// See [`crate::Kernels::matmul`].
pub(crate) fn matmul(w: Rows<'_>, x: Input<'_>, out: Panel<'_>, add: bool) {
    match w {
        Rows::Quantized(w) if w.quant == Quant::Q8 => blocks::<Q8>(w, x.quantized, out, add),
        Rows::Quantized(w) => blocks::<Q4>(w, x.quantized, out, add),
        _ => scalar::matmul(w, x, out, add),
    }
}

/// Weights of some bits.
trait Bits {
    /// How much greater than the weight the stored number is.
    const OFFSET: i32;
    /// Columns of a run.
    type Columns;
    fn columns(x: &[i8]) -> &[Self::Columns];
    /// Adds the products of a run of each row.
    fn add(sums: &mut [i32; ROWS], rows: &[Run; ROWS], x: &Self::Columns);
}

struct Q8;

impl Bits for Q8 {
    const OFFSET: i32 = 0;
    type Columns = [i8; 16];

    fn columns(x: &[i8]) -> &[[i8; 16]] {
        x.as_chunks().0
    }

    #[inline(always)]
    fn add(sums: &mut [i32; ROWS], rows: &[Run; ROWS], x: &[i8; 16]) {
        unit::add_q8(sums, rows, x);
    }
}

struct Q4;

impl Bits for Q4 {
    const OFFSET: i32 = 8;
    type Columns = [i8; 32];

    fn columns(x: &[i8]) -> &[[i8; 32]] {
        x.as_chunks().0
    }

    #[inline(always)]
    fn add(sums: &mut [i32; ROWS], rows: &[Run; ROWS], x: &[i8; 32]) {
        unit::add_q4(sums, rows, x);
    }
}

fn blocks<B: Bits>(w: QuantizedRows<'_>, x: Quantized<'_>, mut out: Panel<'_>, add: bool) {
    let (groups, rows) = (w.groups(), out.width());
    let blocks = w.bytes.chunks_exact(w.block_len());
    let columns = B::columns(x.values);
    let of_token = columns.len() / out.rows();
    let of_group = of_token / groups;
    for (first, block) in (0..rows).step_by(BLOCK_ROWS).zip(blocks) {
        let (scales, runs) = block.split_at(w.scales_len());
        let scales = scales.as_chunks().0;
        let runs = runs.as_chunks().0.as_chunks().0.as_chunks().0;
        for token in 0..out.rows() {
            let x = Activations {
                columns: &columns[token * of_token..][..of_token],
                scales: &x.scales[token * groups..][..groups],
                sums: &x.sums[token * groups..][..groups],
            };
            let products = products::<B>(scales, runs, x, of_group);
            let out = &mut out.row_mut(token)[first..rows.min(first + BLOCK_ROWS)];
            // A block is most often whole; then the products stay in registers.
            if let Some(out) = out.first_chunk_mut() {
                *out = if add { core::array::from_fn(|i| out[i] + products[i]) } else { products };
            } else {
                for (out, product) in out.iter_mut().zip(products) {
                    *out = if add { *out + product } else { product };
                }
            }
        }
    }
}

/// Those of a token.
struct Activations<'x, B: Bits> {
    columns: &'x [B::Columns],
    scales: &'x [f32],
    sums: &'x [i32],
}

/// Scales of a block's rows, each times that of the activations.
#[inline(always)]
pub(crate) fn scales(bytes: &[u8; 2 * BLOCK_ROWS], x_scale: f32) -> [f32; BLOCK_ROWS] {
    core::array::from_fn(|i| F16::to_f32(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])) * x_scale)
}

/// The products of a block of rows and a token: scales (groups, 8 rows), runs (columns, 2, 4 rows).
#[inline(always)]
fn products<B: Bits>(
    scales: &[[u8; 2 * BLOCK_ROWS]],
    mut runs: &[[[Run; ROWS]; 2]],
    x: Activations<'_, B>,
    of_group: usize,
) -> [f32; BLOCK_ROWS] {
    let mut products = [0.0; BLOCK_ROWS];
    let mut columns = x.columns;
    for (scales, (&x_scale, &x_sum)) in scales.iter().zip(x.scales.iter().zip(x.sums)) {
        let (group_runs, group_columns);
        (group_runs, runs) = runs.split_at(of_group);
        (group_columns, columns) = columns.split_at(of_group);
        let mut sums = [[-B::OFFSET * x_sum; ROWS]; 2];
        for (half, sums) in sums.iter_mut().enumerate() {
            for (rows, columns) in group_runs.iter().zip(group_columns) {
                B::add(sums, &rows[half], columns);
            }
        }
        let scales = unit::scales(scales, x_scale);
        for i in 0..BLOCK_ROWS {
            products[i] += sums.as_flattened()[i] as f32 * scales[i];
        }
    }
    products
}
