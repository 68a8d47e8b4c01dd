//! The stories and logits of llama2.c, from its own checkpoint.

mod common;

use common::data::read;
use common::{File, Lender, logits, story};
use llamita::{Kernels, Settings, Solo, Tokenizer};
use llamita_kernels::Threads;

const GREEDY: Settings = Settings { temperature: 0.0, top_k: 0, top_p: 0.9, min_p: 0.0, repeat_penalty: 1.0 };

/// Calls `f` with each form of stories260K, its tokenizer, and the folder of references.
fn with_model(f: impl Fn(&str, &File, &Tokenizer<'_>)) {
    for name in ["stories260K.bin", "stories260K-v1.bin"] {
        let Some(model) = read(&format!("data/models/{name}")) else { return };
        let tokenizer = read("data/models/tok512.bin").unwrap();
        let mut index = vec![0; Tokenizer::index_len(512)];
        let tokenizer = Tokenizer::from_bin(&tokenizer, 512, &mut index).unwrap();
        f(name, &File::new(&model), &tokenizer);
    }
}

fn reference(name: &str) -> String {
    String::from_utf8(read(&format!("reference/{name}")).unwrap()).unwrap()
}

#[test]
fn greedy_stories_are_those_of_llama2c() {
    with_model(|name, file, tokenizer| {
        let cases = [
            ("", 256, "stories260K-greedy-256.txt"),
            ("Lily and Tom found a tiny llama", 512, "stories260K-greedy-512-prompt.txt"),
        ];
        for (prompt, steps, expected) in cases {
            let expected = reference(expected);
            let expected = expected.strip_suffix('\n').unwrap();
            file.with_weights(|weights| {
                let told = |weights, threads| {
                    story(weights, Threads::new(threads).unwrap(), tokenizer, prompt, GREEDY, 1, steps)
                };
                for threads in [1, 2, 3] {
                    assert_eq!(told(weights, threads), expected, "{name}, {threads} threads");
                }
                for rows in [1, 7, 100] {
                    let lender = Lender::new(weights, rows);
                    let told = story(lender, Solo, tokenizer, prompt, GREEDY, 1, steps);
                    assert_eq!(told, expected, "{name}, {rows} rows at once");
                }
            });
        }
    });
}

#[test]
fn a_seed_tells_the_story_of_llama2c() {
    with_model(|name, file, tokenizer| {
        let settings = Settings { temperature: 1.0, top_p: 0.9, ..GREEDY };
        let expected = reference("stories260K-seed133742-256.txt");
        let told = file.with_weights(|weights| story(weights, Solo, tokenizer, "", settings, 133_742, 256));
        assert!(told.starts_with(expected.trim_end()), "{name}: {told}");
        assert!(
            told.ends_with("Timmy's dad came up to his house and promised to help Timmy."),
            "{name}: {told}"
        );
    });
}

#[test]
fn logits_are_those_of_a_double_precision_evaluation() {
    with_model(|name, file, _| {
        let reference: serde_json::Value =
            serde_json::from_str(&reference("stories260K-logits.json")).unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<f64> {
            value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let tokens: Vec<u32> = numbers(&reference["tokens"]).iter().map(|&x| x as u32).collect();
        let expected: Vec<f64> = reference["logits"].as_array().unwrap().iter().flat_map(numbers).collect();
        for kernels in [Kernels::SCALAR, Kernels::detect()] {
            let found = file.with_weights(|weights| logits(weights, Solo, kernels, &tokens, 4));
            assert_eq!(found.len(), expected.len());
            let worst =
                found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            println!("{name}, {}: logits within {worst:e}", kernels.name());
            assert!(worst < 1e-4, "{name}, {}: {worst:e}", kernels.name());
        }
    });
}
