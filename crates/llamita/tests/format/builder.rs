//! Small model files for tests and fuzz targets, written apart from the code that reads them.
//!
//! Every weight of a tensor is its index in the tape plus one, which tells where a reader looked.

// Each test and fuzz target uses a part of it.
#![allow(dead_code)]

use llamita::config::Config;

/// A shape in which no two sizes that could be confused are equal.
pub const CONFIG: Config = Config {
    dim: 8,
    hidden_dim: 6,
    n_layers: 2,
    n_heads: 4,
    n_kv_heads: 2,
    head_size: 2,
    vocab_size: 5,
    seq_len: 7,
    norm_eps: 1e-5,
    rope_theta: 10000.0,
    shared_classifier: false,
};

/// [`CONFIG`] with the embedding as its classifier.
pub const SHARED: Config = Config { shared_classifier: true, ..CONFIG };

/// Name in GGUF, rows, columns and index in the tape.
pub type Spec = (String, usize, usize, usize);

/// All tensors in tape order; the classifier only where it is not shared.
pub fn tensors(config: &Config) -> Vec<Spec> {
    let Config { dim, hidden_dim, vocab_size, .. } = *config;
    let (q_dim, kv_dim) = (config.n_heads * config.head_size, config.n_kv_heads * config.head_size);
    let mut list = vec![("token_embd.weight".to_string(), vocab_size, dim)];
    for layer in 0..config.n_layers {
        for (name, rows, columns) in [
            ("attn_norm", 1, dim),
            ("attn_q", q_dim, dim),
            ("attn_k", kv_dim, dim),
            ("attn_v", kv_dim, dim),
            ("attn_output", dim, q_dim),
            ("ffn_norm", 1, dim),
            ("ffn_gate", hidden_dim, dim),
            ("ffn_up", hidden_dim, dim),
            ("ffn_down", dim, hidden_dim),
        ] {
            list.push((format!("blk.{layer}.{name}.weight"), rows, columns));
        }
    }
    list.push(("output_norm.weight".to_string(), 1, dim));
    if !config.shared_classifier {
        list.push(("output.weight".to_string(), vocab_size, dim));
    }
    list.into_iter().enumerate().map(|(index, (name, rows, columns))| (name, rows, columns, index)).collect()
}

fn header(config: &Config, vocab_size: i32) -> Vec<u8> {
    let sizes = [config.dim, config.hidden_dim, config.n_layers, config.n_heads, config.n_kv_heads];
    let mut file = Vec::new();
    for size in sizes {
        file.extend((size as i32).to_le_bytes());
    }
    file.extend(vocab_size.to_le_bytes());
    file.extend((config.seq_len as i32).to_le_bytes());
    file
}

/// Appends the tensors that have `part` between the dots of their names, layer by layer.
fn append(file: &mut Vec<u8>, config: &Config, part: &str) {
    for (name, rows, columns, index) in tensors(config) {
        if name.split('.').any(|known| known == part) {
            file.extend((index as f32 + 1.0).to_le_bytes().repeat(rows * columns));
        }
    }
}

/// A llama2.c checkpoint of version 0.
pub fn v0(config: &Config) -> Vec<u8> {
    let vocab_size = config.vocab_size as i32;
    let mut file = header(config, if config.shared_classifier { vocab_size } else { -vocab_size });
    for part in ["token_embd", "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm"] {
        append(&mut file, config, part);
    }
    for part in ["ffn_gate", "ffn_down", "ffn_up", "output_norm"] {
        append(&mut file, config, part);
    }
    file.extend(vec![0; 2 * 4 * config.seq_len * config.head_size / 2]);
    append(&mut file, config, "output");
    file
}

/// A llama2.c checkpoint of version 1.
pub fn v1(config: &Config) -> Vec<u8> {
    let mut file = 0x616b_3432_u32.to_le_bytes().to_vec();
    file.extend(1_i32.to_le_bytes());
    file.extend(header(config, config.vocab_size as i32));
    file.push(config.shared_classifier.into());
    file.resize(256, 0);
    for part in ["attn_norm", "ffn_norm", "output_norm", "token_embd", "attn_q", "attn_k", "attn_v"] {
        append(&mut file, config, part);
    }
    for part in ["attn_output", "ffn_gate", "ffn_down", "ffn_up", "output"] {
        append(&mut file, config, part);
    }
    file
}

/// A llama2.c checkpoint of version 2: all integers of a tensor are its index plus one, all scales its index.
pub fn v2(config: &Config, group: usize) -> Vec<u8> {
    let mut file = v1(config);
    file[4] = 2;
    file[37..41].copy_from_slice(&(group as i32).to_le_bytes());
    file.truncate(256);
    for part in ["attn_norm", "ffn_norm", "output_norm"] {
        append(&mut file, config, part);
    }
    let matrices =
        ["token_embd", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up"];
    for part in matrices.into_iter().chain(["output"]) {
        for (name, rows, columns, index) in tensors(config) {
            if name.split('.').any(|known| known == part) {
                file.resize(file.len() + rows * columns, index as u8 + 1);
                file.extend((index as f32).to_le_bytes().repeat(rows * columns / group));
            }
        }
    }
    file
}

/// A metadata value: the number of its type, and its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Value(pub u32, pub Vec<u8>);

impl Value {
    pub fn u32(value: u32) -> Self {
        Self(4, value.to_le_bytes().to_vec())
    }

    pub fn i32(value: i32) -> Self {
        Self(5, value.to_le_bytes().to_vec())
    }

    pub fn f32(value: f32) -> Self {
        Self(6, value.to_le_bytes().to_vec())
    }

    pub fn bool(value: bool) -> Self {
        Self(7, vec![value.into()])
    }

    pub fn string(value: &str) -> Self {
        Self(8, string(value))
    }

    pub fn u64(value: u64) -> Self {
        Self(10, value.to_le_bytes().to_vec())
    }

    pub fn f64(value: f64) -> Self {
        Self(12, value.to_le_bytes().to_vec())
    }

    /// An array of values of one type.
    pub fn array(element: u32, values: &[Self]) -> Self {
        let mut bytes = element.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| &value.1));
        Self(9, bytes)
    }
}

fn string(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

/// A tensor of a GGUF file.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub dimensions: Vec<u64>,
    pub kind: u32,
    pub data: Vec<u8>,
    /// An offset to write instead of the right one.
    pub offset: Option<u64>,
}

/// A GGUF file in parts that a test can change.
#[derive(Clone, Debug)]
pub struct Gguf {
    pub version: u32,
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
    pub alignment: usize,
}

impl Gguf {
    /// A valid file, with f32 tensors in tape order.
    pub fn new(config: &Config) -> Self {
        let size = |size: usize| Value::u32(size as u32);
        let named = ["<unk>", "<s>", "</s>", "a", "b", "c", "d"];
        let token = |id: usize| named.get(id).map_or_else(|| format!("a{id}"), |name| name.to_string());
        let tokens: Vec<_> = (0..config.vocab_size).map(|id| Value::string(&token(id))).collect();
        let metadata = [
            ("general.architecture", Value::string("llama")),
            ("general.name", Value::string("tiny")),
            ("llama.context_length", size(config.seq_len)),
            ("llama.embedding_length", size(config.dim)),
            ("llama.block_count", size(config.n_layers)),
            ("llama.feed_forward_length", size(config.hidden_dim)),
            ("llama.attention.head_count", size(config.n_heads)),
            ("llama.attention.head_count_kv", size(config.n_kv_heads)),
            ("llama.attention.layer_norm_rms_epsilon", Value::f32(config.norm_eps)),
            ("llama.rope.dimension_count", size(config.head_size)),
            ("tokenizer.ggml.model", Value::string("llama")),
            ("tokenizer.ggml.tokens", Value::array(8, &tokens)),
            ("tokenizer.ggml.scores", Value::array(6, &vec![Value::f32(-1.0); config.vocab_size])),
            ("tokenizer.ggml.token_type", Value::array(5, &vec![Value::i32(1); config.vocab_size])),
            ("tokenizer.ggml.bos_token_id", Value::u32(1)),
            ("tokenizer.ggml.eos_token_id", Value::u32(2)),
            ("tokenizer.ggml.unknown_token_id", Value::u32(0)),
        ];
        let tensors = tensors(config).into_iter().map(|(name, rows, columns, index)| {
            let norm = name.contains("norm");
            let dimensions = if norm { vec![columns as u64] } else { vec![columns as u64, rows as u64] };
            let data = (index as f32 + 1.0).to_le_bytes().repeat(rows * columns);
            Tensor { name, dimensions, kind: 0, data, offset: None }
        });
        let metadata = metadata.map(|(key, value)| (key.to_string(), value)).to_vec();
        Self { version: 3, metadata, tensors: tensors.collect(), alignment: 32 }
    }

    /// A valid file with a byte-level vocabulary.
    pub fn byte_level() -> Self {
        let mut file = Self::new(&CONFIG);
        let tokens = ["a", "b", "\u{120}", "ab", "<|end|>"].map(Value::string);
        file.set("tokenizer.ggml.model", Value::string("gpt2"))
            .set("tokenizer.ggml.pre", Value::string("smollm"))
            .set("tokenizer.ggml.tokens", Value::array(8, &tokens))
            .set("tokenizer.ggml.token_type", Value::array(5, &[1, 1, 1, 1, 3].map(Value::i32)))
            .set("tokenizer.ggml.merges", Value::array(8, &[Value::string("a b")]))
            .set("tokenizer.ggml.bos_token_id", Value::u32(4))
            .set("tokenizer.ggml.eos_token_id", Value::u32(4))
            .unset("tokenizer.ggml.scores");
        file
    }

    /// Changes or adds a value.
    pub fn set(&mut self, key: &str, value: Value) -> &mut Self {
        match self.metadata.iter_mut().find(|(known, _)| known == key) {
            Some(entry) => entry.1 = value,
            None => self.metadata.push((key.to_string(), value)),
        }
        self
    }

    /// Removes a value.
    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.metadata.retain(|(known, _)| known != key);
        self
    }

    /// A tensor, to change it.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    /// Stores a tensor as another type, of two bytes a number.
    pub fn halve(&mut self, name: &str, kind: u32, number: u16) -> &mut Self {
        let tensor = self.tensor(name);
        tensor.kind = kind;
        tensor.data = number.to_le_bytes().repeat(tensor.data.len() / 4);
        self
    }

    /// A valid file as `llamita convert` writes it: all matrices quantized to so many bits, in groups of so
    /// many columns or of rows, with checksums.
    pub fn device(config: &Config, bits: u32, group: Option<usize>) -> Self {
        let mut file = Self::new(config);
        file.quantize_all(bits, group).seal();
        file
    }

    /// Quantizes all matrices that are not quantized yet.
    pub fn quantize_all(&mut self, bits: u32, group: Option<usize>) -> &mut Self {
        let matrices = self
            .tensors
            .iter()
            .filter(|tensor| tensor.name.ends_with(".weight") && !tensor.name.contains("norm"));
        for name in matrices.map(|tensor| tensor.name.clone()).collect::<Vec<_>>() {
            self.quantize(&name, bits, group);
        }
        self
    }

    /// Quantizes a matrix of f32, in its place.
    pub fn quantize(&mut self, name: &str, bits: u32, group: Option<usize>) -> &mut Self {
        let tensor = self.tensor(name);
        let [columns, rows] = [tensor.dimensions[0] as usize, tensor.dimensions[1] as usize];
        let weights = tensor.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let group = group.unwrap_or(columns.next_multiple_of(32));
        let blocks = rows.div_ceil(8) as u64;
        tensor.name = format!("{}.q{bits}", name.strip_suffix(".weight").unwrap());
        tensor.data = pack(bits, group, columns, weights);
        tensor.dimensions = vec![tensor.data.len() as u64 / blocks, blocks];
        tensor.kind = 24;
        self.alignment = 64;
        self.set("general.alignment", Value::u32(64)).set("llamita.layout", Value::u32(2))
    }

    /// Adds the checksums of the tensors as they are.
    pub fn seal(&mut self) -> &mut Self {
        let sums: Vec<_> = self.tensors.iter().map(|tensor| Value::u32(crc32(&tensor.data))).collect();
        self.set("llamita.checksums", Value::array(4, &sums))
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, Value(kind, bytes)) in &self.metadata {
            file.extend(string(key));
            file.extend(kind.to_le_bytes());
            file.extend(bytes);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            file.extend(string(&tensor.name));
            file.extend((tensor.dimensions.len() as u32).to_le_bytes());
            file.extend(tensor.dimensions.iter().flat_map(|size| size.to_le_bytes()));
            file.extend(tensor.kind.to_le_bytes());
            file.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
        }
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file.extend(data);
        file
    }
}

/// A quantized matrix, as bytes of a file: rounded with scales that are powers of two, which half precision has.
fn pack(bits: u32, group: usize, columns: usize, weights: Vec<f32>) -> Vec<u8> {
    let (offset, run) = if bits == 8 { (0, 16) } else { (8, 32) };
    let limit = (1 << (bits - 1)) - 1;
    let exponent = |row: &[f32], index: usize| {
        let largest = row
            .chunks(group)
            .nth(index)
            .map_or(0.0, |part| part.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs())));
        (-14..15).find(|&exponent| 2_f32.powi(exponent) * limit as f32 >= largest).unwrap()
    };
    let mut bytes = Vec::new();
    let rows: Vec<&[f32]> = weights.chunks(columns).collect();
    for block in rows.chunks(8) {
        let row = |index: usize| block.get(index).copied().unwrap_or_default();
        let value = |index: usize, column: usize| -> u8 {
            let weight = row(index).get(column).copied().unwrap_or(0.0);
            let integer = (weight / 2_f32.powi(exponent(row(index), column / group))).round() as i32;
            (integer + offset) as u8
        };
        for index in 0..columns.div_ceil(group) {
            bytes.extend((0..8).flat_map(|row_index| {
                let row = row(row_index);
                let bits = if row.is_empty() { 0 } else { (exponent(row, index) + 15) << 10 };
                (bits as u16).to_le_bytes()
            }));
        }
        for first in (0..columns.next_multiple_of(group)).step_by(run) {
            for index in 0..8 {
                bytes.extend((first..first + 16).map(|column| match bits {
                    8 => value(index, column),
                    _ => value(index, column) | value(index, column + 16) << 4,
                }));
            }
        }
    }
    bytes
}

/// CRC-32 as in zip files, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

/// Damages a file: each four bytes of `edits` are a place, an operation and a byte.
pub fn damage(file: &mut Vec<u8>, edits: &[u8]) {
    for &[low, high, operation, byte] in edits.as_chunks::<4>().0 {
        if file.is_empty() {
            return;
        }
        let at = usize::from(u16::from_le_bytes([low, high])) % file.len();
        match operation {
            0 => file.truncate(at),
            1 => file.insert(at, byte),
            2 => drop(file.remove(at)),
            3 => file[at] = file[at].wrapping_add(byte),
            _ => file[at] = byte,
        }
    }
}
