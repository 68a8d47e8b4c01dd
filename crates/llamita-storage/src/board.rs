//! What a machine has: cores, memories, and a medium that models come from.

use llamita::weights::Format;
use llamita_kernels::quantized::Quant;

/// Most memories of a board that a placement tells apart.
pub const MEMORIES: usize = 4;

/// A machine, as far as the time of a token depends on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Board<'a> {
    /// Cycles per second.
    pub clock: f64,
    /// Cores that share the work.
    pub cores: usize,
    /// What the arithmetic takes.
    pub cycles: Cycles,
    /// The fastest first, at most [`MEMORIES`]; at least one that can be written.
    pub memories: &'a [Memory],
    /// Where a model comes from that no memory holds.
    pub storage: Option<Medium>,
}

/// Cycles of one core.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cycles {
    /// For one multiplication and addition of a matrix product with weights of single precision in the fastest
    /// memory, everything included.
    pub f32: f64,
    /// The same, for weights of half precision.
    pub f16: f64,
    /// For eight bits.
    pub q8: f64,
    /// For four bits.
    pub q4: f64,
    /// For a multiplication and addition of floats elsewhere.
    pub float: f64,
    /// For an exponential.
    pub exp: f64,
}

impl Cycles {
    /// Cycles for one multiplication and addition with a weight of this format.
    pub const fn per_weight(&self, format: Format) -> f64 {
        match format {
            Format::F32 => self.f32,
            Format::F16 | Format::Bf16 => self.f16,
            Format::Quantized { quant: Quant::Q8, .. } | Format::Blocks(_) => self.q8,
            Format::Quantized { quant: Quant::Q4, .. } => self.q4,
        }
    }
}

/// A memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Bytes that a model may have of it.
    pub size: u64,
    /// Bytes per second that the cores read.
    pub rate: f64,
    /// Whether it only holds what was written before the program began, as flash does. A model that fits such a
    /// memory as a whole is used there in place.
    pub read_only: bool,
    /// Whether media that are read while the cores compute can write it.
    pub dma: bool,
}

/// A medium that is read in pieces: a card, a disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Medium {
    /// Bytes per second of reads that are long enough.
    pub rate: f64,
    /// Seconds before the first byte of a read.
    pub latency: f64,
    /// Bytes of a read that reaches the rate, latency included.
    pub best_read: u64,
    /// Whether it is read while the cores compute.
    pub overlap: bool,
}

impl Medium {
    /// Seconds of a read. Longer ones than the best are no faster; of shorter ones the latency is a greater part.
    pub fn seconds(&self, bytes: u64) -> f64 {
        let (bytes, best) = (bytes as f64, self.best_read.max(1) as f64);
        // What of the best read's time is not latency goes by bytes.
        let transfer = (best / self.rate - self.latency).max(0.0);
        (self.latency + bytes / best * transfer).max(bytes / self.rate)
    }
}

impl Board<'_> {
    /// Seconds that the cores take for so many weights' multiplications with each of `batch` tokens, where the
    /// weights have `bytes` in a memory, or have just come from the medium to the fastest.
    ///
    /// While one core waits for a memory others compute, but they share its rate; the fastest memory's own time is
    /// part of the cycles. What a batch computes together is read once.
    pub fn product(&self, format: Format, weights: u64, bytes: u64, batch: usize, memory: usize) -> f64 {
        let arithmetic = weights as f64 * batch as f64 * self.cycles.per_weight(format) / self.clock;
        let reading = if memory == 0 { 0.0 } else { bytes as f64 / self.memories[memory].rate };
        reading.max((arithmetic + reading) / self.cores as f64)
    }

    /// Seconds for multiplications and additions of floats and for exponentials, on all cores.
    pub fn floats(&self, operations: f64, exponentials: f64) -> f64 {
        let cycles = operations * self.cycles.float + exponentials * self.cycles.exp;
        cycles / self.clock / self.cores as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_the_best_length_reach_the_rate() {
        let card = Medium { rate: 8e6, latency: 5e-4, best_read: 32_768, overlap: true };
        assert!((card.seconds(32_768) - 32_768.0 / 8e6).abs() < 1e-12);
        // Longer ones are no faster, and a sector takes little more than the latency.
        assert!((card.seconds(1 << 20) - (1 << 20) as f64 / 8e6).abs() < 1e-12);
        assert!((5.0e-4..6.0e-4).contains(&card.seconds(512)));
        // A latency that cannot be is no negative time.
        assert!(Medium { latency: 1.0, ..card }.seconds(100) >= 1.0);
    }

    #[test]
    fn cores_share_the_arithmetic_and_the_memory() {
        let memory = |rate| Memory { size: 1 << 20, rate, read_only: false, dma: true };
        let cycles = Cycles { f32: 1.0, f16: 1.0, q8: 1.0, q4: 1.0, float: 2.0, exp: 10.0 };
        let memories = [memory(1e9), memory(1e6)];
        let board = Board { clock: 1e6, cores: 2, cycles, memories: &memories, storage: None };
        let product = |bytes, memory| board.product(Format::F32, 1_000_000, bytes, 1, memory);
        assert_eq!(product(4_000_000, 0), 0.5);
        // A second for the arithmetic, one for the memory: two cores hide one behind the other.
        assert_eq!(product(1_000_000, 1), 1.0);
        assert_eq!(product(4_000_000, 1), 4.0);
        assert_eq!(Board { cores: 1, ..board }.product(Format::F32, 1_000_000, 1_000_000, 1, 1), 2.0);
        assert_eq!(board.floats(1e6, 1e5), 1.5);
    }
}
