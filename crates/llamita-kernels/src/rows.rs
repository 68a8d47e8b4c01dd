//! Weights as they are stored, and how each format becomes an `f32`.

use core::ops::Range;

use crate::quantized::QuantizedRows;

/// Consecutive rows of a matrix of weights, row-major, as they are stored.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Single precision: (rows, columns).
    F32(&'a [f32]),
    /// Half precision, as bits: (rows, columns).
    F16(&'a [u16]),
    /// The upper halves of `f32`s, as bits: (rows, columns).
    Bf16(&'a [u16]),
    /// Integers of few bits with scales, in blocks of rows.
    Quantized(QuantizedRows<'a>),
}

impl Default for Rows<'_> {
    fn default() -> Self {
        Self::F32(&[])
    }
}

impl Rows<'_> {
    /// Number of rows, each of `columns` weights; those that fill up a last block of quantized rows count.
    pub const fn count(&self, columns: usize) -> usize {
        match self {
            Self::F32(w) => w.len() / columns,
            Self::F16(w) | Self::Bf16(w) => w.len() / columns,
            Self::Quantized(w) => w.rows(),
        }
    }

    /// Columns that share a scale, where the activations have to be quantized in the same groups.
    pub const fn group(&self) -> Option<usize> {
        match self {
            Self::Quantized(w) => Some(w.group),
            _ => None,
        }
    }

    /// Some of the rows, each of `columns` weights; of quantized rows, those from a multiple of
    /// [`BLOCK_ROWS`](crate::quantized::BLOCK_ROWS) on, in whole blocks.
    pub fn slice(self, rows: Range<usize>, columns: usize) -> Self {
        let weights = rows.start * columns..rows.end * columns;
        match self {
            Self::F32(w) => Self::F32(&w[weights]),
            Self::F16(w) => Self::F16(&w[weights]),
            Self::Bf16(w) => Self::Bf16(&w[weights]),
            Self::Quantized(w) => Self::Quantized(w.slice(rows)),
        }
    }

    /// Converts a row to `f32`: (columns,).
    ///
    /// # Panics
    /// If there is no such row of so many columns.
    pub fn row(self, row: usize, out: &mut [f32]) {
        fn convert<E: Element>(w: &[E::Raw], row: usize, out: &mut [f32]) {
            let w = &w[row * out.len()..][..out.len()];
            for (out, &w) in out.iter_mut().zip(w) {
                *out = E::to_f32(w);
            }
        }
        match self {
            Self::F32(w) => convert::<F32>(w, row, out),
            Self::F16(w) => convert::<F16>(w, row, out),
            Self::Bf16(w) => convert::<Bf16>(w, row, out),
            Self::Quantized(w) => {
                assert!(row < w.rows() && out.len() <= w.padded, "row {row} of {} columns", out.len());
                for (group, out) in out.chunks_mut(w.group).enumerate() {
                    let scale = w.scale(row, group);
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = f32::from(w.value(row, group * w.group + i)) * scale;
                    }
                }
            }
        }
    }
}

/// A format of single weights; the conversion to `f32` is exact.
pub(crate) trait Element {
    /// The stored bits.
    type Raw: Copy;
    fn to_f32(raw: Self::Raw) -> f32;
}

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct Bf16;

impl Element for F32 {
    type Raw = f32;
    #[inline(always)]
    fn to_f32(raw: f32) -> f32 {
        raw
    }
}

impl Element for Bf16 {
    type Raw = u16;
    #[inline(always)]
    fn to_f32(raw: u16) -> f32 {
        f32::from_bits(u32::from(raw) << 16)
    }
}

impl Element for F16 {
    type Raw = u16;
    #[inline(always)]
    fn to_f32(raw: u16) -> f32 {
        let sign = u32::from(raw & 0x8000) << 16;
        let magnitude = u32::from(raw & 0x7fff) << 13;
        // The exponent's bias grows from 15 to 127.
        let magnitude = match magnitude >> 23 {
            1..0x1f => magnitude + ((127 - 15) << 23),
            // Infinity or NaN: the exponent becomes all ones.
            0x1f => magnitude | 0xff << 23,
            // A product normalises what is subnormal.
            _ => (f32::from_bits(magnitude) * f32::from_bits((127 + 127 - 15) << 23)).to_bits(),
        };
        f32::from_bits(sign | magnitude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_converts_exactly() {
        let cases = [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x83ff, -6.097_555e-5),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
            (0x3555, 0.333_251_95),
        ];
        for (bits, value) in cases {
            assert_eq!(F16::to_f32(bits).to_bits(), f32::to_bits(value), "{bits:#x}");
        }
        assert!(F16::to_f32(0x7e00).is_nan());
    }

    #[test]
    fn a_slice_takes_whole_rows() {
        let weights = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let mut row = [0.0; 2];
        Rows::F32(&weights).slice(1..3, 2).row(1, &mut row);
        assert_eq!(row, [4.0, 5.0]);
        assert_eq!(Rows::Bf16(&[0x3f80; 6]).slice(1..3, 2).count(2), 2);
    }
}
