//! What sampling asks of logits and probabilities. Those of one sign are in the order of their bits, so that integers
//! are compared, four at a time.

use core::arch::asm;
use core::mem::MaybeUninit;

use super::{Aligned, aligned};
use crate::LANES;
use crate::scalar::{self, MASS_LANES};

/// Elements at a time.
const STEP: usize = 16;
/// Bits above these are those of what is not a number.
const MOST: i32 = f32::INFINITY.to_bits() as i32;

/// See [`crate::Kernels::max`].
pub(crate) fn max(x: &[f32]) -> f32 {
    let (whole, rest) = x.split_at(x.len() / STEP * STEP);
    if whole.is_empty() || !aligned(x.as_ptr()) {
        return scalar::max(x);
    }
    // SAFETY: Whole steps, at least one, and aligned.
    let most = unsafe { most(whole) };
    if (0..=MOST).contains(&most) {
        scalar::max(&[f32::from_bits(most as u32), scalar::max(rest)])
    } else {
        // All are negative, or not all are numbers.
        scalar::max(x)
    }
}

/// See [`crate::Kernels::between`].
pub(crate) fn between(x: &[f32], low: f32, high: f32, found: &mut [u32]) -> usize {
    let bits = low.to_bits() as i32;
    if bits < 0 || !aligned(x.as_ptr()) {
        return scalar::between(x, low, high, found);
    }
    let mut count = 0;
    for (i, x) in x.chunks(2 * STEP).enumerate() {
        // SAFETY: Whole steps, aligned as all of them.
        if x.len() == 2 * STEP && unsafe { most(x) } < bits {
            continue;
        }
        let found = &mut found[count..];
        if found.is_empty() {
            break;
        }
        let more = scalar::between(x, low, high, found);
        for index in &mut found[..more] {
            *index += (i * 2 * STEP) as u32;
        }
        count += more;
    }
    count
}

/// The greatest bits, as those of a signed integer.
///
/// # Safety
/// `x` is aligned and whole steps, at least one.
#[inline(always)]
unsafe fn most(x: &[f32]) -> i32 {
    let (a, b, c, d): (i32, i32, i32, i32);
    // SAFETY: Reads the elements.
    unsafe {
        asm!(
            "ee.vld.128.ip q4, {x}, 0",
            "2:",
            "ee.vld.128.ip q0, {x}, 16",
            "ee.vld.128.ip q1, {x}, 16",
            "ee.vmax.s32.ld.incp q2, {x}, q4, q4, q0",
            "ee.vmax.s32.ld.incp q3, {x}, q4, q4, q1",
            "ee.vmax.s32 q4, q4, q2",
            "ee.vmax.s32 q4, q4, q3",
            "bne {x}, {end}, 2b",
            "ee.movi.32.a q4, {a}, 0",
            "ee.movi.32.a q4, {b}, 1",
            "ee.movi.32.a q4, {c}, 2",
            "ee.movi.32.a q4, {d}, 3",
            x = inout(reg) x.as_ptr() => _,
            end = in(reg) x.as_ptr_range().end,
            a = out(reg) a, b = out(reg) b, c = out(reg) c, d = out(reg) d,
            options(readonly, nostack)
        );
    }
    a.max(b).max(c.max(d))
}

/// See [`crate::Kernels::mass_above`].
pub(crate) fn mass_above(x: &[f32], threshold: f32) -> (f32, usize) {
    let (whole, rest) = x.as_chunks::<MASS_LANES>();
    if whole.is_empty() || !aligned(x.as_ptr()) || !(threshold > 0.0) {
        return scalar::mass_above(x, threshold);
    }
    let mut lanes = [0.0; MASS_LANES];
    let mut count = 0;
    for (i, lanes) in lanes.as_chunks_mut().0.iter_mut().enumerate() {
        // SAFETY: Of each chunk these are the lanes, aligned as it is.
        count += unsafe { add_above(whole[0][i * LANES..].as_ptr(), whole.len(), threshold, lanes) };
    }
    count += scalar::add_above(rest, threshold, &mut lanes);
    let mass = scalar::sum_masses(lanes);
    // What is not a number has greater bits than the threshold.
    if mass.is_nan() { scalar::mass_above(x, threshold) } else { (mass, count) }
}

/// Adds what is `threshold` or more, which is positive, to eight lanes; returns the number.
///
/// # Safety
/// From `x` on there are eight elements, aligned, in each of `chunks` chunks of [`MASS_LANES`], at least one.
#[inline(always)]
unsafe fn add_above(x: *const f32, chunks: usize, threshold: f32, lanes: &mut [f32; LANES]) -> usize {
    let below = threshold.to_bits() - 1;
    let mut room = Aligned(MaybeUninit::<[u32; LANES]>::uninit());
    let (a, b, c, d): (usize, usize, usize, usize);
    // SAFETY: Reads the elements and writes to the room; the lanes need no alignment.
    unsafe {
        asm!(
            "ee.vldbc.32 q4, {below}",
            "ee.zero.q q5",
            "const.s f0, 0", "const.s f1, 0", "const.s f2, 0", "const.s f3, 0",
            "const.s f4, 0", "const.s f5, 0", "const.s f6, 0", "const.s f7, 0",
            "2:",
            "ee.vld.128.ip q0, {x}, 16",
            "ee.vld.128.xp q1, {x}, {next}",
            "ee.vcmp.gt.s32 q2, q0, q4",
            "ee.vcmp.gt.s32 q3, q1, q4",
            "ee.andq q0, q0, q2",
            "ee.andq q1, q1, q3",
            "ee.vst.128.ip q0, {room}, 16",
            "ee.vst.128.ip q1, {room}, -16",
            // What is true is -1.
            "ee.vsubs.s32 q5, q5, q2",
            "ee.vsubs.s32 q5, q5, q3",
            "ee.ldf.128.ip f11, f10, f9, f8, {room}, 16",
            "ee.ldf.128.ip f15, f14, f13, f12, {room}, -16",
            "add.s f0, f0, f8", "add.s f1, f1, f9", "add.s f2, f2, f10", "add.s f3, f3, f11",
            "add.s f4, f4, f12", "add.s f5, f5, f13", "add.s f6, f6, f14", "add.s f7, f7, f15",
            "addi {chunks}, {chunks}, -1",
            "bnez {chunks}, 2b",
            "ssi f0, {lanes}, 0", "ssi f1, {lanes}, 4", "ssi f2, {lanes}, 8", "ssi f3, {lanes}, 12",
            "ssi f4, {lanes}, 16", "ssi f5, {lanes}, 20", "ssi f6, {lanes}, 24", "ssi f7, {lanes}, 28",
            "ee.movi.32.a q5, {x}, 0",
            "ee.movi.32.a q5, {room}, 1",
            "ee.movi.32.a q5, {chunks}, 2",
            "ee.movi.32.a q5, {next}, 3",
            below = in(reg) &raw const below,
            lanes = in(reg) lanes.as_mut_ptr(),
            x = inout(reg) x => a,
            room = inout(reg) room.0.as_mut_ptr() => b,
            chunks = inout(reg) chunks => c,
            next = inout(reg) size_of::<[f32; MASS_LANES]>() - 16 => d,
            out("f0") _, out("f1") _, out("f2") _, out("f3") _, out("f4") _, out("f5") _, out("f6") _,
            out("f7") _, out("f8") _, out("f9") _, out("f10") _, out("f11") _, out("f12") _, out("f13") _,
            out("f14") _, out("f15") _,
            options(nostack)
        );
    }
    a + b + c + d
}
