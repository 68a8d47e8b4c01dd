//! Products of quantized weights in groups of a whole row.
//!
//! The sum of a row does not end with the activations that fit the unit's registers, so there are several pieces, between
//! which the eight sums are in registers of the core. The first piece is the one that need not be whole.

use core::arch::asm;
use core::mem::offset_of;

use super::{BIAS, Frame, Products};

/// A piece: what is loaded first, for each row what its sum begins with, and the products, which are others in the last row.
macro_rules! piece {
    ($load:literal, $begin:tt, $row:expr, $last:expr) => {
        concat!(
            $load,
            "\n",
            piece!("a", $begin, $row),
            piece!("b", $begin, $row),
            piece!("c", $begin, $row),
            piece!("d", $begin, $row),
            piece!("e", $begin, $row),
            piece!("f", $begin, $row),
            piece!("g", $begin, $row),
            piece!("h", $begin, $last),
        )
    };
    // Sums are the low 32 bits of the unit's; carries into the others do not matter, as few as a piece has.
    ($sum:literal, "sum", $products:expr) => {
        concat!("wur.accx_0 {", $sum, "}\n", $products, "\nrur.accx_0 {", $sum, "}\n")
    };
    ($sum:literal, $begin:tt, $products:expr) => {
        concat!($begin, "\n", $products, "\nrur.accx_0 {", $sum, "}\n")
    };
}

/// Six runs of eight bits. Back and forth over them, since a load steps less than 512 bytes; in the last row forth alone.
macro_rules! six_runs {
    ($begin:tt) => {
        piece!(
            "ee.vld.128.ip q6, {w}, 256
             ee.vld.128.ip q0, {x}, 16
             ee.vld.128.ip q1, {x}, 16
             ee.vld.128.ip q2, {x}, 16
             ee.vld.128.ip q3, {x}, 16
             ee.vld.128.ip q4, {x}, 16
             ee.vld.128.ip q5, {x}, 16",
            $begin,
            "ee.vmulas.s8.accx.ld.ip q7, {w}, 256, q0, q6
             ee.vmulas.s8.accx.ld.ip q6, {w}, 128, q2, q7
             ee.vmulas.s8.accx.ld.ip q7, {w}, -256, q4, q6
             ee.vmulas.s8.accx.ld.ip q6, {w}, -256, q5, q7
             ee.vmulas.s8.accx.ld.ip q7, {w}, -112, q3, q6
             ee.vmulas.s8.accx.ld.ip q6, {w}, 256, q1, q7",
            "ee.vmulas.s8.accx.ld.ip q7, {w}, -128, q0, q6
             ee.vmulas.s8.accx.ld.ip q6, {w}, 256, q2, q7
             ee.vmulas.s8.accx.ld.ip q7, {w}, 128, q1, q6
             ee.vmulas.s8.accx.ld.ip q6, {w}, 128, q3, q7
             ee.vmulas.s8.accx.ld.ip q7, {w}, 16, q4, q6
             ee.vmulas.s8.accx q5, q7"
        )
    };
}

/// Four runs of eight bits.
macro_rules! four_runs {
    ($begin:tt) => {
        piece!(
            "ee.vld.128.ip q6, {w}, 128
             ee.vld.128.ip q0, {x}, 16
             ee.vld.128.ip q1, {x}, 16
             ee.vld.128.ip q2, {x}, 16
             ee.vld.128.ip q3, {x}, 16",
            $begin,
            "ee.vmulas.s8.accx.ld.ip q7, {w}, 128, q0, q6
             ee.vmulas.s8.accx.ld.ip q6, {w}, 128, q1, q7
             ee.vmulas.s8.accx.ld.ip q7, {w}, -368, q2, q6
             ee.vmulas.s8.accx.ld.ip q6, {w}, 128, q3, q7",
            "ee.vmulas.s8.accx.ld.ip q7, {w}, 128, q0, q6
             ee.vmulas.s8.accx.ld.ip q6, {w}, 128, q1, q7
             ee.vmulas.s8.accx.ld.ip q7, {w}, 16, q2, q6
             ee.vmulas.s8.accx q3, q7"
        )
    };
}

/// Two runs of eight bits.
macro_rules! two_runs {
    ($begin:tt) => {
        piece!(
            "ee.vld.128.ip q6, {w}, 128
             ee.vld.128.ip q0, {x}, 16
             ee.vld.128.ip q1, {x}, 16",
            $begin,
            "ee.vmulas.s8.accx.ld.ip q7, {w}, -112, q0, q6
             ee.vmulas.s8.accx.ld.ip q6, {w}, 128, q1, q7",
            "ee.vmulas.s8.accx.ld.ip q7, {w}, 16, q0, q6
             ee.vmulas.s8.accx q1, q7"
        )
    };
}

/// Two runs of four bits; q6 has the low halves of bytes, q7 ones, and SAR is 4.
macro_rules! two_runs_of_halves {
    ($begin:tt) => {
        piece!(
            "ee.vld.128.ip q4, {w}, 128
             ee.vld.128.ip q0, {x}, 16
             ee.vld.128.ip q1, {x}, 16
             ee.vld.128.ip q2, {x}, 16
             ee.vld.128.ip q3, {x}, 16",
            $begin,
            "ee.andq q5, q4, q6
             ee.vmul.u8 q4, q4, q7
             ee.vmulas.s8.accx q0, q5
             ee.vmulas.s8.accx.ld.ip q4, {w}, -112, q1, q4
             ee.andq q5, q4, q6
             ee.vmul.u8 q4, q4, q7
             ee.vmulas.s8.accx q2, q5
             ee.vmulas.s8.accx.ld.ip q4, {w}, 128, q3, q4",
            "ee.andq q5, q4, q6
             ee.vmul.u8 q4, q4, q7
             ee.vmulas.s8.accx q0, q5
             ee.vmulas.s8.accx.ld.ip q4, {w}, 16, q1, q4
             ee.andq q5, q4, q6
             ee.vmul.u8 q4, q4, q7
             ee.vmulas.s8.accx q2, q5
             ee.vmulas.s8.accx q3, q4"
        )
    };
}

/// A run of four bits.
macro_rules! run_of_halves {
    ($begin:tt) => {
        piece!(
            "ee.vld.128.ip q2, {w}, 16
             ee.vld.128.ip q0, {x}, 16
             ee.vld.128.ip q1, {x}, 16",
            $begin,
            "ee.andq q3, q2, q6
             ee.vmul.u8 q4, q2, q7
             ee.vmulas.s8.accx.ld.ip q2, {w}, 16, q0, q3
             ee.vmulas.s8.accx q1, q4",
            "ee.andq q3, q2, q6
             ee.vmul.u8 q4, q2, q7
             ee.vmulas.s8.accx q0, q3
             ee.vmulas.s8.accx q1, q4"
        )
    };
}

/// A sum to a product, in the register of its scale. Where scales may be less than 0, a zero is added.
macro_rules! product {
    ($sum:literal, $scale:literal, $t:literal) => {
        product!($sum, $scale, $t, concat!("mul.s ", $scale, ", ", $t, ", ", $scale))
    };
    ($sum:literal, $scale:literal, $t:literal, "signed") => {
        product!(
            $sum,
            $scale,
            $t,
            concat!("mul.s ", $t, ", ", $t, ", ", $scale, "\nadd.s ", $scale, ", ", $t, ", f14")
        )
    };
    ($sum:literal, $scale:literal, $t:literal, $multiply:expr) => {
        concat!("float.s ", $t, ", {", $sum, "}, 0\n", "mul.s ", $scale, ", ", $scale, ", f15\n", $multiply)
    };
}

/// Products of blocks and a token: how scales are loaded, the pieces, and what is said of products.
macro_rules! by_row {
    ($name:ident, $frame:ident, $first:expr, $scales:expr, [$($piece:expr),+], $next:expr $(, $signed:tt)?) => {
        pub(super) struct $name;

        impl Products for $name {
            #[inline(always)]
            unsafe fn blocks($frame: &mut Frame, w: *const u8, count: usize, out: *mut f32) {
                // SAFETY: Reads blocks and the token, which the caller promises, and writes as many products.
                unsafe {
                    let x_scale = *$frame.x_scales * BIAS;
                    ($frame.first, $frame.more) = $first;
                    asm!(
                        "4:",
                        $scales,
                        "l32i {x}, {at}, {of_x}",
                        "ee.ldf.128.ip f3, f2, f1, f0, {at}, 16",
                        "ee.ldf.128.ip f7, f6, f5, f4, {at}, -16",
                        "l32i {n}, {at}, {of_first}",
                        $($piece,)+
                        "70:",
                        "l32i {n}, {at}, {of_more}",
                        "beqz {n}, 90f",
                        "80:",
                        "ee.zero.accx",
                        $next,
                        "addi {n}, {n}, -1",
                        "bnez {n}, 80b",
                        "90:",
                        product!("a", "f0", "f8" $(, $signed)?), product!("b", "f1", "f9" $(, $signed)?),
                        product!("c", "f2", "f10" $(, $signed)?), product!("d", "f3", "f11" $(, $signed)?),
                        product!("e", "f4", "f8" $(, $signed)?), product!("f", "f5", "f9" $(, $signed)?),
                        product!("g", "f6", "f10" $(, $signed)?), product!("h", "f7", "f11" $(, $signed)?),
                        put_products!("n"),
                        "addi {count}, {count}, -1",
                        "bnez {count}, 4b",
                        of_x = const offset_of!(Frame, x),
                        of_first = const offset_of!(Frame, first),
                        of_more = const offset_of!(Frame, more),
                        of_add = const offset_of!(Frame, add),
                        a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
                        e = out(reg) _, f = out(reg) _, g = out(reg) _, h = out(reg) _,
                        w = inout(reg) w => _,
                        x = out(reg) _,
                        n = out(reg) _,
                        count = inout(reg) count => _,
                        out = inout(reg) out => _,
                        at = inout(reg) $frame => _,
                        $(of_half = const { let _ = $signed; offset_of!(Frame, half) }, of_offset = const offset_of!(Frame, offset),)?
                        out("f0") _, out("f1") _, out("f2") _, out("f3") _,
                        out("f4") _, out("f5") _, out("f6") _, out("f7") _,
                        out("f8") _, out("f9") _, out("f10") _, out("f11") _,
                        inout("f14") 0.0_f32 => _, inout("f15") x_scale => _,
                        out("sar") _,
                        options(nostack)
                    );
                }
            }
        }
    };
}

by_row!(
    Q8ByRow,
    frame,
    {
        let runs = frame.group / 16;
        let first = runs % 6;
        // Six, four, or two.
        if first == 0 { (0, runs / 6 - 1) } else { (first as i32 - 3, runs / 6) }
    },
    concat!("ssai 3\n", scales!("q0", "q1", "ee.vld.128.ip q1, {w}, 16", "")),
    [
        "beqz {n}, 60f",
        "bltz {n}, 20f",
        four_runs!("ee.zero.accx"),
        "j 70f",
        "20:",
        two_runs!("ee.zero.accx"),
        "j 70f",
        "60:",
        six_runs!("ee.zero.accx")
    ],
    six_runs!("sum")
);

by_row!(
    Q4ByRow,
    frame,
    {
        let runs = frame.group / 32;
        // The stored numbers are greater by 8 than the weights.
        frame.offset = -8 * *frame.x_sums;
        if runs % 2 == 0 { (0, runs / 2 - 1) } else { (1, runs / 2) }
    },
    concat!(
        "ssai 3\n",
        "addi {x}, {at}, {of_half}\n",
        "ee.vldbc.32.ip q2, {x}, 4\n",
        "ee.vldbc.32.ip q6, {x}, 4\n",
        "ee.vldbc.32 q7, {x}\n",
        scales!("q0", "q1", "ee.vld.128.ip q1, {w}, 16", "ee.andq q0, q0, q2\nee.andq q1, q1, q2"),
        "ssai 4\nee.zero.accx",
    ),
    [
        "beqz {n}, 60f",
        "l32i {n}, {at}, {of_offset}",
        run_of_halves!("wur.accx_0 {n}"),
        "j 70f",
        "60:",
        "l32i {n}, {at}, {of_offset}",
        two_runs_of_halves!("wur.accx_0 {n}")
    ],
    two_runs_of_halves!("sum"),
    "signed"
);
