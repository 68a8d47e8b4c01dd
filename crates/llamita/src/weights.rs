//! A model's weights as a tape: a fixed sequence of tensors, each in rows, read once per token in the
//! same order. [`Weights`] lends the next rows; where they live is its own affair.

use core::fmt;

use llamita_kernels::Rows;
use llamita_kernels::quantized::{BLOCK_ROWS, Quant};

use crate::config::Config;
use crate::format::FormatError;

/// A matrix of the model; rows are outputs, columns are inputs. Layers count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// Query projection of a layer: (n_heads * head_size, dim).
    Wq(usize),
    /// Key projection of a layer: (n_kv_heads * head_size, dim).
    Wk(usize),
    /// Value projection of a layer: (n_kv_heads * head_size, dim).
    Wv(usize),
    /// Output projection of attention: (dim, n_heads * head_size).
    Wo(usize),
    /// Gate of the feed-forward layer: (hidden_dim, dim).
    W1(usize),
    /// Up projection of the feed-forward layer: (hidden_dim, dim).
    W3(usize),
    /// Down projection of the feed-forward layer: (dim, hidden_dim).
    W2(usize),
    /// Logits from the last activations: (vocab_size, dim); the token embedding where it is shared.
    Classifier,
}

/// The weights of an rmsnorm: (dim,).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Before attention of a layer.
    Attention(usize),
    /// Before the feed-forward part of a layer.
    FeedForward(usize),
    /// Before the classifier.
    Final,
}

/// What a pass computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Position of the first token.
    pub position: usize,
    /// Number of tokens.
    pub batch: usize,
    /// Tokens whose logits are computed.
    pub logits: usize,
}

/// The weights of a model, lent in the order in which a forward pass reads them.
///
/// Norms are small and always resident. Matrices may be anywhere: a forward pass asks for rows until it
/// has had them all.
pub trait Weights {
    /// Why rows could not be lent, for example a storage error.
    type Error: core::error::Error;

    /// The model's shape.
    fn config(&self) -> &Config;

    /// The weights of a norm: (dim,).
    fn norm(&self, norm: Norm) -> &[f32];

    /// Copies the embedding of `token`, which is below `vocab_size`, to `out`: (dim,).
    fn embed(&mut self, token: u32, out: &mut [f32]) -> Result<(), Self::Error>;

    /// Hears of a pass before anything of it is asked for. Streams read ahead, and a pass without logits needs no
    /// classifier; others need not listen.
    fn begin(&mut self, _pass: Pass) {}

    /// Whether a pass that failed for this reason may be computed once more from its start, since what was wrong may
    /// be right by then: a stream from a medium that makes errors says so for a while.
    fn retry(&mut self, _error: &Self::Error) -> bool {
        false
    }

    /// Time spent so far waiting for rows to arrive, in ticks of the clock that the profile reads.
    fn waited(&self) -> u64 {
        0
    }

    /// Hears the input of a product before its rows are asked for: the first of its matrices, and activations
    /// of one token after another, (batch, columns). Quantization with calibration collects them; others need
    /// not listen.
    fn observe(&mut self, _first: Matrix, _input: &[f32]) {}

    /// Lends rows of matrices that are multiplied with the same input, matrix `i` from row `from[i]` on.
    ///
    /// Weights that are resident lend all rows to the end. Others lend what they have: at least one row
    /// of the first unfinished matrix, none of those whose turn has not come; of quantized matrices whole
    /// blocks of [`BLOCK_ROWS`] rows. Quantized matrices of one call have groups of one size.
    fn lend<const N: usize>(
        &mut self,
        matrices: [Matrix; N],
        from: [usize; N],
    ) -> Result<[Rows<'_>; N], Self::Error>;
}

/// How the numbers of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// IEEE 754 single precision, little-endian.
    F32,
    /// IEEE 754 half precision, little-endian.
    F16,
    /// The upper half of an `f32`, little-endian.
    Bf16,
    /// Integers of few bits, used in place; see [`llamita_kernels::quantized`].
    Quantized {
        /// Bits of a weight.
        quant: Quant,
        /// Columns that share a scale.
        group: u32,
    },
    /// Blocks of integers and scales that have to be repacked before they are used.
    Blocks(Blocks),
}

/// Quantized formats of other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "these are ggml's names")]
pub enum Blocks {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q6K,
    /// llama2.c version 2: all integers of the tensor, then an `f32` scale for each `group` of them, counted
    /// over the whole tensor.
    Llama2c {
        /// Weights that share a scale.
        group: u32,
    },
}

impl Blocks {
    /// Weights of a block, and its bytes.
    pub const fn size(self) -> (u64, u64) {
        match self {
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q6K => (256, 210),
            Self::Llama2c { group } => (group as u64, group as u64 + 4),
        }
    }

    /// The name that the format has where it comes from.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
            Self::Llama2c { .. } => "llama2.c int8",
        }
    }
}

impl Format {
    /// Bytes of a matrix, whose sizes are within those of a config; quantized ones are filled up with zeros
    /// to whole groups and blocks of rows, and their scales count.
    pub const fn bytes(self, rows: usize, columns: usize) -> u64 {
        // Chips divide 32 bits in an instruction, 64 in hundreds.
        let groups = match self {
            Self::Quantized { group, .. } => columns.div_ceil(group as usize) as u64,
            _ => 0,
        };
        let (rows, columns) = (rows as u64, columns as u64);
        match self {
            Self::F32 => 4 * rows * columns,
            Self::F16 | Self::Bf16 => 2 * rows * columns,
            Self::Quantized { quant, group } => {
                let rows = rows.next_multiple_of(BLOCK_ROWS as u64);
                let values = rows * groups * group as u64;
                2 * rows * groups + if matches!(quant, Quant::Q8) { values } else { values / 2 }
            }
            Self::Blocks(blocks) => {
                let (weights, bytes) = blocks.size();
                (rows * columns).div_ceil(weights) * bytes
            }
        }
    }

    /// What the address of the numbers must be a multiple of.
    pub const fn alignment(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Quantized { .. } | Self::Blocks(_) => 1,
        }
    }

    /// The columns that share a scale, where activations have to be quantized in the same groups.
    pub const fn group(self) -> Option<u32> {
        match self {
            Self::Quantized { group, .. } => Some(group),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Quantized { quant: Quant::Q8, group } => return write!(f, "q8, groups of {group}"),
            Self::Quantized { quant: Quant::Q4, group } => return write!(f, "q4, groups of {group}"),
            Self::Blocks(Blocks::Llama2c { group }) => return write!(f, "int8, groups of {group}"),
            Self::Blocks(blocks) => blocks.name(),
        })
    }
}

/// Where one tensor of the tape lies in the model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First byte, from the start of the file.
    pub offset: u64,
    /// How its numbers are stored.
    pub format: Format,
    /// CRC-32 of its bytes, if the file has such sums.
    pub checksum: Option<u32>,
}

impl Entry {
    /// A place holder, to fill the memory that is lent to a reader.
    pub const EMPTY: Self = Self { offset: 0, format: Format::F32, checksum: None };
}

/// A tensor of the tape: its place in the sequence follows from the model's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tensor {
    /// The token embedding: (vocab_size, dim).
    Embedding,
    /// A norm.
    Norm(Norm),
    /// A matrix.
    Matrix(Matrix),
}

/// The tensors of a model in the order in which a forward pass reads them.
#[derive(Clone, Copy, Debug)]
pub struct Tape<'a> {
    config: Config,
    entries: &'a [Entry],
}

impl<'a> Tape<'a> {
    /// Tensors of one layer, in tape order.
    pub const LAYER: [fn(usize) -> Tensor; 9] = [
        |layer| Tensor::Norm(Norm::Attention(layer)),
        |layer| Tensor::Matrix(Matrix::Wq(layer)),
        |layer| Tensor::Matrix(Matrix::Wk(layer)),
        |layer| Tensor::Matrix(Matrix::Wv(layer)),
        |layer| Tensor::Matrix(Matrix::Wo(layer)),
        |layer| Tensor::Norm(Norm::FeedForward(layer)),
        |layer| Tensor::Matrix(Matrix::W1(layer)),
        |layer| Tensor::Matrix(Matrix::W3(layer)),
        |layer| Tensor::Matrix(Matrix::W2(layer)),
    ];

    /// Entries of a tape for this shape: what a caller lends to a reader.
    ///
    /// The classifier has an entry even where it is shared; it then equals that of the embedding.
    pub const fn len(config: &Config) -> usize {
        Self::LAYER.len() * config.n_layers + 3
    }

    /// The index of a tensor's entry.
    pub const fn index(config: &Config, tensor: Tensor) -> usize {
        let (layer, place) = match tensor {
            Tensor::Embedding => return 0,
            Tensor::Norm(Norm::Attention(layer)) => (layer, 0),
            Tensor::Matrix(Matrix::Wq(layer)) => (layer, 1),
            Tensor::Matrix(Matrix::Wk(layer)) => (layer, 2),
            Tensor::Matrix(Matrix::Wv(layer)) => (layer, 3),
            Tensor::Matrix(Matrix::Wo(layer)) => (layer, 4),
            Tensor::Norm(Norm::FeedForward(layer)) => (layer, 5),
            Tensor::Matrix(Matrix::W1(layer)) => (layer, 6),
            Tensor::Matrix(Matrix::W3(layer)) => (layer, 7),
            Tensor::Matrix(Matrix::W2(layer)) => (layer, 8),
            Tensor::Norm(Norm::Final) => (config.n_layers, 0),
            Tensor::Matrix(Matrix::Classifier) => (config.n_layers, 1),
        };
        1 + Self::LAYER.len() * layer + place
    }

    /// The tensor of an index that is below [`Tape::len`].
    pub fn tensor(config: &Config, index: usize) -> Tensor {
        let Some(place) = index.checked_sub(1) else { return Tensor::Embedding };
        match (place / Self::LAYER.len(), place % Self::LAYER.len()) {
            (layer, place) if layer < config.n_layers => Self::LAYER[place](layer),
            (_, 0) => Tensor::Norm(Norm::Final),
            _ => Tensor::Matrix(Matrix::Classifier),
        }
    }

    /// Every tensor of a model of this shape, in tape order.
    pub fn tensors(config: &Config) -> impl Iterator<Item = Tensor> + use<> {
        let config = *config;
        (0..Self::len(&config)).map(move |index| Self::tensor(&config, index))
    }

    /// Rows and columns of a tensor; a norm is one row.
    pub const fn shape(config: &Config, tensor: Tensor) -> (usize, usize) {
        match tensor {
            Tensor::Embedding | Tensor::Matrix(Matrix::Classifier) => (config.vocab_size, config.dim),
            Tensor::Norm(_) => (1, config.dim),
            Tensor::Matrix(Matrix::Wq(_)) => (config.q_dim(), config.dim),
            Tensor::Matrix(Matrix::Wk(_) | Matrix::Wv(_)) => (config.kv_dim(), config.dim),
            Tensor::Matrix(Matrix::Wo(_)) => (config.dim, config.q_dim()),
            Tensor::Matrix(Matrix::W1(_) | Matrix::W3(_)) => (config.hidden_dim, config.dim),
            Tensor::Matrix(Matrix::W2(_)) => (config.dim, config.hidden_dim),
        }
    }

    /// A tape from entries in tape order; there must be [`Tape::len`] of them.
    pub fn new(config: Config, entries: &'a [Entry]) -> Result<Self, FormatError> {
        if entries.len() != Self::len(&config) {
            return Err(FormatError::TapeLength { found: entries.len(), expected: Self::len(&config) });
        }
        Ok(Self { config, entries })
    }

    /// The model's shape.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Where a tensor of this model lies.
    // Callers want a part of it, and a call would copy all.
    #[inline(always)]
    pub fn entry(&self, tensor: Tensor) -> Entry {
        self.entries[Self::index(&self.config, tensor)]
    }

    /// Bytes of a tensor in the file.
    pub fn bytes(&self, tensor: Tensor) -> u64 {
        let (rows, columns) = Self::shape(&self.config, tensor);
        self.entry(tensor).format.bytes(rows, columns)
    }
}
