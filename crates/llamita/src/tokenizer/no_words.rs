//! Without the feature `byte-level` there is no [`PreTokenizer`], and so no vocabulary that has one: what is done with such
//! vocabularies is compiled to nothing.

/// A rule that cuts text into words, of which there is none without the feature `byte-level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreTokenizer {}

impl PreTokenizer {
    /// The names that are supported, for messages.
    pub const SUPPORTED: &str = "none without the feature `byte-level`";

    /// The rule of a name, as in `tokenizer.ggml.pre`.
    pub const fn from_name(_: &[u8]) -> Option<Self> {
        None
    }

    /// The name of the rule, as in `tokenizer.ggml.pre`.
    pub const fn name(self) -> &'static str {
        match self {}
    }

    /// Whether a word that is a token is that token, whatever merging would make of it.
    pub const fn ignores_merges(self) -> bool {
        match self {}
    }

    /// Whether texts begin with BOS where the file does not say.
    pub const fn adds_bos(self) -> bool {
        match self {}
    }

    /// The end of the word that begins at `start`, which is before the end of the text.
    pub(super) const fn word_end(self, _: &str, _: usize) -> usize {
        match self {}
    }
}
