//! Everything but the matrix product.

use super::attention::Integers;
use super::{Vector, load_filled, store_partial, sum};
use crate::scalar::MASS_LANES;
use crate::scalar::exp_constants::{HIGH, LN2, LOW, MAGIC, POLYNOMIAL};
use crate::{Cache, LANES, attention};

/// See [`crate::Kernels::dot`].
#[inline(always)]
pub(crate) unsafe fn dot<V: Vector>(a: &[f32], b: &[f32]) -> f32 {
    // SAFETY: The caller promises the unit; loads stay inside the slices, of one length.
    unsafe {
        let (p, b) = (a.as_ptr(), b.as_ptr());
        let mut lanes = V::splat(0.0);
        for_vectors!(
            a.len(),
            |i| lanes = lanes.add_product(V::load(p.add(i)), V::load(b.add(i))),
            |i, rest| lanes = lanes.add_product(V::load_first(p.add(i), rest), V::load_first(b.add(i), rest))
        );
        sum(lanes)
    }
}

/// See [`crate::Kernels::sum_of_squares`].
#[inline(always)]
pub(crate) unsafe fn sum_of_squares<V: Vector>(x: &[f32]) -> f32 {
    // SAFETY: The caller promises the unit; loads stay inside `x`.
    unsafe {
        let p = x.as_ptr();
        let mut lanes = V::splat(0.0);
        for_vectors!(
            x.len(),
            |i| {
                let v = V::load(p.add(i));
                lanes = lanes.add(v.mul(v));
            },
            |i, rest| {
                let v: V = load_filled(p.add(i), rest, 0.0);
                lanes = lanes.add(v.mul(v));
            }
        );
        sum(lanes)
    }
}

/// See [`crate::Kernels::scale`].
#[inline(always)]
pub(crate) unsafe fn scale<V: Vector>(x: &[f32], scale: f32, weight: &[f32], out: &mut [f32]) {
    // SAFETY: The caller promises the unit; loads and stores stay inside the slices, of one length.
    unsafe {
        let (x, weight, to, factor) = (x.as_ptr(), weight.as_ptr(), out.as_mut_ptr(), V::splat(scale));
        for_vectors!(
            out.len(),
            |i| V::load(weight.add(i)).mul(factor.mul(V::load(x.add(i)))).store(to.add(i)),
            |i, rest| {
                let v: V = load_filled(x.add(i), rest, 0.0);
                let weight: V = load_filled(weight.add(i), rest, 0.0);
                store_partial(weight.mul(factor.mul(v)), to.add(i), rest);
            }
        );
    }
}

/// See [`crate::Kernels::max`].
#[inline(always)]
pub(crate) unsafe fn max<V: Vector>(x: &[f32]) -> f32 {
    // SAFETY: The caller promises the unit; loads stay inside `x`.
    unsafe {
        let mut most = [V::splat(f32::NEG_INFINITY); 4];
        let (groups, rest) = x.as_chunks::<MASS_LANES>();
        for group in groups {
            for j in 0..4 {
                most[j] = V::load(group.as_ptr().add(j * LANES)).max(most[j]);
            }
        }
        let p = rest.as_ptr();
        for_vectors!(rest.len(), |i| most[0] = V::load(p.add(i)).max(most[0]), |i, count| most[0] =
            load_filled::<V>(p.add(i), count, f32::NEG_INFINITY).max(most[0]));
        let most = most[0].max(most[1]).max(most[2].max(most[3]));
        let mut lanes = [0.0; LANES];
        most.store(lanes.as_mut_ptr());
        crate::scalar::max(&lanes)
    }
}

/// See `scalar::exp`; lanes below its lower bound become 0.
#[inline(always)]
unsafe fn exp<V: Vector>(x: V) -> V {
    // SAFETY: The caller promises the unit.
    unsafe {
        let bounded = x.min(V::splat(HIGH)).max(V::splat(LOW));
        let magic = V::splat(MAGIC);
        let shifted = bounded.mul(V::splat(core::f32::consts::LOG2_E)).add(magic);
        let n = shifted.sub(magic);
        let r = bounded.sub(n.mul(V::splat(LN2[0]))).sub(n.mul(V::splat(LN2[1])));
        let mut p = V::splat(POLYNOMIAL[0]);
        for c in &POLYNOMIAL[1..] {
            p = p.mul(r).add(V::splat(*c));
        }
        let y = p.mul(r.mul(r)).add(r).add(V::splat(1.0));
        x.keep_from(V::splat(LOW), y.mul(shifted.power_of_two()))
    }
}

/// Turns scores into exponentials of their distance to the largest; returns their sum.
#[inline(always)]
unsafe fn exponentials<V: Vector>(x: &mut [f32]) -> f32 {
    // SAFETY: The caller promises the unit; loads and stores stay inside `x`.
    unsafe {
        let most = V::splat(max::<V>(x));
        let p = x.as_mut_ptr();
        let mut lanes = V::splat(0.0);
        for_vectors!(
            x.len(),
            |i| {
                let v = exp(V::load(p.add(i)).sub(most));
                lanes = lanes.add(v);
                v.store(p.add(i));
            },
            |i, rest| {
                let v: V = exp(load_filled::<V>(p.add(i), rest, f32::NEG_INFINITY).sub(most));
                lanes = lanes.add(v);
                store_partial(v, p.add(i), rest);
            }
        );
        sum(lanes)
    }
}

/// See [`crate::Kernels::softmax`].
#[inline(always)]
pub(crate) unsafe fn softmax<V: Vector>(x: &mut [f32]) -> f32 {
    // SAFETY: The caller promises the unit; loads and stores stay inside `x`.
    unsafe {
        let sum = exponentials::<V>(x);
        let (p, scale) = (x.as_mut_ptr(), V::splat(1.0 / sum));
        for_vectors!(x.len(), |i| V::load(p.add(i)).mul(scale).store(p.add(i)), |i, rest| store_partial(
            load_filled::<V>(p.add(i), rest, 0.0).mul(scale),
            p.add(i),
            rest
        ));
        sum
    }
}

/// See [`crate::Kernels::swiglu`].
#[inline(always)]
pub(crate) unsafe fn swiglu<V: Vector>(gate: &mut [f32], up: &[f32]) {
    /// The product for one vector.
    #[inline(always)]
    unsafe fn one<V: Vector>(gate: V, up: V) -> V {
        // SAFETY: The caller promises the unit.
        unsafe {
            let one = V::splat(1.0);
            // Its sign changed by a product, as the scalar negation does for every number.
            let exp = exp(gate.mul(V::splat(-1.0)));
            gate.div(one.add(exp)).mul(up)
        }
    }
    // SAFETY: The caller promises the unit; loads and stores stay inside the slices, of one length.
    unsafe {
        let (to, up) = (gate.as_mut_ptr(), up.as_ptr());
        for_vectors!(
            gate.len(),
            |i| one(V::load(to.add(i)), V::load(up.add(i))).store(to.add(i)),
            |i, rest| {
                let up: V = load_filled(up.add(i), rest, 0.0);
                store_partial(one(load_filled(to.add(i), rest, 0.0), up), to.add(i), rest);
            }
        );
    }
}

/// See [`crate::Kernels::rope`].
#[inline(always)]
pub(crate) unsafe fn rope<V: Vector>(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    /// The rotation of one vector.
    #[inline(always)]
    unsafe fn one<V: Vector>(x: V, cos: V, sin: V) -> V {
        // SAFETY: The caller promises the unit.
        unsafe { x.mul(cos).add(x.swap_pairs().mul(sin)) }
    }
    // SAFETY: The caller promises the unit; loads and stores stay inside the slices, of one length.
    unsafe {
        let (to, cos, sin) = (x.as_mut_ptr(), cos.as_ptr(), sin.as_ptr());
        for_vectors!(
            x.len(),
            |i| one(V::load(to.add(i)), V::load(cos.add(i)), V::load(sin.add(i))).store(to.add(i)),
            |i, rest| {
                let v: V = load_filled(to.add(i), rest, 0.0);
                let (cos, sin) = (load_filled(cos.add(i), rest, 0.0), load_filled(sin.add(i), rest, 0.0));
                store_partial(one(v, cos, sin), to.add(i), rest);
            }
        );
    }
}

/// See [`crate::Kernels::attention`].
#[inline(always)]
pub(crate) unsafe fn attention<V: Vector>(
    q: &[f32],
    keys: Cache<'_>,
    values: Cache<'_>,
    scores: &mut [f32],
    len: usize,
    out: &mut [f32],
) {
    match (keys, values) {
        // SAFETY: The caller promises the unit; `keys` and `values` hold the positions of `scores`, which are whole
        // blocks, as `Kernels` asserts.
        (Cache::F32(keys), Cache::F32(values)) => unsafe {
            let scores = &mut scores[..len.next_multiple_of(LANES)];
            score::<V>(q, keys, scores);
            scores[len..].fill(f32::NEG_INFINITY);
            let scale = 1.0 / exponentials::<V>(scores);
            mix::<V>(scores, values, scale, out);
        },
        _ => {
            // SAFETY: The caller promises the unit.
            let unit = unsafe { Integers::<V>::new() };
            attention::attention(unit, q, keys.integers(), values.integers(), scores, len, out);
        }
    }
}

/// Blocks of keys whose scores are summed side by side, so that their chains of additions overlap.
const SCORE_BLOCKS: usize = 4;

/// Products of the query with the keys of all positions.
///
/// # Safety
/// The CPU has the unit; `scores` are whole blocks, and `keys` as many.
#[inline(always)]
unsafe fn score<V: Vector>(q: &[f32], keys: &[f32], scores: &mut [f32]) {
    let (blocks, to) = (scores.len() / LANES, scores.as_mut_ptr());
    let mut block = 0;
    // SAFETY: The caller promises the unit and the blocks.
    unsafe {
        while block + SCORE_BLOCKS <= blocks {
            score_blocks::<V, SCORE_BLOCKS>(q, keys.as_ptr(), to, block);
            block += SCORE_BLOCKS;
        }
        while block < blocks {
            score_blocks::<V, 1>(q, keys.as_ptr(), to, block);
            block += 1;
        }
    }
}

/// The scores of B blocks of keys.
///
/// # Safety
/// The CPU has the unit; `keys` and `scores` hold the blocks.
#[inline(always)]
unsafe fn score_blocks<V: Vector, const B: usize>(
    q: &[f32],
    keys: *const f32,
    scores: *mut f32,
    block: usize,
) {
    // SAFETY: The caller promises the unit and the blocks.
    unsafe {
        let keys = keys.add(block * q.len() * LANES);
        let mut sums = [V::splat(0.0); B];
        for (i, &q_i) in q.iter().enumerate() {
            let q_i = V::splat(q_i);
            for b in 0..B {
                sums[b] = sums[b].add(q_i.mul(V::load(keys.add((b * q.len() + i) * LANES))));
            }
        }
        for b in 0..B {
            sums[b].store(scores.add((block + b) * LANES));
        }
    }
}

/// The sum of the values, each times the score of its position, and all times `scale`.
///
/// # Safety
/// The CPU has the unit; `scores` are whole blocks, and `values` as many of the size of `out`.
#[inline(always)]
unsafe fn mix<V: Vector>(scores: &[f32], values: &[f32], scale: f32, out: &mut [f32]) {
    let (head_size, blocks) = (out.len(), scores.len() / LANES);
    let (from, values) = (scores.as_ptr(), values.as_ptr());
    let mut i = 0;
    while i < head_size {
        let group = (head_size - i).min(LANES);
        // SAFETY: The caller promises the unit and the blocks.
        unsafe {
            let mut sums = [V::splat(0.0); LANES];
            if group == LANES {
                for block in 0..blocks {
                    let score = V::load(from.add(block * LANES));
                    let values = values.add((block * head_size + i) * LANES);
                    for j in 0..LANES {
                        sums[j] = sums[j].add(score.mul(V::load(values.add(j * LANES))));
                    }
                }
            } else {
                for (j, sum) in sums.iter_mut().enumerate().take(group) {
                    for block in 0..blocks {
                        let values = V::load(values.add((block * head_size + i + j) * LANES));
                        *sum = sum.add(V::load(from.add(block * LANES)).mul(values));
                    }
                }
            }
            let mut sum = [0.0; LANES];
            V::sum_each(sums).mul(V::splat(scale)).store(sum.as_mut_ptr());
            out[i..i + group].copy_from_slice(&sum[..group]);
        }
        i += group;
    }
}

/// See [`crate::Kernels::mass_above`].
#[inline(always)]
pub(crate) unsafe fn mass_above<V: Vector>(x: &[f32], threshold: f32) -> (f32, usize) {
    // SAFETY: The caller promises the unit; loads stay inside `x`.
    unsafe {
        let (least, one) = (V::splat(threshold), V::splat(1.0));
        // Lanes count exactly: a vocabulary has far fewer than 2^24 tokens.
        let (mut mass, mut count) = ([V::splat(0.0); 4], [V::splat(0.0); 4]);
        let (groups, rest) = x.as_chunks::<MASS_LANES>();
        for group in groups {
            for j in 0..4 {
                let v = V::load(group.as_ptr().add(j * LANES));
                mass[j] = mass[j].add(v.keep_from(least, v));
                count[j] = count[j].add(v.keep_from(least, one));
            }
        }
        for (j, rest) in rest.chunks(LANES).enumerate() {
            let v = if rest.len() == LANES {
                V::load(rest.as_ptr())
            } else {
                load_filled(rest.as_ptr(), rest.len(), f32::NAN)
            };
            mass[j] = mass[j].add(v.keep_from(least, v));
            count[j] = count[j].add(v.keep_from(least, one));
        }
        let total = |v: [V; 4]| sum(v[0].add(v[1]).add(v[2].add(v[3])));
        (total(mass), total(count) as usize)
    }
}

/// See [`crate::Kernels::between`].
#[inline(always)]
pub(crate) unsafe fn between<V: Vector>(x: &[f32], low: f32, high: f32, found: &mut [u32]) -> usize {
    // SAFETY: The caller promises the unit; loads stay inside `x`.
    unsafe {
        let (p, low, high) = (x.as_ptr(), V::splat(low), V::splat(high));
        let mut count = 0;
        let mut note = |at: usize, v: V| {
            let mut inside = v.between(low, high);
            while inside != 0 && count < found.len() {
                found[count] = (at + inside.trailing_zeros() as usize) as u32;
                count += 1;
                inside &= inside - 1;
            }
        };
        for_vectors!(x.len(), |i| note(i, V::load(p.add(i))), |i, rest| note(
            i,
            load_filled(p.add(i), rest, f32::NAN)
        ));
        count
    }
}
