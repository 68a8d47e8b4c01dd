//! Conversions by the program: what comes out runs, what goes in stays, and what cannot be is refused.

use std::fs;

use serde_json::Value;

use crate::files::{Folder, SMALL, data, gguf, model, text, tokenizer};
use crate::program::llamita;

fn convert(folder: &Folder, arguments: &[&str]) -> Value {
    let path = |argument: &&str| {
        let is_path = !argument.starts_with('-') && argument.contains('.');
        if is_path { text(&folder.path(argument)).to_owned() } else { (*argument).to_owned() }
    };
    let arguments: Vec<_> = arguments.iter().map(path).collect();
    llamita(["convert", "--json"].into_iter().map(str::to_owned).chain(arguments)).json()
}

fn story(folder: &Folder, model: &str) -> String {
    llamita(["run", "-m", text(&folder.path(model)), "-t", "0", "-n", "20", "-q", "abc"]).ok()
}

/// The files in a folder, by name.
fn names(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.path("")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_form_tells_the_same_story() {
    let folder = Folder::with_model();
    let expected = story(&folder, "model.bin");
    let report = convert(&folder, &["model.bin", "device.gguf", "--quant", "f32"]);
    assert_eq!(report["output"]["kind"], "device GGUF");
    assert_eq!(report["tokenizer"]["tokens"], SMALL.vocab_size);
    assert_eq!(report["bits_per_weight"], 32.0);
    assert_eq!(report["output"]["bytes"], fs::metadata(folder.path("device.gguf")).unwrap().len());
    convert(&folder, &["device.gguf", "ordinary.gguf", "--to", "gguf", "--quant", "f32"]);
    convert(&folder, &["ordinary.gguf", "again.bin"]);
    fs::create_dir(folder.path("hf.model")).unwrap();
    convert(&folder, &["ordinary.gguf", "hf.model"]);
    for name in ["config.json", "tokenizer.model", "tokenizer_config.json"] {
        assert!(folder.path("hf.model").join(name).exists(), "{name}");
    }
    convert(&folder, &["hf.model", "hf.gguf", "--quant", "f32", "--tokenizer", "tokenizer.bin"]);
    for name in ["device.gguf", "ordinary.gguf", "again.bin", "hf.gguf"] {
        assert_eq!(story(&folder, name), expected, "{name}");
    }
    let found = names(&folder);
    assert!(!found.iter().any(|name| name.contains("partial")), "{found:?}");
    // The tokenizer that was there is the one that would have been written.
    assert_eq!(fs::read(folder.path("tokenizer.bin")).unwrap(), tokenizer(SMALL.vocab_size));
}

#[test]
fn quantized_models_run() {
    let folder = Folder::with_model();
    for (group, bits) in [("32", 8.5), ("64", 8.25), ("row", 8.5)] {
        let out = format!("{group}.gguf");
        let report = convert(&folder, &["model.bin", &out, "--group", group, "--body", "q4"]);
        let embedding = &report["tensors"][0];
        assert_eq!((&embedding["class"], &embedding["from"]), (&"embedding".into(), &"F32".into()));
        // Rows of 16 are filled up to 32 or 64; those of the table, 270, to 272.
        let filled = if group == "64" { 4.0 } else { 2.0 };
        let expected = bits * filled * 272.0 / 270.0;
        assert!((embedding["bits_per_weight"].as_f64().unwrap() - expected).abs() < 1e-9, "{report}");
        let error = embedding["relative_error"].as_f64().unwrap();
        assert!(error > 0.0 && error < 0.01, "{report}");
        assert!(report["tensors"][2]["to"].as_str().unwrap().starts_with("q4"), "{report}");
        assert!(story(&folder, &out).starts_with("abc"));
    }
    let report = convert(&folder, &["model.bin", "mixed.gguf", "--quant", "f32", "--head", "q8"]);
    assert!(report["tensors"][0]["to"].as_str().unwrap().starts_with("q8"), "{report}");
    assert_eq!(report["tensors"][2]["to"], "F32");
}

#[test]
fn people_get_a_table() {
    let folder = Folder::with_model();
    let (input, out) = (folder.path("model.bin"), folder.path("model.gguf"));
    let printed = llamita(["convert", text(&input), text(&out)]).ok();
    for part in
        ["model.gguf, device GGUF", "bits each", "SentencePiece, 270 tokens", "q8, groups of 32", " %"]
    {
        assert!(printed.contains(part), "{part:?} is missing: {printed}");
    }
}

#[test]
fn what_is_read_is_never_replaced() {
    let folder = Folder::with_model();
    let original = model(&SMALL);
    let input = folder.path("model.bin");
    let also = folder.path(".").join("model.bin");
    let refused = |input: &str, out: &str, parts: &[&str]| {
        llamita(["convert", input, out, "--to", "gguf", "--force"]).refused(2, parts);
        assert!(fs::read(folder.path("model.bin")).unwrap() == original);
    };
    refused(text(&input), text(&input), &["is read for the conversion", "another"]);
    refused(text(&input), text(&also), &["is read for the conversion"]);
    let link = folder.path("link.gguf");
    fs::hard_link(&input, &link).unwrap();
    refused(text(&input), text(&link), &["link.gguf", "is read for the conversion"]);
    #[cfg(unix)]
    {
        let link = folder.path("symbolic.gguf");
        std::os::unix::fs::symlink(&input, &link).unwrap();
        refused(text(&input), text(&link), &["symbolic.gguf", "is read for the conversion"]);
        refused(text(&link), text(&input), &["model.bin", "is read for the conversion"]);
    }
}

#[test]
fn files_that_end_with_partial_are_like_any_other() {
    let folder = Folder::with_model();
    let original = model(&SMALL);
    let input = folder.write("x.gguf.partial", &original);
    let out = folder.write("x.gguf", b"something else");
    llamita(["convert", text(&input), text(&out)]).refused(1, &["already"]);
    assert!(fs::read(&input).unwrap() == original, "removed by a refusal");
    llamita(["convert", text(&input), text(&out), "--force"]).ok();
    assert!(fs::read(&input).unwrap() == original, "replaced");
    // What a stopped run left does not become a part of this one's result.
    folder.write("tokenizer.bin.partial", b"junk");
    let out = folder.path("y.bin");
    llamita(["convert", text(&input), text(&out)]).ok();
    assert_eq!(fs::read(folder.path("tokenizer.bin")).unwrap(), tokenizer(SMALL.vocab_size));
}

#[test]
fn the_tokenizer_of_the_model_is_never_replaced() {
    let folder = Folder::with_model();
    let corpus = folder.write("stories.txt", b"abc abcd<|endoftext|>abcde");
    let (input, out) = (folder.path("model.bin"), folder.path("pruned.bin"));
    let arguments = ["convert", text(&input), text(&out), "--prune-vocab", text(&corpus)];
    llamita(arguments.into_iter().chain(["--keep", "265", "--force"]))
        .refused(2, &["tokenizer.bin", "is read for the conversion", "folder"]);
    assert_eq!(fs::read(folder.path("tokenizer.bin")).unwrap(), tokenizer(SMALL.vocab_size));
    assert!(!out.exists());
}

#[cfg(unix)]
#[test]
fn devices_stay_devices() {
    let folder = Folder::with_model();
    let link = folder.path("null.gguf");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let input = folder.path("model.bin");
    llamita(["convert", text(&input), text(&link), "--force"]).refused(1, &["device", "name a file"]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn other_files_are_replaced_only_by_force() {
    let folder = Folder::with_model();
    let (input, out) = (folder.path("model.bin"), folder.write("out.gguf", b"something else"));
    let arguments = ["convert", text(&input), text(&out)];
    llamita(arguments).refused(1, &["out.gguf", "already", "--force"]);
    assert_eq!(fs::read(&out).unwrap(), b"something else");
    llamita(arguments.into_iter().chain(["--force"])).ok();
    assert!(fs::read(&out).unwrap().starts_with(b"GGUF"));

    // A tokenizer of another model stays as well.
    let other = Folder::new();
    other.write("tokenizer.bin", &tokenizer(262));
    let out = other.path("model.bin");
    let arguments = ["convert", text(&input), text(&out)];
    llamita(arguments).refused(1, &["tokenizer.bin", "already"]);
    assert_eq!(names(&other), ["tokenizer.bin"]);
    llamita(arguments.into_iter().chain(["--force"])).ok();
    let tokens = fs::read(other.path("tokenizer.bin")).unwrap();
    assert_eq!(llamita::Tokenizer::count_bin(&tokens), Ok(SMALL.vocab_size));
    assert!(fs::read(&out).unwrap() == model(&SMALL));
}

#[test]
fn a_result_is_not_hidden_by_another_model_in_parts() {
    let folder = Folder::with_model();
    let [input, out] = ["model.bin", "hf"].map(|name| folder.path(name));
    fs::create_dir(&out).unwrap();
    folder.write("hf/model.safetensors.index.json", b"{}");
    llamita(["convert", text(&input), text(&out), "--force"]).refused(1, &["index.json", "another folder"]);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let folder = Folder::new();
    let mut bytes = model(&SMALL);
    let place =
        crate::files::place(&SMALL, llamita::weights::Tensor::Matrix(llamita::weights::Matrix::W2(1)));
    bytes[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let input = folder.write("model.bin", &bytes);
    folder.write("tokenizer.bin", &tokenizer(SMALL.vocab_size));
    let out = folder.path("model.gguf");
    llamita(["convert", text(&input), text(&out)])
        .refused(1, &["model.bin: weight", "blk.1.ffn_down", "not a number"]);
    assert_eq!(names(&folder), ["model.bin", "tokenizer.bin"]);
}

#[test]
fn what_cannot_be_is_refused() {
    let folder = Folder::with_model();
    let input = folder.path("model.bin");
    let refused = |code, out: &str, options: &[&str], parts: &[&str]| {
        let out = folder.path(out);
        let arguments = ["convert", text(&input), text(&out)];
        llamita(arguments.iter().chain(options)).refused(code, parts);
        assert!(!out.exists());
    };
    refused(2, "model.onnx", &[], &[".onnx", ".gguf, .bin", "--to"]);
    refused(2, "x.bin", &["--quant", "q8"], &["llama2.c version 0 is written as f32", "GGUF"]);
    refused(2, "x", &["--quant", "q8"], &["safetensors is written as f32 or f16"]);
    refused(2, "x", &["--quant", "f32", "--head", "f16"], &["for all"]);
    refused(2, "x.gguf", &["--to", "gguf", "--group", "64"], &["--group is for --to device"]);
    refused(2, "x.gguf", &["--quant", "f32", "--group", "64"], &["--group is for", "q8 or q4", "--quant"]);
    refused(2, "x.gguf", &["--group", "48"], &["expected 32, 64 or row"]);
    refused(2, "x.gguf", &["--quant", "q5"], &["q5"]);
    refused(2, "x.gguf", &["--to", "onnx"], &["onnx", "device", "safetensors"]);
    let other = folder.write("other.bin", &tokenizer(262));
    refused(1, "x.gguf", &["--tokenizer", text(&other)], &["other.bin", "262 tokens", "270"]);
    refused(1, "x.gguf", &["--tokenizer", "none.bin"], &["none.bin", "cannot be read"]);
    refused(
        1,
        "none/../../none/x.gguf/y.gguf",
        &["--tokenizer", text(&folder.path("model.bin"))],
        &["model.bin"],
    );
    fs::create_dir(folder.path("folder")).unwrap();
    let out = folder.path("x.gguf");
    llamita(["convert", text(&folder.path("folder")), text(&out)])
        .refused(1, &["config.json", "cannot be read"]);
    llamita(["convert", text(&folder.path("none.bin")), text(&out)]).refused(1, &["no such file"]);
    llamita(["convert", text(&folder.path("tokenizer.bin")), text(&out)]).refused(1, &["tokenizer"]);
    // Another file of the same folder would be converted in its place.
    let other = folder.write("other.safetensors", b"");
    llamita(["convert", text(&other), text(&out)])
        .refused(2, &["other.safetensors", "model.safetensors", "rename"]);
    let out = folder.path("tokenizer.bin");
    llamita(["convert", text(&input), text(&out), "--force"]).refused(2, &["where the tokenizer goes"]);
}

#[test]
fn a_model_without_a_tokenizer_is_still_one() {
    let folder = Folder::new();
    let (input, out) = (folder.write("model.bin", &model(&SMALL)), folder.path("model.gguf"));
    let ended = llamita(["convert", text(&input), text(&out), "--json"]);
    assert!(
        ended.stderr.contains("no tokenizer for") && ended.stderr.contains("--tokenizer"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.json()["tokenizer"], Value::Null);
    let tokens = folder.write("tok.bin", &tokenizer(SMALL.vocab_size));
    llamita(["run", "-m", text(&out), "--tokenizer", text(&tokens), "-n", "5", "-q"]).ok();
}

#[test]
fn a_vocabulary_can_be_pruned() {
    let folder = Folder::with_model();
    let text_file = folder.write("stories.txt", b"abc abcd<|endoftext|>abcde");
    let (input, out) = (folder.path("model.bin"), folder.path("pruned.gguf"));
    let arguments = ["convert", text(&input), text(&out), "--prune-vocab", text(&text_file)];
    let report = llamita(arguments.into_iter().chain(["--keep", "265", "--json"])).json();
    assert_eq!(report["tokenizer"]["tokens"], 265);
    assert_eq!(report["pruned"]["vocab_size"], serde_json::json!([270, 265]));
    assert_eq!(llamita(["inspect", "--json", text(&out)]).json()["shape"]["vocab_size"], 265);
    assert!(story(&folder, "pruned.gguf").starts_with("abc"));
    let arguments = ["convert", text(&input), text(&text_file), "--to", "gguf", "--force", "--keep", "265"];
    let prune = ["--prune-vocab", text(&text_file)];
    llamita(arguments.into_iter().chain(prune)).refused(2, &["stories.txt is read for the conversion"]);
}

#[test]
fn names_are_carried_along() {
    let folder = Folder::new();
    folder.write("model.gguf", &gguf(64, "Kalliope"));
    convert(&folder, &["model.gguf", "device.gguf"]);
    let report = llamita(["inspect", "--json", text(&folder.path("device.gguf"))]).json();
    assert_eq!(report["name"], "Kalliope");
}

#[test]
fn stories260k_in_eight_bits_tells_its_stories() {
    let Some(reference) = data("reference/stories260K-greedy-256.txt") else { return };
    let reference = fs::read_to_string(reference).unwrap();
    let folder = Folder::new();
    for name in ["stories260K.bin", "stories260K-v1.bin", "stories260K-Q8_0.gguf", "stories260K-v2-q8.bin"] {
        let model = data(&format!("data/models/{name}")).unwrap();
        let out = folder.path(&format!("{name}.gguf"));
        llamita(["convert", text(&model), text(&out)]).ok();
        let story = llamita(["run", "-m", text(&out), "-t", "0", "-n", "256", "-q"]).ok();
        // Rounded weights tell the same story for a while.
        let same = story.bytes().zip(reference.bytes()).take_while(|(a, b)| a == b).count();
        assert!(same > 60, "{name}: {same} bytes are the same of {story}");
        assert!(fs::metadata(&out).unwrap().len() < 310_000);
    }
    let model = data("data/models/stories260K.bin").unwrap();
    let out = folder.path("f32.gguf");
    llamita(["convert", text(&model), text(&out), "--quant", "f32"]).ok();
    let story = llamita(["run", "-m", text(&out), "-t", "0", "--steps", "256", "-q"]).ok();
    assert_eq!(story.trim_end(), reference.trim_end());
}

#[test]
fn calibration_reports_what_it_is_worth() {
    let folder = Folder::with_model();
    let stories = ["abc bca", "cab abc", "bb ca ab", "aaa b c", "cba cba a"].repeat(5).join("<|endoftext|>");
    folder.write("stories.txt", stories.as_bytes());
    let arguments = ["--quant", "q4", "--calibrate", "stories.txt"];
    let with = |out: &'static str, more: &[&'static str]| -> Value {
        convert(&folder, &[&["model.bin", out], &arguments[..], more].concat())
    };
    let calibrated = &with("calibrated.gguf", &["--tune", "0"])["calibrated"];
    assert_eq!((&calibrated["stories"], &calibrated["kept_back"]), (&23.into(), &2.into()));
    assert_eq!(calibrated["perplexity"]["tuned"], Value::Null);
    let report = with("tuned.gguf", &["--tune", "30", "--plot", "plot.svg"]);
    let perplexity = |name: &str| report["calibrated"]["perplexity"][name].as_f64().unwrap();
    assert_eq!(report["calibrated"]["divergence"].as_array().unwrap().len(), 30);
    // What the report says of the result is what the result does with the stories that were kept back.
    folder.write(
        "kept.txt",
        stories.rsplitn(3, "<|endoftext|>").take(2).collect::<Vec<_>>().join("<|endoftext|>").as_bytes(),
    );
    for (file, name) in
        [("model.bin", "original"), ("calibrated.gguf", "calibrated"), ("tuned.gguf", "tuned")]
    {
        let [file, kept] = [file, "kept.txt"].map(|name| folder.path(name));
        let found = llamita(["eval", text(&file), "--text", text(&kept), "--json"]).json();
        let (found, expected) = (found["perplexity"].as_f64().unwrap(), perplexity(name));
        assert!((found - expected).abs() < 1e-9 * expected, "{name}: {found}, {expected}");
    }
    // Nearer to the original than what is rounded.
    let off = |name: &str| (perplexity(name) / perplexity("original")).ln().abs();
    assert!(off("tuned") < off("rounded"), "{report}");
    assert!(fs::read_to_string(folder.path("plot.svg")).unwrap().contains("</svg>"));
    // The same each time.
    let again = with("again.gguf", &["--tune", "30"]);
    assert_eq!(again["calibrated"]["perplexity"], report["calibrated"]["perplexity"]);
    assert!(fs::read(folder.path("again.gguf")).unwrap() == fs::read(folder.path("tuned.gguf")).unwrap());
}

#[test]
fn calibration_is_refused_where_it_does_nothing() {
    let folder = Folder::with_model();
    folder.write("stories.txt", b"abc<|endoftext|>bca");
    folder.write("one.txt", b"abc");
    let refused = |stories: &str, more: &[&str], code: i32, part: &str| {
        let [model, out, stories] = ["model.bin", "out.gguf", stories].map(|name| folder.path(name));
        let arguments = ["convert", text(&model), text(&out), "--calibrate", text(&stories)];
        llamita(arguments.iter().chain(more)).refused(code, &[part]);
    };
    for more in [&["--quant", "f32"][..], &["--to", "gguf", "--quant", "q8"]] {
        refused("stories.txt", more, 2, "--calibrate is for the native q8 and q4");
    }
    refused("one.txt", &[], 1, "it has 1 stories, expected 2 or more");
    let model = folder.path("model.bin");
    let before = fs::read(&model).unwrap();
    refused("stories.txt", &["--plot", text(&model)], 2, "--plot names");
    assert!(fs::read(&model).unwrap() == before && !folder.path("out.gguf").exists());
}

#[test]
fn a_plot_replaces_nothing_that_is_read_or_written() {
    let folder = Folder::with_model();
    folder.write("stories.txt", b"abc<|endoftext|>bca");
    folder.write("other.txt", b"abc");
    convert(&folder, &["model.bin", "hf/model.safetensors"]);
    let before = fs::read(folder.path("hf/config.json")).unwrap();
    for (input, plot) in [
        ("model.bin", "stories.txt"),
        ("model.bin", "other.txt"),
        ("model.bin", "tokenizer.bin"),
        ("model.bin", "out.gguf"),
        ("model.bin", "hf/../out.gguf"),
        ("hf", "hf/config.json"),
    ] {
        let [input, out, plot, stories, other] =
            [input, "out.gguf", plot, "stories.txt", "other.txt"].map(|name| folder.path(name));
        let arguments = ["convert", text(&input), text(&out), "--calibrate", text(&stories), "--tune", "0"];
        let more = ["--prune-vocab", text(&other), "--keep", "270", "--plot", text(&plot)];
        llamita(arguments.iter().chain(&more)).refused(2, &["--plot names"]);
    }
    assert_eq!(fs::read(folder.path("hf/config.json")).unwrap(), before);
    let [model, out, stories] = ["model.bin", "out.gguf", "stories.txt"].map(|name| folder.path(name));
    let plot = folder.path("hf");
    llamita(["convert", text(&model), text(&out), "--calibrate", text(&stories), "--plot", text(&plot)])
        .refused(1, &["hf: this is no file", "--plot"]);
    assert!(!out.exists());
}
