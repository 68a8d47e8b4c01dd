//! llama2.c's `tokenizer.bin`: pieces with scores, spaces as spaces, and line ends around BOS and EOS.

use super::{Vocabulary, VocabularyModel, token_type};
use crate::error::{Error, Result};

const UNKNOWN: u32 = 0;
const BOS: u32 = 1;
const EOS: u32 = 2;
/// How GGUF and SentencePiece write a space.
const MARK: &str = "\u{2581}";
/// How the two marks are written, as text that a story would print.
const MARKS: [(u32, &[u8], &[u8]); 2] = [(BOS, b"<s>", b"\n<s>\n"), (EOS, b"</s>", b"\n</s>\n")];

/// Reads the content of a `tokenizer.bin`; the file does not say how many tokens it has.
///
/// Token 0 is unknown, 1 is BOS, 2 is EOS; pieces such as `<0x0A>` are byte tokens.
pub fn from_llama2c_bin(bytes: &[u8]) -> Result<Vocabulary> {
    let truncated = |token: usize| {
        Error::refused(format_args!(
            "the file ends within token {token}, expected a tokenizer in llama2.c's format: \
             copy or download it again"
        ))
    };
    let (_, mut rest) = bytes.split_first_chunk::<4>().ok_or_else(|| truncated(0))?;
    let (mut tokens, mut scores) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let token = tokens.len();
        let (&score, after) = rest.split_first_chunk().ok_or_else(|| truncated(token))?;
        let (&len, after) = after.split_first_chunk().ok_or_else(|| truncated(token))?;
        let len = usize::try_from(i32::from_le_bytes(len)).map_err(|_| {
            Error::refused(format_args!(
                "token {token} has a length of {}, expected at least 0: copy or download the file again",
                i32::from_le_bytes(len)
            ))
        })?;
        let (piece, after) = after.split_at_checked(len).ok_or_else(|| truncated(token))?;
        let score = f32::from_le_bytes(score);
        if score.is_nan() {
            return Err(Error::refused(format_args!(
                "the score of token {token} is not a number: copy or download the file again"
            )));
        }
        scores.push(score);
        tokens.push(from_bin(token as u32, piece));
        rest = after;
    }
    if tokens.len() <= EOS as usize {
        return Err(Error::refused(format_args!(
            "the file has {} tokens, expected at least unknown, BOS and EOS: copy or download it again",
            tokens.len()
        )));
    }
    let types = tokens.iter().enumerate().map(|(token, piece)| kind(token as u32, piece)).collect();
    Ok(Vocabulary {
        model: VocabularyModel::Llama,
        pre: None,
        tokens,
        scores,
        types,
        merges: Vec::new(),
        bos: Some(BOS),
        eos: Some(EOS),
        unknown: Some(UNKNOWN),
        padding: None,
        add_space_prefix: true,
        add_bos: true,
        chat_template: None,
    })
}

/// The content of a `tokenizer.bin` with this vocabulary, which llama2.c must be able to use: one with scores,
/// and its special tokens at 0, 1 and 2.
pub fn to_llama2c_bin(vocabulary: &Vocabulary) -> Result<Vec<u8>> {
    if vocabulary.model != VocabularyModel::Llama {
        return Err(Error::refused(
            "llama2.c cannot use a byte-level vocabulary, expected one of the SentencePiece kind: write GGUF",
        ));
    }
    for (name, found, expected) in [("BOS", vocabulary.bos, BOS), ("EOS", vocabulary.eos, EOS)] {
        if found != Some(expected) {
            let found = found.map_or("missing".to_owned(), |id| format!("token {id}"));
            return Err(Error::refused(format_args!(
                "{name} is {found}, llama2.c expects token {expected}: write GGUF"
            )));
        }
    }
    let pieces: Vec<_> = (0..).zip(&vocabulary.tokens).map(|(token, piece)| to_bin(token, piece)).collect();
    let longest = pieces.iter().map(Vec::len).max().unwrap_or(0);
    let mut bytes = (longest as i32).to_le_bytes().to_vec();
    for (piece, score) in pieces.iter().zip(&vocabulary.scores) {
        bytes.extend(score.to_le_bytes());
        bytes.extend((piece.len() as i32).to_le_bytes());
        bytes.extend(piece);
    }
    Ok(bytes)
}

fn from_bin(token: u32, piece: &[u8]) -> Vec<u8> {
    match MARKS.iter().find(|(mark, _, spelled)| (*mark, *spelled) == (token, piece)) {
        Some((_, name, _)) => name.to_vec(),
        None => replace(piece, b" ", MARK.as_bytes()),
    }
}

fn to_bin(token: u32, piece: &[u8]) -> Vec<u8> {
    match MARKS.iter().find(|(mark, name, _)| (*mark, *name) == (token, piece)) {
        Some((_, _, spelled)) => spelled.to_vec(),
        None => replace(piece, MARK.as_bytes(), b" "),
    }
}

fn replace(mut bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(bytes.len());
    while let Some((&first, rest)) = bytes.split_first() {
        if let Some(after) = bytes.strip_prefix(old) {
            replaced.extend(new);
            bytes = after;
        } else {
            replaced.push(first);
            bytes = rest;
        }
    }
    replaced
}

/// The type of a token of which only the spelling is known.
fn kind(token: u32, piece: &[u8]) -> i32 {
    match (token, piece) {
        (UNKNOWN, _) => token_type::UNKNOWN,
        (BOS | EOS, _) => token_type::CONTROL,
        (_, piece) if super::is_byte_token(piece) => token_type::BYTE,
        _ => token_type::NORMAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bin(pieces: &[&str]) -> Vec<u8> {
        let mut bytes = 9_i32.to_le_bytes().to_vec();
        for (i, piece) in pieces.iter().enumerate() {
            bytes.extend((-(i as f32)).to_le_bytes());
            bytes.extend((piece.len() as i32).to_le_bytes());
            bytes.extend(piece.bytes());
        }
        bytes
    }

    #[test]
    fn spaces_and_marks_are_spelled_as_gguf_has_them() {
        let file = bin(&["<unk>", "\n<s>\n", "\n</s>\n", "<0x0A>", " a b", "<0xZZ>"]);
        let vocabulary = from_llama2c_bin(&file).unwrap();
        let tokens: Vec<_> = vocabulary.tokens.iter().map(|token| str::from_utf8(token).unwrap()).collect();
        assert_eq!(tokens, ["<unk>", "<s>", "</s>", "<0x0A>", "▁a▁b", "<0xZZ>"]);
        assert_eq!(vocabulary.types, [2, 3, 3, 6, 1, 1]);
        assert_eq!(vocabulary.scores, [0.0, -1.0, -2.0, -3.0, -4.0, -5.0]);
        // The first number is the length of the longest token, here EOS and "▁a▁b" as llama2.c spells them.
        let mut again = to_llama2c_bin(&vocabulary).unwrap();
        assert_eq!(again[..4], 6_i32.to_le_bytes()[..]);
        again[..4].copy_from_slice(&file[..4]);
        assert_eq!(again, file);
    }

    #[test]
    fn every_cut_is_refused() {
        let file = bin(&["<unk>", "<s>", "</s>", "abc"]);
        assert!(from_llama2c_bin(&file).is_ok());
        // Cut between two tokens, it is a shorter vocabulary.
        let whole = [4, 17, 28, 40, file.len()];
        for len in 0..file.len() {
            let found = from_llama2c_bin(&file[..len]);
            assert_eq!(found.is_ok(), whole.contains(&len) && len >= 40, "{len}");
        }
        let mut negative = file.clone();
        negative[8..12].copy_from_slice(&(-1_i32).to_le_bytes());
        assert!(from_llama2c_bin(&negative).unwrap_err().to_string().contains("length of -1"));
        let mut nan = file.clone();
        nan[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(from_llama2c_bin(&nan).unwrap_err().to_string().contains("not a number"));
    }

    #[test]
    fn llama2c_gets_only_what_it_can_use() {
        let mut vocabulary = from_llama2c_bin(&bin(&["<unk>", "<s>", "</s>", "abc"])).unwrap();
        vocabulary.eos = None;
        assert!(to_llama2c_bin(&vocabulary).unwrap_err().to_string().contains("EOS is missing"));
        vocabulary.model = VocabularyModel::Gpt2;
        assert!(to_llama2c_bin(&vocabulary).unwrap_err().to_string().contains("byte-level"));
    }
}
