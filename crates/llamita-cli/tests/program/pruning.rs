//! Conversions that take tokens away.

use std::fs;

use serde_json::Value;

use crate::files::{Folder, SMALL, data, text};
use crate::program::{Ended, llamita};

const STORIES: &str = "abc abc<|endoftext|>bca b<|endoftext|>aaaa";
/// Special tokens, bytes, the space, and three letters of the stories.
const NEEDED: usize = 3 + 256 + 1 + 3;

/// Converts the small model to a file of this name, with the tokens that the stories need.
fn prune(folder: &Folder, out: &str, keep: usize, more: &[&str]) -> Ended {
    let stories = folder.write("stories.txt", STORIES.as_bytes());
    let [model, out] = ["model.bin", out].map(|name| folder.path(name));
    let keep = keep.to_string();
    let arguments = ["convert", text(&model), text(&out), "--quant", "f32"];
    let pruning = ["--prune-vocab", text(&stories), "--keep", &keep];
    llamita(arguments.iter().chain(&pruning).chain(more))
}

fn eval(folder: &Folder, model: &str, stories: &str) -> Value {
    let [model, stories] = [model, stories].map(|name| folder.path(name));
    llamita(["eval", text(&model), "--text", text(&stories), "--json"]).json()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_pruned_model_is_as_good_as_its_report_says() {
    let folder = Folder::with_model();
    // 'd' has a token in the whole vocabulary alone.
    let other = folder.write("other.txt", b"dad d<|endoftext|>abc");
    let report = prune(&folder, "small.gguf", NEEDED, &["--json", "--eval", text(&other)]).json();
    let pruned = &report["pruned"];
    assert_eq!(pruned["vocab_size"], serde_json::json!([SMALL.vocab_size, NEEDED]));
    assert_eq!(pruned["text"]["coverage"], 1.0);
    // Of a space and five, and of a space and three.
    assert_eq!(pruned["eval"]["tokens"], serde_json::json!([10, 10]));
    assert!((number(&pruned["eval"]["coverage"]) - 0.7).abs() < 1e-12, "{report}");
    for (place, name) in [(0, "model.bin"), (1, "small.gguf")] {
        let (found, expected) = (&pruned["bits_per_byte"][place], eval(&folder, name, "other.txt"));
        let (found, expected) = (number(found), number(&expected["bits_per_byte"]));
        assert!((found - expected).abs() < 1e-12 * expected, "{name}: {found}, {expected}");
    }
    assert_eq!(report["tokenizer"]["tokens"], NEEDED);
    // Any text is still read as what it is.
    let small = folder.path("small.gguf");
    let told = llamita(["run", "-m", text(&small), "-n", "1", "-t", "0", "-q", "a dé\n"]).ok();
    assert!(told.starts_with("a dé\n"), "{told:?}");
    let shown = prune(&folder, "again.gguf", NEEDED, &["--eval", text(&other)]).ok();
    for part in ["270", "263", "-2.59 %", "bits per byte, --eval", "70.00 % are left"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn with_all_tokens_it_is_the_same_file() {
    let folder = Folder::with_model();
    let [model, whole] = ["model.bin", "whole.gguf"].map(|name| folder.path(name));
    llamita(["convert", text(&model), text(&whole), "--quant", "f32"]).ok();
    prune(&folder, "pruned.gguf", SMALL.vocab_size, &[]).ok();
    assert!(fs::read(&whole).unwrap() == fs::read(folder.path("pruned.gguf")).unwrap());
}

#[test]
fn pruning_is_refused_where_it_cannot_be() {
    let folder = Folder::with_model();
    prune(&folder, "o.gguf", NEEDED - 1, &[])
        .refused(1, &["262 tokens are to be kept, expected 263", "--keep"]);
    prune(&folder, "o.gguf", 271, &[]).refused(1, &["the vocabulary has 270", "--keep"]);
    let before = fs::read(folder.path("stories.txt")).unwrap();
    let over = ["--to", "device", "--force"];
    prune(&folder, "stories.txt", NEEDED, &over).refused(2, &["stories.txt", "expected another file"]);
    assert_eq!(fs::read(folder.path("stories.txt")).unwrap(), before);
    let [model, out] = ["model.bin", "o.gguf"].map(|name| folder.path(name));
    let convert = |more: &[&str]| llamita(["convert", text(&model), text(&out)].iter().chain(more));
    convert(&["--keep", "264"]).refused(2, &["--prune-vocab"]);
    convert(&["--prune-vocab", "x"]).refused(2, &["--keep"]);
    convert(&["--prune-vocab", "none.txt", "--keep", "264"]).refused(1, &["none.txt", "no such file"]);
    let blank = folder.write("blank.txt", b" <|endoftext|> ");
    convert(&["--prune-vocab", text(&blank), "--keep", "264"]).refused(1, &["blank.txt", "no story"]);
    fs::remove_file(folder.path("tokenizer.bin")).unwrap();
    let ended = prune(&folder, "o.gguf", NEEDED, &[]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("without a tokenizer") && ended.stderr.contains("--tokenizer"),
        "{}",
        ended.stderr
    );
    assert!(!out.exists());
}

#[test]
fn a_trained_model_still_tells_stories() {
    let Some(model) = data("data/models/stories260K.bin") else { return };
    let folder = Folder::new();
    let stories = data("data/tinystories/valid.txt").unwrap();
    let out = folder.path("small.gguf");
    let arguments = ["convert", text(&model), text(&out), "--quant", "f32", "--keep", "480", "--json"];
    let report = llamita(arguments.iter().chain(&["--prune-vocab", text(&stories)])).json();
    assert_eq!(report["pruned"]["bits_per_byte"], Value::Null);
    assert!(number(&report["pruned"]["text"]["coverage"]) > 0.98, "{report}");
    let limit = ["--text", text(&stories), "--limit", "20", "--json"];
    let report = llamita(["compare", text(&model), text(&out)].iter().chain(&limit)).json();
    assert_eq!(report["same_vocabulary"], false);
    let [before, after] = ["a", "b"].map(|side| number(&report[side]["bits_per_byte"]));
    assert!(after < 1.05 * before, "{report}");
}
