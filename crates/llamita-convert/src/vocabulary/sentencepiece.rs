//! Reading `tokenizer.model`, the format of SentencePiece.

use super::Vocabulary;
use crate::error::{Error, Result};

/// Reads the content of a `tokenizer.model`.
pub fn from_sentencepiece(_model: &[u8]) -> Result<Vocabulary> {
    Err(Error::refused(
        "tokenizer.model is not supported yet: convert with a tokenizer.bin, named by --tokenizer",
    ))
}
