//! What each tensor becomes.

use llamita::weights::{Blocks, Format, Matrix, Tensor};
use llamita::{Config, Tape};
use llamita_kernels::quantized::{GROUP_STEP, MAX_COLUMNS, Quant};

use crate::error::{Error, Result};
use crate::source::{Integers, Source};

/// How exactly weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// Integers with a scale for each group.
    Quantized(Quant),
}

/// Columns of the native formats that share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A number of columns: 32 or 64.
    Columns(usize),
    /// All columns of a row.
    Row,
}

impl Group {
    /// The columns that share a scale in a matrix; rows are filled up to whole groups.
    pub const fn columns(self, columns: usize) -> usize {
        match self {
            Self::Columns(group) => group,
            Self::Row => columns.next_multiple_of(GROUP_STEP),
        }
    }
}

/// The format that each tensor of a model is written in. Norms are F32.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    config: Config,
    /// In tape order.
    formats: Vec<Format>,
}

impl Plan {
    /// The native formats: `head` for the embedding and the classifier, `body` for all other matrices.
    pub fn native(config: &Config, body: Precision, head: Precision, group: Group) -> Result<Self> {
        Self::new(config, body, head, |precision, columns| match precision {
            Precision::F32 => Format::F32,
            Precision::F16 => Format::F16,
            Precision::Quantized(quant) => quantized(quant, group.columns(columns)),
        })
    }

    /// The formats of ggml, as other programs read them: F32, F16, Q8_0 and Q4_0, and F16 for matrices whose
    /// rows are no multiple of 32.
    pub fn ordinary(config: &Config, body: Precision, head: Precision) -> Result<Self> {
        Self::new(config, body, head, |precision, columns| match precision {
            Precision::F32 => Format::F32,
            Precision::F16 => Format::F16,
            Precision::Quantized(_) if !columns.is_multiple_of(32) => Format::F16,
            Precision::Quantized(Quant::Q8) => Format::Blocks(Blocks::Q8_0),
            Precision::Quantized(Quant::Q4) => Format::Blocks(Blocks::Q4_0),
        })
    }

    /// Every matrix in one precision of floats, as formats without integers have them.
    pub fn floats(config: &Config, format: Format) -> Result<Self> {
        Self::new(config, Precision::F32, Precision::F32, |_, _| format)
    }

    /// For each tensor the format nearest to the one it is stored in that the engine uses in place: what is
    /// stored in integers keeps them where a native format has the like, and becomes q8 in groups of 32
    /// otherwise.
    pub fn nearest(source: &dyn Source) -> Result<Self> {
        let config = *source.config();
        let nearest = |tensor| {
            let (_, columns) = Tape::shape(&config, tensor);
            let stored = source.stored(tensor);
            match (stored, Integers::of(stored, columns)) {
                (Format::F32 | Format::F16 | Format::Bf16 | Format::Quantized { .. }, _) => stored,
                (_, Some(Integers { quant, group })) if group == columns && group.is_multiple_of(32) => {
                    quantized(quant, group)
                }
                (_, Some(Integers { quant, group })) if group.is_multiple_of(64) => quantized(quant, 64),
                (_, Some(Integers { quant, group })) if group.is_multiple_of(32) => quantized(quant, 32),
                _ => quantized(Quant::Q8, 32),
            }
        };
        Self::check(Self { config, formats: Tape::tensors(&config).map(nearest).collect() })
    }

    fn new(
        config: &Config,
        body: Precision,
        head: Precision,
        format: impl Fn(Precision, usize) -> Format,
    ) -> Result<Self> {
        let formats = Tape::tensors(config).map(|tensor| {
            let (_, columns) = Tape::shape(config, tensor);
            match tensor {
                Tensor::Norm(_) => Format::F32,
                Tensor::Embedding | Tensor::Matrix(Matrix::Classifier) => format(head, columns),
                Tensor::Matrix(_) => format(body, columns),
            }
        });
        Self::check(Self { config: *config, formats: formats.collect() })
    }

    /// Refuses rows that are too long for the integer sums of the kernels.
    fn check(self) -> Result<Self> {
        for tensor in Tape::tensors(&self.config) {
            let (_, columns) = Tape::shape(&self.config, tensor);
            if let Format::Quantized { group, .. } = self.format(tensor)
                && columns.next_multiple_of(group as usize) > MAX_COLUMNS
            {
                let name = llamita::format::TensorName(tensor);
                return Err(Error::refused(format_args!(
                    "tensor {name} has rows of {columns}, the quantized formats take at most {MAX_COLUMNS}: \
                     convert with --quant f32"
                )));
            }
        }
        Ok(self)
    }

    /// The shape of the models that it is for.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What a tensor becomes.
    pub fn format(&self, tensor: Tensor) -> Format {
        self.formats[Tape::index(&self.config, tensor)]
    }

    /// The tensors to write, in tape order, with their formats: a classifier that is shared is not among them.
    pub fn tensors(&self) -> impl Iterator<Item = (Tensor, Format)> {
        let shared = self.config.shared_classifier;
        let all = Tape::tensors(&self.config).zip(self.formats.iter().copied());
        all.filter(move |(tensor, _)| !(shared && *tensor == Tensor::Matrix(Matrix::Classifier)))
    }
}

/// A native format; the engine's limits keep groups far below 2^32.
const fn quantized(quant: Quant, group: usize) -> Format {
    Format::Quantized { quant, group: group as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Config = Config {
        dim: 64,
        hidden_dim: 172,
        n_layers: 1,
        n_heads: 8,
        n_kv_heads: 4,
        head_size: 8,
        vocab_size: 512,
        seq_len: 512,
        norm_eps: 1e-5,
        rope_theta: 10000.0,
        shared_classifier: true,
    };

    #[test]
    fn head_and_body_have_formats_of_their_own() {
        let (q4, q8) = (Precision::Quantized(Quant::Q4), Precision::Quantized(Quant::Q8));
        let plan = Plan::native(&CONFIG, q4, q8, Group::Row).unwrap();
        let names: Vec<_> = plan.tensors().map(|(_, format)| format.to_string()).collect();
        assert_eq!(names.len(), 11);
        assert!(names[0].contains("q8") && names[0].contains("64"), "{names:?}");
        assert!(names[2].contains("q4") && names[2].contains("64"), "{names:?}");
        assert_eq!(plan.format(Tensor::Matrix(Matrix::W2(0))), quantized(Quant::Q4, 192));
        assert_eq!([&names[1], &names[6], &names[10]], ["F32"; 3]);

        let plan = Plan::ordinary(&CONFIG, q4, q8).unwrap();
        assert_eq!(plan.format(Tensor::Embedding), Format::Blocks(Blocks::Q8_0));
        assert_eq!(plan.format(Tensor::Matrix(Matrix::W1(0))), Format::Blocks(Blocks::Q4_0));
        assert_eq!(plan.format(Tensor::Matrix(Matrix::W2(0))), Format::F16);
    }

    #[test]
    fn rows_that_are_too_long_are_refused() {
        let config = Config { hidden_dim: MAX_COLUMNS + 1, ..CONFIG };
        let (f32, q8) = (Precision::F32, Precision::Quantized(Quant::Q8));
        assert!(Plan::native(&config, f32, q8, Group::Columns(32)).is_ok());
        let error = Plan::native(&config, q8, q8, Group::Columns(32)).unwrap_err().to_string();
        assert!(error.contains("ffn_down") && error.contains("65537"), "{error}");
    }
}
