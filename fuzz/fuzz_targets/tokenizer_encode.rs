//! Any text, with a vocabulary of any pieces: it must come back as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llamita::Tokenizer;
use llamita_fuzz::encode;

/// The vocabulary that every Llama has, in the format of tokenizer.bin.
fn common() -> Vec<u8> {
    let mut file = 16_i32.to_le_bytes().to_vec();
    ["<unk>", "\n<s>\n", "\n</s>\n"].iter().for_each(|piece| add(&mut file, piece.as_bytes(), 0.0));
    (0..=255).for_each(|byte| add(&mut file, format!("<0x{byte:02X}>").as_bytes(), 0.0));
    (32..127).for_each(|byte| add(&mut file, &[byte], -1e9));
    file
}

fn add(file: &mut Vec<u8>, piece: &[u8], score: f32) {
    file.extend(score.to_le_bytes());
    file.extend((piece.len() as i32).to_le_bytes());
    file.extend(piece);
}

// The input is a number of pieces, each with a byte for its length and one for its score, then a text.
fuzz_target!(|data: &[u8]| {
    let mut file = common();
    let (&count, mut rest) = data.split_first().unwrap_or((&0, data));
    for _ in 0..count {
        let [len, score, more @ ..] = rest else { break };
        let Some((piece, after)) = more.split_at_checked(usize::from(*len % 16)) else { break };
        // A piece that reads like a byte token would be one.
        if std::str::from_utf8(piece).is_ok_and(|piece| !piece.is_empty() && !piece.starts_with("<0x")) {
            add(&mut file, piece, -f32::from(*score));
        }
        rest = after;
    }
    let vocab_size = Tokenizer::count_bin(&file).unwrap();
    let mut index = vec![0; Tokenizer::index_len(vocab_size)];
    let tokenizer = Tokenizer::from_bin(&file, vocab_size, &mut index).unwrap();

    let text = String::from_utf8_lossy(rest);
    let tokens = encode(&tokenizer, &text).unwrap();
    assert_eq!(tokens[0], tokenizer.bos());
    let decoded: Vec<u8> =
        tokens.windows(2).flat_map(|pair| tokenizer.decode(pair[0], pair[1])).flatten().copied().collect();
    assert_eq!(String::from_utf8_lossy(&decoded), text);
});
