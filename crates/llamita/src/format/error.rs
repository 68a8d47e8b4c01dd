//! Why a model file was refused.

use core::fmt;

use super::{Kind, gguf};
use crate::config::ConfigError;
use crate::tokenizer::PreTokenizer;
use crate::weights::{Blocks, Format, Tensor};

/// Why a model file was refused: what was found, what was expected, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum FormatError {
    /// A file of another kind, recognised by its first bytes.
    Foreign(Foreign),
    /// No known mark at the start, and a shape that no llama2.c checkpoint has.
    Unrecognised(ConfigError),
    /// A version of a known format that is not supported.
    Version {
        /// The format: a llama2.c file with a magic number, or GGUF.
        kind: Kind,
        /// The version found.
        found: u32,
    },
    /// A GGUF file for big-endian machines.
    BigEndian,
    /// The file is not as long as its header says, in bytes.
    FileSize {
        /// The format; version 0 of llama2.c has no magic number, so it may be something else.
        kind: Kind,
        /// Bytes of the file.
        found: u64,
        /// Bytes that the header promises.
        expected: u64,
    },
    /// A part of the header goes beyond the end of the file.
    Truncated {
        /// The part.
        what: &'static str,
        /// Where it starts, in bytes from the start of the file.
        at: u64,
        /// Bytes that it takes, at least.
        needed: u64,
        /// Bytes that are left.
        left: u64,
    },
    /// A shape that no model can have.
    Shape(ConfigError),
    /// The memory lent for a tape does not suit the model, in entries.
    TapeLength {
        /// Entries lent.
        found: usize,
        /// Entries of this model's tape.
        expected: usize,
    },
    /// A model of another architecture than Llama.
    Architecture(Name),
    /// The model stretches its rope, and this says so: a metadata key or a tensor.
    RopeScaling(&'static str),
    /// A metadata key asks for a computation that the engine does not do.
    Feature(&'static str),
    /// One of several files of a split model; the number of files.
    Split(u64),
    /// A required metadata key is missing.
    MissingKey(&'static str),
    /// A metadata key that must be unique appears twice.
    DuplicateKey(&'static str),
    /// A metadata value is of another type than its key wants.
    KeyType {
        /// The key.
        key: &'static str,
        /// The type found.
        found: &'static str,
        /// The type expected.
        expected: &'static str,
    },
    /// A metadata value that should be one number is an array with a number for each layer.
    PerLayer(&'static str),
    /// `general.alignment` is no power of two.
    Alignment(u64),
    /// A metadata value, or the length of an array, does not agree with another.
    Disagree {
        /// The key.
        key: &'static str,
        /// Its value or length.
        found: u64,
        /// What it has to agree with.
        with: &'static str,
        /// The value of that.
        expected: u64,
    },
    /// The id of a special token is not in the vocabulary.
    TokenId {
        /// The key.
        key: &'static str,
        /// The id found.
        found: u64,
        /// Tokens of the vocabulary.
        count: u64,
    },
    /// A metadata array of arrays, under this key.
    NestedArray(Name),
    /// A metadata value of a type that GGUF does not have.
    ValueType {
        /// The key.
        key: Name,
        /// The type found.
        found: u32,
    },
    /// A tensor has more dimensions than GGUF allows.
    Dimensions {
        /// The tensor.
        tensor: Name,
        /// Dimensions found.
        found: u32,
    },
    /// A tokenizer of a kind that is not supported.
    TokenizerModel(Name),
    /// A byte-level tokenizer that cuts text into words by a rule which is not supported.
    PreTokenizer(Name),
    /// The vocabulary is byte-level, and this program was built without the feature `byte-level`.
    ByteLevel,
    /// A tensor that a model of this shape must have is missing.
    MissingTensor(Tensor),
    /// A tensor appears twice.
    DuplicateTensor(Tensor),
    /// A tensor that a plain Llama model does not have.
    UnexpectedTensor(Name),
    /// A tensor is stored in a way that is not supported.
    TensorType {
        /// The tensor.
        tensor: Tensor,
        /// The type's number in ggml.
        found: u32,
    },
    /// Tensors of this type have rows of whole blocks, this one does not.
    BlockRow {
        /// The tensor.
        tensor: Tensor,
        /// Its columns.
        columns: usize,
        /// Its type.
        blocks: Blocks,
    },
    /// The groups of llama2.c's version 2 do not fill a tensor.
    Group {
        /// The tensor.
        tensor: Tensor,
        /// Weights of a group.
        found: u32,
    },
    /// A tensor cannot be used in place.
    Repack {
        /// The tensor.
        tensor: Tensor,
        /// How it is stored.
        format: Format,
    },
    /// The layout of quantized tensors has a version that is not known.
    Layout(u64),
    /// A quantized tensor is not of bytes.
    QuantizedType {
        /// The tensor.
        tensor: Tensor,
        /// The type, as ggml numbers it.
        found: u32,
    },
    /// The sizes of a quantized tensor do not fit the model.
    QuantizedShape {
        /// The tensor.
        tensor: Tensor,
        /// Bytes of a block of rows, and blocks.
        found: (u64, u64),
        /// Rows and columns that follow from the header.
        expected: (usize, usize),
    },
    /// Matrices that share an input have groups of different sizes; the first of them.
    MixedGroups(Tensor),
    /// A tensor is not what its checksum says, or can have none.
    Checksum(Name),
    /// A tensor's shape is not what the header says.
    TensorShape {
        /// The tensor.
        tensor: Tensor,
        /// Its dimensions as GGUF has them, columns first.
        found: [u64; 4],
        /// Rows and columns that follow from the header.
        expected: (usize, usize),
    },
    /// A tensor goes beyond the end of the file.
    TensorBounds {
        /// The tensor.
        tensor: Tensor,
        /// Where it ends, in bytes from the start of the file.
        end: u64,
        /// Bytes of the file.
        file: u64,
    },
    /// A tensor is not where it can be used in place.
    TensorAlignment {
        /// The tensor.
        tensor: Tensor,
        /// Where it starts, in bytes.
        offset: u64,
        /// What that should be a multiple of.
        alignment: u64,
    },
    /// The memory that holds the file is not where a tensor's numbers can be used in place.
    MemoryAlignment {
        /// The tensor.
        tensor: Tensor,
        /// What its address should be a multiple of.
        alignment: u64,
    },
    /// A weight of a norm is infinite or not a number.
    NotFinite {
        /// The norm.
        tensor: Tensor,
        /// Index of the first such weight.
        index: usize,
    },
    /// A llama2.c header of version 0 cannot express this field's value.
    NotInVersion0(&'static str),
}

/// Files that are taken for models by mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// No bytes at all.
    Empty,
    /// Safetensors, from Hugging Face.
    Safetensors,
    /// A zip archive, which is what PyTorch checkpoints are.
    Zip,
    /// One of GGUF's predecessors.
    OldGgml,
    /// Compressed with gzip.
    Gzip,
    /// A web page.
    Html,
    /// The note that Git leaves in place of a large file.
    GitLfs,
    /// A tokenizer in llama2.c's format.
    Tokenizer,
    /// A tokenizer in sentencepiece's format.
    SentencePiece,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty; copy or download it again",
            Self::Safetensors => {
                "it is safetensors; convert its folder with `llamita convert FOLDER model.gguf`"
            }
            Self::Zip => "it is a zip archive; export a PyTorch checkpoint with llama2.c's export.py",
            Self::OldGgml => "it is a predecessor of GGUF; convert the original model to GGUF",
            Self::Gzip => "it is compressed with gzip; unpack it",
            Self::Html => "it is a web page; download the file itself",
            Self::GitLfs => "it is a Git LFS pointer; get the file itself with `git lfs pull`",
            Self::Tokenizer => "it is a llama2.c tokenizer; give the model file here",
            Self::SentencePiece => "it is a sentencepiece tokenizer; give the model file here",
        })
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Foreign(foreign) => write!(f, "not a model file that llamita reads: {foreign}"),
            Self::Unrecognised(error) => write!(
                f,
                "not a model file that llamita reads: it is neither GGUF nor a llama2.c checkpoint \
                 (read as one, {error})"
            ),
            Self::Version { kind: Kind::Gguf, found } => write!(
                f,
                "GGUF version {found}, supported are 2 and 3: \
                 convert the original model with a current llama.cpp"
            ),
            Self::Version { found, .. } => {
                write!(
                    f,
                    "llama2.c version {found}, supported are 0, 1 and 2: \
                     export the model again with `export.py --version 1`"
                )
            }
            Self::BigEndian => f.write_str(
                "big-endian GGUF, only little-endian is supported: \
                 convert it with `gguf_convert_endian.py FILE little`",
            ),
            Self::FileSize { kind, found, expected } => {
                write!(f, "the file is {found} bytes, its header promises {expected}: it ")?;
                f.write_str(if found < expected {
                    "is truncated, copy or download it again"
                } else {
                    "is damaged or something was appended, copy or download it again"
                })?;
                if matches!(kind, Kind::Llama2cV0) {
                    f.write_str(" (or it is no llama2.c checkpoint: version 0 has no mark to tell)")?;
                }
                Ok(())
            }
            Self::Truncated { what, at, needed, left } => write!(
                f,
                "{what} at byte {at} takes {needed} bytes, the file has {left} more: \
                 it is truncated or damaged, copy or download it again"
            ),
            Self::Shape(error) => {
                write!(f, "{error}: the file is damaged, or the model is not one that llamita runs")
            }
            Self::TapeLength { found, expected } => write!(
                f,
                "{found} entries were lent for the tape, this model has {expected}: \
                 lend as many as Tape::len says"
            ),
            Self::Architecture(name) => write!(
                f,
                "the model's architecture is \"{name}\", supported is \"llama\": choose a Llama-family model"
            ),
            Self::RopeScaling(source) => {
                write!(f, "rope scaling is not supported (the file has {source}): choose a model without it")
            }
            Self::Feature(key) => write!(
                f,
                "{key} asks for what is not supported, and ignoring it would compute a different model: \
                 choose a plain Llama model"
            ),
            Self::Split(count) => write!(
                f,
                "the model is split into {count} files, expected one: \
                 merge them with `llama-gguf-split --merge`"
            ),
            Self::MissingKey(key) => {
                write!(f, "the metadata lack {key}: convert the original model with a current llama.cpp")
            }
            Self::DuplicateKey(key) => {
                write!(f, "the metadata have {key} twice, expected once: copy or download the file again")
            }
            Self::KeyType { key, found, expected } => {
                write!(f, "{key} is of type {found}, expected {expected}: {DAMAGED}")
            }
            Self::PerLayer(key) => write!(
                f,
                "{key} is an array, expected one number: models whose layers differ are not supported"
            ),
            Self::Alignment(found) => {
                write!(f, "general.alignment is {found}, expected a power of two: {DAMAGED}")
            }
            Self::Disagree { key, found, with, expected } => {
                write!(f, "{key} gives {found}, expected {expected} as in {with}: {VARIANT}")
            }
            Self::TokenId { key, found, count } => {
                write!(f, "{key} is {found}, expected one of {count} tokens: {DAMAGED}")
            }
            Self::NestedArray(key) => {
                write!(f, "{key} is an array of arrays, expected none: {DAMAGED}")
            }
            Self::ValueType { key, found } => {
                write!(f, "{key} has values of type {found}, expected 0 to 12: {DAMAGED}")
            }
            Self::Dimensions { tensor, found } => {
                write!(f, "tensor {tensor} has {found} dimensions, expected at most 4: {DAMAGED}")
            }
            Self::TokenizerModel(name) => write!(
                f,
                "the tokenizer is \"{name}\", supported are \"llama\" (sentencepiece) and \"gpt2\" \
                 (byte-level BPE): choose a model with one of those"
            ),
            Self::PreTokenizer(name) => write!(
                f,
                "the tokenizer cuts text into words as \"{name}\" does, supported are {}: \
                 choose a model with one of those",
                PreTokenizer::SUPPORTED
            ),
            Self::ByteLevel => f.write_str(
                "the vocabulary is byte-level, which this program was built without: build it with the feature \
                 `byte-level`, or choose a model with a sentencepiece vocabulary",
            ),
            Self::MissingTensor(tensor) => {
                write!(f, "tensor {} is missing: {VARIANT}", gguf::TensorName(tensor))
            }
            Self::DuplicateTensor(tensor) => {
                write!(f, "tensor {} appears twice, expected once: {DAMAGED}", gguf::TensorName(tensor))
            }
            Self::UnexpectedTensor(name) => write!(
                f,
                "tensor {name} is not supported, and ignoring it would compute a different model: \
                 choose a plain Llama model"
            ),
            Self::TensorType { tensor, found } => {
                write!(f, "tensor {} is ", gguf::TensorName(tensor))?;
                match gguf::type_name(found) {
                    Some(name) => f.write_str(name)?,
                    None => write!(f, "of unknown type {found}")?,
                }
                match tensor {
                    Tensor::Norm(_) => write!(f, ", norms must be {}: get the model with these", Format::F32),
                    _ => f.write_str(
                        ", supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K and Q6_K: \
                         get the model in one of these",
                    ),
                }
            }
            Self::BlockRow { tensor, columns, blocks } => write!(
                f,
                "tensor {} has rows of {columns}, {} wants multiples of {}: {DAMAGED}",
                gguf::TensorName(tensor),
                blocks.name(),
                blocks.size().0
            ),
            Self::Group { tensor, found } => write!(
                f,
                "the header says groups of {found}, which do not fill tensor {}: {DAMAGED}",
                gguf::TensorName(tensor)
            ),
            Self::Repack { tensor, format } => write!(
                f,
                "tensor {} is {format}, which has to be repacked before it is used: \
                 convert the file with `llamita convert`",
                gguf::TensorName(tensor)
            ),
            Self::Layout(found) => write!(
                f,
                "the file has llamita's layout {found}, supported is {}: use the llamita that wrote it, \
                 or convert the original model again",
                super::device::LAYOUT
            ),
            Self::QuantizedType { tensor, found } => {
                write!(f, "tensor {} is quantized and of ", gguf::TensorName(tensor))?;
                match gguf::type_name(found) {
                    Some(name) => f.write_str(name)?,
                    None => write!(f, "type {found}")?,
                }
                write!(f, ", expected I8: {CONVERT}")
            }
            Self::QuantizedShape { tensor, found: (width, height), expected: (rows, columns) } => write!(
                f,
                "tensor {} is quantized and has {width} x {height} bytes, which are no groups of a matrix of \
                 {columns} x {rows}: {CONVERT}",
                gguf::TensorName(tensor)
            ),
            Self::MixedGroups(tensor) => write!(
                f,
                "tensor {} and those beside it have groups of different sizes, expected one: {CONVERT}",
                gguf::TensorName(tensor)
            ),
            Self::Checksum(name) => {
                write!(f, "the checksum of tensor {name} is wrong: {DAMAGED}")
            }
            Self::TensorShape { tensor, found, expected: (rows, columns) } => {
                let [width, height, depth, more] = found;
                write!(f, "tensor {} is {width} x {height}", gguf::TensorName(tensor))?;
                if (depth, more) != (1, 1) {
                    write!(f, " x {depth} x {more}")?;
                }
                write!(f, ", expected {columns} x {rows} from the metadata: {VARIANT}")
            }
            Self::TensorBounds { tensor, end, file } => write!(
                f,
                "the file is {file} bytes, its tensor {} ends at {end}: \
                 it is truncated or damaged, copy or download it again",
                gguf::TensorName(tensor)
            ),
            Self::TensorAlignment { tensor, offset, alignment } => write!(
                f,
                "tensor {} is at byte {offset}, expected a multiple of {alignment}: {DAMAGED}",
                gguf::TensorName(tensor)
            ),
            Self::MemoryAlignment { tensor, alignment } => write!(
                f,
                "tensor {} is not at a multiple of {alignment} in memory: \
                 map the file, or read it into memory that is aligned to 64 bytes",
                gguf::TensorName(tensor)
            ),
            Self::NotFinite { tensor, index } => write!(
                f,
                "weight {index} of tensor {} is infinite or not a number: {DAMAGED}",
                gguf::TensorName(tensor)
            ),
            Self::NotInVersion0(field) => {
                write!(f, "a llama2.c file of version 0 cannot express this {field}: write GGUF")
            }
        }
    }
}

const DAMAGED: &str = "the file is damaged, copy or download it again";
const CONVERT: &str = "the file is damaged, convert the original model again";
const VARIANT: &str = "the file is damaged, or of a variant of Llama that is not supported";

impl core::error::Error for FormatError {}

/// A name out of a file, cut to a length that an error can carry; printed with escapes, as a file may
/// say anything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; Self::MAX],
    len: u8,
    cut: bool,
}

impl Name {
    /// No name that matters is longer, in bytes.
    const MAX: usize = 46;

    pub(super) fn new(name: &[u8]) -> Self {
        let kept = &name[..name.len().min(Self::MAX)];
        let mut bytes = [0; Self::MAX];
        bytes[..kept.len()].copy_from_slice(kept);
        // At most `MAX`, which fits.
        Self { bytes, len: kept.len() as u8, cut: kept.len() < name.len() }
    }

    /// The name, or as much of it as was kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.as_bytes().escape_ascii(), if self.cut { "..." } else { "" })
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_escaped() {
        assert_eq!(Name::new(b"blk.0.attn_q.bias").to_string(), "blk.0.attn_q.bias");
        assert_eq!(Name::new(b"\x1b[31m\n\xff").to_string(), "\\x1b[31m\\n\\xff");
        assert_eq!(Name::new(&[b'a'; Name::MAX]).to_string(), "a".repeat(Name::MAX));
        assert_eq!(Name::new(&[b'a'; 1000]).to_string(), "a".repeat(Name::MAX) + "...");
    }

    #[test]
    fn errors_are_small() {
        // They travel by value, also on chips with small stacks.
        assert!(size_of::<FormatError>() <= 80, "{}", size_of::<FormatError>());
    }
}
