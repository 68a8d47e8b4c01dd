//! A program at the other end.

use llamita::CacheFormat;
use serde_json::Value;

use crate::board::{during, line, shown};
use crate::card::Card;
use crate::{NANO, golden, told};

/// The events of a text, a line each.
fn events(text: &str) -> Vec<Value> {
    assert!(text.ends_with('\n'), "{text:?}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[test]
fn every_line_is_an_object() {
    let card = Card::with(&[("nano.gguf", NANO.bytes()), ("odd \u{e9}.gguf", b"no model")]);
    let lines = [
        "/json on",
        "Hi",
        "/models",
        "/model nano",
        "/kv f32",
        "/temp 0",
        "",
        "/help",
        "/stats",
        "/plan",
        "/nonsense \"\\",
        "/model odd \u{e9}.gguf",
        "/bench",
        "/model 1",
        "/temp 0.8",
        "/seed 42",
        "The llama was hungry.",
        "Say \"hi\" \\ \t🦙\u{85}",
        "/selftest",
        "/json off",
    ];
    let shown = shown(1 << 20, None, Some(&card), lines.map(line));
    // What is typed is not shown any more from here on.
    let mut echoed = shown.parts[1].splitn(2, "/json on\r\n");
    assert_eq!(echoed.next(), Some(""));
    let first = events(echoed.next().unwrap());
    assert_eq!(names(&first), ["info", "ready"]);
    assert_eq!(first[1]["model"], Value::Null);
    let parts: Vec<_> = shown.parts[2..20].iter().map(|part| events(part)).collect();
    let of = |line: &str| &parts[lines.iter().position(|&other| other == line).unwrap() - 1];

    assert_eq!(names(of("Hi")), ["error", "ready"]);
    assert_eq!(names(of("/models")), ["model", "model", "info", "ready"]);
    assert_eq!(of("/models")[0]["bytes"], NANO.bytes().len());
    assert_eq!(names(of("/model nano")), ["plan", "ready"]);
    assert_eq!(of("/model nano")[1]["model"], "nano.gguf");
    assert_eq!((&of("/kv f32")[1]["kv"], &of("/kv f32")[1]["context"]), (&"f32".into(), &256.into()));
    assert_eq!(names(of("/stats")), ["stats", "ready"]);
    assert_eq!(names(of("/model odd \u{e9}.gguf")), ["error", "ready"]);
    assert_eq!(of("/model odd \u{e9}.gguf")[1]["model"], Value::Null);
    assert_eq!(names(of("/bench")), ["error", "ready"]);
    assert!(of("/nonsense \"\\")[0]["message"].as_str().unwrap().contains("/nonsense"));
    assert!(shown.parts[20].ends_with("JSON off\r\n> "));

    for (line, expected, stop) in
        [("", golden("greedy"), "end_of_text"), ("The llama was hungry.", golden("seed42"), "length")]
    {
        let events = of(line);
        let names = names(events);
        let tokens = names.len() - 3;
        assert_eq!((names[0], &names[tokens + 1..]), ("start", &["end", "ready"][..]));
        assert!(names[1..=tokens].iter().all(|name| *name == "token"));
        let told: String = events[..=tokens].iter().map(|event| event["text"].as_str().unwrap()).collect();
        assert_eq!(told, expected);
        let end = &events[tokens + 1];
        assert_eq!(end["new_tokens"], tokens);
        assert_eq!(end["prompt_tokens"].as_u64().unwrap(), events[0]["prompt_tokens"].as_u64().unwrap());
        assert!(end["tokens_per_second"].as_f64().unwrap() > 1.0 && end["stop"] == stop, "{end}");
        let ticks = |name: &str| end[format!("{name}_ticks")].as_u64().unwrap();
        let stages = [
            "storage",
            "projections",
            "attention",
            "feed_forward",
            "norm_and_rope",
            "classifier",
            "sampling",
        ];
        let sum: u64 = stages.iter().map(|name| ticks(name)).sum();
        assert!((1..=ticks("prefill") + ticks("decode")).contains(&sum), "{end}");
    }
}

#[test]
#[cfg(feature = "kernels")]
fn rates_of_products_are_objects() {
    let shown = shown(
        300 << 10,
        None,
        None::<&llamita_firmware::NoCard>,
        ["/json on", "/kernels", "/json off"].map(line),
    );
    let events = events(&shown.parts[2]);
    assert_eq!(names(&events), ["kernels"; 6].into_iter().chain(["ready"]).collect::<Vec<_>>());
    let formats =
        events[..6].iter().map(|event| (event["quant"].as_str().unwrap(), event["group"].as_u64().unwrap()));
    assert!(formats.eq(["q8", "q4"].into_iter().flat_map(|quant| [288, 64, 32].map(|group| (quant, group)))));
    assert!(events[..6].iter().all(|event| event["million_weights_per_second"].as_f64().unwrap() > 0.0));
}

#[test]
fn a_story_is_stopped_and_lines_wait() {
    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    let steps = vec![
        line("/json on"),
        line("/temp 0"),
        line(""),
        // What was typed before is forgotten, what comes after is not.
        during("\"event\":\"token\",\"text\":\" girl\"", "forgotten\r\x03/steps 20\r"),
        line("Once"),
        during("\"event\":\"start\"", "/seed 5\r/stats\r"),
        line("/json off"),
    ];
    let shown = shown(300 << 10, None, Some(&card), steps);
    let stopped = events(&(shown.parts[3].clone() + &shown.parts[4]));
    let end = stopped.iter().find(|event| event["event"] == "end").unwrap();
    assert_eq!(end["stop"], "stopped");
    assert!((1..200).contains(&end["new_tokens"].as_u64().unwrap()), "{end}");
    assert!(
        shown.parts[4].contains("\"steps 20\"") && !shown.all().contains("forgotten"),
        "{}",
        shown.parts[4]
    );
    let waited = events(&(shown.parts[5].clone() + &shown.parts[6]));
    let told_: String = waited.iter().filter_map(|event| event["text"].as_str()).collect();
    assert_eq!(told_, told("Once", 0.0, 1, 20, CacheFormat::Q8));
    let kinds = names(&waited);
    assert_eq!(kinds[kinds.len() - 6..], ["end", "ready", "info", "ready", "stats", "ready"]);
}
