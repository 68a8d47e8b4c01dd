//! Two models on one text.

use llamita::weights::{Matrix, Tensor};
use serde_json::Value;

use crate::files::{Folder, SMALL, data, gguf, model, model_with, text, tokenizer};
use crate::program::{Ended, llamita};

const STORIES: &[u8] = b"abc abc<|endoftext|>\n<|endoftext|>bca b <|endoftext|>aaaa";

/// Compares models of a folder on some stories.
fn compare(folder: &Folder, a: &str, b: &str, more: &[&str]) -> Ended {
    let stories = folder.write("stories.txt", STORIES);
    let [a, b] = [a, b].map(|name| folder.path(name));
    llamita(["compare", text(&a), text(&b), "--text", text(&stories)].iter().chain(more))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The small model, with one weight of its last layer changed.
fn changed() -> Vec<u8> {
    model_with(Tensor::Matrix(Matrix::W2(1)), 9.0)
}

#[test]
fn a_model_is_as_good_as_itself() {
    let folder = Folder::with_model();
    folder.write("model.gguf", &gguf(64, "same"));
    // Spaces are written in another way in GGUF, and are the same all the same.
    for (a, b) in [("model.bin", "model.bin"), ("model.bin", "model.gguf"), ("model.gguf", "model.bin")] {
        let report = compare(&folder, a, b, &["--json"]).json();
        assert_eq!(report["a"]["nll_per_token"], report["b"]["nll_per_token"]);
        assert_eq!(
            report["perplexity_change"],
            serde_json::json!({ "percent": 0.0, "interval": [0.0, 0.0] })
        );
        assert_eq!(report["agreement"]["share"], 1.0);
        assert_eq!((number(&report["kl"]["mean"]), number(&report["kl"]["max"])), (0.0, 0.0));
        assert_eq!(report["stories"], 3);
        assert_eq!(report["same_vocabulary"], true);
    }
}

#[test]
fn both_are_measured_as_eval_measures_them() {
    let folder = Folder::with_model();
    folder.write("changed.bin", &changed());
    let report = compare(&folder, "model.bin", "changed.bin", &["--json", "--limit", "2"]).json();
    let stories = folder.path("stories.txt");
    for (side, name) in [("a", "model.bin"), ("b", "changed.bin")] {
        let path = folder.path(name);
        let eval = llamita(["eval", text(&path), "--text", text(&stories), "--limit", "2", "--json"]).json();
        for key in ["tokens", "context"] {
            assert_eq!(report[side][key], eval[key], "{side} {key}");
        }
        for key in ["nll_per_token", "perplexity", "bits_per_byte"] {
            let (found, expected) = (number(&report[side][key]), number(&eval[key]));
            assert!((found - expected).abs() < 1e-12 * expected, "{side} {key}: {found}, {expected}");
        }
        assert_eq!(report["bytes"], eval["bytes"]);
        assert_eq!(report["stories"], 2);
    }
    let ratio = number(&report["b"]["perplexity"]) / number(&report["a"]["perplexity"]);
    let change = &report["perplexity_change"];
    assert!((number(&change["percent"]) - 100.0 * (ratio - 1.0)).abs() < 1e-9, "{change}");
    assert!(change["interval"][0].as_f64() < change["percent"].as_f64(), "{change}");
    let kl = &report["kl"];
    assert!(number(&kl["mean"]) > 0.0, "{kl}");
    for pair in ["median", "p99", "max"].windows(2) {
        assert!(number(&kl[pair[0]]) <= number(&kl[pair[1]]), "{kl}");
    }
    let place = &kl["at"];
    assert!((1..=2).contains(&place["story"].as_u64().unwrap()), "{place}");
    // The place is where the text says that it is.
    let story = ["abc abc", "bca b"][place["story"].as_u64().unwrap() as usize - 1];
    let seen = [&place["after"], &place["text"]].map(|part| part.as_str().unwrap()).concat();
    assert!(story.starts_with(&seen), "{place}: {seen:?}");
}

#[test]
fn threads_and_context_are_those_asked_for() {
    let folder = Folder::with_model();
    folder.write("changed.bin", &changed());
    let with =
        |more: &[&str]| compare(&folder, "model.bin", "changed.bin", &[&["--json"], more].concat()).json();
    let (one, two) = (with(&["--threads", "1"]), with(&["--threads", "2"]));
    assert_eq!(one["kl"], two["kl"]);
    assert_eq!((&one["a"]["threads"], &two["b"]["threads"]), (&1.into(), &2.into()));
    let cut = with(&["--context", "3"]);
    assert_eq!((&cut["cut"], &cut["a"]["tokens"]), (&3.into(), &6.into()));
}

#[test]
fn caches_are_compared_on_one_model() {
    let folder = Folder::with_model();
    let kl = |caches: &[&str]| {
        let more: Vec<_> = caches.iter().flat_map(|cache| ["--kv", cache]).chain(["--json"]).collect();
        number(&compare(&folder, "model.bin", "model.bin", &more).json()["kl"]["max"])
    };
    assert_eq!((kl(&["q8"]), kl(&["f32", "f32"])), (0.0, 0.0));
    assert!(kl(&["f32", "q8"]) > 0.0);
    let three = ["--kv", "q8", "--kv", "q8", "--kv", "q8"];
    compare(&folder, "model.bin", "model.bin", &three)
        .refused(2, &["--kv is given 3 times", "once or twice"]);
}

#[test]
fn a_report_is_for_people_too() {
    let folder = Folder::with_model();
    folder.write("changed.bin", &changed());
    let ended = compare(&folder, "model.bin", "changed.bin", &[]);
    assert_eq!(ended.stderr, "");
    let shown = ended.ok();
    for part in
        ["changed.bin, llama2.c version 0", "perplexity", "same greedy token", "99th percentile", "A expects"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn other_vocabularies_are_compared_by_byte() {
    let folder = Folder::with_model();
    let other = llamita::Config { vocab_size: 265, ..SMALL };
    folder.write("other.bin", &model(&other));
    folder.write("tok265.bin", &tokenizer(265));
    let report = compare(&folder, "model.bin", "other.bin", &["--json"]).json();
    assert_eq!(report["same_vocabulary"], false);
    assert_eq!((&report["kl"], &report["agreement"]), (&Value::Null, &Value::Null));
    let ratio = number(&report["b"]["perplexity_per_byte"]) / number(&report["a"]["perplexity_per_byte"]);
    assert!((number(&report["perplexity_change"]["percent"]) - 100.0 * (ratio - 1.0)).abs() < 1e-9);
    let bits = number(&report["b"]["bits_per_byte"]);
    assert!((bits.exp2() - number(&report["b"]["perplexity_per_byte"])).abs() < 1e-9 * bits.exp2());
    let shown = compare(&folder, "model.bin", "other.bin", &[]).ok();
    assert!(shown.contains("270 tokens in A, 265 in B: compared by byte"), "{shown}");
    // Both read the same text, whoever has to cut it.
    folder.write("other.bin", &model(&llamita::Config { seq_len: 32, ..other }));
    let long = folder.write("long.txt", "é".repeat(100).as_bytes());
    let [a, b] = ["model.bin", "other.bin"].map(|name| folder.path(name));
    let report = llamita(["compare", text(&a), text(&b), "--text", text(&long), "--json"]).json();
    assert_eq!(report["cut"], 1);
    // After BOS and a space there is room for 30 bytes.
    assert_eq!(report["bytes"], 30);
    for side in ["a", "b"] {
        assert_eq!(report[side]["tokens"], 31, "{report}");
    }
}

#[test]
fn vocabularies_of_one_size_must_be_the_same() {
    let folder = Folder::with_model();
    let bytes = tokenizer(270);
    // The last piece is written otherwise.
    let mut other = bytes.clone();
    *other.last_mut().unwrap() = b'!';
    let [first, second] = [folder.write("first.bin", &bytes), folder.write("second.bin", &other)];
    let tokenizers = ["--tokenizer", text(&first), "--tokenizer", text(&second)];
    let refused = compare(&folder, "model.bin", "model.bin", &tokenizers);
    refused.refused(1, &["token 269 is", "model.bin", "expected one vocabulary", "--tokenizer"]);
    // Once named, it is that of both.
    let both = compare(&folder, "model.bin", "model.bin", &tokenizers[2..]);
    assert!(both.ok().contains("perplexity"));
    let three = [&tokenizers[..], &tokenizers[..2]].concat();
    compare(&folder, "model.bin", "model.bin", &three).refused(2, &["3 tokenizers", "one or two"]);
    // The same pieces, but others come first.
    let merges = |scores: [f32; 2]| {
        let mut bytes = tokenizer(268);
        for (piece, score) in ["ab", "bc"].iter().zip(scores) {
            bytes.extend([&score.to_le_bytes()[..], &2_i32.to_le_bytes(), piece.as_bytes()].concat());
        }
        bytes
    };
    let first = folder.write("first.bin", &merges([1.0, 2.0]));
    let second = folder.write("second.bin", &merges([2.0, 1.0]));
    let tokenizers = ["--tokenizer", text(&first), "--tokenizer", text(&second)];
    compare(&folder, "model.bin", "model.bin", &tokenizers)
        .refused(1, &["the same tokens but cut story 1", "--tokenizer"]);
}

#[test]
fn a_plot_is_drawn() {
    let folder = Folder::with_model();
    folder.write("changed.bin", &changed());
    let plot = folder.path("plot.svg");
    compare(&folder, "model.bin", "changed.bin", &["--plot", text(&plot)]).ok();
    let svg = std::fs::read_to_string(&plot).unwrap();
    for part in ["<svg ", "A model.bin, B changed.bin: perplexity", "Divergence of the next token", "</svg>"]
    {
        assert!(svg.contains(part), "{part}: {svg}");
    }
    // Another run takes its place, and leaves nothing else behind.
    compare(&folder, "model.bin", "model.bin", &["--plot", text(&plot)]).ok();
    assert_ne!(std::fs::read_to_string(&plot).unwrap(), svg);
    let files = std::fs::read_dir(folder.path("")).unwrap().count();
    assert_eq!(files, ["model.bin", "tokenizer.bin", "changed.bin", "stories.txt", "plot.svg"].len());
}

#[test]
fn bad_input_is_refused() {
    let folder = Folder::with_model();
    folder.write("nan.bin", &model_with(Tensor::Matrix(Matrix::W2(1)), f32::NAN));
    compare(&folder, "model.bin", "nan.bin", &[]).refused(1, &["nan.bin", "not finite"]);
    compare(&folder, "nan.bin", "model.bin", &[]).refused(1, &["nan.bin", "not finite"]);
    compare(&folder, "model.bin", "none.bin", &[]).refused(1, &["none.bin", "no such file"]);
    compare(&folder, "model.bin", "model.bin", &["--context", "1"]).refused(2, &["--context is 1"]);
    compare(&folder, "model.bin", "model.bin", &["--context", "65"]).refused(2, &["--context is 65"]);
    let model = folder.path("model.bin");
    compare(&folder, "model.bin", "model.bin", &["--plot", text(&model)])
        .refused(2, &["--plot names", "is read"]);
    let nowhere = folder.path("nowhere/plot.svg");
    compare(&folder, "model.bin", "model.bin", &["--plot", text(&nowhere)])
        .refused(1, &["plot.svg", "cannot be written", "check"]);
    llamita(["compare", text(&model), "--text", "x"]).refused(2, &["<B>"]);
    llamita(["compare", text(&model), text(&model)]).refused(2, &["--text"]);
}

#[test]
fn a_model_is_compared_as_it_was_measured() {
    let Some(model) = data("data/models/stories260K.bin") else { return };
    let stories = data("data/tinystories/valid.txt").unwrap();
    let v1 = data("data/models/stories260K-v1.bin").unwrap();
    let arguments =
        ["compare", text(&model), text(&v1), "--text", text(&stories), "--limit", "100", "--json"];
    let report = llamita(arguments).json();
    for side in ["a", "b"] {
        assert!((number(&report[side]["nll_per_token"]) - 1.39321).abs() < 0.0005, "{report}");
        assert_eq!(report[side]["tokens"], 37_867);
    }
    assert_eq!(report["bytes"], 77_246);
    assert_eq!(number(&report["kl"]["max"]), 0.0);
}
