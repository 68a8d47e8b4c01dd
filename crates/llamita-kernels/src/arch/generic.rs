//! The kernels over any vector unit, in the order of sums that `scalar.rs` defines.
//!
//! Everything here is inlined into functions that enable the unit's instructions; see [`kernels`].

use crate::rows::{Bf16, Element, F16, F32};
use crate::scalar::MASS_LANES;
use crate::scalar::exp_constants::{HIGH, LN2, LOW, MAGIC, POLYNOMIAL};
use crate::{LANES, Panel, Rows};

/// A vector of 8 floats.
///
/// # Safety
/// Every method needs a CPU that has the unit's instructions; loads and stores need 8 elements to be there
/// (the partial ones as many as they are told), aligned as their type.
pub(crate) trait Vector: Copy {
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_f16(from: *const u16) -> Self;
    unsafe fn load_bf16(from: *const u16) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self` where it is larger, else `other`; so `other` where either is not a number.
    unsafe fn max(self, other: Self) -> Self;
    /// `self` where it is smaller, else `other`; so `other` where either is not a number.
    unsafe fn min(self, other: Self) -> Self;
    /// `self + a * b`, rounded once if the unit can do so.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// Lanes that are at least `threshold`, and 0 elsewhere.
    unsafe fn keep_from(self, threshold: Self, value: Self) -> Self;
    /// A bit for each lane, the first lowest: whether it is from `low` on and below `high`.
    unsafe fn between(self, low: Self, high: Self) -> u32;
    /// The float whose bits are `(bits << 23) + bits(1.0)`: 2^n of an integer in the low bits.
    unsafe fn power_of_two(self) -> Self;
    /// Lanes 1, 0, 3, 2, 5, 4, 7, 6.
    unsafe fn swap_pairs(self) -> Self;
    /// The sums of the lanes of 8 vectors, each in pairs.
    unsafe fn sum_each(vectors: [Self; LANES]) -> Self;
    /// The first `len` elements, fewer than 8, and zeros.
    #[inline(always)]
    unsafe fn load_first(from: *const f32, len: usize) -> Self {
        // SAFETY: The caller promises the unit and `len` elements.
        unsafe { load_filled(from, len, 0.0) }
    }
}

/// Loads elements of a format as floats.
trait Load<V>: Element {
    unsafe fn load(from: *const Self::Raw) -> V;
    /// The first `len` elements, fewer than 8, and zeros.
    unsafe fn load_partial(from: *const Self::Raw, len: usize) -> V;
}

impl<V: Vector> Load<V> for F32 {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: The caller promises the unit and 8 elements.
        unsafe { V::load(from) }
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, len: usize) -> V {
        // SAFETY: The caller promises the unit and `len` elements.
        unsafe { V::load_first(from, len) }
    }
}

macro_rules! load_half {
    ($element:ty, $load:ident) => {
        impl<V: Vector> Load<V> for $element {
            #[inline(always)]
            unsafe fn load(from: *const Self::Raw) -> V {
                // SAFETY: The caller promises the unit and 8 elements.
                unsafe { V::$load(from) }
            }
            #[inline(always)]
            unsafe fn load_partial(from: *const Self::Raw, len: usize) -> V {
                let mut buffer = [0; LANES];
                // SAFETY: The caller promises `len` elements, fewer than the buffer's 8, and the unit.
                unsafe {
                    core::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), len);
                    V::$load(buffer.as_ptr())
                }
            }
        }
    };
}
load_half!(F16, load_f16);
load_half!(Bf16, load_bf16);

/// Rows of weights that share a place in the first-level cache while all tokens pass.
const TILE_ROWS: usize = 32;
/// Tokens whose activations share it with them.
const TILE_TOKENS: usize = 24;
/// Most sums that are under way at once, in whole groups of lanes.
const MOST: usize = 2 * LANES;

/// See [`crate::Kernels::matmul`].
#[inline(always)]
pub(crate) unsafe fn matmul<V: Vector>(w: Rows<'_>, x: &[f32], out: Panel<'_>, add: bool) {
    // SAFETY: The caller promises the unit.
    unsafe {
        match w {
            Rows::F32(w) => matmul_of::<V, F32>(w, x, out, add),
            Rows::F16(w) => matmul_of::<V, F16>(w, x, out, add),
            Rows::Bf16(w) => matmul_of::<V, Bf16>(w, x, out, add),
        }
    }
}

#[inline(always)]
unsafe fn matmul_of<V: Vector, E: Load<V>>(w: &[E::Raw], x: &[f32], mut out: Panel<'_>, add: bool) {
    let (tokens, rows) = (out.rows(), out.width());
    let columns = x.len() / tokens;
    assert!(w.len() >= rows * columns && x.len() >= tokens * columns, "operands of one shape");
    let mut product = Product::<V, E> {
        w: w.as_ptr(),
        x: x.as_ptr(),
        columns,
        out: &mut out,
        add,
        unit: core::marker::PhantomData,
    };
    // SAFETY: The caller promises the unit; rows and tokens stay below those of `w` and `x`, as asserted.
    unsafe {
        if tokens == 1 {
            let whole = rows - rows % 8;
            for row in (0..whole).step_by(8) {
                product.run_of_rows(row);
            }
            for row in whole..rows {
                product.block::<1, 1>(row, 0);
            }
            return;
        }
        for tile in (0..rows).step_by(TILE_ROWS) {
            let tile_end = rows.min(tile + TILE_ROWS);
            for first in (0..tokens).step_by(TILE_TOKENS) {
                let last = tokens.min(first + TILE_TOKENS);
                let mut row = tile;
                while row + 4 <= tile_end {
                    let mut token = first;
                    while token + 3 <= last {
                        product.block::<4, 3>(row, token);
                        token += 3;
                    }
                    while token < last {
                        product.block::<4, 1>(row, token);
                        token += 1;
                    }
                    row += 4;
                }
                for row in row..tile_end {
                    for token in first..last {
                        product.block::<1, 1>(row, token);
                    }
                }
            }
        }
    }
}

/// A matrix product under way.
struct Product<'a, 'b, V: Vector, E: Load<V>> {
    w: *const E::Raw,
    x: *const f32,
    columns: usize,
    out: &'a mut Panel<'b>,
    add: bool,
    unit: core::marker::PhantomData<V>,
}

impl<V: Vector, E: Load<V>> Product<'_, '_, V, E> {
    /// Products of R rows and T tokens: 8 to 12 keep a core's multipliers busy and fit its registers.
    ///
    /// # Safety
    /// The CPU has the unit, and the rows and tokens are there.
    #[inline(always)]
    unsafe fn block<const R: usize, const T: usize>(&mut self, row: usize, token: usize) {
        let n = self.columns;
        let whole = n - n % LANES;
        // SAFETY: The caller promises the unit, the rows and the tokens; `whole` is within a row.
        unsafe {
            let w = self.w.add(row * n);
            let x = self.x.add(token * n);
            let mut sums = [V::splat(0.0); MOST];
            let mut i = 0;
            while i < whole {
                let mut inputs = [V::splat(0.0); T];
                for t in 0..T {
                    inputs[t] = V::load(x.add(t * n + i));
                }
                for r in 0..R {
                    let weights = E::load(w.add(r * n + i));
                    for t in 0..T {
                        sums[t * R + r] = sums[t * R + r].add_product(weights, inputs[t]);
                    }
                }
                i += LANES;
            }
            if whole < n {
                let mut inputs = [V::splat(0.0); T];
                for t in 0..T {
                    inputs[t] = V::load_first(x.add(t * n + whole), n - whole);
                }
                for r in 0..R {
                    let weights = E::load_partial(w.add(r * n + whole), n - whole);
                    for t in 0..T {
                        sums[t * R + r] = sums[t * R + r].add_product(weights, inputs[t]);
                    }
                }
            }
            self.store::<R, T>(sums, row, token);
        }
    }

    /// Products of 8 rows and the first token, a row after the other: the weights are then one run of memory,
    /// which the hardware reads ahead. Several rows at once would save loads, but stream at half the speed.
    ///
    /// # Safety
    /// The CPU has the unit, and the rows are there.
    #[inline(always)]
    unsafe fn run_of_rows(&mut self, row: usize) {
        let n = self.columns;
        let whole = n - n % LANES;
        // SAFETY: The caller promises the unit and the rows; `whole` is within a row.
        unsafe {
            let mut sums = [V::splat(0.0); MOST];
            for (r, sum) in sums.iter_mut().take(LANES).enumerate() {
                let w = self.w.add((row + r) * n);
                let mut i = 0;
                while i < whole {
                    *sum = sum.add_product(E::load(w.add(i)), V::load(self.x.add(i)));
                    i += LANES;
                }
                if whole < n {
                    let input = V::load_first(self.x.add(whole), n - whole);
                    *sum = sum.add_product(E::load_partial(w.add(whole), n - whole), input);
                }
            }
            self.store::<8, 1>(sums, row, 0);
        }
    }

    /// Adds up the lanes of R * T sums and writes them.
    ///
    /// # Safety
    /// The CPU has the unit.
    #[inline(always)]
    unsafe fn store<const R: usize, const T: usize>(&mut self, sums: [V; MOST], row: usize, token: usize) {
        let mut products = [0.0; MOST];
        for (sums, products) in sums.as_chunks::<LANES>().0.iter().zip(products.as_chunks_mut::<LANES>().0) {
            // SAFETY: The caller promises the unit; the buffer holds 8 elements.
            unsafe { V::sum_each(*sums).store(products.as_mut_ptr()) };
        }
        for t in 0..T {
            let out = &mut self.out.row_mut(token + t)[row..row + R];
            for r in 0..R {
                out[r] = if self.add { out[r] + products[t * R + r] } else { products[t * R + r] };
            }
        }
    }
}

/// Calls `$whole` with the start of each whole vector of `$len` elements, then `$rest` with what is left.
macro_rules! for_vectors {
    ($len:expr, |$i:ident| $whole:expr, |$from:ident, $count:ident| $rest:expr) => {{
        let len = $len;
        let whole = len - len % LANES;
        let mut $i = 0;
        while $i < whole {
            $whole;
            $i += LANES;
        }
        if whole < len {
            let ($from, $count) = (whole, len - whole);
            $rest;
        }
    }};
}

#[inline(always)]
unsafe fn sum<V: Vector>(v: V) -> f32 {
    let mut lanes = [0.0; LANES];
    // SAFETY: The caller promises the unit; the buffer holds 8 elements.
    unsafe { v.store(lanes.as_mut_ptr()) };
    crate::scalar::sum_lanes(lanes)
}

/// Loads `len` elements, fewer than 8, and fills up with `fill`.
#[inline(always)]
unsafe fn load_filled<V: Vector>(from: *const f32, len: usize, fill: f32) -> V {
    let mut buffer = [fill; LANES];
    // SAFETY: The caller promises `len` elements, fewer than the buffer's 8, and the unit.
    unsafe {
        core::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), len);
        V::load(buffer.as_ptr())
    }
}

#[inline(always)]
unsafe fn store_partial<V: Vector>(v: V, to: *mut f32, len: usize) {
    let mut buffer = [0.0; LANES];
    // SAFETY: The caller promises room for `len` elements, fewer than the buffer's 8, and the unit.
    unsafe {
        v.store(buffer.as_mut_ptr());
        core::ptr::copy_nonoverlapping(buffer.as_ptr(), to, len);
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
    assert!(x.len() == out.len() && weight.len() == out.len(), "operands of one length");
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
    assert_eq!(gate.len(), up.len(), "operands of one length");
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
    assert!(cos.len() == x.len() && sin.len() == x.len() && x.len() % 2 == 0, "pairs and a factor for each");
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

/// Blocks of keys whose scores are summed side by side, so that their chains of additions overlap.
const SCORE_BLOCKS: usize = 4;

/// See [`crate::Kernels::attention`].
#[inline(always)]
pub(crate) unsafe fn attention<V: Vector>(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    scores: &mut [f32],
    len: usize,
    out: &mut [f32],
) {
    let head_size = q.len();
    let blocks = len.div_ceil(LANES);
    let cached = blocks * head_size * LANES;
    assert!(keys.len() >= cached && values.len() >= cached, "keys and values of {len} positions");
    assert!(out.len() == head_size, "an output for each element of the query");
    let scores = &mut scores[..blocks * LANES];
    // SAFETY: The caller promises the unit; `keys` and `values` hold `blocks` blocks of `head_size` vectors,
    // `scores` as many vectors, as asserted.
    unsafe {
        let to = scores.as_mut_ptr();
        let mut block = 0;
        while block + SCORE_BLOCKS <= blocks {
            score_blocks::<V, SCORE_BLOCKS>(q, keys.as_ptr(), to, block);
            block += SCORE_BLOCKS;
        }
        while block < blocks {
            score_blocks::<V, 1>(q, keys.as_ptr(), to, block);
            block += 1;
        }
        scores[len..].fill(f32::NEG_INFINITY);
        let scale = V::splat(1.0 / exponentials::<V>(scores));

        let (from, values) = (scores.as_ptr(), values.as_ptr());
        let mut i = 0;
        while i < head_size {
            let group = (head_size - i).min(LANES);
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
            V::sum_each(sums).mul(scale).store(sum.as_mut_ptr());
            out[i..i + group].copy_from_slice(&sum[..group]);
            i += group;
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

/// The kernels of a unit: safe functions of a value that proves that the CPU has it.
macro_rules! kernels {
    ($unit:ty, $vector:ty, $features:literal, {
        $(fn $name:ident($($arg:ident: $ty:ty),*) $(-> $result:ty)?;)*
    }) => {
        impl $unit {
            $(pub(crate) fn $name(self, $($arg: $ty),*) $(-> $result)? {
                #[target_feature(enable = $features)]
                unsafe fn with_unit($($arg: $ty),*) $(-> $result)? {
                    // SAFETY: The features that the vector's methods need are those enabled here.
                    unsafe { crate::arch::generic::$name::<$vector>($($arg),*) }
                }
                // SAFETY: `self` exists only where the CPU has these features.
                unsafe { with_unit($($arg),*) }
            })*
        }
    };
    ($unit:ty, $vector:ty, $features:literal) => {
        kernels!($unit, $vector, $features, {
            fn matmul(w: crate::Rows<'_>, x: &[f32], out: crate::Panel<'_>, add: bool);
            fn sum_of_squares(x: &[f32]) -> f32;
            fn scale(x: &[f32], scale: f32, weight: &[f32], out: &mut [f32]);
            fn max(x: &[f32]) -> f32;
            fn softmax(x: &mut [f32]) -> f32;
            fn swiglu(gate: &mut [f32], up: &[f32]);
            fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]);
            fn attention(
                q: &[f32], keys: &[f32], values: &[f32], scores: &mut [f32], len: usize, out: &mut [f32]
            );
            fn mass_above(x: &[f32], threshold: f32) -> (f32, usize);
            fn between(x: &[f32], low: f32, high: f32, found: &mut [u32]) -> usize;
        });
    };
}
