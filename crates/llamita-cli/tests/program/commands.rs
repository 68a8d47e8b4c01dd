//! What commands print, on a small model with random weights.

use std::process::Stdio;

use serde_json::Value;

use crate::files::{Folder, SMALL, byte_level_gguf, gguf, model, text, tokenizer};
use crate::program::{command, end, llamita, llamita_reads};

/// The keys of an object, in the order of the alphabet.
fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn run_reports_as_json() {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    let arguments = ["run", "-m", text(&model), "-n", "9", "-s", "7", "--json", "abc"];
    let ended = llamita(arguments);
    assert!(ended.stderr.starts_with("prefill "), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches('\n').count(), 1);
    let report = ended.json();
    assert_eq!(keys(&report), ["prompt", "seed", "stats", "stop", "text", "tokens"]);
    assert_eq!((&report["prompt"], &report["seed"]), (&"abc".into(), &7.into()));
    assert!(report["text"].as_str().unwrap().starts_with("abc"));
    assert!(["length", "end_of_text"].contains(&report["stop"].as_str().unwrap()));
    let stats = &report["stats"];
    assert_eq!(stats["threads"], 1);
    assert_eq!(stats["context"], SMALL.seq_len);
    let tokens = stats["prompt_tokens"].as_u64().unwrap() + stats["new_tokens"].as_u64().unwrap();
    assert_eq!(report["tokens"].as_array().unwrap().len() as u64, tokens);
    // The same seed tells the same story.
    assert_eq!(llamita(arguments).json()["tokens"], report["tokens"]);
}

#[test]
fn statistics_are_one_line_and_can_be_left_out() {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    let ended = llamita(["run", "-m", text(&model), "--seed", "3", "--threads", "2", "abc"]);
    for part in ["prefill ", "decode ", "first token", "memory ", "seed 3", "2 threads"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    assert_eq!(ended.stderr.matches('\n').count(), 1);
    assert!(ended.stdout.starts_with("abc") && ended.stdout.ends_with('\n'), "{:?}", ended.stdout);
    let quiet = llamita(["run", "-m", text(&model), "-q", "--seed", "3", "abc"]);
    assert_eq!(quiet.stderr, "");
    assert_eq!(quiet.stdout, ended.stdout);
    // Without a seed the line says which one would tell this story again.
    let first = llamita(["run", "-m", text(&model), "abc"]);
    let seed = first.stderr.split("seed ").nth(1).unwrap().split(',').next().unwrap();
    assert_eq!(llamita(["run", "-m", text(&model), "-s", seed, "abc"]).stdout, first.stdout);
}

#[test]
fn control_characters_stay_out_of_the_terminal() {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    // The prompt is printed as what the model says is.
    let prompt = "\u{1b}[31ma\u{7}\r\n\tb";
    let arguments = ["run", "-m", text(&model), "-n", "1", "-t", "0", "-q"];
    let told = llamita(arguments.iter().chain(&[prompt])).ok();
    assert!(told.starts_with("[31ma\r\n\tb"), "{told:?}");
    let report = llamita(arguments.iter().chain(&["--json", prompt])).json();
    assert!(report["text"].as_str().unwrap().starts_with(prompt), "{report}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    for arguments in [
        vec!["run", "-m", text(&model), "-n", "60"],
        vec!["run", "-m", text(&model), "--json"],
        vec!["inspect", text(&model)],
        vec!["tokenize", text(&model), "abc"],
        vec!["--help"],
    ] {
        // Gone before the program begins, so that it never wins the race.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = command(&arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = command(["run", "-m", text(&model), "abc"]);
    command.stdout(full);
    let ended = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.starts_with(b"error: cannot write to standard output"));
}

#[test]
fn a_model_may_be_an_argument_or_an_option() {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    let stories = folder.write("stories.txt", b"abc<|endoftext|>\n<|endoftext|>bca");
    let rest: [&[&str]; 4] = [
        &["inspect", "--json"],
        &["eval", "--text", text(&stories)],
        &["tokenize", "abc"],
        &["bench", "--repeat", "1", "--prompt-tokens", "3", "--tokens", "2"],
    ];
    let model = text(&model);
    for rest in rest {
        let (name, rest) = rest.split_first().unwrap();
        llamita([&[*name, model], rest].concat()).ok();
        llamita([&[*name, "-m", model], rest].concat()).ok();
        llamita([&[*name], rest, &["--model", model]].concat()).ok();
        llamita([&[*name, model, "-m", model], rest].concat()).refused(2, &["two models", "expected one"]);
    }
}

#[test]
fn inspect_shows_a_checkpoint() {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    let report = llamita(["inspect", text(&model), "--json"]).json();
    assert_eq!(report["kind"], "llama2.c version 0");
    assert_eq!(report["shape"]["n_kv_heads"], 2);
    assert_eq!(report["shape"]["shared_classifier"], true);
    // Of the embedding, norms, attention and feed-forward tensors.
    let attention = 2 * (2 * 16 * 16 + 2 * 16 * 8);
    let parameters = 270 * 16 + 5 * 16 + attention + 2 * 3 * 16 * 24;
    assert_eq!(report["parameters"], parameters);
    assert_eq!(report["bytes_per_token"], 4 * parameters);
    let memory = &report["memory"];
    assert_eq!(memory["key_value_cache"], 4 * 2 * 2 * 64 * 8);
    let parts: u64 =
        ["key_value_cache", "activations", "logits"].iter().map(|part| memory[part].as_u64().unwrap()).sum();
    assert_eq!(memory["state"], parts);
    assert_eq!(report["tokenizer"]["vocab_size"], 270);
    assert_eq!(report["tokenizer"]["bos"], 1);
    let text = llamita(["inspect", text(&model)]).ok();
    for part in ["llama2.c version 0", "key/value cache", "feed-forward", "270 tokens"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn inspect_needs_no_tokenizer() {
    let folder = Folder::new();
    let separate = llamita::Config { shared_classifier: false, ..SMALL };
    let model = folder.write("model.bin", &model(&separate));
    let report = llamita(["inspect", text(&model), "--json"]).json();
    assert_eq!(report["tokenizer"], Value::Null);
    assert!(report["no_tokenizer"].as_str().unwrap().contains("270 tokens"), "{report}");
    // All weights but the embedding, of which one row is read.
    let all = report["parameters"].as_u64().unwrap();
    assert_eq!(report["bytes_per_token"], 4 * (all - 269 * 16));
}

#[test]
fn gguf_brings_its_tokenizer() {
    let folder = Folder::new();
    let gguf = folder.write("model.gguf", &gguf(64, "a\u{1b}[31m name"));
    let bin = Folder::with_model();
    let tell = |model: &str| llamita(["run", "-m", model, "-s", "5", "-n", "30", "-q", "abc"]).ok();
    assert_eq!(tell(text(&gguf)), tell(text(&bin.path("model.bin"))));
    let shown = llamita(["inspect", text(&gguf)]).ok();
    assert!(shown.contains("in the file, 270 tokens"), "{shown}");
    assert!(shown.contains("a\\u{1b}[31m name") && !shown.contains('\u{1b}'), "{shown:?}");
    // A tokenizer that is named comes before the model's own, and must fit as well.
    let other = folder.write("tokenizer.bin", &tokenizer(265));
    llamita(["run", "-m", text(&gguf), "--tokenizer", text(&other)]).refused(1, &["265", "270"]);
}

#[test]
fn byte_level_models_tell_stories() {
    let folder = Folder::new();
    for add_bos in [false, true] {
        let model = folder.write("model.gguf", &byte_level_gguf(add_bos));
        let model = text(&model);
        // The letters of all bytes come first, then "ab", "abc" and so on; 268 is BOS.
        let bos = if add_bos { "268 " } else { "" };
        let ids = llamita(["tokenize", model, "abcd 1é<|end|>ab"]).ok();
        assert_eq!(ids, format!("{bos}258 32 49 195 169 60 124 101 110 100 124 62 256\n"));
        let report = llamita(["run", "-m", model, "-s", "5", "-n", "20", "--json", "-q", "abc é"]).json();
        assert!(report["text"].as_str().unwrap().starts_with("abc é"), "{report}");
        assert_eq!(report["stats"]["prompt_tokens"], if add_bos { 5 } else { 4 });
        // Without a prompt, BOS is where a story begins, whatever texts begin with.
        let report = llamita(["run", "-m", model, "-s", "5", "-n", "20", "--json", "-q"]).json();
        assert_eq!(report["tokens"][0], 268);
        let shown = llamita(["inspect", model]).ok();
        assert!(shown.contains("in the file, 270 tokens"), "{shown}");
        let stories = folder.write("stories.txt", "abc é<|endoftext|>x".as_bytes());
        let measured = llamita(["eval", model, "--text", text(&stories), "--json"]).json();
        assert_eq!(measured["tokens"], if add_bos { 5 } else { 3 });
    }
}

#[test]
fn a_long_context_is_made_on_demand() {
    let folder = Folder::new();
    let gguf = folder.write("model.gguf", &gguf(100_000, "long"));
    let ended = llamita(["run", "-m", text(&gguf), "-n", "2", "--json", "abc"]);
    assert!(
        ended.stderr.starts_with("note: a context of 2048 tokens is used, of 100000"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.json()["stats"]["context"], 2048);
    let ended = llamita(["run", "-m", text(&gguf), "-n", "2", "--json", "-q", "--context", "99", "abc"]);
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.json()["stats"]["context"], 99);
}

#[test]
fn eval_counts_what_it_predicts() {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    let stories = format!("\n abc \n<|endoftext|>\n\n<|endoftext|>{}<|endoftext|>", "é".repeat(100));
    let stories = folder.write("stories.txt", stories.as_bytes());
    let eval = |more: &[&str]| {
        llamita(["eval", text(&model), "--text", text(&stories), "--json"].iter().chain(more)).json()
    };
    let all = eval(&[]);
    assert_eq!(all["stories"], 2);
    assert_eq!(all["cut"], 1);
    // A space, three letters; a space that is not text, and 62 bytes.
    assert_eq!(all["tokens"], 4 + 63);
    assert_eq!(all["bytes"], 3 + 62);
    let (nll, perplexity) = (all["nll_per_token"].as_f64().unwrap(), all["perplexity"].as_f64().unwrap());
    assert!((nll.exp() - perplexity).abs() < 1e-9 * perplexity);
    let bits = nll * 67.0 / std::f64::consts::LN_2 / 65.0;
    assert!((all["bits_per_byte"].as_f64().unwrap() - bits).abs() < 1e-9 * bits);
    assert_eq!(eval(&["--limit", "1"])["tokens"], 4);
    assert_eq!(eval(&["--context", "3"])["tokens"], 4);
    assert_eq!(eval(&["--threads", "2"])["nll_per_token"], all["nll_per_token"]);
    let shown = llamita(["eval", text(&model), "--text", text(&stories)]);
    assert_eq!(shown.stderr, "");
    assert!(shown.ok().contains("nats per token"));
}

#[test]
fn tokenize_shows_ids_and_pieces() {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    assert_eq!(llamita(["tokenize", text(&model), "ab\n"]).ok(), "1 259 260 261 13\n");
    assert_eq!(llamita(["tokenize", text(&model), ""]).ok(), "1\n");
    assert_eq!(llamita_reads(["tokenize", "-m", text(&model), "-"], b"ab\n\n").ok(), "1 259 260 261 13\n");
    let lines = "     1  <s>\n   259   \n   260  a\n    13  <0x0A>\n";
    assert_eq!(llamita(["tokenize", text(&model), "-v", "a\n"]).ok(), lines);
    let report = llamita(["tokenize", text(&model), "--json", "a"]).json();
    assert_eq!(report, serde_json::json!({ "tokens": [1, 259, 260], "pieces": ["<s>", " ", "a"] }));
}

#[test]
fn bench_needs_no_tokenizer() {
    let folder = Folder::new();
    let model = folder.write("model.bin", &model(&SMALL));
    let sizes = ["--repeat", "3", "--prompt-tokens", "20", "--tokens", "10"];
    for weights in ["auto", "mapped", "huge-pages"] {
        let with = ["bench", text(&model), "--json", "--threads", "2", "--weights", weights];
        let report = llamita(with.iter().chain(&sizes)).json();
        assert_eq!(report["threads"], 2);
        for rates in [&report["prefill"], &report["decode"]] {
            let rate = |name: &str| rates[name].as_f64().unwrap();
            assert!(rate("min") > 0.0 && rate("min") <= rate("median") && rate("median") <= rate("max"));
        }
        let parts = report["components"].as_array().unwrap();
        let names: Vec<_> = parts.iter().map(|part| part["name"].as_str().unwrap()).collect();
        let expected =
            ["attention products", "attention", "feed-forward", "norm and rope", "classifier", "sampling"];
        assert_eq!(names, expected);
        for share in ["prefill_share", "decode_share"] {
            let sum: f64 = parts.iter().map(|part| part[share].as_f64().unwrap()).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        }
    }
    let shown = llamita(["bench", text(&model)].iter().chain(&sizes)).ok();
    for part in ["prefill", "decode", "median", "waiting"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn help_names_every_flag() {
    let help = |command: &str| llamita([command, "--help"]).ok();
    for flag in [
        "--model",
        "--tokenizer",
        "--max-tokens",
        "--steps",
        "--temperature",
        "--top-p",
        "--top-k",
        "--min-p",
        "--repeat-penalty",
        "--seed",
        "--threads",
        "--context",
        "--json",
        "--quiet",
    ] {
        assert!(help("run").contains(flag), "{flag}");
    }
    for command in ["inspect", "eval", "tokenize", "bench"] {
        assert!(help(command).contains("--model"), "{command}");
    }
    assert!(llamita(["--version"]).ok().starts_with("llamita "));
    let nothing = llamita([""; 0]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(2), ""));
    assert!(nothing.stderr.contains("Usage:"));
    assert!(end(command(["-V"])).ok().contains('.'));
}
