//! Activations as integers.

use core::arch::asm;
use core::mem::MaybeUninit;
use core::slice::from_mut;

use super::Aligned;
use crate::scalar::{self, exp_constants::MAGIC};

/// Elements at a time.
const STEP: usize = 16;

/// See [`crate::Kernels::quantize`]; activations and values are aligned.
pub(super) fn quantize(x: &[f32], group: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    if !group.is_multiple_of(STEP) {
        return scalar::quantize(x, group, values, scales, sums);
    }
    let whole = x.len() / group;
    let (x, rest) = x.split_at(whole * group);
    let (values, rest_values) = values.split_at_mut(whole * group);
    let outs = values.chunks_exact_mut(group).zip(scales.iter_mut().zip(sums.iter_mut()));
    for (x, (values, (scale, sum))) in x.chunks_exact(group).zip(outs) {
        let inverse;
        // SAFETY: A group is whole steps, at least one, and aligned as all of them.
        unsafe {
            (*scale, inverse) = scalar::quantum(f32::from_bits(magnitude(x)));
            *sum = round(x, inverse, values);
        }
    }
    if let ([_, ..], Some(scale), Some(sum)) = (rest, scales.get_mut(whole), sums.get_mut(whole)) {
        part_of_group(rest, rest_values, scale, sum);
    }
}

/// The last group of a row, filled up with zeros, which change neither magnitude nor sum.
#[inline(never)]
fn part_of_group(x: &[f32], values: &mut [i8], scale: &mut f32, sum: &mut i32) {
    let (whole, rest) = x.split_at(x.len() / STEP * STEP);
    let mut room = Aligned([0.0; STEP]);
    room.0[..rest.len()].copy_from_slice(rest);
    // SAFETY: Both are whole steps, at least one, and aligned as a group is.
    let most = unsafe { if whole.is_empty() { 0 } else { magnitude(whole) }.max(magnitude(&room.0)) };
    if most >= f32::INFINITY.to_bits() {
        // Zeros may become something else then.
        return scalar::quantize(x, values.len(), values, from_mut(scale), from_mut(sum));
    }
    let inverse;
    (*scale, inverse) = scalar::quantum(f32::from_bits(most));
    *sum = 0;
    for (x, first) in [(whole, 0), (&room.0[..rest.len().next_multiple_of(STEP)], whole.len())] {
        if !x.is_empty() {
            // SAFETY: As above; a group has as many values as all steps of its activations.
            *sum += unsafe { round(x, inverse, &mut values[first..][..x.len()]) };
        }
    }
    values[x.len().next_multiple_of(STEP)..].fill(0);
}

/// The bits of [`scalar::magnitude`].
///
/// # Safety
/// `x` is aligned and whole steps, at least one.
#[inline(always)]
unsafe fn magnitude(x: &[f32]) -> u32 {
    static SIGN: u32 = 0x7fff_ffff;
    let mut room = Aligned(MaybeUninit::<[u32; 4]>::uninit());
    // SAFETY: Reads the elements, as the caller promises, and writes to the room.
    let most = unsafe {
        asm!(
            "ee.vldbc.32 q4, {sign}",
            "ee.zero.q q5",
            "2:",
            "ee.vld.128.ip q0, {x}, 16",
            "ee.vld.128.ip q1, {x}, 16",
            "ee.andq q0, q0, q4",
            "ee.vld.128.ip q2, {x}, 16",
            "ee.andq q1, q1, q4",
            "ee.vmax.s32 q5, q5, q0",
            "ee.vld.128.ip q3, {x}, 16",
            "ee.andq q2, q2, q4",
            "ee.vmax.s32 q5, q5, q1",
            "ee.andq q3, q3, q4",
            "ee.vmax.s32 q5, q5, q2",
            "ee.vmax.s32 q5, q5, q3",
            "bne {x}, {end}, 2b",
            "ee.vst.128.ip q5, {room}, 0",
            sign = in(reg) &raw const SIGN,
            x = inout(reg) x.as_ptr() => _,
            end = in(reg) x.as_ptr_range().end,
            room = inout(reg) room.0.as_mut_ptr() => _,
            options(nostack)
        );
        room.0.assume_init()
    };
    most[0].max(most[1]).max(most[2].max(most[3]))
}

/// Rounds to the nearest integers, which are then in the low bits of floats; returns their sum.
///
/// # Safety
/// Both are aligned and of one length, whole steps, at least one.
#[inline(always)]
unsafe fn round(x: &[f32], inverse: f32, values: &mut [i8]) -> i32 {
    /// Four elements, from one room to the other.
    macro_rules! four {
        ($step:literal) => {
            concat!(
                "ee.ldf.128.ip f3, f2, f1, f0, {x}, 16\n",
                "mul.s f0, f0, {inverse}\n",
                "mul.s f1, f1, {inverse}\n",
                "mul.s f2, f2, {inverse}\n",
                "mul.s f3, f3, {inverse}\n",
                "add.s f0, f0, {magic}\n",
                "add.s f1, f1, {magic}\n",
                "add.s f2, f2, {magic}\n",
                "add.s f3, f3, {magic}\n",
                "ee.stf.128.ip f3, f2, f1, f0, {room}, ",
                $step,
                "\n",
            )
        };
    }
    static ONE: u8 = 1;
    let mut room = Aligned(MaybeUninit::<[f32; STEP]>::uninit());
    let sum;
    // SAFETY: Reads the elements and writes as many values, as the caller promises, and writes to the room.
    unsafe {
        asm!(
            "ee.vldbc.8 q4, {sum}",
            "ee.zero.accx",
            "2:",
            four!("16"),
            four!("16"),
            four!("16"),
            four!("-48"),
            "ee.vld.128.ip q0, {room}, 16",
            "ee.vld.128.ip q1, {room}, 16",
            "ee.vld.128.ip q2, {room}, 16",
            "ee.vld.128.ip q3, {room}, -48",
            // Of every four bytes the first.
            "ee.vunzip.8 q0, q1",
            "ee.vunzip.8 q2, q3",
            "ee.vunzip.8 q0, q2",
            "ee.vst.128.ip q0, {values}, 16",
            "ee.vmulas.s8.accx q0, q4",
            "addi {steps}, {steps}, -1",
            "bnez {steps}, 2b",
            "rur.accx_0 {sum}",
            x = inout(reg) x.as_ptr() => _,
            values = inout(reg) values.as_mut_ptr() => _,
            steps = inout(reg) x.len() / STEP => _,
            room = inout(reg) room.0.as_mut_ptr() => _,
            sum = inout(reg) &raw const ONE => sum,
            inverse = in(freg) inverse,
            magic = in(freg) MAGIC,
            out("f0") _, out("f1") _, out("f2") _, out("f3") _,
            options(nostack)
        );
    }
    sum
}
