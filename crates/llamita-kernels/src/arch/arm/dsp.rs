//! Products with the DSP extension of the Cortex-M4 and M7, and of later ones that have it: the multiplier adds two
//! products of 16 bits at once.
//!
//! The instructions have no names in stable Rust.

use core::arch::asm;

use crate::LANES;
use crate::quantized::BLOCK_ROWS;
use crate::words::{self, ROWS, Run};

/// The even and the odd bytes of a word, each as two numbers of 16 bits with their signs.
#[inline(always)]
fn halves(word: u32) -> [u32; 2] {
    let (even, odd);
    // SAFETY: The build script sees that the CPU has the instruction, which touches registers alone.
    unsafe {
        asm!("sxtb16 {}, {}", out(reg) even, in(reg) word, options(pure, nomem, nostack, preserves_flags));
        asm!("sxtb16 {}, {}, ror #8", out(reg) odd, in(reg) word, options(pure, nomem, nostack, preserves_flags));
    }
    [even, odd]
}

/// The sum and both products of two pairs of numbers.
#[inline(always)]
fn add_products(sum: i32, a: u32, b: u32) -> i32 {
    let result;
    // SAFETY: As above; sums are less than half of what would overflow, and its flag is nobody's.
    unsafe {
        asm!(
            "smlad {result}, {a}, {b}, {sum}",
            a = in(reg) a, b = in(reg) b, sum = in(reg) sum, result = lateout(reg) result,
            options(pure, nomem, nostack)
        );
    }
    result
}

/// Four bytes.
#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], i: usize) -> u32 {
    u32::from_le_bytes(bytes.as_chunks().0[i])
}

/// Four bytes with their signs.
#[inline(always)]
fn signed_word<const N: usize>(bytes: &[i8; N], i: usize) -> u32 {
    u32::from_le_bytes(bytes.as_chunks::<4>().0[i].map(|byte| byte as u8))
}

/// Scales of a block's rows, each times that of the activations.
#[inline(always)]
pub(crate) fn scales(bytes: &[u8; 2 * BLOCK_ROWS], x_scale: f32) -> [f32; BLOCK_ROWS] {
    let words = [word(bytes, 0), word(bytes, 1), word(bytes, 2), word(bytes, 3)];
    // An exponent of ones, which is infinity or not a number, carries into the sign.
    let carried =
        words.map(|word| (word & 0x7fff_7fff) + 0x0400_0400).into_iter().fold(0, |all, word| all | word);
    if cfg!(not(target_abi = "eabihf")) || carried & 0x8000_8000 != 0 || !(x_scale < 32_768.0) {
        return scales_of_any_kind(bytes, x_scale);
    }
    // With a unit for floats: the sign and the rest in their places, and the exponent's bias, 15 instead of 127, made up
    // for by the product.
    let x_scale = x_scale * f32::from_bits((127 + 127 - 15) << 23);
    let scale = |word: u32| f32::from_bits((word as i32 >> 3) as u32 & 0x8fff_e000) * x_scale;
    core::array::from_fn(|i| scale(if i % 2 == 0 { words[i / 2] << 16 } else { words[i / 2] }))
}

#[cold]
#[inline(never)]
fn scales_of_any_kind(bytes: &[u8; 2 * BLOCK_ROWS], x_scale: f32) -> [f32; BLOCK_ROWS] {
    words::scales(bytes, x_scale)
}

/// See [`crate::attention::Products::PAIRS`]: the even and the odd bytes of a word.
pub(crate) const PAIRS: [[usize; 2]; 4] = [[0, 2], [1, 3], [4, 6], [5, 7]];

/// See [`crate::attention::Products::largest`]: two at a time.
#[inline(always)]
pub(crate) fn largest(scales: &[u16]) -> u16 {
    let (pairs, rest) = scales.as_chunks::<2>();
    let mut most: u32 = 0;
    for pair in pairs {
        let pair = u32::from(pair[0]) | u32::from(pair[1]) << 16;
        // SAFETY: As above. What is larger is what the difference adds, if it is not negative.
        unsafe {
            asm!(
                "uqsub16 {pair}, {pair}, {most}",
                "uadd16 {most}, {most}, {pair}",
                pair = inout(reg) pair => _, most = inout(reg) most,
                options(pure, nomem, nostack)
            );
        }
    }
    let rest = rest.first().map_or(0, |&scale| scale);
    (most as u16).max((most >> 16) as u16).max(rest)
}

/// Adds the products of two elements of the query with keys of 8 positions, (2, 8).
#[inline(always)]
pub(crate) fn add_scores(sums: &mut [i32; LANES], query: [i32; 2], keys: &[i8; 2 * LANES]) {
    for i in 0..4 {
        let (query, sums) = (query[i / 2], &mut sums[i % 2 * 4..]);
        // Even positions, then odd ones; products of halves of registers take an instruction.
        for (odd, pair) in halves(signed_word(keys, i)).into_iter().enumerate() {
            sums[odd] += query * i32::from(pair as i16);
            sums[2 + odd] += query * (pair as i32 >> 16);
        }
    }
}

/// Adds to each element's sum the products of its values at 8 positions with their weights.
#[inline(always)]
pub(crate) fn add_values<const N: usize>(
    sums: &mut [i32; N],
    weights: &[f32; LANES],
    values: &[[i8; LANES]; N],
) {
    for i in 0..2 {
        let [even, odd] = [weights[2 * i].to_bits(), weights[2 * i + 1].to_bits()];
        for (sum, values) in sums.iter_mut().zip(values) {
            let values = halves(signed_word(values, i));
            *sum = add_products(add_products(*sum, even, values[0]), odd, values[1]);
        }
    }
}

/// Adds the products of weights of eight bits: a run of each row.
#[inline(always)]
pub(crate) fn add_q8(sums: &mut [i32; ROWS], rows: &[Run; ROWS], x: &[i8; 16]) {
    /// Adds the products of four columns of a row, whose first byte is so far behind the first row's.
    macro_rules! row {
        ($sum:literal, $place:literal) => {
            concat!(
                "ldr {w}, [{rows}, #",
                $place,
                "]\n",
                "sxtb16 {odd}, {w}, ror #8\n",
                "sxtb16 {w}, {w}\n",
                "smlad {",
                $sum,
                "}, {odd}, {x_odd}, {",
                $sum,
                "}\n",
                "smlad {",
                $sum,
                "}, {w}, {x}, {",
                $sum,
                "}\n",
            )
        };
    }
    /// Four columns.
    macro_rules! columns {
        ($first:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                "ldr {x}, [{columns}, #",
                $first,
                "]\n",
                "sxtb16 {x_odd}, {x}, ror #8\n",
                "sxtb16 {x}, {x}\n",
                row!("a", $a),
                row!("b", $b),
                row!("c", $c),
                row!("d", $d),
            )
        };
    }
    let [a, b, c, d] = sums;
    // SAFETY: The build script sees that the CPU has the instructions, which read the run of each row and the 16
    // columns; sums are less than half of what would overflow, and its flag is nobody's. In one piece, since the
    // compiler would put in memory what there are registers for.
    unsafe {
        asm!(
            columns!("0", "0", "16", "32", "48"),
            columns!("4", "4", "20", "36", "52"),
            columns!("8", "8", "24", "40", "56"),
            columns!("12", "12", "28", "44", "60"),
            a = inout(reg) *a, b = inout(reg) *b, c = inout(reg) *c, d = inout(reg) *d,
            rows = in(reg) rows.as_ptr(), columns = in(reg) x.as_ptr(),
            x = out(reg) _, x_odd = out(reg) _, w = out(reg) _, odd = out(reg) _,
            options(pure, readonly, nostack)
        );
    }
}

/// Adds the products of weights of four bits, as they are stored: a run of each row.
#[inline(always)]
pub(crate) fn add_q4(sums: &mut [i32; ROWS], rows: &[Run; ROWS], x: &[i8; 32]) {
    /// The low half of every other byte.
    const LOW: u32 = 0x000f_000f;
    let mut add = |i| {
        let (low, high) = (halves(signed_word(x, i)), halves(signed_word(x, 4 + i)));
        for (sum, row) in sums.iter_mut().zip(rows) {
            let w = word(row, i);
            *sum = add_products(*sum, w & LOW, low[0]);
            *sum = add_products(*sum, w >> 8 & LOW, low[1]);
            *sum = add_products(*sum, w >> 4 & LOW, high[0]);
            *sum = add_products(*sum, w >> 12 & LOW, high[1]);
        }
    };
    (add(0), add(1), add(2), add(3));
}
