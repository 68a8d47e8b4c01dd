//! Pre-tokenization: how text is cut into words before anything is merged.
//!
//! The rules are regular expressions in the models' own files. Each is followed here by hand, as far as it
//! can take a step at a character; `\s+(?!\S)|\s+` is what makes the last space before a word go with it.

use super::unicode::Class;

/// A rule that cuts text into words, no merge goes beyond which; byte-level vocabularies name theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreTokenizer {
    /// GPT-2: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
    Gpt2,
    /// Llama 3: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
    /// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`; a word that is a token is not merged otherwise.
    LlamaBpe,
    /// SmolLM: every digit by itself, and GPT-2's rule for what is between them.
    SmolLm,
    /// Qwen 2: Llama 3's rule, but every digit by itself.
    Qwen2,
    /// What llama.cpp does where a file names no rule: punctuation, `[\p{P}$+<=>^~|]+`, is cut out first;
    /// between, GPT-2's rule; then numbers are cut from what is before them, and every three digits.
    Default,
}

/// A character of a text: its class, and where the next one begins.
type Next = (Class, usize);

impl PreTokenizer {
    /// The names that files have for the rules.
    const NAMES: [(&str, Self); 7] = [
        ("default", Self::Default),
        ("gpt-2", Self::Gpt2),
        ("llama-bpe", Self::LlamaBpe),
        ("qwen2", Self::Qwen2),
        ("smollm", Self::SmolLm),
        // As older files have it.
        ("llama3", Self::LlamaBpe),
        ("llama-v3", Self::LlamaBpe),
    ];

    /// The names that are supported, for messages.
    pub const SUPPORTED: &str = "\"default\", \"gpt-2\", \"llama-bpe\", \"qwen2\" and \"smollm\"";

    /// The rule of a name, as in `tokenizer.ggml.pre`.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::NAMES.into_iter().find(|(known, _)| known.as_bytes() == name).map(|(_, rule)| rule)
    }

    /// The name of the rule, as in `tokenizer.ggml.pre`.
    pub fn name(self) -> &'static str {
        Self::NAMES.into_iter().find(|&(_, rule)| rule == self).map_or("default", |(name, _)| name)
    }

    /// Whether a word that is a token is that token, whatever merging would make of it.
    pub const fn ignores_merges(self) -> bool {
        matches!(self, Self::LlamaBpe)
    }

    /// Whether texts begin with BOS where the file does not say.
    pub const fn adds_bos(self) -> bool {
        matches!(self, Self::LlamaBpe)
    }

    /// The end of the word that begins at `start`, which is before the end of the text.
    pub(super) fn word_end(self, text: &str, start: usize) -> usize {
        let Some(first) = self.next(text, start) else { return text.len() };
        match self {
            Self::LlamaBpe | Self::Qwen2 => self.llama3_word(text, start, first),
            Self::Gpt2 | Self::SmolLm | Self::Default => self.gpt2_word(text, start, first),
        }
    }

    /// The character at a position; punctuation is other characters for all rules but one.
    #[inline]
    fn next(self, text: &str, at: usize) -> Option<Next> {
        let (class, next) = match *text.as_bytes().get(at)? {
            byte if byte.is_ascii() => (Class::of(char::from(byte)), at + 1),
            _ => {
                let character = text[at..].chars().next()?;
                (Class::of(character), at + character.len_utf8())
            }
        };
        let class = match (class, self) {
            (Class::Punctuation, Self::Default) => Class::Punctuation,
            (Class::Punctuation, _) => Class::Other,
            (Class::Other, Self::Default) if b"$+<=>^~|".contains(&text.as_bytes()[at]) => Class::Punctuation,
            (class, _) => class,
        };
        Some((class, next))
    }

    /// The end of the characters of one class from a position on.
    fn run(self, text: &str, mut at: usize, class: Class) -> usize {
        while let Some((_, next)) = self.next(text, at).filter(|next| next.0 == class) {
            at = next;
        }
        at
    }

    fn gpt2_word(self, text: &str, start: usize, (class, next): Next) -> usize {
        match (self, class) {
            (Self::SmolLm, Class::Number) => return next,
            (Self::Default, Class::Number) => return self.digits(text, start),
            (Self::Default, _) => (),
            _ if text.as_bytes()[start] == b'\'' => {
                if let Some(len) = contraction(&text.as_bytes()[next..], false) {
                    return next + len;
                }
            }
            _ => (),
        }
        if class != Class::Space {
            return self.run(text, next, class);
        }
        if text.as_bytes()[start] == b' '
            && let Some((class, next)) = self.next(text, next)
        {
            // Where a rule has cut the text already, the space stays behind.
            let cut = match self {
                Self::SmolLm => class == Class::Number,
                Self::Default => matches!(class, Class::Number | Class::Punctuation),
                _ => false,
            };
            if class != Class::Space && !cut {
                return self.run(text, next, class);
            }
        }
        self.spaces(text, start)
    }

    fn llama3_word(self, text: &str, start: usize, (class, next): Next) -> usize {
        let bytes = text.as_bytes();
        if bytes[start] == b'\''
            && let Some(len) = contraction(&bytes[next..], true)
        {
            return next + len;
        }
        let newline = |at: usize| matches!(bytes.get(at), Some(b'\r' | b'\n'));
        let second = self.next(text, next);
        match (class, second) {
            (Class::Letter, _) => return self.run(text, next, Class::Letter),
            (Class::Number, _) if self == Self::Qwen2 => return next,
            (Class::Number, _) => {
                let digit = |at: usize| self.next(text, at).filter(|next| next.0 == Class::Number);
                let Some((_, second)) = digit(next) else { return next };
                return digit(second).map_or(second, |(_, third)| third);
            }
            (_, Some((Class::Letter, next))) if !newline(start) => {
                return self.run(text, next, Class::Letter);
            }
            _ => (),
        }
        let other = match second {
            _ if class == Class::Other => Some(next),
            Some((Class::Other, next)) if bytes[start] == b' ' => Some(next),
            _ => None,
        };
        if let Some(next) = other {
            let end = self.run(text, next, Class::Other);
            return end + bytes[end..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        }
        let end = self.run(text, start, Class::Space);
        match (start..end).rev().find(|&at| newline(at)) {
            Some(last) => last + 1,
            None => self.spaces(text, start),
        }
    }

    /// The end of white space, of which the last character is left to a word that follows.
    fn spaces(self, text: &str, start: usize) -> usize {
        let end = self.run(text, start, Class::Space);
        let all = match self.next(text, end) {
            None => true,
            // Here another rule has cut the text already.
            Some((Class::Number, _)) => self == Self::SmolLm,
            Some((class, _)) => class == Class::Punctuation,
        };
        let last = text[start..end].char_indices().next_back().map_or(0, |(last, _)| last);
        if all || last == 0 { end } else { start + last }
    }

    /// The end of a number of which every three ASCII digits are cut out.
    fn digits(self, text: &str, start: usize) -> usize {
        let three = |at: usize| {
            let digits = text.as_bytes().get(at..at + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_digit))
        };
        if three(start) {
            return start + 3;
        }
        let mut at = start;
        while let Some((Class::Number, next)) = self.next(text, at).filter(|_| !three(at)) {
            at = next;
        }
        at
    }
}

/// Bytes of a contraction's letters, which follow an apostrophe; `fold` takes capitals for small letters.
fn contraction(letters: &[u8], fold: bool) -> Option<usize> {
    let is = |letters: &[u8], end: &str| {
        let end = end.as_bytes();
        letters == end || fold && letters.eq_ignore_ascii_case(end)
    };
    let (one, two) = (letters.get(..1)?, letters.get(..2));
    if ["s", "t", "m", "d"].iter().any(|end| is(one, end)) {
        return Some(1);
    }
    let two = two?;
    // The long s is an s to a regular expression that takes capitals for small letters.
    let long_s = fold && two == "ſ".as_bytes();
    (long_s || ["re", "ve", "ll"].iter().any(|end| is(two, end))).then_some(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rule: PreTokenizer, text: &str) -> Vec<&str> {
        let (mut words, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let end = rule.word_end(text, at);
            words.push(&text[at..end]);
            at = end;
        }
        words
    }

    #[test]
    fn words_are_those_of_the_regular_expressions() {
        let text = "I'm  IT'S 1234  56,\t\n\n x  ";
        use PreTokenizer::*;
        for (rule, expected) in [
            (Gpt2, vec!["I", "'m", " ", " IT", "'", "S", " 1234", " ", " 56", ",", "\t\n\n", " x", "  "]),
            (
                SmolLm,
                vec![
                    "I", "'m", " ", " IT", "'", "S", " ", "1", "2", "3", "4", "  ", "5", "6", ",", "\t\n\n",
                    " x", "  ",
                ],
            ),
            (
                LlamaBpe,
                vec!["I", "'m", " ", " IT", "'S", " ", "123", "4", " ", " ", "56", ",", "\t\n\n", " x", "  "],
            ),
            (
                Qwen2,
                vec![
                    "I", "'m", " ", " IT", "'S", " ", "1", "2", "3", "4", " ", " ", "5", "6", ",", "\t\n\n",
                    " x", "  ",
                ],
            ),
            (
                Default,
                vec![
                    "I", "'", "m", " ", " IT", "'", "S", " ", "123", "4", " ", " ", "56", ",", "\t\n\n",
                    " x", "  ",
                ],
            ),
        ] {
            assert_eq!(words(rule, text), expected, "{rule:?}");
        }
    }

    #[test]
    fn names_are_found_again() {
        for (name, rule) in PreTokenizer::NAMES {
            assert_eq!(PreTokenizer::from_name(name.as_bytes()), Some(rule));
            assert!(PreTokenizer::SUPPORTED.contains(rule.name()), "{name}");
            assert_eq!(PreTokenizer::from_name(rule.name().as_bytes()), Some(rule));
        }
        assert_eq!(PreTokenizer::from_name(b"tekken"), None);
    }
}
