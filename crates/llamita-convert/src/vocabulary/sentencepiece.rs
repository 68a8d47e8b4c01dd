//! Reading `tokenizer.model`, the format of SentencePiece: a message in Google's protocol buffers.

use llamita::Tokenizer;

use super::{Vocabulary, VocabularyModel, token_type};
use crate::error::{Error, Result};

/// Reads the content of a `tokenizer.model`, of byte-pair encoding.
///
/// Spaces are kept as they are, as llama2.c and llama.cpp keep them, even where a model asks to remove those that
/// are not needed.
pub fn from_sentencepiece(model: &[u8]) -> Result<Vocabulary> {
    let mut pieces = Vec::new();
    let (mut trainer, mut normalizer) = (Trainer::default(), Normalizer::default());
    for field in Fields(model) {
        match field? {
            (1, Content::Bytes(bytes)) => pieces.push(Piece::read(bytes)?),
            (2, Content::Bytes(bytes)) => trainer.read(bytes)?,
            (3, Content::Bytes(bytes)) => normalizer.read(bytes)?,
            _ => (),
        }
    }
    trainer.check()?;
    normalizer.check()?;
    if !(1..=Tokenizer::MAX_VOCAB_SIZE).contains(&pieces.len()) {
        return Err(Error::refused(format_args!(
            "it has {} tokens, expected 1 to {}: copy or download it again",
            pieces.len(),
            Tokenizer::MAX_VOCAB_SIZE
        )));
    }
    if let Some(piece) = pieces.iter().position(|piece| piece.score.is_nan()) {
        return Err(Error::refused(format_args!(
            "the score of token {piece} is not a number: copy or download the file again"
        )));
    }
    // Special tokens that a vocabulary does not have are below 0.
    let special = |id: i32| u32::try_from(id).ok();
    let [unknown, bos, eos, padding] = trainer.special.map(special);
    let vocabulary = Vocabulary {
        model: VocabularyModel::Llama,
        pre: None,
        scores: pieces.iter().map(|piece| piece.score).collect(),
        types: pieces.iter().map(|piece| piece.kind).collect(),
        tokens: pieces.into_iter().map(|piece| piece.text).collect(),
        merges: Vec::new(),
        bos,
        eos,
        unknown,
        padding,
        add_space_prefix: normalizer.add_dummy_prefix,
        add_bos: true,
        chat_template: None,
    };
    vocabulary.check()?;
    Ok(vocabulary)
}

/// A token.
struct Piece {
    text: Vec<u8>,
    score: f32,
    /// In the numbering of [`token_type`], which is SentencePiece's.
    kind: i32,
}

impl Piece {
    fn read(message: &[u8]) -> Result<Self> {
        let mut piece = Self { text: Vec::new(), score: 0.0, kind: token_type::NORMAL };
        for field in Fields(message) {
            match field? {
                (1, Content::Bytes(text)) => piece.text = text.to_vec(),
                (2, Content::Fixed32(bits)) => piece.score = f32::from_bits(bits),
                (3, Content::Number(kind)) => piece.kind = kind as i32,
                _ => (),
            }
        }
        if !(token_type::NORMAL..=token_type::BYTE).contains(&piece.kind) {
            return Err(Error::refused(format_args!(
                "a token is of type {}, expected 1 to 6: copy or download the file again",
                piece.kind
            )));
        }
        Ok(piece)
    }
}

/// How the vocabulary was made.
struct Trainer {
    model_type: u64,
    space_behind: bool,
    /// Unknown, BOS, EOS and padding.
    special: [i32; 4],
}

impl Default for Trainer {
    fn default() -> Self {
        Self { model_type: 1, space_behind: false, special: [0, 1, 2, -1] }
    }
}

impl Trainer {
    fn read(&mut self, message: &[u8]) -> Result<()> {
        for field in Fields(message) {
            match field? {
                (3, Content::Number(kind)) => self.model_type = kind,
                (24, Content::Number(flag)) => self.space_behind = flag != 0,
                (number @ 40..=43, Content::Number(id)) => self.special[number as usize - 40] = id as i32,
                _ => (),
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let found = match self.model_type {
            2 if !self.space_behind => return Ok(()),
            2 => "has spaces behind words (treat_whitespace_as_suffix)".to_owned(),
            1 => "is of type unigram".to_owned(),
            3 => "is of type word".to_owned(),
            4 => "is of type char".to_owned(),
            other => format!("is of type {other}"),
        };
        Err(Error::refused(format_args!(
            "the tokenizer {found}, expected byte-pair encoding (bpe) with spaces before words: choose a model with that"
        )))
    }
}

/// What is done to a text before it is encoded.
struct Normalizer {
    name: String,
    /// Whether characters are replaced.
    replaces: bool,
    add_dummy_prefix: bool,
    escape_whitespaces: bool,
}

impl Default for Normalizer {
    fn default() -> Self {
        Self { name: String::new(), replaces: false, add_dummy_prefix: true, escape_whitespaces: true }
    }
}

impl Normalizer {
    fn read(&mut self, message: &[u8]) -> Result<()> {
        for field in Fields(message) {
            match field? {
                (1, Content::Bytes(name)) => self.name = String::from_utf8_lossy(name).into_owned(),
                (2, Content::Bytes(table)) => self.replaces = !table.is_empty(),
                (3, Content::Number(flag)) => self.add_dummy_prefix = flag != 0,
                (5, Content::Number(flag)) => self.escape_whitespaces = flag != 0,
                _ => (),
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let found = match (self.replaces, self.escape_whitespaces) {
            (false, true) => return Ok(()),
            (true, _) => format!("normalizes text by {:?}", self.name),
            (false, false) => "does not mark spaces (escape_whitespaces)".to_owned(),
        };
        Err(Error::refused(format_args!(
            "the tokenizer {found}, which is not supported, expected \"identity\" with spaces marked: choose a \
             model with that"
        )))
    }
}

/// The content of a field.
enum Content<'m> {
    Number(u64),
    Fixed32(u32),
    Bytes(&'m [u8]),
    /// Of no interest here.
    Fixed64,
}

/// The fields of a message, each with its number; after an error there are no more.
struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.0.split_off_first()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Content<'m>)> {
        let key = self.varint()?;
        let content = match key & 7 {
            0 => Content::Number(self.varint()?),
            1 => self.0.split_off(..8).map(|_| Content::Fixed64)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Content::Bytes(self.0.split_off(..len)?)
            }
            5 => Content::Fixed32(u32::from_le_bytes(self.0.split_off(..4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, content))
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<(u64, Content<'m>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        let damaged = || {
            Error::refused(
                "it is not what SentencePiece writes, or not whole, expected a tokenizer.model: copy or download \
                 it again",
            )
        };
        Some(field.ok_or_else(damaged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of bytes, which are fewer than 128.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let score = [&[2 << 3 | 5][..], &score.to_le_bytes()].concat();
        bytes(1, &[bytes(1, text.as_bytes()), score, vec![3 << 3, kind]].concat())
    }

    fn model(trainer: &[u8], normalizer: &[u8]) -> Vec<u8> {
        let pieces = [piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("</s>", 0.0, 3)].concat();
        [pieces, piece("▁a", -1.5, 1), bytes(2, trainer), bytes(3, normalizer)].concat()
    }

    #[test]
    fn a_model_is_read() {
        // Padding is -1, as in every model without it.
        let minus_one = [0xD8, 2, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1];
        let trainer = [&[3 << 3, 2][..], &minus_one].concat();
        let vocabulary = from_sentencepiece(&model(&trainer, &[3 << 3, 0])).unwrap();
        assert_eq!(vocabulary.tokens[3], "▁a".as_bytes());
        assert_eq!(vocabulary.scores, [0.0, 0.0, 0.0, -1.5]);
        assert_eq!(vocabulary.types, [2, 3, 3, 1]);
        let special = (vocabulary.unknown, vocabulary.bos, vocabulary.eos, vocabulary.padding);
        assert_eq!(special, (Some(0), Some(1), Some(2), None));
        assert!(!vocabulary.add_space_prefix);
    }

    #[test]
    fn other_models_are_refused_by_name() {
        let bpe = [3 << 3, 2];
        for (trainer, normalizer, expected) in [
            (&[][..], vec![], "of type unigram"),
            (&[3 << 3, 4], vec![], "of type char"),
            (&[3 << 3, 2, 0xC0, 1, 1], vec![], "treat_whitespace_as_suffix"),
            (&bpe, [bytes(1, b"nmt_nfkc"), bytes(2, b"table")].concat(), "normalizes text by \"nmt_nfkc\""),
            (&bpe, vec![5 << 3, 0], "escape_whitespaces"),
            (&[3 << 3, 2, 0xC8, 2, 9], vec![], "the BOS token is 9"),
        ] {
            let message = from_sentencepiece(&model(trainer, &normalizer)).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let good = model(&bpe, &[]);
        let with = |extra: &[u8]| from_sentencepiece(&[&good, extra].concat()).unwrap_err().to_string();
        assert!(with(&piece("x", f32::NAN, 1)).contains("score of token 4"));
        assert!(with(&piece("x", 0.0, 7)).contains("of type 7"));
        assert!(from_sentencepiece(&bytes(2, &bpe)).unwrap_err().to_string().contains("0 tokens"));
    }

    #[test]
    fn no_cut_is_a_panic() {
        let good = model(&[3 << 3, 2], &[]);
        for end in 0..good.len() {
            // Cut between two fields, it is another model: one that lacks the end.
            match from_sentencepiece(&good[..end]) {
                Ok(vocabulary) => assert_eq!(vocabulary.tokens.len(), 4, "{end}"),
                Err(error) => assert!(error.to_string().contains(':'), "{error}"),
            }
            let mut bad = good.clone();
            for byte in [0, 0x7F, 0xFF] {
                bad[end] = byte;
                drop(from_sentencepiece(&bad));
            }
        }
    }
}
