//! Reading vocabularies: checks, and the index that is built over them.

use super::alphabet::Alphabet;
use super::index::{JOINS, Table, fill_singles, slots_len};
use super::merges::Merges;
use super::special::{self, Special};
use super::vocabulary::{HEADER, MAX_BYTES, Pieces, bin_length, gguf_length, piece_at};
use super::{GgufVocabulary, Split, Tokenizer, TokenizerError};

/// The first bytes of a tokenizer.bin, the length of its longest token, tell nothing that is needed.
const BIN_START: usize = 4;

impl<'a> Tokenizer<'a> {
    /// Elements of memory that the index of a tokenizer.bin needs; [`GgufVocabulary::index_len`] says it of
    /// others.
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
            add_bos: true,
            byte_level: None,
        };
        Self::build(&vocabulary, false, index)
    }

    /// Reads the vocabulary of a GGUF file; [`GgufVocabulary::index_len`] says how much memory it needs.
    ///
    /// Bytes that a byte-level vocabulary has no token for are left out of texts, as others do it: SmolLM's
    /// lacks some that are in no ordinary text.
    pub fn from_gguf(vocabulary: &GgufVocabulary<'a>, index: &'a mut [u32]) -> Result<Self, TokenizerError> {
        let expected = vocabulary.count.saturating_mul(4);
        let types = vocabulary.types.map(|types| ("types", types));
        let scores = vocabulary.byte_level.is_none().then_some(("scores", vocabulary.scores));
        for (array, bytes) in scores.into_iter().chain(types) {
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
        let byte_level = vocabulary.byte_level.as_ref();
        let needed = if gguf { vocabulary.index_len() } else { Self::index_len(count) };
        let memory = TokenizerError::IndexMemory { found: index.len(), needed };
        let mut index = index.get_mut(..needed).ok_or(memory)?;
        index.fill(0);
        let mut lend = |len| index.split_off_mut(..len).ok_or(memory);
        let singles = lend(256)?.as_mut_array().ok_or(memory)?;
        let offsets = lend(count + 1)?;
        let slots = lend(slots_len(count))?;

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
            scores: (gguf && byte_level.is_none()).then_some(vocabulary.scores),
            types: vocabulary.types,
            alphabet: match (gguf, byte_level) {
                (_, Some(byte_level)) => Alphabet::Bytes(byte_level.pre),
                (true, None) => Alphabet::Marked,
                (false, None) => Alphabet::Plain,
            },
            unknown: unknown.filter(|_| byte_level.is_none()),
            control: [bos, eos],
        };
        let (split, table) = match byte_level {
            Some(byte_level) => {
                let longest = Table::fill(pieces, None, slots);
                let (ends, entries) = (lend(count)?, lend(byte_level.merge_count.min(Merges::LIMIT))?);
                if byte_level.merge_count > Merges::LIMIT {
                    return Err(TokenizerError::MergeLimit { found: byte_level.merge_count });
                }
                let table = Table::new(pieces, slots, longest, None);
                let merges = Merges::build(&table, byte_level.pre, byte_level.merges, ends, entries)?;
                (Split::Words(byte_level.pre), Table::mark_whole(pieces, slots, longest, Some(merges)))
            }
            None => {
                if let Some(token) = (0..count).find(|&token| pieces.score(token as u32).is_nan()) {
                    return Err(TokenizerError::Score { token });
                }
                let joins = lend(JOINS)?.as_mut_array().ok_or(memory)?;
                let longest = Table::fill(pieces, Some(&mut *joins), slots);
                (Split::Joins(joins), Table::mark_whole(pieces, slots, longest, None))
            }
        };
        let special = if gguf {
            Special::build(&pieces, lend(special::BITS + vocabulary.special_limit())?)
        } else {
            Special::NONE
        };
        fill_singles(&table, singles)?;
        let &GgufVocabulary { add_space_prefix, add_bos, .. } = vocabulary;
        let add_space_prefix = add_space_prefix && byte_level.is_none();
        Ok(Self { table, split, singles, special, bos, eos, add_space_prefix, add_bos })
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
}
