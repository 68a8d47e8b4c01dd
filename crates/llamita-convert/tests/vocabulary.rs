//! Vocabularies of other programs: `tokenizer.json` against Hugging Face's own `tokenizers`, which must give the
//! same ids for the same texts, and `tokenizer.model` against `tokenizer.bin`.

#[path = "../../llamita/tests/common/data.rs"]
mod data;

use std::str::FromStr;

use llamita::tokenizer::{ByteLevel, GgufVocabulary, PreTokenizer, Tokenizer, Work};
use llamita_convert::vocabulary::{
    Vocabulary, VocabularyModel, from_llama2c_bin, from_sentencepiece, from_tokenizer_json,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel as Alphabet;
use tokenizers::{AddedToken, Tokenizer as Oracle};

const END: &str = "<|endoftext|>";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

fn split(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

fn bytes(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn sequence(steps: &[Value]) -> Value {
    json!({"type": "Sequence", "pretokenizers": steps})
}

/// The rules as the models' files have them.
fn rules() -> [(PreTokenizer, Value); 6] {
    let llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let qwen2 = llama3.replace("{1,3}", "");
    let digits = json!({"type": "Digits", "individual_digits": true});
    let old = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"].map(split);
    [
        (PreTokenizer::Gpt2, bytes(true)),
        (PreTokenizer::Gpt2, sequence(&[split(GPT2), bytes(false)])),
        (PreTokenizer::SmolLm, sequence(&[digits, bytes(true)])),
        (PreTokenizer::LlamaBpe, sequence(&[split(llama3), bytes(false)])),
        (PreTokenizer::Qwen2, sequence(&[split(&qwen2), bytes(false)])),
        (PreTokenizer::Default, sequence(&[&old[..], &[bytes(false)]].concat())),
    ]
}

/// Text to learn from, which has something of everything.
fn training() -> Vec<String> {
    let mut texts = vec![TEXTS.join("\n").repeat(3)];
    if let Some(stories) = data::read("data/tinystories/train.txt") {
        let text = String::from_utf8_lossy(&stories[..200_000]).replace(END, "\n");
        texts.extend(text.split_inclusive("\n\n").map(str::to_owned));
    }
    texts
}

/// A tokenizer that was trained for this test, as JSON.
fn trained(rule: &Value) -> Value {
    let empty = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": rule, "post_processor": null, "decoder": bytes(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": {}, "merges": []},
    });
    let mut tokenizer = Oracle::from_str(&empty.to_string()).unwrap();
    let trainer = BpeTrainer::builder()
        .vocab_size(1500)
        .show_progress(false)
        .initial_alphabet(Alphabet::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END, true)])
        .build();
    tokenizer.train(&mut TrainerWrapper::from(trainer), training().into_iter()).unwrap();
    serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap()
}

const TEXTS: [&str; 30] = [
    "",
    " ",
    "a",
    "Once upon a time, there was a little llama.",
    "I'm sure you're right: they've said it's Tom's, he'll go, we'd stay, can't we? I'M SURE, IT'S, THEY'VE",
    "'s 't 're 'S 'lL x'ſ x'ſs ''s '' ' 'x 'l 'lx 'v",
    "  two   three    four",
    "tabs\tand\t\ttabs \t mixed",
    "line\nline\n\nline\r\n\r\nline \n line\n \n x \r x\r\r",
    "   \n\n   \n  end   ",
    "\n",
    "ends with spaces    ",
    "no-break\u{a0}space\u{a0}\u{a0}x\u{2003}\u{2003}y\u{3000}z\u{85}\u{2028}q \u{a0}w",
    "1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 x1 1x  1 \n1",
    "٣٤٥ ①②③ Ⅷ ½ ²³ १२३ 1२3 12٣456 ٣123",
    "(parens) [brackets] {braces} <tags> \"quotes\" `ticks` ~tilde^ $9.99 a+b=c |x| #1 @you 100% _a_",
    "...!!! ??? ;;; --- *** ///\n/// ...\n\n x!?\r\n",
    "snake_case camelCase SCREAMING kebab-case",
    "café naïve Ünïcödé e\u{301}a\u{308}o\u{302} \u{301}x",
    "数字 中文字符，日本語のテキスト。 한국어 텍스트",
    "Привет, мир! Γειά σου Κόσμε שלום עולם مرحبا بالعالم",
    "नमस्ते दुनिया ไทย ภาษา ქართული አማርኛ",
    "🦙🦙 emoji 👩‍👩‍👧‍👦 flags 🇩🇪🇫🇷 tone 👍🏽 ❤️ ☃",
    "\u{0}\u{1}\u{7f}\u{80}\u{ad}\u{feff}\u{fffd}\u{fffe}\u{10ffff}",
    "ǅ ʰ ª º ⁿ ₤ € ← ∞ § ¶ ° ᾳ",
    "𝒜𝓑 𐐀 𠀀 𒀀 \u{e000} \u{f0000}",
    "https://example.com/path?query=1&x=y#z user@example.org",
    "fn main() {\n    println!(\"{}\", 1 + 2);\n\t}\n",
    "Donaudampfschifffahrtsgesellschaftskapitänswitwenrentenauszahlungsstelle",
    "ĠĊ▁ Ġthe Ã© âĢĻ",
];

fn encode(tokenizer: &Tokenizer<'_>, text: &str, special: bool) -> Vec<u32> {
    let mut scratch = vec![Work::EMPTY; Tokenizer::scratch_len(text.len())];
    let mut tokens = vec![0; Tokenizer::max_tokens(text.len())];
    let count = match special {
        true => tokenizer.encode_special(text, &mut scratch, &mut tokens),
        false => tokenizer.encode(text, &mut scratch, &mut tokens),
    };
    tokens.truncate(count.unwrap());
    tokens
}

fn decode(tokenizer: &Tokenizer<'_>, tokens: &[u32]) -> Vec<u8> {
    let before = std::iter::once(tokenizer.bos()).chain(tokens.iter().copied());
    before
        .zip(tokens)
        .flat_map(|(before, &token)| tokenizer.decode(before, token))
        .flatten()
        .copied()
        .collect()
}

fn strings<T: AsRef<[u8]>>(strings: &[T]) -> Vec<u8> {
    let string = |string: &T| [&(string.as_ref().len() as u64).to_le_bytes(), string.as_ref()].concat();
    strings.iter().flat_map(string).collect()
}

/// Uses a vocabulary as the engine does.
fn with<T>(vocabulary: &Vocabulary, test: impl FnOnce(Tokenizer<'_>) -> T) -> T {
    let (tokens, merges) = (strings(&vocabulary.tokens), strings(&vocabulary.merges));
    let scores: Vec<u8> = vocabulary.scores.iter().flat_map(|score| score.to_le_bytes()).collect();
    let types: Vec<u8> = vocabulary.types.iter().flat_map(|kind| kind.to_le_bytes()).collect();
    let pre = vocabulary.pre.as_deref().map(|name| PreTokenizer::from_name(name.as_bytes()).unwrap());
    let vocabulary = GgufVocabulary {
        count: vocabulary.tokens.len(),
        tokens: &tokens,
        scores: &scores,
        types: Some(&types),
        bos: vocabulary.bos.or(vocabulary.eos).unwrap(),
        eos: vocabulary.eos.unwrap(),
        unknown: vocabulary.unknown,
        add_space_prefix: vocabulary.add_space_prefix,
        add_bos: vocabulary.add_bos,
        byte_level: pre.map(|pre| ByteLevel { pre, merges: &merges, merge_count: vocabulary.merges.len() }),
    };
    let mut index = vec![0; vocabulary.index_len()];
    test(Tokenizer::from_gguf(&vocabulary, &mut index).unwrap())
}

fn read(json: &Value, config: &Value) -> Vocabulary {
    from_tokenizer_json(json.to_string().as_bytes(), Some(config.to_string().as_bytes())).unwrap()
}

/// The first stories to encode.
fn stories(count: usize) -> Vec<String> {
    let stories = data::read("data/tinystories/valid.txt").unwrap_or_default();
    String::from_utf8(stories).unwrap().split(END).take(count).map(str::to_owned).collect()
}

/// Texts of parts that the rules tell apart.
fn texts() -> impl Strategy<Value = String> {
    let parts = [
        " ", "  ", "\n", "\r\n", "\t", "\u{a0}", "'s", "'S", "'", "'ll", "the", "The", "é", "数", "🦙", "1",
        "23", "٣", ".", "!?", "$", "_", "\u{301}", "a", "b", "x'",
    ];
    prop_oneof![
        prop::collection::vec(prop::sample::select(parts.to_vec()), 0..40).prop_map(|parts| parts.concat()),
        any::<String>(),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(|b| String::from_utf8_lossy(&b).into_owned()),
    ]
}

fn check(tokenizer: &Tokenizer<'_>, oracle: &Oracle, text: &str) {
    let expected = oracle.encode(text, false).unwrap();
    let tokens = encode(tokenizer, text, false);
    assert_eq!(tokens, expected.get_ids(), "{text:?} {:?}", expected.get_tokens());
    assert_eq!(decode(tokenizer, &tokens), text.as_bytes());
}

#[test]
fn every_rule_cuts_and_merges_as_the_oracle_does() {
    let config = json!({"eos_token": END, "chat_template": "{{ messages }}"});
    for (rule, pre_tokenizer) in rules() {
        let mut json = trained(&pre_tokenizer);
        json["model"]["ignore_merges"] = rule.ignores_merges().into();
        let oracle = Oracle::from_str(&json.to_string()).unwrap();
        let vocabulary = read(&json, &config);
        assert_eq!(vocabulary.tokens.len(), oracle.get_vocab_size(true));
        assert!(vocabulary.merges.len() > 500, "{}", vocabulary.merges.len());
        assert_eq!(vocabulary.pre.as_deref(), Some(rule.name()));
        assert_eq!(vocabulary.chat_template.as_deref(), Some("{{ messages }}"));
        assert_eq!((vocabulary.bos, vocabulary.eos, vocabulary.add_bos), (None, Some(0), false));
        with(&vocabulary, |tokenizer| {
            TEXTS.iter().for_each(|text| check(&tokenizer, &oracle, text));
            stories(50).iter().for_each(|text| check(&tokenizer, &oracle, text));
            check(&tokenizer, &oracle, &TEXTS.concat());
            let config =
                ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
            let run = |text: String| {
                check(&tokenizer, &oracle, &text);
                Ok(())
            };
            TestRunner::new(config).run(&texts(), run).unwrap();
        });
    }
}

/// Merges in either spelling, special tokens in the text, and what is put before it.
#[test]
fn special_tokens_are_those_of_the_oracle() {
    let mut json = trained(&rules()[3].1);
    json["model"]["ignore_merges"] = true.into();
    let added = |id: u32, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special})
    };
    let count = json["model"]["vocab"].as_object().unwrap().len() as u32;
    let tokens = json["added_tokens"].as_array_mut().unwrap();
    let more = [("<|im|>", true), ("<|im|>>", true), ("<tool>", false), ("数字", false), ("  ", false)];
    tokens.extend((count..).zip(more).map(|(id, (content, special))| added(id, content, special)));
    json["post_processor"] = json!({"type": "Sequence", "processors": [bytes(true), {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im|>": {"id": "<|im|>", "ids": [count], "tokens": ["<|im|>"]}},
    }]});
    let oracle = Oracle::from_str(&json.to_string()).unwrap();
    let vocabulary = read(&json, &json!({"eos_token": {"content": END}}));
    assert_eq!((vocabulary.bos, vocabulary.eos, vocabulary.add_bos), (Some(count), Some(0), true));
    let mut lines = json.clone();
    for merge in lines["model"]["merges"].as_array_mut().unwrap() {
        let part = |at: usize| merge[at].as_str().unwrap();
        *merge = format!("{} {}", part(0), part(1)).into();
    }
    assert_eq!(read(&lines, &json!({"eos_token": END})), vocabulary);
    with(&vocabulary, |tokenizer| {
        let text = "<|im|>user\nHello   数字数  there<|im|>> <tool>5</tool><|endoftext|><|im|";
        let expected = oracle.encode(text, false).unwrap();
        assert_eq!(encode(&tokenizer, text, true), expected.get_ids());
        let with_bos = oracle.encode("Hello   数字数  there", true).unwrap();
        assert_eq!(encode(&tokenizer, "Hello   数字数  there", false), with_bos.get_ids());
        // Text alone becomes no mark.
        let plain = encode(&tokenizer, text, false);
        assert!(plain[1..].iter().all(|token| ![0, count, count + 1].contains(token)));
        assert_eq!(decode(&tokenizer, &plain), text.as_bytes());
    });
}

/// A change of a file.
type Edit<'e> = &'e dyn Fn(&mut Value);

#[test]
fn what_is_not_known_is_refused_by_what_was_found() {
    let good = trained(&bytes(true));
    let refused = |edit: Edit<'_>| {
        let mut json = good.clone();
        edit(&mut json);
        from_tokenizer_json(json.to_string().as_bytes(), None).unwrap_err().to_string()
    };
    let cases: [(Edit<'_>, &str); 12] = [
        (&|json| json["model"]["type"] = "Unigram".into(), "of type \"Unigram\", expected \"BPE\""),
        (&|json| json["model"]["vocab"] = 5.into(), "not what Hugging Face's tokenizers write"),
        (&|json| json["model"]["end_of_word_suffix"] = "</w>".into(), "end_of_word_suffix"),
        (&|json| json["pre_tokenizer"] = json!({"type": "Whitespace"}), "{\"type\":\"Whitespace\"}"),
        (&|json| json["pre_tokenizer"] = split("[a-z]+"), "[a-z]+"),
        (&|json| json["pre_tokenizer"]["add_prefix_space"] = true.into(), "add_prefix_space"),
        (&|json| json["normalizer"] = json!({"type": "Lowercase"}), "{\"type\":\"Lowercase\"}"),
        (&|json| json["model"]["merges"][0] = "a".into(), "the merge \"a\""),
        (&|json| json["added_tokens"][0]["id"] = 77.into(), "token 77 is both"),
        (&|json| json["added_tokens"][0]["id"] = u32::MAX.into(), "beyond the limit of"),
        (
            &|json| {
                json["added_tokens"][0]["special"] = false.into();
                json["added_tokens"][0]["lstrip"] = true.into();
            },
            "takes spaces around it",
        ),
        (&|json| json["model"]["byte_fallback"] = true.into(), "prepares text in a way"),
    ];
    for (edit, expected) in cases {
        let message = refused(edit);
        assert!(message.contains(expected), "{message}");
    }
    assert!(from_tokenizer_json(b"[", None).unwrap_err().to_string().contains("copy or download"));
    // Normalisation to NFC is left to others, and families are known without settings.
    let mut nfc = good.clone();
    nfc["normalizer"] = json!({"type": "NFC"});
    let vocabulary = from_tokenizer_json(nfc.to_string().as_bytes(), None).unwrap();
    assert_eq!((vocabulary.bos, vocabulary.eos), (Some(0), Some(0)));
}

/// The JSON of a vocabulary of SentencePiece's kind, as Hugging Face's converter makes it.
fn converted(vocabulary: &Vocabulary) -> Value {
    let pieces: Vec<&str> = vocabulary.tokens.iter().map(|piece| str::from_utf8(piece).unwrap()).collect();
    let id = |piece: &str| pieces.iter().position(|&known| known == piece);
    let mut merges = Vec::new();
    for (piece, &score) in pieces.iter().zip(&vocabulary.scores).skip(3) {
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if let (Some(_), Some(_)) = (id(left), id(right)) {
                merges.push((score, left, right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0));
    let merges: Vec<String> = merges.iter().map(|(_, left, right)| format!("{left} {right}")).collect();
    let vocab: serde_json::Map<_, _> =
        pieces.iter().enumerate().map(|(id, piece)| ((*piece).to_owned(), id.into())).collect();
    let added = |id: u32| {
        json!({"id": id, "content": pieces[id as usize], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let added = [0, 1, 2].map(added);
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
            "merges": merges},
    })
}

#[test]
fn merges_that_come_from_scores_say_the_same() {
    let Some(bin) = data::read("data/models/tok512.bin") else { return };
    let original = from_llama2c_bin(&bin).unwrap();
    let json = converted(&original);
    let oracle = Oracle::from_str(&json.to_string()).unwrap();
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true});
    let vocabulary = read(&json, &config);
    assert_eq!(vocabulary.model, VocabularyModel::Llama);
    assert_eq!(vocabulary.tokens, original.tokens);
    assert_eq!((vocabulary.bos, vocabulary.eos, vocabulary.unknown), (Some(1), Some(2), Some(0)));
    assert!(vocabulary.add_space_prefix && vocabulary.add_bos);
    with(&vocabulary, |tokenizer| {
        // To the oracle '▁' is a space, to the engine it is itself.
        let usual = |text: &&str| !text.is_empty() && !text.contains('▁');
        for text in stories(50).iter().map(String::as_str).chain(TEXTS).filter(usual) {
            let tokens = encode(&tokenizer, text, false);
            let expected = oracle.encode(text, false).unwrap();
            assert_eq!(tokens[1..], *expected.get_ids(), "{text:?} {:?}", expected.get_tokens());
            with(&original, |original| assert_eq!(encode(&original, text, false), tokens));
        }
    });
    // A piece that could be made in another way than the merges say.
    let mut fewer = json.clone();
    fewer["model"]["merges"].as_array_mut().unwrap().remove(100);
    let message = from_tokenizer_json(fewer.to_string().as_bytes(), None).unwrap_err().to_string();
    assert!(message.contains("one for each two pieces"), "{message}");
}

#[test]
fn the_model_of_sentencepiece_and_the_bin_are_one_vocabulary() {
    let Some(bin) = data::read("data/models/tok512.bin") else { return };
    let model = data::read("data/models/tok512.model").unwrap();
    assert_eq!(from_sentencepiece(&model).unwrap(), from_llama2c_bin(&bin).unwrap());
    let cut = from_sentencepiece(&model[..model.len() / 2]).unwrap_err().to_string();
    assert!(cut.contains("not whole"), "{cut}");
}
