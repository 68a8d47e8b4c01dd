//! Text to tokens and back: byte-pair encoding, as SentencePiece does it with scores and byte fallback, and as
//! GPT-2 does it with bytes and merges.
//!
//! SentencePiece's method is that of SentencePiece (Kudo & Richardson, 2018) in its form with scores, which
//! llama2.c's `encode` follows too: a space is put before the text, the text is cut into characters,
//! and of all neighbours that together are a piece of the vocabulary the pair with the highest score is
//! merged, the leftmost first, until none is left. Characters that are no piece become byte tokens.
//!
//! GPT-2's method (Radford et al., 2019), which Llama 3 and SmolLM use: the text is cut into words by a rule
//! that belongs to the vocabulary ([`PreTokenizer`]), each word into bytes, and of all neighbours that some
//! merge joins the pair whose merge comes first in the list is merged, the leftmost first, until none is left.
//! The pieces spell bytes in an alphabet of printable characters.
//!
//! Nothing is copied and nothing is allocated: the pieces stay in the file, the caller lends memory for
//! an index over them. Encoding takes O(n log n) time for any text, and both methods share the code that merges.
//! Two facts about a vocabulary, found while its index is built, make ordinary text much cheaper than that:
//!
//! - Two characters that are neighbours in no piece can never be merged across: the text is cut there
//!   into words that do not depend on each other. (Byte-level vocabularies have a rule for that.)
//! - Most pieces are what their own text is encoded to: a word that is such a piece needs one look-up.

mod alphabet;
mod encode;
mod error;
mod index;
mod merges;
mod read;
mod special;
mod text;
#[cfg(feature = "byte-level")]
mod unicode;
mod vocabulary;
#[cfg(feature = "byte-level")]
mod words;
#[cfg(not(feature = "byte-level"))]
#[path = "no_words.rs"]
mod words;

use core::fmt;

pub use encode::Work;
pub use error::TokenizerError;
pub use text::{Decoded, Utf8Stream};
pub use vocabulary::{ByteLevel, GgufVocabulary};
pub use words::PreTokenizer;

use alphabet::Alphabet;
use index::Table;
use special::Special;
use vocabulary::Kind;

/// A vocabulary, indexed for encoding; it borrows the file and the memory that was lent for the index.
#[derive(Clone, Copy)]
pub struct Tokenizer<'a> {
    table: Table<'a>,
    split: Split<'a>,
    /// The token of each ASCII character, and of each byte of a character that is no piece.
    singles: &'a [u32; 256],
    special: Special<'a>,
    bos: u32,
    eos: u32,
    add_space_prefix: bool,
    add_bos: bool,
}

/// How text is cut into words that are merged by themselves.
#[derive(Clone, Copy)]
enum Split<'a> {
    /// One bit for each pair of ASCII characters: whether some piece has them as neighbours.
    Joins(&'a [u32; index::JOINS]),
    /// By the rule of a byte-level vocabulary.
    Words(PreTokenizer),
}

impl<'a> Tokenizer<'a> {
    /// Largest number of tokens of a vocabulary.
    pub const MAX_VOCAB_SIZE: usize = crate::config::Config::MAX_SIZE;

    /// Number of tokens.
    pub const fn vocab_size(&self) -> usize {
        self.table.pieces.count()
    }

    /// The token to begin a text with: BOS, or in a vocabulary without it EOS, which is what stands between the
    /// texts that such a model has learned from.
    ///
    /// [`Self::encode`] puts it before a text if [`Self::adds_bos`]; a model that is to begin by itself needs it
    /// in any case.
    pub const fn bos(&self) -> u32 {
        self.bos
    }

    /// Whether every text is encoded with BOS first: always with SentencePiece, as the file says where it is
    /// byte-level.
    pub const fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// The token that ends a text.
    pub const fn eos(&self) -> u32 {
        self.eos
    }

    /// The token for text that the vocabulary cannot express, if there is one.
    pub const fn unknown(&self) -> Option<u32> {
        self.table.pieces.unknown
    }

    /// The bytes of a token as the file has them, for display: `▁the`, `<0x0A>`, `<s>`.
    ///
    /// Empty where there is no such token.
    pub fn piece(&self, token: u32) -> &'a [u8] {
        self.table.pieces.bytes(token)
    }

    /// The text of `token` where it follows `previous`, as slices of bytes.
    ///
    /// A token may be a part of a character only: [`Utf8Stream`] gathers whole ones. The space that
    /// encoding put before the text is dropped again after BOS. Control tokens, and numbers that are no
    /// token, have no text. The unknown token is " ⁇ ", as in SentencePiece, or for a tokenizer.bin its piece
    /// `<unk>`, as in llama2.c.
    pub fn decode(&self, previous: u32, token: u32) -> Decoded<'a> {
        let pieces = &self.table.pieces;
        let plain = |bytes| Decoded::new(bytes, Alphabet::Plain);
        let decoded = match pieces.kind(token) {
            Kind::Unused if !pieces.alphabet.spells(pieces.bytes(token)) => plain(pieces.bytes(token)),
            Kind::Text | Kind::Unused => Decoded::new(pieces.bytes(token), pieces.alphabet),
            Kind::UserDefined => plain(pieces.bytes(token)),
            Kind::Byte(byte) => Decoded::byte(byte),
            Kind::Control => plain(&[]),
            // A tokenizer.bin, whose spaces are not marked, says what llama2.c prints.
            Kind::Unknown if pieces.alphabet == Alphabet::Plain => plain(pieces.bytes(token)),
            Kind::Unknown => plain(" \u{2047} ".as_bytes()),
        };
        if self.add_space_prefix && previous == self.bos { decoded.without_leading_space() } else { decoded }
    }
}

impl fmt::Debug for Tokenizer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
