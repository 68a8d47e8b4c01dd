//! Products of quantized weights in groups of any size, such as those of a whole row.

use core::arch::asm;
use core::mem::MaybeUninit;

use super::super::Aligned;
use super::{BIAS, Frame, Products};
use crate::quantized::BLOCK_ROWS;

/// Sums of a group in pieces of so many runs: what is loaded first, and for each row but the last, for the last, and then.
macro_rules! sums {
    ($name:ident, $load:literal, $row:literal, $last:literal, $next:literal$(, $constant:ident)*) => {
        /// Adds the products of `count` pieces, at least 1.
        ///
        /// # Safety
        /// Weights and activations of so many are there, and aligned.
        #[inline(always)]
        unsafe fn $name(sums: &mut [i32; BLOCK_ROWS], w: &mut *const u8, x: &mut *const i8, mut count: usize) {
            let [a, b, c, d, e, f, g, h] = sums;
            while count > 0 {
                // SAFETY: Reads weights and activations, as the caller promises.
                unsafe {
                    asm!(
                        // Sums are the low 32 bits of the unit's; carries into the others do not matter.
                        "ee.zero.accx",
                        $load,
                        sums!("a", $row), sums!("b", $row), sums!("c", $row), sums!("d", $row),
                        sums!("e", $row), sums!("f", $row), sums!("g", $row), sums!("h", $last),
                        $next,
                        a = inout(reg) *a, b = inout(reg) *b, c = inout(reg) *c, d = inout(reg) *d,
                        e = inout(reg) *e, f = inout(reg) *f, g = inout(reg) *g, h = inout(reg) *h,
                        w = inout(reg) *w, x = inout(reg) *x,
                        $($constant = in(reg) &raw const $constant,)*
                        out("sar") _,
                        options(readonly, nostack)
                    );
                }
                count -= 1;
            }
        }
    };
    ($sum:literal, $products:literal) => {
        concat!("wur.accx_0 {", $sum, "}\n", $products, "\n", "rur.accx_0 {", $sum, "}\n")
    };
}

// Back and forth over the runs, since a load steps less than 512 bytes.
sums!(
    add_six_runs,
    "ee.vld.128.ip q6, {w}, 256
     ee.vld.128.ip q0, {x}, 16
     ee.vld.128.ip q1, {x}, 16
     ee.vld.128.ip q2, {x}, 16
     ee.vld.128.ip q3, {x}, 16
     ee.vld.128.ip q4, {x}, 16
     ee.vld.128.ip q5, {x}, 16",
    "ee.vmulas.s8.accx.ld.ip q7, {w}, 256, q0, q6
     ee.vmulas.s8.accx.ld.ip q6, {w}, 128, q2, q7
     ee.vmulas.s8.accx.ld.ip q7, {w}, -256, q4, q6
     ee.vmulas.s8.accx.ld.ip q6, {w}, -256, q5, q7
     ee.vmulas.s8.accx.ld.ip q7, {w}, -112, q3, q6
     ee.vmulas.s8.accx.ld.ip q6, {w}, 256, q1, q7",
    "ee.vmulas.s8.accx.ld.ip q7, {w}, 256, q0, q6
     ee.vmulas.s8.accx.ld.ip q6, {w}, 128, q2, q7
     ee.vmulas.s8.accx.ld.ip q7, {w}, -256, q4, q6
     ee.vmulas.s8.accx.ld.ip q6, {w}, -256, q5, q7
     ee.vmulas.s8.accx.ld.ip q7, {w}, 16, q3, q6
     ee.vmulas.s8.accx q1, q7",
    "addmi {w}, {w}, 512"
);

sums!(
    add_two_runs,
    "ee.vld.128.ip q6, {w}, 128
     ee.vld.128.ip q0, {x}, 16
     ee.vld.128.ip q1, {x}, 16",
    "ee.vmulas.s8.accx.ld.ip q7, {w}, -112, q0, q6
     ee.vmulas.s8.accx.ld.ip q6, {w}, 128, q1, q7",
    "ee.vmulas.s8.accx.ld.ip q7, {w}, 16, q0, q6
     ee.vmulas.s8.accx q1, q7",
    ""
);

/// Weights of eight bits.
pub(super) struct Q8ByAny;

impl Products for Q8ByAny {
    #[inline(always)]
    unsafe fn blocks(frame: &mut Frame, w: *const u8, count: usize, out: *mut f32) -> usize {
        let group = frame.group;
        // SAFETY: The caller promises that all groups are there; a group has pairs of runs.
        unsafe {
            blocks(frame, w, count, out, 0, |sums, w, x| {
                add_six_runs(sums, w, x, group / 96);
                add_two_runs(sums, w, x, group % 96 / 32);
            })
        }
    }
}

/// The low halves of bytes, and ones.
static LOW: u32 = 0x0f0f_0f0f;
static ONES: u32 = 0x0101_0101;

sums!(
    add_two_runs_of_halves,
    "ssai 4
     ee.vldbc.32 q6, {LOW}
     ee.vldbc.32 q7, {ONES}
     ee.vld.128.ip q4, {w}, 128
     ee.vld.128.ip q0, {x}, 16
     ee.vld.128.ip q1, {x}, 16
     ee.vld.128.ip q2, {x}, 16
     ee.vld.128.ip q3, {x}, 16",
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
     ee.vmulas.s8.accx q3, q4",
    "",
    LOW,
    ONES
);

sums!(
    add_run_of_halves,
    "ssai 4
     ee.vldbc.32 q6, {LOW}
     ee.vldbc.32 q7, {ONES}
     ee.vld.128.ip q2, {w}, 16
     ee.vld.128.ip q0, {x}, 16
     ee.vld.128.ip q1, {x}, 16",
    "ee.andq q3, q2, q6
     ee.vmul.u8 q4, q2, q7
     ee.vmulas.s8.accx.ld.ip q2, {w}, 16, q0, q3
     ee.vmulas.s8.accx q1, q4",
    "ee.andq q3, q2, q6
     ee.vmul.u8 q4, q2, q7
     ee.vmulas.s8.accx q0, q3
     ee.vmulas.s8.accx q1, q4",
    "",
    LOW,
    ONES
);

/// Weights of four bits.
pub(super) struct Q4ByAny;

impl Products for Q4ByAny {
    #[inline(always)]
    unsafe fn blocks(frame: &mut Frame, w: *const u8, count: usize, out: *mut f32) -> usize {
        let group = frame.group;
        // SAFETY: The caller promises that all groups are there.
        unsafe {
            // The stored numbers are greater by 8 than the weights.
            blocks(frame, w, count, out, 8, |sums, w, x| {
                add_two_runs_of_halves(sums, w, x, group / 64);
                add_run_of_halves(sums, w, x, group % 64 / 32);
            })
        }
    }
}

/// # Safety
/// As that of [`Products::blocks`]; `add` adds the products of a group and steps over it.
#[inline(always)]
unsafe fn blocks(
    frame: &mut Frame,
    mut w: *const u8,
    count: usize,
    mut out: *mut f32,
    offset: i32,
    add: impl Fn(&mut [i32; BLOCK_ROWS], &mut *const u8, &mut *const i8),
) -> usize {
    for done in 0..count {
        // SAFETY: A block begins with its scales, all is there, and `out` has eight numbers for each block.
        unsafe {
            let (mut scales, mut x) = (w, frame.x);
            w = w.add(frame.scales_len);
            if !finite(scales, w) {
                return count - done;
            }
            let mut products = [0.0; BLOCK_ROWS];
            for group in 0..frame.groups {
                let (x_sum, x_scale) = (*frame.x_sums.add(group), *frame.x_scales.add(group) * BIAS);
                let mut sums = [-offset * x_sum; BLOCK_ROWS];
                add(&mut sums, &mut w, &mut x);
                let mut room = Aligned(MaybeUninit::<[f32; BLOCK_ROWS]>::uninit());
                asm!(
                    "ee.vldbc.32 q0, {half}",
                    "ssai 3",
                    scales!("q1", "q2", "q0"),
                    half = in(reg) &raw const frame.half,
                    scales = inout(reg) scales,
                    at = inout(reg) room.0.as_mut_ptr() => _,
                    out("sar") _,
                    options(nostack)
                );
                let scales = room.0.assume_init();
                for i in 0..BLOCK_ROWS {
                    products[i] += sums[i] as f32 * (scales[i] * x_scale);
                }
            }
            for product in products {
                *out = if frame.add != 0 { *out + product } else { product };
                out = out.add(1);
            }
        }
    }
    0
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
