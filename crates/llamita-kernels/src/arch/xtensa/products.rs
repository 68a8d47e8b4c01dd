//! Products of quantized weights.
//!
//! Eight rows and a token at a time. The activations of a group stay in registers while its rows pass by, each of which
//! is loaded by the instruction that multiplies what was loaded before. A row's sum is one register of the unit, so it is
//! read, made a float and multiplied while the next row's products are made. Groups of 32 and 64 columns are one piece of
//! assembler for all of a matrix, with the rows' results in registers; so are groups of a whole row, see `row.rs`.

use core::arch::asm;
use core::mem::{MaybeUninit, offset_of};

use super::{Aligned, aligned};
use crate::quantized::{BLOCK_ROWS, Input, Quant, Quantized, QuantizedRows};
use crate::{Panel, Rows, words};

/// See [`crate::Kernels::matmul`]; weights and activations are aligned, scales of activations are below 2^15, and those
/// of weights [`usable`].
pub(super) fn matmul(w: QuantizedRows<'_>, x: Quantized<'_>, out: Panel<'_>, add: bool) {
    match (w.quant, w.group) {
        _ if w.groups() == 1 && w.quant == Quant::Q8 => blocks::<Q8ByRow>(w, x, out, add),
        _ if w.groups() == 1 => blocks::<Q4ByRow>(w, x, out, add),
        (Quant::Q8, 32) => blocks::<Q8By32>(w, x, out, add),
        (Quant::Q8, 64) => blocks::<Q8By64>(w, x, out, add),
        (Quant::Q4, 32) => blocks::<Q4By32>(w, x, out, add),
        (Quant::Q4, 64) => blocks::<Q4By64>(w, x, out, add),
        _ => words::matmul(Rows::Quantized(w), Input { floats: &[], quantized: x }, out, add),
    }
}

/// Whether the conversion of scales here is that of `F16`: they are finite, and of eight bits not negative, so that a
/// product of zero is never a negative zero.
pub(super) fn usable(w: &QuantizedRows<'_>) -> bool {
    /// Magnitude, and the largest that is finite.
    static LIMITS: Aligned<[u16; 2]> = Aligned([0x7fff, 0x7bff]);
    let (block_len, blocks) = (w.block_len(), w.bytes.len() / w.block_len());
    let (mut infinite, mut negative) = (0_u32, 0_u32);
    if blocks > 0 {
        for group in 0..w.groups() {
            let (some_infinite, some_negative): (u32, u32);
            // SAFETY: Reads eight scales of this group in each of the blocks, which are aligned.
            unsafe {
                asm!(
                    "ee.vldbc.16 q1, {limits}",
                    "addi {limits}, {limits}, 2",
                    "ee.vldbc.16 q2, {limits}",
                    "ee.zero.q q3",
                    "ee.zero.q q4",
                    "2:",
                    "ee.vld.128.xp q0, {scales}, {block_len}",
                    "addi {blocks}, {blocks}, -1",
                    "ee.vmin.s16 q4, q4, q0",
                    // Magnitudes are in the order of their bits.
                    "ee.andq q0, q0, q1",
                    "ee.vmax.s16 q3, q3, q0",
                    "bnez {blocks}, 2b",
                    // The number of bytes that are all ones.
                    "ee.vcmp.gt.s16 q3, q3, q2",
                    "ee.zero.accx",
                    "ee.vmulas.s8.accx q3, q3",
                    "rur.accx_0 {infinite}",
                    // So many bytes of numbers below zero.
                    "ee.zero.q q0",
                    "ee.vcmp.lt.s16 q4, q4, q0",
                    "ee.zero.accx",
                    "ee.vmulas.s8.accx q4, q4",
                    "rur.accx_0 {negative}",
                    limits = inout(reg) LIMITS.0.as_ptr() => _,
                    scales = inout(reg) w.bytes.as_ptr().wrapping_add(group * 2 * BLOCK_ROWS) => _,
                    block_len = in(reg) block_len,
                    blocks = inout(reg) blocks => _,
                    infinite = out(reg) some_infinite,
                    negative = out(reg) some_negative,
                    options(readonly, nostack)
                );
            }
            infinite |= some_infinite;
            negative |= some_negative;
        }
    }
    infinite == 0 && (negative == 0 || w.quant == Quant::Q4)
}

/// A token, and what else the assembler reads of memory.
#[repr(C, align(16))]
struct Frame {
    /// For the scales of a group.
    room: MaybeUninit<[f32; BLOCK_ROWS]>,
    zeros: [f32; 4],
    x: *const i8,
    x_scales: *const f32,
    x_sums: *const i32,
    groups: usize,
    /// Bytes of a block's scales.
    scales_len: usize,
    /// Whether products are added to what is there.
    add: u32,
    /// Sign, exponent and mantissa of half precision, moved to where single precision has them.
    half: u32,
    /// The low halves of bytes.
    low: u32,
    /// Ones.
    ones: u32,
    /// Columns of a group.
    group: usize,
    /// Which piece of a row is the first, and how many more there are.
    first: i32,
    more: usize,
    /// What sums begin with.
    offset: i32,
}

/// How weights of some bits in groups of some size are multiplied.
trait Products {
    /// The products of `count` blocks of rows, at least one, and a token, eight numbers for each.
    ///
    /// # Safety
    /// All is there and aligned, and of these bits and groups.
    unsafe fn blocks(frame: &mut Frame, w: *const u8, count: usize, out: *mut f32);
}

#[inline(never)]
fn blocks<P: Products>(w: QuantizedRows<'_>, x: Quantized<'_>, mut out: Panel<'_>, add: bool) {
    let (groups, rows, tokens) = (w.groups(), out.width(), out.rows());
    let block_len = w.block_len();
    let mut frame = Frame {
        room: MaybeUninit::uninit(),
        zeros: [0.0; 4],
        x: x.values.as_ptr(),
        x_scales: x.scales.as_ptr(),
        x_sums: x.sums.as_ptr(),
        groups,
        scales_len: w.scales_len(),
        add: add.into(),
        half: 0x8fff_e000,
        low: 0x0f0f_0f0f,
        ones: 0x0101_0101,
        group: w.group,
        first: 0,
        more: 0,
        offset: 0,
    };
    // Weights are read once, whatever the number of tokens.
    let step = if tokens == 1 { (rows / BLOCK_ROWS).max(1) } else { 1 };
    for block in (0..rows.div_ceil(BLOCK_ROWS)).step_by(step) {
        let bytes = w.bytes[block * block_len..].as_ptr();
        for token in 0..tokens {
            frame.x = x.values.as_ptr().wrapping_add(token * w.padded);
            frame.x_scales = x.scales.as_ptr().wrapping_add(token * groups);
            frame.x_sums = x.sums.as_ptr().wrapping_add(token * groups);
            let out = out.row_mut(token)[block * BLOCK_ROWS..]
                .chunks_mut(step * BLOCK_ROWS)
                .next()
                .unwrap_or_default();
            // SAFETY: `Kernels` checked the lengths, of blocks and for each token, and `Pie` the alignment, which is that of
            // every block and token, as they are of whole runs.
            let mut of_blocks = |w, count, out| unsafe { P::blocks(&mut frame, w, count, out) };
            if aligned(out.as_ptr()) && out.len().is_multiple_of(BLOCK_ROWS) {
                of_blocks(bytes, out.len() / BLOCK_ROWS, out.as_mut_ptr());
                continue;
            }
            for (i, out) in out.chunks_mut(BLOCK_ROWS).enumerate() {
                let mut room = Aligned([0.0; BLOCK_ROWS]);
                room.0[..out.len()].copy_from_slice(out);
                of_blocks(bytes.wrapping_add(i * block_len), 1, room.0.as_mut_ptr());
                out.copy_from_slice(&room.0[..out.len()]);
            }
        }
    }
}

/// The exponent's bias is 15 in half precision and 127 in single: made up for by a product, which normalises what is
/// subnormal as well.
const BIAS: f32 = f32::from_bits((127 + 127 - 15) << 23);

/// Makes eight scales floats in memory, still to be multiplied with [`BIAS`]; SAR is 3. With a mask they have signs.
macro_rules! scales {
    ($low:literal, $high:literal) => {
        scales!($low, $high, concat!("ee.vld.128.ip ", $high, ", {scales}, 16"), "")
    };
    ($low:literal, $high:literal, $mask:literal) => {
        scales!(
            $low,
            $high,
            concat!("ee.vld.128.ip ", $high, ", {scales}, 16"),
            concat!("ee.andq ", $low, ", ", $low, ", ", $mask, "\nee.andq ", $high, ", ", $high, ", ", $mask)
        )
    };
    ($low:literal, $high:literal, $load:expr, $mask:expr) => {
        concat!(
            $load,
            "\n",
            "ee.zero.q ",
            $low,
            "\n",
            "ee.vzip.16 ",
            $low,
            ", ",
            $high,
            "\n",
            "ee.vsr.32 ",
            $low,
            ", ",
            $low,
            "\n",
            "ee.vsr.32 ",
            $high,
            ", ",
            $high,
            "\n",
            $mask,
            "\n",
            "ee.vst.128.ip ",
            $low,
            ", {at}, 16\n",
            "ee.vst.128.ip ",
            $high,
            ", {at}, -16\n",
        )
    };
}

/// Writes a block's products, which are in f0 to f7, or adds them to what is there; takes a register.
macro_rules! put_products {
    ($register:literal) => {
        concat!(
            "l32i {",
            $register,
            "}, {at}, {of_add}\n\
             beqz {",
            $register,
            "}, 3f\n\
             ee.ldf.128.ip f11, f10, f9, f8, {out}, 16\n\
             add.s f0, f8, f0\n\
             add.s f1, f9, f1\n\
             add.s f2, f10, f2\n\
             add.s f3, f11, f3\n\
             ee.ldf.128.ip f11, f10, f9, f8, {out}, -16\n\
             add.s f4, f8, f4\n\
             add.s f5, f9, f5\n\
             add.s f6, f10, f6\n\
             add.s f7, f11, f7\n\
             3:\n\
             ee.stf.128.ip f3, f2, f1, f0, {out}, 16\n\
             ee.stf.128.ip f7, f6, f5, f4, {out}, 16",
        )
    };
}

mod row;

use row::{Q4ByRow, Q8ByRow};

/// The scale of the activations into f14, and the first four of the weights' into f8 to f11.
macro_rules! first_scales {
    () => {
        "lsip f14, {x_scales}, 4\n\
         ee.ldf.128.ip f11, f10, f9, f8, {at}, 16\n\
         mul.s f14, f14, f15"
    };
}

/// The sum of a row's products, and what is left to do of the row before.
macro_rules! row {
    ($products:literal, $more:expr, $clear:literal, $scale:literal, $sum:literal) => {
        row!($products, $more, $clear, $scale, $sum, "", "")
    };
    ($products:literal, $more:expr, $clear:literal, $scale:literal, $sum:literal, $multiply:expr, $add:expr) => {
        concat!(
            $products,
            "\n",
            $multiply,
            "\n",
            $more,
            "\n",
            "mul.s ",
            $scale,
            ", ",
            $scale,
            ", f14\n",
            "rur.accx_0 {sum}\n",
            $clear,
            "\n",
            "float.s ",
            $sum,
            ", {sum}, 0\n",
            $add,
            "\n",
        )
    };
}

/// All rows of a group: the first products, more products, the same for the last row, and what makes the sum's register
/// ready for the next row. Results are added to f0 to f7.
macro_rules! rows {
    ($first:literal, $more:expr, $last_first:literal, $last_more:expr, $clear:literal) => {
        concat!(
            row!($first, $more, $clear, "f8", "f12"),
            row!($first, $more, $clear, "f9", "f13", "mul.s f12, f12, f8", "add.s f0, f0, f12"),
            row!($first, $more, $clear, "f10", "f12", "mul.s f13, f13, f9", "add.s f1, f1, f13"),
            row!($first, $more, $clear, "f11", "f13", "mul.s f12, f12, f10", "add.s f2, f2, f12"),
            row!(
                $first,
                $more,
                $clear,
                "f8",
                "f12",
                "mul.s f13, f13, f11\nee.ldf.128.ip f11, f10, f9, f8, {at}, -16",
                "add.s f3, f3, f13"
            ),
            row!($first, $more, $clear, "f9", "f13", "mul.s f12, f12, f8", "add.s f4, f4, f12"),
            row!($first, $more, $clear, "f10", "f12", "mul.s f13, f13, f9", "add.s f5, f5, f13"),
            row!($last_first, $last_more, $clear, "f11", "f13", "mul.s f12, f12, f10", "add.s f6, f6, f12"),
            "mul.s f13, f13, f11\n",
            "add.s f7, f7, f13\n",
        )
    };
}

/// Products of blocks and a token: what is done first for each block, and for each group.
macro_rules! products {
    ($name:ident, $($code:expr),+; $($sums:ident)?) => {
        struct $name;

        impl Products for $name {
            #[inline(always)]
            unsafe fn blocks(frame: &mut Frame, w: *const u8, count: usize, out: *mut f32) {
                let runs = w.wrapping_add(frame.scales_len);
                // SAFETY: Reads blocks and the token, which the caller promises, and writes as many products.
                unsafe {
                    asm!(
                        "4:",
                        "l32i {x}, {at}, {of_x}",
                        "l32i {x_scales}, {at}, {of_x_scales}",
                        "l32i {groups}, {at}, {of_groups}",
                        $(concat!("l32i {", stringify!($sums), "}, {at}, {of_sums}"),)?
                        "addi {sum}, {at}, {of_zeros}",
                        "ee.ldf.128.ip f3, f2, f1, f0, {sum}, 0",
                        "ee.ldf.128.ip f7, f6, f5, f4, {sum}, 0",
                        $($code),+,
                        "addi {groups}, {groups}, -1",
                        "bnez {groups}, 2b",
                        put_products!("sum"),
                        "l32i {sum}, {at}, {of_scales_len}",
                        "mov {scales}, {w}",
                        "addi {count}, {count}, -1",
                        "add {w}, {w}, {sum}",
                        "bnez {count}, 4b",
                        of_zeros = const offset_of!(Frame, zeros),
                        of_x = const offset_of!(Frame, x),
                        of_x_scales = const offset_of!(Frame, x_scales),
                        of_groups = const offset_of!(Frame, groups),
                        of_scales_len = const offset_of!(Frame, scales_len),
                        of_add = const offset_of!(Frame, add),
                        scales = inout(reg) w => _,
                        w = inout(reg) runs => _,
                        x = out(reg) _,
                        x_scales = out(reg) _,
                        groups = out(reg) _,
                        count = inout(reg) count => _,
                        out = inout(reg) out => _,
                        at = inout(reg) frame => _,
                        sum = out(reg) _,
                        $($sums = out(reg) _, offset = out(reg) _, of_sums = const offset_of!(Frame, x_sums), of_half = const offset_of!(Frame, half),)?
                        out("f0") _, out("f1") _, out("f2") _, out("f3") _,
                        out("f4") _, out("f5") _, out("f6") _, out("f7") _,
                        out("f8") _, out("f9") _, out("f10") _, out("f11") _, out("f12") _, out("f13") _, out("f14") _,
                        inout("f15") BIAS => _,
                        out("sar") _,
                        options(nostack)
                    );
                }
            }
        }
    };
}

products!(
    Q8By32,
    "ssai 3",
    "ee.zero.accx",
    "2:",
    scales!("q2", "q3"),
    first_scales!(),
    "ee.vld.128.ip q2, {w}, 128",
    "ee.vld.128.ip q0, {x}, 16",
    "ee.vld.128.ip q1, {x}, 16",
    rows!(
        "ee.vmulas.s8.accx.ld.ip q3, {w}, -112, q0, q2",
        "ee.vmulas.s8.accx.ld.ip q2, {w}, 128, q1, q3",
        "ee.vmulas.s8.accx.ld.ip q3, {w}, 16, q0, q2",
        "ee.vmulas.s8.accx q1, q3",
        "ee.zero.accx"
    );
);

products!(
    Q8By64,
    "ssai 3",
    "ee.zero.accx",
    "2:",
    scales!("q4", "q5"),
    first_scales!(),
    "ee.vld.128.ip q4, {w}, 128",
    "ee.vld.128.ip q0, {x}, 16",
    "ee.vld.128.ip q1, {x}, 16",
    "ee.vld.128.ip q2, {x}, 16",
    "ee.vld.128.ip q3, {x}, 16",
    rows!(
        "ee.vmulas.s8.accx.ld.ip q5, {w}, 128, q0, q4",
        concat!(
            "ee.vmulas.s8.accx.ld.ip q4, {w}, 128, q1, q5\n",
            "ee.vmulas.s8.accx.ld.ip q5, {w}, -368, q2, q4\n",
            "ee.vmulas.s8.accx.ld.ip q4, {w}, 128, q3, q5"
        ),
        "ee.vmulas.s8.accx.ld.ip q5, {w}, 128, q0, q4",
        concat!(
            "ee.vmulas.s8.accx.ld.ip q4, {w}, 128, q1, q5\n",
            "ee.vmulas.s8.accx.ld.ip q5, {w}, 16, q2, q4\n",
            "ee.vmulas.s8.accx q3, q5"
        ),
        "ee.zero.accx"
    );
);

/// What is to be taken off the sum of a group whose weights are stored greater by 8; SAR becomes 4 for their high halves.
macro_rules! offset {
    () => {
        "ssai 4\n\
         l32i {offset}, {sums}, 0\n\
         addi {sums}, {sums}, 4\n\
         slli {offset}, {offset}, 3\n\
         neg {offset}, {offset}\n\
         ee.zero.accx\n\
         wur.accx_0 {offset}"
    };
}

products!(
    Q4By32,
    "addi {sum}, {at}, {of_half}",
    "ee.vldbc.32.ip q5, {sum}, 4",
    "ee.vldbc.32.ip q6, {sum}, 4",
    "ee.vldbc.32.ip q7, {sum}, 4",
    "2:",
    "ssai 3",
    scales!("q2", "q3", "q5"),
    first_scales!(),
    offset!(),
    "ee.vld.128.ip q2, {w}, 16",
    "ee.vld.128.ip q0, {x}, 16",
    "ee.vld.128.ip q1, {x}, 16",
    rows!(
        "ee.andq q3, q2, q6",
        "ee.vmul.u8 q4, q2, q7\n\
         ee.vmulas.s8.accx.ld.ip q2, {w}, 16, q0, q3\n\
         ee.vmulas.s8.accx q1, q4",
        "ee.andq q3, q2, q6",
        "ee.vmul.u8 q4, q2, q7\n\
         ee.vmulas.s8.accx q0, q3\n\
         ee.vmulas.s8.accx q1, q4",
        "wur.accx_0 {offset}"
    );
    sums
);

products!(
    Q4By64,
    "addi {sum}, {at}, {of_half} + 4",
    "ee.vldbc.32.ip q6, {sum}, 4",
    "ee.vldbc.32.ip q7, {sum}, 4",
    "2:",
    "ssai 3",
    "addi {sum}, {at}, {of_half}",
    "ee.vldbc.32 q0, {sum}",
    scales!("q4", "q5", "q0"),
    first_scales!(),
    offset!(),
    "ee.vld.128.ip q4, {w}, 128",
    "ee.vld.128.ip q0, {x}, 16",
    "ee.vld.128.ip q1, {x}, 16",
    "ee.vld.128.ip q2, {x}, 16",
    "ee.vld.128.ip q3, {x}, 16",
    rows!(
        "ee.andq q5, q4, q6",
        "ee.vmul.u8 q4, q4, q7\n\
         ee.vmulas.s8.accx q0, q5\n\
         ee.vmulas.s8.accx.ld.ip q4, {w}, -112, q1, q4\n\
         ee.andq q5, q4, q6\n\
         ee.vmul.u8 q4, q4, q7\n\
         ee.vmulas.s8.accx q2, q5\n\
         ee.vmulas.s8.accx.ld.ip q4, {w}, 128, q3, q4",
        "ee.andq q5, q4, q6",
        "ee.vmul.u8 q4, q4, q7\n\
         ee.vmulas.s8.accx q0, q5\n\
         ee.vmulas.s8.accx.ld.ip q4, {w}, 16, q1, q4\n\
         ee.andq q5, q4, q6\n\
         ee.vmul.u8 q4, q4, q7\n\
         ee.vmulas.s8.accx q2, q5\n\
         ee.vmulas.s8.accx q3, q4",
        "wur.accx_0 {offset}"
    );
    sums
);
