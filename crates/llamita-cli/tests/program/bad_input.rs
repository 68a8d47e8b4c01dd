//! Bad input ends in one line that helps, and in a code that says whose fault it is: 2 for the command line,
//! 1 for all else.

use llamita::weights::Tensor;

use crate::files::{Folder, NORM, SMALL, model, model_with, text, tokenizer};
use crate::program::{Ended, llamita, llamita_reads};

/// Runs a model file with these bytes, beside a tokenizer that fits.
fn run_model(bytes: &[u8]) -> Ended {
    let folder = Folder::with_model();
    let model = folder.write("model.bin", bytes);
    llamita(["run", "-m", text(&model), "-q"])
}

/// Runs the small model with these options more.
fn run_with(options: &[&str]) -> Ended {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    llamita(["run", "-m", text(&model)].iter().chain(options))
}

#[test]
fn what_is_needed_must_be_named() {
    llamita(["tokenize", "model.bin"]).refused(2, &["a model and a text are expected"]);
    llamita(["tokenize"]).refused(2, &["a model and a text are expected"]);
    llamita(["eval", "model.bin"]).refused(2, &["--text"]);
}

#[test]
fn a_model_must_be_a_file() {
    let folder = Folder::with_model();
    let missing = folder.path("missing.bin");
    let empty = folder.write("empty.bin", &[]);
    let here = folder.path("");
    for command in ["run", "inspect", "bench"] {
        llamita([command, "-m", text(&missing)]).refused(1, &["missing.bin", "no such file", "check"]);
        llamita([command, "-m", text(&here)]).refused(1, &["a directory, expected a file"]);
        llamita([command, "-m", text(&empty)]).refused(1, &["empty", "again"]);
        #[cfg(unix)]
        llamita([command, "-m", "/dev/null"]).refused(1, &["/dev/null", "expected a file"]);
    }
    // An error stays one line whatever a file is called.
    llamita(["run", "-m", "a\nb\u{1b}[31m"]).refused(1, &["a\\nb\\u{1b}[31m: there is no such file"]);
}

#[test]
fn a_model_must_be_whole() {
    let whole = model(&SMALL);
    for len in [1, 4, 27, 28, 29, 1000, whole.len() / 2, whole.len() - 1] {
        run_model(&whole[..len]).refused(1, &["model.bin", "again"]);
    }
    run_model(&whole[..whole.len() - 1]).refused(1, &["truncated", &whole.len().to_string()]);
    run_model(&[&whole[..], &[0]].concat()).refused(1, &["appended"]);
}

#[test]
fn a_model_must_be_of_a_known_kind() {
    run_model(&b"PK\x03\x04 and so on, as zip archives do".repeat(9)).refused(1, &["zip", "export.py"]);
    run_model(&b"<!DOCTYPE html><title>Sign in</title>".repeat(9)).refused(1, &["web page"]);
    run_model(&b"the quick brown fox jumps over the lazy dog".repeat(9)).refused(1, &["not a model file"]);
    run_model(&tokenizer(270)).refused(1, &["tokenizer"]);
    let mut version = [0; 256];
    version[..4].copy_from_slice(b"24ka");
    version[4] = 9;
    run_model(&version).refused(1, &["version 9", "supported are 0, 1 and 2"]);
    run_model(&[&b"GGUF\x09\0\0\0"[..], &[0; 100]].concat()).refused(1, &["GGUF version 9"]);
    run_model(b"GGUF\x03\0\0\0\xff\xff\xff\xff").refused(1, &["truncated"]);
}

#[test]
fn a_header_must_make_sense() {
    let with = |field: usize, value: i32| {
        let mut bytes = model(&SMALL);
        bytes[4 * field..][..4].copy_from_slice(&value.to_le_bytes());
        run_model(&bytes)
    };
    with(3, 0).refused(1, &["n_heads is 0"]);
    with(4, 3).refused(1, &["3 key/value heads do not divide 4 heads"]);
    with(2, 0).refused(1, &["n_layers is 0"]);
    with(0, 1 << 23).refused(1, &["bytes"]);
    for field in 0..7 {
        for value in [i32::MIN, -1, 0, 1, i32::MAX] {
            let ended = with(field, value);
            // A vocabulary of another sign means a classifier of its own, which the file lacks.
            ended.refused(1, &["model.bin"]);
        }
    }
}

#[test]
fn weights_must_be_numbers() {
    run_model(&model_with(NORM, f32::NAN)).refused(1, &["infinite or not a number", "blk.1"]);
    let folder = Folder::with_model();
    // All of the last matrix counts for every token.
    let bytes = model_with(Tensor::Matrix(llamita::weights::Matrix::W2(1)), f32::NAN);
    let model = folder.write("model.bin", &bytes);
    let ended = llamita(["run", "-m", text(&model), "-q"]);
    assert_eq!(ended.code, Some(1));
    let message = format!("error: {}: the logits are not finite", text(&model));
    assert!(ended.stderr.starts_with(&message), "{}", ended.stderr);
    let stories = folder.write("stories.txt", b"abc");
    llamita(["eval", text(&model), "--text", text(&stories)]).refused(1, &["model.bin", "not finite"]);
}

#[test]
fn a_tokenizer_must_fit() {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    let run = |tokenizer: &str| llamita(["run", "-m", text(&model), "--tokenizer", tokenizer]);
    let other = folder.write("other.bin", &tokenizer(262));
    run(text(&other)).refused(1, &["other.bin", "262 tokens", "270", "--tokenizer"]);
    let bytes = tokenizer(270);
    let broken = folder.write("broken.bin", &bytes[..bytes.len() - 1]);
    run(text(&broken)).refused(1, &["broken.bin", "ends within token 269", "again"]);
    run(text(&model)).refused(1, &["model.bin"]);
    run(text(&folder.path("none.bin"))).refused(1, &["none.bin", "no such file"]);
    run(text(&folder.path(""))).refused(1, &["a directory"]);

    std::fs::remove_file(folder.path("tokenizer.bin")).unwrap();
    let run = || llamita(["run", "-m", text(&model)]);
    run().refused(1, &["no tokenizer for", "270 tokens", "no tokenizer.bin or tok*.bin", "--tokenizer"]);
    folder.write("tok-other.bin", &tokenizer(262));
    folder.write("tok-broken.bin", b"?");
    std::fs::create_dir(folder.path("tok-folder.bin")).unwrap();
    let seen =
        ["tok-other.bin (262 tokens)", "tok-broken.bin (no tokenizer)", "tok-folder.bin (not readable)"];
    run().refused(1, &seen);
}

#[test]
fn a_prompt_must_fit() {
    let prompt = "a".repeat(100);
    run_with(&[&prompt]).refused(1, &["102 tokens", "64", "shorten the prompt"]);
    run_with(&["--json", &prompt]).refused(1, &["102 tokens"]);
    run_with(&["--context", "8", "abcdefgh"]).refused(1, &["10 tokens", "8", "--context"]);
    run_with(&["--steps", "5", "abcdefgh"]).refused(1, &["9 tokens", "5", "--steps"]);
    // As long as the context is not too long.
    assert_eq!(run_with(&["--context", "10", "abcdefgh"]).code, Some(0));
    assert_eq!(run_with(&["--steps", "9", "-q", "abcdefgh"]).ok(), "abcdefgh\n");
}

#[cfg(unix)]
#[test]
fn a_prompt_must_be_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    let bytes = OsStr::from_bytes(b"abc\xff");
    let parts = ["0xff at byte 3", "expected UTF-8", "iconv"];
    llamita(["run".as_ref(), "-m".as_ref(), model.as_os_str(), bytes]).refused(2, &parts);
    llamita(["tokenize".as_ref(), model.as_os_str(), bytes]).refused(2, &parts);
    llamita_reads(["run", "-m", text(&model), "-"], b"abc\xff").refused(1, &parts);
    let stories = folder.write("stories.txt", b"abc\xff");
    llamita(["eval", text(&model), "--text", text(&stories)]).refused(1, &parts);
}

#[test]
fn options_must_be_in_range() {
    for value in ["7", "-1", "nan", "inf"] {
        run_with(&["--top-p", value]).refused(2, &["--top-p is", "expected 0 to 1"]);
        run_with(&["-t", value.replace('7', "-7").as_str()])
            .refused(2, &["--temperature is", "expected 0, or 0.001 to 1000"]);
        run_with(&["--min-p", value]).refused(2, &["--min-p is", "expected 0 to 1"]);
    }
    run_with(&["--repeat-penalty", "0"]).refused(2, &["--repeat-penalty is 0, expected 0.01 to 100"]);
    run_with(&["--top-p", "much"]).refused(2, &["much", "--top-p"]);
    run_with(&["--seed", "0"]).refused(2, &["--seed", "0 is not in 1"]);
    run_with(&["--seed", "-5"]).refused(2, &["-5"]);
    for value in ["0", "1.5", "many", "17"] {
        run_with(&["--threads", value]).refused(2, &["--threads", value, "1 to 16"]);
    }
    for option in ["--steps", "--max-tokens", "--context"] {
        for value in ["0", "1.5", "many"] {
            run_with(&[option, value]).refused(2, &[option, value, "1 or more"]);
        }
    }
    run_with(&["--context", "65"]).refused(2, &["--context is 65, expected 1 to 64"]);
    run_with(&["-n", "5", "--steps", "5"]).refused(2, &["--max-tokens", "--steps", "cannot be used with"]);
    run_with(&["a", "b"]).refused(2, &["unexpected argument 'b'"]);
    run_with(&["--topp", "1"]).refused(2, &["--topp", "--top-p"]);
    llamita(["tell"]).refused(2, &["unrecognized subcommand 'tell'", "--help"]);
}

#[test]
fn stories_must_be_there() {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    let eval = |name: &str, more: &[&str]| {
        llamita(["eval", text(&model), "--text", text(&folder.path(name))].iter().chain(more))
    };
    eval("none.txt", &[]).refused(1, &["none.txt", "no such file"]);
    folder.write("empty.txt", b"");
    eval("empty.txt", &[]).refused(1, &["empty.txt", "empty"]);
    folder.write("blank.txt", b" <|endoftext|>\n<|endoftext|>");
    eval("blank.txt", &[]).refused(1, &["blank.txt", "no story"]);
    folder.write("one.txt", b"abc");
    eval("one.txt", &["--context", "1"]).refused(2, &["--context is 1, expected 2 or more"]);
    eval("one.txt", &["--limit", "0"]).refused(2, &["--limit", "1 or more"]);
}

#[test]
fn a_benchmark_must_fit_the_context() {
    let folder = Folder::with_model();
    let model = folder.path("model.bin");
    llamita(["bench", text(&model)]).refused(2, &["--prompt-tokens", "128", "64"]);
    llamita(["bench", text(&model), "--prompt-tokens", "60", "--tokens", "60"])
        .refused(2, &["--tokens", "68", "64"]);
    llamita(["bench", text(&model), "--weights", "floppy"]).refused(2, &["floppy", "mapped", "huge-pages"]);
}
