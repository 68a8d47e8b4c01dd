//! Attention over integers.
//!
//! Numbers of eight bits become sixteen as the upper half of those, so sums are 256 times too large: they fit the 40 bits
//! that the unit has for each.

use core::arch::asm;
use core::mem::MaybeUninit;

use super::{Aligned, aligned};
use crate::attention::{CUBIC, Products, SCORE_BITS};
use crate::{Cache, LANES, attention as integers, scalar, words};

/// See [`crate::Kernels::attention`].
pub(crate) fn attention(
    q: &[f32],
    keys: Cache<'_>,
    values: Cache<'_>,
    scores: &mut [f32],
    len: usize,
    out: &mut [f32],
) {
    let (of_keys, of_values) = (keys.integers(), values.integers());
    match keys {
        Cache::F32(_) => scalar::attention(q, keys, values, scores, len, out),
        Cache::Q8 { .. }
            if [of_keys, of_values]
                .iter()
                .all(|(numbers, scales)| aligned(numbers.as_ptr()) && aligned(scales.as_ptr()))
                && aligned(scores.as_ptr()) =>
        {
            integers::attention(Pie, q, of_keys, of_values, scores, len, out);
        }
        Cache::Q8 { .. } => words::attention(q, keys, values, scores, len, out),
    }
}

/// Keys, values, their scales, and scores are aligned.
#[derive(Clone, Copy)]
struct Pie;

/// Adds the products of two elements of the query with keys of eight positions, which are in q1; q0 is zero, and is so
/// again.
macro_rules! pair {
    ($products:literal) => {
        concat!(
            "ee.vldbc.16.ip q2, {query}, 2\n",
            "ee.vldbc.16.ip q3, {query}, 2\n",
            "ee.vzip.8 q0, q1\n",
            $products,
            "\n",
            "ee.vmulas.s16.qacc.ld.ip q0, {zero}, 0, q2, q0\n",
        )
    };
    (load) => {
        pair!("ee.vmulas.s16.qacc.ld.ip q1, {keys}, 16, q3, q1")
    };
    () => {
        pair!("ee.vmulas.s16.qacc q3, q1")
    };
}

/// What is made of eight scales at a time: they are mantissas times powers of two.
#[repr(C, align(16))]
struct Scales {
    mantissas: [u16; LANES],
    /// How far products with the mantissas are to be shifted.
    shifts: [u16; LANES],
}

/// Constants in the order of their use.
#[repr(C)]
struct Constants {
    least: i32,
    /// 32: a score's bits behind the point become 16.
    step: u16,
    cubic: [u16; 3],
    one: u16,
    /// Behind the point of a scale's mantissa, the one before it, the exponent's lowest bit, and the longest shift.
    scales: [u16; 4],
}

static CONSTANTS: Constants = Constants {
    least: -16 << SCORE_BITS,
    step: 1 << (16 - SCORE_BITS),
    cubic: [CUBIC[2] as u16, CUBIC[1] as u16, CUBIC[0] as u16],
    one: 1 << 15,
    scales: [127, 128, 1, 31],
};

/// Takes scales apart, of which `{shift}` points to the longest shift that there is.
macro_rules! take_apart {
    () => {
        "ssai 7
         ee.vld.128.ip q0, {scales}, 0
         ee.vldbc.16.ip q1, {constants}, 2
         ee.vldbc.16.ip q2, {constants}, 2
         ee.andq q1, q0, q1
         ee.vldbc.16.ip q3, {constants}, 2
         ee.orq q1, q1, q2
         ee.vmul.u16 q0, q0, q3
         ee.vldbc.16 q4, {shift}
         ee.zero.q q5
         ee.vsubs.s16 q0, q4, q0
         ee.vldbc.16.ip q2, {constants}, 2
         ee.vmax.s16 q0, q0, q5
         ee.vst.128.ip q1, {to}, 16
         ee.vmin.s16 q0, q0, q2
         ee.vst.128.ip q0, {to}, 16"
    };
}

/// Query · key of eight positions, less `drop` bits, times mantissas, and shifted.
#[inline(always)]
fn scaled_scores(query: &[f32], keys: &[i8], drop: i32, scales: &Scales) -> [i32; LANES] {
    /// Makes a sum a score.
    macro_rules! scale {
        ($sum:literal, $mantissa:literal, $shift:literal) => {
            concat!(
                "l16ui {query}, {scales}, ",
                $mantissa,
                "\n",
                "l16ui {keys}, {scales}, ",
                $shift,
                "\n",
                "mull {",
                $sum,
                "}, {",
                $sum,
                "}, {query}\n",
                "ssr {keys}\n",
                "sra {",
                $sum,
                "}, {",
                $sum,
                "}\n",
            )
        };
    }
    static ZERO: Aligned<[u32; 4]> = Aligned([0; 4]);
    let (a, b, c, d, e, f, g, h);
    // SAFETY: Reads the query, and for each of its pairs 16 bytes of keys, which are aligned, as `Kernels` and
    // `attention` checked.
    unsafe {
        asm!(
            "ee.zero.q q0",
            "ee.zero.qacc",
            "beqz {fours}, 3f",
            "2:",
            "ee.vld.128.ip q1, {keys}, 16",
            pair!(load),
            pair!(load),
            pair!(load),
            pair!(),
            "addi {fours}, {fours}, -1",
            "bnez {fours}, 2b",
            "3:",
            "beqz {pairs}, 3f",
            "2:",
            "ee.vld.128.ip q1, {keys}, 16",
            pair!(),
            "addi {pairs}, {pairs}, -1",
            "bnez {pairs}, 2b",
            "3:",
            // The upper 32 of 40 bits.
            "rur.qacc_l_0 {a}",
            "rur.qacc_l_1 {b}",
            "rur.qacc_l_2 {c}",
            "rur.qacc_l_3 {keys}",
            "rur.qacc_l_4 {d}",
            "rur.qacc_h_0 {e}",
            "rur.qacc_h_1 {zero}",
            "rur.qacc_h_2 {fours}",
            "rur.qacc_h_3 {query}",
            "rur.qacc_h_4 {pairs}",
            "ssai 8",
            "src {a}, {b}, {a}",
            "src {e}, {zero}, {e}",
            "ssai 16",
            "src {b}, {c}, {b}",
            "src {zero}, {fours}, {zero}",
            "ssai 24",
            "src {c}, {keys}, {c}",
            "src {fours}, {query}, {fours}",
            "ssr {drop}",
            "sra {a}, {a}", "sra {b}, {b}", "sra {c}, {c}", "sra {d}, {d}",
            "sra {e}, {e}", "sra {zero}, {zero}", "sra {fours}, {fours}", "sra {pairs}, {pairs}",
            scale!("a", "0", "16"), scale!("b", "2", "18"), scale!("c", "4", "20"), scale!("d", "6", "22"),
            scale!("e", "8", "24"), scale!("zero", "10", "26"), scale!("fours", "12", "28"),
            scale!("pairs", "14", "30"),
            query = inout(reg) query.as_ptr() => _,
            keys = inout(reg) keys.as_ptr() => _,
            zero = inout(reg) ZERO.0.as_ptr() => f,
            fours = inout(reg) query.len() / 4 => g,
            pairs = inout(reg) query.len() % 4 => h,
            a = out(reg) a, b = out(reg) b, c = out(reg) c, d = out(reg) d, e = out(reg) e,
            scales = in(reg) scales,
            drop = in(reg) drop,
            out("sar") _,
            options(readonly, nostack)
        );
    }
    [a, b, c, d, e, f, g, h]
}

impl Products for Pie {
    const WIDTH: usize = 1;

    #[inline(always)]
    fn largest(self, scales: &[u16]) -> u16 {
        let (blocks, rest) = scales.as_chunks::<LANES>();
        let mut most = Aligned([0_u16; LANES]);
        // SAFETY: Reads the blocks, which are aligned, and writes to eight numbers.
        unsafe {
            asm!(
                "ee.zero.q q0",
                "beqz {blocks}, 3f",
                "2:",
                "ee.vld.128.ip q1, {scales}, 16",
                "addi {blocks}, {blocks}, -1",
                "ee.vmax.s16 q0, q0, q1",
                "bnez {blocks}, 2b",
                "3:",
                "ee.vst.128.ip q0, {most}, 0",
                scales = inout(reg) blocks.as_ptr() => _,
                blocks = inout(reg) blocks.len() => _,
                most = in(reg) most.0.as_mut_ptr(),
                options(nostack)
            );
        }
        rest.iter().chain(&most.0).fold(0, |most, &scale| most.max(scale))
    }

    fn scores(self, query: &[f32], keys: &[i8]) -> [i32; LANES] {
        scaled_scores(query, keys, 0, &Scales { mantissas: [1; LANES], shifts: [0; LANES] })
    }

    #[inline(always)]
    fn score(
        self,
        query: &[f32],
        keys: &[i8],
        scales: &[u16; LANES],
        [drop, shift]: [i32; 2],
        scores: &mut [f32; LANES],
    ) {
        let mut apart = MaybeUninit::<Scales>::uninit();
        let shift = shift as i16;
        // SAFETY: Reads the scales, which are aligned, and writes what is made of them.
        let apart = unsafe {
            asm!(
                take_apart!(),
                scales = in(reg) scales,
                shift = in(reg) &raw const shift,
                constants = inout(reg) &raw const CONSTANTS.scales => _,
                to = inout(reg) apart.as_mut_ptr() => _,
                out("sar") _,
                options(nostack)
            );
            apart.assume_init_ref()
        };
        *scores = scaled_scores(query, keys, drop, apart).map(|score| f32::from_bits(score as u32));
    }

    #[inline(always)]
    fn most(self, scores: &[[f32; LANES]]) -> i32 {
        let mut most = Aligned([0_i32; 4]);
        // SAFETY: Reads the scores, at least a block, which are aligned, and writes to four numbers.
        unsafe {
            asm!(
                "ee.vld.128.ip q0, {scores}, 0",
                "2:",
                "ee.vld.128.ip q1, {scores}, 16",
                "ee.vld.128.ip q2, {scores}, 16",
                "ee.vmax.s32 q0, q0, q1",
                "ee.vmax.s32 q0, q0, q2",
                "bne {scores}, {end}, 2b",
                "ee.vst.128.ip q0, {most}, 0",
                scores = inout(reg) scores.as_ptr() => _,
                end = in(reg) scores.as_ptr_range().end,
                most = in(reg) most.0.as_mut_ptr(),
                options(nostack)
            );
        }
        most.0[0].max(most.0[1]).max(most.0[2].max(most.0[3]))
    }

    #[inline(always)]
    fn weigh(
        self,
        scores: &mut [f32; LANES],
        most: i32,
        scales: &[u16; LANES],
        exponent: i32,
        sum: &mut [i32; LANES],
    ) {
        /// 2 to the power of what is behind a score's point, with 15 bits behind that, and what is before it.
        #[repr(C, align(16))]
        struct Powers {
            before: [u16; LANES],
            behind: [u16; LANES],
            scales: Scales,
        }
        /// Makes of them a probability and a weight; places of `before`, `behind`, `mantissas` and `shifts`.
        macro_rules! weight {
            ($before:literal, $behind:literal, $mantissa:literal, $shift:literal) => {
                concat!(
                    "l16ui {t}, {powers}, ",
                    $before,
                    "\n",
                    "l16ui {weight}, {powers}, ",
                    $behind,
                    "\n",
                    "ssr {t}\n",
                    "srl {weight}, {weight}\n",
                    "l16ui {t}, {powers}, ",
                    $mantissa,
                    "\n",
                    "addi {weight}, {weight}, 1\n",
                    "srli {weight}, {weight}, 1\n",
                    "add {sum}, {sum}, {weight}\n",
                    "mull {weight}, {weight}, {t}\n",
                    "l16ui {t}, {powers}, ",
                    $shift,
                    "\n",
                    "ssr {t}\n",
                    "srl {weight}, {weight}\n",
                    "addi {weight}, {weight}, 1\n",
                    "srli {weight}, {weight}, 1\n",
                    "s16i {weight}, {to}, ",
                    $before,
                    "\n",
                )
            };
        }
        let mut powers = MaybeUninit::<Powers>::uninit();
        let shift = 6 + exponent as i16;
        // SAFETY: Reads scores and scales, which are aligned, writes what is made of them, and the weights over the first
        // scores. See `exp2` for how.
        unsafe {
            asm!(
                "ee.vldbc.32 q2, {most}",
                "ee.vld.128.ip q0, {scores}, 16",
                "ee.vld.128.ip q1, {scores}, 16",
                "ee.vldbc.32.ip q3, {constants}, 4",
                "ee.vsubs.s32 q0, q0, q2",
                "ee.vsubs.s32 q1, q1, q2",
                "ee.vmax.s32 q0, q0, q3",
                "ee.vmax.s32 q1, q1, q3",
                "ee.vunzip.16 q0, q1",
                "ssai 0",
                "ee.vldbc.16.ip q2, {constants}, 2",
                "ee.vmul.u16 q3, q0, q2",
                "ssai 16",
                "ee.vmul.s16 q4, q0, q2",
                "ee.zero.q q5",
                "ee.vsubs.s16 q4, q5, q4",
                "ee.vldbc.16.ip q5, {constants}, 2",
                "ee.vst.128.ip q4, {to}, 16",
                "ee.vmul.u16 q5, q3, q5",
                "ee.vldbc.16.ip q6, {constants}, 2",
                "ee.vadds.s16 q5, q5, q6",
                "ee.vmul.u16 q5, q3, q5",
                // As a number with a sign the first of the cubic is less than 0, and the sum as well.
                "ee.vldbc.16.ip q6, {constants}, 2",
                "ee.vadds.s16 q5, q5, q6",
                "ssai 17",
                "ee.vmul.u16 q5, q3, q5",
                "ee.vldbc.16.ip q6, {constants}, 2",
                "ee.orq q5, q5, q6",
                "ee.vst.128.ip q5, {to}, 16",
                take_apart!(),
                most = in(reg) &raw const most,
                scores = inout(reg) scores.as_ptr() => _,
                scales = in(reg) scales,
                shift = in(reg) &raw const shift,
                constants = inout(reg) &raw const CONSTANTS => _,
                to = inout(reg) powers.as_mut_ptr() => _,
                out("sar") _,
                options(nostack)
            );
            asm!(
                weight!("0", "16", "32", "48"),
                weight!("2", "18", "34", "50"),
                weight!("4", "20", "36", "52"),
                weight!("6", "22", "38", "54"),
                weight!("8", "24", "40", "56"),
                weight!("10", "26", "42", "58"),
                weight!("12", "28", "44", "60"),
                weight!("14", "30", "46", "62"),
                powers = in(reg) powers.as_ptr(),
                to = in(reg) scores.as_mut_ptr(),
                sum = inout(reg) sum[0],
                t = out(reg) _, weight = out(reg) _,
                out("sar") _,
                options(nostack)
            );
        }
    }

    #[inline(always)]
    fn mix(self, weights: &[[f32; LANES]], values: &[i8], out: &mut [f32]) {
        let block_len = out.len() * LANES;
        for (i, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let (a, b): (i32, i32);
            // SAFETY: Reads weights of each block, and 16 bytes of values that begin within the first block.
            unsafe {
                asm!(
                    "ee.zero.accx",
                    "ee.zero.qacc",
                    "ee.vld.128.xp q1, {values}, {block_len}",
                    "ee.vld.128.ip q2, {weights}, 32",
                    "beqz {blocks}, 3f",
                    "2:",
                    "ee.zero.q q0",
                    "addi {blocks}, {blocks}, -1",
                    "ee.vzip.8 q0, q1",
                    "ee.vmulas.s16.qacc.ld.xp q1, {values}, {block_len}, q2, q1",
                    "ee.vmulas.s16.accx.ld.ip q2, {weights}, 32, q2, q0",
                    "bnez {blocks}, 2b",
                    "3:",
                    "ee.zero.q q0",
                    "ee.vzip.8 q0, q1",
                    "ee.vmulas.s16.qacc q2, q1",
                    "ee.vmulas.s16.accx q2, q0",
                    // The upper 32 of 40 bits.
                    "ssai 8",
                    "rur.qacc_l_0 {t}",
                    "rur.qacc_l_1 {u}",
                    "src {b}, {u}, {t}",
                    "rur.qacc_h_0 {t}",
                    "rur.qacc_h_1 {v}",
                    "src {t}, {v}, {t}",
                    "add {b}, {b}, {t}",
                    "rur.accx_0 {t}",
                    "rur.accx_1 {a}",
                    "src {a}, {a}, {t}",
                    "ssai 16",
                    "rur.qacc_l_2 {t}",
                    "src {u}, {t}, {u}",
                    "add {b}, {b}, {u}",
                    "rur.qacc_h_2 {u}",
                    "src {v}, {u}, {v}",
                    "add {b}, {b}, {v}",
                    "ssai 24",
                    "rur.qacc_l_3 {v}",
                    "src {t}, {v}, {t}",
                    "add {b}, {b}, {t}",
                    "rur.qacc_h_3 {v}",
                    "src {u}, {v}, {u}",
                    "add {b}, {b}, {u}",
                    "rur.qacc_l_4 {t}",
                    "add {b}, {b}, {t}",
                    "rur.qacc_h_4 {t}",
                    "add {b}, {b}, {t}",
                    weights = inout(reg) weights.as_ptr() => _,
                    values = inout(reg) values.as_ptr().wrapping_add(2 * LANES * i) => _,
                    block_len = in(reg) block_len,
                    blocks = inout(reg) weights.len() - 1 => _,
                    t = out(reg) _, u = out(reg) _, v = out(reg) _,
                    a = out(reg) a, b = out(reg) b,
                    out("sar") _,
                    options(readonly, nostack)
                );
            }
            *out = [out[0] + a as f32, out[1] + b as f32];
        }
    }
}
