//! Files for the program: reference data, and models made up on the spot.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use llamita::Config;
use llamita::format::llama2c;
use llamita::weights::{Norm, Tensor};

#[path = "../../../llamita/tests/common/data.rs"]
mod reference;

pub use reference::path as data;

/// A folder of its own for a test, removed in the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("llamita-cli-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A folder with a small model and its tokenizer.
    pub fn with_model() -> Self {
        let folder = Self::new();
        folder.write("model.bin", &model(&SMALL));
        folder.write("tokenizer.bin", &tokenizer(SMALL.vocab_size));
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A path as an argument, in commands written as lists of text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have simple names")
}

/// The shape of the small model.
pub const SMALL: Config = Config {
    dim: 16,
    hidden_dim: 24,
    n_layers: 2,
    n_heads: 4,
    n_kv_heads: 2,
    head_size: 4,
    vocab_size: 270,
    seq_len: 64,
    norm_eps: 1e-5,
    rope_theta: 10000.0,
    shared_classifier: true,
};

/// A llama2.c checkpoint of version 0 with random weights.
pub fn model(config: &Config) -> Vec<u8> {
    let mut random = 0x853c_49e6_u32;
    let mut number = || {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        (random >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let mut bytes = llama2c::header(config).unwrap().to_vec();
    while bytes.len() < llama2c::file_len(config) as usize {
        bytes.extend(number().to_le_bytes());
    }
    bytes
}

/// Where a tensor of the model begins.
pub fn place(config: &Config, wanted: Tensor) -> usize {
    let mut place = 0;
    llama2c::places(config, |tensor, offset| {
        if tensor == wanted {
            place = offset as usize;
        }
    });
    place
}

/// The small model with another number at one place.
pub fn model_with(tensor: Tensor, number: f32) -> Vec<u8> {
    let mut bytes = model(&SMALL);
    let place = place(&SMALL, tensor);
    bytes[place..place + 4].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// A norm of the small model.
pub const NORM: Tensor = Tensor::Norm(Norm::FeedForward(1));

/// The pieces of a vocabulary of this size: special tokens, bytes, and letters.
fn pieces(vocab_size: usize) -> impl Iterator<Item = String> {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter();
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let letters = (0..).map(|i| char::from_u32('a' as u32 + i).unwrap().to_string());
    special.chain(bytes).chain(["\u{2581}".to_owned()]).chain(letters).take(vocab_size)
}

/// llama2.c's tokenizer.bin with a vocabulary of this size.
pub fn tokenizer(vocab_size: usize) -> Vec<u8> {
    let mut bytes = 6_i32.to_le_bytes().to_vec();
    for piece in pieces(vocab_size) {
        let piece = piece.replace('\u{2581}', " ");
        bytes.extend(0_f32.to_le_bytes());
        bytes.extend((piece.len() as i32).to_le_bytes());
        bytes.extend(piece.bytes());
    }
    bytes
}

/// The pieces of a byte-level vocabulary as large as the small model's: letters of all bytes, "ab" and so on.
fn letters() -> impl Iterator<Item = String> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let letter = move |byte: u8| {
        let others = (0..byte).filter(|byte| !printable(byte)).count() as u32;
        if printable(&byte) { char::from(byte) } else { char::from_u32(256 + others).unwrap() }.to_string()
    };
    let merged = (2..=13).map(|len| "abcdefghijklm"[..len].to_owned());
    (0..=255).map(letter).chain(merged).chain(["<|begin|>", "<|end|>"].map(str::to_owned))
}

/// The small model as GGUF with its tokenizer, with this context and name.
pub fn gguf(seq_len: usize, name: &str) -> Vec<u8> {
    let tokens: Vec<u8> = pieces(SMALL.vocab_size).flat_map(|piece| string(&piece)).collect();
    let vocabulary = [
        ("tokenizer.ggml.model", string_value("llama")),
        ("tokenizer.ggml.tokens", array(8, SMALL.vocab_size, tokens)),
        ("tokenizer.ggml.scores", array(6, SMALL.vocab_size, vec![0; 4 * SMALL.vocab_size])),
        ("tokenizer.ggml.bos_token_id", u32_value(1)),
        ("tokenizer.ggml.eos_token_id", u32_value(2)),
    ];
    gguf_with(seq_len, name, &vocabulary)
}

/// The small model with a byte-level vocabulary.
pub fn byte_level_gguf(add_bos: bool) -> Vec<u8> {
    let tokens: Vec<u8> = letters().flat_map(|piece| string(&piece)).collect();
    let types = (0..270).flat_map(|token| if token < 268 { 1_i32 } else { 3 }.to_le_bytes()).collect();
    let merges = (1..=12).flat_map(|len| {
        let (left, right) = "abcdefghijklm"[..=len].split_at(len);
        string(&format!("{left} {right}"))
    });
    let vocabulary = [
        ("tokenizer.ggml.model", string_value("gpt2")),
        ("tokenizer.ggml.pre", string_value("smollm")),
        ("tokenizer.ggml.tokens", array(8, SMALL.vocab_size, tokens)),
        ("tokenizer.ggml.token_type", array(5, SMALL.vocab_size, types)),
        ("tokenizer.ggml.merges", array(8, 12, merges.collect())),
        ("tokenizer.ggml.bos_token_id", u32_value(268)),
        ("tokenizer.ggml.eos_token_id", u32_value(269)),
        ("tokenizer.ggml.add_bos_token", [&7_u32.to_le_bytes()[..], &[add_bos.into()]].concat()),
    ];
    gguf_with(SMALL.seq_len, "byte-level", &vocabulary)
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn u32_value(value: usize) -> Vec<u8> {
    [4_u32, value as u32].map(u32::to_le_bytes).concat()
}

fn string_value(text: &str) -> Vec<u8> {
    [8_u32.to_le_bytes().to_vec(), string(text)].concat()
}

fn array(kind: u32, count: usize, bytes: Vec<u8>) -> Vec<u8> {
    [&9_u32.to_le_bytes()[..], &kind.to_le_bytes(), &(count as u64).to_le_bytes(), &bytes].concat()
}

fn gguf_with(seq_len: usize, name: &str, vocabulary: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let Config { dim, hidden_dim, n_layers, n_heads, n_kv_heads, .. } = SMALL;
    let metadata = [
        ("general.architecture", string_value("llama")),
        ("general.name", string_value(name)),
        ("llama.embedding_length", u32_value(dim)),
        ("llama.feed_forward_length", u32_value(hidden_dim)),
        ("llama.block_count", u32_value(n_layers)),
        ("llama.attention.head_count", u32_value(n_heads)),
        ("llama.attention.head_count_kv", u32_value(n_kv_heads)),
        ("llama.context_length", u32_value(seq_len)),
        (
            "llama.attention.layer_norm_rms_epsilon",
            [6_u32.to_le_bytes(), SMALL.norm_eps.to_le_bytes()].concat(),
        ),
    ];
    let mut tensors = Vec::new();
    llama2c::places(&SMALL, |tensor, offset| tensors.push((tensor, offset as usize)));

    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    let metadata = metadata.iter().chain(vocabulary);
    for count in [tensors.len(), metadata.clone().count()] {
        bytes.extend((count as u64).to_le_bytes());
    }
    for (key, value) in metadata {
        bytes.extend(string(key));
        bytes.extend(value);
    }
    let (model, mut data) = (model(&SMALL), Vec::new());
    for (tensor, offset) in tensors {
        let (rows, columns) = llamita::Tape::shape(&SMALL, tensor);
        let shape = if let Tensor::Norm(_) = tensor { vec![columns] } else { vec![columns, rows] };
        bytes.extend(string(&llamita::format::TensorName(tensor).to_string()));
        bytes.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|&size| bytes.extend((size as u64).to_le_bytes()));
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend((data.len() as u64).to_le_bytes());
        data.extend(&model[offset..offset + 4 * rows * columns]);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes.extend(data);
    bytes
}
