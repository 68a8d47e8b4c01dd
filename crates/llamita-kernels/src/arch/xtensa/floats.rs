//! Products of floats in the lanes of `scalar.rs`, fused where that is allowed, and what else takes four at a time.

use core::arch::asm;

use super::aligned;
use crate::{LANES, Panel, scalar};

/// See [`crate::Kernels::matmul`].
pub(super) fn matmul(w: &[f32], x: &[f32], mut out: Panel<'_>, add: bool) {
    let columns = x.len() / out.rows();
    // Then all rows and tokens are.
    let aligned = aligned(w.as_ptr()) && aligned(x.as_ptr()) && columns.is_multiple_of(4) && columns > 0;
    for (b, x) in x.chunks_exact(columns).enumerate() {
        for (out, w) in out.row_mut(b).iter_mut().zip(w.chunks_exact(columns)) {
            // SAFETY: Both have `columns` elements, fours of them aligned where this is so.
            let lanes = if aligned { unsafe { fours(w.as_ptr(), x.as_ptr(), columns) } } else { ones(w, x) };
            let product = scalar::sum_lanes(lanes);
            *out = if add { *out + product } else { product };
        }
    }
}

/// Sums of products in lanes, four loaded at a time.
///
/// # Safety
/// There are `len` elements, a multiple of 4, aligned.
#[inline(always)]
unsafe fn fours(w: *const f32, x: *const f32, len: usize) -> [f32; LANES] {
    /// Four lanes.
    macro_rules! four {
        ($a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                "ee.ldf.128.ip f11, f10, f9, f8, {w}, 16\n",
                "ee.ldf.128.ip f15, f14, f13, f12, {x}, 16\n",
                "madd.s ",
                $a,
                ", f8, f12\n",
                "madd.s ",
                $b,
                ", f9, f13\n",
                "madd.s ",
                $c,
                ", f10, f14\n",
                "madd.s ",
                $d,
                ", f11, f15\n",
            )
        };
    }
    let (a, b, c, d, e, f, g, h);
    // SAFETY: Reads what the caller promises.
    unsafe {
        asm!(
            "const.s f0, 0", "const.s f1, 0", "const.s f2, 0", "const.s f3, 0",
            "const.s f4, 0", "const.s f5, 0", "const.s f6, 0", "const.s f7, 0",
            "beqz {sixteens}, 3f",
            "2:",
            four!("f0", "f1", "f2", "f3"),
            four!("f4", "f5", "f6", "f7"),
            four!("f0", "f1", "f2", "f3"),
            four!("f4", "f5", "f6", "f7"),
            "addi {sixteens}, {sixteens}, -1",
            "bnez {sixteens}, 2b",
            "3:",
            "beqz {fours}, 3f",
            four!("f0", "f1", "f2", "f3"),
            "addi {fours}, {fours}, -1",
            "beqz {fours}, 3f",
            four!("f4", "f5", "f6", "f7"),
            "addi {fours}, {fours}, -1",
            "beqz {fours}, 3f",
            four!("f0", "f1", "f2", "f3"),
            "3:",
            w = inout(reg) w => _,
            x = inout(reg) x => _,
            sixteens = inout(reg) len / 16 => _,
            fours = inout(reg) len % 16 / 4 => _,
            out("f0") a, out("f1") b, out("f2") c, out("f3") d,
            out("f4") e, out("f5") f, out("f6") g, out("f7") h,
            out("f8") _, out("f9") _, out("f10") _, out("f11") _,
            out("f12") _, out("f13") _, out("f14") _, out("f15") _,
            options(readonly, nostack)
        );
    }
    [a, b, c, d, e, f, g, h]
}

/// The same from anywhere.
#[inline(never)]
fn ones(w: &[f32], x: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for (w, x) in w.chunks(LANES).zip(x.chunks(LANES)) {
        for (lane, (&w, &x)) in lanes.iter_mut().zip(w.iter().zip(x)) {
            // SAFETY: Touches registers of floats alone.
            unsafe {
                asm!(
                    "madd.s {lane}, {w}, {x}",
                    lane = inout(freg) *lane, w = in(freg) w, x = in(freg) x,
                    options(pure, nomem, nostack)
                );
            }
        }
    }
    lanes
}

/// See [`crate::Kernels::sum_of_squares`].
pub(crate) fn sum_of_squares(x: &[f32]) -> f32 {
    /// Squares of four, added to as many lanes.
    macro_rules! four {
        ($a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                "ee.ldf.128.ip f11, f10, f9, f8, {x}, 16\n",
                "mul.s f8, f8, f8\n",
                "mul.s f9, f9, f9\n",
                "mul.s f10, f10, f10\n",
                "mul.s f11, f11, f11\n",
                "add.s ",
                $a,
                ", ",
                $a,
                ", f8\n",
                "add.s ",
                $b,
                ", ",
                $b,
                ", f9\n",
                "add.s ",
                $c,
                ", ",
                $c,
                ", f10\n",
                "add.s ",
                $d,
                ", ",
                $d,
                ", f11\n",
            )
        };
    }
    if !aligned(x.as_ptr()) {
        return scalar::sum_of_squares(x);
    }
    let (whole, rest) = x.as_chunks::<LANES>();
    let (a, b, c, d, e, f, g, h);
    // SAFETY: Reads the chunks, which are aligned.
    unsafe {
        asm!(
            "const.s f0, 0", "const.s f1, 0", "const.s f2, 0", "const.s f3, 0",
            "const.s f4, 0", "const.s f5, 0", "const.s f6, 0", "const.s f7, 0",
            "beq {x}, {end}, 3f",
            "2:",
            four!("f0", "f1", "f2", "f3"),
            four!("f4", "f5", "f6", "f7"),
            "bne {x}, {end}, 2b",
            "3:",
            x = inout(reg) whole.as_ptr() => _,
            end = in(reg) whole.as_ptr_range().end,
            out("f0") a, out("f1") b, out("f2") c, out("f3") d,
            out("f4") e, out("f5") f, out("f6") g, out("f7") h,
            out("f8") _, out("f9") _, out("f10") _, out("f11") _,
            options(readonly, nostack)
        );
    }
    let mut lanes = [a, b, c, d, e, f, g, h];
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x * x;
    }
    scalar::sum_lanes(lanes)
}

/// See [`crate::Kernels::scale`].
pub(crate) fn scale(x: &[f32], scale: f32, weight: &[f32], out: &mut [f32]) {
    let whole = x.len() / 4 * 4;
    if whole == 0 || ![x.as_ptr(), weight.as_ptr(), out.as_ptr()].into_iter().all(aligned) {
        return scalar::scale(x, scale, weight, out);
    }
    // SAFETY: Reads and writes the fours that all have, aligned.
    unsafe {
        asm!(
            "2:",
            "ee.ldf.128.ip f3, f2, f1, f0, {x}, 16",
            "ee.ldf.128.ip f7, f6, f5, f4, {weight}, 16",
            "mul.s f0, f0, {scale}",
            "mul.s f1, f1, {scale}",
            "mul.s f2, f2, {scale}",
            "mul.s f3, f3, {scale}",
            "mul.s f0, f0, f4",
            "mul.s f1, f1, f5",
            "mul.s f2, f2, f6",
            "mul.s f3, f3, f7",
            "ee.stf.128.ip f3, f2, f1, f0, {out}, 16",
            "bne {x}, {end}, 2b",
            x = inout(reg) x.as_ptr() => _,
            end = in(reg) x[..whole].as_ptr_range().end,
            weight = inout(reg) weight.as_ptr() => _,
            out = inout(reg) out.as_mut_ptr() => _,
            scale = in(freg) scale,
            out("f0") _, out("f1") _, out("f2") _, out("f3") _,
            out("f4") _, out("f5") _, out("f6") _, out("f7") _,
            options(nostack)
        );
    }
    scalar::scale(&x[whole..], scale, &weight[whole..], &mut out[whole..]);
}

/// See [`crate::Kernels::rope`].
pub(crate) fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let whole = x.len() / 4 * 4;
    if whole == 0 || ![x.as_ptr(), cos.as_ptr(), sin.as_ptr()].into_iter().all(aligned) {
        return scalar::rope(x, cos, sin);
    }
    // SAFETY: Reads and writes the fours that all have, aligned.
    unsafe {
        asm!(
            "2:",
            "ee.ldf.128.ip f3, f2, f1, f0, {x}, 0",
            "ee.ldf.128.ip f11, f10, f9, f8, {sin}, 16",
            "ee.ldf.128.ip f7, f6, f5, f4, {cos}, 16",
            "mul.s f8, f1, f8",
            "mul.s f9, f0, f9",
            "mul.s f10, f3, f10",
            "mul.s f11, f2, f11",
            "mul.s f0, f0, f4",
            "mul.s f1, f1, f5",
            "mul.s f2, f2, f6",
            "mul.s f3, f3, f7",
            "add.s f0, f0, f8",
            "add.s f1, f1, f9",
            "add.s f2, f2, f10",
            "add.s f3, f3, f11",
            "ee.stf.128.ip f3, f2, f1, f0, {x}, 16",
            "bne {x}, {end}, 2b",
            end = in(reg) x[..whole].as_ptr_range().end,
            x = inout(reg) x.as_mut_ptr() => _,
            cos = inout(reg) cos.as_ptr() => _,
            sin = inout(reg) sin.as_ptr() => _,
            out("f0") _, out("f1") _, out("f2") _, out("f3") _,
            out("f4") _, out("f5") _, out("f6") _, out("f7") _,
            out("f8") _, out("f9") _, out("f10") _, out("f11") _,
            options(nostack)
        );
    }
    scalar::rope(&mut x[whole..], &cos[whole..], &sin[whole..]);
}
