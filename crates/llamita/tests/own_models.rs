//! The stories of the models that this project has trained, which every machine must tell alike to the byte.
//!
//! `cargo xtask golden` writes them anew, after a model has changed.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{File, Lender, logits_with, story};
use llamita::{CacheFormat, Kernels, Model, Settings, Solo, Tokenizer};
use llamita_kernels::Threads;

const GREEDY: Settings = Settings { temperature: 0.0, top_k: 0, top_p: 0.9, min_p: 0.0, repeat_penalty: 1.0 };

fn place(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models")).join(name)
}

/// Calls `f` with each model, its tokenizer, and what it has told with these settings.
fn with_models(golden: &str, f: impl Fn(&str, &File, &Tokenizer<'_>, &str)) {
    for name in ["tiny", "nano"] {
        let file = File::new(&fs::read(place(&format!("{name}.gguf"))).unwrap());
        let model = Model::read(file.bytes()).unwrap();
        let vocabulary = model.vocabulary().unwrap().unwrap();
        let mut index = vec![0; vocabulary.index_len()];
        let tokenizer = Tokenizer::from_gguf(&vocabulary, &mut index).unwrap();
        let expected = fs::read_to_string(place(&format!("golden/{name}-{golden}.txt"))).unwrap();
        f(name, &file, &tokenizer, expected.strip_suffix('\n').unwrap());
    }
}

#[test]
fn greedy_stories_are_the_same_everywhere() {
    with_models("greedy", |name, file, tokenizer, expected| {
        assert!(expected.len() > 500, "{name}: {expected}");
        file.with_weights(|weights| {
            for threads in [1, 2, 3] {
                let told = story(weights, Threads::new(threads).unwrap(), tokenizer, "", GREEDY, 1, 256);
                assert_eq!(told, expected, "{name}, {threads} threads");
            }
            for rows in [1, 7, 100] {
                let told = story(Lender::new(weights, rows), Solo, tokenizer, "", GREEDY, 1, 256);
                assert_eq!(told, expected, "{name}, {rows} rows at once");
            }
        });
    });
}

#[test]
fn a_seed_tells_the_same_story() {
    with_models("seed42", |name, file, tokenizer, expected| {
        let settings = Settings { temperature: 0.8, ..GREEDY };
        let prompt = "The llama was hungry.";
        let told = file.with_weights(|weights| story(weights, Solo, tokenizer, prompt, settings, 42, 256));
        assert_eq!(told, expected, "{name}");
    });
}

#[test]
fn logits_have_the_same_bits_on_all_kernels() {
    with_models("greedy", |name, file, tokenizer, expected| {
        let mut scratch = vec![llamita::tokenizer::Work::EMPTY; Tokenizer::scratch_len(expected.len())];
        let mut tokens = vec![0; Tokenizer::max_tokens(expected.len())];
        let count = tokenizer.encode(expected, &mut scratch, &mut tokens).unwrap();
        for cache in [CacheFormat::F32, CacheFormat::Q8] {
            let bits = |kernels, batch| -> Vec<u32> {
                let logits = file.with_weights(|weights| {
                    logits_with(weights, Solo, kernels, &tokens[..count], batch, cache)
                });
                logits.into_iter().map(f32::to_bits).collect()
            };
            assert!(bits(Kernels::SCALAR, 1) == bits(Kernels::detect(), 13), "{name}, {cache:?}");
        }
    });
}
