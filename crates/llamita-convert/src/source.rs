//! Models to read from.

mod checkpoint;

pub use crate::hugging_face::Folder;
pub use checkpoint::Checkpoint;
pub(crate) use checkpoint::decode;

use llamita::weights::{Blocks, Format, Tensor};
use llamita::{Config, Tape};
use llamita_kernels::quantized::Quant;

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

    /// What a llama2.c checkpoint of version 0 has for tables of rope, which nothing reads any more: kept so that a
    /// checkpoint comes back byte for byte. There is no default: a source on top of another would lose them silently.
    fn rope_tables(&self) -> Option<&[u8]>;

    /// How a tensor of the model is stored. A classifier that is shared is the embedding.
    fn stored(&self, tensor: Tensor) -> Format;

    /// Reads whole rows of a tensor, from `first_row` on, as many as `out` has room for: (rows, columns).
    /// A norm is one row.
    ///
    /// # Panics
    /// If `out` is not made of whole rows, or there are not as many.
    fn read(&mut self, tensor: Tensor, first_row: usize, out: &mut [f32]) -> Result<()>;

    /// Reads whole rows of a tensor that is stored in [`Integers`], as many as `values` has room for:
    /// (rows, columns). A weight is its value times the scale of its group, as bits of half precision:
    /// (rows, groups).
    ///
    /// # Panics
    /// If the tensor is stored otherwise, if `values` is not made of whole rows, if there are not as many, or
    /// if `scales` has another length.
    fn read_integers(
        &mut self,
        tensor: Tensor,
        first_row: usize,
        values: &mut [i8],
        scales: &mut [u16],
    ) -> Result<()>;
}

/// Weights that are each an integer times the scale of its group, the way that the native formats have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integers {
    /// The range of the integers.
    pub quant: Quant,
    /// Columns that share a scale; the last group of a row may be shorter.
    pub group: usize,
}

impl Integers {
    /// The integers of rows that are stored this way, if that is what they are.
    pub fn of(stored: Format, columns: usize) -> Option<Self> {
        let (quant, group) = match stored {
            Format::Quantized { quant, group } => (quant, group),
            Format::Blocks(Blocks::Q8_0) => (Quant::Q8, 32),
            Format::Blocks(Blocks::Q4_0) => (Quant::Q4, 32),
            // Its groups are counted over the whole tensor: only some are within a row.
            Format::Blocks(Blocks::Llama2c { group }) if columns.is_multiple_of(group as usize) => {
                (Quant::Q8, group)
            }
            _ => return None,
        };
        Some(Self { quant, group: group as usize })
    }

    /// Whether they can be written in this way without another rounding.
    pub fn fit(self, quant: Quant, group: usize, columns: usize) -> bool {
        let bits = self.quant == quant || (self.quant, quant) == (Quant::Q4, Quant::Q8);
        // A scale can be repeated for the parts of its group; one group may have the whole row.
        let whole = |group| columns.next_multiple_of(32) <= group;
        bits && (self.group.is_multiple_of(group) || whole(self.group) && whole(group))
    }

    /// Groups of a row.
    pub const fn groups(self, columns: usize) -> usize {
        columns.div_ceil(self.group)
    }
}

/// The columns of a tensor, once it is certain that it has the rows that are asked for.
pub(crate) fn check_rows(config: &Config, tensor: Tensor, first_row: usize, len: usize) -> usize {
    let (rows, columns) = Tape::shape(config, tensor);
    assert!(len.is_multiple_of(columns), "{len} numbers are no whole rows of {columns}");
    let count = len / columns;
    assert!(first_row + count <= rows, "rows {first_row} to {} of {rows}", first_row + count);
    columns
}
