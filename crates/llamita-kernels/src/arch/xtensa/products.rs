//! Products of quantized weights.
//!
//! Eight rows and a token at a time. The activations of a group stay in registers while its rows pass by, each of which
//! is loaded by the instruction that multiplies what was loaded before. A row's sum is one register of the unit, so it is
//! read, made a float and multiplied while the next row's products are made. All groups of 32 and 64 columns are one
//! piece of assembler, with the rows' results in registers; other groups have their sums made first.

use core::arch::asm;
use core::mem::MaybeUninit;

use super::Aligned;
use crate::quantized::{BLOCK_ROWS, Input, Quant, Quantized, QuantizedRows};
use crate::{Panel, Rows, scalar};

/// See [`crate::Kernels::matmul`]; operands are aligned, and scales of activations below 2^15.
pub(super) fn matmul(w: QuantizedRows<'_>, x: Quantized<'_>, out: Panel<'_>, add: bool) {
    match (w.quant, w.group) {
        (Quant::Q8, 32) => blocks::<Q8By32>(w, x, out, add),
        (Quant::Q8, 64) => blocks::<Q8By64>(w, x, out, add),
        (Quant::Q4, 32) => blocks::<Q4By32>(w, x, out, add),
        (Quant::Q4, 64) => blocks::<Q4By64>(w, x, out, add),
        (Quant::Q8, _) => blocks::<Q8ByAny>(w, x, out, add),
        (Quant::Q4, _) => blocks::<Q4ByAny>(w, x, out, add),
    }
}

/// Where the parts of a block and of a token begin.
struct Operands {
    scales: *const u8,
    runs: *const u8,
    x: *const i8,
    x_scales: *const f32,
    x_sums: *const i32,
    groups: usize,
    /// Columns of a group.
    group: usize,
}

/// How weights of some bits in groups of some size are multiplied.
trait Products {
    /// The products of a block of rows and a token.
    ///
    /// # Safety
    /// The operands are whole and aligned, and of these bits and groups.
    unsafe fn products(operands: Operands) -> [f32; BLOCK_ROWS];
}

#[inline(never)]
fn blocks<P: Products>(w: QuantizedRows<'_>, x: Quantized<'_>, mut out: Panel<'_>, add: bool) {
    let (groups, rows, tokens) = (w.groups(), out.width(), out.rows());
    let scales_len = w.scales_len();
    let mut room = [0.0; BLOCK_ROWS];
    for (row, block) in (0..rows).step_by(BLOCK_ROWS).zip(w.bytes.chunks_exact(w.block_len())) {
        let scales = block.as_ptr();
        // SAFETY: A block begins with the scales of its groups, and `Pie` checked the alignment.
        let finite = unsafe { finite(scales, scales.wrapping_add(scales_len)) };
        for token in 0..tokens {
            // A block is most often whole.
            let rest = &mut out.row_mut(token)[row..];
            let len = rest.len().min(BLOCK_ROWS);
            let out = if len == BLOCK_ROWS { rest.as_mut_ptr() } else { lend(&mut room, rest) };
            if finite {
                let operands = Operands {
                    scales,
                    runs: scales.wrapping_add(scales_len),
                    x: x.values.as_ptr().wrapping_add(token * w.padded),
                    x_scales: x.scales.as_ptr().wrapping_add(token * groups),
                    x_sums: x.sums.as_ptr().wrapping_add(token * groups),
                    groups,
                    group: w.group,
                };
                // SAFETY: `Kernels` checked the lengths, of blocks and for each token, and `Pie` the alignment, which is that
                // of every block and token, as they are of whole runs. There are eight numbers at `out`.
                unsafe {
                    let products = P::products(operands);
                    for (i, product) in products.into_iter().enumerate() {
                        let out = out.add(i);
                        *out = if add { *out + product } else { product };
                    }
                }
            } else {
                // SAFETY: As above.
                let out = unsafe { &mut *out.cast() };
                products_of_any_kind(QuantizedRows { bytes: block, ..w }, x, token, out, add);
            }
            if len < BLOCK_ROWS {
                give_back(&room, rest);
            }
        }
    }
}

/// Room for the products of a block that is not whole, with what is there of them.
#[cold]
#[inline(never)]
fn lend(room: &mut [f32; BLOCK_ROWS], out: &[f32]) -> *mut f32 {
    room[..out.len()].copy_from_slice(out);
    room.as_mut_ptr()
}

#[cold]
#[inline(never)]
fn give_back(room: &[f32; BLOCK_ROWS], out: &mut [f32]) {
    out.copy_from_slice(&room[..out.len()]);
}

/// With scales that are infinite or no numbers, which the fast conversion would take for others.
#[cold]
#[inline(never)]
fn products_of_any_kind(
    w: QuantizedRows<'_>,
    x: Quantized<'_>,
    token: usize,
    out: &mut [f32; BLOCK_ROWS],
    add: bool,
) {
    let groups = w.groups();
    let quantized = Quantized {
        values: &x.values[token * w.padded..][..w.padded],
        scales: &x.scales[token * groups..][..groups],
        sums: &x.sums[token * groups..][..groups],
    };
    let x = Input { floats: &[], quantized };
    scalar::matmul(Rows::Quantized(w), x, Panel::new(out, 1), add);
}

/// Whether all scales of a block, eight for each group, are finite: their magnitudes are in the order of their bits.
///
/// # Safety
/// Scales of at least one group, aligned, are between these addresses.
#[inline(always)]
unsafe fn finite(scales: *const u8, end: *const u8) -> bool {
    /// Magnitude, and the largest that is finite.
    static LIMITS: Aligned<[u16; 2]> = Aligned([0x7fff, 0x7bff]);
    let infinite: u32;
    // SAFETY: Reads the scales, 16 bytes for each group, as the caller promises.
    unsafe {
        asm!(
            "ee.vldbc.16 q1, {limits}",
            "addi {limits}, {limits}, 2",
            "ee.vldbc.16 q2, {limits}",
            "ee.zero.q q3",
            "2:",
            "ee.vld.128.ip q0, {scales}, 16",
            "ee.andq q0, q0, q1",
            "ee.vmax.s16 q3, q3, q0",
            "bne {scales}, {end}, 2b",
            // The number of bytes that are all ones.
            "ee.vcmp.gt.s16 q3, q3, q2",
            "ee.zero.accx",
            "ee.vmulas.s8.accx q3, q3",
            "rur.accx_0 {infinite}",
            limits = inout(reg) LIMITS.0.as_ptr() => _,
            scales = inout(reg) scales => _,
            end = in(reg) end,
            infinite = out(reg) infinite,
            options(readonly, nostack)
        );
    }
    infinite == 0
}

/// Masks that the assembler needs, each for all of a register.
#[repr(C, align(16))]
struct Constants {
    /// Sign, exponent and mantissa of half precision, moved to where single precision has them.
    half: u32,
    /// The low halves of bytes.
    low: u32,
    /// Ones.
    ones: u32,
}

static CONSTANTS: Constants = Constants { half: 0x8fff_e000, low: 0x0f0f_0f0f, ones: 0x0101_0101 };

/// The exponent's bias is 15 in half precision and 127 in single: made up for by a product, which normalises what is
/// subnormal as well.
const BIAS: f32 = f32::from_bits((127 + 127 - 15) << 23);

/// Makes eight scales floats in memory, still to be multiplied with [`BIAS`]; SAR is 3.
macro_rules! scales {
    ($low:literal, $high:literal, $mask:literal) => {
        concat!(
            "ee.vld.128.ip ",
            $high,
            ", {scales}, 16\n",
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
            "ee.andq ",
            $low,
            ", ",
            $low,
            ", ",
            $mask,
            "\n",
            "ee.andq ",
            $high,
            ", ",
            $high,
            ", ",
            $mask,
            "\n",
            "ee.vst.128.ip ",
            $low,
            ", {room}, 16\n",
            "ee.vst.128.ip ",
            $high,
            ", {room}, -16\n",
        )
    };
}

mod any_group;

use any_group::{Q4ByAny, Q8ByAny};

/// The scale of the activations into f14, and the first four of the weights' into f8 to f11.
macro_rules! first_scales {
    () => {
        "lsip f14, {x_scales}, 4\n\
         ee.ldf.128.ip f11, f10, f9, f8, {room}, 16\n\
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
                "mul.s f13, f13, f11\nee.ldf.128.ip f11, f10, f9, f8, {room}, -16",
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

/// Products of a block and a token: what is done first, and for each group.
macro_rules! products {
    ($name:ident, $($code:expr),+; $($sums:ident)?) => {
        struct $name;

        impl Products for $name {
            #[inline(always)]
            unsafe fn products(at: Operands) -> [f32; BLOCK_ROWS] {
                let mut room = Aligned(MaybeUninit::<[f32; BLOCK_ROWS]>::uninit());
                let (a, b, c, d, e, f, g, h);
                // SAFETY: Reads scales, weights and activations, which the caller promises, and writes to the room.
                unsafe {
                    asm!(
                        "const.s f0, 0", "const.s f1, 0", "const.s f2, 0", "const.s f3, 0",
                        "const.s f4, 0", "const.s f5, 0", "const.s f6, 0", "const.s f7, 0",
                        $($code),+,
                        "addi {groups}, {groups}, -1",
                        "bnez {groups}, 2b",
                        scales = inout(reg) at.scales => _,
                        w = inout(reg) at.runs => _,
                        x = inout(reg) at.x => _,
                        x_scales = inout(reg) at.x_scales => _,
                        groups = inout(reg) at.groups => _,
                        room = inout(reg) room.0.as_mut_ptr() => _,
                        constants = in(reg) &raw const CONSTANTS,
                        sum = out(reg) _,
                        $($sums = inout(reg) at.x_sums => _, offset = out(reg) _,)?
                        out("f0") a, out("f1") b, out("f2") c, out("f3") d,
                        out("f4") e, out("f5") f, out("f6") g, out("f7") h,
                        out("f8") _, out("f9") _, out("f10") _, out("f11") _, out("f12") _, out("f13") _, out("f14") _,
                        inout("f15") BIAS => _,
                        out("sar") _,
                        options(nostack)
                    );
                }
                [a, b, c, d, e, f, g, h]
            }
        }
    };
}

products!(
    Q8By32,
    "ee.vldbc.32 q4, {constants}",
    "ssai 3",
    "ee.zero.accx",
    "2:",
    scales!("q2", "q3", "q4"),
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
    "ee.vldbc.32 q6, {constants}",
    "ssai 3",
    "ee.zero.accx",
    "2:",
    scales!("q4", "q5", "q6"),
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
    "ee.vldbc.32 q5, {constants}",
    "addi {sum}, {constants}, 4",
    "ee.vldbc.32 q6, {sum}",
    "addi {sum}, {constants}, 8",
    "ee.vldbc.32 q7, {sum}",
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
    "addi {sum}, {constants}, 4",
    "ee.vldbc.32 q6, {sum}",
    "addi {sum}, {constants}, 8",
    "ee.vldbc.32 q7, {sum}",
    "2:",
    "ssai 3",
    "ee.vldbc.32 q0, {constants}",
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
