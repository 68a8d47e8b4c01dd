//! Attention over integers.
//!
//! Loops that fit are the core's own; the compiler makes none that they could meet.
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
            "ee.vmulas.s16.qacc.ld.ip q0, {frame}, 0, q2, q0\n",
        )
    };
    (load) => {
        pair!("ee.vmulas.s16.qacc.ld.ip q1, {keys}, 16, q3, q1")
    };
    () => {
        pair!("ee.vmulas.s16.qacc q3, q1")
    };
}

/// What the loop over blocks has no registers for.
#[repr(C, align(16))]
struct Frame {
    zero: [u32; 4],
    /// Of the scales of a block: mantissas times a power of two.
    factors: MaybeUninit<[f32; LANES]>,
    query: *const f32,
    /// Pairs of the query: four at a time, and the rest.
    fours: usize,
    pairs: usize,
    drop: usize,
}

/// Makes the sum in `$sum` a score: times the mantissa, and shifted, which is the upper half of the product with the mantissa
/// shifted the other way, in `$factor` as a float.
macro_rules! score {
    ($sum:literal, $factor:literal, $at:literal) => {
        concat!(
            "trunc.s {factor}, ",
            $factor,
            ", 0\nmulsh {",
            $sum,
            "}, {",
            $sum,
            "}, {factor}\ns32i {",
            $sum,
            "}, {scores}, ",
            $at
        )
    };
}

/// A number in all lanes.
const fn all(number: u16) -> [u16; LANES] {
    [number; LANES]
}

/// What [`Pie::weigh_all`] loads, in the order of its use.
///
/// Two bits b of a number give 2^b as the square of `256 + 157 * b`, less 16 bits: 1, 2.6, 4.96, 8.06 without what is
/// behind the point. The bits are at some place; the factor takes them from there, times 157, to bit 16.
#[repr(align(16))]
struct Constants(#[expect(dead_code, reason = "the unit reads it")] [[u16; LANES]; 19]);

const LEAST: u16 = ((-16_i32 << SCORE_BITS) as u32 & 0xffff) as u16;

static CONSTANTS: Constants = Constants([
    // The least score, of 32 bits.
    [LEAST, 0xffff, LEAST, 0xffff, LEAST, 0xffff, LEAST, 0xffff],
    all(0xffff),
    all(3 << 8),
    all(157 << 8),
    all(3 << 10),
    all(157 << 6),
    all(256),
    all(3 << SCORE_BITS),
    all(157 << (16 - SCORE_BITS)),
    all(3 << (SCORE_BITS + 2)),
    all(157 << (14 - SCORE_BITS)),
    all(256),
    // A score's bits behind the point become 16.
    all(1 << (16 - SCORE_BITS)),
    all(CUBIC[2] as u16),
    all(CUBIC[1] as u16),
    all(CUBIC[0] as u16),
    all(1 << 15),
    // Behind the point of a scale's mantissa, and the one before it.
    all(127),
    all(128),
]);

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
                begin_loop!("blocks", "3f"),
                "ee.vld.128.ip q1, {scales}, 16",
                "ee.vmax.s16 q0, q0, q1",
                "3:",
                "ee.vst.128.ip q0, {most}, 0",
                scales = inout(reg) blocks.as_ptr() => _,
                blocks = in(reg) blocks.len(),
                most = in(reg) most.0.as_mut_ptr(),
                options(nostack)
            );
        }
        rest.iter().chain(&most.0).fold(0, |most, &scale| most.max(scale))
    }

    fn scores(self, query: &[f32], keys: &[i8]) -> [i32; LANES] {
        scalar::Scalar.scores(query, keys)
    }

    #[inline(always)]
    fn score_all(
        self,
        query: &[f32],
        keys: &[i8],
        scales: &[[u16; LANES]],
        [drop, shift]: [i32; 2],
        scores: &mut [[f32; LANES]],
    ) {
        // A scale is the upper half of a float, and times a power of two the mantissa that was shifted: what is added to its
        // exponent. Those that would be shifted by more than 31 bits count as 2^8 times that power, which leaves as little.
        let constants = [(shift - 31) << 7, (166 - shift) << 7].map(|bits| bits as i16);
        let mut frame = Frame {
            zero: [0; 4],
            factors: MaybeUninit::uninit(),
            query: query.as_ptr(),
            fours: query.len() / 4,
            pairs: query.len() % 4,
            drop: 8 + drop as usize,
        };
        // SAFETY: Reads the query, and for each block its scales, and 16 bytes of keys for each pair of the query; writes
        // its scores. All but the query are aligned, as `Kernels` and `attention` checked, and of as many blocks.
        unsafe {
            asm!(
                "ee.vldbc.16.ip q6, {t}, 2",
                "ee.vldbc.16.ip q7, {t}, 2",
                "2:",
                "ee.vld.128.ip q1, {scales}, 16",
                "ee.zero.q q0",
                "ee.vmax.s16 q1, q1, q6",
                "addi {t}, {frame}, 16",
                "ee.vadds.s16 q1, q1, q7",
                "l32i {query}, {frame}, 48",
                "ee.vzip.16 q0, q1",
                "ee.zero.qacc",
                "ee.vst.128.ip q0, {t}, 16",
                "ee.vst.128.ip q1, {t}, -16",
                "l32i {count}, {frame}, 52",
                "ee.zero.q q0",
                "beqz {count}, 4f",
                "3:",
                "ee.vld.128.ip q1, {keys}, 16",
                pair!(load),
                pair!(load),
                pair!(load),
                pair!(),
                "addi {count}, {count}, -1",
                "bnez {count}, 3b",
                "4:",
                "l32i {count}, {frame}, 56",
                "l32i {c}, {frame}, 60",
                "beqz {count}, 4f",
                "3:",
                "ee.vld.128.ip q1, {keys}, 16",
                pair!(),
                "addi {count}, {count}, -1",
                "bnez {count}, 3b",
                "4:",
                // Sums are then of 24 bits, in 40 each.
                "ee.srcmb.s16.qacc q3, {c}, 0",
                "ee.ldf.128.ip f3, f2, f1, f0, {t}, 16",
                "ee.ldf.128.ip f7, f6, f5, f4, {t}, 16",
                "rur.qacc_l_0 {query}",
                "rur.qacc_l_1 {count}",
                "rur.qacc_l_2 {c}",
                "rur.qacc_l_3 {d}",
                "rur.qacc_l_4 {e}",
                "srai {count}, {count}, 8",
                "ssai 16",
                "src {c}, {d}, {c}",
                "ssai 24",
                "src {d}, {e}, {d}",
                score!("query", "f0", "0"), score!("count", "f1", "4"), score!("c", "f2", "8"), score!("d", "f3", "12"),
                "rur.qacc_h_0 {query}",
                "rur.qacc_h_1 {count}",
                "rur.qacc_h_2 {c}",
                "rur.qacc_h_3 {d}",
                "rur.qacc_h_4 {e}",
                "srai {count}, {count}, 8",
                "src {e}, {e}, {d}",
                "ssai 16",
                "src {c}, {d}, {c}",
                score!("query", "f4", "16"), score!("count", "f5", "20"), score!("c", "f6", "24"), score!("e", "f7", "28"),
                "addi {scores}, {scores}, 32",
                "sub {count}, {end}, {scores}",
                "bnez {count}, 2b",
                frame = in(reg) &raw mut frame,
                keys = inout(reg) keys.as_ptr() => _,
                scales = inout(reg) scales.as_ptr() => _,
                end = in(reg) scores.as_ptr_range().end,
                scores = inout(reg) scores.as_mut_ptr() => _,
                t = inout(reg) constants.as_ptr() => _,
                factor = out(reg) _,
                query = out(reg) _, count = out(reg) _, c = out(reg) _, d = out(reg) _, e = out(reg) _,
                out("f0") _, out("f1") _, out("f2") _, out("f3") _,
                out("f4") _, out("f5") _, out("f6") _, out("f7") _,
                out("sar") _,
                options(nostack)
            );
        }
    }

    #[inline(always)]
    fn most(self, scores: &[[f32; LANES]]) -> i32 {
        let mut most = Aligned([0_i32; 4]);
        // SAFETY: Reads the scores, at least a block, which are aligned, and writes to four numbers.
        unsafe {
            asm!(
                "ee.vld.128.ip q0, {scores}, 0",
                begin_loop!("blocks", "3f"),
                "ee.vld.128.ip q1, {scores}, 16",
                "ee.vld.128.ip q2, {scores}, 16",
                "ee.vmax.s32 q0, q0, q1",
                "ee.vmax.s32 q0, q0, q2",
                "3:",
                "ee.vst.128.ip q0, {most}, 0",
                scores = inout(reg) scores.as_ptr() => _,
                blocks = in(reg) scores.len(),
                most = in(reg) most.0.as_mut_ptr(),
                options(nostack)
            );
        }
        most.0[0].max(most.0[1]).max(most.0[2].max(most.0[3]))
    }

    #[inline(always)]
    fn weigh_all(
        self,
        scores: &mut [[f32; LANES]],
        most: i32,
        scales: &[[u16; LANES]],
        exponent: i32,
    ) -> i32 {
        // Scales less this have from 0 to 15 as exponent; those below give nothing.
        let least = ((exponent - 15) << 7) as i16;
        let sum;
        // SAFETY: Reads scores and scales, which are aligned and of as many blocks, and writes the weights over the first
        // scores. See `weigh` and `exp2` for what it does.
        unsafe {
            asm!(
                "ee.vldbc.32 q7, {most}",
                "ee.vldbc.16 q6, {least}",
                "ee.zero.accx",
                "ssai 16",
                begin_loop!("blocks", "3f"),
                "ee.vld.128.ip q0, {scores}, 16",
                "ee.vld.128.ip q1, {scores}, -16",
                "ee.vld.128.ip q2, {scales}, 0",
                "mov {at}, {constants}",
                "ee.vsubs.s32.ld.incp q3, {at}, q0, q0, q7",
                "ee.vsubs.s32 q1, q1, q7",
                "ee.vmax.s32.ld.incp q4, {at}, q0, q0, q3",
                "ee.vmax.s32.ld.incp q3, {at}, q1, q1, q3",
                "ee.vunzip.16 q0, q1",
                // 2 to the power of the scale's exponent: of its lower two bits in q3, of the upper ones in q2, or nothing.
                "ee.vsubs.s16.ld.incp q5, {at}, q2, q2, q6",
                "ee.vcmp.gt.s16 q4, q2, q4",
                "ee.vadds.s16.ld.incp q1, {at}, q2, q2, q2",
                "ee.andq q3, q2, q3",
                "ee.andq q2, q2, q1",
                "ee.vmul.u16.ld.incp q1, {at}, q3, q3, q5",
                "ee.vmul.u16.ld.incp q5, {at}, q2, q2, q1",
                "ee.vadds.s16.ld.incp q1, {at}, q3, q3, q5",
                "ee.vadds.s16 q2, q2, q5",
                "ee.vmul.u16 q2, q2, q2",
                "ee.andq q2, q2, q4",
                "ee.vmul.u16.ld.incp q4, {at}, q3, q3, q3",
                // The same of the score before its point, plus 16, in q1 and q4.
                "ee.andq q1, q0, q1",
                "ee.vmul.u16.ld.incp q4, {at}, q1, q1, q4",
                "ee.vadds.s16.ld.incp q5, {at}, q1, q1, q5",
                "ee.andq q4, q0, q4",
                "ee.vmul.u16.ld.incp q5, {at}, q4, q4, q5",
                "ee.vmul.u16 q1, q1, q1",
                "ee.vadds.s16.ld.incp q5, {at}, q4, q4, q5",
                "ee.vmul.u16 q4, q4, q4",
                // The upper ones count four times.
                "ssai 0",
                "ee.vmul.u16 q2, q2, q2",
                "ee.vmul.u16 q4, q4, q4",
                "ee.vmul.u16 q2, q2, q2",
                "ee.vmul.u16 q4, q4, q4",
                "ee.vmul.u16.ld.incp q3, {at}, q2, q2, q3",
                "ee.vmul.u16 q1, q1, q4",
                "ee.vmul.u16.ld.incp q5, {at}, q4, q0, q5",
                // 0, which alone is the same times 32, has 16 before its point then; 2^16 - 1 rounds to what 2^16 would.
                "ssai 16",
                "ee.vcmp.eq.s16 q0, q0, q4",
                "ee.orq q1, q1, q0",
                "ee.vmul.u16.ld.incp q0, {at}, q3, q3, q4",
                "ee.vadds.s16.ld.incp q5, {at}, q3, q3, q5",
                "ee.vmul.u16 q3, q3, q4",
                // As a number with a sign the first of the cubic is less than 0, and the sum as well.
                "ee.vadds.s16 q3, q3, q0",
                "ee.vmul.u16.ld.incp q0, {scales}, q4, q4, q5",
                "ee.vmul.u16 q3, q3, q4",
                "ee.orq q3, q3, q5",
                // Half of what it is then, rounded up.
                "ee.vmul.u16.ld.incp q3, {at}, q1, q1, q3",
                "ee.vmul.u16 q4, q1, q5",
                "ee.vsubs.s16.ld.incp q4, {at}, q1, q1, q4",
                // Times the mantissa, less 6 bits; then with the scale's exponent, rounded.
                "ee.andq q0, q0, q3",
                "ee.orq q0, q0, q4",
                "ee.vmulas.u16.accx q1, q4",
                "ssai 6",
                "ee.vmul.u16 q0, q0, q1",
                "ee.mov.u16.qacc q5",
                "ssai 16",
                "ee.vmulas.u16.qacc q0, q2",
                "ee.srcmb.s16.qacc q0, {sixteen}, 0",
                "ee.vst.128.ip q0, {scores}, 32",
                "3:",
                // Less the 7 bits of the factor of probabilities.
                "rur.accx_0 {most}",
                "rur.accx_1 {least}",
                "ssai 7",
                "src {most}, {least}, {most}",
                most = inout(reg) &raw const most => sum,
                least = inout(reg) &raw const least => _,
                blocks = in(reg) scores.len(),
                scores = inout(reg) scores.as_mut_ptr() => _,
                scales = inout(reg) scales.as_ptr() => _,
                constants = in(reg) &raw const CONSTANTS,
                at = out(reg) _,
                sixteen = in(reg) 16,
                out("sar") _,
                options(nostack)
            );
        }
        sum
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
                    begin_loop!("blocks", "3f"),
                    "ee.zero.q q0",
                    "ee.vzip.8 q0, q1",
                    "ee.vmulas.s16.qacc.ld.xp q1, {values}, {block_len}, q2, q1",
                    "ee.vmulas.s16.accx.ld.ip q2, {weights}, 32, q2, q0",
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
                    blocks = in(reg) weights.len() - 1,
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
