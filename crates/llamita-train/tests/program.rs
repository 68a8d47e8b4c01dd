//! The program from outside: it trains, is killed and goes on, and its models tell stories.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use llamita::weights::{Matrix, Tensor};
use llamita_convert::source::Checkpoint;
use llamita_convert::{Source, quantize_rows};
use llamita_kernels::quantized::Quant;
use serde_json::Value;

/// A folder of its own for a test, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("llamita-train-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("stories.txt"), stories()).unwrap();
        Self(path)
    }

    fn settings(&self, more: &str) {
        let model = "[model]\nvocab_size = 310\ndim = 16\nhidden_dim = 32\nn_layers = 2\ncontext = 64\n";
        let training = "[training]\nbatch = 4\nsequence = 32\nwarmup = 5\nvalidate_every = 40\nvalidation_tokens = 512\n";
        fs::write(self.0.join("settings.toml"), format!("{model}{training}{more}")).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamita-train"));
        command.current_dir(&self.0).args(arguments);
        command
    }

    fn train(&self, output: &str, more: &[&str]) -> Command {
        let all = ["--text", "stories.txt", "--config", "settings.toml", "--threads", "2", "-o", output];
        self.command(&[&all, more].concat())
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap()
    }

    /// What the log says of each step.
    fn log(&self, output: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.0.join(output).join("log.jsonl")).unwrap_or_default();
        // The last line may be under way.
        text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Stories about who goes where with what.
fn stories() -> String {
    let (who, what, place) =
        (["Lily", "Tom", "Sam", "Mia"], ["ball", "kite", "book"], ["park", "house", "lake"]);
    let story = |i: usize| {
        let (who, what, place) = (who[i % 4], what[i / 2 % 3], place[i / 5 % 3]);
        format!(
            "Once upon a time, {who} went to the {place} with a {what}. {who} was happy. The {what} was red."
        )
    };
    (0..120).map(story).collect::<Vec<_>>().join("\n<|endoftext|>\n")
}

fn ok(command: &mut Command) {
    let output: Output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn refused(command: &mut Command, parts: &[&str]) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !errors.contains("panicked"), "{parts:?}: {errors}");
    parts.iter().for_each(|part| assert!(errors.contains(part), "{part}: {errors}"));
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{value} has no {key}"))
}

#[test]
fn training_goes_on_where_it_was_killed() {
    let folder = Folder::new("resume");
    folder.settings("steps = 200\ndropout = 0.1\ncheckpoint_minutes = 0.002\noptimizer = \"muon\"\n");
    ok(&mut folder.train("whole", &[]));

    let mut child = folder.train("killed", &[]).stderr(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    while folder.log("killed").len() < 100 {
        assert!(begin.elapsed() < Duration::from_secs(300), "training does not get on");
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(folder.log("killed").len() < 200, "it was not killed in time");
    ok(&mut folder.train("killed", &[]));

    let (whole, resumed) = (folder.log("whole"), folder.log("killed"));
    assert_eq!((whole.len(), resumed.len()), (200, 200));
    for (whole, resumed) in whole.iter().zip(&resumed) {
        assert_eq!(whole["step"], resumed["step"]);
        for key in ["loss", "norm"] {
            let (whole, resumed) = (number(whole, key), number(resumed, key));
            assert!((whole - resumed).abs() <= 1e-5, "{key} {whole} and {resumed}");
        }
    }
    // It has learned something, and both have learned the same.
    assert!(number(&whole[199], "validation") < 0.6 * number(&whole[0], "loss"));
    assert!(folder.read("whole/model.gguf") == folder.read("killed/model.gguf"));
    let plot = String::from_utf8(folder.read("killed/loss.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.contains("nats per token"));
}

#[cfg(unix)]
#[test]
fn training_is_stopped_between_two_steps() {
    let folder = Folder::new("stop");
    folder.settings("steps = 100000\n");
    let child = folder.train("out", &[]).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    while folder.log("out").len() < 5 {
        assert!(begin.elapsed() < Duration::from_secs(300), "training does not get on");
        sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.contains("the same command goes on"), "{errors}");
    assert!(folder.0.join("out/checkpoint.safetensors").exists());
}

#[test]
fn a_model_writes_a_corpus_and_teaches_another() {
    let folder = Folder::new("corpus");
    folder.settings("steps = 400\nlearning_rate = 1e-2\n");
    ok(&mut folder.train("teacher", &[]));
    let corpus = |output: &str, threads: &str| {
        let model = ["corpus", "--model", "teacher/model.gguf", "-o", output];
        ok(folder.command(&model).args(["--size", "2k", "--threads", threads]));
        String::from_utf8(folder.read(output)).unwrap()
    };
    let text = corpus("one.txt", "1");
    assert!(text.len() >= 2000 && text == corpus("three.txt", "3"));
    let told: Vec<&str> =
        text.split("<|endoftext|>").map(str::trim).filter(|story| !story.is_empty()).collect();
    let begun = told.iter().filter(|story| story.starts_with("Once upon a")).count();
    assert!(told.len() >= 10 && begun > told.len() / 2, "{text}");

    let before = folder.read("teacher/model.gguf");
    let model = "teacher/model.gguf";
    refused(&mut folder.command(&["corpus", "--model", model, "-o", model]), &["there is such a file"]);
    assert!(folder.read("teacher/model.gguf") == before);

    folder.settings("steps = 30\nlearning_rate = 1e-2\n");
    ok(&mut folder.train("student", &["--teacher", model, "--extra", "one.txt"]));
    ok(&mut folder.train("alone", &["--tokenizer", model]));
    let (log, alone) = (folder.log("student"), folder.log("alone"));
    assert!(number(&log[29], "loss") < 0.8 * number(&log[0], "loss"));
    // It reads other stories, and learns something else of them.
    assert!((1..30).all(|step| log[step]["loss"] != alone[step]["loss"]));
    // What was begun with a teacher does not go on without.
    refused(&mut folder.train("student", &["--extra", "one.txt"]), &["other texts or another teacher"]);
    refused(&mut folder.train("new", &["--teacher", model, "--tokenizer", "other.bin"]), &["other.bin"]);
    // What goes on with a model's weights is as good as that from the start.
    folder.settings("steps = 1\n");
    ok(&mut folder.train("longer", &["--init", model]));
    assert!(number(&folder.log("longer")[0], "loss") < 0.6 * number(&log[0], "loss"));
}

/// What is trained with rounded weights is written with these, and convert rounds nothing away any more.
#[test]
fn weights_that_were_rounded_in_training_are_what_is_written() {
    let folder = Folder::new("rounded");
    folder.settings("steps = 60\nfake_quant = \"q4\"\nfake_quant_from = 0.7\nlearning_rate = 1e-2\n");
    ok(&mut folder.train("out", &[]));
    let mut source = Checkpoint::open(&folder.0.join("out/model.gguf")).unwrap();
    let tensor = Tensor::Matrix(Matrix::W1(1));
    let mut weights = vec![0.0; 32 * 16];
    source.read(tensor, 0, &mut weights).unwrap();
    let (mut values, mut scales) = (vec![0; weights.len()], vec![0; 32]);
    quantize_rows(Quant::Q4, 32, &weights, 16, None, &mut values, &mut scales);
    let largest = weights.iter().fold(0.0_f32, |most, weight| most.max(weight.abs()));
    for (i, (&weight, &value)) in weights.iter().zip(&values).enumerate() {
        let rounded = f32::from(value) * half::f16::from_bits(scales[i / 16]).to_f32();
        assert!((weight - rounded).abs() < 2e-3 * largest, "{weight} became {rounded}");
    }
    assert!(largest > 0.01);
}

#[test]
fn training_ends_when_it_gets_no_better() {
    let folder = Folder::new("patience");
    folder.settings("steps = 4000\npatience = 2\nlearning_rate = 0.3\n");
    let output = folder.train("out", &[]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.contains("no better for 2 validations"), "{errors}");
    let steps = folder.log("out").len();
    assert!(steps < 4000 && steps.is_multiple_of(40), "{steps}");
    // It has ended, and stays so.
    ok(&mut folder.train("out", &[]));
    assert_eq!(folder.log("out").len(), steps);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let folder = Folder::new("refused");
    folder.settings("steps = 3\n");
    refused(&mut folder.command(&[]), &["--text", "--output"]);
    refused(&mut folder.command(&["--text", "none.txt", "-o", "out"]), &["none.txt"]);
    refused(folder.train("out", &[]).args(["--teacher", "stories.txt"]), &["stories.txt"]);
    refused(folder.train("out", &[]).args(["--tokenizer", "stories.txt"]), &["stories.txt"]);
    fs::write(folder.0.join("empty.txt"), " <|endoftext|> ").unwrap();
    refused(&mut folder.command(&["--text", "empty.txt", "-o", "out"]), &["0 stories", "--validation"]);
    refused(&mut folder.command(&["corpus", "--model", "stories.txt", "-o", "o"]), &["stories.txt"]);

    let many = ["--text", "stories.txt", "-o", "out", "--threads", "100000"];
    refused(&mut folder.command(&many), &["1 to 256"]);
    refused(&mut folder.train("stories.txt", &[]), &["stories.txt", "-o"]);
    fs::create_dir(folder.0.join("taken")).unwrap();
    fs::write(folder.0.join("taken/log.jsonl"), "mine").unwrap();
    refused(&mut folder.train("taken", &[]), &["log.jsonl", "another folder"]);
    assert_eq!(folder.read("taken/log.jsonl"), b"mine");

    ok(&mut folder.train("out", &[]));
    folder.settings("steps = 4\n");
    refused(&mut folder.train("out", &[]), &["other settings", "another folder"]);
    let checkpoint = folder.0.join("out/checkpoint.safetensors");
    let bytes = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    folder.settings("steps = 3\n");
    refused(&mut folder.train("out", &[]), &["checkpoint.safetensors", "-o"]);
    // Weights that run away end the training with a word on what to do.
    folder.settings("steps = 60\nlearning_rate = 1e9\n");
    refused(&mut folder.train("wild", &[]), &["the loss is", "lower training.learning_rate"]);
    let names = fs::read_dir(folder.0.join("out")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().ends_with(".tmp")));
}
