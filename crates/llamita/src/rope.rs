//! Rotary position embeddings (Su et al., 2021): the angles by which pairs of a head are turned.
//!
//! Angles are fractions of a turn in 32 bits, so that those of far positions lose nothing: whole turns overflow. Sine and
//! cosine are of few floats, the same on every CPU; a library's would be of double precision, thousands of instructions
//! where there is no unit for it.

use crate::config::Config;

/// The rotations of a batch's positions.
pub(crate) struct Rope<'a> {
    head_size: usize,
    /// Radians per position of each pair: (head_size / 2,).
    frequencies: &'a mut [f32],
    /// (batch, head_size), that of a pair twice.
    cos: &'a mut [f32],
    /// (batch, head_size), that of a pair twice, first negated.
    sin: &'a mut [f32],
}

impl<'a> Rope<'a> {
    /// In lent memory of `head_size / 2` numbers, and twice `head_size` for each token of a batch.
    pub(crate) fn new(config: &Config, memory: &'a mut [f32]) -> Self {
        let head_size = config.head_size;
        let (frequencies, factors) = memory.split_at_mut(head_size / 2);
        for (pair, frequency) in frequencies.iter_mut().enumerate() {
            *frequency = 1.0 / libm::powf(config.rope_theta, (2 * pair) as f32 / head_size as f32);
        }
        let (cos, sin) = factors.split_at_mut(factors.len() / 2);
        Self { head_size, frequencies, cos, sin }
    }

    /// Prepares the rotations of `count` positions from `position` on.
    pub(crate) fn turn_to(&mut self, position: usize, count: usize) {
        let cos = self.cos.chunks_exact_mut(self.head_size);
        let sin = self.sin.chunks_exact_mut(self.head_size);
        for (i, (cos, sin)) in cos.zip(sin).take(count).enumerate() {
            let pairs = cos.as_chunks_mut::<2>().0.iter_mut().zip(sin.as_chunks_mut::<2>().0);
            for ((cos, sin), &frequency) in pairs.zip(self.frequencies.iter()) {
                let (s, c) = sin_cos(angle(position + i, frequency));
                *cos = [c, c];
                *sin = [-s, s];
            }
        }
    }

    /// Cosines and sines for the `i`th position that was prepared: (head_size,) each.
    pub(crate) fn at(&self, i: usize) -> (&[f32], &[f32]) {
        let place = i * self.head_size..(i + 1) * self.head_size;
        (&self.cos[place.clone()], &self.sin[place])
    }
}

/// 2^42 / 2π.
const TURN: u64 = 699_970_842_190;

/// `position * frequency` as a fraction of a turn, times 2^32; `frequency` is finite and not negative, in radians.
fn angle(position: usize, frequency: f32) -> u32 {
    let (exponent, fraction) = (frequency.to_bits() >> 23, frequency.to_bits() & 0x7f_ffff);
    let mantissa = if exponent == 0 { fraction } else { fraction | 0x80_0000 };
    // The mantissa counts in units of 2^(exponent - 150), the step in such of 2^-64 turns.
    let (step, shift) = (u64::from(mantissa) * TURN, exponent.max(1) as i32 - 128);
    let step =
        if shift < 0 { step.checked_shr(shift.unsigned_abs()) } else { step.checked_shl(shift as u32) };
    (step.unwrap_or(0).wrapping_mul(position as u64) >> 32) as u32
}

/// Sine and cosine of an angle, within 1e-7, by the polynomials of Cephes for an eighth of a turn (Moshier, 1992).
fn sin_cos(angle: u32) -> (f32, f32) {
    const RADIANS: f32 = core::f32::consts::TAU / (1_u64 << 32) as f32;
    let quarter = angle.wrapping_add(1 << 29) >> 30;
    let x = angle.wrapping_sub(quarter << 30) as i32 as f32 * RADIANS;
    let y = x * x;
    let sin = ((-1.951_529_6e-4 * y + 8.332_161e-3) * y - 1.666_665_5e-1) * y * x + x;
    let cos = ((2.443_315_7e-5 * y - 1.388_731_6e-3) * y + 4.166_664_6e-2) * y * y - 0.5 * y + 1.0;
    match quarter {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_those_of_double_precision() {
        let frequencies = [1.0, 0.1, 0.316_227_77, 1e-2, 3.7e-4, 1e-8, 2.5, 1e3, 1e-30, 1e-40, 0.0];
        for frequency in frequencies {
            for position in (0..2000).chain((2000..200_000).step_by(97)) {
                let (sin, cos) = sin_cos(angle(position, frequency));
                let exact = position as f64 * f64::from(frequency);
                // A turn of 40 bits loses 2^-40 of the angle.
                let limit = 1.3e-7 + exact * 1e-12;
                let errors = [f64::from(sin) - exact.sin(), f64::from(cos) - exact.cos()];
                assert!(errors.iter().all(|error| error.abs() < limit), "{position} {frequency}: {errors:?}");
            }
        }
    }

    #[test]
    fn every_eighth_of_a_turn_is_joined_to_the_next() {
        for eighth in 0..8_u32 {
            for near in -300_i32..300 {
                let angle = (eighth << 29).wrapping_add_signed(near * 77);
                let (sin, cos) = sin_cos(angle);
                let exact = f64::from(angle) * core::f64::consts::TAU / 4_294_967_296.0;
                assert!((f64::from(sin) - exact.sin()).abs() < 1.3e-7, "{angle:#x}");
                assert!((f64::from(cos) - exact.cos()).abs() < 1.3e-7, "{angle:#x}");
            }
        }
    }
}
