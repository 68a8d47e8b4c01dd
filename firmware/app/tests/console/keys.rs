//! What is typed, and how.

use llamita::CacheFormat;
use llamita_firmware::NoCard;

use crate::board::{during, keys, line, shown};
use crate::{NANO, told};

#[test]
fn lines_are_edited() {
    let up = "\x1b[A";
    let typed = [
        "The lx\x7flama wasé\x7f hungry.\r",
        "something else\x15The llama was hungry.\r",
        "something else\x03The llama was hungry.\r",
        "/topp\r",
    ];
    let mut steps = vec![line("/temp 0"), line("/steps 30")];
    steps.extend(typed.map(keys));
    steps.push(keys(format!("{up}{up}\r")));
    // Sequences of other keys do nothing.
    steps.push(keys(format!("\x1b[5~The llama\x1b[D was hungry.{up}{up}\x1b[B\x1b[B\x1b[F\r")));
    let shown = shown(1 << 20, Some(NANO.bytes()), None::<&NoCard>, steps);
    let story = told("The llama was hungry.", 0.0, 1, 30, CacheFormat::Q8);
    for part in [3, 4, 5, 7] {
        assert!(shown.parts[part].contains(&format!("\r\n{story}\r\n[length")), "{}", shown.parts[part]);
    }
    let begun = told("", 0.0, 1, 30, CacheFormat::Q8);
    assert!(shown.parts[8].contains(&format!("\r\n{begun}\r\n[length")), "{}", shown.parts[8]);
    assert!(shown.parts[5].contains("something else^C\r\n> The llama"));
}

#[test]
fn no_line_is_too_long_or_too_odd() {
    let mut steps = vec![line("/temp 0"), line("/steps 30"), line(&"a ".repeat(2000))];
    steps.push(keys(*b"caf\xe9 \xff\r"));
    steps.push(line("Once"));
    steps.push(line(&"the".repeat(130)));
    steps.push(line(&"🦙".repeat(120)));
    steps.push(line("\u{0}\u{1}\u{1b}[31m\u{9b}Once"));
    steps.push(line("/model \u{1f999}.gguf"));
    steps.push(line(&format!("/model {}", "n".repeat(200))));
    let shown = shown(1 << 20, Some(NANO.bytes()), None::<&NoCard>, steps);
    let once = told("Once", 0.0, 1, 30, CacheFormat::Q8);
    for (part, text) in [
        (3, "\x07"),
        (3, "note: the line was cut after 512 bytes"),
        (4, "error: byte 4 of the line is not UTF-8"),
        (5, once.as_str()),
        (6, "error: a word of the prompt has more than 256 bytes"),
        (7, "error: "),
        (9, "error: 🦙.gguf: this board has no card"),
        (10, "error: the name has more than 128 bytes"),
    ] {
        assert!(shown.parts[part].contains(text), "{part}, {text}: {}", shown.parts[part]);
    }
    // Keys that are none are no part of the line, and none of it reaches the terminal to be obeyed.
    assert!(!shown.parts[8].contains('\u{9b}') && !shown.parts[8].contains("\x1b[31m"));
}

#[test]
fn a_prompt_that_is_too_long_is_refused() {
    let long = "Lily had a big red ball and she was very happy to play with it. ".repeat(7);
    let steps = vec![
        line("/context 64"),
        line(&long),
        line("/steps 10"),
        line("/context 256"),
        line(&long),
        line("Once"),
    ];
    let shown = shown(1 << 20, Some(NANO.bytes()), None::<&NoCard>, steps);
    assert!(shown.parts[2].contains("error: the prompt has more tokens than the context, which has 64"));
    assert!(
        shown.parts[5].contains("tokens, a text may have 10: shorten it, or raise /steps"),
        "{}",
        shown.parts[5]
    );
    assert!(shown.parts[6].contains("[length: "));
}

#[test]
fn ctrl_c_stops_a_story() {
    let steps = vec![line("/temp 0"), line(""), during("Once upon", "\x03"), line("/steps 30"), line("Once")];
    let shown = shown(1 << 20, Some(NANO.bytes()), None::<&NoCard>, steps);
    let told_so_far = (shown.parts[2].clone() + &shown.parts[3]).replace("\r\n", "\n");
    let story = told_so_far.strip_prefix('\n').unwrap().split_once("\n[stopped: ").unwrap().0;
    let whole = told("", 0.0, 1, 256, CacheFormat::Q8);
    assert!(whole.starts_with(story) && story.len() < 60, "{story}");
    assert_eq!(shown.story(4), told("Once", 0.0, 1, 30, CacheFormat::Q8));
}

#[test]
fn ctrl_c_is_seen_behind_any_number_of_keys() {
    let ahead = "x".repeat(500);
    let typed = [ahead.clone() + "\x03", ahead.clone() + "\r/seed 3\r"];
    let mut steps = vec![line("/temp 0")];
    for typed in &typed {
        steps.extend([line(""), during("Once upon", typed)]);
    }
    steps.extend([line("/steps 30"), line("Once")]);
    let shown = shown(1 << 20, Some(NANO.bytes()), None::<&NoCard>, steps);
    let [stopped, forgotten] = [&shown.parts[3], &shown.parts[5]];
    assert!(stopped.contains("[stopped: ") && !stopped.contains("note: "), "{stopped}");
    assert!(!forgotten.contains("[stopped: ") && !forgotten.contains("seed 3\r"), "{forgotten}");
    assert!(
        forgotten.contains("note: more than 128 keys were typed ahead, and are forgotten"),
        "{forgotten}"
    );
    assert_eq!(shown.story(6), told("Once", 0.0, 1, 30, CacheFormat::Q8));
}

#[test]
fn noise_is_no_end() {
    let mut random = 7_u32;
    let mut next = |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % below
    };
    let words = [
        "/temp ",
        "/json on\r",
        "/json off\r",
        "/model ",
        "/kv q8",
        "0",
        " 1",
        "\x1b[A",
        "\x03",
        "\r",
        "é",
        "/plan\r",
    ];
    let mut noise = b"/steps 3\r".to_vec();
    for _ in 0..3000 {
        match next(3) {
            0 => noise.push(next(256) as u8),
            1 => noise.push(b' ' + next(95) as u8),
            _ => noise.extend(words[next(words.len() as u32) as usize].bytes()),
        }
    }
    let after =
        ["\x15/json off", "/model flash", "/kv q8", "/temp 0", "/steps 30", "/topp 0.9", "/topk 0", "Once"];
    let mut steps = vec![keys(noise)];
    steps.extend(after.map(line));
    let shown = shown(300 << 10, Some(NANO.bytes()), None::<&NoCard>, steps);
    assert_eq!(shown.story(8), told("Once", 0.0, 1, 30, CacheFormat::Q8));
}
