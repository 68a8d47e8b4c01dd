//! GGUF: the model's shape from the metadata, and its tape from the list of tensors.

use core::fmt;

use super::metadata::{Cursor, Metadata, TYPE_F32, TYPE_I32, TYPE_STRING};
use super::{FormatError, Name, device};
use crate::config::Config;
use crate::tokenizer::{ByteLevel, GgufVocabulary, PreTokenizer};
use crate::weights::{Blocks, Entry, Format, Matrix, Norm, Tape, Tensor};

/// Where the parts of a file are that its header led to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub tensor_count: u64,
    /// First byte of the tensors' data, from which their offsets count.
    pub data: u64,
    pub alignment: u64,
}

/// What one entry of the list of tensors says.
pub(super) struct TensorInfo<'a> {
    pub name: &'a [u8],
    /// Columns first; dimensions that are not there are 1.
    pub dimensions: [u64; 4],
    /// Number of the type in ggml.
    pub kind: u32,
    /// From the start of the data, in bytes.
    pub offset: u64,
}

impl<'a> TensorInfo<'a> {
    pub fn read(cursor: &mut Cursor<'a>) -> Result<Self, FormatError> {
        const WHAT: &str = "the list of tensors";
        let name = cursor.string(WHAT)?;
        let found = cursor.u32(WHAT)?;
        let mut dimensions = [1; 4];
        let Some(used) = usize::try_from(found).ok().and_then(|found| dimensions.get_mut(..found)) else {
            return Err(FormatError::Dimensions { tensor: Name::new(name), found });
        };
        for dimension in used {
            *dimension = cursor.u64(WHAT)?;
        }
        Ok(Self { name, dimensions, kind: cursor.u32(WHAT)?, offset: cursor.u64(WHAT)? })
    }
}

/// Reads the header, the metadata and the list of tensors; what the tensors are is left to [`fill`].
pub(super) fn read(bytes: &[u8]) -> Result<(Config, Places), FormatError> {
    let metadata = Metadata::read(bytes)?;
    check_supported(&metadata)?;
    device::check_layout(&metadata)?;
    let alignment = metadata.integer("general.alignment")?.unwrap_or(32);
    if !alignment.is_power_of_two() {
        return Err(FormatError::Alignment(alignment));
    }

    let mut shared_classifier = true;
    let mut cursor = metadata.tensor_infos;
    for _ in 0..metadata.tensor_count {
        let name = TensorInfo::read(&mut cursor)?.name;
        shared_classifier &= !matches!(name, b"output.weight" | b"output.q8" | b"output.q4");
    }
    let config = config(&metadata, shared_classifier)?;

    let end = cursor.at() as u64;
    let Some(data) = end.checked_next_multiple_of(alignment) else {
        return Err(FormatError::Alignment(alignment));
    };
    Ok((config, Places { tensor_count: metadata.tensor_count, data, alignment }))
}

/// Refuses models that need more than the engine does.
fn check_supported(metadata: &Metadata<'_>) -> Result<(), FormatError> {
    const ARCHITECTURE: &str = "general.architecture";
    match metadata.string(ARCHITECTURE)? {
        Some(b"llama") => (),
        Some(other) => return Err(FormatError::Architecture(Name::new(other))),
        None => return Err(FormatError::MissingKey(ARCHITECTURE)),
    }
    if let Some(count) = metadata.integer("split.count")?
        && count > 1
    {
        return Err(FormatError::Split(count));
    }
    check_features(
        metadata,
        &[
            ("llama.expert_count", &[0.0]),
            ("llama.attention.clamp_kqv", &[0.0]),
            ("llama.attention.causal", &[1.0]),
            ("llama.attention.sliding_window", &[0.0]),
            ("llama.logit_scale", &[0.0, 1.0]),
        ],
    )?;
    check_rope(metadata)
}

/// Refuses keys that ask for something; each comes with the values that ask for nothing.
fn check_features(metadata: &Metadata<'_>, features: &[(&'static str, &[f64])]) -> Result<(), FormatError> {
    for &(key, neutral) in features {
        if let Some(value) = metadata.get(key)
            && !value.number().is_some_and(|value| neutral.contains(&value))
        {
            return Err(FormatError::Feature(key));
        }
    }
    Ok(())
}

fn check_rope(metadata: &Metadata<'_>) -> Result<(), FormatError> {
    const TYPE: &str = "llama.rope.scaling.type";
    match metadata.string(TYPE)? {
        Some(b"none") => return Ok(()),
        Some(_) => return Err(FormatError::RopeScaling(TYPE)),
        None => (),
    }
    // Without a type, a factor means linear scaling; 0 and 1 mean none.
    for key in ["llama.rope.scaling.factor", "llama.rope.scale_linear"] {
        if metadata.float(key)?.is_some_and(|factor| factor != 0.0 && factor != 1.0) {
            return Err(FormatError::RopeScaling(key));
        }
    }
    Ok(())
}

fn config(metadata: &Metadata<'_>, shared_classifier: bool) -> Result<Config, FormatError> {
    const KEY_LENGTH: &str = "llama.attention.key_length";
    const VALUE_LENGTH: &str = "llama.attention.value_length";
    const VOCAB_SIZE: &str = "llama.vocab_size";
    const NORM_EPS: &str = "llama.attention.layer_norm_rms_epsilon";
    const DIMENSION_COUNT: &str = "llama.rope.dimension_count";

    let size = |key| Ok(metadata.integer(key)?.map(saturate));
    let required = |key| size(key)?.ok_or(FormatError::MissingKey(key));

    let dim = required("llama.embedding_length")?;
    let n_heads = required("llama.attention.head_count")?;
    // The check of the config refuses a head size of 0.
    let even = if n_heads != 0 && dim.is_multiple_of(n_heads) { dim / n_heads } else { 0 };
    let head_size = size(KEY_LENGTH)?.unwrap_or(even);
    let tokens = metadata.array("tokenizer.ggml.tokens", TYPE_STRING, "array of strings")?;
    let tokens = tokens.map(|tokens| saturate(tokens.count));
    let vocab_size = size(VOCAB_SIZE)?.or(tokens).ok_or(FormatError::MissingKey(VOCAB_SIZE))?;

    let config = Config {
        dim,
        hidden_dim: required("llama.feed_forward_length")?,
        n_layers: required("llama.block_count")?,
        n_heads,
        n_kv_heads: size("llama.attention.head_count_kv")?.unwrap_or(n_heads),
        head_size,
        vocab_size,
        seq_len: required("llama.context_length")?,
        norm_eps: metadata.float(NORM_EPS)?.ok_or(FormatError::MissingKey(NORM_EPS))?,
        rope_theta: metadata.float("llama.rope.freq_base")?.unwrap_or(10000.0),
        shared_classifier,
    };
    config.check().map_err(FormatError::Shape)?;

    let agree = |key, found: Option<usize>, with, expected: usize| match found {
        Some(found) if found != expected => {
            Err(FormatError::Disagree { key, found: found as u64, with, expected: expected as u64 })
        }
        _ => Ok(()),
    };
    let head_size_from =
        if size(KEY_LENGTH)?.is_some() { KEY_LENGTH } else { "embedding_length / head_count" };
    agree(VALUE_LENGTH, size(VALUE_LENGTH)?.or(Some(even)), head_size_from, head_size)?;
    agree(DIMENSION_COUNT, size(DIMENSION_COUNT)?, head_size_from, head_size)?;
    agree("tokenizer.ggml.tokens", tokens, VOCAB_SIZE, vocab_size)?;
    Ok(config)
}

/// Numbers beyond the machine's are beyond every limit, too.
fn saturate(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Fills entries in tape order, of which there are as many as the tape has.
///
/// `bytes` are the header at least, of a file with `file` bytes.
pub(super) fn fill(
    bytes: &[u8],
    file: u64,
    config: &Config,
    places: &Places,
    entries: &mut [Entry],
) -> Result<(), FormatError> {
    // No tensor lies at the start of the file, so that offset says which entries are still to be filled.
    entries.fill(Entry::EMPTY);
    let metadata = Metadata::read(bytes)?;
    let checksums = device::checksums(&metadata)?.unwrap_or_default();
    let mut cursor = metadata.tensor_infos;
    for index in 0..places.tensor_count as usize {
        let info = TensorInfo::read(&mut cursor)?;
        let (name, quant) = device::quant(info.name);
        let Some(tensor) = name.and_then(|name| tensor_named(name, config)) else {
            return Err(match info.name {
                b"rope_freqs.weight" => FormatError::RopeScaling("the tensor rope_freqs.weight"),
                name => FormatError::UnexpectedTensor(Name::new(name)),
            });
        };
        let entry = &mut entries[Tape::index(config, tensor)];
        if entry.offset != 0 {
            return Err(FormatError::DuplicateTensor(tensor));
        }
        *entry = match quant {
            None => place(file, config, places, &info, tensor)?,
            Some(quant) => device::place(file, config, places, tensor, quant, &info)?,
        };
        entry.checksum = checksums.get(index).map(|sum| u32::from_le_bytes(*sum));
    }
    if config.shared_classifier {
        let shared = entries[Tape::index(config, Tensor::Embedding)];
        entries[Tape::index(config, Tensor::Matrix(Matrix::Classifier))] = shared;
    }
    match Tape::tensors(config).zip(&*entries).find(|(_, entry)| entry.offset == 0) {
        Some((missing, _)) => Err(FormatError::MissingTensor(missing)),
        None => Ok(()),
    }
}

/// Checks that a tensor is what and where it must be.
fn place(
    file: u64,
    config: &Config,
    places: &Places,
    info: &TensorInfo<'_>,
    tensor: Tensor,
) -> Result<Entry, FormatError> {
    let expected @ (rows, columns) = Tape::shape(config, tensor);
    if info.dimensions != [columns as u64, rows as u64, 1, 1] {
        return Err(FormatError::TensorShape { tensor, found: info.dimensions, expected });
    }
    let format = match (info.kind, tensor) {
        (0, _) => Format::F32,
        (found, Tensor::Norm(_)) => return Err(FormatError::TensorType { tensor, found }),
        (1, _) => Format::F16,
        (2, _) => Format::Blocks(Blocks::Q4_0),
        (3, _) => Format::Blocks(Blocks::Q4_1),
        (6, _) => Format::Blocks(Blocks::Q5_0),
        (7, _) => Format::Blocks(Blocks::Q5_1),
        (8, _) => Format::Blocks(Blocks::Q8_0),
        (12, _) => Format::Blocks(Blocks::Q4K),
        (14, _) => Format::Blocks(Blocks::Q6K),
        (30, _) => Format::Bf16,
        (found, _) => return Err(FormatError::TensorType { tensor, found }),
    };
    if let Format::Blocks(blocks) = format
        && !(columns as u64).is_multiple_of(blocks.size().0)
    {
        return Err(FormatError::BlockRow { tensor, columns, blocks });
    }
    let offset = places.offset(file, tensor, info, format.alignment(), format.bytes(rows, columns))?;
    Ok(Entry { offset, format, ..Entry::EMPTY })
}

impl Places {
    /// The first byte of a tensor, which has to be whole and aligned.
    pub fn offset(
        &self,
        file: u64,
        tensor: Tensor,
        info: &TensorInfo<'_>,
        alignment: u64,
        bytes: u64,
    ) -> Result<u64, FormatError> {
        let Some(offset) = self.data.checked_add(info.offset) else {
            return Err(FormatError::TensorBounds { tensor, end: u64::MAX, file });
        };
        // A small alignment of the file may be too small for the numbers.
        let alignment = self.alignment.max(alignment);
        if !offset.is_multiple_of(alignment) {
            return Err(FormatError::TensorAlignment { tensor, offset, alignment });
        }
        // Sizes within the config's limits do not overflow.
        let end = offset.saturating_add(bytes);
        if end > file {
            return Err(FormatError::TensorBounds { tensor, end, file });
        }
        Ok(offset)
    }
}

/// The vocabulary, where the file has one.
pub(super) fn vocabulary(bytes: &[u8]) -> Result<Option<GgufVocabulary<'_>>, FormatError> {
    const MODEL: &str = "tokenizer.ggml.model";
    const TOKENS: &str = "tokenizer.ggml.tokens";
    const SCORES: &str = "tokenizer.ggml.scores";
    const TYPES: &str = "tokenizer.ggml.token_type";
    const EOS: &str = "tokenizer.ggml.eos_token_id";
    const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

    let metadata = Metadata::read(bytes)?;
    let tokens = metadata.array(TOKENS, TYPE_STRING, "array of strings")?;
    match (metadata.string(MODEL)?, tokens) {
        (None | Some(b"none" | b"no_vocab"), None) => return Ok(None),
        (Some(b"llama" | b"gpt2"), _) => (),
        (Some(other), _) => return Err(FormatError::TokenizerModel(Name::new(other))),
        (None, _) => return Err(FormatError::MissingKey(MODEL)),
    }
    let tokens = tokens.ok_or(FormatError::MissingKey(TOKENS))?;
    let byte_level = byte_level(&metadata)?;
    // Texts are left open, and SentencePiece's begin with BOS.
    check_features(&metadata, &[("tokenizer.ggml.add_eos_token", &[0.0])])?;
    if byte_level.is_none() {
        check_features(&metadata, &[(ADD_BOS, &[1.0])])?;
    }
    let parallel = |key, element, expected| match metadata.array(key, element, expected)? {
        Some(array) if array.count != tokens.count => {
            Err(FormatError::Disagree { key, found: array.count, with: TOKENS, expected: tokens.count })
        }
        array => Ok(array.map(|array| array.bytes)),
    };
    let id = |key| match metadata.integer(key)? {
        Some(found) if found >= tokens.count => Err(FormatError::TokenId { key, found, count: tokens.count }),
        found => Ok(found.and_then(|id| u32::try_from(id).ok())),
    };
    let (bos, eos) = (id("tokenizer.ggml.bos_token_id")?, id(EOS)?);
    let unknown = id("tokenizer.ggml.unknown_token_id")?;
    let common = GgufVocabulary {
        count: saturate(tokens.count),
        tokens: tokens.bytes,
        scores: &[],
        types: parallel(TYPES, TYPE_I32, "array of i32")?,
        // The defaults are the family's, and those of llama.cpp.
        bos: bos.unwrap_or(1),
        eos: eos.unwrap_or(2),
        unknown: Some(unknown.unwrap_or(0)),
        add_space_prefix: metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true),
        add_bos: true,
        byte_level,
    };
    let Some(ByteLevel { pre, .. }) = byte_level else {
        let scores = parallel(SCORES, TYPE_F32, "array of f32")?.ok_or(FormatError::MissingKey(SCORES))?;
        return Ok(Some(GgufVocabulary { scores, ..common }));
    };
    // Byte-level vocabularies have their special tokens anywhere: there is nothing to assume.
    let eos = eos.ok_or(FormatError::MissingKey(EOS))?;
    let add_bos = bos.is_some() && metadata.bool(ADD_BOS)?.unwrap_or(pre.adds_bos());
    Ok(Some(GgufVocabulary { bos: bos.unwrap_or(eos), eos, unknown, add_bos, ..common }))
}

/// What belongs to a byte-level vocabulary, if the file has such a one.
fn byte_level<'a>(metadata: &Metadata<'a>) -> Result<Option<ByteLevel<'a>>, FormatError> {
    const MERGES: &str = "tokenizer.ggml.merges";
    if metadata.string("tokenizer.ggml.model")? != Some(b"gpt2") {
        return Ok(None);
    }
    if cfg!(not(feature = "byte-level")) {
        return Err(FormatError::ByteLevel);
    }
    let pre = metadata.string("tokenizer.ggml.pre")?.unwrap_or(b"default");
    let pre = PreTokenizer::from_name(pre).ok_or(FormatError::PreTokenizer(Name::new(pre)))?;
    let merges = metadata.array(MERGES, TYPE_STRING, "array of strings")?;
    let merges = merges.ok_or(FormatError::MissingKey(MERGES))?;
    Ok(Some(ByteLevel { pre, merges: merges.bytes, merge_count: saturate(merges.count) }))
}

/// The model's own name, where it has one.
pub(super) fn name(bytes: &[u8]) -> Option<&str> {
    let name = Metadata::read(bytes).ok()?.string("general.name").ok()??;
    core::str::from_utf8(name).ok()
}

/// Tensors that are not of a layer.
const OUTSIDE: [Tensor; 3] =
    [Tensor::Embedding, Tensor::Norm(Norm::Final), Tensor::Matrix(Matrix::Classifier)];

/// The layer of a tensor that is of one, and its name without that and ".weight".
const fn parts(tensor: Tensor) -> (Option<usize>, &'static str) {
    match tensor {
        Tensor::Embedding => (None, "token_embd"),
        Tensor::Norm(Norm::Attention(layer)) => (Some(layer), "attn_norm"),
        Tensor::Matrix(Matrix::Wq(layer)) => (Some(layer), "attn_q"),
        Tensor::Matrix(Matrix::Wk(layer)) => (Some(layer), "attn_k"),
        Tensor::Matrix(Matrix::Wv(layer)) => (Some(layer), "attn_v"),
        Tensor::Matrix(Matrix::Wo(layer)) => (Some(layer), "attn_output"),
        Tensor::Norm(Norm::FeedForward(layer)) => (Some(layer), "ffn_norm"),
        Tensor::Matrix(Matrix::W1(layer)) => (Some(layer), "ffn_gate"),
        Tensor::Matrix(Matrix::W3(layer)) => (Some(layer), "ffn_up"),
        Tensor::Matrix(Matrix::W2(layer)) => (Some(layer), "ffn_down"),
        Tensor::Norm(Norm::Final) => (None, "output_norm"),
        Tensor::Matrix(Matrix::Classifier) => (None, "output"),
    }
}

/// The tensor of this name, without what says how it is stored, if a model of this shape has one.
fn tensor_named(name: &[u8], config: &Config) -> Option<Tensor> {
    let is = |part: &[u8], tensor| parts(tensor).1.as_bytes() == part;
    let Some(rest) = name.strip_prefix(b"blk.") else {
        return OUTSIDE.into_iter().find(|&tensor| is(name, tensor));
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, part) = rest.split_at(digits);
    // One spelling for each layer: a second one would be a second tensor.
    if number.len() > 1 && number[0] == b'0' {
        return None;
    }
    let layer: usize = core::str::from_utf8(number).ok()?.parse().ok()?;
    let part = part.strip_prefix(b".")?;
    let tensor = Tape::LAYER.into_iter().map(|tensor| tensor(layer)).find(|&tensor| is(part, tensor));
    tensor.filter(|_| layer < config.n_layers)
}

/// A tensor by the name that it has in GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorName(
    /// The tensor.
    pub Tensor,
);

impl fmt::Display for TensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match parts(self.0) {
            (Some(layer), part) => write!(f, "blk.{layer}.{part}.weight"),
            (None, part) => write!(f, "{part}.weight"),
        }
    }
}

/// ggml's name of a tensor type.
pub(super) fn type_name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        6 => "Q5_0",
        7 => "Q5_1",
        8 => "Q8_0",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        12 => "Q4_K",
        13 => "Q5_K",
        14 => "Q6_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        30 => "BF16",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        40 => "NVFP4",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Config = Config {
        dim: 4,
        hidden_dim: 6,
        n_layers: 12,
        n_heads: 2,
        n_kv_heads: 1,
        head_size: 2,
        vocab_size: 5,
        seq_len: 8,
        norm_eps: 1e-5,
        rope_theta: 10000.0,
        shared_classifier: false,
    };

    #[test]
    fn every_tensor_is_found_by_its_name() {
        for tensor in Tape::tensors(&CONFIG) {
            let name = TensorName(tensor).to_string();
            let known = device::quant(name.as_bytes()).0.and_then(|name| tensor_named(name, &CONFIG));
            assert_eq!(known, Some(tensor), "{name}");
        }
    }

    #[test]
    fn other_names_are_no_tensors() {
        for name in [
            "",
            "blk",
            "blk.",
            "blk..attn_q.weight",
            "blk.0.attn_q",
            "blk.0.attn_q.bias",
            "blk.0attn_q.weight",
            "blk.00.attn_q.weight",
            "blk.01.attn_q.weight",
            "blk.+1.attn_q.weight",
            "blk.-1.attn_q.weight",
            "blk.12.attn_q.weight",
            "blk.99999999999999999999999.attn_q.weight",
            "blk.0.ffn_gate_exps.weight",
            "blk.0.output.weight",
            "blk.0.token_embd.weight",
            "attn_q.weight",
            "token_embd",
            ".weight",
            "rope_freqs.weight",
        ] {
            let known = device::quant(name.as_bytes()).0.and_then(|name| tensor_named(name, &CONFIG));
            assert_eq!(known, None, "{name}");
        }
    }
}
