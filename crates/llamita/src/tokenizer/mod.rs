//! Text to tokens and back: byte-pair encoding with scores and byte fallback, as SentencePiece does it.
//!
//! The method is that of SentencePiece (Kudo & Richardson, 2018) in its form with scores, which
//! llama2.c's `encode` follows too: a space is put before the text, the text is cut into characters,
//! and of all neighbours that together are a piece of the vocabulary the pair with the highest score is
//! merged, the leftmost first, until none is left. Characters that are no piece become byte tokens.
//!
//! Nothing is copied and nothing is allocated: the pieces stay in the file, the caller lends memory for
//! an index over them. Encoding takes O(n log n) time for any text. Two facts about a vocabulary, found
//! while its index is built, make ordinary text much cheaper than that:
//!
//! - Two characters that are neighbours in no piece can never be merged across: the text is cut there
//!   into words that do not depend on each other.
//! - Most pieces are what their own text is encoded to: a word that is such a piece needs one look-up.

mod encode;
mod index;
mod text;
mod vocabulary;

use core::fmt;

pub use encode::Work;
pub use text::{Decoded, Utf8Stream};
pub use vocabulary::GgufVocabulary;

use index::Table;
use vocabulary::Kind;

/// A vocabulary, indexed for encoding; it borrows the file and the memory that was lent for the index.
#[derive(Clone, Copy)]
pub struct Tokenizer<'a> {
    table: Table<'a>,
    /// One bit for each pair of ASCII characters: whether some piece has them as neighbours.
    joins: &'a [u32; index::JOINS],
    /// The token of each ASCII character, and of each byte of a character that is no piece.
    singles: &'a [u32; 256],
    bos: u32,
    eos: u32,
    add_space_prefix: bool,
}

impl<'a> Tokenizer<'a> {
    /// Largest number of tokens of a vocabulary.
    pub const MAX_VOCAB_SIZE: usize = crate::config::Config::MAX_SIZE;

    /// Number of tokens.
    pub const fn vocab_size(&self) -> usize {
        self.table.pieces.count()
    }

    /// The token that begins every text.
    pub const fn bos(&self) -> u32 {
        self.bos
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
        let decoded = match pieces.kind(token) {
            Kind::Text | Kind::Unused => Decoded::new(pieces.bytes(token), pieces.marked),
            Kind::Byte(byte) => Decoded::byte(byte),
            Kind::Control => Decoded::new(&[], false),
            // A tokenizer.bin, whose spaces are not marked, says what llama2.c prints.
            Kind::Unknown if pieces.marked => Decoded::new(" \u{2047} ".as_bytes(), false),
            Kind::Unknown => Decoded::new(pieces.bytes(token), false),
        };
        if self.add_space_prefix && previous == self.bos { decoded.without_leading_space() } else { decoded }
    }
}

impl fmt::Debug for Tokenizer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

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
    /// A special token is outside the vocabulary.
    SpecialToken {
        /// Which one: "BOS", "EOS" or "unknown".
        name: &'static str,
        /// The token.
        found: u32,
        /// Tokens of the vocabulary.
        vocab_size: usize,
    },
    /// Some byte has no token, and there is no unknown token to stand for all of them.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A vocabulary of <unk>, BOS, EOS, all bytes and these pieces, as a tokenizer.bin.
    fn bin(pieces: &[(&str, f32)]) -> Vec<u8> {
        let mut bytes = 27_i32.to_le_bytes().to_vec();
        let mut add = |piece: &str, score: f32| {
            bytes.extend(score.to_le_bytes());
            bytes.extend((piece.len() as i32).to_le_bytes());
            bytes.extend(piece.bytes());
        };
        ["<unk>", "\n<s>\n", "\n</s>\n"].iter().for_each(|piece| add(piece, 0.0));
        (0..=255).for_each(|byte| add(&format!("<0x{byte:02X}>"), 0.0));
        pieces.iter().for_each(|&(piece, score)| add(piece, score));
        bytes
    }

    fn encode(tokenizer: &Tokenizer<'_>, text: &str) -> Vec<u32> {
        let mut scratch = vec![Work::EMPTY; Tokenizer::scratch_len(text.len())];
        let mut tokens = vec![0; Tokenizer::max_tokens(text.len())];
        let count = tokenizer.encode(text, &mut scratch, &mut tokens).unwrap();
        tokens.truncate(count);
        tokens
    }

    fn decode(tokenizer: &Tokenizer<'_>, tokens: &[u32]) -> Vec<u8> {
        tokens.windows(2).flat_map(|pair| tokenizer.decode(pair[0], pair[1])).flatten().copied().collect()
    }

    /// Encodes with a vocabulary of these pieces; the first of them is token 259.
    fn check(pieces: &[(&str, f32)], text: &str, expected: &[u32]) {
        let bytes = bin(pieces);
        let count = Tokenizer::count_bin(&bytes).unwrap();
        let mut index = vec![0; Tokenizer::index_len(count)];
        let tokenizer = Tokenizer::from_bin(&bytes, count, &mut index).unwrap();
        let tokens = encode(&tokenizer, text);
        assert_eq!(tokens, expected, "{text:?}");
        assert_eq!(decode(&tokenizer, &tokens), text.as_bytes());
    }

    #[test]
    fn the_highest_score_is_merged_first() {
        let pieces = [(" ", -9.0), ("a", -9.0), ("b", -9.0), ("ab", -2.0), ("ba", -1.0), (" a", -3.0)];
        check(&pieces, "", &[1]);
        check(&pieces, "a", &[1, 264]);
        check(&pieces, "ab", &[1, 259, 262]);
        check(&pieces, "aba", &[1, 264, 263]);
    }

    #[test]
    fn of_equal_scores_the_leftmost_is_merged_first() {
        let pieces = [(" ", 0.0), ("a", 0.0), ("aa", -0.0), ("aaa", 0.0), ("aaaa", 5.0)];
        check(&pieces, "aaa", &[1, 259, 262]);
        let pieces = [(" ", 0.0), ("a", 0.0), ("b", 0.0), ("ab", 1.0), ("ba", 1.0)];
        check(&pieces, "aba", &[1, 259, 262, 260]);
        check(&pieces, "bab", &[1, 259, 263, 261]);
    }

    #[test]
    fn merges_are_the_same_in_short_and_long_words() {
        let pieces = [(" ", 0.0), ("a", 0.0), ("aa", -1.0), (" a", -1.0)];
        for len in 1..100_u32 {
            // The space takes the first letter, the others pair up.
            let mut expected = vec![1, 262];
            expected.extend((1..len).step_by(2).map(|at| if at + 1 < len { 261 } else { 260 }));
            check(&pieces, &"a".repeat(len as usize), &expected);
        }
    }

    #[test]
    fn characters_that_are_no_pieces_become_bytes() {
        check(&[(" ", 0.0), ("é", 0.0)], "é\n数", &[1, 259, 260, 3 + 10, 3 + 0xE6, 3 + 0x95, 3 + 0xB0]);
        // Without a piece for it, the space before the text is a byte too.
        check(&[("b", 0.0)], "b", &[1, 3 + 0x20, 259]);
    }

    #[test]
    fn text_never_becomes_a_special_token() {
        let letters: Vec<_> = ["<", "0", "x", "4", "1", ">", "s", "<0", "<0x", "<0x4", "<0x41"]
            .map(|piece| (piece, 0.0))
            .into();
        check(&letters, "<0x41>", &[1, 35, 269, 264]);
        check(&letters, "<s>", &[1, 35, 259, 265, 264]);
    }

    #[test]
    fn a_piece_may_have_a_space_within() {
        let pieces = [(" ", 0.0), ("a", 0.0), ("b", 0.0), ("a ", -2.0), ("a b", -1.0), ("  ", -3.0)];
        check(&pieces, "a b", &[1, 259, 263]);
        check(&pieces, "   b", &[1, 264, 264, 261]);
    }

    #[test]
    fn the_unknown_token_of_a_bin_is_its_piece_as_in_llama2c() {
        let bytes = bin(&[(" ", 0.0), ("a", 0.0)]);
        let count = Tokenizer::count_bin(&bytes).unwrap();
        let mut index = vec![0; Tokenizer::index_len(count)];
        let tokenizer = Tokenizer::from_bin(&bytes, count, &mut index).unwrap();
        assert_eq!(decode(&tokenizer, &[1, 260, 0, 259, 0]), b"a<unk> <unk>");
        assert_eq!(decode(&tokenizer, &[1, 0]), b"<unk>");
        // The marks of begin and end have pieces too, but a text ends before either is printed.
        assert_eq!(decode(&tokenizer, &[260, 1, 2]), b"");
        assert_eq!(tokenizer.piece(2), b"\n</s>\n");
    }

    #[test]
    fn without_byte_tokens_a_run_of_strangers_is_one_unknown_token() {
        let types = [2, 3, 3, 1, 1, 1, 5].map(i32::to_le_bytes).concat();
        let pieces = ["<unk>", "<s>", "</s>", "▁", "a", "▁a", "aa"];
        let tokens: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| (piece.len() as u64).to_le_bytes().into_iter().chain(piece.bytes()))
            .collect();
        let mut vocabulary = GgufVocabulary {
            count: pieces.len(),
            tokens: &tokens,
            scores: &[0; 28],
            types: Some(&types),
            bos: 1,
            eos: 2,
            unknown: Some(0),
            add_space_prefix: false,
        };
        let mut index = vec![0; Tokenizer::index_len(pieces.len())];
        let tokenizer = Tokenizer::from_gguf(&vocabulary, &mut index).unwrap();
        let tokens = encode(&tokenizer, "aa a数\n▁");
        assert_eq!(tokens, [1, 4, 4, 5, 0]);
        assert_eq!(decode(&tokenizer, &tokens), "aa a \u{2047} ".as_bytes());
        assert_eq!(tokenizer.piece(5), "▁a".as_bytes());
        // Without a space before the text there is none to drop.
        assert_eq!(decode(&tokenizer, &[1, 5, 5, 1, 7, u32::MAX]), b" a a");
        vocabulary.unknown = None;
        let error = Tokenizer::from_gguf(&vocabulary, &mut index).unwrap_err();
        assert_eq!(error, TokenizerError::ByteToken { byte: 0 });
    }
}
