//! Numbers to small integers with a scale for each group of columns.

use half::f16;
use llamita::weights::Tensor;
use llamita_kernels::quantized::{BLOCK_ROWS, Layout, Quant};

use crate::error::Result;

/// Turns the rows of matrices into integers and scales.
pub trait Quantizer {
    /// Quantizes rows of a matrix, from `first_row` on: `layout` has their number, columns and groups, and
    /// `rows` are finite: (rows, columns).
    ///
    /// `values` are integers within the range of `layout.quant`: (rows, columns). `scales` are finite, as
    /// bits: (rows, groups).
    fn quantize(
        &mut self,
        tensor: Tensor,
        first_row: usize,
        layout: Layout,
        rows: &[f32],
        values: &mut [i8],
        scales: &mut [u16],
    ) -> Result<()>;
}

/// Quantizes every matrix by itself, as [`quantize_rows`] does without importance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rounding;

impl Quantizer for Rounding {
    fn quantize(
        &mut self,
        _: Tensor,
        _: usize,
        layout: Layout,
        rows: &[f32],
        values: &mut [i8],
        scales: &mut [u16],
    ) -> Result<()> {
        quantize_rows(layout.quant, layout.group, rows, layout.columns, None, values, scales);
        Ok(())
    }
}

/// Quantizes rows: (rows, columns) to `values` of the same shape and `scales`, as bits: (rows, groups), where
/// the last group of a row may be shorter.
///
/// With eight bits the largest number of a group gives its scale. With four, several scales are tried and the
/// one with the least squared error is taken; with `importance`, a weight for the square of each column, the
/// least weighted error.
///
/// # Panics
/// If the lengths do not agree.
pub fn quantize_rows(
    quant: Quant,
    group: usize,
    rows: &[f32],
    columns: usize,
    importance: Option<&[f32]>,
    values: &mut [i8],
    scales: &mut [u16],
) {
    let groups = columns.div_ceil(group);
    assert_eq!(rows.len(), values.len());
    assert_eq!(rows.len() / columns * groups, scales.len());
    assert!(rows.len().is_multiple_of(columns) && importance.is_none_or(|weights| weights.len() == columns));
    let mut search = Search::default();
    let rows = rows.chunks_exact(columns).zip(values.chunks_exact_mut(columns));
    for ((row, values), scales) in rows.zip(scales.chunks_exact_mut(groups)) {
        let parts = row.chunks(group).zip(values.chunks_mut(group)).zip(scales);
        for (index, ((numbers, values), scale)) in parts.enumerate() {
            let weights = importance.map(|weights| &weights[index * group..][..numbers.len()]);
            let found = match quant {
                Quant::Q8 => quantize_q8(numbers, values),
                Quant::Q4 => search.quantize_q4(numbers, weights, values),
            };
            *scale = found.to_bits();
        }
    }
}

/// The number that is farthest from zero, with its sign.
fn extreme(numbers: &[f32]) -> f32 {
    numbers.iter().fold(0.0, |most: f32, &number| if number.abs() > most.abs() { number } else { most })
}

fn round(numbers: &[f32], scale: f16, (least, most): (f32, f32), values: &mut [i8]) {
    let scale = scale.to_f32();
    for (value, &number) in values.iter_mut().zip(numbers) {
        *value = if scale == 0.0 { 0 } else { nearest((number / scale).clamp(least, most)) as i8 };
    }
}

fn quantize_q8(numbers: &[f32], values: &mut [i8]) -> f16 {
    const RANGE: (f32, f32) = (-127.0, 127.0);
    let most = extreme(numbers).abs();
    let mut scale = f16::from_f32(most / RANGE.1).min(f16::MAX);
    // The least numbers of half precision are far apart: a scale that was rounded down may be too small.
    while most > 0.0 && (scale == f16::ZERO || most / scale.to_f32() >= RANGE.1 + 0.5) && scale < f16::MAX {
        scale = f16::from_bits(scale.to_bits() + 1);
    }
    round(numbers, scale, RANGE, values);
    scale
}

/// Integers that the farthest number is mapped to, for a start: within the range on the side of -8, or a
/// little beyond it where clipping it pays.
const TARGETS: [f32; 16] = [5.5, 6.0, 6.4, 6.7, 7.0, 7.2, 7.4, 7.6, 7.8, 8.0, 8.2, 8.4, 8.7, 9.0, 9.5, 10.0];

/// The search for the scale of a group, with memory that is used again.
#[derive(Default)]
struct Search {
    /// The numbers over the farthest of them.
    units: Vec<f32>,
    weights: Vec<f32>,
}

impl Search {
    fn quantize_q4(&mut self, numbers: &[f32], weights: Option<&[f32]>, values: &mut [i8]) -> f16 {
        const RANGE: (f32, f32) = (-8.0, 7.0);
        let far = extreme(numbers);
        let mut best = (0.0, f16::ZERO);
        if far != 0.0 {
            self.units.clear();
            self.units.extend(numbers.iter().map(|number| number / far));
            self.weights.clear();
            self.weights.extend(weights.into_iter().flatten());
            self.weights.resize(numbers.len(), 1.0);
        }
        // Of the two signs of a scale one maps the farthest number to -8, of which there is no opposite.
        let trials = TARGETS.iter().flat_map(|&target| [-target, target]);
        for trial in trials.filter(|_| far != 0.0) {
            // With the integers that the trial gives, the scale of the least error is a quotient of sums.
            let (products, squares) = self.sums(trial, RANGE);
            if squares == 0.0 {
                continue;
            }
            let scale = f16::from_f32(products / squares * far).clamp(f16::MIN, f16::MAX);
            // That is how much less the error is than that of zeros alone, with the scale as it is kept.
            let unit = scale.to_f32() / far;
            let gain = unit * (2.0 * products - unit * squares);
            if gain > best.0 {
                best = (gain, scale);
            }
        }
        round(numbers, best.1, RANGE, values);
        best.1
    }

    /// For the integers nearest to the units times a number: the weighted sums of their products with the units,
    /// and of their squares.
    fn sums(&self, inverse: f32, (least, most): (f32, f32)) -> (f32, f32) {
        const LANES: usize = 8;
        let mut sums = [[0.0; LANES]; 2];
        for (units, weights) in self.units.chunks(LANES).zip(self.weights.chunks(LANES)) {
            for (lane, (unit, weight)) in units.iter().zip(weights).enumerate() {
                let value = nearest((unit * inverse).clamp(least, most));
                sums[0][lane] += weight * unit * value;
                sums[1][lane] += weight * value * value;
            }
        }
        (sums[0].iter().sum(), sums[1].iter().sum())
    }
}

/// The nearest integer, of two the even one, of a number that is far below 2^22; without a call, unlike
/// `round_ties_even` where the CPU is not known to have it.
fn nearest(number: f32) -> f32 {
    // Beyond 2^23 there is no room for fractions.
    const SHIFT: f32 = 12_582_912.0;
    (number + SHIFT) - SHIFT
}

/// Lays integers and scales out as the kernels read them: `layout` is of these rows alone, which are whole
/// blocks but for the last of a matrix.
///
/// `values`: (rows, columns); `scales`: (rows, groups); `bytes` has `layout.len()`.
///
/// # Panics
/// If the lengths do not agree.
pub fn pack(layout: &Layout, values: &[i8], scales: &[u16], bytes: &mut [u8]) {
    let (columns, groups) = (layout.columns, layout.groups());
    assert_eq!((values.len(), scales.len()), (layout.rows * columns, layout.rows * groups));
    assert_eq!(bytes.len(), layout.len());
    // What is filled up stands for zeros, and has the scale 0.
    bytes.fill(match layout.quant {
        Quant::Q8 => 0,
        Quant::Q4 => 0x88,
    });
    for row in 0..layout.blocks() * BLOCK_ROWS {
        for group in 0..groups {
            let scale = if row < layout.rows { scales[row * groups + group] } else { 0 };
            bytes[layout.scale_place(row, group)..][..2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    for row in 0..layout.rows {
        let values = &values[row * columns..][..columns];
        // 16 values in a row lie side by side, with eight bits or in the low or high half of each byte.
        for (run, values) in values.chunks(RUN).enumerate() {
            let (place, high) = layout.value_place(row, run * RUN);
            for (byte, &value) in bytes[place..].iter_mut().zip(values) {
                *byte = match (layout.quant, high) {
                    (Quant::Q8, _) => value as u8,
                    (Quant::Q4, false) => *byte & 0xf0 | (value + 8) as u8,
                    (Quant::Q4, true) => *byte & 0x0f | ((value + 8) as u8) << 4,
                };
            }
        }
    }
}

/// Columns whose bytes lie together.
const RUN: usize = 16;

/// The opposite of [`pack`].
///
/// # Panics
/// If the lengths do not agree.
pub fn unpack(layout: &Layout, bytes: &[u8], values: &mut [i8], scales: &mut [u16]) {
    let (columns, groups) = (layout.columns, layout.groups());
    assert_eq!((values.len(), scales.len()), (layout.rows * columns, layout.rows * groups));
    assert_eq!(bytes.len(), layout.len());
    for row in 0..layout.rows {
        let values = &mut values[row * columns..][..columns];
        for (run, values) in values.chunks_mut(RUN).enumerate() {
            let (place, high) = layout.value_place(row, run * RUN);
            for (value, &byte) in values.iter_mut().zip(&bytes[place..]) {
                *value = match (layout.quant, high) {
                    (Quant::Q8, _) => byte as i8,
                    (Quant::Q4, false) => (byte & 15) as i8 - 8,
                    (Quant::Q4, true) => (byte >> 4) as i8 - 8,
                };
            }
        }
        for group in 0..groups {
            let place = layout.scale_place(row, group);
            scales[row * groups + group] = u16::from_le_bytes([bytes[place], bytes[place + 1]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers spread like weights, the same each time.
    fn numbers(count: usize) -> Vec<f32> {
        let mut random = 0x9e37_79b9_u32;
        let mut uniform = || {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random as f32 / u32::MAX as f32 - 0.5
        };
        (0..count).map(|_| (uniform() + uniform() + uniform()) * 0.2).collect()
    }

    struct Rows {
        values: Vec<i8>,
        scales: Vec<u16>,
    }

    fn quantized(
        quant: Quant,
        group: usize,
        rows: &[f32],
        columns: usize,
        importance: Option<&[f32]>,
    ) -> Rows {
        let mut values = vec![99; rows.len()];
        let mut scales = vec![0; rows.len() / columns * columns.div_ceil(group)];
        quantize_rows(quant, group, rows, columns, importance, &mut values, &mut scales);
        Rows { values, scales }
    }

    impl Rows {
        fn back(&self, group: usize, columns: usize) -> Vec<f32> {
            let groups = columns.div_ceil(group);
            let scale = |i: usize| f16::from_bits(self.scales[i / columns * groups + i % columns / group]);
            (0..).zip(&self.values).map(|(i, &value)| scale(i).to_f32() * f32::from(value)).collect()
        }
    }

    fn error(rows: &[f32], back: &[f32], weight: impl Fn(usize) -> f32) -> f32 {
        let errors = rows.iter().zip(back).enumerate();
        errors.map(|(i, (a, b))| weight(i) * (a - b) * (a - b)).sum()
    }

    #[test]
    fn eight_bits_are_within_half_a_step() {
        let rows = numbers(3 * 172);
        for group in [32, 64, 192] {
            let found = quantized(Quant::Q8, group, &rows, 172, None);
            for (i, (number, back)) in rows.iter().zip(found.back(group, 172)).enumerate() {
                let scale = found.scales[i / 172 * 172_usize.div_ceil(group) + i % 172 / group];
                let half_step = 0.5001 * f16::from_bits(scale).to_f32();
                // The largest number may be off by the rounding of the scale as well.
                let slack = number.abs() / 2048.0;
                assert!((number - back).abs() <= half_step + slack, "{number} became {back}");
            }
        }
    }

    #[test]
    fn four_bits_beat_the_plain_scale() {
        let rows = numbers(16 * 64);
        let found = quantized(Quant::Q4, 32, &rows, 64, None).back(32, 64);
        let plain = |numbers: &[f32]| {
            let scale = f16::from_f32(extreme(numbers) / -8.0).to_f32();
            let round = |number: &f32| (number / scale).round().clamp(-8.0, 7.0) * scale;
            numbers.iter().map(round).collect::<Vec<_>>()
        };
        let plain: Vec<_> = rows.chunks(32).flat_map(plain).collect();
        let (found, plain) = (error(&rows, &found, |_| 1.0), error(&rows, &plain, |_| 1.0));
        assert!(found < 0.9 * plain, "{found} against {plain}");
    }

    #[test]
    fn important_columns_are_kept_better() {
        let rows = numbers(32 * 64);
        let importance: Vec<_> = (0..64).map(|column| if column % 8 == 3 { 100.0 } else { 1.0 }).collect();
        let weight = |i: usize| importance[i % 64];
        let [with, without] =
            [Some(&importance[..]), None].map(|importance| quantized(Quant::Q4, 32, &rows, 64, importance));
        let [with, without] = [with, without].map(|found| error(&rows, &found.back(32, 64), weight));
        assert!(with < 0.8 * without, "{with} against {without}");
    }

    #[test]
    fn extreme_groups_stay_finite() {
        for quant in [Quant::Q8, Quant::Q4] {
            for number in [0.0, -0.0, 1e-45, 1e-9, -7e-7, 1e-5, 60000.0, 1e7, -3e38] {
                let mut rows = [0.0; 32];
                rows[5] = number;
                let found = quantized(quant, 32, &rows, 32, None);
                assert!(f16::from_bits(found.scales[0]).is_finite(), "{number}");
                let back = found.back(32, 32);
                assert!(back.iter().enumerate().all(|(i, &back)| i == 5 || back == 0.0), "{number}");
                if (1e-5..6e4).contains(&number) {
                    assert!((back[5] / number - 1.0).abs() < 0.01, "{number} became {}", back[5]);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn values_keep_within_their_range(
            rows in prop::collection::vec(prop_oneof![-1.0_f32..1.0, -1e-6_f32..1e-6, -1e6_f32..1e6], 64)
        ) {
            let found = quantized(Quant::Q8, 32, &rows, 64, None);
            prop_assert!(!found.values.contains(&-128));
            let found = quantized(Quant::Q4, 32, &rows, 64, None);
            prop_assert!(found.values.iter().all(|value| (-8..=7).contains(value)));
        }

        #[test]
        fn what_is_packed_can_be_unpacked(
            rows in 1_usize..20, columns in 1_usize..200, row_group: bool, q4: bool
        ) {
            let quant = if q4 { Quant::Q4 } else { Quant::Q8 };
            let group = if row_group { columns.next_multiple_of(32) } else { 32 };
            let layout = Layout { quant, rows, columns, group };
            let most = if q4 { 16 } else { 255 };
            let low = if q4 { -8 } else { -127 };
            let values: Vec<i8> = (0..rows * columns).map(|i| (low + (i * 7 % most) as i32) as i8).collect();
            let scales: Vec<u16> = (0..rows * layout.groups()).map(|i| i as u16 + 1).collect();
            let mut bytes = vec![1; layout.len()];
            pack(&layout, &values, &scales, &mut bytes);
            // The kernels' own view of the same bytes, zeros around included.
            let view = llamita_kernels::quantized::QuantizedRows {
                quant, padded: layout.padded(), group, bytes: &bytes,
            };
            for row in 0..view.rows() {
                for column in 0..layout.padded() {
                    let inside = row < rows && column < columns;
                    let expected = if inside { values[row * columns + column] } else { 0 };
                    prop_assert_eq!(view.value(row, column), expected);
                }
            }
            let (mut values_back, mut scales_back) = (vec![0; values.len()], vec![0; scales.len()]);
            unpack(&layout, &bytes, &mut values_back, &mut scales_back);
            prop_assert_eq!(values_back, values);
            prop_assert_eq!(scales_back, scales);
        }
    }
}
