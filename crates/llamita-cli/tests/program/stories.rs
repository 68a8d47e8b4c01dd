//! The stories that llama2.c tells with the same checkpoint.

use std::fs;

use crate::files::{Folder, data, text};
use crate::program::{llamita, llamita_reads};

const PROMPT: &str = "Lily and Tom found a tiny llama";

fn reference(name: &str) -> String {
    fs::read_to_string(data(&format!("reference/{name}")).unwrap()).unwrap()
}

#[test]
fn greedy_stories_are_those_of_llama2c() {
    for model in ["stories260K.bin", "stories260K-v1.bin"] {
        let Some(model) = data(&format!("data/models/{model}")) else { return };
        let tokenizer = data("data/models/tok512.bin").unwrap();
        for threads in ["1", "2"] {
            let tell = |more: &[&str]| {
                let with = ["--tokenizer", text(&tokenizer), "--threads", threads, "-t", "0"];
                llamita(["run", "-m", text(&model)].iter().chain(&with).chain(more)).ok()
            };
            assert_eq!(tell(&["--steps", "256"]), reference("stories260K-greedy-256.txt"));
            assert_eq!(tell(&[]), reference("stories260K-greedy-256.txt"));
            let long = reference("stories260K-greedy-512-prompt.txt");
            assert_eq!(tell(&["--steps", "512", PROMPT]), long);
            assert_eq!(tell(&["--steps", "100000", PROMPT]), long);
        }
    }
}

#[test]
fn a_seed_tells_the_story_of_llama2c() {
    let Some(model) = data("data/models/stories260K.bin") else { return };
    let told = llamita(["run", "-m", text(&model), "-t", "1.0", "-p", "0.9", "-s", "133742"]).ok();
    assert!(told.starts_with(&reference("stories260K-seed133742-256.txt")), "{told}");
    assert!(told.ends_with(".\n"), "{told}");
}

#[test]
fn a_prompt_may_come_from_standard_input() {
    let Some(model) = data("data/models/stories260K.bin") else { return };
    let arguments = ["run", "-m", text(&model), "-t", "0", "--steps", "512", "-"];
    for input in [format!("{PROMPT}\n"), format!("{PROMPT}\r\n"), PROMPT.to_owned()] {
        let told = llamita_reads(arguments, input.as_bytes()).ok();
        assert_eq!(told, reference("stories260K-greedy-512-prompt.txt"));
    }
}

#[test]
fn new_tokens_are_counted_apart_from_the_prompt() {
    let Some(model) = data("data/models/stories260K.bin") else { return };
    let tell = |count: &[&str]| {
        llamita(["run", "-m", text(&model), "-t", "0", "--json", PROMPT].iter().chain(count)).json()
    };
    let (new, steps) = (tell(&["-n", "20"]), tell(&["--steps", "35"]));
    // The prompt is BOS and 15 tokens.
    assert_eq!(new["tokens"].as_array().unwrap().len(), 36);
    assert_eq!(new["tokens"], steps["tokens"]);
    assert_eq!(new["stop"], "length");
    assert_eq!(new["stats"]["new_tokens"], 20);
    assert_eq!(tell(&["-n", "100000"])["stop"], "context");
    assert_eq!(tell(&["--steps", "512"])["stop"], "length");
    assert_eq!(tell(&["--steps", "513"])["stop"], "context");
}

#[test]
fn a_long_prompt_is_continued_all_the_same() {
    let Some(model) = data("data/models/stories260K.bin") else { return };
    let prompt = PROMPT.repeat(20);
    let told = llamita(["run", "-m", text(&model), "-t", "0", "--json", &prompt]).json();
    assert!(told["stats"]["prompt_tokens"].as_u64().unwrap() > 256);
    assert!(told["stats"]["new_tokens"].as_u64().unwrap() > 0);
    assert!(told["text"].as_str().unwrap().len() > prompt.len());
}

#[test]
fn the_state_is_small() {
    let Some(model) = data("data/models/stories260K.bin") else { return };
    let stats = llamita(["run", "-m", text(&model), "--json"]).json()["stats"].clone();
    assert_eq!(stats["context"], 512);
    assert!(stats["state_bytes"].as_u64().unwrap() <= 700_000, "{stats}");
    let facts = llamita(["inspect", text(&model), "--json"]).json();
    assert_eq!(facts["memory"]["state"], stats["state_bytes"]);
}

#[test]
fn predictions_are_as_good_as_they_should_be() {
    let Some(model) = data("data/models/stories260K.bin") else { return };
    let stories = data("data/tinystories/valid.txt").unwrap();
    let arguments = ["eval", text(&model), "--text", text(&stories), "--limit", "100", "--json"];
    let found = llamita(arguments).json();
    assert!((found["nll_per_token"].as_f64().unwrap() - 1.39321).abs() < 0.0005, "{found}");
    assert!((found["bits_per_byte"].as_f64().unwrap() - 0.98532).abs() < 0.0005, "{found}");
    assert_eq!(found["tokens"], 37_867);
    assert_eq!(found["bytes"], 77_246);
    assert_eq!(found["stories"], 100);
}

#[test]
fn the_tokenizer_beside_the_model_is_found_by_its_size() {
    let Some(model) = data("data/models/stories260K.bin") else { return };
    let folder = Folder::new();
    let copy = folder.path("stories.bin");
    fs::copy(&model, &copy).unwrap();
    let tell = || llamita(["run", "-m", text(&copy), "-t", "0"]);
    tell().refused(1, &["whose vocabulary has 512 tokens", "there is no tokenizer.bin", "--tokenizer"]);
    let large = data("data/models/tokenizer-32000.bin").unwrap();
    fs::copy(&large, folder.path("tokenizer.bin")).unwrap();
    folder.write("tok-broken.bin", b"not a tokenizer");
    tell().refused(1, &["tokenizer.bin (32000 tokens)", "tok-broken.bin (no tokenizer)", "512"]);
    fs::copy(data("data/models/tok512.bin").unwrap(), folder.path("tok512.bin")).unwrap();
    assert_eq!(tell().ok(), reference("stories260K-greedy-256.txt"));
    llamita(["run", "-m", text(&copy), "--tokenizer", text(&large)])
        .refused(1, &["tokenizer-32000.bin: the tokenizer has 32000 tokens, the model has 512"]);
}

#[test]
fn texts_are_tokenized_as_by_the_reference() {
    let Some(model) = data("data/models/stories260K.bin") else { return };
    let cases = fs::read_to_string(data("reference/tokenizer-cases.json").unwrap()).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&cases).unwrap();
    for case in cases.as_array().unwrap() {
        let given = case["text"].as_str().unwrap();
        // A text may look like an option; NUL bytes cannot be in an argument.
        let input = format!("{given}\n");
        let found = llamita_reads(["tokenize", "-m", text(&model), "--json", "-"], input.as_bytes()).json();
        assert_eq!(found["tokens"], case["tok512"], "{given:?}");
    }
}
