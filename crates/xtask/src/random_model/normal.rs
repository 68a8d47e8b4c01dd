//! Normally distributed numbers, as fast as a disk takes them.

/// A stream of numbers with mean 0 and standard deviation 1.
pub struct Normal {
    state: u64,
}

impl Normal {
    /// The stream that belongs to a seed.
    pub fn new(seed: u64) -> Self {
        // Xorshift would stay at zero for ever, so one bit is set. The factor spreads the few bits of a small
        // seed, or the first numbers of neighbouring seeds would be alike.
        let mut stream = Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63 };
        for _ in 0..8 {
            stream.sample();
        }
        stream
    }

    /// The next number, in [-3.47, 3.47].
    pub fn sample(&mut self) -> f32 {
        // Xorshift64*.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let bits = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        // The sum of four uniform numbers is close enough to normal for weights, and needs no logarithm.
        let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        // Each varies by 65536² / 12, so the sum's deviation is 65536 / √3.
        const SCALE: f32 = 1.732_050_8 / 65536.0;
        (sum as f32 - 131_070.0) * SCALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_a_normal_distribution() {
        for seed in [0, 1, 2, u64::MAX] {
            let mut normal = Normal::new(seed);
            let samples: Vec<f64> = (0..200_000).map(|_| f64::from(normal.sample())).collect();
            let mean = samples.iter().sum::<f64>() / samples.len() as f64;
            let variance =
                samples.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / samples.len() as f64;
            assert!(mean.abs() < 0.01, "seed {seed}: mean {mean}");
            assert!((variance - 1.0).abs() < 0.01, "seed {seed}: variance {variance}");
            let beyond = samples.iter().filter(|x| x.abs() > 1.0).count() as f64 / samples.len() as f64;
            assert!((beyond - 0.32).abs() < 0.02, "seed {seed}: {beyond} beyond one deviation");
        }
    }
}
