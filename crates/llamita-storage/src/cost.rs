//! What the parts of a pass cost on a board.

use llamita::weights::{Matrix, Pass, Tape, Tensor};
use llamita::{CacheFormat, Config, Stage};
use llamita_kernels::LANES;

use crate::board::{Board, Cycles};

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
    pub cache_memory: usize,
}

impl Costs<'_> {
    /// Products of rows of a matrix that are in a memory, or came to it from a medium.
    pub fn product(&self, tape: &Tape<'_>, matrix: Matrix, rows: usize, batch: usize, memory: usize) -> f64 {
        let format = tape.entry(Tensor::Matrix(matrix)).format;
        let columns = Tape::shape(&self.config, Tensor::Matrix(matrix)).1;
        let Cycles { step, share, .. } = self.board.cycles;
        let step = step + if self.board.cores > 1 { share } else { 0.0 };
        self.board.alone(step) + self.board.product(format, rows, columns, batch, memory)
    }

    /// What is done before the product with a matrix: its input is computed, and rounded.
    pub fn before(&self, tape: &Tape<'_>, matrix: Matrix, pass: Pass) -> [(Stage, f64); 2] {
        let (input, seconds) = match matrix {
            Matrix::Wq(layer) => {
                let angles = if layer == 0 { self.angles(pass) } else { 0.0 };
                (Stage::NormAndRope, angles + self.norm_and_rope(pass))
            }
            Matrix::Wo(_) => (Stage::Attention, self.attention(pass)),
            Matrix::W2(_) => (Stage::FeedForward, self.swiglu(pass)),
            Matrix::W1(_) => (Stage::FeedForward, 0.0),
            Matrix::Classifier => (Stage::NormAndRope, self.norm(pass.logits)),
            // They share their input with the matrix before.
            Matrix::Wk(_) | Matrix::Wv(_) | Matrix::W3(_) => return [(stage(matrix), 0.0); 2],
        };
        [(input, seconds), (stage(matrix), self.rounding(tape, matrix, pass))]
    }

    /// Rounding the input of a matrix, on one core.
    fn rounding(&self, tape: &Tape<'_>, matrix: Matrix, pass: Pass) -> f64 {
        if tape.entry(Tensor::Matrix(matrix)).format.group().is_none() {
            return 0.0;
        }
        let columns = Tape::shape(&self.config, Tensor::Matrix(matrix)).1;
        let batch = if matrix == Matrix::Classifier { pass.logits } else { pass.batch };
        self.board.alone((columns * batch) as f64 * self.board.cycles.round)
    }

    /// Attention of a layer, and remembering its keys and values.
    fn attention(&self, pass: Pass) -> f64 {
        let (batch, position) = (pass.batch as f64, pass.position as f64);
        // The tokens of a batch see one position more each.
        let seen = batch * (position + (batch + 1.0) / 2.0);
        let (heads, remembered) = (self.config.n_heads as f64, 2.0 * self.config.kv_dim() as f64);
        let operations = 2.0 * self.config.q_dim() as f64;
        let Cycles { float, exp, cached, position, head, keep, .. } = self.board.cycles;
        let (cycles, bytes) = match self.cache {
            CacheFormat::F32 => (seen * (operations * float + heads * exp), 4.0),
            CacheFormat::Q8 => {
                // In blocks, of which the last is half full on average.
                let blocks = seen + batch * (LANES / 2) as f64;
                let once = batch * (heads * head + remembered * keep);
                (
                    once + blocks * (operations * cached + heads * position),
                    1.0 + 2.0 / self.config.head_size as f64,
                )
            }
        };
        self.board.shared(cycles, seen * remembered * bytes, self.cache_memory)
    }

    /// Sines and cosines of the positions.
    fn angles(&self, pass: Pass) -> f64 {
        let angles = self.config.head_size / 2 * pass.batch;
        self.board.alone(angles as f64 * self.board.cycles.angle)
    }

    /// A norm of some tokens.
    fn norm(&self, tokens: usize) -> f64 {
        let Cycles { float, norm, .. } = self.board.cycles;
        self.board.alone(tokens as f64 * (norm + (3 * self.config.dim) as f64 * float))
    }

    /// Two norms and the rotations of a layer.
    fn norm_and_rope(&self, pass: Pass) -> f64 {
        let rotated = self.config.q_dim() + self.config.kv_dim();
        let rotations = (2 * rotated * pass.batch) as f64 * self.board.cycles.float;
        2.0 * self.norm(pass.batch) + self.board.alone(rotations)
    }

    /// The activation of a layer.
    fn swiglu(&self, pass: Pass) -> f64 {
        let numbers = (self.config.hidden_dim * pass.batch) as f64;
        let Cycles { float, exp, .. } = self.board.cycles;
        self.board.shared(numbers * (4.0 * float + exp), 0.0, 0)
    }

    /// Choosing a token.
    pub fn sampling(&self, pass: Pass) -> f64 {
        let logits = (self.config.vocab_size * pass.logits) as f64;
        self.board.alone(logits * self.board.cycles.logit)
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
