//! Quantized products for CPUs without vectors, such as those of small chips: the sums of `scalar.rs` in the order in
//! which such a CPU makes them with fewest instructions.
//!
//! Eight rows share what is read of the activations, which stay in registers for a run of columns; the loops over them have
//! a known length and need no checks of bounds. All else is `scalar.rs`'s own.

use crate::quantized::{BLOCK_ROWS, Input, Quant, Quantized, QuantizedRows};
use crate::rows::{Element, F16};
use crate::{Panel, Rows, scalar};

/// Bytes of a row that lie together.
type Run = [u8; 16];

/// See [`crate::Kernels::matmul`].
pub(crate) fn matmul(w: Rows<'_>, x: Input<'_>, out: Panel<'_>, add: bool) {
    match w {
        Rows::Quantized(w) if w.quant == Quant::Q8 => blocks::<Q8>(w, x.quantized, out, add),
        Rows::Quantized(w) => blocks::<Q4>(w, x.quantized, out, add),
        _ => scalar::matmul(w, x, out, add),
    }
}

/// How weights of some bits are multiplied.
trait Bits {
    /// How much greater than the weight the stored number is.
    const OFFSET: i32;
    /// Columns of a run.
    type Columns;
    /// Activations as the products need them.
    type Prepared;
    fn columns(x: &[i8]) -> &[Self::Columns];
    fn prepare(x: &Self::Columns) -> Self::Prepared;
    fn dot(w: &Run, x: &Self::Prepared) -> i32;
}

fn blocks<B: Bits>(w: QuantizedRows<'_>, x: Quantized<'_>, mut out: Panel<'_>, add: bool) {
    let (groups, rows) = (w.groups(), out.width());
    let blocks = w.bytes.chunks_exact(w.block_len());
    for (first, block) in (0..rows).step_by(BLOCK_ROWS).zip(blocks) {
        let (scales, runs) = block.split_at(w.scales_len());
        let (scales, runs) =
            (scales.as_chunks::<16>().0, runs.as_chunks::<16>().0.as_chunks::<BLOCK_ROWS>().0);
        for token in 0..out.rows() {
            let x = Quantized {
                values: &x.values[token * w.padded..][..w.padded],
                scales: &x.scales[token * groups..][..groups],
                sums: &x.sums[token * groups..][..groups],
            };
            let products = products::<B>(scales, runs, x);
            let out = &mut out.row_mut(token)[first..rows.min(first + BLOCK_ROWS)];
            for (out, product) in out.iter_mut().zip(products) {
                *out = if add { *out + product } else { product };
            }
        }
    }
}

/// The products of a block of rows and one token.
fn products<B: Bits>(scales: &[Run], runs: &[[Run; BLOCK_ROWS]], x: Quantized<'_>) -> [f32; BLOCK_ROWS] {
    let columns = B::columns(x.values);
    let of_group = columns.len() / scales.len();
    let mut products = [0.0; BLOCK_ROWS];
    let groups = runs.chunks_exact(of_group).zip(columns.chunks_exact(of_group));
    let factors = scales.iter().zip(x.scales.iter().zip(x.sums));
    for ((runs, columns), (scales, (&x_scale, &x_sum))) in groups.zip(factors) {
        let mut sums = [-B::OFFSET * x_sum; BLOCK_ROWS];
        for (rows, columns) in runs.iter().zip(columns) {
            let prepared = B::prepare(columns);
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum += B::dot(row, &prepared);
            }
        }
        let (scales, _) = scales.as_chunks::<2>();
        for ((product, sum), scale) in products.iter_mut().zip(sums).zip(scales) {
            *product += sum as f32 * (F16::to_f32(u16::from_le_bytes(*scale)) * x_scale);
        }
    }
    products
}

struct Q8;
struct Q4;

#[cfg(not(llamita_dsp))]
mod plain {
    use super::{Bits, Q4, Q8, Run};

    impl Bits for Q8 {
        const OFFSET: i32 = 0;
        type Columns = [i8; 16];
        type Prepared = [i32; 16];

        fn columns(x: &[i8]) -> &[[i8; 16]] {
            x.as_chunks().0
        }

        #[inline(always)]
        fn prepare(x: &[i8; 16]) -> [i32; 16] {
            x.map(i32::from)
        }

        #[inline(always)]
        fn dot(w: &Run, x: &[i32; 16]) -> i32 {
            (0..16).map(|i| i32::from(w[i] as i8) * x[i]).sum()
        }
    }

    impl Bits for Q4 {
        const OFFSET: i32 = 8;
        type Columns = [i8; 32];
        type Prepared = [i32; 32];

        fn columns(x: &[i8]) -> &[[i8; 32]] {
            x.as_chunks().0
        }

        #[inline(always)]
        fn prepare(x: &[i8; 32]) -> [i32; 32] {
            x.map(i32::from)
        }

        #[inline(always)]
        fn dot(w: &Run, x: &[i32; 32]) -> i32 {
            (0..16).map(|i| i32::from(w[i] & 15) * x[i] + i32::from(w[i] >> 4) * x[16 + i]).sum()
        }
    }
}

/// The multiplier of the Cortex-M4 and M7, and of later ones with the DSP extension, adds two products of 16 bits at once.
#[cfg(llamita_dsp)]
#[allow(unsafe_code, reason = "the instructions have no names in stable Rust")]
mod dsp {
    use core::arch::asm;

    use super::{Bits, Q4, Q8, Run};

    /// The even and the odd bytes of a word, each as two numbers of 16 bits with their signs.
    #[inline(always)]
    fn halves(word: u32) -> [u32; 2] {
        let (even, odd);
        // SAFETY: The build script sees that the CPU has the instruction, which touches registers alone.
        unsafe {
            asm!(
                "sxtb16 {even}, {word}",
                "sxtb16 {odd}, {word}, ror #8",
                word = in(reg) word, even = out(reg) even, odd = out(reg) odd,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        [even, odd]
    }

    /// The sum and both products of two pairs of numbers.
    #[inline(always)]
    fn add_products(sum: i32, a: u32, b: u32) -> i32 {
        let result;
        // SAFETY: As above; sums of a group are half as large as what would overflow, and its flag is nobody's.
        unsafe {
            asm!(
                "smlad {result}, {a}, {b}, {sum}",
                a = in(reg) a, b = in(reg) b, sum = in(reg) sum, result = lateout(reg) result,
                options(pure, nomem, nostack)
            );
        }
        result
    }

    fn words<const N: usize>(bytes: [u8; N]) -> impl Iterator<Item = u32> {
        (0..N / 4).map(move |i| {
            u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
        })
    }

    impl Bits for Q8 {
        const OFFSET: i32 = 0;
        type Columns = [i8; 16];
        type Prepared = [[u32; 2]; 4];

        fn columns(x: &[i8]) -> &[[i8; 16]] {
            x.as_chunks().0
        }

        #[inline(always)]
        fn prepare(x: &[i8; 16]) -> [[u32; 2]; 4] {
            let mut words = words(x.map(|x| x as u8));
            core::array::from_fn(|_| halves(words.next().unwrap_or_default()))
        }

        #[inline(always)]
        fn dot(w: &Run, x: &[[u32; 2]; 4]) -> i32 {
            let mut sum = 0;
            for (word, x) in words(*w).zip(x) {
                let [even, odd] = halves(word);
                sum = add_products(add_products(sum, even, x[0]), odd, x[1]);
            }
            sum
        }
    }

    impl Bits for Q4 {
        const OFFSET: i32 = 8;
        type Columns = [i8; 32];
        type Prepared = [[u32; 2]; 8];

        fn columns(x: &[i8]) -> &[[i8; 32]] {
            x.as_chunks().0
        }

        #[inline(always)]
        fn prepare(x: &[i8; 32]) -> [[u32; 2]; 8] {
            let mut words = words(x.map(|x| x as u8));
            core::array::from_fn(|_| halves(words.next().unwrap_or_default()))
        }

        #[inline(always)]
        fn dot(w: &Run, x: &[[u32; 2]; 8]) -> i32 {
            /// The low half of every other byte.
            const LOW: u32 = 0x000f_000f;
            let mut sum = 0;
            for (i, word) in words(*w).enumerate() {
                let (low, high) = (&x[i], &x[4 + i]);
                sum = add_products(sum, word & LOW, low[0]);
                sum = add_products(sum, word >> 8 & LOW, low[1]);
                sum = add_products(sum, word >> 4 & LOW, high[0]);
                sum = add_products(sum, word >> 12 & LOW, high[1]);
            }
            sum
        }
    }
}
