//! Whatever goes wrong, there is a text, and the console lives on.

use llamita::CacheFormat;
use llamita_firmware::NoCard;

use crate::board::{Shown, Step, after, line, shown, shown_with};
use crate::card::{Card, volume};
use crate::{NANO, told};

fn once() -> String {
    told("Once", 0.0, 1, 30, CacheFormat::Q8)
}

/// The lines that show that all is well, after others.
fn then_well<'s>(steps: impl IntoIterator<Item = Step<'s>>) -> Vec<Step<'s>> {
    let mut steps: Vec<_> = steps.into_iter().collect();
    steps.extend([line("/temp 0"), line("/steps 30"), line("Once")]);
    steps
}

fn is_well(shown: &Shown) {
    // The last part is what `/quit` shows.
    assert_eq!(shown.story(shown.parts.len() - 3), once());
}

#[test]
fn files_of_every_kind_are_refused_by_name() {
    let nano = NANO.bytes();
    let mut damaged = nano.to_vec();
    *damaged.iter_mut().nth_back(100).unwrap() ^= 0x10;
    let mut embedding = nano.to_vec();
    // The first tensor.
    embedding[40 << 10] ^= 1;
    let mut version = nano.to_vec();
    version[4] = 99;
    let garbage: Vec<u8> = (0..9000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let hostile = [b"GGUF\x03\0\0\0", &[0xff; 600][..]].concat();
    let files: [(&str, &[u8], &str); 9] = [
        ("half.gguf", &nano[..nano.len() / 2], "truncated"),
        ("header.gguf", &nano[..3000], "truncated"),
        ("start.gguf", &nano[..10], "truncated"),
        ("damaged.gguf", &damaged, "the checksum of tensor"),
        ("embedding.gguf", &embedding, "the checksum of tensor"),
        ("version.gguf", &version, "version"),
        ("garbage.gguf", &garbage, "error: garbage.gguf: "),
        ("hostile.gguf", &hostile, "error: hostile.gguf: "),
        ("page.gguf", b"<!DOCTYPE html><p>404", "a web page"),
    ];
    let mut all: Vec<_> = files.iter().map(|(name, bytes, _)| (*name, *bytes)).collect();
    all.push(("nano.gguf", nano));
    // Two cards, as one is too small for all of them.
    for (all, files) in [(&all[..4], &files[..4]), (&all[4..], &files[4..])] {
        let mut all = all.to_vec();
        if !all.contains(&("nano.gguf", nano)) {
            all.push(("nano.gguf", nano));
        }
        let card = Card::with(&all);
        for memory in [200 << 10, 2 << 20] {
            let choices = files.iter().map(|(name, ..)| line(&format!("/model {name}")));
            let more = files.iter().map(|_| line("Once"));
            let both = choices
                .zip(more)
                .flat_map(|(choice, story)| [choice, line("/temp 0"), line("/steps 30"), story]);
            let steps: Vec<_> = both.chain([line("/model nope.gguf"), line("/model nano")]).collect();
            let shown = shown(memory, None, Some(&card), then_well(steps));
            for (i, (name, _, text)) in files.iter().enumerate() {
                let parts = shown.parts[1 + 4 * i..][..4].concat();
                assert!(parts.contains("error: ") && parts.contains(text), "{name}, {memory}: {parts}");
                assert!(!parts.contains(&once()), "{name}, {memory}: {parts}");
            }
            assert!(shown.all().contains("error: nope.gguf: the card has no such file"));
            is_well(&shown);
        }
    }
}

#[test]
fn no_header_is_the_end_of_the_console() {
    let header = llamita::Model::read(NANO.bytes()).unwrap().header_len() as usize;
    let mut random = 1_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for round in 0..300 {
        let mut file = NANO.bytes().to_vec();
        for _ in 0..=round % 4 {
            // The shape is at the begin, the tensors are at the end.
            let at = [next(900), header - 1 - next(3000), next(header)][next(3)];
            file[at] = [0, 0xff, next(256) as u8, file[at] ^ 1 << next(8)][next(4)];
        }
        let card = Card::with(&[("odd.gguf", &file)]);
        for memory in [120 << 10, 1 << 20] {
            let lines = ["/steps 9", "Once", "/model", "/bench"];
            // That it comes to its end is enough, the texts of the parsers have tests of their own.
            shown(memory, None, Some(&card), lines.map(line));
            shown(memory, Some(&file), None::<&NoCard>, lines.map(line));
        }
    }
}

#[test]
fn no_model_anywhere_is_told() {
    let none = shown(
        64 << 10,
        None,
        None::<&NoCard>,
        [line("Once"), line("/models"), line("/model"), line("/model x")],
    );
    // What to do is the board's.
    assert!(none.parts[0].contains(
        "error: there is no model in flash, and this board has no card: write a GGUF file there as the board wants it"
    ));
    assert!(none.parts[1].contains("error: there is no model: "));
    assert!(none.parts[2].contains("error: there is no model in flash"));
    assert!(none.parts[3].contains("error: there is no model in flash"));
    assert!(none.parts[4].contains("error: x: this board has no card"));
    // Flash that was erased is as good as none.
    let blank = shown(64 << 10, Some(&[0xff; 4096]), None::<&NoCard>, [line("/models")]);
    assert!(blank.parts[0].contains("error: there is no model in flash"));
    let cut = shown(300 << 10, Some(&NANO.bytes()[..100_000]), None::<&NoCard>, [line("Once")]);
    assert!(
        cut.parts[0].contains("error: flash: ") && cut.parts[0].contains("truncated"),
        "{}",
        cut.parts[0]
    );
    let empty = Card::with(&[("story.txt", b"Once upon a time")]);
    let empty = shown(64 << 10, None, Some(&empty), [line("Once")]);
    assert!(empty.parts[0].contains("error: the card has no .gguf file"), "{}", empty.parts[0]);
}

#[test]
fn a_card_that_is_not_there_can_come() {
    let good = volume(&[("nano.gguf", NANO.bytes())], usize::MAX);
    for (card, text) in [
        (Card::new(Vec::new()), "error: there is no card that answers (no answer): insert one"),
        (Card::new(vec![0; 1 << 20]), "error: the card has no partition with FAT16 or FAT32"),
        (Card::with(&[]), "error: the card has no .gguf file in its root folder"),
        (Card::new(volume(&[("a.gguf", NANO.bytes()), ("b.bin", NANO.bytes())], 2048)), "pieces"),
    ] {
        let steps = [
            line("Once"),
            line("/model 1"),
            after(|| card.exchange(good.clone()), "/models"),
            line("/model 1"),
        ];
        let shown = shown_with(300 << 10, None, Some(&card), then_well(steps).into());
        assert!(shown.parts[0].contains(text), "{}", shown.parts[0]);
        assert!(shown.parts[1].contains("error: there is no model: "), "{}", shown.parts[1]);
        assert!(shown.parts[2].contains("error: "), "{}", shown.parts[2]);
        assert!(shown.parts[3].contains("  1  nano.gguf ("), "{}", shown.parts[3]);
        is_well(&shown);
    }
}

#[test]
fn too_little_memory_is_told_in_bytes() {
    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    let mut worked = false;
    for kib in (0..=120).step_by(3) {
        for flash in [false, true] {
            let steps = [line("/temp 0"), line("/steps 8"), line("Once")];
            let shown = match flash {
                true => shown(kib << 10, Some(NANO.bytes()), None::<&NoCard>, steps),
                false => shown(kib << 10, None, Some(&card), steps),
            };
            let start = &shown.parts[0];
            if start.contains("error: ") {
                assert!(
                    start.contains("there is too little memory: ") && start.contains(" bytes "),
                    "{start}"
                );
                assert!(shown.parts[3].contains("error: there is no model: "));
                // From flash it takes less.
                assert!(!worked || !flash, "{kib}");
            } else {
                worked = true;
                assert_eq!(shown.story(2), told("Once", 0.0, 1, 8, CacheFormat::Q8), "{kib}");
            }
        }
    }
    assert!(worked);
}

#[test]
fn a_card_that_fails_in_a_story_ends_it_and_nothing_else() {
    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    for memory in [130 << 10, 200 << 10] {
        for answers in (0..400).step_by(9).chain([1, 2, 3, 2000]) {
            card.answers.set(usize::MAX);
            let steps = [
                line("/temp 0"),
                line("/steps 30"),
                after(|| card.answers.set(answers), "Once"),
                line("Once"),
                after(|| card.answers.set(usize::MAX), "/model"),
            ];
            let shown = shown_with(memory, None, Some(&card), then_well(steps).into());
            let part = &shown.parts[3];
            if answers < 2000 && memory < 150 << 10 {
                assert!(part.contains("error: "), "{answers}: {part}");
                assert!(part.contains("/model loads"), "{answers}: {part}");
                assert!(
                    shown.parts[4].contains("error: there is no model: "),
                    "{answers}: {}",
                    shown.parts[4]
                );
            }
            // What was told was right, as far as it went.
            let told = part.replace("\r\n", "\n");
            let told = told.strip_prefix("Once\n").unwrap();
            let end = told.find("\nerror: ").or(told.find("\n[length")).unwrap_or(0);
            assert!(once().starts_with(&told[..end]), "{answers}: {part}");
            is_well(&shown);
        }
    }
}

#[test]
fn a_card_that_fails_while_a_model_is_loaded_is_told() {
    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    for answers in 0..150 {
        card.answers.set(usize::MAX);
        let steps =
            [after(|| card.answers.set(answers), "/model"), after(|| card.answers.set(usize::MAX), "/model")];
        let shown = shown_with(250 << 10, None, Some(&card), then_well(steps).into());
        assert!(shown.parts[1].contains("error: ") || answers > 30, "{answers}: {}", shown.parts[1]);
        is_well(&shown);
    }
}

#[test]
fn another_card_is_noticed() {
    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    let other = volume(&[("first.txt", b"takes a cluster"), ("nano.gguf", NANO.bytes())], usize::MAX);
    let steps = [line("Once"), after(|| card.exchange(other.clone()), "Once"), line("/model")];
    let shown = shown_with(200 << 10, None, Some(&card), then_well(steps).into());
    assert!(
        shown.parts[2].contains("error: the model is not where it was on the card"),
        "{}",
        shown.parts[2]
    );
    is_well(&shown);
}
