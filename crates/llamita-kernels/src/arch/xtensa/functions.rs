//! Functions of floats, with the steps of `scalar.rs` and their constants in registers.

use core::arch::asm;
use core::f32::consts::LOG2_E;

use super::aligned;
use crate::LANES;
use crate::scalar::{
    self,
    exp_constants::{LN2, LOW, MAGIC, POLYNOMIAL},
};

/// The bits of the largest magnitude whose exponential has no limit, without the sign.
const LIMIT: u32 = (-LOW).to_bits() << 1;

/// See [`crate::Kernels::softmax`].
pub(crate) fn softmax(x: &mut [f32]) -> f32 {
    if !aligned(x.as_ptr()) {
        return scalar::softmax(x);
    }
    exponentials(x, super::max(x));
    let (eights, rest) = x.as_chunks_mut::<LANES>();
    let mut lanes = sums(eights);
    for (lane, x) in lanes.iter_mut().zip(&*rest) {
        *lane += x;
    }
    let sum = scalar::sum_lanes(lanes);
    let scale = 1.0 / sum;
    for x in eights {
        *x = x.map(|x| x * scale);
    }
    for x in rest {
        *x *= scale;
    }
    sum
}

/// Makes each element the exponential of its distance to the largest.
#[inline(always)]
fn exponentials(x: &mut [f32], max: f32) {
    // SAFETY: Reads and writes the elements.
    unsafe {
        asm!(
            "const.s f4, 1",
            begin_loop!("count", "3f"),
            "lsi f0, {x}, 0",
            "sub.s f0, f0, f5",
            "rfr {t}, f0",
            "slli {t}, {t}, 1",
            "bltu {limit}, {t}, 4f",
            // See `exp`.
            "mul.s f1, f0, f6",
            "add.s f1, f1, f7",
            "sub.s f2, f1, f7",
            "mul.s f3, f2, f8",
            "mul.s f2, f2, f9",
            "sub.s f0, f0, f3",
            "rfr {t}, f1",
            "sub.s f0, f0, f2",
            "mul.s f3, f10, f0",
            "slli {t}, {t}, 23",
            "add.s f3, f3, f11",
            "mul.s f3, f3, f0",
            "add {t}, {t}, {one}",
            "add.s f3, f3, f12",
            "mul.s f3, f3, f0",
            "wfr f1, {t}",
            "add.s f3, f3, f13",
            "mul.s f3, f3, f0",
            "mul.s f2, f0, f0",
            "add.s f3, f3, f14",
            "mul.s f3, f3, f0",
            "add.s f3, f3, f15",
            "mul.s f3, f3, f2",
            "add.s f3, f3, f0",
            "add.s f3, f3, f4",
            "mul.s f3, f3, f1",
            "2:",
            "ssip f3, {x}, 4",
            "3:",
            "j 5f",
            // So far below the largest that it is 0, as of what is no number.
            "4:",
            "const.s f3, 0",
            "j 2b",
            "5:",
            x = inout(reg) x.as_mut_ptr() => _,
            count = in(reg) x.len(),
            limit = in(reg) LIMIT,
            one = in(reg) 1.0_f32.to_bits(),
            t = out(reg) _,
            out("f0") _, out("f1") _, out("f2") _, out("f3") _, out("f4") _,
            in("f5") max, in("f6") LOG2_E, in("f7") MAGIC, in("f8") LN2[0], in("f9") LN2[1],
            in("f10") POLYNOMIAL[0], in("f11") POLYNOMIAL[1], in("f12") POLYNOMIAL[2],
            in("f13") POLYNOMIAL[3], in("f14") POLYNOMIAL[4], in("f15") POLYNOMIAL[5],
            options(nostack)
        );
    }
}

/// The sum of each lane; elements are aligned.
#[inline(always)]
fn sums(x: &[[f32; LANES]]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    // SAFETY: Reads the elements, and writes to the lanes.
    unsafe {
        asm!(
            "const.s f0, 0", "const.s f1, 0", "const.s f2, 0", "const.s f3, 0",
            "const.s f4, 0", "const.s f5, 0", "const.s f6, 0", "const.s f7, 0",
            begin_loop!("count", "3f"),
            "ee.ldf.128.ip f11, f10, f9, f8, {x}, 16",
            "ee.ldf.128.ip f15, f14, f13, f12, {x}, 16",
            "add.s f0, f0, f8", "add.s f1, f1, f9", "add.s f2, f2, f10", "add.s f3, f3, f11",
            "add.s f4, f4, f12", "add.s f5, f5, f13", "add.s f6, f6, f14", "add.s f7, f7, f15",
            "3:",
            "ssi f0, {lanes}, 0", "ssi f1, {lanes}, 4", "ssi f2, {lanes}, 8", "ssi f3, {lanes}, 12",
            "ssi f4, {lanes}, 16", "ssi f5, {lanes}, 20", "ssi f6, {lanes}, 24", "ssi f7, {lanes}, 28",
            x = inout(reg) x.as_ptr() => _,
            count = in(reg) x.len(),
            lanes = in(reg) lanes.as_mut_ptr(),
            out("f0") _, out("f1") _, out("f2") _, out("f3") _,
            out("f4") _, out("f5") _, out("f6") _, out("f7") _,
            out("f8") _, out("f9") _, out("f10") _, out("f11") _,
            out("f12") _, out("f13") _, out("f14") _, out("f15") _,
            options(nostack)
        );
    }
    lanes
}

/// See [`crate::Kernels::swiglu`].
pub(crate) fn swiglu(gate: &mut [f32], up: &[f32]) {
    let mut done = 0;
    while done < gate.len() {
        done += usual_swiglu(&mut gate[done..], &up[done..]);
        if let (Some(gate), Some(up)) = (gate.get_mut(done..=done), up.get(done..=done)) {
            scalar::swiglu(gate, up);
            done += 1;
        }
    }
}

/// The same up to an element whose exponential has a limit, or that is no number; returns how many that are.
#[inline(always)]
fn usual_swiglu(gate: &mut [f32], up: &[f32]) -> usize {
    static REST: [f32; 3] = [POLYNOMIAL[3], POLYNOMIAL[4], POLYNOMIAL[5]];
    let count = gate.len().min(up.len());
    let left: usize;
    // SAFETY: Reads and writes as many elements as both have.
    unsafe {
        asm!(
            "beqz {count}, 3f",
            "2:",
            "l32i {t}, {gate}, 0",
            "slli {t}, {t}, 1",
            "bgeu {limit}, {t}, 4f",
            "j 3f",
            "4:",
            "lsi f1, {gate}, 0",
            "neg.s f0, f1",
            // See `exp`: the integer, what is left of x, and the polynomial of that.
            "mul.s f2, f0, f9",
            "add.s f2, f2, f10",
            "sub.s f3, f2, f10",
            "mul.s f4, f3, f11",
            "mul.s f5, f3, f12",
            "sub.s f0, f0, f4",
            "rfr {t}, f2",
            "sub.s f0, f0, f5",
            "mul.s f3, f13, f0",
            "lsi f6, {rest}, 0",
            "add.s f3, f3, f14",
            "mul.s f3, f3, f0",
            "lsi f7, {rest}, 4",
            "add.s f3, f3, f15",
            "mul.s f3, f3, f0",
            "lsi f8, {rest}, 8",
            "add.s f3, f3, f6",
            "mul.s f3, f3, f0",
            "slli {t}, {t}, 23",
            "add.s f3, f3, f7",
            "mul.s f3, f3, f0",
            "mul.s f4, f0, f0",
            "add.s f3, f3, f8",
            "add {t}, {t}, {one}",
            "mul.s f3, f3, f4",
            "const.s f4, 1",
            "add.s f3, f3, f0",
            "wfr f2, {t}",
            "add.s f3, f3, f4",
            "mul.s f3, f3, f2",
            "add.s f2, f3, f4",
            // The quotient of f1 and f2, rounded as IEEE 754 has it, by the steps of GCC's library.
            "div0.s f3, f2",
            "nexp01.s f4, f2",
            "const.s f5, 1",
            "maddn.s f5, f4, f3",
            "mov.s f6, f3",
            "mov.s f7, f2",
            "nexp01.s f2, f1",
            "maddn.s f6, f5, f6",
            "const.s f5, 1",
            "const.s f0, 0",
            "neg.s f8, f2",
            "maddn.s f5, f4, f6",
            "maddn.s f0, f8, f3",
            "mkdadj.s f7, f1",
            "maddn.s f6, f5, f6",
            "maddn.s f8, f4, f0",
            "const.s f3, 1",
            "maddn.s f3, f4, f6",
            "maddn.s f0, f8, f6",
            "neg.s f2, f2",
            "maddn.s f6, f3, f6",
            "maddn.s f2, f4, f0",
            "addexpm.s f0, f7",
            "addexp.s f6, f7",
            "lsip f1, {up}, 4",
            "divn.s f0, f2, f6",
            "addi {count}, {count}, -1",
            "mul.s f0, f0, f1",
            "ssip f0, {gate}, 4",
            "bnez {count}, 2b",
            "3:",
            gate = inout(reg) gate.as_mut_ptr() => _,
            up = inout(reg) up.as_ptr() => _,
            count = inout(reg) count => left,
            limit = in(reg) LIMIT,
            one = in(reg) 1.0_f32.to_bits(),
            rest = in(reg) REST.as_ptr(),
            t = out(reg) _,
            out("f0") _, out("f1") _, out("f2") _, out("f3") _, out("f4") _, out("f5") _, out("f6") _,
            out("f7") _, out("f8") _,
            in("f9") LOG2_E, in("f10") MAGIC, in("f11") LN2[0], in("f12") LN2[1],
            in("f13") POLYNOMIAL[0], in("f14") POLYNOMIAL[1], in("f15") POLYNOMIAL[2],
            options(nostack)
        );
    }
    count - left
}
