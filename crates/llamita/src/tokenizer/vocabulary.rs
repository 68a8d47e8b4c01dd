//! Reading a vocabulary: where its pieces are, and what they are.

use super::index::{JOINS, Table, fill_singles, slots_len};
use super::text::MARK;
use super::{Tokenizer, TokenizerError};

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
    /// `tokenizer.ggml.scores`: an `f32` for each token.
    pub scores: &'a [u8],
    /// `tokenizer.ggml.token_type`: an `i32` for each token, 1 normal, 2 unknown, 3 control, 4 user-defined,
    /// 5 unused, 6 byte. Without it, special tokens and pieces such as `<0x0A>` are told by themselves.
    pub types: Option<&'a [u8]>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: u32,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: u32,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<u32>,
    /// `tokenizer.ggml.add_space_prefix`: whether a space is put before every text; true where absent.
    pub add_space_prefix: bool,
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
    scores: Option<&'a [u8]>,
    /// Token types as little-endian `i32`, in the numbering of GGUF.
    types: Option<&'a [u8]>,
    /// Whether a space is written as '▁'.
    pub(super) marked: bool,
    pub(super) unknown: Option<u32>,
    control: [u32; 2],
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

    /// The bytes of a token as text has them: a space for '▁'.
    pub(super) fn text(&self, token: u32) -> impl Iterator<Item = u8> + Clone + use<'a> {
        let (marked, mut rest) = (self.marked, self.bytes(token));
        core::iter::from_fn(move || {
            if marked && let Some(after) = rest.strip_prefix(MARK) {
                rest = after;
                return Some(b' ');
            }
            rest.split_off_first().copied()
        })
    }

    fn score(&self, token: u32) -> f32 {
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
            Some(2) => Kind::Unknown,
            Some(3) => Kind::Control,
            Some(5) => Kind::Unused,
            Some(6) => byte_value().map_or(Kind::Unused, Kind::Byte),
            Some(_) => Kind::Text,
            None if Some(token) == self.unknown => Kind::Unknown,
            None if self.control.contains(&token) => Kind::Control,
            None => byte_value().map_or(Kind::Text, Kind::Byte),
        }
    }
}

/// Finds the piece after a header; returns its begin and end.
fn piece_at(
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

const fn bin_length(header: &[u8; HEADER]) -> i64 {
    let [_, _, _, _, a, b, c, d] = *header;
    i32::from_le_bytes([a, b, c, d]) as i64
}

const fn gguf_length(header: &[u8; HEADER]) -> i64 {
    i64::from_le_bytes(*header)
}

/// The first bytes of a tokenizer.bin, the length of its longest token, tell nothing that is needed.
const BIN_START: usize = 4;

impl<'a> Tokenizer<'a> {
    /// Elements of memory that the index of a vocabulary needs.
    ///
    /// More than [`Self::MAX_VOCAB_SIZE`] tokens are refused by the readers, whatever is lent.
    pub const fn index_len(vocab_size: usize) -> usize {
        let vocab_size = if vocab_size > Self::MAX_VOCAB_SIZE { Self::MAX_VOCAB_SIZE } else { vocab_size };
        JOINS + 256 + vocab_size + 1 + slots_len(vocab_size)
    }

    /// Number of tokens in llama2.c's tokenizer.bin, which does not say it: the file is walked.
    pub fn count_bin(bytes: &[u8]) -> Result<usize, TokenizerError> {
        let (mut at, mut count) = (BIN_START, 0);
        while at != bytes.len() {
            (_, at) = piece_at(bytes, at, count, bin_length)?;
            count += 1;
        }
        Ok(count)
    }

    /// Reads llama2.c's tokenizer.bin: the `i32` length of the longest token, then for each token an `f32`
    /// score, an `i32` length and the bytes.
    ///
    /// Token 0 is unknown, 1 is BOS, 2 is EOS; pieces such as `<0x0A>` are byte tokens.
    pub fn from_bin(
        bytes: &'a [u8],
        vocab_size: usize,
        index: &'a mut [u32],
    ) -> Result<Self, TokenizerError> {
        let found = Self::count_bin(bytes)?;
        if found != vocab_size {
            return Err(TokenizerError::VocabSize { found, expected: vocab_size });
        }
        let vocabulary = GgufVocabulary {
            count: vocab_size,
            tokens: bytes,
            scores: &[],
            types: None,
            bos: 1,
            eos: 2,
            unknown: Some(0),
            add_space_prefix: true,
        };
        Self::build(&vocabulary, false, index)
    }

    /// Reads the vocabulary of a GGUF file whose `tokenizer.ggml.model` is "llama".
    pub fn from_gguf(vocabulary: &GgufVocabulary<'a>, index: &'a mut [u32]) -> Result<Self, TokenizerError> {
        let expected = vocabulary.count.saturating_mul(4);
        let types = vocabulary.types.map(|types| ("types", types));
        for (array, bytes) in [("scores", vocabulary.scores)].into_iter().chain(types) {
            if bytes.len() != expected {
                return Err(TokenizerError::ArrayLength { array, found: bytes.len(), expected });
            }
        }
        Self::build(vocabulary, true, index)
    }

    /// Builds the index; a vocabulary in the form of GGUF has marks for spaces and its own scores.
    fn build(
        vocabulary: &GgufVocabulary<'a>,
        gguf: bool,
        index: &'a mut [u32],
    ) -> Result<Self, TokenizerError> {
        let &GgufVocabulary { count, tokens: bytes, bos, eos, unknown, .. } = vocabulary;
        if !(1..=Self::MAX_VOCAB_SIZE).contains(&count) {
            return Err(TokenizerError::VocabLimit { found: count });
        }
        if bytes.len() as u64 > u64::from(MAX_BYTES) - HEADER as u64 {
            return Err(TokenizerError::FileSize { found: bytes.len() as u64 });
        }
        for (name, id) in [("BOS", Some(bos)), ("EOS", Some(eos)), ("unknown", unknown)] {
            if let Some(found) = id.filter(|&id| id as usize >= count) {
                return Err(TokenizerError::SpecialToken { name, found, vocab_size: count });
            }
        }
        let (found, needed) = (index.len(), Self::index_len(count));
        let memory = TokenizerError::IndexMemory { found, needed };
        let index = index.get_mut(..needed).ok_or(memory)?;
        index.fill(0);
        let (joins, index) = index.split_first_chunk_mut().ok_or(memory)?;
        let (singles, index) = index.split_first_chunk_mut().ok_or(memory)?;
        let (offsets, slots) = index.split_at_mut(count + 1);

        let (mut at, length) =
            if gguf { (0, gguf_length as fn(&_) -> _) } else { (BIN_START, bin_length as _) };
        for (token, offset) in offsets[..count].iter_mut().enumerate() {
            let (start, end) = piece_at(bytes, at, token, length)?;
            (*offset, at) = (start as u32, end);
        }
        offsets[count] = (at + HEADER) as u32;
        if at != bytes.len() {
            return Err(TokenizerError::ArrayLength { array: "tokens", found: bytes.len(), expected: at });
        }
        let pieces = Pieces {
            file: bytes,
            offsets,
            scores: gguf.then_some(vocabulary.scores),
            types: vocabulary.types,
            marked: gguf,
            unknown,
            control: [bos, eos],
        };
        if let Some(token) = (0..count).find(|&token| pieces.score(token as u32).is_nan()) {
            return Err(TokenizerError::Score { token });
        }
        let table = Table::build(pieces, joins, slots);
        fill_singles(&table, singles)?;
        Ok(Self { table, joins, singles, bos, eos, add_space_prefix: vocabulary.add_space_prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <unk>, BOS, EOS and all bytes, as a tokenizer.bin.
    fn bin() -> Vec<u8> {
        let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
        let mut file = vec![6, 0, 0, 0];
        for piece in ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter().chain(bytes) {
            file.extend([0, 0, 0, 0, piece.len() as u8, 0, 0, 0]);
            file.extend(piece.bytes());
        }
        file
    }

    fn error(bytes: &[u8], vocab_size: usize) -> TokenizerError {
        let mut index = vec![0; Tokenizer::index_len(vocab_size)];
        Tokenizer::from_bin(bytes, vocab_size, &mut index).unwrap_err()
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = bin();
        assert_eq!(Tokenizer::count_bin(&good), Ok(259));
        assert_eq!(error(&good[..good.len() - 1], 259), TokenizerError::Truncated { token: 258 });
        assert_eq!(error(&good[..20], 259), TokenizerError::Truncated { token: 1 });
        assert_eq!(error(&[], 259), TokenizerError::Truncated { token: 0 });
        assert_eq!(error(&good, 260), TokenizerError::VocabSize { found: 259, expected: 260 });
        assert_eq!(error(&good, 258), TokenizerError::VocabSize { found: 259, expected: 258 });
        let trailing = [&good[..], &[0; 3]].concat();
        assert_eq!(error(&trailing, 259), TokenizerError::Truncated { token: 259 });
        let mut bad = good.clone();
        bad[8..12].copy_from_slice(&(-5_i32).to_le_bytes());
        assert_eq!(error(&bad, 259), TokenizerError::Length { token: 0, found: -5 });
        let mut bad = good.clone();
        bad[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_eq!(error(&bad, 259), TokenizerError::Score { token: 0 });
        let mut bad = good.clone();
        let last = bad.len() - 2;
        bad[last] = b'!';
        assert_eq!(error(&bad, 259), TokenizerError::ByteToken { byte: 255 });
        assert_eq!(error(&good[..4], 0), TokenizerError::VocabLimit { found: 0 });
        let special = TokenizerError::SpecialToken { name: "BOS", found: 1, vocab_size: 1 };
        assert_eq!(error(&good[..17], 1), special);
        for message in [special, TokenizerError::Length { token: 0, found: -5 }].map(|e| e.to_string()) {
            assert!(message.contains("expected"), "{message}");
        }
    }

    #[test]
    fn too_little_memory_is_told() {
        let good = bin();
        let needed = Tokenizer::index_len(259);
        let mut index = vec![0; needed];
        let short = Tokenizer::from_bin(&good, 259, &mut index[..needed - 1]).unwrap_err();
        assert_eq!(short, TokenizerError::IndexMemory { found: needed - 1, needed });
        let tokenizer = Tokenizer::from_bin(&good, 259, &mut index).unwrap();
        let text = "数".repeat(20);
        let mut tokens = [0; 62];
        assert_eq!(tokenizer.encode(&text, &mut [], &mut tokens), Ok(62));
        let short = tokenizer.encode(&text, &mut [], &mut tokens[..61]);
        assert_eq!(short, Err(TokenizerError::TokenMemory { found: 61, enough: 62 }));
        assert_eq!(
            tokenizer.encode("", &mut [], &mut []),
            Err(TokenizerError::TokenMemory { found: 0, enough: 2 })
        );
    }

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
            marked: true,
            unknown: None,
            control: [0; 2],
        };
        let keys: Vec<u32> = (0..9).map(|token| pieces.key(token)).collect();
        assert!(keys[0] > 0 && keys[..8].is_sorted_by(|a, b| a < b), "{keys:x?}");
        assert_eq!(keys[8], keys[4]);
    }
}
