//! The models that are part of the program.

use std::fs;
use std::path::PathBuf;

use crate::files::SMALL;
use crate::files::{Folder, model, text};
use crate::program::llamita;

/// What a model tells, by its file in `models/golden`.
pub fn golden(name: &str) -> String {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/golden"));
    fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn they_tell_their_stories_without_a_file() {
    let tell = |more: &[&str]| llamita(["run", "-q"].iter().chain(more)).ok();
    assert_eq!(tell(&["-t", "0"]), golden("tiny-greedy.txt"));
    let seed = ["-t", "0.8", "-s", "42", "The llama was hungry."];
    for name in ["tiny", "nano"] {
        for threads in ["1", "2", "3"] {
            let greedy = tell(&["-m", name, "-t", "0", "--threads", threads]);
            assert_eq!(greedy, golden(&format!("{name}-greedy.txt")), "{name}, {threads} threads");
        }
        let told = tell(&[&["-m", name], &seed[..]].concat());
        assert_eq!(told, golden(&format!("{name}-seed42.txt")), "{name}");
    }
}

#[test]
fn every_command_knows_them() {
    let models = llamita(["models", "--json"]).json();
    for entry in models.as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        let facts = llamita(["inspect", name, "--json"]).json();
        assert_eq!((&facts["parameters"], &facts["file_bytes"]), (&entry["parameters"], &entry["bytes"]));
    }
    assert_eq!(models[0]["name"], "tiny");
    // What they may be at most: the second is for chips.
    let bytes = |index: usize| models[index]["bytes"].as_u64().unwrap();
    assert!(bytes(0) <= 1_200_000 && bytes(1) <= 300_000, "{models}");
    assert!(llamita(["models"]).ok().contains("nano"));
    assert!(llamita(["inspect"]).ok().contains("1,054,080"));
    let ids = |arguments: &[&str]| llamita(["tokenize"].iter().chain(arguments)).ok();
    assert_eq!(ids(&["tiny", "a llama"]), ids(&["-m", "nano", "a llama"]));
    assert_eq!(llamita(["bench", "nano", "--tokens", "3", "--repeat", "1", "--json"]).code, Some(0));
}

#[test]
fn they_can_be_converted_and_compared() {
    let folder = Folder::new();
    let [out, stories] = ["out.gguf", "stories.txt"].map(|name| folder.path(name));
    fs::write(&stories, golden("tiny-greedy.txt")).unwrap();
    let report = llamita(["convert", "nano", text(&out), "--quant", "f32", "--json"]).json();
    assert_eq!(report["input"]["bytes"], llamita(["models", "--json"]).json()[1]["bytes"], "{report}");
    let report = llamita(["compare", "nano", text(&out), "--text", text(&stories), "--json"]).json();
    // Eight bits as floats are the same weights, but activations keep all of theirs.
    assert!(report["kl"]["mean"].as_f64().unwrap() < 0.01, "{report}");
    assert_eq!(report["same_vocabulary"], true);
}

#[test]
fn a_file_of_their_name_comes_first() {
    let folder = Folder::with_model();
    fs::write(folder.path("tiny"), model(&SMALL)).unwrap();
    let facts = llamita(["inspect", text(&folder.path("tiny")), "--json"]).json();
    assert_eq!(facts["shape"]["vocab_size"], SMALL.vocab_size);
    llamita(["convert", "nano", text(&folder.path("o.gguf")), "--tokenizer", text(&folder.path("no.bin"))])
        .refused(1, &["no.bin"]);
}
