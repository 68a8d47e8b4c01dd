//! What the parts of a pass cost on a board.

use llamita::weights::{Matrix, Pass, Tape, Tensor};
use llamita::{CacheFormat, Config, Stage};

use crate::board::Board;

/// Seconds of the parts of a pass, by what a board's cores and memories do.
///
/// These are estimates: a few cycles for each number that is touched.
#[derive(Clone, Copy, Debug)]
pub struct Costs<'a> {
    /// The machine.
    pub board: Board<'a>,
    /// The model's shape.
    pub config: Config,
    /// How keys and values are kept.
    pub cache: CacheFormat,
    /// The memory that they are in, by its number.
    pub state_memory: usize,
}

impl Costs<'_> {
    /// Products of rows of a matrix that have `bytes` in a memory, or came to it from a medium.
    pub fn product(&self, tape: &Tape<'_>, matrix: Matrix, rows: usize, batch: usize, memory: usize) -> f64 {
        let format = tape.entry(Tensor::Matrix(matrix)).format;
        let columns = Tape::shape(&self.config, Tensor::Matrix(matrix)).1;
        let weights = rows as u64 * columns as u64;
        self.board.product(format, weights, format.bytes(rows, columns), batch, memory)
    }

    /// Attention of a layer.
    pub fn attention(&self, pass: Pass) -> f64 {
        // The tokens of a batch see one position more each.
        let seen = pass.batch as f64 * (pass.position as f64 + (pass.batch as f64 + 1.0) / 2.0);
        let Config { n_heads, .. } = self.config;
        let (operations, exponentials) = (2.0 * self.config.q_dim() as f64 * seen, n_heads as f64 * seen);
        let bytes = match self.cache {
            CacheFormat::F32 => 4.0,
            CacheFormat::Q8 => 1.0 + 2.0 / self.config.head_size as f64,
        };
        let reading = match self.state_memory {
            0 => 0.0,
            memory => 2.0 * self.config.kv_dim() as f64 * seen * bytes / self.board.memories[memory].rate,
        };
        reading.max(self.board.floats(operations, exponentials) + reading / self.board.cores as f64)
    }

    /// Two norms and the rotations of a layer, and rounding the inputs of its products.
    pub fn norm_and_rope(&self, pass: Pass) -> f64 {
        let Config { dim, hidden_dim, .. } = self.config;
        let rotated = self.config.q_dim() + self.config.kv_dim();
        let rounded = 2 * dim + self.config.q_dim() + hidden_dim;
        // On one core.
        let operations = (2 * 3 * dim + 2 * rotated + 3 * rounded) as f64 * pass.batch as f64;
        self.board.floats(operations, 0.0) * self.board.cores as f64
    }

    /// The activation of a layer.
    pub fn swiglu(&self, pass: Pass) -> f64 {
        let numbers = self.config.hidden_dim as f64 * pass.batch as f64;
        self.board.floats(4.0 * numbers, numbers)
    }

    /// Choosing a token.
    pub fn sampling(&self, pass: Pass) -> f64 {
        let numbers = self.config.vocab_size as f64 * pass.logits as f64;
        self.board.floats(4.0 * numbers, numbers) * self.board.cores as f64
    }
}

/// The part of the work that a matrix belongs to.
pub const fn stage(matrix: Matrix) -> Stage {
    match matrix {
        Matrix::Wq(_) | Matrix::Wk(_) | Matrix::Wv(_) | Matrix::Wo(_) => Stage::Projections,
        Matrix::W1(_) | Matrix::W3(_) | Matrix::W2(_) => Stage::FeedForward,
        Matrix::Classifier => Stage::Classifier,
    }
}
