//! Byte-level vocabularies against a naive encoder, and what is particular to them.

use std::collections::HashMap;

use llamita::tokenizer::{ByteLevel, GgufVocabulary, PreTokenizer, Tokenizer, TokenizerError, Work};
use proptest::prelude::*;

/// A vocabulary: the letters of all bytes, what the merges make, and special tokens after those.
#[derive(Clone, Debug)]
struct Vocabulary {
    pieces: Vec<String>,
    /// Pairs of pieces.
    merges: Vec<(String, String)>,
    types: Vec<i32>,
    pre: PreTokenizer,
    add_bos: bool,
}

/// The letter of a byte.
fn letter(byte: u8) -> char {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(&byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !printable(byte)).count();
    char::from_u32(256 + before as u32).unwrap()
}

fn strings<T: AsRef<str>>(strings: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for string in strings {
        bytes.extend((string.as_ref().len() as u64).to_le_bytes());
        bytes.extend(string.as_ref().bytes());
    }
    bytes
}

impl Vocabulary {
    /// Merges of text; a piece may be made in several ways.
    fn new(merges: &[(&str, &str)], special: &[(&str, i32)]) -> Self {
        let spell = |text: &str| text.bytes().map(letter).collect::<String>();
        Self::spelled(merges.iter().map(|(left, right)| (spell(left), spell(right))).collect(), special)
    }

    fn spelled(merges: Vec<(String, String)>, special: &[(&str, i32)]) -> Self {
        let mut pieces: Vec<String> = (0..=255).map(|byte| letter(byte).to_string()).collect();
        for (left, right) in &merges {
            let piece = format!("{left}{right}");
            if !pieces.contains(&piece) {
                pieces.push(piece);
            }
        }
        let mut types = vec![1; pieces.len()];
        pieces.extend(special.iter().map(|(piece, _)| (*piece).to_owned()));
        types.extend(special.iter().map(|(_, kind)| kind));
        Self { pieces, merges, types, pre: PreTokenizer::Gpt2, add_bos: false }
    }

    fn with<T>(&self, test: impl FnOnce(Result<Tokenizer<'_>, TokenizerError>) -> T) -> T {
        let tokens = strings(&self.pieces);
        let merges = strings(self.merges.iter().map(|(left, right)| format!("{left} {right}")));
        let types: Vec<u8> = self.types.iter().flat_map(|kind| kind.to_le_bytes()).collect();
        let last = self.pieces.len() as u32 - 1;
        let vocabulary = GgufVocabulary {
            count: self.pieces.len(),
            tokens: &tokens,
            scores: &[],
            types: Some(&types),
            bos: last,
            eos: last,
            unknown: None,
            add_space_prefix: false,
            add_bos: self.add_bos,
            byte_level: Some(ByteLevel { pre: self.pre, merges: &merges, merge_count: self.merges.len() }),
        };
        // What was in the memory before must not matter.
        let mut index = vec![0xDEAD_BEEF; vocabulary.index_len()];
        test(Tokenizer::from_gguf(&vocabulary, &mut index))
    }

    fn id(&self, piece: &str) -> u32 {
        self.pieces.iter().position(|known| known == piece).unwrap() as u32
    }

    /// Encodes a text that is one word, by trying every pair each time.
    fn naive(&self, word: &str) -> Vec<u32> {
        let ranks: HashMap<(&str, &str), usize> =
            self.merges.iter().zip(0..).map(|((l, r), rank)| ((&l[..], &r[..]), rank)).collect();
        let mut symbols: Vec<String> = word.bytes().map(|byte| letter(byte).to_string()).collect();
        loop {
            let pairs = symbols.windows(2).enumerate();
            let best = pairs.filter_map(|(at, pair)| Some((*ranks.get(&(&pair[0][..], &pair[1][..]))?, at)));
            let Some((_, at)) = best.min() else { break };
            let right = symbols.remove(at + 1);
            symbols[at].push_str(&right);
        }
        symbols.iter().map(|symbol| self.id(symbol)).collect()
    }
}

fn run(
    encode: impl FnOnce(&mut [Work], &mut [u32]) -> Result<usize, TokenizerError>,
    len: usize,
) -> Vec<u32> {
    let mut scratch = vec![Work::EMPTY; Tokenizer::scratch_len(len)];
    let mut tokens = vec![0; Tokenizer::max_tokens(len)];
    let count = encode(&mut scratch, &mut tokens).unwrap();
    tokens.truncate(count);
    tokens
}

fn encode(tokenizer: &Tokenizer<'_>, text: &str) -> Vec<u32> {
    run(|scratch, tokens| tokenizer.encode(text, scratch, tokens), text.len())
}

fn encode_special(tokenizer: &Tokenizer<'_>, text: &str) -> Vec<u32> {
    run(|scratch, tokens| tokenizer.encode_special(text, scratch, tokens), text.len())
}

fn decode(tokenizer: &Tokenizer<'_>, tokens: &[u32]) -> Vec<u8> {
    let mut previous = tokenizer.bos();
    let mut text = Vec::new();
    for &token in tokens {
        tokenizer.decode(previous, token).for_each(|bytes| text.extend(bytes));
        previous = token;
    }
    text
}

#[test]
fn the_pair_decides_and_not_what_it_makes() {
    // "abc" is made of "a" and "bc" late, of "ab" and "c" never.
    let merges = [("a", "b"), ("b", "c"), ("a", "bc")];
    let vocabulary = Vocabulary::new(&merges, &[("<s>", 3)]);
    vocabulary.with(|tokenizer| {
        let tokens = encode(&tokenizer.unwrap(), "abc");
        assert_eq!(tokens, [vocabulary.id("ab"), vocabulary.id("c")]);
    });
    // Unless words that are tokens are left as they are.
    let vocabulary = Vocabulary { pre: PreTokenizer::LlamaBpe, add_bos: true, ..vocabulary };
    vocabulary.with(|tokenizer| {
        let tokenizer = tokenizer.unwrap();
        let tokens = encode(&tokenizer, "abc");
        assert_eq!(tokens, [tokenizer.bos(), vocabulary.id("abc")]);
        assert!(tokenizer.adds_bos());
        assert_eq!(encode(&tokenizer, ""), [tokenizer.bos()]);
    });
    // Two ways to the same token, with ranks of their own.
    let vocabulary = Vocabulary::new(&[("x", "y"), ("xy", "z"), ("y", "z"), ("x", "yz")], &[("<s>", 3)]);
    vocabulary.with(|tokenizer| {
        assert_eq!(encode(&tokenizer.unwrap(), "xyz"), [vocabulary.id("xyz")]);
    });
}

#[test]
fn text_becomes_a_control_token_only_where_it_is_asked_for() {
    let special = [("<|im|>", 3), ("<|im|>>", 3), ("<tool>", 4), ("数", 4), ("<s>", 3)];
    let vocabulary = Vocabulary::new(&[("a", "b")], &special);
    let id = |piece| vocabulary.id(piece);
    vocabulary.with(|tokenizer| {
        let tokenizer = tokenizer.unwrap();
        let text = "ab<|im|>>x<|im|><tool>数";
        let spelled = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
        let plain = [vec![id("ab")], spelled("<|im|>>x<|im|>"), vec![id("<tool>"), id("数")]].concat();
        assert_eq!(encode(&tokenizer, text), plain);
        assert_eq!(decode(&tokenizer, &plain), text.as_bytes());
        let marked = [id("ab"), id("<|im|>>"), id("x"), id("<|im|>"), id("<tool>"), id("数")];
        let tokens = encode_special(&tokenizer, text);
        assert_eq!(tokens, marked);
        // Control tokens have no text.
        assert_eq!(decode(&tokenizer, &tokens), "abx<tool>数".as_bytes());
    });
}

#[test]
fn bytes_without_a_token_are_left_out() {
    let mut vocabulary = Vocabulary::new(&[("a", "b")], &[("<s>", 3)]);
    vocabulary.pieces[1] = "\u{1}gone".to_owned();
    vocabulary.with(|tokenizer| {
        let tokenizer = tokenizer.unwrap();
        assert_eq!(encode(&tokenizer, "ab\u{1}b"), [256, u32::from(b'b')]);
        // What is no spelling of bytes stands for itself, and no text becomes it.
        assert_eq!(decode(&tokenizer, &[1]), b"\x01gone");
    });
    let mut none = vocabulary.clone();
    none.merges.clear();
    none.pieces.iter_mut().for_each(|piece| piece.push(' '));
    none.with(|error| assert_eq!(error.unwrap_err(), TokenizerError::ByteToken { byte: 0 }));
}

#[test]
fn damaged_merges_are_refused() {
    let good = Vocabulary::new(&[("a", "b"), ("ab", "c")], &[("<s>", 3)]);
    for (left, right) in [("a", "c"), ("", "ab"), ("ab", ""), ("a b", ""), ("a", "b c"), ("ab", "é")] {
        let mut bad = good.clone();
        bad.merges[1] = (left.to_owned(), right.to_owned());
        bad.with(|error| {
            assert_eq!(error.unwrap_err(), TokenizerError::Merge { merge: 1 }, "{left} {right}")
        });
    }
    let long = "a".repeat(5000);
    let mut bad = good.clone();
    bad.merges[1] = (long.clone(), "b".to_owned());
    bad.pieces.extend([long.clone(), long + "b"]);
    bad.types.extend([1, 1]);
    bad.with(|error| assert_eq!(error.unwrap_err(), TokenizerError::Merge { merge: 1 }));
    assert!(TokenizerError::Merge { merge: 1 }.to_string().contains("4096"));
}

#[test]
fn long_words_are_not_quadratic() {
    let merges = [("a", "a"), ("aa", "aa"), ("a", "b"), ("b", "a"), ("ab", "ab"), (" ", " "), ("  ", "  ")];
    let vocabulary = Vocabulary::new(&merges, &[("<s>", 3)]);
    vocabulary.with(|tokenizer| {
        let tokenizer = tokenizer.unwrap();
        for unit in ["a", "ab", "aab", " ", "\n", "!"] {
            let text = unit.repeat((1 << 19) / unit.len());
            assert_eq!(decode(&tokenizer, &encode(&tokenizer, &text)), text.as_bytes());
        }
        let error = tokenizer.encode(&"a".repeat(99), &mut [Work::EMPTY; 98], &mut [0; 99]).unwrap_err();
        assert_eq!(error, TokenizerError::ScratchMemory { found: 98, needed: 99 });
    });
}

const RULES: [PreTokenizer; 5] = [
    PreTokenizer::Gpt2,
    PreTokenizer::LlamaBpe,
    PreTokenizer::SmolLm,
    PreTokenizer::Qwen2,
    PreTokenizer::Default,
];

/// Merges of pieces that were made before.
fn vocabularies() -> impl Strategy<Value = Vocabulary> {
    let picks = prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..60);
    (picks, prop::sample::select(&RULES[..])).prop_map(|(picks, pre)| {
        let mut pieces: Vec<String> = "abc \n1é".bytes().map(|byte| letter(byte).to_string()).collect();
        let mut merges = Vec::new();
        for (left, right) in picks {
            let pair = (left.get(&pieces).clone(), right.get(&pieces).clone());
            if pair.0.len() + pair.1.len() < 40 && !merges.contains(&pair) {
                pieces.push(format!("{}{}", pair.0, pair.1));
                merges.push(pair);
            }
        }
        Vocabulary { pre, ..Vocabulary::spelled(merges, &[("<s>", 3)]) }
    })
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[abc]{0,100}", "[abc \n1é'.]{0,60}", any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn words_are_merged_as_the_naive_way_does(vocabulary in vocabularies(), word in "[abcé]{1,100}") {
        let expected = vocabulary.naive(&word);
        vocabulary.with(|tokenizer| {
            let tokens = encode(&tokenizer.unwrap(), &word);
            let whole = vocabulary.pre.ignores_merges() && tokens.len() == 1;
            assert!(tokens == expected || whole, "{tokens:?} {expected:?}");
        });
    }

    #[test]
    fn every_text_comes_back(vocabulary in vocabularies(), text in texts()) {
        vocabulary.with(|tokenizer| {
            let tokenizer = tokenizer.unwrap();
            let tokens = encode(&tokenizer, &text);
            assert_eq!(decode(&tokenizer, &tokens), text.as_bytes());
            assert_eq!(encode_special(&tokenizer, &text), tokens);
        });
    }

    #[test]
    fn damage_is_never_a_panic(
        vocabulary in vocabularies(),
        text in texts(),
        kinds in prop::collection::vec((any::<prop::sample::Index>(), 0..7_i32, "[ abĠ<é]{0,3}"), 0..9),
        merge in prop::option::of((any::<prop::sample::Index>(), "[ abĠé]{0,2}")),
    ) {
        let mut vocabulary = vocabulary;
        for (token, kind, piece) in kinds {
            let token = token.index(vocabulary.pieces.len());
            vocabulary.types[token] = kind;
            vocabulary.pieces[token] = piece;
        }
        if let Some((at, part)) = merge.filter(|_| !vocabulary.merges.is_empty()) {
            let at = at.index(vocabulary.merges.len());
            vocabulary.merges[at].1 = part;
        }
        vocabulary.with(|tokenizer| {
            let Ok(tokenizer) = tokenizer else { return };
            for tokens in [encode(&tokenizer, &text), encode_special(&tokenizer, &text)] {
                assert!(tokens.iter().all(|&token| (token as usize) < tokenizer.vocab_size()));
                decode(&tokenizer, &tokens);
            }
            (0..300).for_each(|token| drop(decode(&tokenizer, &[token])));
        });
    }
}
