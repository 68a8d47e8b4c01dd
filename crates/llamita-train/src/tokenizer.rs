//! A vocabulary of SentencePiece's kind, learned from texts by byte-pair encoding (Sennrich et al., 2016).

use std::collections::HashMap;

use anyhow::{Result, anyhow, ensure};
use llamita_convert::vocabulary::token_type;
use llamita_convert::{Vocabulary, VocabularyModel};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::{AddedToken, Trainer};

/// What a space is in a piece.
const SPACE: char = '\u{2581}';
/// The special tokens and one for each byte.
const FIRST_PIECE: usize = 3 + 256;
/// The share of a text's characters that have pieces of their own; others are written in bytes.
const COVERAGE: f64 = 0.9995;
/// The longest piece, in characters: longer ones are words of few texts.
const LONGEST_PIECE: usize = 16;

/// Learns `vocab_size` tokens from texts: the special ones, all bytes, the common characters, and what is merged of
/// these.
///
/// No piece goes beyond a word: a space belongs to the word after it, digits stand alone, and punctuation is not
/// mixed with letters.
pub fn train<'t>(
    texts: impl Iterator<Item = &'t str> + Clone + Send,
    vocab_size: usize,
) -> Result<Vocabulary> {
    let alphabet = alphabet(texts.clone());
    let least = FIRST_PIECE + alphabet.len();
    ensure!(
        vocab_size > least,
        "model.vocab_size is {vocab_size}, expected more than {least}, which are 3 special tokens, 256 bytes and the \
         {} characters of the texts",
        alphabet.len()
    );
    let special = (0..FIRST_PIECE).map(|id| AddedToken::from(reserved(id), true)).collect();
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .special_tokens(special)
        .max_token_length(Some(LONGEST_PIECE))
        .show_progress(false)
        .build();
    let error = |error| anyhow!("the vocabulary cannot be learned: {error}");
    trainer.feed(texts, |text| Ok(words(text, &alphabet))).map_err(error)?;
    let mut learned = BPE::default();
    trainer.train(&mut learned).map_err(error)?;
    let pieces = learned.get_vocab();
    ensure!(
        pieces.len() == vocab_size,
        "the texts give {} tokens, model.vocab_size is {vocab_size}: give more text, or choose fewer tokens",
        pieces.len()
    );
    let mut tokens = vec![String::new(); vocab_size];
    pieces.into_iter().for_each(|(piece, id)| tokens[id as usize] = piece);
    Ok(vocabulary(tokens))
}

/// From pieces in the order in which they are merged.
fn vocabulary(tokens: Vec<String>) -> Vocabulary {
    let kind = |(id, piece): (usize, &String)| match id {
        0 => (token_type::UNKNOWN, 0.0),
        1 | 2 => (token_type::CONTROL, 0.0),
        3..FIRST_PIECE => (token_type::BYTE, 0.0),
        // Characters are not merged of anything, and come after all that is.
        _ if piece.chars().nth(1).is_none() => (token_type::NORMAL, -(tokens.len() as f32)),
        _ => (token_type::NORMAL, -((id - FIRST_PIECE) as f32)),
    };
    let (types, scores) = tokens.iter().enumerate().map(kind).unzip();
    Vocabulary {
        model: VocabularyModel::Llama,
        pre: None,
        types,
        scores,
        tokens: tokens.into_iter().map(String::into_bytes).collect(),
        merges: Vec::new(),
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        padding: None,
        add_space_prefix: true,
        add_bos: true,
        chat_template: None,
    }
}

/// The spelling of the tokens before the first piece.
fn reserved(id: usize) -> String {
    match id {
        0 => "<unk>".to_owned(),
        1 => "<s>".to_owned(),
        2 => "</s>".to_owned(),
        _ => format!("<0x{:02X}>", id - 3),
    }
}

/// The most frequent characters, which together are [`COVERAGE`] of the texts, with a space among them.
fn alphabet<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<char> {
    let mut counts: HashMap<char, u64> = HashMap::new();
    // A new line is a byte: it stands for itself in every vocabulary.
    for char in texts.flat_map(str::chars).filter(|char| !char.is_control()) {
        *counts.entry(if char == ' ' { SPACE } else { char }).or_default() += 1;
    }
    let enough = (counts.values().sum::<u64>() as f64 * COVERAGE) as u64;
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable_by_key(|&(char, count)| (std::cmp::Reverse(count), char));
    let mut covered = 0;
    let common = counts.iter().take_while(|(_, count)| {
        let more = covered < enough;
        covered += count;
        more
    });
    let mut alphabet: Vec<char> = common.map(|&(char, _)| char).collect();
    if !alphabet.contains(&SPACE) {
        alphabet.push(SPACE);
    }
    alphabet.sort_unstable();
    alphabet
}

/// What merges do not go beyond.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Letter,
    Digit,
    Other,
}

fn kind(char: char) -> Kind {
    match char {
        '\'' | '\u{2019}' => Kind::Letter,
        _ if char.is_alphabetic() => Kind::Letter,
        _ if char.is_numeric() => Kind::Digit,
        _ => Kind::Other,
    }
}

/// Cuts a text into words, without the characters that are written in bytes. `alphabet` is sorted.
fn words(text: &str, alphabet: &[char]) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut last = None;
    let spaced =
        std::iter::once(SPACE).chain(text.chars().map(|char| if char == ' ' { SPACE } else { char }));
    for char in spaced {
        let known = alphabet.binary_search(&char).is_ok();
        let now = (known && char != SPACE).then(|| kind(char));
        // What follows a space belongs to it, and like to like, except for digits.
        let joined = known
            && char != SPACE
            && (word.ends_with(SPACE) || (last.is_some() && last == now && now != Some(Kind::Digit)));
        if !joined && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if known {
            word.push(char);
        }
        last = now;
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahash::AHashMap;
    use llamita_convert::vocabulary::{Encoder, Scratch, from_llama2c_bin, to_llama2c_bin};

    const TEXT: &str = "Once upon a time, there was a llama. \"I don't know 42 llamas!\" said the llama.\n\
                        The other llama said: there was a time when a llama was there, and there, and there.";

    fn trained() -> Vocabulary {
        train(std::iter::repeat_n(TEXT, 3), 335).unwrap()
    }

    #[test]
    fn words_are_cut_where_no_piece_goes_on() {
        let alphabet = alphabet([TEXT].into_iter());
        let found = words("the  don't (42) said.\"\nXa", &alphabet).join("|");
        assert_eq!(found, "▁the|▁|▁don't|▁|4|2|▁said|.\"|a");
    }

    /// Whether it is made of what is merged first, as Hugging Face's tokenizers do it.
    #[test]
    fn the_engine_encodes_as_others_do() {
        let vocabulary = trained();
        let names: Vec<String> =
            vocabulary.tokens.iter().map(|token| String::from_utf8(token.clone()).unwrap()).collect();
        assert!(names.contains(&"▁llama".to_owned()) && !names.iter().any(|name| name.contains("a.")));
        let ids =
            names.iter().enumerate().map(|(id, name)| (name.clone(), id as u32)).collect::<AHashMap<_, _>>();
        // Every two pieces that are one together can be merged, the first learned first.
        let merges = names.iter().skip(FIRST_PIECE).flat_map(|name| {
            let cuts = name.char_indices().skip(1).map(|(at, _)| name.split_at(at));
            let cuts = cuts.filter(|(left, right)| {
                [left, right].iter().all(|&part| names.iter().any(|name| name == part))
            });
            cuts.map(|(left, right)| (left.to_owned(), right.to_owned()))
        });
        let oracle = BPE::builder().vocab_and_merges(ids, merges.collect());
        let oracle = oracle.byte_fallback(true).unk_token("<unk>".to_owned()).build().unwrap();
        let mut encoder = Encoder::new(&vocabulary).unwrap();
        let tokenizer = encoder.tokenizer().unwrap();
        let mut scratch = Scratch::default();
        for text in [TEXT, "there  was\n\n a é llama😀, 4242", "don't  ", "a", "Zebras"] {
            let spelled = format!("▁{}", text.replace(' ', "▁"));
            let expected = tokenizers::Model::tokenize(&oracle, &spelled).unwrap();
            let expected: Vec<u32> = expected.iter().map(|token| token.id).collect();
            let found = scratch.encode(&tokenizer, text).unwrap();
            assert_eq!(found, expected, "{text}");
            let bytes: Vec<u8> = [&[1], found]
                .concat()
                .windows(2)
                .flat_map(|pair| tokenizer.decode(pair[0], pair[1]))
                .flatten()
                .copied()
                .collect();
            assert_eq!(String::from_utf8(bytes).unwrap(), text);
        }
    }

    #[test]
    fn learning_is_the_same_each_time_and_the_file_too() {
        let (one, other) = (trained(), trained());
        assert!(one == other);
        let read = from_llama2c_bin(&to_llama2c_bin(&one).unwrap()).unwrap();
        // The file has neither types nor a prefix of its own; they are what they always are.
        assert!(read.tokens == one.tokens && read.scores == one.scores);
    }

    #[test]
    fn too_few_or_too_many_tokens_are_refused() {
        let message = |size| train([TEXT].into_iter(), size).unwrap_err().to_string();
        assert!(message(270).contains("expected more than"), "{}", message(270));
        assert!(message(2000).contains("give more text"), "{}", message(2000));
    }
}
