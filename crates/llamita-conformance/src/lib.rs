//! One suite for every implementation: the bits of `scalar.rs`, and for fused products its bound.
//!
//! It allocates nothing and takes some 20 KB of stack, so it runs on a chip and in a browser as in a test. It is apart from
//! what it checks, since on a chip that is compiled for speed, and a suite for size.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

use core::fmt;

use llamita_kernels::quantized::{BLOCK_ROWS, Input, Layout, Quant, Quantized, QuantizedRows};
use llamita_kernels::{Cache, Kernels, LANES, Panel, Rows};

/// Where units want their operands that do not take them from everywhere.
#[repr(align(16))]
struct Aligned<T>(T);

/// A kernel whose result is not the reference's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mismatch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The size that was tried; which one it is depends on the kernel.
    pub size: usize,
    /// The element at fault.
    pub index: usize,
    /// What the kernel gave.
    pub found: f32,
    /// What the reference gives.
    pub expected: f32,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, size, index, found, expected } = self;
        write!(
            f,
            "{kernel} of size {size}: element {index} has the bits {:#010x}, expected {:#010x}",
            found.to_bits(),
            expected.to_bits()
        )
    }
}

impl core::error::Error for Mismatch {}

/// Long enough for several blocks, tiles and a tail of each.
const MAX: usize = 80;
/// Heads of the sizes that models have, and one that fills no vector.
const HEAD_SIZES: [usize; 5] = [2, 8, 12, 48, 64];

/// Positions of the longest cache.
const POSITIONS: usize = 72;

/// Compares every kernel with the reference on many sizes and places in memory.
///
/// Returns the number of results compared.
///
/// # Errors
/// The first difference.
pub fn check(kernels: Kernels) -> Result<usize, Mismatch> {
    check_with(kernels, || ())
}

/// The same, with something that is done again and again meanwhile: on a slow chip it takes seconds, in which a watchdog
/// wants to be fed.
///
/// # Errors
/// The first difference.
pub fn check_with(kernels: Kernels, meanwhile: fn()) -> Result<usize, Mismatch> {
    let mut suite = Suite { kernels, meanwhile, compared: 0, random: 0x9e37_79b9 };
    for size in 0..=MAX {
        // A tail of every length, at every offset from an aligned address.
        suite.vectors(size, size % LANES)?;
    }
    suite.odd_numbers()?;
    for rows in [1, 2, 3, 4, 7, 8, 9, 16, 33, 40] {
        for columns in [1, 3, 8, 12, 16, 20, 43] {
            for batch in [1, 2, 3, 5, 17] {
                suite.products(rows, columns, batch)?;
            }
        }
    }
    for quant in [Quant::Q8, Quant::Q4] {
        for rows in [1, 8, 11, 24] {
            for (columns, group) in [(32, 32), (172, 32), (172, 64), (172, 192), (3, 32), (128, 64)] {
                for batch in [1, 2, 3, 5] {
                    suite.quantized_products(Layout { quant, rows, columns, group }, batch)?;
                }
            }
        }
    }
    for head_size in HEAD_SIZES {
        for len in (1..40).chain([64, 65]) {
            suite.attention(head_size, len)?;
            suite.attention_q8(head_size, len)?;
        }
    }
    Ok(suite.compared)
}

// Each of its checks has a frame of its own: all in that of `check` would be together what one takes at a time.
struct Suite {
    kernels: Kernels,
    meanwhile: fn(),
    compared: usize,
    random: u32,
}

impl Suite {
    /// A number between -`range` and `range` (xorshift, G. Marsaglia).
    fn number(&mut self, range: f32) -> f32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        (self.random >> 8) as f32 * (range / 8_388_608.0) - range
    }

    fn fill<const N: usize>(&mut self, range: f32) -> [f32; N] {
        core::array::from_fn(|_| self.number(range))
    }

    /// For what is large: an array that is returned may be on the stack twice.
    fn fill_in_place(&mut self, numbers: &mut [f32], range: f32) {
        numbers.fill_with(|| self.number(range));
    }

    /// The results must have the same bits.
    fn same(
        &mut self,
        kernel: &'static str,
        size: usize,
        found: &[f32],
        expected: &[f32],
    ) -> Result<(), Mismatch> {
        (self.meanwhile)();
        for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            if found.to_bits() != expected.to_bits() {
                return Err(Mismatch { kernel, size, index, found, expected });
            }
            self.compared += 1;
        }
        Ok(())
    }

    /// Functions of vectors of `size` elements, `offset` elements into an array.
    #[inline(never)]
    fn vectors(&mut self, size: usize, offset: usize) -> Result<(), Mismatch> {
        let (kernels, scalar) = (self.kernels, Kernels::SCALAR);
        let place = offset..offset + size;
        // Wide enough for the exponential's ends, where it gives up.
        let x: [f32; MAX + LANES] = self.fill(100.0);
        let y: [f32; MAX + LANES] = self.fill(2.0);
        let z: [f32; MAX + LANES] = self.fill(2.0);
        let (x, y, z) = (&x[place.clone()], &y[place.clone()], &z[place.clone()]);

        let (found, expected) = (kernels.dot(x, y), scalar.dot(x, y));
        let bound = fused_bound(size, x.iter().zip(y).map(|(x, y)| (x * y).abs()).sum());
        // Written so that not-a-number fails.
        if !((found - expected).abs() <= bound) {
            return Err(Mismatch { kernel: "dot", size, index: 0, found, expected });
        }
        self.same("sum_of_squares", size, &[kernels.sum_of_squares(x)], &[scalar.sum_of_squares(x)])?;
        self.same("max", size, &[kernels.max(x)], &[scalar.max(x)])?;
        for threshold in [-150.0, 0.0, 30.0, 150.0] {
            let (found, expected) = (kernels.mass_above(x, threshold), scalar.mass_above(x, threshold));
            self.same("mass_above", size, &[found.0], &[expected.0])?;
            self.same("mass_above (count)", size, &[found.1 as f32], &[expected.1 as f32])?;
        }
        let [mut found, mut expected] = [[0; MAX]; 2];
        for len in [size, size / 4] {
            let counts = (
                kernels.between(x, -30.0, 40.0, &mut found[..len]),
                scalar.between(x, -30.0, 40.0, &mut expected[..len]),
            );
            self.same("between (count)", size, &[counts.0 as f32], &[counts.1 as f32])?;
            self.same("between", size, &found.map(|i| i as f32), &expected.map(|i| i as f32))?;
        }
        self.changes("scale", x, offset, |kernels, out| kernels.scale(x, 0.37, y, out))?;
        self.changes("swiglu", x, offset, |kernels, out| kernels.swiglu(out, y))?;
        self.changes("softmax", x, offset, |kernels, out| {
            let sum = kernels.softmax(out);
            if let Some(first) = out.first_mut() {
                *first += sum;
            }
        })?;
        if size.is_multiple_of(2) {
            self.changes("rope", x, offset, |kernels, out| kernels.rope(out, y, z))?;
        }
        Ok(())
    }

    /// Infinities, zeros of both signs and what is not a number, in every lane: the sampler looks at what
    /// becomes of them.
    #[inline(never)]
    fn odd_numbers(&mut self) -> Result<(), Mismatch> {
        let (kernels, scalar) = (self.kernels, Kernels::SCALAR);
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0] {
            for lane in 0..2 * LANES + 3 {
                let mut x = [-0.0; 2 * LANES + 3];
                x[lane] = odd;
                self.same("max", lane, &[kernels.max(&x)], &[scalar.max(&x)])?;
                for threshold in [f32::NEG_INFINITY, 0.0] {
                    let found = kernels.mass_above(&x, threshold).1 as f32;
                    self.same("mass_above", lane, &[found], &[scalar.mass_above(&x, threshold).1 as f32])?;
                }
                let [mut found, mut expected] = [[0; 2 * LANES + 3]; 2];
                kernels.between(&x, 0.0, 1.0, &mut found);
                scalar.between(&x, 0.0, 1.0, &mut expected);
                self.same("between", lane, &found.map(|i| i as f32), &expected.map(|i| i as f32))?;
                if odd < f32::INFINITY {
                    self.changes("softmax", &x, 0, |kernels, out| {
                        kernels.softmax(out);
                    })?;
                    self.changes("swiglu", &x, 0, |kernels, out| kernels.swiglu(out, &x))?;
                }
            }
        }
        Ok(())
    }

    /// A kernel that changes a copy of `x`; nothing around it may change.
    fn changes(
        &mut self,
        kernel: &'static str,
        x: &[f32],
        offset: usize,
        run: impl Fn(Kernels, &mut [f32]),
    ) -> Result<(), Mismatch> {
        let [mut found, mut expected] = [[7.0; MAX + 2 * LANES]; 2];
        for (out, kernels) in [(&mut found, self.kernels), (&mut expected, Kernels::SCALAR)] {
            let out = &mut out[offset..];
            out[..x.len()].copy_from_slice(x);
            run(kernels, &mut out[..x.len()]);
        }
        self.same(kernel, x.len(), &found, &expected)
    }

    /// Products of all formats, whole and cut in two, alone and in a batch.
    #[inline(never)]
    fn products(&mut self, rows: usize, columns: usize, batch: usize) -> Result<(), Mismatch> {
        // Not as a tuple, which would be on the stack beside what is taken from it.
        let mut w = Aligned([0.0; 40 * 43]);
        let mut x = Aligned([0.0; 17 * 43]);
        let (w, x) = (&mut w.0, &mut x.0);
        self.fill_in_place(w, 1.0);
        self.fill_in_place(x, 1.0);
        // Halves from the floats' upper bits; as half precision they are other numbers, all finite.
        let mut halves = [0; 40 * 43];
        for (half, w) in halves.iter_mut().zip(w.iter()) {
            *half = (w.to_bits() >> 16) as u16 & 0xbbff;
        }
        let (w, x, halves) = (&w[..rows * columns], &x[..batch * columns], &halves[..rows * columns]);

        for weights in [Rows::F32(w), Rows::F16(halves), Rows::Bf16(halves)] {
            let mut found = [0.5; 17 * 40];
            let mut expected = [0.5; 17 * 40];
            for add in [false, true] {
                let out = &mut found[..batch * rows];
                let mut rest = Panel::new(out, batch);
                let cut = rows / 3;
                let head = rest.take(cut);
                self.kernels.matmul(weights.slice(0..cut, columns), x.into(), head, add);
                self.kernels.matmul(weights.slice(cut..rows, columns), x.into(), rest, add);
                let out = &mut expected[..batch * rows];
                Kernels::SCALAR.matmul(weights, x.into(), Panel::new(out, batch), add);
            }
            for (b, x) in x.chunks_exact(columns).enumerate() {
                for r in 0..rows {
                    let mut row = [0.0; 43];
                    weights.row(r, &mut row[..columns]);
                    let sum: f32 = row.iter().zip(x).map(|(w, x)| (w * x).abs()).sum();
                    let index = b * rows + r;
                    let (found, expected) = (found[index], expected[index]);
                    // Twice: the product was added to itself, which rounds neither. Written so that not-a-number fails.
                    if !((found - expected).abs() <= 2.0 * fused_bound(columns, sum)) {
                        return Err(Mismatch { kernel: "matmul", size: columns, index, found, expected });
                    }
                    self.compared += 1;
                }
                // Each token alone gives what the batch gave, to the bit.
                let mut alone = [0.0; 40];
                let alone = &mut alone[..rows];
                self.kernels.matmul(weights, x.into(), Panel::new(alone, 1), false);
                let mut first = alone.iter().zip(&found[b * rows..]).enumerate();
                if let Some((index, (&expected, &found))) =
                    first.find(|(_, (alone, twice))| (**alone + **alone).to_bits() != twice.to_bits())
                {
                    return Err(Mismatch { kernel: "matmul (batch)", size: columns, index, found, expected });
                }
            }
        }
        Ok(())
    }

    /// Products of quantized weights, whole and cut in two, alone and in a batch; every byte occurs but the one
    /// that eight bits do not use.
    #[inline(never)]
    fn quantized_products(&mut self, layout: Layout, batch: usize) -> Result<(), Mismatch> {
        let Layout { quant, rows, columns, group } = layout;
        let (padded, groups) = (layout.padded(), layout.groups());
        let mut bytes = Aligned([0; 24 * 192 + 24 * 6 * 2]);
        let bytes = &mut bytes.0;
        bytes.fill_with(|| self.number(127.99) as i32 as u8);
        for row in 0..layout.blocks() * BLOCK_ROWS {
            for group in 0..groups {
                // Half precision, subnormal to large; with some batches of either sign.
                let bits = if batch.is_multiple_of(2) { 0xbbff } else { 0x3bff };
                let scale = self.number(128.0).to_bits() as u16 & bits;
                bytes[layout.scale_place(row, group)..][..2].copy_from_slice(&scale.to_le_bytes());
            }
        }
        let weights = Rows::Quantized(QuantizedRows { quant, padded, group, bytes: &bytes[..layout.len()] });

        let mut x = Aligned([0.0; 5 * 172]);
        let x = &mut x.0;
        self.fill_in_place(x, 2.0);
        let mut values = Aligned([99; 5 * 192]);
        let mut reference = [99; 5 * 192];
        let values = &mut values.0;
        let [mut x_scales, mut reference_scales] = [[9.0; 5 * 6]; 2];
        let [mut sums, mut reference_sums] = [[9; 5 * 6]; 2];
        for (b, x) in x.chunks_exact(columns).take(batch).enumerate() {
            let (of_values, of_groups) = (b * padded..(b + 1) * padded, b * groups..(b + 1) * groups);
            self.kernels.quantize(
                x,
                group,
                &mut values[of_values.clone()],
                &mut x_scales[of_groups.clone()],
                &mut sums[of_groups.clone()],
            );
            Kernels::SCALAR.quantize(
                x,
                group,
                &mut reference[of_values],
                &mut reference_scales[of_groups.clone()],
                &mut reference_sums[of_groups],
            );
        }
        // As floats, all at once would take the most of the stack.
        for (values, reference) in values.as_chunks::<64>().0.iter().zip(reference.as_chunks::<64>().0) {
            self.same("quantize", columns, &values.map(f32::from), &reference.map(f32::from))?;
        }
        self.same("quantize (scales)", columns, &x_scales, &reference_scales)?;
        self.same("quantize (sums)", columns, &sums.map(|s| s as f32), &reference_sums.map(|s| s as f32))?;

        let input = |tokens: core::ops::Range<usize>| Input {
            floats: &[],
            quantized: Quantized {
                values: &values[tokens.start * padded..tokens.end * padded],
                scales: &x_scales[tokens.start * groups..tokens.end * groups],
                sums: &sums[tokens.start * groups..tokens.end * groups],
            },
        };
        let Aligned([found, expected]) = &mut Aligned([[0.5; 5 * 24]; 2]);
        for add in [false, true] {
            let mut rest = Panel::new(&mut found[..batch * rows], batch);
            let cut = rows / 2 / LANES * LANES;
            let head = rest.take(cut);
            self.kernels.matmul(weights.slice(0..cut, columns), input(0..batch), head, add);
            self.kernels.matmul(weights.slice(cut..rows, columns), input(0..batch), rest, add);
            let out = Panel::new(&mut expected[..batch * rows], batch);
            Kernels::SCALAR.matmul(weights, input(0..batch), out, add);
        }
        self.same("matmul (quantized)", columns, found, expected)?;
        for b in 0..batch {
            let Aligned([alone, twice]) = &mut Aligned([[0.0; 24]; 2]);
            for _ in 0..2 {
                let out = Panel::new(&mut alone[..rows], 1);
                self.kernels.matmul(weights, input(b..b + 1), out, true);
            }
            twice[..rows].copy_from_slice(&expected[b * rows..][..rows]);
            self.same("matmul (quantized, alone)", columns, alone, twice)?;
        }
        Ok(())
    }

    /// Attention over floats. The values are the keys from the second row on: two caches would take twice the stack.
    #[inline(never)]
    fn attention(&mut self, head_size: usize, len: usize) -> Result<(), Mismatch> {
        let q: [f32; 64] = self.fill(1.0);
        let mut numbers = [0.0; 64 * POSITIONS + LANES];
        self.fill_in_place(&mut numbers, 2.0);
        let cached = head_size * len.div_ceil(LANES) * LANES;
        let caches = [Cache::F32(&numbers[..cached]), Cache::F32(&numbers[LANES..][..cached])];
        self.attention_of("attention", &q[..head_size], caches, len)
    }

    /// The same over integers.
    #[inline(never)]
    fn attention_q8(&mut self, head_size: usize, len: usize) -> Result<(), Mismatch> {
        let q: [f32; 64] = self.fill(1.0);
        let mut integers = Aligned([0; 64 * POSITIONS + 2 * LANES]);
        let integers = &mut integers.0;
        integers.fill_with(|| self.number(127.99) as i8);
        // Most of them near each other, as those of a model, some far off.
        let scales: [f32; 2 * POSITIONS] = self.fill(0.5);
        let scales = Aligned(scales.map(|scale| ((scale * scale * scale).abs().to_bits() >> 16) as u16));
        let scales = &scales.0;
        let cached = head_size * len.div_ceil(LANES) * LANES;
        let caches = [
            Cache::Q8 { values: &integers[..cached], scales: &scales[..POSITIONS] },
            Cache::Q8 { values: &integers[2 * LANES..][..cached], scales: &scales[POSITIONS..] },
        ];
        self.attention_of("attention (q8)", &q[..head_size], caches, len)
    }

    fn attention_of(
        &mut self,
        kernel: &'static str,
        q: &[f32],
        [keys, values]: [Cache<'_>; 2],
        len: usize,
    ) -> Result<(), Mismatch> {
        let [mut found, mut expected] = [[0.0; 64]; 2];
        for (out, kernels) in [(&mut found, self.kernels), (&mut expected, Kernels::SCALAR)] {
            let mut scores = Aligned([0.0; POSITIONS]);
            let scores = &mut scores.0[..len.div_ceil(LANES) * LANES];
            kernels.attention(q, keys, values, scores, len, &mut out[..q.len()]);
        }
        self.same(kernel, len, &found, &expected)
    }
}

/// How far a fused product may be from the reference, see [`Kernels::matmul`]; `sum` is that of the absolute
/// products.
fn fused_bound(columns: usize, sum: f32) -> f32 {
    (columns as f32 / 4.0 + 2.0) * sum / 16_777_216.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_unit_of_this_machine_conforms() {
        let kernels = Kernels::detect();
        let compared = check(kernels).unwrap_or_else(|mismatch| panic!("{}: {mismatch}", kernels.name()));
        std::println!("{}: {compared} results compared", kernels.name());
        assert!(compared > 100_000);
    }

    #[test]
    fn the_reference_conforms() {
        check(Kernels::SCALAR).unwrap();
    }

    #[test]
    fn products_by_words_conform() {
        check(Kernels::WORDS).unwrap();
    }
}
