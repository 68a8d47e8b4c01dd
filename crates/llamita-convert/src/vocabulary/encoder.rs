//! The engine's tokenizer over a vocabulary that is not in a file.

use llamita::Tokenizer;
use llamita::tokenizer::{ByteLevel, GgufVocabulary, PreTokenizer, Work};

use super::{Vocabulary, VocabularyModel};
use crate::error::{Error, Result};

/// The arrays that the engine reads a vocabulary from, and memory for its index.
pub struct Encoder {
    count: usize,
    tokens: Vec<u8>,
    scores: Vec<u8>,
    types: Vec<u8>,
    /// The merges of a byte-level vocabulary: their rule for words, their bytes and their number.
    byte_level: Option<(PreTokenizer, Vec<u8>, usize)>,
    /// BOS, EOS and the unknown token.
    special: (u32, u32, Option<u32>),
    add_space_prefix: bool,
    index: Vec<u32>,
}

impl Encoder {
    /// Lays a vocabulary out as GGUF has it.
    ///
    /// # Errors
    /// If the vocabulary is damaged, or splits text in a way that the engine does not know.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self> {
        vocabulary.check()?;
        let byte_level = match vocabulary.model {
            VocabularyModel::Llama => None,
            VocabularyModel::Gpt2 => {
                let name = vocabulary.pre.as_deref().unwrap_or("default");
                let pre = PreTokenizer::from_name(name.as_bytes()).ok_or_else(|| {
                    let supported = PreTokenizer::SUPPORTED;
                    Error::refused(format_args!(
                        "the rule for words is \"{}\", supported are {supported}: choose such a model",
                        name.escape_default()
                    ))
                })?;
                let merges = &vocabulary.merges;
                Some((pre, strings(merges.iter().map(String::as_bytes)), merges.len()))
            }
        };
        let bos = vocabulary.bos.or(vocabulary.eos).unwrap_or(0);
        Ok(Self {
            count: vocabulary.tokens.len(),
            tokens: strings(vocabulary.tokens.iter().map(Vec::as_slice)),
            scores: vocabulary.scores.iter().flat_map(|score| score.to_le_bytes()).collect(),
            types: vocabulary.types.iter().flat_map(|kind| kind.to_le_bytes()).collect(),
            byte_level,
            special: (bos, vocabulary.eos.unwrap_or(bos), vocabulary.unknown),
            add_space_prefix: vocabulary.add_space_prefix,
            index: Vec::new(),
        })
    }

    /// The same, but no space is put before a text.
    pub fn without_prefix(mut self) -> Self {
        self.add_space_prefix = false;
        self
    }

    /// The tokenizer, which puts BOS before every text.
    ///
    /// # Errors
    /// If the vocabulary is damaged.
    pub fn tokenizer(&mut self) -> Result<Tokenizer<'_>> {
        let (bos, eos, unknown) = self.special;
        let byte_level = self.byte_level.as_ref().map(|(pre, merges, merge_count)| ByteLevel {
            pre: *pre,
            merges,
            merge_count: *merge_count,
        });
        let vocabulary = GgufVocabulary {
            count: self.count,
            tokens: &self.tokens,
            scores: if byte_level.is_some() { &[] } else { &self.scores },
            types: Some(&self.types),
            bos,
            eos,
            unknown,
            add_space_prefix: self.add_space_prefix,
            add_bos: true,
            byte_level,
        };
        self.index.resize(vocabulary.index_len(), 0);
        let refuse = |error| Error::refused(format_args!("{error}: the vocabulary is damaged, get it again"));
        Tokenizer::from_gguf(&vocabulary, &mut self.index).map_err(refuse)
    }
}

/// Strings as GGUF has them in arrays, each after its length.
fn strings<'s>(strings: impl Iterator<Item = &'s [u8]>) -> Vec<u8> {
    strings.flat_map(|string| [&(string.len() as u64).to_le_bytes(), string].concat()).collect()
}

/// Memory for encoding, used again from text to text.
#[derive(Default)]
pub struct Scratch {
    work: Vec<Work>,
    tokens: Vec<u32>,
}

impl Scratch {
    /// The tokens of a text, without the BOS before them.
    ///
    /// # Errors
    /// If the text is too long.
    pub fn encode(&mut self, tokenizer: &Tokenizer<'_>, text: &str) -> Result<&[u32]> {
        let (work, tokens) = (Tokenizer::scratch_len(text.len()), Tokenizer::max_tokens(text.len()));
        self.work.resize(self.work.len().max(work), Work::EMPTY);
        self.tokens.resize(self.tokens.len().max(tokens), 0);
        let count = tokenizer.encode(text, &mut self.work, &mut self.tokens).map_err(Error::refused)?;
        Ok(&self.tokens[1..count])
    }
}
