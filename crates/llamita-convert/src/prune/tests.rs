use std::io::Cursor;

use llamita::format::llama2c;
use llamita_kernels::quantized::Quant;
use proptest::prelude::*;

use super::*;
use crate::source::Checkpoint;
use crate::{Conversion, GgufFile, Group, Plan, Precision, Rounding};

const TEXTS: [&str; 3] = ["a cab and a bad cab", "dad and a cab", "bad  bad dab"];

/// Special tokens, bytes if they are wanted, and pieces, of which the first merge first.
fn vocabulary(bytes: bool) -> Vocabulary {
    let characters = ["▁", "a", "b", "c", "d", "é"];
    let merged =
        ["▁a", "an", "▁b", "ab", "▁c", "▁an", "▁and", "▁bad", "ad", "▁ba", "▁cab", "cab", "▁d", "xyz", "dab"];
    let special =
        [("<unk>", token_type::UNKNOWN), ("<s>", token_type::CONTROL), ("</s>", token_type::CONTROL)];
    let byte = |byte: u8| (format!("<0x{byte:02X}>"), token_type::BYTE);
    let mut tokens: Vec<(String, i32)> = special.map(|(name, kind)| (name.to_owned(), kind)).into();
    tokens.extend((0..=255).filter(|_| bytes).map(byte));
    let first = tokens.len();
    tokens.extend(
        characters.iter().chain(&["n"]).chain(&merged).map(|&piece| (piece.to_owned(), token_type::NORMAL)),
    );
    let scores = (0..tokens.len()).map(|id| if id < first { 0.0 } else { first as f32 - id as f32 });
    Vocabulary {
        model: VocabularyModel::Llama,
        pre: None,
        scores: scores.collect(),
        types: tokens.iter().map(|token| token.1).collect(),
        tokens: tokens.into_iter().map(|token| token.0.into_bytes()).collect(),
        merges: Vec::new(),
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        padding: None,
        add_space_prefix: true,
        add_bos: true,
        chat_template: Some("{{ bos_token }}".to_owned()),
    }
}

/// Every byte, pieces, and marks at the end; a space is 'Ġ'.
fn byte_level(pre: &str) -> Vocabulary {
    let plain = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = (256..).map(|code| char::from_u32(code).unwrap());
    let spell = |byte| if plain(byte) { char::from(byte) } else { others.next().unwrap() };
    let mut tokens: Vec<_> = (0..=255).map(spell).map(String::from).collect();
    let merges = [
        "Ġ a", "a n", "Ġ b", "a b", "Ġ c", "Ġa n", "Ġan d", "a d", "Ġb ad", "Ġc ab", "c ab", "x y", "xy z",
        "Ã ©",
    ];
    tokens.extend(merges.map(|merge| merge.replace(' ', "")));
    tokens.push("dab".to_owned());
    let text = tokens.len();
    tokens.extend(["<|end|>", "<|user|>"].map(str::to_owned));
    let mut types = vec![token_type::NORMAL; text];
    types.extend([token_type::CONTROL, token_type::USER_DEFINED]);
    Vocabulary {
        model: VocabularyModel::Gpt2,
        pre: Some(pre.to_owned()),
        scores: vec![0.0; tokens.len()],
        types,
        tokens: tokens.into_iter().map(String::into_bytes).collect(),
        merges: merges.map(str::to_owned).into(),
        bos: None,
        eos: Some(text as u32),
        unknown: None,
        padding: None,
        add_space_prefix: false,
        add_bos: false,
        chat_template: None,
    }
}

#[test]
fn byte_level_vocabularies_are_pruned_with_their_merges() {
    // With the latter rule a word that is a token is found although no merge leads to it.
    for (pre, found_whole) in [("gpt-2", false), ("llama-bpe", true)] {
        let whole = byte_level(pre);
        let texts = ["a cab and a bad cab", "dad and a cab", "dab and dab"];
        let before = Usage::of(&whole, &texts).unwrap();
        assert_eq!(before.counts[whole.tokens.len() - 3] > 0, found_whole, "{pre}");
        for keep in 258..=whole.tokens.len() {
            let selection = Selection::choose(&whole, &texts, keep).unwrap();
            let pruned = selection.vocabulary(&whole);
            assert_eq!((pruned.tokens.len(), pruned.bos), (keep, None));
            assert_eq!(pruned.tokens[pruned.eos.unwrap() as usize], b"<|end|>");
            for merge in &pruned.merges {
                let joined = merge.replace(' ', "").into_bytes();
                assert!(pruned.tokens.contains(&joined), "{merge} of {keep}");
            }
            for (text, tokens) in texts.iter().map(|text| (text, encode(&pruned, text))) {
                assert_eq!(decode(&pruned, &tokens), text.as_bytes(), "{keep}");
            }
            for (place, &id) in (0..).zip(selection.ids()).filter(|&(_, &id)| id < whole.eos.unwrap()) {
                let text = String::from_utf8(decode(&whole, &[id]));
                let Ok(text) = text else { continue };
                if encode(&whole, &text) == [id] {
                    assert_eq!(encode(&pruned, &text), [place], "{text:?} of {keep}");
                }
            }
        }
        let all = Selection::choose(&whole, &texts, whole.tokens.len()).unwrap();
        assert_eq!(all.vocabulary(&whole), whole);
        assert!(Selection::choose(&whole, &texts, 257).is_err());
    }
    let error = Usage::of(&byte_level("x\u{1b}"), &["a"]).unwrap_err().to_string();
    assert!(error.contains("rule for words is \"x\\u{1b}\"") && error.contains("llama-bpe"), "{error}");
}

fn names(vocabulary: &Vocabulary) -> Vec<&str> {
    let text = (0..).zip(&vocabulary.tokens).filter(|&(id, _)| is_text(vocabulary, id));
    text.map(|(_, token)| str::from_utf8(token).unwrap()).collect()
}

fn encode(vocabulary: &Vocabulary, text: &str) -> Vec<u32> {
    let mut encoder = Encoder::new(vocabulary).unwrap();
    Scratch::default().encode(&encoder.tokenizer().unwrap(), text).unwrap().to_vec()
}

fn decode(vocabulary: &Vocabulary, tokens: &[u32]) -> Vec<u8> {
    let mut encoder = Encoder::new(vocabulary).unwrap();
    let tokenizer = encoder.tokenizer().unwrap();
    let mut previous = tokenizer.bos();
    let mut text = Vec::new();
    for &token in tokens {
        text.extend(tokenizer.decode(previous, token).flatten());
        previous = token;
    }
    text
}

#[test]
fn of_a_token_the_parts_are_those_merged_last() {
    let whole = vocabulary(true);
    let merges = Merges::new(&whole);
    let parts = |piece: &str| {
        let parts = merges.parts(piece.as_bytes());
        let names: Vec<_> =
            parts.tokens.iter().map(|&id| str::from_utf8(&whole.tokens[id as usize]).unwrap()).collect();
        (names, parts.count)
    };
    assert_eq!(parts("▁and"), (vec!["▁an", "d"], 2));
    // "ab" comes before "▁c", and after it "▁c" has no use.
    assert_eq!(parts("▁cab"), (vec!["▁c", "ab"], 2));
    assert_eq!(parts("▁a"), (vec!["▁", "a"], 2));
    assert_eq!(parts("a"), (vec!["a"], 1));
    assert_eq!(parts("▁bad"), (vec!["▁b", "ad"], 2));
    // Characters without a token take as many as they have bytes.
    assert_eq!(parts("xyz"), (vec![], 3));
}

#[test]
fn byte_level_parts_follow_the_ranks() {
    let mut whole = vocabulary(false);
    whole.model = VocabularyModel::Gpt2;
    whole.merges = ["a b", "c a", "c ab", "a n", "▁ an"].map(str::to_owned).into();
    let merges = Merges::new(&whole);
    let id = |piece: &str| whole.tokens.iter().position(|token| token == piece.as_bytes()).unwrap() as u32;
    assert_eq!(merges.parts("cab".as_bytes()).tokens, [id("c"), id("ab")]);
    assert_eq!(merges.parts("▁an".as_bytes()).tokens, [id("▁"), id("an")]);
    // No merge leads to it.
    assert_eq!(merges.parts("dab".as_bytes()).tokens, [id("d"), id("ab")]);
    assert_eq!(merges.parts("ad".as_bytes()).tokens, [id("a"), id("d")]);

    // A merge stays where both parts and what they make stay.
    let ids = ["▁", "a", "ab", "an", "b", "c", "n", "▁an"].map(id).into_iter().chain([0, 1, 2]);
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    assert_eq!(Selection { ids }.vocabulary(&whole).merges, ["a b", "a n", "▁ an"]);
}

#[test]
fn what_texts_need_stays() {
    let whole = vocabulary(true);
    let all = whole.tokens.len();
    let required = 3 + 256 + ["▁", "a", "b", "c", "d", "n"].len();
    let least = Selection::choose(&whole, &TEXTS, required).unwrap();
    assert_eq!(names(&least.vocabulary(&whole)), ["▁", "a", "b", "c", "d", "n"]);
    let error = Selection::choose(&whole, &TEXTS, required - 1).unwrap_err().to_string();
    assert!(error.contains("264 tokens are to be kept, expected 265 or more"), "{error}");
    let error = Selection::choose(&whole, &TEXTS, all + 1).unwrap_err().to_string();
    assert!(error.contains(&format!("the vocabulary has {all}")), "{error}");
    // The first to go is what no text becomes: of " dab" the space and the first letter merge before "dab" does.
    let one = Selection::choose(&whole, &TEXTS, all - 2).unwrap().vocabulary(&whole);
    let gone: Vec<_> = names(&whole).into_iter().filter(|name| !names(&one).contains(name)).collect();
    assert_eq!(gone, ["xyz", "dab"]);
    // Without bytes nothing else stands for a character.
    let whole = vocabulary(false);
    let least = Selection::choose(&whole, &TEXTS, 3 + 7).unwrap().vocabulary(&whole);
    assert_eq!(names(&least), ["▁", "a", "b", "c", "d", "é", "n"]);
    assert!(Selection::choose(&whole, &TEXTS, 3 + 6).is_err());
}

#[test]
fn fewer_tokens_make_texts_longer_and_never_miss_a_merge() {
    let whole = vocabulary(true);
    let before = Usage::of(&whole, &TEXTS).unwrap();
    assert_eq!(before.characters, TEXTS.concat().len() as u64);
    let mut longer = u64::MAX;
    for keep in 265..=whole.tokens.len() {
        let selection = Selection::choose(&whole, &TEXTS, keep).unwrap();
        assert_eq!(selection.ids().len(), keep);
        assert!(selection.ids().is_sorted_by(|a, b| a < b));
        let pruned = selection.vocabulary(&whole);
        let after = Usage::of(&pruned, &TEXTS).unwrap();
        assert!(after.tokens <= longer, "{keep}");
        longer = after.tokens;
        let coverage = before.coverage(&selection);
        assert!(
            (0.0..=1.0).contains(&coverage) && (coverage == 1.0) == (after.tokens == before.tokens),
            "{keep}"
        );
        // Every piece that is left is found by merging.
        let whole_alone = Vocabulary { add_space_prefix: false, ..whole.clone() };
        let alone = Vocabulary { add_space_prefix: false, ..pruned };
        for (place, &id) in (0..).zip(selection.ids()).filter(|&(_, &id)| is_text(&whole, id)) {
            let text = str::from_utf8(&whole.tokens[id as usize]).unwrap().replace('▁', " ");
            if encode(&whole_alone, &text) == [id] {
                assert_eq!(encode(&alone, &text), [place], "{text:?} of {keep}");
            }
        }
    }
    assert_eq!(longer, before.tokens);
}

#[test]
fn a_token_whose_merges_are_gone_is_noticed() {
    let whole = vocabulary(true);
    let ids = (0..whole.tokens.len() as u32).filter(|&id| whole.tokens[id as usize] != "▁an".as_bytes());
    let error = Selection { ids: ids.collect() }.check(&whole).unwrap_err().to_string();
    assert!(error.contains("\" and\", is not reached any more"), "{error}");
}

#[test]
fn all_tokens_make_the_same_vocabulary() {
    let whole = vocabulary(true);
    let all = Selection::choose(&whole, &TEXTS, whole.tokens.len()).unwrap();
    assert_eq!(all.vocabulary(&whole), whole);
    assert!(all.ids().iter().copied().eq(0..whole.tokens.len() as u32));
}

#[test]
fn unused_tokens_go_first() {
    let mut whole = vocabulary(true);
    let size = whole.tokens.len();
    whole.tokens.extend([b"[PAD281]".to_vec(), b"[PAD282]".to_vec()]);
    whole.types.extend([token_type::UNUSED; 2]);
    whole.scores.extend([0.0; 2]);
    let selection = Selection::choose(&whole, &TEXTS, size).unwrap();
    assert!(selection.ids().iter().copied().eq(0..size as u32));
}

#[test]
fn special_tokens_get_new_numbers() {
    let mut whole = vocabulary(true);
    // Special tokens at the end, as later additions have them.
    whole.tokens.extend([b"<pad>".to_vec(), b"<|end|>".to_vec()]);
    whole.types.extend([token_type::CONTROL, token_type::USER_DEFINED]);
    whole.scores.extend([0.0, 0.0]);
    let size = whole.tokens.len() as u32;
    (whole.padding, whole.eos) = (Some(size - 2), Some(size - 1));
    let pruned = Selection::choose(&whole, &TEXTS, 270).unwrap().vocabulary(&whole);
    assert_eq!((pruned.bos, pruned.unknown), (Some(1), Some(0)));
    assert_eq!((pruned.padding, pruned.eos), (Some(268), Some(269)));
    assert_eq!(pruned.tokens[269], b"<|end|>");
    assert_eq!(pruned.chat_template, whole.chat_template);
}

proptest! {
    #[test]
    fn any_text_still_encodes_in_bytes(text in "[abcdnxyzé \n数]{0,12}|\\PC{0,12}", keep in 258_usize..=273, pre in 0_usize..2) {
        let whole = byte_level(["gpt-2", "llama-bpe"][pre]);
        let pruned = Selection::choose(&whole, &TEXTS, keep).unwrap().vocabulary(&whole);
        let tokens = encode(&pruned, &text);
        prop_assert!(tokens.iter().all(|&token| (token as usize) < keep));
        prop_assert_eq!(decode(&pruned, &tokens), text.as_bytes());
    }

    #[test]
    fn any_text_still_encodes(text in "[abcdnxé▁ \n数]{0,12}|\\PC{0,12}", keep in 265_usize..=281, bytes: bool) {
        let whole = vocabulary(bytes);
        let keep = if bytes { keep } else { (keep - 256).max(10) };
        let pruned = Selection::choose(&whole, &TEXTS, keep).unwrap().vocabulary(&whole);
        let tokens = encode(&pruned, &text);
        prop_assert!(tokens.iter().all(|&token| (token as usize) < keep));
        if decode(&whole, &encode(&whole, &text)) == text.as_bytes() {
            prop_assert_eq!(decode(&pruned, &tokens), text.as_bytes());
        }
    }
}

/// A model with numbers that tell where they are from.
fn model(shared_classifier: bool) -> (Vec<u8>, Config) {
    let config = Config {
        dim: 16,
        hidden_dim: 24,
        n_layers: 1,
        n_heads: 4,
        n_kv_heads: 2,
        head_size: 4,
        vocab_size: vocabulary(true).tokens.len(),
        seq_len: 32,
        norm_eps: 1e-5,
        rope_theta: 10000.0,
        shared_classifier,
    };
    let mut bytes = llama2c::header(&config).unwrap().to_vec();
    let len = (llama2c::file_len(&config) as usize - bytes.len()) / 4;
    bytes.extend((0..len).flat_map(|i| (((i * 37) % 1009) as f32 / 256.0 - 2.0).to_le_bytes()));
    (bytes, config)
}

fn source(bytes: &[u8]) -> Box<dyn Source> {
    let mut source = Checkpoint::new(bytes, Cursor::new(bytes.to_vec())).unwrap();
    source.set_vocabulary(vocabulary(true));
    Box::new(source)
}

/// All rows of a tensor.
fn read(source: &mut dyn Source, tensor: Tensor) -> Vec<f32> {
    let (rows, columns) = llamita::Tape::shape(source.config(), tensor);
    let mut numbers = vec![0.0; rows * columns];
    source.read(tensor, 0, &mut numbers).unwrap();
    numbers
}

#[test]
fn rows_of_tokens_are_picked_and_all_others_kept() {
    for shared in [true, false] {
        let (bytes, config) = model(shared);
        let mut whole = source(&bytes);
        let selection = Selection::choose(&vocabulary(true), &TEXTS, 270).unwrap();
        let mut pruned = Pruned::new(source(&bytes), selection.clone()).unwrap();
        assert_eq!(*pruned.config(), Config { vocab_size: 270, ..config });
        assert_eq!(pruned.vocabulary().unwrap().tokens.len(), 270);
        for tensor in llamita::Tape::tensors(&config) {
            let (all, left) = (read(whole.as_mut(), tensor), read(&mut pruned, tensor));
            if has_tokens(tensor) {
                let rows = selection.ids().iter().flat_map(|&id| &all[id as usize * 16..][..16]);
                assert!(rows.eq(&left), "{tensor:?}");
                // From the middle, too.
                let mut some = vec![0.0; 5 * 16];
                pruned.read(tensor, 262, &mut some).unwrap();
                assert_eq!(some, left[262 * 16..267 * 16]);
            } else {
                assert_eq!(all, left, "{tensor:?}");
            }
        }
    }
}

#[test]
fn integers_are_picked_as_they_are() {
    let (bytes, config) = model(false);
    let mut whole = source(&bytes);
    let q8 = Precision::Quantized(Quant::Q8);
    let plan = Plan::native(&config, q8, q8, Group::Row).unwrap();
    let file = GgufFile::device(whole.as_ref(), &plan);
    let mut quantized = vec![0; file.len() as usize];
    let mut conversion =
        Conversion { source: whole.as_mut(), quantizer: &mut Rounding, progress: &mut |_| () };
    file.write(&mut conversion, &mut Cursor::new(&mut quantized[..])).unwrap();

    let mut whole = source(&quantized);
    let selection = Selection::choose(&vocabulary(true), &TEXTS, 270).unwrap();
    let mut pruned = Pruned::new(source(&quantized), selection.clone()).unwrap();
    let tensor = Tensor::Matrix(Matrix::Classifier);
    let size = config.vocab_size;
    let (mut values, mut scales) = (vec![0; size * 16], vec![0; size]);
    whole.read_integers(tensor, 0, &mut values, &mut scales).unwrap();
    let (mut some, mut some_scales) = (vec![0; 9 * 16], vec![0; 9]);
    pruned.read_integers(tensor, 261, &mut some, &mut some_scales).unwrap();
    for (row, &id) in selection.ids()[261..].iter().enumerate() {
        assert_eq!(some[row * 16..][..16], values[id as usize * 16..][..16]);
        assert_eq!(some_scales[row], scales[id as usize]);
    }
    assert!(some.iter().any(|&value| value != 0));
}

#[test]
fn a_model_without_tokens_cannot_be_pruned() {
    let (bytes, _) = model(true);
    let source = Checkpoint::new(&bytes, Cursor::new(bytes.clone())).unwrap();
    let error = Pruned::new(Box::new(source), Selection { ids: vec![0, 1, 2] }).err().unwrap().to_string();
    assert!(error.contains("without a vocabulary") && error.contains("--tokenizer"), "{error}");
}
