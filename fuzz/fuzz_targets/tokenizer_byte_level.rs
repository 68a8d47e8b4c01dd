//! Any text, with a byte-level vocabulary of any merges: it must come back as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llamita::Tokenizer;
use llamita::tokenizer::{ByteLevel, GgufVocabulary, PreTokenizer};
use llamita_fuzz::{encode, use_tokenizer};

const RULES: [PreTokenizer; 5] = [
    PreTokenizer::Gpt2,
    PreTokenizer::LlamaBpe,
    PreTokenizer::SmolLm,
    PreTokenizer::Qwen2,
    PreTokenizer::Default,
];

/// The letter of a byte in GPT-2's alphabet.
fn letter(byte: u8) -> char {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let other = (0..byte).filter(|byte| !printable(byte)).count() as u32;
    if printable(&byte) { char::from(byte) } else { char::from_u32(256 + other).unwrap() }
}

fn add(array: &mut Vec<u8>, string: &str) {
    array.extend((string.len() as u64).to_le_bytes());
    array.extend(string.bytes());
}

// The input is a rule, a number of merges, each of two pieces that are there, then a text.
fuzz_target!(|data: &[u8]| {
    let [rule, count, rest @ ..] = data else { return };
    let Some((picks, rest)) = rest.split_at_checked(4 * usize::from(*count)) else { return };
    let mut pieces: Vec<String> = (0..=255).map(|byte| letter(byte).to_string()).collect();
    let (mut tokens, mut merges, mut merge_count) = (Vec::new(), Vec::new(), 0);
    for &[a, b, c, d] in picks.as_chunks::<4>().0 {
        let pick = |low, high| &pieces[usize::from(u16::from_le_bytes([low, high])) % pieces.len()];
        let (left, right) = (pick(a, b), pick(c, d));
        if left.len() + right.len() < 100 {
            add(&mut merges, &format!("{left} {right}"));
            pieces.push(format!("{left}{right}"));
            merge_count += 1;
        }
    }
    pieces.push("<|end|>".to_owned());
    pieces.iter().for_each(|piece| add(&mut tokens, piece));
    let end = pieces.len() as u32 - 1;
    let types: Vec<u8> =
        (0..=end).flat_map(|token| if token == end { 3_i32 } else { 1 }.to_le_bytes()).collect();
    let vocabulary = GgufVocabulary {
        count: pieces.len(),
        tokens: &tokens,
        scores: &[],
        types: Some(&types),
        bos: end,
        eos: end,
        unknown: None,
        add_space_prefix: false,
        add_bos: true,
        byte_level: Some(ByteLevel {
            pre: RULES[usize::from(*rule) % RULES.len()],
            merges: &merges,
            merge_count,
        }),
    };
    let mut index = vec![0; vocabulary.index_len()];
    let tokenizer = Tokenizer::from_gguf(&vocabulary, &mut index).unwrap();
    let text = String::from_utf8_lossy(rest);
    let tokens = encode(&tokenizer, &text).unwrap();
    assert_eq!(tokens[0], tokenizer.bos());
    let decoded: Vec<u8> =
        tokens.windows(2).flat_map(|pair| tokenizer.decode(pair[0], pair[1])).flatten().copied().collect();
    assert_eq!(String::from_utf8_lossy(&decoded), text);
    use_tokenizer(&tokenizer, &text);
});
