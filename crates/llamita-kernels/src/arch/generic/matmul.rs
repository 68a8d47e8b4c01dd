//! The product of a matrix of weights with the activations of some tokens.

use super::Vector;
use crate::quantized::Input;
use crate::rows::{Bf16, Element, F16, F32};
use crate::{LANES, Panel, Rows};

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
pub(crate) unsafe fn matmul<V: Vector>(w: Rows<'_>, x: Input<'_>, out: Panel<'_>, add: bool) {
    // SAFETY: The caller promises the unit.
    unsafe {
        match w {
            Rows::F32(w) => matmul_of::<V, F32>(w, x.floats, out, add),
            Rows::F16(w) => matmul_of::<V, F16>(w, x.floats, out, add),
            Rows::Bf16(w) => matmul_of::<V, Bf16>(w, x.floats, out, add),
            Rows::Quantized(w) => super::quantized::matmul::<V>(w, x.quantized, out, add),
        }
    }
}

#[inline(always)]
unsafe fn matmul_of<V: Vector, E: Load<V>>(w: &[E::Raw], x: &[f32], mut out: Panel<'_>, add: bool) {
    let (tokens, rows) = (out.rows(), out.width());
    let columns = x.len() / tokens;
    let mut product = Product::<V, E> {
        w: w.as_ptr(),
        x: x.as_ptr(),
        columns,
        out: &mut out,
        add,
        unit: core::marker::PhantomData,
    };
    // SAFETY: The caller promises the unit; rows and tokens stay below those of `w` and `x`, as `Kernels` asserts.
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
