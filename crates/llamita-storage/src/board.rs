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
    /// For eight bits; what their groups take is apart.
    pub q8: f64,
    /// For four bits.
    pub q4: f64,
    /// For each group of a row of eight or four bits: its scale.
    pub group: f64,
    /// For each row.
    pub row: f64,
    /// For a multiplication and addition of floats elsewhere.
    pub float: f64,
    /// For an exponential.
    pub exp: f64,
    /// For rounding an input of a product to eight bits.
    pub round: f64,
    /// For a norm of a token, whatever its size: a root and a division.
    pub norm: f64,
    /// For the sine and the cosine of an angle.
    pub angle: f64,
    /// For each logit of a token that is chosen.
    pub logit: f64,
    /// For each portion of a matrix, whatever its size: having its rows lent, and sharing them out.
    pub step: f64,
    /// The same, besides, where there are more cores than one: handing parts over, and waiting for them.
    pub share: f64,
    /// Of attention over keys and values of eight bits: for a multiplication and addition.
    pub cached: f64,
    /// The same: for each position of a head, besides.
    pub position: f64,
    /// The same: for each head.
    pub head: f64,
    /// The same: for each key and each value that is kept.
    pub keep: f64,
}

impl Cycles {
    /// A cycle for everything, where only places count.
    pub const ONE: Self = Self::new([1.0; 4], 1.0, 1.0);

    /// What takes part in the cycles for weights (those of `f32`, `f16`, `q8` and `q4`), or follows from those of floats,
    /// where no more is known.
    pub const fn new([f32, f16, q8, q4]: [f64; 4], float: f64, exp: f64) -> Self {
        Self {
            f32,
            f16,
            q8,
            q4,
            group: 0.0,
            row: 0.0,
            float,
            exp,
            // A product, a sum and a comparison.
            round: 3.0 * float,
            norm: 2.0 * exp,
            // Polynomials of double precision.
            angle: 4.0 * exp,
            logit: 4.0 * float + exp,
            step: 0.0,
            share: 0.0,
            cached: float,
            position: exp,
            head: 0.0,
            keep: 3.0 * float,
        }
    }

    /// Cycles for rows of weights of this format, so many columns each.
    fn rows(&self, format: Format, rows: usize, columns: usize) -> f64 {
        let groups = format.group().map_or(0, |group| columns.div_ceil(group as usize));
        rows as f64 * (columns as f64 * self.per_weight(format) + groups as f64 * self.group + self.row)
    }

    /// Cycles for one multiplication and addition with a weight of this format.
    const fn per_weight(&self, format: Format) -> f64 {
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
    /// Seconds that the cores take for rows of weights, multiplied with each of `batch` tokens, where they are in a memory,
    /// or have just come from the medium to the fastest.
    ///
    /// While one core waits for a memory others compute, but they share its rate; the fastest memory's own time is
    /// part of the cycles. What a batch computes together is read once.
    pub fn product(&self, format: Format, rows: usize, columns: usize, batch: usize, memory: usize) -> f64 {
        let arithmetic = self.cycles.rows(format, rows, columns) * batch as f64;
        self.shared(arithmetic, format.bytes(rows, columns) as f64, memory)
    }

    /// Seconds of work that all cores share, in cycles of one, that reads bytes of a memory.
    pub fn shared(&self, cycles: f64, bytes: f64, memory: usize) -> f64 {
        let reading = if memory == 0 { 0.0 } else { bytes / self.memories[memory].rate };
        reading.max((cycles / self.clock + reading) / self.cores as f64)
    }

    /// Seconds of work of one core.
    pub const fn alone(&self, cycles: f64) -> f64 {
        cycles / self.clock
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
        let cycles = Cycles { group: 32.0, ..Cycles::new([1.0; 4], 2.0, 10.0) };
        let memories = [memory(1e9), memory(1e6)];
        let board = Board { clock: 1e6, cores: 2, cycles, memories: &memories, storage: None };
        let product = |format, memory| board.product(format, 1000, 1000, 1, memory);
        assert_eq!(product(Format::F32, 0), 0.5);
        assert_eq!(product(Format::F32, 1), 4.0);
        // A second for the arithmetic, one for the memory: two cores hide one behind the other.
        assert_eq!(board.shared(1e6, 1e6, 1), 1.0);
        assert_eq!(Board { cores: 1, ..board }.shared(1e6, 1e6, 1), 2.0);
        // 32 groups in a row, the last of which is not full.
        let groups = Format::Quantized { quant: Quant::Q8, group: 32 };
        assert_eq!(product(groups, 0), 0.5 * (1.0 + 1000.0 * 32.0 * 32.0 / 1e6));
        assert_eq!(board.alone(1e6), 1.0);
    }
}
