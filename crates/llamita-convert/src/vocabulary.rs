//! The tokens of a model as owned data, in the form that GGUF gives them.

mod encoder;
mod gguf;
mod json;
mod llama2c;
mod sentencepiece;

pub use encoder::{Encoder, Scratch};
pub use gguf::from_gguf;
pub(crate) use json::chat_template;
pub use json::from_tokenizer_json;
pub use llama2c::{from_llama2c_bin, to_llama2c_bin};
pub use sentencepiece::from_sentencepiece;

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// Reads a tokenizer of a model with this many tokens: a `tokenizer.bin`, `tokenizer.model` or
/// `tokenizer.json`, told apart by what is in it.
pub fn read_file(path: &Path, vocab_size: usize) -> Result<Vocabulary> {
    let read = || {
        let bytes = fs::read(path).map_err(Error::Read)?;
        let is_json = bytes.trim_ascii_start().starts_with(b"{");
        // A field of bytes, its length, and within it another: the first piece of SentencePiece.
        let is_sentencepiece = matches!(bytes.get(..3), Some([0x0a, _, 0x0a]));
        let mut vocabulary = match (is_json, is_sentencepiece) {
            (true, _) => {
                let settings = fs::read(path.with_file_name("tokenizer_config.json")).ok();
                from_tokenizer_json(&bytes, settings.as_deref())?
            }
            (_, true) => from_sentencepiece(&bytes)?,
            _ => {
                let vocabulary = from_llama2c_bin(&bytes)?;
                if vocabulary.tokens.len() < vocab_size {
                    return Err(wrong_size(vocabulary.tokens.len(), vocab_size));
                }
                vocabulary
            }
        };
        vocabulary.fill(vocab_size)?;
        Ok(vocabulary)
    };
    read().map_err(|error| error.at(path))
}

fn wrong_size(found: usize, expected: usize) -> Error {
    Error::refused(format_args!(
        "the tokenizer has {found} tokens, the model {expected}: name the tokenizer that the model was trained \
         with by --tokenizer"
    ))
}

/// How a vocabulary splits text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VocabularyModel {
    /// Byte-pair encoding with scores and byte tokens, as SentencePiece does it; a space is '▁' in a token.
    Llama,
    /// Byte-level byte-pair encoding with merges, as GPT-2 does it; tokens are spelled in its alphabet of
    /// 256 printable characters.
    Gpt2,
}

/// Numbers of `tokenizer.ggml.token_type`.
pub mod token_type {
    /// A piece of text.
    pub const NORMAL: i32 = 1;
    /// Stands for text that the vocabulary cannot express.
    pub const UNKNOWN: i32 = 2;
    /// A mark that no text becomes, such as BOS.
    pub const CONTROL: i32 = 3;
    /// A piece that is found in text before anything else is.
    pub const USER_DEFINED: i32 = 4;
    /// A piece that is never produced.
    pub const UNUSED: i32 = 5;
    /// One byte, spelled such as `<0x0A>`.
    pub const BYTE: i32 = 6;
}

/// A vocabulary, as it is written to the `tokenizer.ggml.*` keys of GGUF.
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary {
    /// How it splits text.
    pub model: VocabularyModel,
    /// How text is cut into words before merging, by llama.cpp's name, such as "llama-bpe"; byte-level
    /// vocabularies only.
    pub pre: Option<String>,
    /// The bytes of each token as GGUF spells them.
    pub tokens: Vec<Vec<u8>>,
    /// A score for each token: the highest merges first. Zeros for byte-level vocabularies.
    pub scores: Vec<f32>,
    /// A number of [`token_type`] for each token.
    pub types: Vec<i32>,
    /// Pairs with a space between them, the first merges first; byte-level vocabularies only.
    pub merges: Vec<String>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// The token for what the vocabulary cannot express.
    pub unknown: Option<u32>,
    /// The token that fills up batches.
    pub padding: Option<u32>,
    /// Whether a space is put before every text.
    pub add_space_prefix: bool,
    /// Whether every text begins with BOS.
    pub add_bos: bool,
    /// The template that turns a conversation into text, in Jinja.
    pub chat_template: Option<String>,
}

impl Vocabulary {
    /// Refuses a vocabulary whose lists are not of one length, or whose special tokens do not exist.
    pub fn check(&self) -> Result<()> {
        let count = self.tokens.len();
        for (name, found) in [("scores", self.scores.len()), ("token types", self.types.len())] {
            if found != count {
                return Err(Error::refused(format_args!(
                    "the vocabulary has {found} {name}, expected {count}, one for each token: \
                     the file is damaged, copy or download it again"
                )));
            }
        }
        let special = [("BOS", self.bos), ("EOS", self.eos), ("unknown", self.unknown)];
        for (name, id) in special.into_iter().chain([("padding", self.padding)]) {
            if let Some(id) = id.filter(|&id| id as usize >= count) {
                return Err(Error::refused(format_args!(
                    "the {name} token is {id}, expected one of {count} tokens: \
                     the file is damaged, copy or download it again"
                )));
            }
        }
        Ok(())
    }
}

impl Vocabulary {
    /// Adds unused tokens until there are as many as the model has rows for: models are often given a few more
    /// than their tokenizer needs.
    pub fn fill(&mut self, vocab_size: usize) -> Result<()> {
        let count = self.tokens.len();
        if count > vocab_size {
            return Err(wrong_size(count, vocab_size));
        }
        self.tokens.extend((count..vocab_size).map(|token| format!("[PAD{token}]").into_bytes()));
        self.types.resize(vocab_size, token_type::UNUSED);
        self.scores.resize(vocab_size, 0.0);
        Ok(())
    }
}

/// Whether a token is spelled as one byte, such as `<0x0A>`.
fn is_byte_token(piece: &[u8]) -> bool {
    match piece {
        [b'<', b'0', b'x', high, low, b'>'] => [high, low].iter().all(|c| c.is_ascii_hexdigit()),
        _ => false,
    }
}
