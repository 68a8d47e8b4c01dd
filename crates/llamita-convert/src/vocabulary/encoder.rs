//! The engine's tokenizer over a vocabulary that is not in a file.

use llamita::Tokenizer;
use llamita::tokenizer::{GgufVocabulary, Work};

use super::{Vocabulary, VocabularyModel};
use crate::error::{Error, Result};

/// The arrays that the engine reads a vocabulary from, and memory for its index.
pub struct Encoder {
    count: usize,
    tokens: Vec<u8>,
    scores: Vec<u8>,
    types: Vec<u8>,
    /// BOS, EOS and the unknown token.
    special: (u32, u32, Option<u32>),
    add_space_prefix: bool,
    index: Vec<u32>,
}

impl Encoder {
    /// Lays a vocabulary out as GGUF has it.
    ///
    /// # Errors
    /// If the vocabulary is damaged, or of a kind that the engine does not read.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self> {
        if vocabulary.model != VocabularyModel::Llama {
            return Err(Error::refused(
                "the vocabulary is byte-level (GPT-2), supported here is byte-pair encoding with scores \
                 (SentencePiece): choose such a model",
            ));
        }
        vocabulary.check()?;
        let count = vocabulary.tokens.len();
        let string = |token: &Vec<u8>| [&(token.len() as u64).to_le_bytes(), token.as_slice()].concat();
        let bos = vocabulary.bos.or(vocabulary.eos).unwrap_or(0);
        Ok(Self {
            count,
            tokens: vocabulary.tokens.iter().flat_map(string).collect(),
            scores: vocabulary.scores.iter().flat_map(|score| score.to_le_bytes()).collect(),
            types: vocabulary.types.iter().flat_map(|kind| kind.to_le_bytes()).collect(),
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

    /// The tokenizer.
    ///
    /// # Errors
    /// If the vocabulary is damaged.
    pub fn tokenizer(&mut self) -> Result<Tokenizer<'_>> {
        let (bos, eos, unknown) = self.special;
        let vocabulary = GgufVocabulary {
            count: self.count,
            tokens: &self.tokens,
            scores: &self.scores,
            types: Some(&self.types),
            bos,
            eos,
            unknown,
            add_space_prefix: self.add_space_prefix,
            add_bos: true,
            byte_level: None,
        };
        self.index.resize(vocabulary.index_len(), 0);
        let refuse = |error| Error::refused(format_args!("{error}: the vocabulary is damaged, get it again"));
        Tokenizer::from_gguf(&vocabulary, &mut self.index).map_err(refuse)
    }
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
        let tokens = &self.tokens[..count];
        Ok(tokens.strip_prefix(&[tokenizer.bos()]).unwrap_or(tokens))
    }
}
