//! Stories are those of every other machine.

use llamita::CacheFormat;
use llamita_firmware::NoCard;

use crate::board::{Shown, line, shown, shown_beside};
use crate::card::{Card, volume};
use crate::{NANO, golden, told};

const LLAMA: &str = "The llama was hungry.";

/// Memory in which all weights are pinned, some, and as good as none.
const ALL: usize = 1 << 20;
const SOME: usize = 500 << 10;
const FEW: usize = 410 << 10;

/// A number that was told in the plan.
fn planned(shown: &Shown, what: &str) -> u64 {
    let all = shown.all();
    let before = all.rsplit_once(what).unwrap_or_else(|| panic!("no {what}: {all}")).0;
    before.split_whitespace().next_back().unwrap().parse().unwrap()
}

fn steps(cache: &str) -> Vec<crate::board::Step<'static>> {
    vec![
        line(&format!("/kv {cache}")),
        line("/temp 0"),
        line(""),
        line("/go"),
        line("/temp 0.8"),
        line("/seed 42"),
        line(LLAMA),
        line("/plan"),
    ]
}

#[test]
fn the_stories_of_all_machines_are_told_from_flash_and_card() {
    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    let pieces = Card::new(volume(&[("nano.gguf", NANO.bytes()), ("other.bin", NANO.bytes())], 16 << 10));
    for memory in [ALL, SOME, FEW] {
        let flash = shown(memory, Some(NANO.bytes()), None::<&NoCard>, steps("f32"));
        let whole = shown(memory, None, Some(&card), steps("f32"));
        let pieces = shown(memory, None, Some(&pieces), steps("f32"));
        for (what, shown) in [("flash", &flash), ("card", &whole), ("pieces", &pieces)] {
            assert_eq!(shown.story(2), golden("greedy"), "{what}, {memory}");
            assert_eq!(shown.story(3), golden("greedy"), "{what}, {memory}");
            assert_eq!(shown.story(6), golden("seed42"), "{what}, {memory}");
            let home =
                planned(shown, if what == "flash" { "bytes from the flash" } else { "bytes from the card" });
            assert_eq!(home == 0, memory == ALL, "{what}, {memory}: {home}");
            // More than five times for each layer of each token.
            assert!(shown.fed > 5 * 5 * 3 * 250, "{}", shown.fed);
        }
        assert!(whole.parts[7].contains("storage"), "{}", whole.parts[7]);
        assert_eq!(card.unwatched.get(), 1, "reads in a row without a look at the watchdog");
    }
}

#[test]
fn less_memory_than_the_model_has_tells_the_same() {
    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    let (greedy, llama) =
        (told("", 0.0, 1, 256, CacheFormat::Q8), told(LLAMA, 0.8, 42, 256, CacheFormat::Q8));
    for memory in [180 << 10, 250 << 10, 2 << 20] {
        for flash in [false, true] {
            let shown = match flash {
                true => shown(memory, Some(NANO.bytes()), None::<&NoCard>, steps("q8")),
                false => shown(memory, None, Some(&card), steps("q8")),
            };
            assert_eq!(shown.story(2), greedy, "{memory}, {flash}");
            assert_eq!(shown.story(6), llama, "{memory}, {flash}");
            assert!(planned(&shown, "bytes for the state") < memory as u64);
        }
    }
}

#[test]
fn all_memory_is_of_use() {
    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    let greedy = told("", 0.0, 1, 256, CacheFormat::Q8);
    for memories in [[150 << 10, 200 << 10], [270 << 10, 1 << 20], [500 << 10, 60 << 10]] {
        let shown = shown_beside(memories, &card, [line("/temp 0"), line("")]);
        let parts =
            ["bytes for the state", "for the vocabulary", "for buffers", "for pinned weights", "free"];
        let used: u64 = parts.map(|what| planned(&shown, what)).iter().sum();
        // But for sectors that are not full, and what a portion leaves at the end of a memory.
        let all = memories.iter().sum::<usize>() as u64;
        assert!((all - (24 << 10)..=all).contains(&used), "{memories:?}: {used} of {all}");
        assert_eq!(shown.story(1), greedy, "{memories:?}");
    }
}

#[test]
fn the_context_is_what_there_is_memory_for() {
    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    let context = |memory: usize, asked: usize| {
        let steps = [line(&format!("/context {asked}")), line("/temp 0"), line("/steps 1000"), line("")];
        let shown = shown(memory, None, Some(&card), steps);
        (planned_context(&shown), shown)
    };
    assert_eq!(context(2 << 20, 256).0, 256);
    // No more than the model was trained for.
    assert_eq!(context(2 << 20, 100_000).0, 512);
    let (small, shown) = context(100 << 10, 256);
    assert!((16..200).contains(&small) && small % 8 == 0, "{small}");
    assert!(shown.all().contains("[context: "), "{}", shown.all());
    let greedy = told("", 0.0, 1, 256, CacheFormat::Q8);
    assert!(greedy.starts_with(&shown.story(3)) && shown.story(3).len() > small);
}

fn planned_context(shown: &Shown) -> usize {
    let all = shown.all();
    let rest = all.rsplit_once("a context of ").unwrap().1;
    rest.split_once(',').unwrap().0.parse().unwrap()
}

#[test]
fn a_thousand_prompts_change_nothing() {
    let prompts = ["Once", "The llama was hungry.", "", "Lily and Tom", "One day, a bird 🐦 said \"hi\""];
    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    let mut steps = vec![line("/seed 7"), line("/steps 24")];
    steps.extend((0..1000).map(|i| line(prompts[i % prompts.len()])));
    let shown = shown(220 << 10, None, Some(&card), steps);
    for (i, prompt) in prompts.iter().enumerate() {
        let first = shown.story(2 + i);
        assert_eq!(first, told(prompt, 0.8, 7, 24, CacheFormat::Q8), "{prompt}");
        for round in (i..1000).step_by(prompts.len()) {
            assert_eq!(shown.story(2 + round), first, "{prompt}, {round}");
        }
    }
}

#[test]
fn a_model_is_chosen_by_number_or_name() {
    let card =
        Card::with(&[("nano.gguf", NANO.bytes()), ("a long name.gguf", NANO.bytes()), ("x.txt", b"no")]);
    let lines = [
        "/model 2",
        "/model 3",
        "/model A LONG NAME",
        "/model nano.gguf",
        "/model flash",
        "/model",
        "/model 9",
    ];
    let mut steps = vec![line(""), line("/models")];
    steps.extend(lines.map(line));
    let shown = shown(300 << 10, Some(NANO.bytes()), Some(&card), steps);
    assert!(shown.parts[1].contains("there is no model: /models"), "{}", shown.parts[1]);
    for part in [0, 2] {
        let list = &shown.parts[part];
        let bytes = NANO.bytes().len();
        assert!(list.contains(&format!("  1  flash ({bytes} bytes)\r\n")), "{list}");
        assert!(list.contains("  2  nano.gguf (") && list.contains("  3  a long name.gguf ("), "{list}");
        assert!(!list.contains("x.txt"));
    }
    for (part, name) in [
        (3, "nano.gguf"),
        (4, "a long name.gguf"),
        (5, "a long name.gguf"),
        (6, "nano.gguf"),
        (7, "flash"),
        (8, "flash"),
    ] {
        assert!(
            shown.parts[part].contains(&format!("\r\n{name}: 5 layers of 64")),
            "{part}: {}",
            shown.parts[part]
        );
    }
    assert!(shown.parts[9].contains("error: there is no model 9"), "{}", shown.parts[9]);
}

#[test]
fn a_self_test_feeds_the_watchdog() {
    let fed = |lines: &[&str]| {
        shown(300 << 10, Some(NANO.bytes()), None::<&NoCard>, lines.iter().map(|text| line(text))).fed
    };
    assert!(fed(&["/selftest"]) > fed(&["/help"]) + 1000);
}

#[test]
#[cfg(feature = "kernels")]
fn products_are_timed_and_the_model_comes_back() {
    let formats = ["q8, 288", "q8, 288", "q8, 288", "q4, 288", "q4, 288", "q4, 288"];
    let groups = ["a scale a row", "groups of 64", "groups of 32"].repeat(2);
    for (memory, mapped) in [(1 << 20, Some(NANO.bytes())), (1 << 20, None), (8 << 10, None)] {
        let shown = shown(memory, mapped, None::<&NoCard>, ["/kv f32", "/temp 0", "/kernels", ""].map(line));
        let told: Vec<_> = shown.parts[3].lines().filter(|line| line.contains(" million weights")).collect();
        assert_eq!(told.len(), formats.len(), "{}", shown.parts[3]);
        for ((line, format), group) in told.iter().zip(formats).zip(&groups) {
            // As many rows as there is memory for.
            let format = if memory > 8 << 10 { format } else { &format[..3] };
            assert!(line.contains(format) && line.contains(group), "{line}");
            let rate = line.split_once(": ").unwrap().1.split(' ').next().unwrap();
            assert!(rate.parse::<f64>().unwrap() > 0.0, "{line}");
        }
        match mapped {
            Some(_) => assert_eq!(shown.story(3), golden("greedy")),
            None => assert!(shown.parts[4].contains("error: there is no model"), "{}", shown.parts[4]),
        }
    }
    let shown = shown(2 << 10, None, None::<&NoCard>, [line("/kernels")]);
    let refused = "error: a product takes 2320 bytes of memory, 2048 are lent";
    assert!(shown.parts[1].contains(refused), "{}", shown.parts[1]);
}

#[test]
fn commands_answer() {
    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    let lines = [
        "/help",
        "/stats",
        "/selftest",
        "/bench",
        "/stats",
        "/temp",
        "/temp 99999",
        "/nonsense",
        "/seed 3",
        "/topk 5",
    ];
    let shown = shown(300 << 10, None, Some(&card), lines.map(line));
    for (part, text) in [
        (0, "llamita 0.1.0 on a test: "),
        (1, "/selftest"),
        (2, "error: no text was made yet"),
        (3, " agree"),
        (4, "[length: 1 prompt tokens in "),
        (4, "32 new tokens"),
        (4, " tok/s, "),
        (5, "32 new tokens"),
        (6, "temperature 0.8"),
        (7, "error: /temp takes 0, or 0.001 to 1000, found \"99999\""),
        (8, "error: there is no command /nonsense: /help"),
        (9, "seed 3"),
        (10, "top-k 5"),
    ] {
        assert!(shown.parts[part].contains(text), "{text}: {}", shown.parts[part]);
    }
}
