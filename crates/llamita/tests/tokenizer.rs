//! The tokenizer against reference cases, and against a naive encoder on random texts and vocabularies.
//!
//! Tests that need real vocabularies find them in the reference data.

#[path = "common/data.rs"]
mod data;

use std::collections::HashMap;

use llamita::tokenizer::{GgufVocabulary, Tokenizer, TokenizerError, Utf8Stream, Work};
use proptest::prelude::*;

/// A file of the reference data, where there is some.
fn read(name: &str) -> Vec<u8> {
    data::read(name).unwrap()
}

/// Memory for an index, enough for the vocabularies of all tests.
fn index(vocab_size: usize) -> Vec<u32> {
    // What was in it before must not matter.
    vec![0xDEAD_BEEF; Tokenizer::index_len(vocab_size)]
}

fn index_of(vocabulary: &GgufVocabulary<'_>) -> Vec<u32> {
    vec![0xDEAD_BEEF; vocabulary.index_len()]
}

fn encode(tokenizer: &Tokenizer<'_>, text: &str) -> Vec<u32> {
    let mut scratch = vec![Work::EMPTY; Tokenizer::scratch_len(text.len())];
    let mut tokens = vec![0; Tokenizer::max_tokens(text.len())];
    let count = tokenizer.encode(text, &mut scratch, &mut tokens).unwrap();
    tokens.truncate(count);
    tokens
}

fn decode(tokenizer: &Tokenizer<'_>, tokens: &[u32]) -> String {
    let mut text = String::new();
    let mut stream = Utf8Stream::new();
    for pair in tokens.windows(2) {
        for bytes in tokenizer.decode(pair[0], pair[1]) {
            stream.push(bytes, |part| text.push_str(part));
        }
    }
    stream.finish(|part| text.push_str(part));
    text
}

/// A vocabulary as a list, to be written in both forms: <unk>, BOS, EOS, all bytes, then the pieces.
#[derive(Clone, Debug)]
struct Vocabulary(Vec<(String, f32)>);

impl Vocabulary {
    fn new(pieces: impl IntoIterator<Item = (String, f32)>) -> Self {
        let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
        let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
        Self(special.into_iter().chain(bytes).map(|piece| (piece, 0.0)).chain(pieces).collect())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn bin(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        for (piece, score) in &self.0 {
            bytes.extend(score.to_le_bytes());
            bytes.extend((piece.len() as i32).to_le_bytes());
            bytes.extend(piece.bytes());
        }
        bytes
    }

    fn from_bin(mut bytes: &[u8]) -> Self {
        let mut pieces = Vec::new();
        bytes = &bytes[4..];
        while let Some((&[a, b, c, d, len @ ..], rest)) = bytes.split_first_chunk::<8>() {
            let (piece, rest) = rest.split_at(i32::from_le_bytes(len) as usize);
            pieces.push((String::from_utf8(piece.to_vec()).unwrap(), f32::from_le_bytes([a, b, c, d])));
            bytes = rest;
        }
        Self(pieces)
    }

    fn gguf(&self) -> Arrays {
        let mut arrays = Arrays { count: self.len(), ..Arrays::default() };
        for (token, (piece, score)) in self.0.iter().enumerate() {
            let (piece, kind) = match token {
                0 => (piece.clone(), 2_i32),
                1 | 2 => (piece.clone(), 3),
                3..259 => (piece.clone(), 6),
                _ => (piece.replace(' ', "▁"), 1),
            };
            arrays.tokens.extend((piece.len() as u64).to_le_bytes());
            arrays.tokens.extend(piece.bytes());
            arrays.scores.extend(score.to_le_bytes());
            arrays.types.extend(kind.to_le_bytes());
        }
        arrays
    }

    /// Merges by trying every pair each time, as the method is described.
    fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens: HashMap<&str, u32> = HashMap::new();
        for (token, (piece, _)) in self.0.iter().enumerate().skip(259) {
            tokens.entry(piece).or_insert(token as u32);
        }
        let text = if text.is_empty() { String::new() } else { format!(" {text}") };
        let mut symbols: Vec<String> = text.chars().map(String::from).collect();
        loop {
            let mut best: Option<(f32, usize)> = None;
            for (at, pair) in symbols.windows(2).enumerate() {
                if let Some(&token) = tokens.get(pair.concat().as_str()) {
                    let score = self.0[token as usize].1;
                    if best.is_none_or(|(best, _)| score > best) {
                        best = Some((score, at));
                    }
                }
            }
            let Some((_, at)) = best else { break };
            let right = symbols.remove(at + 1);
            symbols[at].push_str(&right);
        }
        let mut encoded = vec![1];
        for symbol in &symbols {
            match tokens.get(symbol.as_str()) {
                Some(&token) => encoded.push(token),
                None => encoded.extend(symbol.bytes().map(|byte| u32::from(byte) + 3)),
            }
        }
        encoded
    }
}

/// The arrays of a GGUF file's tokenizer.
#[derive(Clone, Debug, Default)]
struct Arrays {
    count: usize,
    tokens: Vec<u8>,
    scores: Vec<u8>,
    types: Vec<u8>,
}

impl Arrays {
    fn vocabulary(&self) -> GgufVocabulary<'_> {
        GgufVocabulary {
            count: self.count,
            tokens: &self.tokens,
            scores: &self.scores,
            types: Some(&self.types),
            bos: 1,
            eos: 2,
            unknown: Some(0),
            add_space_prefix: true,
            add_bos: true,
            byte_level: None,
        }
    }

    /// Cuts the arrays out of a file: after a key come the type of an array, that of its elements, a count.
    fn of_file(file: &[u8], count: usize) -> Self {
        let after = |key: &str| {
            let at = file.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
            let (head, rest) = file[at + key.len()..].split_at(16);
            assert_eq!(head[0], 9, "{key} is an array");
            assert_eq!(head[8..], (count as u64).to_le_bytes(), "{key}");
            rest
        };
        let tokens = after("tokenizer.ggml.tokens");
        let mut end = 0;
        for _ in 0..count {
            end += 8 + u64::from_le_bytes(tokens[end..end + 8].try_into().unwrap()) as usize;
        }
        Self {
            count,
            tokens: tokens[..end].to_vec(),
            scores: after("tokenizer.ggml.scores")[..4 * count].to_vec(),
            types: after("tokenizer.ggml.token_type")[..4 * count].to_vec(),
        }
    }
}

#[test]
fn reference_cases() {
    let Some(cases) = data::read("reference/tokenizer-cases.json") else { return };
    let cases: serde_json::Value = serde_json::from_slice(&cases).unwrap();
    let files = [("tok512", "tok512.bin", 512), ("tok32000", "tokenizer-32000.bin", 32000)];
    for (name, file, vocab_size) in files {
        let bytes = read(&format!("data/models/{file}"));
        let mut index = index(vocab_size);
        let tokenizer = Tokenizer::from_bin(&bytes, vocab_size, &mut index).unwrap();
        assert!(!cases.as_array().unwrap().is_empty());
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let expected: Vec<u32> = serde_json::from_value(case[name].clone()).unwrap();
            assert_eq!(encode(&tokenizer, text), expected, "{name}: {text:?}");
            assert_eq!(decode(&tokenizer, &expected), text, "{name}");
        }
    }
}

#[test]
fn a_vocabulary_is_the_same_in_both_files() {
    let Some(bytes) = data::read("data/models/tok512.bin") else { return };
    let arrays = Arrays::of_file(&read("data/models/stories260K-Q8_0.gguf"), 512);
    let (mut index, mut gguf_index) = (index(512), index_of(&arrays.vocabulary()));
    let tokenizer = Tokenizer::from_bin(&bytes, 512, &mut index).unwrap();
    let gguf = Tokenizer::from_gguf(&arrays.vocabulary(), &mut gguf_index).unwrap();
    let untyped = GgufVocabulary { types: None, ..arrays.vocabulary() };
    let mut untyped_index = index_of(&untyped);
    let untyped = Tokenizer::from_gguf(&untyped, &mut untyped_index).unwrap();
    for text in String::from_utf8(read("data/tinystories/valid.txt")).unwrap().split("<|endoftext|>") {
        let tokens = encode(&tokenizer, text);
        assert_eq!(tokens, encode(&gguf, text));
        assert_eq!(tokens, encode(&untyped, text));
        assert_eq!(decode(&tokenizer, &tokens), text);
        assert_eq!(decode(&gguf, &tokens), text);
    }
}

#[test]
fn stories_are_encoded_as_the_naive_way_does() {
    let Some(stories) = data::read("data/tinystories/valid.txt") else { return };
    let stories = String::from_utf8(stories).unwrap();
    for (file, vocab_size, count) in [("tok512.bin", 512, 10), ("tokenizer-32000.bin", 32000, 10)] {
        let bytes = read(&format!("data/models/{file}"));
        let mut index = index(vocab_size);
        let tokenizer = Tokenizer::from_bin(&bytes, vocab_size, &mut index).unwrap();
        let vocabulary = Vocabulary::from_bin(&bytes);
        for story in stories.split("<|endoftext|>").take(count) {
            assert_eq!(encode(&tokenizer, story), vocabulary.encode(story), "{file}");
            // Without spaces the words are long.
            let letters = story.replace([' ', '\n'], "");
            assert_eq!(encode(&tokenizer, &letters), vocabulary.encode(&letters), "{file}");
        }
        let tokens = encode(&tokenizer, &stories);
        assert_eq!(decode(&tokenizer, &tokens), stories);
    }
}

/// Texts of many kinds, up to a few hundred bytes.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        ".{0,60}",
        "[ a-zA-Z.,!'\"\n]{0,120}",
        "( {1,40}[a-z]{0,3}){0,4}",
        "[a-b]{1,200}",
        "(ab|a|aa| |é|数|🦙|▁|<0x41>|<s>){0,80}",
        ("[a-zé数 ]", 1..200_usize).prop_map(|(text, count)| text.repeat(count)),
    ]
}

/// Small vocabularies over few characters, with many equal scores.
fn vocabularies() -> impl Strategy<Value = Vocabulary> {
    let piece = prop_oneof![
        4 => "[ab]{1,4}",
        2 => " ?[ab]{1,3}",
        2 => "(a|b| |é|数|▁){1,4}",
        1 => " {1,5}",
        1 => "[a-b]{9,40}",
    ];
    let score = (-6..3_i8).prop_map(f32::from);
    // All the begins of a piece, so that it can be reached.
    let begins = |(piece, score, with_begins): (String, f32, bool)| {
        let ends: Vec<usize> =
            piece.char_indices().map(|(at, character)| at + character.len_utf8()).collect();
        let first = if with_begins { 0 } else { ends.len() - 1 };
        ends[first..].iter().map(|&end| (piece[..end].to_owned(), score)).collect::<Vec<_>>()
    };
    prop::collection::vec((piece, score, any::<bool>()).prop_map(begins), 0..30)
        .prop_map(|pieces| Vocabulary::new(pieces.into_iter().flatten()))
}

/// Encodes in every way there is, and compares.
fn check(vocabulary: &Vocabulary, text: &str) {
    let (bytes, arrays) = (vocabulary.bin(), vocabulary.gguf());
    let (mut bin_index, mut gguf_index) = (index(vocabulary.len()), index_of(&arrays.vocabulary()));
    let bin = Tokenizer::from_bin(&bytes, vocabulary.len(), &mut bin_index).unwrap();
    let tokens = encode(&bin, text);
    assert_eq!(tokens, vocabulary.encode(text), "tokenizer.bin");
    assert_eq!(decode(&bin, &tokens), text);
    // '▁' cannot be told from a space in the pieces of GGUF: what has it is another vocabulary there.
    if !vocabulary.0.iter().any(|(piece, _)| piece.contains('▁')) {
        let gguf = Tokenizer::from_gguf(&arrays.vocabulary(), &mut gguf_index).unwrap();
        assert_eq!(encode(&gguf, text), tokens, "GGUF");
        assert_eq!(decode(&gguf, &tokens), text);
    }
}

/// A vocabulary of the reference data, if there is one.
fn real(file: &str) -> Option<Vocabulary> {
    data::read(&format!("data/models/{file}")).map(|file| Vocabulary::from_bin(&file))
}

#[test]
fn real_vocabularies_encode_as_the_naive_way_does() {
    for (file, cases) in [("tok512.bin", 500), ("tokenizer-32000.bin", 40)] {
        let Some(vocabulary) = real(file) else { return };
        let pieces: Vec<String> = vocabulary.0[259..].iter().map(|(piece, _)| piece.clone()).collect();
        let of_pieces = prop::collection::vec(prop::sample::select(pieces), 0..40).prop_map(|p| p.concat());
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            cases,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let texts = prop::collection::vec(prop_oneof![texts(), of_pieces], 1..10);
        let result = runner.run(&texts, |texts| {
            let bytes = vocabulary.bin();
            let mut index = index(vocabulary.len());
            let tokenizer = Tokenizer::from_bin(&bytes, vocabulary.len(), &mut index).unwrap();
            for text in texts {
                let tokens = encode(&tokenizer, &text);
                prop_assert_eq!(&tokens, &vocabulary.encode(&text), "{:?}", text);
                prop_assert_eq!(decode(&tokenizer, &tokens), text);
            }
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

#[test]
fn a_long_text_without_spaces_is_not_quadratic() {
    let pieces = ["a", "b", "ab", "ba", "aa", "abab", " ", " a", "aaaa", "aaaaaaaa"];
    let vocabulary =
        Vocabulary::new(pieces.iter().zip(0_u8..).map(|(p, score)| (p.to_string(), score.into())));
    let bytes = vocabulary.bin();
    let mut index = index(vocabulary.len());
    let tokenizer = Tokenizer::from_bin(&bytes, vocabulary.len(), &mut index).unwrap();
    let mut state = 1_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 { 'a' } else { 'b' }
    };
    for text in ["a".repeat(1 << 20), (0..1 << 20).map(|_| random()).collect()] {
        let tokens = encode(&tokenizer, &text);
        assert!(tokens.len() < text.len());
        assert_eq!(decode(&tokenizer, &tokens), text);
    }
    let error = tokenizer.encode(&"a".repeat(99), &mut [Work::EMPTY; 99], &mut [0; 99]).unwrap_err();
    assert_eq!(error, TokenizerError::ScratchMemory { found: 99, needed: 100 });
    assert_eq!(tokenizer.encode(&"ab ".repeat(99), &mut [], &mut [0; 999]).map(|count| count > 99), Ok(true));
}

/// Uses a tokenizer that may have come from a damaged file in every way; nothing may panic.
fn exercise(tokenizer: &Tokenizer<'_>, text: &str) {
    let tokens = encode(tokenizer, text);
    assert!(tokens.iter().all(|&token| (token as usize) < tokenizer.vocab_size()));
    decode(tokenizer, &tokens);
    for token in (0..tokenizer.vocab_size() as u32 + 3).chain([i32::MAX as u32, u32::MAX - 1, u32::MAX]) {
        tokenizer.decode(tokenizer.bos(), token).for_each(drop);
        tokenizer.decode(token, token).for_each(drop);
        tokenizer.piece(token);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_vocabularies_encode_as_the_naive_way_does(
        vocabulary in vocabularies(),
        texts in prop::collection::vec(texts(), 1..12),
    ) {
        for text in texts {
            check(&vocabulary, &text);
        }
    }

    #[test]
    fn random_bytes_are_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..99), text in texts()) {
        let Ok(count) = Tokenizer::count_bin(&bytes) else { return Ok(()) };
        let mut index = index(count);
        if let Ok(tokenizer) = Tokenizer::from_bin(&bytes, count, &mut index) {
            exercise(&tokenizer, &text);
        }
    }

    #[test]
    fn damaged_files_are_never_a_panic(
        vocabulary in vocabularies(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in prop::option::of(any::<prop::sample::Index>()),
        count in prop::option::of(0..400_usize),
        text in texts(),
    ) {
        let hurt = |bytes: &mut Vec<u8>| {
            for (at, value) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            if let Some(end) = end {
                bytes.truncate(end.index(bytes.len()));
            }
        };
        let count = count.unwrap_or(vocabulary.len());
        let mut bin = vocabulary.bin();
        hurt(&mut bin);
        if let Ok(tokenizer) = Tokenizer::from_bin(&bin, count, &mut index(count)) {
            exercise(&tokenizer, &text);
        }
        // Each array in turn, and the rest as it was.
        for array in 0..3 {
            let mut arrays = vocabulary.gguf();
            hurt([&mut arrays.tokens, &mut arrays.scores, &mut arrays.types][array]);
            let miscounted = GgufVocabulary { count, bos: count as u32, ..arrays.vocabulary() };
            for vocabulary in [arrays.vocabulary(), miscounted] {
                if let Ok(tokenizer) = Tokenizer::from_gguf(&vocabulary, &mut index_of(&vocabulary)) {
                    exercise(&tokenizer, &text);
                }
            }
        }
    }
}
