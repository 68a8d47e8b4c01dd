//! Tokens that stand in a text as they are spelled: marks such as BOS, and pieces that users defined.

use super::vocabulary::{Kind, Pieces};
use crate::heap;

/// Words of memory for the bits of [`Special`].
pub(super) const BITS: usize = 2 * 8;

/// The special tokens of a vocabulary, to be found in texts.
#[derive(Clone, Copy)]
pub(super) struct Special<'a> {
    /// A bit for each byte that a special token begins with; then the same for user-defined ones alone.
    bits: &'a [u32],
    /// The tokens in the order of their bytes.
    tokens: &'a [u32],
}

/// Which special tokens are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// User-defined ones, as everywhere.
    UserDefined,
    /// Control tokens too.
    All,
}

impl<'a> Special<'a> {
    pub(super) const NONE: Self = Self { bits: &[0; BITS], tokens: &[] };

    /// Sorts the special tokens; the memory is for [`BITS`] and as many tokens as there are.
    pub(super) fn build(pieces: &Pieces<'_>, memory: &'a mut [u32]) -> Self {
        let (bits, tokens) = memory.split_at_mut(BITS);
        let special = (0..pieces.count() as u32).filter(|&token| is_special(pieces, token));
        let mut count = 0;
        for (to, token) in tokens.iter_mut().zip(special) {
            let first = pieces.bytes(token)[0];
            let (word, bit) = (usize::from(first / 32), 1 << (first % 32));
            bits[word] |= bit;
            if pieces.kind(token) == Kind::UserDefined {
                bits[BITS / 2 + word] |= bit;
            }
            (*to, count) = (token, count + 1);
        }
        let tokens = &mut tokens[..count];
        // Of equal pieces the first counts, which is the last of them here.
        heap::sort(tokens, &|a, b| (pieces.bytes(a), b) < (pieces.bytes(b), a));
        Self { bits, tokens }
    }

    /// Whether there are none to look for.
    pub(super) fn is_empty(&self, wanted: Wanted) -> bool {
        self.firsts(wanted).iter().all(|&bits| bits == 0)
    }

    fn firsts(&self, wanted: Wanted) -> &'a [u32] {
        match wanted {
            Wanted::All => &self.bits[..BITS / 2],
            Wanted::UserDefined => &self.bits[BITS / 2..],
        }
    }

    /// The longest special token that a text begins with, and its length.
    pub(super) fn find(&self, pieces: &Pieces<'_>, text: &str, wanted: Wanted) -> Option<(u32, usize)> {
        let bytes = text.as_bytes();
        let first = *bytes.first()?;
        if self.firsts(wanted)[usize::from(first / 32)] & 1 << (first % 32) == 0 {
            return None;
        }
        // What the text begins with is not after it in the order. If the last token that is not after it
        // is not at its start either, the one that is sought has to be shorter than what they share.
        let (mut start, mut tokens) = (bytes, self.tokens);
        loop {
            let before = tokens.partition_point(|&token| pieces.bytes(token) <= start);
            tokens = &tokens[..before];
            let (&token, rest) = tokens.split_last()?;
            let piece = pieces.bytes(token);
            let same = piece.iter().zip(start).take_while(|(a, b)| a == b).count();
            if same == 0 {
                return None;
            }
            if same == piece.len() {
                let allowed = wanted == Wanted::All || pieces.kind(token) == Kind::UserDefined;
                if allowed && text.is_char_boundary(same) {
                    return Some((token, same));
                }
                tokens = rest;
            }
            start = &start[..same];
        }
    }
}

/// Whether a token is looked for in texts.
pub(super) fn is_special(pieces: &Pieces<'_>, token: u32) -> bool {
    // SentencePiece puts a space after each: one that is a single byte would be outnumbered by those.
    let least = if pieces.is_byte_level() { 1 } else { 2 };
    let kind = pieces.kind(token);
    matches!(kind, Kind::Control | Kind::UserDefined) && pieces.bytes(token).len() >= least
}
