//! Reading a vocabulary: where its pieces are, and what they are.

use super::alphabet::Alphabet;
use super::index::JOINS;
use super::merges::Merges;
use super::special;
use super::{PreTokenizer, Tokenizer, TokenizerError};

/// Bytes before each piece: score and length in a tokenizer.bin, the length alone in GGUF.
pub(super) const HEADER: usize = 8;
/// Offsets have 32 bits.
pub(super) const MAX_BYTES: u32 = u32::MAX;

/// The tokenizer of a GGUF file: its arrays, as raw little-endian bytes within the file.
#[derive(Clone, Copy, Debug)]
pub struct GgufVocabulary<'a> {
    /// Number of tokens.
    pub count: usize,
    /// `tokenizer.ggml.tokens`: for each token a `u64` length in bytes and the bytes, nothing after the last.
    pub tokens: &'a [u8],
    /// `tokenizer.ggml.scores`: an `f32` for each token; nothing for a byte-level vocabulary.
    pub scores: &'a [u8],
    /// `tokenizer.ggml.token_type`: an `i32` for each token, 1 normal, 2 unknown, 3 control, 4 user-defined,
    /// 5 unused, 6 byte. Without it, special tokens and pieces such as `<0x0A>` are told by themselves.
    ///
    /// In a byte-level vocabulary, user-defined tokens are found in a text before it is cut into words.
    pub types: Option<&'a [u8]>,
    /// `tokenizer.ggml.bos_token_id`, or EOS where the vocabulary has no token to begin with.
    pub bos: u32,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: u32,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<u32>,
    /// `tokenizer.ggml.add_space_prefix`: whether a space is put before every text; true where absent.
    pub add_space_prefix: bool,
    /// `tokenizer.ggml.add_bos_token`: whether every text begins with BOS.
    pub add_bos: bool,
    /// What a byte-level vocabulary has besides; `None` for SentencePiece's.
    pub byte_level: Option<ByteLevel<'a>>,
}

/// The part of a vocabulary that is byte-level's own, as GPT-2's and Llama 3's.
#[derive(Clone, Copy, Debug)]
pub struct ByteLevel<'a> {
    /// `tokenizer.ggml.pre`: how text is cut into words.
    pub pre: PreTokenizer,
    /// `tokenizer.ggml.merges`: pairs of pieces with a space between them, the first merges first. For each a
    /// `u64` length in bytes and the bytes, nothing after the last.
    pub merges: &'a [u8],
    /// Number of merges.
    pub merge_count: usize,
}

impl GgufVocabulary<'_> {
    /// Elements of memory that the index of this vocabulary needs.
    ///
    /// That is 3 to 5 for each token, 1 more for each token of a byte-level vocabulary and 1 for each merge, 1
    /// for each special token, and some hundreds.
    pub fn index_len(&self) -> usize {
        let common = Tokenizer::index_len(self.count) + special::BITS + self.special_limit();
        match &self.byte_level {
            None => common,
            Some(byte_level) => {
                let count = self.count.min(Tokenizer::MAX_VOCAB_SIZE);
                common - JOINS + count + byte_level.merge_count.min(Merges::LIMIT)
            }
        }
    }

    /// Special tokens that there may be: control and user-defined ones.
    pub(super) fn special_limit(&self) -> usize {
        let Some(types) = self.types else { return 2 };
        let types = types.as_chunks::<4>().0.iter().map(|&kind| i32::from_le_bytes(kind));
        types.filter(|kind| (2..=4).contains(kind)).count()
    }
}

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text.
    Text,
    /// One byte of a character that is no piece.
    Byte(u8),
    /// A mark such as the begin of a text; no text becomes it.
    Control,
    /// Text that the vocabulary cannot express.
    Unknown,
    /// Text as it is, found before text is cut into words; of byte-level vocabularies only.
    UserDefined,
    /// A piece that is not to be produced.
    Unused,
}

/// The pieces of a vocabulary where the file has them.
#[derive(Clone, Copy)]
pub(super) struct Pieces<'a> {
    pub(super) file: &'a [u8],
    /// Where each piece begins in `file`, and where one more would: (vocab_size + 1,).
    pub(super) offsets: &'a [u32],
    /// Scores as little-endian `f32`; `None` where each stands at the begin of the header of its piece.
    pub(super) scores: Option<&'a [u8]>,
    /// Token types as little-endian `i32`, in the numbering of GGUF.
    pub(super) types: Option<&'a [u8]>,
    pub(super) alphabet: Alphabet,
    pub(super) unknown: Option<u32>,
    /// BOS and EOS.
    pub(super) control: [u32; 2],
}

impl<'a> Pieces<'a> {
    pub(super) const fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The bytes of a token as the file has them; empty where there is no such token.
    pub(super) fn bytes(&self, token: u32) -> &'a [u8] {
        let Some(&[start, next]) = self.offsets.get(token as usize..).and_then(<[u32]>::first_chunk) else {
            return &[];
        };
        self.file.get(start as usize..next as usize - HEADER).unwrap_or_default()
    }

    /// The bytes of a token as text has them.
    pub(super) fn text(&self, token: u32) -> impl Iterator<Item = u8> + Clone + use<'a> {
        self.alphabet.text(self.bytes(token))
    }

    /// Whether the vocabulary is byte-level.
    pub(super) fn is_byte_level(&self) -> bool {
        matches!(self.alphabet, Alphabet::Bytes(_))
    }

    pub(super) fn score(&self, token: u32) -> f32 {
        let (scores, at) = match self.scores {
            Some(scores) => (scores, 4 * token as usize),
            None => (self.file, self.offsets[token as usize] as usize - HEADER),
        };
        scores.get(at..).and_then(<[u8]>::first_chunk).map_or(0.0, |&score| f32::from_le_bytes(score))
    }

    /// The score of a token as a number that is above 0 and orders as the scores do.
    pub(super) fn key(&self, token: u32) -> u32 {
        // Adding 0.0 makes -0.0 the 0.0 that it equals. Scores are never NaN, so no key is 0.
        let bits = (self.score(token) + 0.0).to_bits();
        if bits & 0x8000_0000 == 0 { bits | 0x8000_0000 } else { !bits }
    }

    /// What a token stands for; a number that is no token has no text either.
    pub(super) fn kind(&self, token: u32) -> Kind {
        if token as usize >= self.count() {
            return Kind::Control;
        }
        let byte_value = || match self.bytes(token) {
            [b'<', b'0', b'x', high, low, b'>'] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                Some((digit(*high)? * 16 + digit(*low)?) as u8)
            }
            _ => None,
        };
        let kind = self.types.and_then(|types| types.get(4 * token as usize..)?.first_chunk());
        match kind.map(|&bytes| i32::from_le_bytes(bytes)) {
            // No text is unknown where every byte is a piece: the token is a mark like others.
            Some(2) if self.is_byte_level() => Kind::Control,
            Some(2) => Kind::Unknown,
            Some(3) => Kind::Control,
            Some(4) if self.is_byte_level() => Kind::UserDefined,
            Some(5) => Kind::Unused,
            None if Some(token) == self.unknown => Kind::Unknown,
            None if self.control.contains(&token) => Kind::Control,
            // What is not spelled in the alphabet is no merge of bytes.
            _ if self.is_byte_level() && !self.alphabet.spells(self.bytes(token)) => Kind::Unused,
            _ if self.is_byte_level() => Kind::Text,
            Some(6) => byte_value().map_or(Kind::Unused, Kind::Byte),
            Some(_) => Kind::Text,
            None => byte_value().map_or(Kind::Text, Kind::Byte),
        }
    }
}

/// Finds the piece after a header; returns its begin and end.
pub(super) fn piece_at(
    bytes: &[u8],
    header: usize,
    token: usize,
    length: fn(&[u8; HEADER]) -> i64,
) -> Result<(usize, usize), TokenizerError> {
    let truncated = TokenizerError::Truncated { token };
    let rest = bytes.get(header..).ok_or(truncated)?;
    let (header_bytes, rest) = rest.split_first_chunk().ok_or(truncated)?;
    let len = length(header_bytes);
    if len < 0 {
        return Err(TokenizerError::Length { token, found: len });
    }
    if len as u64 > rest.len() as u64 {
        return Err(truncated);
    }
    let start = header + HEADER;
    Ok((start, start + len as usize))
}

/// The strings of an array of GGUF.
pub(super) fn strings(bytes: &[u8], count: usize) -> impl Iterator<Item = Result<&[u8], TokenizerError>> {
    let mut at = 0;
    (0..count).map(move |index| {
        let (start, end) = piece_at(bytes, at, index, gguf_length)?;
        at = end;
        Ok(&bytes[start..end])
    })
}

pub(super) const fn bin_length(header: &[u8; HEADER]) -> i64 {
    let [_, _, _, _, a, b, c, d] = *header;
    i32::from_le_bytes([a, b, c, d]) as i64
}

pub(super) const fn gguf_length(header: &[u8; HEADER]) -> i64 {
    i64::from_le_bytes(*header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_keep_their_order_as_keys() {
        let scores = [f32::NEG_INFINITY, -1e9, -1.0, -1e-30, 0.0, 1e-30, 2.0, f32::INFINITY];
        let bytes: Vec<u8> =
            scores.iter().flat_map(|score| score.to_le_bytes()).chain([0, 0, 0, 0x80]).collect();
        let pieces = Pieces {
            file: &[],
            offsets: &[8; 10],
            scores: Some(&bytes),
            types: None,
            alphabet: Alphabet::Marked,
            unknown: None,
            control: [0; 2],
        };
        let keys: Vec<u32> = (0..9).map(|token| pieces.key(token)).collect();
        assert!(keys[0] > 0 && keys[..8].is_sorted_by(|a, b| a < b), "{keys:x?}");
        assert_eq!(keys[8], keys[4]);
    }
}
