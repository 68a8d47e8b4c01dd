//! Models to read from.

mod checkpoint;

pub use checkpoint::Checkpoint;

use std::fmt;

use llamita::weights::Tensor;
use llamita::{Config, Tape};

use crate::error::Result;
use crate::vocabulary::Vocabulary;

/// A model that can be read a few rows at a time.
///
/// Rows of queries and keys have the pairs of rope side by side, as llama2.c and GGUF have them.
pub trait Source {
    /// The model's shape.
    fn config(&self) -> &Config;

    /// What the model calls itself.
    fn name(&self) -> Option<&str>;

    /// The model's tokens, where they are known.
    fn vocabulary(&self) -> Option<&Vocabulary>;

    /// How a tensor of the model is stored. A classifier that is shared is the embedding.
    fn stored(&self, tensor: Tensor) -> Stored;

    /// Reads whole rows of a tensor, from `first_row` on, as many as `out` has room for: (rows, columns).
    /// A norm is one row.
    ///
    /// # Panics
    /// If `out` is not made of whole rows, or there are not as many.
    fn read(&mut self, tensor: Tensor, first_row: usize, out: &mut [f32]) -> Result<()>;
}

/// How the numbers of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        })
    }
}

/// The columns of a tensor, once it is certain that it has the rows that are asked for.
fn check_rows(config: &Config, tensor: Tensor, first_row: usize, len: usize) -> usize {
    let (rows, columns) = Tape::shape(config, tensor);
    assert!(len.is_multiple_of(columns), "{len} numbers are no whole rows of {columns}");
    let count = len / columns;
    assert!(first_row + count <= rows, "rows {first_row} to {} of {rows}", first_row + count);
    columns
}
