//! GGUF files.

use llamita::config::Config;
use llamita::format::{FormatError, Model};
use llamita::tokenizer::{ByteLevel, GgufVocabulary, PreTokenizer};
use llamita::weights::Format;

use crate::builder::{CONFIG, Gguf, SHARED, Tensor, Value, tensors, v0};
use crate::{assert_tape, load, refusal};

const DAMAGED: &str = "the file is damaged, copy or download it again";
const VARIANT: &str = "the file is damaged, or of a variant of Llama that is not supported";

/// What is said of a GGUF file after a change.
#[track_caller]
pub fn refused(change: impl FnOnce(&mut Gguf)) -> String {
    let mut file = Gguf::new(&CONFIG);
    change(&mut file);
    refusal(&file.bytes())
}

#[test]
fn versions() {
    let gguf = |version| refused(|file| file.version = version);
    assert_eq!(
        gguf(1),
        "GGUF version 1, supported are 2 and 3: convert the original model with a current llama.cpp"
    );
    assert_eq!(
        gguf(4),
        "GGUF version 4, supported are 2 and 3: convert the original model with a current llama.cpp"
    );
    assert_eq!(
        gguf(3_u32.swap_bytes()),
        "big-endian GGUF, only little-endian is supported: \
         convert it with `gguf_convert_endian.py FILE little`"
    );
    let mut two = Gguf::new(&CONFIG);
    two.version = 2;
    load(&two.bytes()).unwrap();
}

#[test]
fn integers_of_any_width_are_read() {
    let mut file = Gguf::new(&CONFIG);
    file.set("llama.embedding_length", Value(0, vec![8]))
        .set("llama.block_count", Value(1, vec![2]))
        .set("llama.feed_forward_length", Value(2, vec![6, 0]))
        .set("llama.context_length", Value(3, vec![7, 0]))
        .set("llama.attention.head_count", Value::i32(4))
        .set("llama.attention.head_count_kv", Value::u64(2))
        .set("llama.rope.dimension_count", Value(11, 2_i64.to_le_bytes().to_vec()))
        .set("llama.attention.layer_norm_rms_epsilon", Value::f64(0.25))
        .set("llama.rope.freq_base", Value::f32(500_000.0));
    let (config, ..) = load(&file.bytes()).unwrap();
    assert_eq!(config, Config { norm_eps: 0.25, rope_theta: 500_000.0, ..CONFIG });
}

#[test]
fn heads_may_be_of_any_size() {
    let config = Config { head_size: 6, n_kv_heads: 4, ..CONFIG };
    let mut file = Gguf::new(&config);
    file.set("llama.attention.key_length", Value::u32(6))
        .set("llama.attention.value_length", Value::u32(6))
        .set("llama.vocab_size", Value::u32(5))
        .unset("llama.attention.head_count_kv")
        .unset("llama.rope.dimension_count");
    let bytes = file.bytes();
    let (found, entries, _) = load(&bytes).unwrap();
    assert_eq!(found, config);
    assert_tape(&bytes, &config, &entries);
}

#[test]
fn half_precision_is_read() {
    let mut file = Gguf::new(&CONFIG);
    file.halve("token_embd.weight", 1, 0x3c00).halve("blk.1.ffn_down.weight", 30, 0x3f80);
    let (_, entries, _) = load(&file.bytes()).unwrap();
    assert_eq!(entries[0].format, Format::F16);
    assert_eq!(entries[18].format, Format::Bf16);
}

#[test]
fn alignment_is_honoured() {
    for alignment in [4, 8, 64, 4096] {
        let mut file = Gguf::new(&CONFIG);
        file.alignment = alignment;
        file.set("general.alignment", Value::u32(alignment as u32));
        let bytes = file.bytes();
        let (_, entries, _) = load(&bytes).unwrap();
        assert_tape(&bytes, &CONFIG, &entries);
        assert!(entries.iter().all(|entry| entry.offset.is_multiple_of(alignment as u64)));
    }
    let set = |value| {
        refused(|file| {
            file.set("general.alignment", value);
        })
    };
    assert_eq!(
        set(Value::u32(24)),
        "general.alignment is 24, expected a power of two: the file is damaged, copy or download it again"
    );
    assert_eq!(
        set(Value::u32(0)),
        "general.alignment is 0, expected a power of two: the file is damaged, copy or download it again"
    );
    // Tensors are far beyond the end then.
    assert!(set(Value::u64(1 << 63)).contains("ends at 9223372036854"), "{}", set(Value::u64(1 << 63)));
    // An alignment may be too small for the numbers.
    let mut odd = Gguf::new(&CONFIG);
    odd.alignment = 1;
    odd.set("general.alignment", Value::u32(1));
    let mut texts = Vec::new();
    for name in ["t", "ti", "tin", "tiny"] {
        odd.set("general.name", Value::string(name));
        texts.extend(load(&odd.bytes()).err().map(|error| error.to_string()));
    }
    assert_eq!(texts.len(), 3);
    assert!(texts[0].starts_with("tensor token_embd.weight is at byte "), "{}", texts[0]);
    assert!(
        texts[0].ends_with(", expected a multiple of 4: the file is damaged, copy or download it again"),
        "{}",
        texts[0]
    );
}

#[test]
fn other_models_are_refused() {
    let set = |key: &str, value| {
        refused(|file| {
            file.set(key, value);
        })
    };
    assert_eq!(
        set("general.architecture", Value::string("qwen2")),
        "the model's architecture is \"qwen2\", supported is \"llama\": choose a Llama-family model"
    );
    assert_eq!(
        set("split.count", Value(2, vec![3, 0])),
        "the model is split into 3 files, expected one: merge them with `llama-gguf-split --merge`"
    );
    for (key, value) in [
        ("llama.rope.scaling.type", Value::string("linear")),
        ("llama.rope.scaling.factor", Value::f32(8.0)),
        ("llama.rope.scale_linear", Value::f32(2.0)),
    ] {
        assert_eq!(
            set(key, value),
            format!("rope scaling is not supported (the file has {key}): choose a model without it")
        );
    }
    assert_eq!(
        refused(|file| file.tensor("output.weight").name = "rope_freqs.weight".to_string()),
        "rope scaling is not supported (the file has the tensor rope_freqs.weight): \
         choose a model without it"
    );
    for (key, value) in [
        ("llama.expert_count", Value::u32(8)),
        ("llama.attention.clamp_kqv", Value::f32(8.0)),
        ("llama.attention.causal", Value::bool(false)),
        ("llama.attention.sliding_window", Value::u32(4096)),
        ("llama.logit_scale", Value::f32(0.5)),
        ("tokenizer.ggml.add_bos_token", Value::bool(false)),
        ("tokenizer.ggml.add_eos_token", Value::bool(true)),
    ] {
        assert_eq!(
            set(key, value),
            format!(
                "{key} asks for what is not supported, and ignoring it would compute a different model: \
                 choose a plain Llama model"
            )
        );
    }
    // The same keys with values that ask for nothing.
    let mut plain = Gguf::new(&CONFIG);
    plain
        .set("split.count", Value::u32(1))
        .set("llama.rope.scaling.type", Value::string("none"))
        .set("llama.rope.scaling.factor", Value::f32(8.0))
        .set("llama.expert_count", Value::u32(0))
        .set("llama.attention.causal", Value::bool(true))
        .set("llama.logit_scale", Value::f32(1.0))
        .set("tokenizer.ggml.add_bos_token", Value::bool(true))
        .set("tokenizer.ggml.add_eos_token", Value::bool(false));
    load(&plain.bytes()).unwrap();
}

#[test]
fn metadata_are_checked() {
    for key in [
        "general.architecture",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.block_count",
        "llama.context_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.scores",
    ] {
        assert_eq!(
            refused(|file| {
                file.unset(key);
            }),
            format!("the metadata lack {key}: convert the original model with a current llama.cpp")
        );
    }
    assert_eq!(
        refused(|file| {
            file.unset("tokenizer.ggml.tokens");
        }),
        "the metadata lack llama.vocab_size: convert the original model with a current llama.cpp"
    );
    assert_eq!(
        refused(|file| file.metadata.push(("llama.block_count".to_string(), Value::u32(2)))),
        "the metadata have llama.block_count twice, expected once: copy or download the file again"
    );
    let set = |key: &str, value| {
        refused(|file| {
            file.set(key, value);
        })
    };
    for (key, value, text) in [
        ("llama.block_count", Value::string("two"), "is of type string, expected integer from 0"),
        ("llama.block_count", Value::f32(2.0), "is of type float, expected integer from 0"),
        ("llama.block_count", Value::i32(-2), "is of type negative integer, expected integer from 0"),
        ("llama.attention.layer_norm_rms_epsilon", Value::u32(1), "is of type integer, expected float"),
        ("general.architecture", Value::bool(true), "is of type bool, expected string"),
        ("tokenizer.ggml.tokens", Value::u32(5), "is of type integer, expected array of strings"),
        ("tokenizer.ggml.add_space_prefix", Value::u32(1), "is of type integer, expected bool"),
        (
            "tokenizer.ggml.scores",
            Value::array(5, &vec![Value::i32(1); 5]),
            "is of type array of another type, expected array of f32",
        ),
        (
            "tokenizer.ggml.token_type",
            Value::array(9, &[Value::array(5, &[])]),
            "is an array of arrays, expected none",
        ),
        ("who.knows", Value(13, vec![0; 8]), "has values of type 13, expected 0 to 12"),
        ("who.knows", Value::array(99, &[]), "has values of type 99, expected 0 to 12"),
        ("tokenizer.ggml.bos_token_id", Value::u32(5), "is 5, expected one of 5 tokens"),
    ] {
        assert_eq!(set(key, value), format!("{key} {text}: {DAMAGED}"));
    }
    for (key, value, text) in [
        ("llama.rope.dimension_count", 4, "gives 4, expected 2 as in embedding_length / head_count"),
        ("llama.attention.value_length", 4, "gives 4, expected 2 as in embedding_length / head_count"),
        ("llama.vocab_size", 6, "gives 5, expected 6 as in llama.vocab_size"),
    ] {
        let named = if key == "llama.vocab_size" { "tokenizer.ggml.tokens" } else { key };
        assert_eq!(set(key, Value::u32(value)), format!("{named} {text}: {VARIANT}"));
    }
    assert_eq!(
        set("llama.attention.key_length", Value::u32(4)),
        format!(
            "llama.attention.value_length gives 2, expected 4 as in llama.attention.key_length: {VARIANT}"
        )
    );
    assert_eq!(
        set("tokenizer.ggml.scores", Value::array(6, &[Value::f32(0.0)])),
        format!("tokenizer.ggml.scores gives 1, expected 5 as in tokenizer.ggml.tokens: {VARIANT}")
    );
    for key in ["llama.attention.head_count", "llama.attention.head_count_kv", "llama.feed_forward_length"] {
        assert_eq!(
            set(key, Value::array(4, &[Value::u32(4), Value::u32(4)])),
            format!("{key} is an array, expected one number: models whose layers differ are not supported")
        );
    }
    assert_eq!(
        set("llama.embedding_length", Value::u64(u64::MAX)),
        format!(
            "dim is {}, expected at most 16777216: \
             the file is damaged, or the model is not one that llamita runs",
            usize::MAX
        )
    );
    // Products with such a size would overflow.
    for size in [1 << 62, 1 << 40, (1 << 24) + 2] {
        assert_eq!(
            refused(|file| {
                file.set("llama.attention.key_length", Value::u64(size))
                    .set("llama.attention.value_length", Value::u64(size));
            }),
            format!(
                "head_size is {size}, expected at most 16777216: \
                 the file is damaged, or the model is not one that llamita runs"
            )
        );
    }
    assert_eq!(
        set("llama.attention.key_length", Value::u64(1 << 24)),
        "n_heads * head_size is 67108864, expected at most 16777216: \
         the file is damaged, or the model is not one that llamita runs"
    );
    assert_eq!(
        set("llama.attention.head_count", Value::u32(0)),
        "n_heads is 0, expected at least 1: the file is damaged, or the model is not one that llamita runs"
    );
    assert_eq!(
        set("llama.attention.layer_norm_rms_epsilon", Value::f32(f32::NAN)),
        "norm_eps is not a positive number: the file is damaged, or the model is not one that llamita runs"
    );
}

#[test]
fn byte_level_vocabularies() {
    let read = |edit: &dyn Fn(&mut Gguf)| {
        let mut file = Gguf::byte_level();
        edit(&mut file);
        let bytes = file.bytes();
        load(&bytes).map(|(.., vocabulary)| {
            let GgufVocabulary { bos, eos, add_bos, byte_level, .. } = vocabulary.unwrap();
            let ByteLevel { pre, merges, merge_count } = byte_level.unwrap();
            assert_eq!((merges, merge_count), (&b"\x03\0\0\0\0\0\0\0a b"[..], 1));
            (bos, eos, add_bos, pre)
        })
    };
    const PRE: &str = "tokenizer.ggml.pre";
    const BOS: &str = "tokenizer.ggml.bos_token_id";
    const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
    let set = |key: &'static str, value: Value| read(&move |file| _ = file.set(key, value.clone()));
    let unset = |key: &'static str| read(&move |file| _ = file.unset(key));
    assert_eq!(read(&|_| ()), Ok((4, 4, false, PreTokenizer::SmolLm)));
    assert_eq!(set(ADD_BOS, Value::bool(true)), Ok((4, 4, true, PreTokenizer::SmolLm)));
    assert_eq!(set(PRE, Value::string("llama-bpe")), Ok((4, 4, true, PreTokenizer::LlamaBpe)));
    assert_eq!(unset(PRE), Ok((4, 4, false, PreTokenizer::Default)));
    assert_eq!(set(BOS, Value::u32(3)), Ok((3, 4, false, PreTokenizer::SmolLm)));
    // Where there is no BOS, none can be put before a text.
    let without = read(&|file| _ = file.unset(BOS).set(ADD_BOS, Value::bool(true)));
    assert_eq!(without, Ok((4, 4, false, PreTokenizer::SmolLm)));
    assert_eq!(
        set(PRE, Value::string("tekken")).unwrap_err().to_string(),
        "the tokenizer cuts text into words as \"tekken\" does, supported are \"default\", \"gpt-2\", \
         \"llama-bpe\", \"qwen2\" and \"smollm\": choose a model with one of those"
    );
    for key in ["tokenizer.ggml.merges", "tokenizer.ggml.eos_token_id"] {
        assert_eq!(unset(key), Err(FormatError::MissingKey(key)));
    }
}

#[test]
fn the_chat_template_is_read() {
    let mut file = Gguf::byte_level();
    file.set("tokenizer.chat_template", Value::string("{{ messages }}"));
    assert_eq!(Model::read(&file.bytes()).unwrap().chat_template(), Some("{{ messages }}"));
    assert_eq!(Model::read(&Gguf::byte_level().bytes()).unwrap().chat_template(), None);
    assert_eq!(Model::read(&v0(&CONFIG)).unwrap().chat_template(), None);
}

#[test]
fn vocabularies() {
    let mut file = Gguf::new(&CONFIG);
    file.set("tokenizer.ggml.add_space_prefix", Value::bool(false));
    let bytes = file.bytes();
    let (.., vocabulary) = load(&bytes).unwrap();
    let vocabulary = vocabulary.unwrap();
    assert_eq!(vocabulary.count, 5);
    assert!(vocabulary.tokens.starts_with(b"\x05\0\0\0\0\0\0\0<unk>\x03\0\0\0\0\0\0\0<s>"));
    assert!(vocabulary.tokens.ends_with(b"\x01\0\0\0\0\0\0\0b"));
    assert_eq!(vocabulary.scores, (-1.0_f32).to_le_bytes().repeat(5));
    assert_eq!(vocabulary.types, Some(&1_i32.to_le_bytes().repeat(5)[..]));
    assert_eq!((vocabulary.bos, vocabulary.eos, vocabulary.unknown), (1, 2, Some(0)));
    assert!(!vocabulary.add_space_prefix);

    for key in ["token_type", "bos_token_id", "eos_token_id", "unknown_token_id", "add_space_prefix"] {
        file.unset(&format!("tokenizer.ggml.{key}"));
    }
    let bytes = file.bytes();
    let (.., vocabulary) = load(&bytes).unwrap();
    let vocabulary = vocabulary.unwrap();
    assert_eq!(vocabulary.types, None);
    assert_eq!((vocabulary.bos, vocabulary.eos, vocabulary.unknown), (1, 2, Some(0)));
    assert!(vocabulary.add_space_prefix);

    assert_eq!(
        refused(|file| {
            file.set("tokenizer.ggml.model", Value::string("bert"));
        }),
        "the tokenizer is \"bert\", supported are \"llama\" (sentencepiece) and \"gpt2\" (byte-level BPE): \
         choose a model with one of those"
    );
    assert_eq!(
        refused(|file| {
            file.unset("tokenizer.ggml.model");
        }),
        "the metadata lack tokenizer.ggml.model: convert the original model with a current llama.cpp"
    );
    file.unset("tokenizer.ggml.tokens").unset("tokenizer.ggml.model");
    file.set("llama.vocab_size", Value::u32(5));
    assert!(load(&file.bytes()).unwrap().2.is_none());
    file.set("tokenizer.ggml.model", Value::string("no_vocab"));
    assert!(load(&file.bytes()).unwrap().2.is_none());
}

#[test]
fn tensors_are_checked() {
    let change = |name: &str, change: fn(&mut Tensor)| refused(|file| change(file.tensor(name)));
    assert_eq!(
        change("blk.0.attn_q.weight", |tensor| tensor.kind = 8),
        "tensor blk.0.attn_q.weight has rows of 8, Q8_0 wants multiples of 32: the file is damaged, \
         copy or download it again"
    );
    assert_eq!(
        change("token_embd.weight", |tensor| tensor.kind = 10),
        "tensor token_embd.weight is Q2_K, supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K and Q6_K: \
         get the model in one of these"
    );
    assert_eq!(
        change("output.weight", |tensor| tensor.kind = 1000),
        "tensor output.weight is of unknown type 1000, supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K and Q6_K: \
         get the model in one of these"
    );
    assert_eq!(
        change("blk.1.ffn_norm.weight", |tensor| tensor.kind = 1),
        "tensor blk.1.ffn_norm.weight is F16, norms must be F32: get the model with these"
    );
    assert_eq!(
        change("blk.1.ffn_down.weight", |tensor| tensor.dimensions = vec![8, 6]),
        format!("tensor blk.1.ffn_down.weight is 8 x 6, expected 6 x 8 from the metadata: {VARIANT}")
    );
    assert_eq!(
        change("output_norm.weight", |tensor| tensor.dimensions = vec![]),
        format!("tensor output_norm.weight is 1 x 1, expected 8 x 1 from the metadata: {VARIANT}")
    );
    assert_eq!(
        change("blk.1.ffn_down.weight", |tensor| tensor.dimensions = vec![6, 8, 2, u64::MAX]),
        format!(
            "tensor blk.1.ffn_down.weight is 6 x 8 x 2 x {}, expected 6 x 8 from the metadata: {VARIANT}",
            u64::MAX
        )
    );
    assert_eq!(
        change("blk.1.ffn_down.weight", |tensor| tensor.dimensions = vec![1; 5]),
        format!("tensor blk.1.ffn_down.weight has 5 dimensions, expected at most 4: {DAMAGED}")
    );
    assert_eq!(
        refused(|file| {
            file.set("llama.vocab_size", Value::u32(6)).unset("tokenizer.ggml.tokens");
        }),
        format!("tensor token_embd.weight is 8 x 5, expected 8 x 6 from the metadata: {VARIANT}")
    );
    for name in ["blk.0.attn_q.bias", "blk.0.ffn_gate_exps.weight", "blk.2.attn_q.weight", "\u{1b}[2J"] {
        let text = refused(|file| {
            let copy = Tensor { name: name.to_string(), ..file.tensors[2].clone() };
            file.tensors.push(copy);
        });
        assert_eq!(
            text,
            format!(
                "tensor {} is not supported, and ignoring it would compute a different model: \
                 choose a plain Llama model",
                name.escape_default().to_string().replace("\\u{1b}", "\\x1b")
            )
        );
    }
    assert_eq!(
        refused(|file| file.tensors.push(file.tensors[3].clone())),
        format!("tensor blk.0.attn_k.weight appears twice, expected once: {DAMAGED}")
    );
    for (name, ..) in tensors(&SHARED) {
        assert_eq!(
            refused(|file| file.tensors.retain(|tensor| tensor.name != name)),
            format!("tensor {name} is missing: {VARIANT}")
        );
    }
    let offset = |offset| refused(|file| file.tensor("output.weight").offset = Some(offset));
    let (size, text) = (offset(1 << 40), " it is truncated or damaged, copy or download it again");
    assert!(size.starts_with("the file is 5248 bytes, its tensor output.weight ends at 10995"), "{size}");
    assert!(size.ends_with(text), "{size}");
    // Wherever in the sum an overflow could be.
    for at in (u64::MAX - 8191..=u64::MAX).step_by(32) {
        let size = offset(at);
        assert!(size.contains(" ends at 18446744073709") && size.ends_with(text), "{size}");
    }
    let misplaced = offset(16);
    assert!(misplaced.starts_with("tensor output.weight is at byte "), "{misplaced}");
    assert!(misplaced.ends_with(&format!(", expected a multiple of 32: {DAMAGED}")), "{misplaced}");
}
