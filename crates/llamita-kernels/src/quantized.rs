//! Weights of eight and of four bits.
//!
//! # Values
//! A row is cut into groups of columns that share a scale. Eight bits hold an integer from -127 to 127 (for -128
//! units may give different sums); four bits hold n from 0 to 15 for the integer n - 8. A weight is its integer times its scale, which has half
//! precision. Rows are filled up with zeros to whole groups. A group has 32 columns, or 64, or those of a whole
//! row.
//!
//! # Layout
//! Eight rows lie side by side as a block, so that a vector unit sums eight rows at a time, each in a lane of
//! its own, while the weights are one run of memory, which the hardware reads ahead. A block begins with its
//! scales, those of its eight rows side by side for each group. Then, 16 bytes of a row follow 16 bytes of the row
//! before; a unit that multiplies 16 bytes at once, such as that of the ESP32-S3, finds them together, at multiples of
//! 16 bytes from the block's first. The 16 bytes are 16 columns of eight bits, or 32 columns of four: the first
//! half in the low bits, the second in the high bits, so that one mask and one shift unpack them in order.
//! Rows are filled up with zeros to whole blocks.
//!
//! So any whole blocks are one run of bytes that means something by itself, which is what a stream needs.
//!
//! # Arithmetic
//! The activations are quantized to eight bits in the same groups, once per product. A group's sum of products
//! is an integer and exact, so no machine rounds it differently; it is multiplied with the product of both
//! scales, and a row's groups are added in order.

use core::ops::Range;

use crate::LANES;
use crate::rows::{Element, F16};

/// Rows that lie side by side.
pub const BLOCK_ROWS: usize = LANES;
/// Groups have a multiple of so many columns.
pub const GROUP_STEP: usize = 32;
/// The longest row, filled up, in columns: its sum of products fits 32 bits.
pub const MAX_COLUMNS: usize = 1 << 16;
/// Bytes of a row that lie together.
const RUN: usize = 16;

/// How many bits a weight has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quant {
    /// Eight bits: -127 to 127.
    Q8,
    /// Four bits: -8 to 7.
    Q4,
}

impl Quant {
    /// Bytes of this many weights, which are a multiple of [`GROUP_STEP`].
    pub const fn bytes(self, count: usize) -> usize {
        match self {
            Self::Q8 => count,
            Self::Q4 => count / 2,
        }
    }

    /// Columns of a row whose bytes lie together.
    const fn run_columns(self) -> usize {
        match self {
            Self::Q8 => RUN,
            Self::Q4 => 2 * RUN,
        }
    }
}

/// Where the weights of a matrix lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bits of a weight.
    pub quant: Quant,
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub columns: usize,
    /// Columns that share a scale: a multiple of [`GROUP_STEP`].
    pub group: usize,
}

impl Layout {
    /// The columns of a row, filled up to whole groups.
    pub const fn padded(&self) -> usize {
        self.columns.next_multiple_of(self.group)
    }

    /// Groups of a row.
    pub const fn groups(&self) -> usize {
        self.columns.div_ceil(self.group)
    }

    /// Blocks of rows.
    pub const fn blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK_ROWS)
    }

    /// Bytes of a block of rows.
    pub const fn block_len(&self) -> usize {
        block_len(self.quant, self.padded(), self.groups())
    }

    /// Bytes of the matrix.
    #[expect(clippy::len_without_is_empty, reason = "no matrix is empty")]
    pub const fn len(&self) -> usize {
        self.blocks() * self.block_len()
    }

    /// The byte of a weight; of four bits it has the low half where the second value is false, else the high.
    pub const fn value_place(&self, row: usize, column: usize) -> (usize, bool) {
        value_place(self.quant, self.padded(), self.groups(), row, column)
    }

    /// The first of a scale's two bytes.
    pub const fn scale_place(&self, row: usize, group: usize) -> usize {
        scale_place(self.block_len(), row, group)
    }
}

/// Bytes of the scales of a block.
const fn scales_len(groups: usize) -> usize {
    2 * BLOCK_ROWS * groups
}

const fn block_len(quant: Quant, padded: usize, groups: usize) -> usize {
    scales_len(groups) + quant.bytes(BLOCK_ROWS * padded)
}

const fn value_place(quant: Quant, padded: usize, groups: usize, row: usize, column: usize) -> (usize, bool) {
    let run = quant.run_columns();
    let values = row / BLOCK_ROWS * block_len(quant, padded, groups) + scales_len(groups);
    let place = (column / run * BLOCK_ROWS + row % BLOCK_ROWS) * RUN + column % RUN;
    (values + place, column % run >= RUN)
}

const fn scale_place(block_len: usize, row: usize, group: usize) -> usize {
    row / BLOCK_ROWS * block_len + 2 * (group * BLOCK_ROWS + row % BLOCK_ROWS)
}

/// Consecutive rows of a quantized matrix, in whole blocks.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedRows<'a> {
    /// Bits of a weight.
    pub quant: Quant,
    /// Columns of a row, filled up to whole groups.
    pub padded: usize,
    /// Columns that share a scale.
    pub group: usize,
    /// A block for every eight rows. Each has the scales, half precision, little-endian: (padded / group, 8), and then
    /// the integers: (padded / 16, 8, 16) of eight bits, (padded / 32, 8, 16) bytes of two times four bits.
    pub bytes: &'a [u8],
}

impl<'a> QuantizedRows<'a> {
    /// Groups of a row.
    pub const fn groups(&self) -> usize {
        self.padded / self.group
    }

    /// Number of rows, those of zeros at the end included.
    pub const fn rows(&self) -> usize {
        self.bytes.len() / self.block_len() * BLOCK_ROWS
    }

    /// Bytes of a block of rows.
    pub const fn block_len(&self) -> usize {
        block_len(self.quant, self.padded, self.groups())
    }

    /// Bytes of a block before its integers.
    pub const fn scales_len(&self) -> usize {
        scales_len(self.groups())
    }

    /// Some of the rows, from a block's first on.
    pub(crate) fn slice(self, rows: Range<usize>) -> Self {
        assert!(rows.start.is_multiple_of(BLOCK_ROWS), "whole blocks");
        let block = |row: usize| row.div_ceil(BLOCK_ROWS) * self.block_len();
        Self { bytes: &self.bytes[block(rows.start)..block(rows.end)], ..self }
    }

    /// The integer of a weight.
    pub fn value(&self, row: usize, column: usize) -> i8 {
        let (place, high) = value_place(self.quant, self.padded, self.groups(), row, column);
        let byte = self.bytes[place];
        match self.quant {
            Quant::Q8 => byte as i8,
            Quant::Q4 => (if high { byte >> 4 } else { byte & 15 }) as i8 - 8,
        }
    }

    /// The scale of a group.
    pub fn scale(&self, row: usize, group: usize) -> f32 {
        let place = scale_place(self.block_len(), row, group);
        F16::to_f32(u16::from_le_bytes([self.bytes[place], self.bytes[place + 1]]))
    }

    /// The bytes of 16 columns (or 32 of four bits) of a row.
    pub(crate) fn run(&self, row: usize, run: usize) -> &'a [u8; RUN] {
        let column = run * self.quant.run_columns();
        let (place, _) = value_place(self.quant, self.padded, self.groups(), row, column);
        // Scales fill whole runs as well.
        let (runs, _) = self.bytes.as_chunks();
        &runs[place / RUN]
    }

    /// Whether the parts are of one shape.
    pub(crate) fn fits(&self) -> bool {
        self.group > 0
            && self.group.is_multiple_of(GROUP_STEP)
            && self.padded > 0
            && self.padded.is_multiple_of(self.group)
            && self.padded <= MAX_COLUMNS
            && self.bytes.len().is_multiple_of(self.block_len())
    }
}

/// Activations of some tokens, rounded to eight bits in groups: see [`crate::Kernels::quantize`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantized<'a> {
    /// Integers from -127 to 127: (batch, padded).
    pub values: &'a [i8],
    /// What they are multiplied with: (batch, groups).
    pub scales: &'a [f32],
    /// The sums of the values of each group: (batch, groups).
    pub sums: &'a [i32],
}

/// The input of a matrix product: the activations of some tokens, (batch, columns).
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The activations: (batch, columns).
    pub floats: &'a [f32],
    /// The same in the groups of the weights; may be empty where the weights are floats.
    pub quantized: Quantized<'a>,
}

impl<'a> From<&'a [f32]> for Input<'a> {
    /// An input for weights that are floats.
    fn from(floats: &'a [f32]) -> Self {
        Self { floats, quantized: Quantized::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_has_a_place_of_its_own() {
        for quant in [Quant::Q8, Quant::Q4] {
            for (rows, columns, group) in [(1, 1, 32), (8, 32, 32), (11, 172, 64), (24, 100, 128)] {
                let layout = Layout { quant, rows, columns, group };
                // Of each byte the halves that were taken.
                let mut seen = vec![[false; 2]; layout.len()];
                let mut take = |place: usize, half: usize| {
                    assert!(!core::mem::replace(&mut seen[place][half], true), "{layout:?}, byte {place}");
                };
                for row in 0..layout.blocks() * BLOCK_ROWS {
                    for column in 0..layout.padded() {
                        let (place, high) = layout.value_place(row, column);
                        take(place, usize::from(high));
                        if quant == Quant::Q8 {
                            take(place, 1);
                        }
                    }
                    for group in 0..layout.groups() {
                        let place = layout.scale_place(row, group);
                        (0..4).for_each(|half| take(place + half / 2, half % 2));
                    }
                }
                assert!(seen.as_flattened().iter().all(|&seen| seen), "{layout:?}");
            }
        }
    }
}
