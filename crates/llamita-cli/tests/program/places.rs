//! Weights that are not all in memory, boards that are imitated, drafts: the same stories, and what is said of them.

use std::fs;

use serde_json::Value;

use crate::builtin::golden;
use crate::files::{Folder, SMALL, model, text};
use crate::program::{Ended, llamita};

fn tell(more: &[&str]) -> String {
    llamita(["run", "-q"].iter().chain(more)).ok()
}

fn stats(more: &[&str]) -> Value {
    llamita(["run", "-q", "--json"].iter().chain(more)).json()["stats"].clone()
}

/// A board as it is described, with some lines replaced.
fn board(folder: &Folder, changes: &[(&str, &str)]) -> String {
    let mut description = llamita(["boards", "esp32s3-n16r8"]).ok();
    for (from, to) in changes {
        assert!(description.contains(from), "{from}");
        description = description.replacen(from, to, 1);
    }
    text(&folder.write("board.toml", description.as_bytes())).to_owned()
}

#[test]
fn stories_are_the_same_wherever_the_weights_are() {
    let seed = ["-t", "0.8", "-s", "42", "The llama was hungry."];
    for (name, places) in [
        ("tiny", &["--stream"][..]),
        ("tiny", &["--memory", "2M"]),
        ("tiny", &["--memory", "2000000", "--threads", "2"]),
        ("tiny", &["--board", "esp32s3-n16r8"]),
        ("tiny", &["--board", "esp32s3-n16r8", "--storage", "sdspi", "--memory", "2M"]),
        ("tiny", &["--board", "esp32p4", "--stream", "--verify"]),
        ("nano", &["--board", "stm32h7"]),
        ("nano", &["--board", "rp2350-psram", "--storage", "sdspi"]),
    ] {
        let of = |more: &[&str]| tell(&[&["-m", name], places, more].concat());
        assert_eq!(of(&["-t", "0"]), golden(&format!("{name}-greedy.txt")), "{name} {places:?}");
        assert_eq!(of(&seed), golden(&format!("{name}-seed42.txt")), "{name} {places:?}");
    }
}

#[test]
fn drafts_change_nothing_but_the_time() {
    let slow = ["--board", "esp32s3-n16r8", "--storage", "sdspi", "--stream"];
    let plain = stats(&[&slow[..], &["-t", "0", "-n", "60"]].concat());
    for draft in ["nano", "lookup", "tiny"] {
        for placed in [&slow[..], &[]] {
            let drafts = [placed, &["--draft", draft, "--draft-tokens", "5"]].concat();
            assert_eq!(tell(&[&drafts[..], &["-t", "0"]].concat()), golden("tiny-greedy.txt"), "{drafts:?}");
            let seed = ["-t", "0.8", "-s", "42", "The llama was hungry."];
            assert_eq!(tell(&[&drafts[..], &seed].concat()), golden("tiny-seed42.txt"), "{drafts:?}");
        }
        let drafted = stats(&[&slow[..], &["-t", "0", "-n", "60", "--draft", draft]].concat());
        let rate = |stats: &Value| stats["decode_tokens_per_second"].as_f64().unwrap();
        let times = rate(&drafted) / rate(&plain);
        // A model guesses itself, but for every pass that looks whether that still pays.
        let at_least = match draft {
            "nano" => 1.8,
            "lookup" => 0.95,
            _ => 2.5,
        };
        assert!(times > at_least, "{draft}: {times} times as fast, {drafted}");
        let speculation = &drafted["speculation"];
        let count = |name: &str| speculation[name].as_u64().unwrap();
        assert!(count("accepted") <= count("proposed") && count("passes") > 0, "{speculation}");
    }
}

#[test]
fn plans_come_true() {
    for (options, context) in [
        (
            &["tiny", "--board", "esp32s3-n16r8", "--storage", "sdmmc4", "--memory", "1200k", "--kv", "q8"][..],
            "256",
        ),
        (&["tiny", "--board", "rp2350", "--kv", "q8"], "128"),
        (&["nano", "--board", "nrf52840", "--kv", "q8"], "128"),
        (&["tiny", "--board", "raspberry-pi-zero"], "256"),
    ] {
        let plan = llamita(["plan", "--json", "--context", context].iter().chain(options)).json();
        let [name, options @ ..] = options else { unreachable!() };
        // As many tokens as put the middle of the story into the middle of the context.
        let told = stats(&[&["-m", name, "-t", "0", "-n", "1000", "--context", context], options].concat());
        let (planned, measured) =
            (&told["placed"]["planned_tokens_per_second"], &told["decode_tokens_per_second"]);
        let ratio = planned.as_f64().unwrap() / measured.as_f64().unwrap();
        assert!((0.95..1.05).contains(&ratio), "{options:?}: {told}");
        let of_plan = plan["token"]["tokens_per_second"].as_f64().unwrap() / measured.as_f64().unwrap();
        assert!((0.85..1.15).contains(&of_plan), "{options:?}: {of_plan} {told}");
        assert_eq!(
            plan["streamed_bytes_per_token"], told["placed"]["streamed_bytes_per_token"],
            "{options:?}"
        );
    }
}

#[test]
fn a_plan_says_what_would_be_faster() {
    let folder = Folder::new();
    let picture = folder.path("plan.svg");
    let options = ["plan", "tiny", "--board", "rp2350", "--kv", "q8", "--context", "128"];
    let plan = llamita(options.iter().chain(&["--json", "--plot", text(&picture)])).json();
    let advice = plan["advice"].as_array().unwrap();
    assert!(advice[0]["what"].as_str().unwrap().contains("--quant q4"), "{plan}");
    assert!(advice[0]["times_as_fast"].as_f64().unwrap() > 1.5, "{plan}");
    let variants = plan["variants"].as_array().unwrap();
    let rate = |name: &str| {
        let variant = variants.iter().find(|variant| variant["name"] == name).unwrap();
        variant["tokens_per_second"].as_f64().unwrap()
    };
    assert!(
        rate("f32") < rate("as it is: q8, groups of 32")
            && rate("as it is: q8, groups of 32") < rate("q4, head q8")
            && rate("q4, head q8") < rate("q4")
    );
    let svg = fs::read_to_string(picture).unwrap();
    for text in
        ["layer 4, feed-forward", "pinned in SRAM", "used in flash", "a token waits for", "q4, head q8"]
    {
        assert!(svg.contains(text), "{text}");
    }
    let table = llamita(options).ok();
    for text in ["to go faster", "bound by reading flash", "llamita convert --quant q4", "attention products"]
    {
        assert!(table.contains(text), "{text}: {table}");
    }
}

/// The instructions of a token on an emulated ESP32-S3 whose console counts them, in thousands: keys and values of eight
/// bits, all on one core, temperature and top-p as the console has them (2026-11-28, of ten tokens around the position).
#[test]
fn the_arithmetic_of_a_plan_is_what_was_counted() {
    let folder = Folder::new();
    let changes =
        [("cores = 2", "cores = 1"), ("instruction = 1.25", "instruction = 1"), ("\"256k\"", "\"8M\"")];
    let board = board(&folder, &[("clock_mhz = 240", "clock_mhz = 1"), changes[0], changes[1], changes[2]]);
    for (name, position, counted) in [
        ("nano", 10, [55, 48, 117, 17, 31, 67]),
        ("nano", 100, [55, 95, 117, 17, 31, 67]),
        ("tiny", 10, [126, 70, 449, 26, 59, 67]),
        ("tiny", 100, [126, 135, 449, 26, 59, 67]),
    ] {
        let context = (2 * position).to_string();
        let plan = ["plan", name, "--kv", "q8", "--board", &board, "--context", &context, "--json"];
        let plan = llamita(plan).json();
        let parts = plan["token"]["parts"].as_array().unwrap();
        // What is waited for is none of them.
        let planned: Vec<_> = parts[1..].iter().map(|part| 1e3 * part[1].as_f64().unwrap()).collect();
        for (planned, counted) in planned.iter().zip(counted) {
            let ratio = planned / f64::from(counted);
            assert!((0.85..1.15).contains(&ratio), "{name} at {position}: {planned} of {counted}, {parts:?}");
        }
        let ratio = planned.iter().sum::<f64>() / f64::from(counted.iter().sum::<i32>());
        assert!((0.9..1.1).contains(&ratio), "{name} at {position}: {ratio}, {planned:?}");
    }
}

#[test]
fn a_plan_says_what_it_follows_from() {
    let plan = ["plan", "nano", "--board", "esp32s3-n16r8", "--storage", "sdspi"];
    let text = llamita(plan.iter().chain(&["--sources"])).ok();
    for figure in
        ["cycles per mac: q8 ", "memory PSRAM: mb_per_s ", "storage sdspi: mb_per_s ", "position 256"]
    {
        assert!(text.contains(figure), "{figure}: {text}");
    }
    assert!(text.contains("atomic14 raw read") && !text.contains("storage sdmmc4: "), "{text}");
    assert!(llamita(plan).ok().ends_with(": --sources\n"));
    let json = llamita(plan.iter().chain(&["--json"])).json();
    let all = llamita(["boards", "esp32s3-n16r8"]).ok();
    for figure in json["figures"].as_array().unwrap() {
        assert!(all.contains(figure["source"].as_str().unwrap()), "{figure}");
    }
}

#[test]
fn what_has_no_place_is_said_with_what_has() {
    llamita(["plan", "tiny", "--board", "rp2350"])
        .refused(1, &["rp2350 has ", " bytes) too little memory", "--kv q8", "--context 128"]);
    llamita(["run", "--memory", "100k"]).refused(1, &["too little memory", "--context"]);
    llamita(["run", "--board", "nrf52840", "--context", "512"])
        .refused(1, &["nrf52840", "too little memory", "llamita plan tiny --board nrf52840"]);
    llamita(["run", "--board", "esp33"]).refused(2, &["esp33", "known boards are esp32s3-n16r8"]);
    llamita(["run", "--board", "esp32c3", "--storage", "tape"])
        .refused(2, &["--storage names tape", "esp32c3"]);
    llamita(["run", "--storage", "sdspi"]).refused(2, &["--board"]);
    llamita(["run", "--verify"]).refused(2, &["--verify", "--stream"]);
    llamita(["run", "--memory", "8MB"]).refused(2, &["--memory", "with k, M or G"]);
    llamita(["run", "--stream", "--draft-tokens", "3"]).refused(2, &["--draft"]);
    llamita(["boards", "esp33"]).refused(2, &["esp33", "known boards"]);

    let folder = Folder::with_model();
    let path = folder.path("model.bin");
    // Other tokens cannot be guessed.
    llamita(["run", "-m", text(&path), "--draft", "nano"]).refused(2, &["--draft", "expected"]);
    // A file of floats is streamed, a shorter one is not.
    let told = tell(&["-m", text(&path), "-t", "0", "--stream"]);
    assert_eq!(told, tell(&["-m", text(&path), "-t", "0"]));
    let whole = model(&SMALL);
    let short = folder.write("model.bin", &whole[..whole.len() - 4]);
    llamita(["run", "-m", text(&short), "--stream"]).refused(1, &["model.bin", "truncated"]);
    for len in [0, 1, 27, 28] {
        let short = folder.write("model.bin", &whole[..len]);
        llamita(["run", "-m", text(&short), "--stream"]).refused(1, &["model.bin", "again"]);
        llamita(["plan", text(&short), "--board", "esp32c3"]).refused(1, &["model.bin", "again"]);
    }
    let bad = folder.write("bad.toml", b"cores = 2");
    llamita(["run", "--board", text(&bad)]).refused(1, &["bad.toml", "llamita boards NAME"]);
    llamita(["run", "--board", text(&folder.path(""))]).refused(1, &["cannot be read as text"]);
}

#[test]
fn a_medium_that_fails_is_read_again_or_named() {
    let folder = Folder::new();
    let at = "best_read = \"32k\"";
    let places = ["--storage", "sdmmc4", "--stream", "--verify", "-t", "0", "-s", "5"];
    let run = |board: &str| -> Ended { llamita(["run", "--board", board, "--json"].iter().chain(&places)) };
    for fault in ["errors = 0.03", "corrupt = 0.002", "jitter = 0.5"] {
        let board = board(&folder, &[(at, &format!("{at}\n{fault}"))]);
        let told = run(&board).json();
        assert_eq!(format!("{}\n", told["text"].as_str().unwrap()), golden("tiny-greedy.txt"), "{fault}");
        let retries = told["stats"]["placed"]["read"]["retries"].as_u64().unwrap();
        assert_eq!(retries == 0, fault.starts_with("jitter"), "{fault}: {retries}");
    }
    let of = |fault: &str| board(&folder, &[(at, &format!("{at}\n{fault}"))]);
    llamita(["run", "-q", "--board", &of("errors = 1.0")].iter().chain(&places))
        .refused(1, &["cannot be read, from byte", "tried 3 times", "simulated", "check the medium"]);
    llamita(["run", "-q", "--board", &of("corrupt = 1.0")].iter().chain(&places))
        .refused(1, &["the checksum of tensor", "is wrong, also when it is read again"]);
    llamita(["run", "--board", &of("errors = 2.0")]).refused(1, &["errors of storage sdmmc4 is 2", "0 to 1"]);

    // Some of the story is there when the medium fails for good, and stays.
    let ended = llamita(["run", "-q", "--board", &of("errors = 0.33")].iter().chain(&places));
    if ended.code == Some(1) {
        assert!(golden("tiny-greedy.txt").starts_with(ended.stdout.trim_end()), "{}", ended.stdout);
    }
}

#[test]
fn the_time_is_divided_up() {
    let folder = Folder::new();
    let picture = folder.path("profile.svg");
    let parts = |more: &[&str]| {
        let stats = stats(&[&["-t", "0", "-n", "40", "--profile-plot", text(&picture)], more].concat());
        let parts = stats["profile"]["parts"].as_array().unwrap().clone();
        let sum: f64 = parts.iter().map(|part| part["seconds"].as_f64().unwrap()).sum();
        let all = stats["profile"]["seconds"].as_f64().unwrap();
        assert!((sum / all - 1.0).abs() < 0.01, "{stats}");
        let share =
            |name: &str| parts.iter().find(|part| part["name"] == name).unwrap()["share"].as_f64().unwrap();
        assert!(fs::read_to_string(&picture).unwrap().contains("feed-forward"));
        (share("waiting for storage"), share("feed-forward"))
    };
    let (waiting, products) = parts(&[]);
    assert!(waiting == 0.0 && products > 0.2, "{waiting} {products}");
    let (waiting, products) = parts(&["--board", "esp32s3-n16r8", "--storage", "sdspi", "--stream"]);
    assert!(waiting > 0.9 && products < 0.1, "{waiting} {products}");
    let (waiting, products) = parts(&["--board", "esp32s3-n16r8"]);
    assert!(waiting == 0.0 && products > 0.3, "{waiting} {products}");
    let line = llamita(["run", "-t", "0", "-n", "20", "--stream", "--profile"]).stderr;
    assert!(line.contains("feed-forward") && line.contains("a token from the file"), "{line}");
}

#[test]
fn a_board_can_take_its_time() {
    let start = std::time::Instant::now();
    let options =
        ["-m", "nano", "--board", "esp32s3-n16r8", "--storage", "sdmmc4", "--stream", "--real-time"];
    let told = stats(&[&options[..], &["-t", "0", "-n", "6"]].concat());
    // 0.27 MB at 8 MB/s, and the beginning.
    assert!(start.elapsed().as_secs_f64() > 6.0 * 0.03, "{told}");
    let ratio = told["placed"]["planned_tokens_per_second"].as_f64().unwrap()
        / told["decode_tokens_per_second"].as_f64().unwrap();
    // Not faster than the board; a busy machine may be slower.
    assert!((0.9..4.0).contains(&ratio), "{told}");
}

#[test]
fn boards_are_listed_and_printed() {
    let boards = llamita(["boards", "--json"]).json();
    assert!(boards.as_array().unwrap().len() >= 10);
    for board in boards.as_array().unwrap() {
        let name = board["name"].as_str().unwrap();
        let description = llamita(["boards", name]).ok();
        assert!(description.contains(&format!("name = \"{name}\"")), "{description}");
        // What is printed can be given back.
        let folder = Folder::new();
        let file = folder.write("board.toml", description.as_bytes());
        let [known, given] = [name, text(&file)].map(|board| {
            llamita(["plan", "nano", "--kv", "q8", "--context", "64", "--json", "--board", board]).json()
        });
        assert_eq!(known, given);
    }
    assert!(llamita(["boards"]).ok().contains("esp32s3-n16r8\n"));
}
