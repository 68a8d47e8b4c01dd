//! What can be wrong with a vocabulary, or with the memory that is lent.

use core::fmt;

use super::merges::Merges;
use super::{Tokenizer, encode, vocabulary};

/// Why a vocabulary was refused, or a text not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerError {
    /// The file ends within a token.
    Truncated {
        /// The token, counted from 0.
        token: usize,
    },
    /// A token has a length that cannot be.
    Length {
        /// The token, counted from 0.
        token: usize,
        /// Bytes it claims to have.
        found: i64,
    },
    /// The file holds another vocabulary than that of the model.
    VocabSize {
        /// Tokens in the file.
        found: usize,
        /// Tokens of the model.
        expected: usize,
    },
    /// No tokens, or more than the engine accepts.
    VocabLimit {
        /// Tokens found.
        found: usize,
    },
    /// An array of the vocabulary has a wrong length, in bytes.
    ArrayLength {
        /// Name of the array.
        array: &'static str,
        /// Its length.
        found: usize,
        /// The length that follows from the number of tokens.
        expected: usize,
    },
    /// The file is too large for offsets of 32 bits.
    FileSize {
        /// Bytes of the file.
        found: u64,
    },
    /// The score of a token is not a number.
    Score {
        /// The token, counted from 0.
        token: usize,
    },
    /// A merge that is not two tokens with a space between them which are a token together, or whose left part
    /// is longer than 4095 bytes.
    Merge {
        /// The merge, counted from 0.
        merge: usize,
    },
    /// More merges than the engine accepts.
    MergeLimit {
        /// Merges found.
        found: usize,
    },
    /// A special token is outside the vocabulary.
    SpecialToken {
        /// Which one: "BOS", "EOS" or "unknown".
        name: &'static str,
        /// The token.
        found: u32,
        /// Tokens of the vocabulary.
        vocab_size: usize,
    },
    /// Some byte has no token, and there is no unknown token to stand for all of them; or none at all has one
    /// in a byte-level vocabulary.
    ByteToken {
        /// The first such byte.
        byte: u8,
    },
    /// Too little memory was lent for the index.
    IndexMemory {
        /// Elements lent.
        found: usize,
        /// Elements needed.
        needed: usize,
    },
    /// Too little memory was lent for a word of the text.
    ScratchMemory {
        /// Elements lent.
        found: usize,
        /// Elements this text needs.
        needed: usize,
    },
    /// Too little memory was lent for the tokens.
    TokenMemory {
        /// Elements lent.
        found: usize,
        /// Elements that are enough for any text of this length.
        enough: usize,
    },
    /// The text is too long for positions of 32 bits.
    TextLength {
        /// Bytes of the text.
        found: u64,
    },
}

impl fmt::Display for TokenizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { token } => write!(f, "the tokenizer ends within token {token}"),
            Self::Length { token, found } => {
                write!(f, "token {token} of the tokenizer has a length of {found} bytes, expected 0 or more")
            }
            Self::VocabSize { found, expected } => {
                write!(f, "the tokenizer has {found} tokens, the model has {expected}")
            }
            Self::VocabLimit { found } => {
                let limit = Tokenizer::MAX_VOCAB_SIZE;
                write!(f, "the tokenizer has {found} tokens, expected 1 to {limit}")
            }
            Self::ArrayLength { array, found, expected } => {
                write!(f, "the tokenizer's {array} take {found} bytes, expected {expected}")
            }
            Self::FileSize { found } => {
                write!(f, "the tokenizer takes {found} bytes, expected at most {}", vocabulary::MAX_BYTES)
            }
            Self::Score { token } => write!(f, "the score of token {token} is not a number"),
            Self::Merge { merge } => write!(
                f,
                "merge {merge} of the tokenizer is not two tokens with a space between them that are a token \
                 together, of less than {} bytes each",
                Merges::CUT_LIMIT
            ),
            Self::MergeLimit { found } => {
                write!(f, "the tokenizer has {found} merges, expected at most {}", Merges::LIMIT)
            }
            Self::SpecialToken { name, found, vocab_size } => {
                write!(f, "the {name} token is {found}, expected one below {vocab_size}")
            }
            Self::ByteToken { byte } => {
                write!(f, "the tokenizer has no token <0x{byte:02X}>, expected one for every byte")
            }
            Self::IndexMemory { found, needed } => {
                write!(f, "{found} elements were lent for the tokenizer's index, {needed} are needed")
            }
            Self::ScratchMemory { found, needed } => {
                write!(f, "{found} elements were lent for encoding, {needed} are needed")
            }
            Self::TokenMemory { found, enough } => {
                write!(f, "{found} elements were lent for tokens and were too few, {enough} are enough")
            }
            Self::TextLength { found } => {
                write!(f, "the text has {found} bytes, expected at most {}", encode::MAX_TEXT)
            }
        }
    }
}

impl core::error::Error for TokenizerError {}
