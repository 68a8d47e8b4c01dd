//! How the pieces of a vocabulary spell text.

use super::PreTokenizer;

/// '▁' (U+2581), which stands for a space in the pieces of SentencePiece.
pub(super) const MARK: &[u8] = "\u{2581}".as_bytes();
/// 'Ġ' (U+0120), which stands for a space in the alphabet of GPT-2.
pub(super) const SPACE: &[u8] = "\u{120}".as_bytes();

/// A spelling of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// As it is.
    Plain,
    /// With '▁' for spaces.
    Marked,
    /// A printable character for each byte, as GPT-2 has it, in a vocabulary with this rule for words.
    Bytes(PreTokenizer),
}

/// The byte that a character of GPT-2's alphabet stands for: printable characters of Latin-1 for
/// themselves, those from U+0100 on for the other bytes in their order.
const fn byte_of(character: u32) -> Option<u8> {
    match character {
        33..=126 | 161..=172 | 174..=255 => Some(character as u8),
        256..=288 => Some((character - 256) as u8),
        289..=322 => Some((character - 289) as u8 + 127),
        323 => Some(173),
        _ => None,
    }
}

/// The byte at the start of a piece in GPT-2's alphabet, and the rest.
pub(super) fn split_byte(piece: &[u8]) -> Option<(u8, &[u8])> {
    match *piece {
        // No character of two bytes begins otherwise.
        [lead @ 0xC2..=0xC5, second @ 0x80..=0xBF, ref rest @ ..] => {
            let character = u32::from(lead & 0x1F) << 6 | u32::from(second & 0x3F);
            byte_of(character).map(|byte| (byte, rest))
        }
        [byte, ref rest @ ..] if byte.is_ascii_graphic() => Some((byte, rest)),
        _ => None,
    }
}

impl Alphabet {
    /// Whether a piece is spelled in this alphabet.
    pub(super) fn spells(self, mut piece: &[u8]) -> bool {
        if !matches!(self, Self::Bytes(_)) {
            return true;
        }
        while let Some((_, rest)) = split_byte(piece) {
            piece = rest;
        }
        piece.is_empty()
    }

    /// The text that a piece spells; what is not of the alphabet stands for itself.
    pub(super) fn text(self, mut piece: &[u8]) -> impl Iterator<Item = u8> + Clone {
        core::iter::from_fn(move || {
            if self == Self::Marked
                && let Some(rest) = piece.strip_prefix(MARK)
            {
                piece = rest;
                return Some(b' ');
            }
            if matches!(self, Self::Bytes(_))
                && let Some((byte, rest)) = split_byte(piece)
            {
                piece = rest;
                return Some(byte);
            }
            piece.split_off_first().copied()
        })
    }
}

#[cfg(all(test, feature = "byte-level"))]
mod tests {
    use super::*;

    const BYTES: Alphabet = Alphabet::Bytes(PreTokenizer::Gpt2);

    #[test]
    fn every_byte_has_a_letter() {
        // As GPT-2 makes its alphabet.
        let mut next = 256;
        let alphabet: Vec<char> = (0..=255_u8)
            .map(|byte| match byte {
                b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
                _ => {
                    next += 1;
                    char::from_u32(next - 1).unwrap()
                }
            })
            .collect();
        let piece: String = alphabet.iter().collect();
        assert!(BYTES.spells(piece.as_bytes()));
        assert!(BYTES.text(piece.as_bytes()).eq(0..=255));
        assert_eq!(alphabet[32].to_string().as_bytes(), SPACE);
        for stranger in [" ", "\n", "a b", "\u{ad}", "\u{144}", "数", "\u{7f}", "\u{a0}"] {
            assert!(!BYTES.spells(stranger.as_bytes()), "{stranger:?}");
            assert!(Alphabet::Marked.spells(stranger.as_bytes()));
        }
        assert!(!BYTES.spells(&[0xC3]) && !BYTES.spells(&[0xC3, b'a']));
    }
}
