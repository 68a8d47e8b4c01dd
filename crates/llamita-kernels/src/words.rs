//! Quantized products for CPUs without vectors, such as those of small chips: the sums of `scalar.rs` in the order in
//! which such a CPU makes them with fewest instructions.
//!
//! Four rows share what is read of the activations, as many as have their sums in registers; the loops over them have a
//! known length and need no checks of bounds. All else is `scalar.rs`'s own.

mod attention;
#[cfg(llamita_dsp)]
mod dsp;
#[cfg(not(llamita_dsp))]
mod plain;

pub(crate) use attention::attention;
#[cfg(llamita_dsp)]
use dsp as unit;
#[cfg(not(llamita_dsp))]
use plain as unit;

use crate::quantized::{BLOCK_ROWS, Input, Quant, Quantized, QuantizedRows};
use crate::{Panel, Rows, scalar};

/// Bytes of a row that lie together.
type Run = [u8; 16];

/// Rows at a time.
const ROWS: usize = BLOCK_ROWS / 2;

/// See [`crate::Kernels::matmul`].
pub(crate) fn matmul(w: Rows<'_>, x: Input<'_>, out: Panel<'_>, add: bool) {
    match w {
        Rows::Quantized(w) if w.quant == Quant::Q8 => blocks::<Q8>(w, x.quantized, out, add),
        Rows::Quantized(w) => blocks::<Q4>(w, x.quantized, out, add),
        _ => scalar::matmul(w, x, out, add),
    }
}

/// How weights of some bits are multiplied; `plain.rs` and `dsp.rs` have the products.
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
struct Q4;

fn blocks<B: Bits>(w: QuantizedRows<'_>, x: Quantized<'_>, mut out: Panel<'_>, add: bool) {
    let (groups, rows) = (w.groups(), out.width());
    let blocks = w.bytes.chunks_exact(w.block_len());
    for (first, block) in (0..rows).step_by(BLOCK_ROWS).zip(blocks) {
        let (scales, runs) = block.split_at(w.scales_len());
        let (scales, runs) =
            (scales.as_chunks::<16>().0, runs.as_chunks::<16>().0.as_chunks::<ROWS>().0.as_chunks::<2>().0);
        for token in 0..out.rows() {
            let x = Quantized {
                values: &x.values[token * w.padded..][..w.padded],
                scales: &x.scales[token * groups..][..groups],
                sums: &x.sums[token * groups..][..groups],
            };
            let products = products::<B>(scales, runs, x);
            let out = &mut out.row_mut(token)[first..rows.min(first + BLOCK_ROWS)];
            for (out, product) in out.iter_mut().zip(products.as_flattened()) {
                *out = if add { *out + product } else { *product };
            }
        }
    }
}

/// The products of a block of rows, in two halves, and one token.
fn products<B: Bits>(scales: &[Run], runs: &[[[Run; ROWS]; 2]], x: Quantized<'_>) -> [[f32; ROWS]; 2] {
    let columns = B::columns(x.values);
    let of_group = columns.len() / scales.len();
    core::array::from_fn(|half| {
        let mut products = [0.0; ROWS];
        let groups = runs.chunks_exact(of_group).zip(columns.chunks_exact(of_group));
        let factors = scales.iter().zip(x.scales.iter().zip(x.sums));
        for ((runs, columns), (scales, (&x_scale, &x_sum))) in groups.zip(factors) {
            let mut sums = [-B::OFFSET * x_sum; ROWS];
            for (rows, columns) in runs.iter().zip(columns) {
                B::add(&mut sums, &rows[half], columns);
            }
            let scales = unit::scales(&scales.as_chunks().0[half], x_scale);
            for i in 0..ROWS {
                products[i] += sums[i] as f32 * scales[i];
            }
        }
        products
    })
}
