//! From tokens to text: the bytes of a token, and whole characters out of bytes.

use super::alphabet::{Alphabet, MARK, split_byte};

/// Every byte, so that a byte token can be lent as a slice.
static BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut at = 0;
    while at < 256 {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
};

/// The text of one token: an iterator over slices of bytes, most often a single one.
#[derive(Clone, Debug)]
pub struct Decoded<'a> {
    rest: &'a [u8],
    alphabet: Alphabet,
}

impl<'a> Decoded<'a> {
    pub(super) const fn new(rest: &'a [u8], alphabet: Alphabet) -> Self {
        Self { rest, alphabet }
    }

    pub(super) fn byte(byte: u8) -> Self {
        Self::new(of_byte(byte), Alphabet::Plain)
    }

    pub(super) fn without_leading_space(mut self) -> Self {
        if let Some(rest) = self.rest.strip_prefix(b" ") {
            self.rest = rest;
        } else if self.alphabet == Alphabet::Marked {
            self.rest = self.rest.strip_prefix(MARK).unwrap_or(self.rest);
        }
        self
    }
}

/// A byte as a slice.
fn of_byte(byte: u8) -> &'static [u8] {
    &BYTES[usize::from(byte)..=usize::from(byte)]
}

impl<'a> Decoded<'a> {
    /// What comes next of a piece in GPT-2's alphabet, which has something left: as much as stands for itself,
    /// or one byte.
    fn next_bytes(&mut self) -> &'a [u8] {
        let same = self.rest.iter().take_while(|byte| byte.is_ascii_graphic()).count();
        if same == 0
            && let Some((byte, rest)) = split_byte(self.rest)
        {
            self.rest = rest;
            return of_byte(byte);
        }
        // Pieces in another alphabet do not come here; a byte of one would stand for itself.
        let (text, rest) = self.rest.split_at(same.max(1));
        self.rest = rest;
        text
    }
}

impl<'a> Iterator for Decoded<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        match self.alphabet {
            Alphabet::Plain => return Some(core::mem::take(&mut self.rest)),
            Alphabet::Bytes(_) => return Some(self.next_bytes()),
            Alphabet::Marked => (),
        }
        if let Some(rest) = self.rest.strip_prefix(MARK) {
            self.rest = rest;
            return Some(b" ");
        }
        let end = self.rest.windows(MARK.len()).position(|window| window == MARK);
        let (text, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        Some(text)
    }
}

/// Gathers bytes into text: never half a character; bytes that cannot be text become U+FFFD.
///
/// What it hands on is what `String::from_utf8_lossy` would make of all the bytes together.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// The begin of a character whose end has not come yet.
    pending: [u8; 3],
    len: usize,
}

impl Utf8Stream {
    /// A stream that holds nothing yet.
    pub const fn new() -> Self {
        Self { pending: [0; 3], len: 0 }
    }

    /// Takes bytes, and hands on the text that is complete with them.
    pub fn push(&mut self, mut bytes: &[u8], mut sink: impl FnMut(&str)) {
        while self.len > 0
            && let Some((&byte, rest)) = bytes.split_first()
        {
            let mut joined = [0; 4];
            joined[..self.len].copy_from_slice(&self.pending[..self.len]);
            joined[self.len] = byte;
            let len = self.len + 1;
            self.len = 0;
            self.complete(&joined[..len], &mut sink);
            bytes = rest;
        }
        self.complete(bytes, &mut sink);
    }

    /// Ends the text: a character that was never completed becomes U+FFFD.
    pub fn finish(&mut self, mut sink: impl FnMut(&str)) {
        if self.len > 0 {
            self.len = 0;
            sink("\u{FFFD}");
        }
    }

    /// Hands on the characters of `bytes`, which follow nothing pending, and keeps an unfinished last one.
    fn complete(&mut self, bytes: &[u8], sink: &mut impl FnMut(&str)) {
        let mut seen = 0;
        for chunk in bytes.utf8_chunks() {
            let (valid, invalid) = (chunk.valid(), chunk.invalid());
            seen += valid.len() + invalid.len();
            if !valid.is_empty() {
                sink(valid);
            }
            let unfinished = || core::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if seen == bytes.len() && invalid.len() <= self.pending.len() && unfinished() {
                self.pending[..invalid.len()].copy_from_slice(invalid);
                self.len = invalid.len();
            } else if !invalid.is_empty() {
                sink("\u{FFFD}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(parts: &[&[u8]]) -> String {
        let mut text = String::new();
        let mut stream = Utf8Stream::new();
        for part in parts {
            stream.push(part, |part| text.push_str(part));
        }
        stream.finish(|part| text.push_str(part));
        text
    }

    #[test]
    fn utf8_is_the_same_however_it_is_split() {
        let cases: [&[u8]; 7] = [
            "plain, naïve 数字 🦙!".as_bytes(),
            b"\xF0\x9F\xA6",
            b"\xF0\x9F\xA6a\xE2\x82",
            b"\xC0\x80\xED\xA0\x80\xFF\xFE",
            b"a\x80b\xE2\xE2\x82\xAC\xF4\x90\x80\x80",
            b"\xE2\x82\xF0\x9F\xA6\x99\xC3",
            b"",
        ];
        for bytes in cases {
            let expected = String::from_utf8_lossy(bytes);
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(stream(&parts), expected, "{bytes:x?} at {first} and {second}");
                }
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(stream(&single), expected);
        }
    }

    #[test]
    fn a_character_is_handed_on_once_it_is_whole() {
        let mut parts = Vec::new();
        let mut stream = Utf8Stream::new();
        for byte in "é🦙x".bytes() {
            stream.push(&[byte], |part| parts.push(part.to_owned()));
        }
        assert_eq!(parts, ["é", "🦙", "x"]);
    }

    #[test]
    fn marks_are_spaces() {
        let text = |decoded: Decoded<'_>| decoded.collect::<Vec<_>>().concat();
        let piece = "▁a▁▁b▁".as_bytes();
        assert_eq!(text(Decoded::new(piece, Alphabet::Marked)), b" a  b ");
        assert_eq!(text(Decoded::new(piece, Alphabet::Marked).without_leading_space()), b"a  b ");
        assert_eq!(text(Decoded::new(piece, Alphabet::Plain)), piece);
        assert_eq!(text(Decoded::new(b" a", Alphabet::Plain).without_leading_space()), b"a");
        assert_eq!(text(Decoded::byte(0xFF)), [0xFF]);
        assert_eq!(text(Decoded::new(b"", Alphabet::Marked)), b"");
    }
}
