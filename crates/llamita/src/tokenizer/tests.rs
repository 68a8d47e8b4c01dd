use super::*;

/// A vocabulary of <unk>, BOS, EOS, all bytes and these pieces, as a tokenizer.bin.
fn bin(pieces: &[(&str, f32)]) -> Vec<u8> {
    let mut bytes = 27_i32.to_le_bytes().to_vec();
    let mut add = |piece: &str, score: f32| {
        bytes.extend(score.to_le_bytes());
        bytes.extend((piece.len() as i32).to_le_bytes());
        bytes.extend(piece.bytes());
    };
    ["<unk>", "\n<s>\n", "\n</s>\n"].iter().for_each(|piece| add(piece, 0.0));
    (0..=255).for_each(|byte| add(&format!("<0x{byte:02X}>"), 0.0));
    pieces.iter().for_each(|&(piece, score)| add(piece, score));
    bytes
}

fn encode(tokenizer: &Tokenizer<'_>, text: &str) -> Vec<u32> {
    let mut scratch = vec![Work::EMPTY; Tokenizer::scratch_len(text.len())];
    let mut tokens = vec![0; Tokenizer::max_tokens(text.len())];
    let count = tokenizer.encode(text, &mut scratch, &mut tokens).unwrap();
    tokens.truncate(count);
    tokens
}

fn decode(tokenizer: &Tokenizer<'_>, tokens: &[u32]) -> Vec<u8> {
    tokens.windows(2).flat_map(|pair| tokenizer.decode(pair[0], pair[1])).flatten().copied().collect()
}

/// Encodes with a vocabulary of these pieces; the first of them is token 259.
fn check(pieces: &[(&str, f32)], text: &str, expected: &[u32]) {
    let bytes = bin(pieces);
    let count = Tokenizer::count_bin(&bytes).unwrap();
    let mut index = vec![0; Tokenizer::index_len(count)];
    let tokenizer = Tokenizer::from_bin(&bytes, count, &mut index).unwrap();
    let tokens = encode(&tokenizer, text);
    assert_eq!(tokens, expected, "{text:?}");
    assert_eq!(decode(&tokenizer, &tokens), text.as_bytes());
}

#[test]
fn the_highest_score_is_merged_first() {
    let pieces = [(" ", -9.0), ("a", -9.0), ("b", -9.0), ("ab", -2.0), ("ba", -1.0), (" a", -3.0)];
    check(&pieces, "", &[1]);
    check(&pieces, "a", &[1, 264]);
    check(&pieces, "ab", &[1, 259, 262]);
    check(&pieces, "aba", &[1, 264, 263]);
}

#[test]
fn of_equal_scores_the_leftmost_is_merged_first() {
    let pieces = [(" ", 0.0), ("a", 0.0), ("aa", -0.0), ("aaa", 0.0), ("aaaa", 5.0)];
    check(&pieces, "aaa", &[1, 259, 262]);
    let pieces = [(" ", 0.0), ("a", 0.0), ("b", 0.0), ("ab", 1.0), ("ba", 1.0)];
    check(&pieces, "aba", &[1, 259, 262, 260]);
    check(&pieces, "bab", &[1, 259, 263, 261]);
}

#[test]
fn merges_are_the_same_in_short_and_long_words() {
    let pieces = [(" ", 0.0), ("a", 0.0), ("aa", -1.0), (" a", -1.0)];
    for len in 1..100_u32 {
        // The space takes the first letter, the others pair up.
        let mut expected = vec![1, 262];
        expected.extend((1..len).step_by(2).map(|at| if at + 1 < len { 261 } else { 260 }));
        check(&pieces, &"a".repeat(len as usize), &expected);
    }
}

#[test]
fn characters_that_are_no_pieces_become_bytes() {
    check(&[(" ", 0.0), ("é", 0.0)], "é\n数", &[1, 259, 260, 3 + 10, 3 + 0xE6, 3 + 0x95, 3 + 0xB0]);
    // Without a piece for it, the space before the text is a byte too.
    check(&[("b", 0.0)], "b", &[1, 3 + 0x20, 259]);
}

#[test]
fn text_never_becomes_a_special_token() {
    let letters: Vec<_> =
        ["<", "0", "x", "4", "1", ">", "s", "<0", "<0x", "<0x4", "<0x41"].map(|piece| (piece, 0.0)).into();
    check(&letters, "<0x41>", &[1, 35, 269, 264]);
    check(&letters, "<s>", &[1, 35, 259, 265, 264]);
}

#[test]
fn a_piece_may_have_a_space_within() {
    let pieces = [(" ", 0.0), ("a", 0.0), ("b", 0.0), ("a ", -2.0), ("a b", -1.0), ("  ", -3.0)];
    check(&pieces, "a b", &[1, 259, 263]);
    check(&pieces, "   b", &[1, 264, 264, 261]);
}

#[test]
fn the_unknown_token_of_a_bin_is_its_piece_as_in_llama2c() {
    let bytes = bin(&[(" ", 0.0), ("a", 0.0)]);
    let count = Tokenizer::count_bin(&bytes).unwrap();
    let mut index = vec![0; Tokenizer::index_len(count)];
    let tokenizer = Tokenizer::from_bin(&bytes, count, &mut index).unwrap();
    assert_eq!(decode(&tokenizer, &[1, 260, 0, 259, 0]), b"a<unk> <unk>");
    assert_eq!(decode(&tokenizer, &[1, 0]), b"<unk>");
    // The marks of begin and end have pieces too, but a text ends before either is printed.
    assert_eq!(decode(&tokenizer, &[260, 1, 2]), b"");
    assert_eq!(tokenizer.piece(2), b"\n</s>\n");
}

#[test]
fn without_byte_tokens_a_run_of_strangers_is_one_unknown_token() {
    let types = [2, 3, 3, 1, 1, 1, 5].map(i32::to_le_bytes).concat();
    let pieces = ["<unk>", "<s>", "</s>", "▁", "a", "▁a", "aa"];
    let tokens: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| (piece.len() as u64).to_le_bytes().into_iter().chain(piece.bytes()))
        .collect();
    let mut vocabulary = GgufVocabulary {
        count: pieces.len(),
        tokens: &tokens,
        scores: &[0; 28],
        types: Some(&types),
        bos: 1,
        eos: 2,
        unknown: Some(0),
        add_space_prefix: false,
        add_bos: true,
        byte_level: None,
    };
    let mut index = vec![0; vocabulary.index_len()];
    let tokenizer = Tokenizer::from_gguf(&vocabulary, &mut index).unwrap();
    let tokens = encode(&tokenizer, "aa a数\n▁");
    assert_eq!(tokens, [1, 4, 4, 5, 0]);
    assert_eq!(decode(&tokenizer, &tokens), "aa a \u{2047} ".as_bytes());
    assert_eq!(tokenizer.piece(5), "▁a".as_bytes());
    // Without a space before the text there is none to drop.
    assert_eq!(decode(&tokenizer, &[1, 5, 5, 1, 7, u32::MAX]), b" a a");
    vocabulary.unknown = None;
    let error = Tokenizer::from_gguf(&vocabulary, &mut index).unwrap_err();
    assert_eq!(error, TokenizerError::ByteToken { byte: 0 });
}
