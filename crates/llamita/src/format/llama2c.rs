//! llama2.c checkpoints: tensors one after another, those of all layers together, of f32 in versions 0 and 1,
//! and of eight bits in version 2.

use super::{FormatError, Kind};
use crate::config::Config;
use crate::weights::{Blocks, Entry, Format, Matrix, Norm, Tape, Tensor};

/// "ak42" as a little-endian number; version 0 starts with the model's width instead, which cannot be as
/// large.
const MAGIC: [u8; 4] = 0x616b_3432_u32.to_le_bytes();
const HEADER_V0: usize = 7 * 4;
/// Of versions 1 and 2.
const HEADER_V1: usize = 256;
const NORM_EPS: f32 = 1e-5;
const ROPE_THETA: f32 = 10000.0;

/// The version of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V0,
    V1,
    V2 {
        /// Weights that share a scale.
        group: u32,
    },
}

impl Version {
    pub const fn kind(self) -> Kind {
        match self {
            Self::V0 => Kind::Llama2cV0,
            Self::V1 => Kind::Llama2cV1,
            Self::V2 { .. } => Kind::Llama2cV2,
        }
    }

    pub const fn header_len(self) -> usize {
        match self {
            Self::V0 => HEADER_V0,
            Self::V1 | Self::V2 { .. } => HEADER_V1,
        }
    }

    /// How a tensor is stored.
    const fn format(self, tensor: Tensor) -> Format {
        match (self, tensor) {
            (Self::V2 { group }, Tensor::Embedding | Tensor::Matrix(_)) => {
                Format::Blocks(Blocks::Llama2c { group })
            }
            _ => Format::F32,
        }
    }
}

/// A part of a checkpoint.
enum Part {
    One(Tensor),
    EachLayer(fn(usize) -> Tensor),
    /// Two tables of (seq_len, head_size / 2) that nothing reads any more.
    RopeTables,
}

const ATTENTION_NORMS: Part = Part::EachLayer(|layer| Tensor::Norm(Norm::Attention(layer)));
const FEED_FORWARD_NORMS: Part = Part::EachLayer(|layer| Tensor::Norm(Norm::FeedForward(layer)));
const FINAL_NORM: Part = Part::One(Tensor::Norm(Norm::Final));
const EMBEDDING: Part = Part::One(Tensor::Embedding);
const WQ: Part = Part::EachLayer(|layer| Tensor::Matrix(Matrix::Wq(layer)));
const WK: Part = Part::EachLayer(|layer| Tensor::Matrix(Matrix::Wk(layer)));
const WV: Part = Part::EachLayer(|layer| Tensor::Matrix(Matrix::Wv(layer)));
const WO: Part = Part::EachLayer(|layer| Tensor::Matrix(Matrix::Wo(layer)));
const W1: Part = Part::EachLayer(|layer| Tensor::Matrix(Matrix::W1(layer)));
const W2: Part = Part::EachLayer(|layer| Tensor::Matrix(Matrix::W2(layer)));
const W3: Part = Part::EachLayer(|layer| Tensor::Matrix(Matrix::W3(layer)));
/// Only where it is not shared.
const CLASSIFIER: Part = Part::One(Tensor::Matrix(Matrix::Classifier));

const PARTS_V0: &[Part] = &[
    EMBEDDING,
    ATTENTION_NORMS,
    WQ,
    WK,
    WV,
    WO,
    FEED_FORWARD_NORMS,
    W1,
    W2,
    W3,
    FINAL_NORM,
    Part::RopeTables,
    CLASSIFIER,
];
const PARTS_V1: &[Part] =
    &[ATTENTION_NORMS, FEED_FORWARD_NORMS, FINAL_NORM, EMBEDDING, WQ, WK, WV, WO, W1, W2, W3, CLASSIFIER];

/// Calls `place` with each tensor of a checkpoint and where it is; returns the file's length.
///
/// The config is checked: its limits keep the sum of all sizes below 2^63.
pub(super) fn walk(config: &Config, version: Version, mut place: impl FnMut(Tensor, Entry)) -> u64 {
    let parts = match version {
        Version::V0 => PARTS_V0,
        Version::V1 | Version::V2 { .. } => PARTS_V1,
    };
    let mut at = version.header_len() as u64;
    for part in parts {
        let (first, count) = match part {
            Part::One(Tensor::Matrix(Matrix::Classifier)) if config.shared_classifier => continue,
            Part::One(tensor) => (*tensor, 1),
            Part::EachLayer(tensor) => (tensor(0), config.n_layers),
            Part::RopeTables => {
                at += 4 * config.seq_len as u64 * config.head_size as u64;
                continue;
            }
        };
        let (rows, columns) = Tape::shape(config, first);
        let format = version.format(first);
        for layer in 0..count {
            let tensor = if let Part::EachLayer(tensor) = part { tensor(layer) } else { first };
            place(tensor, Entry { offset: at, format, ..Entry::EMPTY });
            at += format.bytes(rows, columns);
        }
    }
    at
}

/// Whether the file says that it is a llama2.c checkpoint, of version 1 or later.
pub(super) fn has_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Reads the header of a file, of `file` bytes, that has the magic number.
pub(super) fn read_marked(bytes: &[u8], file: u64) -> Result<(Config, Version), FormatError> {
    let left = bytes.len() as u64;
    let Some(header) = bytes.first_chunk::<HEADER_V1>() else {
        return Err(FormatError::Truncated { what: "the header", at: 0, needed: HEADER_V1 as u64, left });
    };
    let (words, _) = header.as_chunks::<4>();
    // Sizes begin after the magic number and the version; after the seventh there are no words any more.
    let (shared, group) = (header[9 * 4] != 0, &header[9 * 4 + 1..][..4]);
    let version = match u32::from_le_bytes(words[1]) {
        1 => Version::V1,
        2 => Version::V2 { group: group.iter().rev().fold(0, |group, &byte| group << 8 | u32::from(byte)) },
        found => return Err(FormatError::Version { kind: Kind::Llama2cV1, found }),
    };
    let sizes = core::array::from_fn(|i| u32::from_le_bytes(words[2 + i]));
    let config = config(sizes, shared);
    config.check().map_err(FormatError::Shape)?;
    if let Version::V2 { group } = version {
        check_group(&config, group)?;
    }
    Ok((check_len(file, &config, version)?, version))
}

/// Groups are counted over whole tensors, which they must fill.
fn check_group(config: &Config, group: u32) -> Result<(), FormatError> {
    for tensor in Tape::tensors(config).filter(|tensor| !matches!(tensor, Tensor::Norm(_))) {
        let (rows, columns) = Tape::shape(config, tensor);
        if group == 0 || !(rows as u64 * columns as u64).is_multiple_of(group.into()) {
            return Err(FormatError::Group { tensor, found: group });
        }
    }
    Ok(())
}

/// Reads the header of a file, of `file` bytes, that has no magic number at all.
pub(super) fn read_v0(bytes: &[u8], file: u64) -> Result<Config, FormatError> {
    let left = bytes.len() as u64;
    let Some(header) = bytes.first_chunk::<HEADER_V0>() else {
        return Err(FormatError::Truncated { what: "the header", at: 0, needed: HEADER_V0 as u64, left });
    };
    let (words, _) = header.as_chunks::<4>();
    let mut sizes: [u32; 7] = core::array::from_fn(|i| u32::from_le_bytes(words[i]));
    let vocab_size = i32::from_le_bytes(words[5]);
    sizes[5] = vocab_size.unsigned_abs();
    let config = config(sizes, vocab_size > 0);
    config.check().map_err(FormatError::Unrecognised)?;
    check_len(file, &config, Version::V0)
}

/// The files have signed sizes; read without the sign, a negative one is too large for any model.
fn config(sizes: [u32; 7], shared_classifier: bool) -> Config {
    let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len] =
        sizes.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    // The check of the config refuses a head size of 0.
    let head_size = if n_heads != 0 && dim.is_multiple_of(n_heads) { dim / n_heads } else { 0 };
    Config {
        dim,
        hidden_dim,
        n_layers,
        n_heads,
        n_kv_heads,
        head_size,
        vocab_size,
        seq_len,
        norm_eps: NORM_EPS,
        rope_theta: ROPE_THETA,
        shared_classifier,
    }
}

fn check_len(found: u64, config: &Config, version: Version) -> Result<Config, FormatError> {
    let expected = walk(config, version, |_, _| ());
    if found != expected {
        return Err(FormatError::FileSize { kind: version.kind(), found, expected });
    }
    Ok(*config)
}

/// The header of a checkpoint of version 0, for a writer; the tensors follow as f32.
///
/// The order is that of [`places`], and a file has [`file_len`] bytes. What the version has no field for
/// must be as its readers assume: heads that make up `dim`, `norm_eps` 1e-5 and `rope_theta` 10000.
pub fn header(config: &Config) -> Result<[u8; HEADER_V0], FormatError> {
    config.check().map_err(FormatError::Shape)?;
    for (field, fits) in [
        ("head_size", config.q_dim() == config.dim),
        ("norm_eps", config.norm_eps == NORM_EPS),
        ("rope_theta", config.rope_theta == ROPE_THETA),
    ] {
        if !fits {
            return Err(FormatError::NotInVersion0(field));
        }
    }
    let sign = if config.shared_classifier { 1 } else { -1 };
    let sizes = [
        config.dim,
        config.hidden_dim,
        config.n_layers,
        config.n_heads,
        config.n_kv_heads,
        config.vocab_size,
        config.seq_len,
    ];
    let mut header = [0; HEADER_V0];
    for (i, (out, size)) in header.as_chunks_mut::<4>().0.iter_mut().zip(sizes).enumerate() {
        // The check keeps every size far below 2^31.
        let size = size as i32;
        *out = (if i == 5 { sign * size } else { size }).to_le_bytes();
    }
    Ok(header)
}

/// Bytes of a whole checkpoint of version 0, for a config that [`Config::check`] accepts.
pub fn file_len(config: &Config) -> u64 {
    walk(config, Version::V0, |_, _| ())
}

/// Calls `place` with each tensor of a checkpoint of version 0, in file order, and the offset of its first
/// byte; the config is one that [`Config::check`] accepts.
///
/// Between the final norm and a classifier that is not shared, the file has `seq_len * head_size` numbers
/// that nothing reads any more: a writer leaves them 0.
pub fn places(config: &Config, mut place: impl FnMut(Tensor, u64)) {
    walk(config, Version::V0, |tensor, entry| place(tensor, entry.offset));
}
