//! The keys or values of one head, as attention reads them.
//!
//! Eight positions lie side by side, (positions / 8, head_size, 8), so that vectors run over positions whatever
//! the size of a head, and nothing is gathered. As integers, each position has a scale of its own.

use crate::LANES;
use crate::scalar::{exp_constants::MAGIC, magnitude, quantum};

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheFormat {
    /// As they are.
    #[default]
    F32,
    /// Rounded to eight bits, each position of a head with a scale.
    Q8,
}

/// The keys or values of a head, to be read: whole blocks of 8 positions.
#[derive(Clone, Copy, Debug)]
pub enum Cache<'a> {
    /// (positions / 8, head_size, 8).
    F32(&'a [f32]),
    /// As integers.
    Q8 {
        /// From -127 to 127: (positions / 8, head_size, 8).
        values: &'a [i8],
        /// What they are multiplied with, the upper halves of `f32`s as bits: (positions,).
        scales: &'a [u16],
    },
}

/// The keys or values of one head or of several, one after another, to be written.
#[derive(Debug)]
pub enum CacheMut<'a> {
    /// As they are.
    F32(&'a mut [f32]),
    /// As integers; see [`Cache::Q8`].
    Q8 {
        /// From -127 to 127.
        values: &'a mut [i8],
        /// What they are multiplied with.
        scales: &'a mut [u16],
    },
}

impl<'a> Cache<'a> {
    /// Integers and scales; nothing of floats.
    pub(crate) fn integers(self) -> (&'a [i8], &'a [u16]) {
        match self {
            Self::F32(_) => (&[], &[]),
            Self::Q8 { values, scales } => (values, scales),
        }
    }

    /// Whether these are at least so many positions, whole blocks, of a head of this size.
    pub(crate) fn covers(&self, positions: usize, head_size: usize) -> bool {
        let numbers = positions.checked_mul(head_size);
        numbers.is_some_and(|numbers| match self {
            Self::F32(numbers_there) => numbers_there.len() >= numbers,
            Self::Q8 { values, scales } => values.len() >= numbers && scales.len() >= positions,
        })
    }
}

impl<'a> CacheMut<'a> {
    /// The same for a shorter use.
    pub fn reborrow(&mut self) -> CacheMut<'_> {
        match self {
            Self::F32(numbers) => CacheMut::F32(numbers),
            Self::Q8 { values, scales } => CacheMut::Q8 { values, scales },
        }
    }

    /// Takes the first positions off: `positions` of a head of `head_size`, or of several heads in all.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn take(&mut self, positions: usize, head_size: usize) -> Self {
        fn split<'a, T>(rest: &mut &'a mut [T], count: usize) -> &'a mut [T] {
            let (head, tail) = core::mem::take(rest).split_at_mut(count);
            *rest = tail;
            head
        }
        match self {
            Self::F32(numbers) => Self::F32(split(numbers, positions * head_size)),
            Self::Q8 { values, scales } => {
                Self::Q8 { values: split(values, positions * head_size), scales: split(scales, positions) }
            }
        }
    }

    /// The positions, to be read.
    pub fn as_cache(&self) -> Cache<'_> {
        match self {
            Self::F32(numbers) => Cache::F32(numbers),
            Self::Q8 { values, scales } => Cache::Q8 { values, scales },
        }
    }

    /// Writes the key or value of a position: (head_size,). Positions come in order: the first of a block
    /// clears the block, so that lent memory may hold anything and attention can read whole blocks.
    ///
    /// # Panics
    /// If the position is not in the cache.
    pub fn remember(&mut self, position: usize, head: &[f32]) {
        let (block, lane) = (position / LANES, position % LANES);
        let numbers = block * head.len() * LANES..(block + 1) * head.len() * LANES;
        match self {
            Self::F32(cache) => {
                let block = &mut cache[numbers];
                if lane == 0 {
                    block.fill(0.0);
                }
                for (lanes, &x) in block.as_chunks_mut::<LANES>().0.iter_mut().zip(head) {
                    lanes[lane] = x;
                }
            }
            Self::Q8 { values, scales } => {
                let (values, scales) = (&mut values[numbers], &mut scales[block * LANES..][..LANES]);
                if lane == 0 {
                    values.fill(0);
                    scales.fill(0);
                }
                // The upper half of the scale, rounded up so that no value gets larger than 127.
                let (scale, _) = quantum(magnitude(head));
                let upper =
                    if scale.is_finite() { scale.to_bits().wrapping_add(0xffff) >> 16 } else { 0x7fc0 };
                scales[lane] = upper as u16;
                let scale = f32::from_bits(upper << 16);
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                for (lanes, &x) in values.as_chunks_mut::<LANES>().0.iter_mut().zip(head) {
                    // Rounded to the nearest integer, which is then in the low bits.
                    lanes[lane] = (x * inverse + MAGIC).to_bits() as i8;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_remembered_within_half_a_step() {
        let head: Vec<f32> = (0..12).map(|i| (i as f32 * 0.5 - 3.0).powi(3)).collect();
        let (mut values, mut scales) = ([77; 2 * 12 * 8], [0x4000; 16]);
        let mut cache = CacheMut::Q8 { values: &mut values, scales: &mut scales };
        cache.remember(8, &head);
        cache.remember(9, &[0.0; 12]);
        cache.remember(10, &[f32::NAN; 12]);
        let scale = f32::from_bits(u32::from(scales[8]) << 16);
        assert!(scale * 127.0 >= 27.0 && scale * 127.0 < 27.3, "{scale}");
        for (i, x) in head.iter().enumerate() {
            let value = f32::from(values[(12 + i) * 8]) * scale;
            assert!((value - x).abs() <= scale / 2.0, "{value} for {x}");
            assert_eq!((values[(12 + i) * 8 + 1], values[(12 + i) * 8 + 7]), (0, 0));
        }
        assert_eq!((scales[9], scales[15]), (0, 0));
        assert!(f32::from_bits(u32::from(scales[10]) << 16).is_nan(), "what is no number stays none");
    }
}
