//! Products of floats: fused, in the lanes of `scalar.rs`.

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
