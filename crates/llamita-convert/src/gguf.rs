//! Writing GGUF: the engine's own, whose tensors are used in place, and the kind that other programs read.

use std::io::{Seek, SeekFrom, Write};

use llamita::Tape;
use llamita::format::TensorName;
use llamita::weights::{Blocks, Format, Tensor};
use llamita_kernels::quantized::{BLOCK_ROWS, Quant};

use crate::conversion::Conversion;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::source::Source;
use crate::vocabulary::{Vocabulary, VocabularyModel};

/// The version of the layout of native tensors.
const LAYOUT: u32 = 2;
const CHECKSUMS: &str = "llamita.checksums";
/// What a llama2.c checkpoint had that no other format does, in files that lose nothing else of it either.
pub(crate) const ROPE_TABLES: &str = "llama2c.rope_tables";

/// Numbers of the types of values.
const U8: u32 = 0;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// A GGUF file that is known to the last byte, but for its weights and their checksums.
#[derive(Clone, Debug)]
pub struct GgufFile {
    /// All before the first tensor, with zeros for checksums.
    header: Vec<u8>,
    /// Where the checksums stand, if there are any.
    checksums: Option<u64>,
    tensors: Vec<Placed>,
    len: u64,
}

#[derive(Clone, Debug)]
struct Placed {
    tensor: Tensor,
    format: Format,
    /// Its first byte.
    place: u64,
}

/// A tensor as the list of tensors has it.
struct Info {
    name: String,
    dimensions: Vec<u64>,
    kind: u32,
    bytes: u64,
}

impl GgufFile {
    /// The engine's own kind: tensors in tape order at multiples of 64 bytes, with checksums.
    ///
    /// `plan` has floats and native formats.
    pub fn device(source: &dyn Source, plan: &Plan) -> Self {
        let mut metadata = metadata(source);
        metadata.u32("general.alignment", 64);
        metadata.u32("llamita.layout", LAYOUT);
        if let Some(tables) = source.rope_tables().filter(|_| plan.tensors().all(|(_, f)| f == Format::F32)) {
            metadata.array(ROPE_TABLES, U8, tables.len() as u64, |bytes| bytes.extend(tables));
        }
        Self::new(metadata, plan, 64, true)
    }

    /// The kind that llama.cpp reads. `plan` has floats and ggml's formats.
    pub fn ordinary(source: &dyn Source, plan: &Plan) -> Self {
        let mut metadata = metadata(source);
        metadata.u32("general.file_type", file_type(plan));
        metadata.u32("general.quantization_version", 2);
        if source.vocabulary().is_none() {
            metadata.string("tokenizer.ggml.model", b"no_vocab");
        }
        Self::new(metadata, plan, 32, false)
    }

    fn new(mut metadata: Metadata, plan: &Plan, alignment: u64, checksums: bool) -> Self {
        let infos: Vec<_> = plan.tensors().map(|(tensor, format)| info(plan, tensor, format)).collect();
        let count = infos.len() as u64;
        if checksums {
            metadata.array(CHECKSUMS, U32, count, |bytes| bytes.resize(bytes.len() + 4 * count as usize, 0));
        }
        let mut header = b"GGUF\x03\0\0\0".to_vec();
        header.extend(count.to_le_bytes());
        header.extend(metadata.count.to_le_bytes());
        header.extend(&metadata.bytes);
        let checksums = checksums.then_some(header.len() as u64 - 4 * count);

        let mut end = 0_u64;
        let mut offsets = Vec::new();
        for info in &infos {
            string(&mut header, info.name.as_bytes());
            header.extend((info.dimensions.len() as u32).to_le_bytes());
            info.dimensions.iter().for_each(|size| header.extend(size.to_le_bytes()));
            header.extend(info.kind.to_le_bytes());
            header.extend(end.to_le_bytes());
            offsets.push(end);
            end = (end + info.bytes).next_multiple_of(alignment);
        }
        let data = (header.len() as u64).next_multiple_of(alignment);
        header.resize(data as usize, 0);
        let placed = |((tensor, format), offset)| Placed { tensor, format, place: data + offset };
        let tensors = plan.tensors().zip(offsets).map(placed).collect();
        Self { tensors, header, checksums, len: data + end }
    }

    /// Bytes of the file.
    #[expect(clippy::len_without_is_empty, reason = "no file is empty")]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Writes the file, in any order, from the start of `out` to [`GgufFile::len`].
    ///
    /// The source is the one that the file was made for, or one of the same shape. For a file in memory,
    /// `out` is a cursor over a slice of that length.
    pub fn write(&self, conversion: &mut Conversion<'_>, out: &mut (impl Write + Seek)) -> Result<()> {
        out.seek(SeekFrom::Start(0)).and_then(|_| out.write_all(&self.header)).map_err(Error::Write)?;
        let mut sums: Vec<u8> = Vec::new();
        let mut gaps = Gaps { end: self.header.len() as u64 };
        for &Placed { tensor, format, place } in &self.tensors {
            let (rows, columns) = Tape::shape(conversion.source.config(), tensor);
            sums.extend(conversion.write(tensor, format, place, out)?.to_le_bytes());
            gaps.fill(out, place, format.bytes(rows, columns))?;
        }
        gaps.fill(out, self.len, 0)?;
        if let Some(place) = self.checksums {
            out.seek(SeekFrom::Start(place)).and_then(|_| out.write_all(&sums)).map_err(Error::Write)?;
        }
        out.flush().map_err(Error::Write)
    }
}

/// Fills what lies between tensors with zeros, so that equal models are equal files whatever was there.
struct Gaps {
    end: u64,
}

impl Gaps {
    /// Fills up to the next tensor, which is at `place`.
    fn fill(&mut self, out: &mut (impl Write + Seek), place: u64, len: u64) -> Result<()> {
        // Less than the alignment.
        let zeros = vec![0; (place - self.end) as usize];
        if !zeros.is_empty() {
            out.seek(SeekFrom::Start(self.end)).and_then(|_| out.write_all(&zeros)).map_err(Error::Write)?;
        }
        self.end = place + len;
        Ok(())
    }
}

/// A tensor as the list has it.
fn info(plan: &Plan, tensor: Tensor, format: Format) -> Info {
    let (rows, columns) = Tape::shape(plan.config(), tensor);
    let (name, bytes) = (TensorName(tensor).to_string(), format.bytes(rows, columns));
    if let Format::Quantized { quant, .. } = format {
        let ending = if quant == Quant::Q8 { "q8" } else { "q4" };
        let name = format!("{}.{ending}", name.trim_end_matches(".weight"));
        let blocks = rows.div_ceil(BLOCK_ROWS) as u64;
        return Info { name, dimensions: vec![bytes / blocks, blocks], kind: 24, bytes };
    }
    let dimensions = match tensor {
        Tensor::Norm(_) => vec![columns as u64],
        _ => vec![columns as u64, rows as u64],
    };
    Info { name, dimensions, kind: ggml_type(format), bytes }
}

/// ggml's number of a type.
fn ggml_type(format: Format) -> u32 {
    match format {
        Format::F32 => 0,
        Format::F16 => 1,
        Format::Bf16 => 30,
        Format::Blocks(Blocks::Q4_0) => 2,
        Format::Blocks(Blocks::Q8_0) => 8,
        Format::Blocks(_) | Format::Quantized { .. } => unreachable!("{format} is not written"),
    }
}

/// llama.cpp's number for what most of a file is.
fn file_type(plan: &Plan) -> u32 {
    let body = |(tensor, format)| matches!(tensor, Tensor::Matrix(_)).then_some(format);
    match plan.tensors().find_map(body) {
        Some(Format::F16) => 1,
        Some(Format::Blocks(Blocks::Q4_0)) => 2,
        Some(Format::Blocks(Blocks::Q8_0)) => 7,
        Some(Format::Bf16) => 32,
        _ => 0,
    }
}

/// Keys and values as bytes.
#[derive(Default)]
struct Metadata {
    count: u64,
    bytes: Vec<u8>,
}

impl Metadata {
    fn key(&mut self, key: &str, kind: u32) -> &mut Vec<u8> {
        self.count += 1;
        string(&mut self.bytes, key.as_bytes());
        self.bytes.extend(kind.to_le_bytes());
        &mut self.bytes
    }

    fn u32(&mut self, key: &str, value: u32) {
        self.key(key, U32).extend(value.to_le_bytes());
    }

    /// Sizes of models that the engine accepts fit 32 bits.
    fn size(&mut self, key: &str, value: usize) {
        self.u32(key, value as u32);
    }

    fn f32(&mut self, key: &str, value: f32) {
        self.key(key, F32).extend(value.to_le_bytes());
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.key(key, BOOL).push(value.into());
    }

    fn string(&mut self, key: &str, value: &[u8]) {
        string(self.key(key, STRING), value);
    }

    fn array(&mut self, key: &str, element: u32, count: u64, elements: impl FnOnce(&mut Vec<u8>)) {
        let bytes = self.key(key, ARRAY);
        bytes.extend(element.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        elements(bytes);
    }
}

fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text);
}

/// What both kinds say about a model.
fn metadata(source: &dyn Source) -> Metadata {
    let config = source.config();
    let mut metadata = Metadata::default();
    metadata.string("general.architecture", b"llama");
    if let Some(name) = source.name() {
        metadata.string("general.name", name.as_bytes());
    }
    for (key, size) in [
        ("vocab_size", config.vocab_size),
        ("context_length", config.seq_len),
        ("embedding_length", config.dim),
        ("block_count", config.n_layers),
        ("feed_forward_length", config.hidden_dim),
        ("attention.head_count", config.n_heads),
        ("attention.head_count_kv", config.n_kv_heads),
        ("attention.key_length", config.head_size),
        ("attention.value_length", config.head_size),
        ("rope.dimension_count", config.head_size),
    ] {
        metadata.size(&format!("llama.{key}"), size);
    }
    metadata.f32("llama.rope.freq_base", config.rope_theta);
    metadata.f32("llama.attention.layer_norm_rms_epsilon", config.norm_eps);
    if let Some(vocabulary) = source.vocabulary() {
        tokenizer(&mut metadata, vocabulary);
    }
    metadata
}

fn tokenizer(metadata: &mut Metadata, vocabulary: &Vocabulary) {
    let count = vocabulary.tokens.len() as u64;
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let llama = vocabulary.model == VocabularyModel::Llama;
    metadata.string(&key("model"), if llama { b"llama" } else { b"gpt2" });
    if let Some(pre) = &vocabulary.pre {
        metadata.string(&key("pre"), pre.as_bytes());
    }
    metadata.array(&key("tokens"), STRING, count, |bytes| {
        vocabulary.tokens.iter().for_each(|token| string(bytes, token));
    });
    if llama {
        metadata.array(&key("scores"), F32, count, |bytes| {
            vocabulary.scores.iter().for_each(|score| bytes.extend(score.to_le_bytes()));
        });
    }
    metadata.array(&key("token_type"), I32, count, |bytes| {
        vocabulary.types.iter().for_each(|kind| bytes.extend(kind.to_le_bytes()));
    });
    if !llama {
        metadata.array(&key("merges"), STRING, vocabulary.merges.len() as u64, |bytes| {
            vocabulary.merges.iter().for_each(|merge| string(bytes, merge.as_bytes()));
        });
    }
    let ids = [
        ("bos", vocabulary.bos),
        ("eos", vocabulary.eos),
        ("unknown", vocabulary.unknown),
        ("padding", vocabulary.padding),
    ];
    for (name, id) in ids {
        if let Some(id) = id {
            metadata.u32(&key(&format!("{name}_token_id")), id);
        }
    }
    metadata.bool(&key("add_bos_token"), vocabulary.add_bos);
    if llama {
        metadata.bool(&key("add_space_prefix"), vocabulary.add_space_prefix);
    }
    if let Some(template) = &vocabulary.chat_template {
        metadata.string("tokenizer.chat_template", template.as_bytes());
    }
}
