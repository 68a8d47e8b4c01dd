//! The index over the pieces of a vocabulary: from text to token.

use super::TokenizerError;
use super::alphabet::{Alphabet, MARK, SPACE};
use super::encode::{SHORT, continues};
use super::merges::Merges;
use super::vocabulary::{HEADER, Kind, Pieces};

/// Words of 32 bits that hold a bit for each pair of ASCII characters.
pub(super) const JOINS: usize = 128 * 128 / 32;
/// Set in the slot of a piece that is what its own text is encoded to.
const WHOLE: u32 = 1 << 31;
/// No token.
pub(super) const NONE: u32 = u32::MAX;

/// A hash table of the pieces that text can become, probed one slot after the other.
///
/// A slot is 0, or holds from the top: the bit [`WHOLE`], as much of the hash as there is room for, and
/// the token plus 1.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) pieces: Pieces<'a>,
    /// A power of two, at most half of it in use.
    slots: &'a [u32],
    token_bits: u32,
    /// Bytes of the longest piece in the table.
    longest: usize,
    /// Of a byte-level vocabulary, whose pieces have no scores.
    pub(super) merges: Option<Merges<'a>>,
}

/// A piece that was found.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) token: u32,
    /// Whether the text of this piece is encoded to it.
    pub(super) whole: bool,
    slot: usize,
}

/// Up to 8 bytes of `bytes` from `at` on, the first one lowest; zeros after the end.
#[inline(always)]
fn load(bytes: &[u8], at: usize, len: usize) -> u64 {
    if let Some(word) = bytes.get(at..at + 8).and_then(<[u8]>::first_chunk) {
        return u64::from_le_bytes(*word) & (u64::MAX >> (64 - 8 * len));
    }
    let bytes = bytes.get(at..at + len).unwrap_or_default();
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// Takes 8 bytes into a hash. A hash starts as the number of all its bytes.
#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (product ^ (product >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// The hash of a text that is not in one place.
fn hash_of(text: impl Iterator<Item = u8> + Clone) -> (u64, usize) {
    let len = text.clone().count();
    let (mut hash, mut word, mut shift) = (len as u64, 0, 0);
    for byte in text {
        if shift == 64 {
            (hash, word, shift) = (mix(hash, word), 0, 0);
        }
        word |= u64::from(byte) << shift;
        shift += 8;
    }
    (mix(hash, word), len)
}

impl<'a> Table<'a> {
    /// A table over slots that [`Self::fill`] filled.
    pub(super) fn new(
        pieces: Pieces<'a>,
        slots: &'a [u32],
        longest: usize,
        merges: Option<Merges<'a>>,
    ) -> Self {
        let token_bits = u32::BITS - (pieces.count() as u32).leading_zeros();
        Self { pieces, slots, token_bits, longest, merges }
    }

    /// Bytes of the longest piece that text can become.
    pub(super) const fn longest(&self) -> usize {
        self.longest
    }

    /// Follows the slots that a hash may be in; `same` tells whether a token is the one that is sought.
    #[inline(always)]
    fn probe(&self, hash: u64, same: impl Fn(u32) -> bool) -> Result<Found, usize> {
        let (slots, low) = (self.slots, (1 << self.token_bits) - 1);
        let high = (hash >> 32) as u32;
        let mut slot = (high >> (32 - slots.len().trailing_zeros())) as usize;
        loop {
            let value = slots[slot];
            if value == 0 {
                return Err(slot);
            }
            if (value ^ high << self.token_bits) & !low & !WHOLE == 0 {
                let token = (value & low) - 1;
                if same(token) {
                    return Ok(Found { token, whole: value & WHOLE != 0, slot });
                }
            }
            slot = (slot + 1) & (slots.len() - 1);
        }
    }

    /// The piece that is `len` bytes of `text` from `start` on.
    #[inline]
    pub(super) fn find(&self, text: &[u8], start: usize, len: usize) -> Option<Found> {
        if len > self.longest {
            return None;
        }
        let (mut hash, mut at, mut left) = (len as u64, start, len);
        while left > 8 {
            hash = mix(hash, load(text, at, 8));
            (at, left) = (at + 8, left - 8);
        }
        hash = mix(hash, load(text, at, left));
        self.probe(hash, |token| self.is_text(token, text, start, len)).ok()
    }

    /// The piece that is a text which is not in one place.
    pub(super) fn find_iter(&self, text: impl Iterator<Item = u8> + Clone) -> Option<Found> {
        let (hash, _) = hash_of(text.clone());
        self.probe(hash, |token| self.pieces.text(token).eq(text.clone())).ok()
    }

    /// Whether a token is `len` bytes of `text` from `start` on.
    #[inline(always)]
    fn is_text(&self, token: u32, text: &[u8], start: usize, len: usize) -> bool {
        let pieces = &self.pieces;
        let (offset, next) = (pieces.offsets[token as usize], pieces.offsets[token as usize + 1]);
        let (offset, piece_len) = (offset as usize, (next - offset) as usize - HEADER);
        let space = match pieces.alphabet {
            Alphabet::Plain => return piece_len == len && equal(pieces.file, offset, text, start, len),
            Alphabet::Marked => MARK,
            Alphabet::Bytes(_) => SPACE,
        };
        // Most pieces have no space or one at the begin, and else what the text has; '▁' in the text itself is
        // not a space.
        let as_it_is = |rest: &[u8]| match pieces.alphabet {
            Alphabet::Bytes(_) => rest.iter().all(u8::is_ascii_graphic),
            _ => !rest.contains(&MARK[0]),
        };
        let (piece_skip, text_skip) = if text[start] == b' ' { (space.len(), 1) } else { (0, 0) };
        let (same_len, rest) = (piece_len + text_skip == len + piece_skip, start + text_skip..start + len);
        let simple = same_len
            && equal(pieces.file, offset + piece_skip, text, rest.start, rest.len())
            && pieces.file[offset..].starts_with(&space[..piece_skip])
            && as_it_is(&text[rest]);
        simple || pieces.text(token).eq(text[start..start + len].iter().copied())
    }

    /// The token of a piece as [`Self::find`] finds it, with the key by which it is merged out of two parts, of
    /// which the left one has `left` bytes: the higher the sooner, 0 for never.
    #[inline(always)]
    pub(super) fn key(&self, found: Option<Found>, left: usize) -> (u32, u32) {
        let Some(Found { token, .. }) = found else { return (0, NONE) };
        match &self.merges {
            None => (self.pieces.key(token), token),
            Some(merges) => merges.rank(token, left).map_or((0, NONE), |rank| (u32::MAX - rank, token)),
        }
    }

    /// Whether a byte is the first of a symbol: of a character, or where bytes are merged itself.
    #[inline(always)]
    pub(super) fn begins(&self, byte: u8) -> bool {
        self.merges.is_some() || !continues(byte)
    }
}

/// Whether `len` bytes are equal.
#[inline(always)]
fn equal(a: &[u8], mut a_at: usize, b: &[u8], mut b_at: usize, mut len: usize) -> bool {
    while len > 8 {
        if load(a, a_at, 8) != load(b, b_at, 8) {
            return false;
        }
        (a_at, b_at, len) = (a_at + 8, b_at + 8, len - 8);
    }
    len == 0 || load(a, a_at, len) == load(b, b_at, len)
}

/// The place of two neighbours in the table of joins: a word, and a bit of it.
#[inline(always)]
pub(super) const fn join(left: u8, right: u8) -> (usize, u32) {
    // All that is not ASCII counts as one character.
    let left = if left < 128 { left as usize } else { 0 };
    let right = if right < 128 { right as usize } else { 0 };
    (left * 4 + right / 32, 1 << (right % 32))
}

/// Number of slots of the hash table: at most half of them are in use.
pub(super) const fn slots_len(vocab_size: usize) -> usize {
    (2 * vocab_size).next_power_of_two()
}

impl<'a> Table<'a> {
    /// Takes in every piece that text can become, and returns the bytes of the longest.
    pub(super) fn fill(pieces: Pieces<'_>, mut joins: Option<&mut [u32; JOINS]>, slots: &mut [u32]) -> usize {
        let mut longest = 0;
        for token in texts(pieces) {
            let text = pieces.text(token);
            let (hash, len) = hash_of(text.clone());
            if len == 0 {
                continue;
            }
            let table = Table::new(pieces, slots, longest, None);
            // Of equal pieces the first one counts.
            if let Err(slot) = table.probe(hash, |other| pieces.text(other).eq(text.clone())) {
                let tag = ((hash >> 32) as u32) << table.token_bits & !WHOLE;
                slots[slot] = tag | (token + 1);
            }
            longest = longest.max(len);
            let Some(joins) = &mut joins else { continue };
            for (left, right) in text.clone().zip(text.skip(1)).filter(|&(_, right)| !continues(right)) {
                let (word, bit) = join(left, right);
                joins[word] |= bit;
            }
        }
        longest
    }

    /// Finds out which pieces their own texts are encoded to.
    pub(super) fn mark_whole(
        pieces: Pieces<'a>,
        slots: &'a mut [u32],
        longest: usize,
        merges: Option<Merges<'a>>,
    ) -> Self {
        if merges.is_some_and(|merges| merges.rule.ignores_merges()) {
            slots.iter_mut().filter(|slot| **slot != 0).for_each(|slot| *slot |= WHOLE);
            return Table::new(pieces, slots, longest, merges);
        }
        let mut buffer = [0; SHORT];
        for token in texts(pieces) {
            let text = pieces.text(token);
            let len = text.clone().count();
            if len == 0 || len > SHORT {
                continue;
            }
            buffer.iter_mut().zip(text).for_each(|(to, byte)| *to = byte);
            let table = Table::new(pieces, slots, longest, merges);
            if let Some(found) = table.find(&buffer, 0, len)
                && table.merge_short(&buffer, 0, len).is_only(found.token)
            {
                slots[found.slot] |= WHOLE;
            }
        }
        Table::new(pieces, slots, longest, merges)
    }
}

/// The tokens that text can become.
fn texts(pieces: Pieces<'_>) -> impl Iterator<Item = u32> {
    (0..pieces.count() as u32).filter(move |&token| pieces.kind(token) == Kind::Text)
}

/// Finds the token of each ASCII character, and of each byte of other characters that are no pieces.
///
/// A byte-level vocabulary may lack some bytes: [`NONE`] stands for those.
pub(super) fn fill_singles(table: &Table<'_>, singles: &mut [u32; 256]) -> Result<(), TokenizerError> {
    singles.fill(NONE);
    if table.pieces.is_byte_level() {
        for (byte, single) in (0..=255).zip(&mut *singles) {
            if let Some(found) = table.find(&[byte], 0, 1) {
                *single = found.token;
            }
        }
        let none = singles.iter().all(|&token| token == NONE);
        return if none { Err(TokenizerError::ByteToken { byte: 0 }) } else { Ok(()) };
    }
    for token in (0..table.pieces.count() as u32).rev() {
        if let Kind::Byte(byte) = table.pieces.kind(token) {
            singles[usize::from(byte)] = token;
        }
    }
    let missing = singles.iter().position(|&token| token == NONE);
    if let Some(byte) = missing {
        // A vocabulary without any byte tokens is a kind of its own; one with some of them is damaged.
        match table.pieces.unknown.filter(|_| singles.iter().all(|&token| token == NONE)) {
            Some(unknown) => singles.fill(unknown),
            None => return Err(TokenizerError::ByteToken { byte: byte as u8 }),
        }
    }
    for (byte, single) in (0..128).zip(singles) {
        if let Some(found) = table.find(&[byte], 0, 1) {
            *single = found.token;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{GgufVocabulary, Tokenizer};

    /// Pieces are compared only where hashes agree, which hides errors from tests of whole texts.
    #[test]
    fn pieces_are_compared_byte_by_byte() {
        let pieces = [
            "<unk>",
            "▁",
            "▁▁",
            "▁▁▁a",
            "▁a",
            "a▁",
            "a▁b",
            " a▁b",
            "▁a b",
            "数",
            "▁数",
            "abcdefgh",
            "abcdefghi",
            "▁abcdefghijklmnop",
            "▁abcdefghijklmnoq",
            "abc",
        ];
        let bytes = |length: fn(usize) -> [u8; 8]| -> Vec<u8> {
            pieces.iter().flat_map(|piece| length(piece.len()).into_iter().chain(piece.bytes())).collect()
        };
        let tokens = bytes(|len| (len as u64).to_le_bytes());
        let bin = [vec![0; 4], bytes(|len| ((len as u64) << 32).to_le_bytes())].concat();
        let scores = [0; 4 * 16];
        let vocabulary = GgufVocabulary {
            count: pieces.len(),
            tokens: &tokens,
            scores: &scores,
            types: None,
            bos: 0,
            eos: 0,
            unknown: Some(0),
            add_space_prefix: true,
            add_bos: true,
            byte_level: None,
        };
        let (mut gguf_index, mut bin_index) =
            (vec![0; vocabulary.index_len()], [0; Tokenizer::index_len(16)]);
        let gguf = Tokenizer::from_gguf(&vocabulary, &mut gguf_index).unwrap();
        let bin = Tokenizer::from_bin(&bin, pieces.len(), &mut bin_index).unwrap();
        let spaced = pieces.map(|piece| piece.replace('▁', " "));
        let texts = pieces.iter().copied().chain(spaced.iter().map(String::as_str));
        for text in texts.flat_map(|text| [text.to_owned(), format!("▁{text}"), format!("{text}x")]) {
            // As the end of a text, and within one.
            for (all, start) in [(text.clone(), 0), (format!("12{text}3456789"), 2)] {
                for token in 0..pieces.len() {
                    let is_text = |tokenizer: &Tokenizer<'_>| {
                        tokenizer.table.is_text(token as u32, all.as_bytes(), start, text.len())
                    };
                    assert_eq!(is_text(&gguf), spaced[token] == text, "{:?} and {text:?}", pieces[token]);
                    assert_eq!(is_text(&bin), pieces[token] == text, "{:?} and {text:?}", pieces[token]);
                }
            }
        }
    }

    #[test]
    fn of_equal_pieces_the_first_counts() {
        let piece = |piece: &str| [&[0; 4], &[piece.len() as u8, 0, 0, 0], piece.as_bytes()].concat();
        let pieces: Vec<u8> = (0..5000).flat_map(|at| piece(["<unk>", "a", "aa"][at.min(2)])).collect();
        let bin = [vec![0; 4], pieces].concat();
        let mut index = vec![0; Tokenizer::index_len(5000)];
        let tokenizer = Tokenizer::from_bin(&bin, 5000, &mut index).unwrap();
        assert_eq!(tokenizer.table.find(b"aa", 0, 2).map(|found| found.token), Some(3));
        assert_eq!(tokenizer.table.slots.iter().filter(|&&slot| slot != 0).count(), 1);
    }
}
