//! Pictures of what a screen is told.

use llamita_display::Screen;

use crate::golden::compare;
use crate::panel::Panel;

const STORY: &[&str] = &[
    "Once", " upon", " a", " time", ",", " there", " was", " a", " little", " ll", "ama", " named", " Zo",
    "é", ".", " She", " lived", " in", " a", " caf", "é", " by", " the", " big", " red", " barn", ".", "\n",
    "One", " day", ",", " Zo", "é", " found", " a", " shin", "y", " but", "ton", ".", " “", "Oh", "!”",
    " she", " said", ".", " “", "It", " is", " so", " pre", "tty", "!”",
];

fn screen(width: u32, height: u32) -> Screen<Panel> {
    let mut screen = Screen::new(Panel::new(width, height));
    screen.start("stories15M").unwrap();
    screen
}

fn story(width: u32, height: u32, tokens: usize) -> Panel {
    let mut screen = screen(width, height);
    for (i, token) in STORY.iter().cycle().take(tokens).enumerate() {
        screen.push(token).unwrap();
        screen.status(12.34, i as u32 + 1).unwrap();
    }
    screen.release()
}

#[test]
fn stories_under_way() {
    for (width, height, tokens) in
        [(320, 240, STORY.len()), (240, 135, 40), (128, 64, 19), (480, 320, STORY.len()), (135, 240, 43)]
    {
        compare(&story(width, height, tokens), &format!("story-{width}x{height}"));
    }
}

#[test]
fn a_page_that_turned() {
    compare(&story(240, 135, 2 * STORY.len()), "turned-240x135");
}

#[test]
fn loading() {
    for (width, height) in [(320, 240), (128, 64)] {
        let mut screen = screen(width, height);
        screen.note("reading the card").unwrap();
        for done in 0..=40 {
            screen.progress(done * 153_600, 15_360_000).unwrap();
        }
        let in_steps = screen.release();
        compare(&in_steps, &format!("loading-{width}x{height}"));

        let mut screen = self::screen(width, height);
        screen.note("reading the card").unwrap();
        // It ends where it would have gone at once, whatever was shown before.
        for done in [70, 71, 40] {
            screen.progress(done, 100).unwrap();
        }
        assert!(in_steps.pixels == screen.release().pixels);
    }
}

/// With the llama in mid-stride.
#[test]
fn loading_on() {
    let mut screen = screen(240, 135);
    for percent in [5, 86, 87] {
        screen.progress(percent, 100).unwrap();
    }
    compare(screen.target(), "loading-240x135");
}

#[test]
fn an_error() {
    let mut screen = screen(240, 135);
    screen.push("Once upon a time").unwrap();
    screen
        .message("The model on the card ends early: it has 9437184 bytes of 15237452. Copy it again and /load it, or choose another one by /model.")
        .unwrap();
    screen.note("press a key").unwrap();
    compare(screen.target(), "error-240x135");
}

/// A message that is longer than the panel ends with dots, whatever follows.
#[test]
fn long_messages_are_cut() {
    let show = |message: &str| {
        let mut screen = screen(240, 135);
        screen.message(message).unwrap();
        screen.release().pixels
    };
    let rows = 7;
    let fitting = format!("{}line..", "line\n".repeat(rows - 1));
    assert!(show(&"line\n".repeat(rows)) == show(&format!("{}line", "line\n".repeat(rows - 1))));
    assert!(show(&"line\n".repeat(rows + 1)) == show(&fitting));
    assert!(show(&"line\n".repeat(50)) == show(&fitting));
    assert!(show(&format!("{}line {}", "line\n".repeat(rows - 1), "x".repeat(100))) == show(&fitting));
}

/// Started again, the screen shows the same status again.
#[test]
fn status_after_a_start() {
    let mut screen = screen(240, 135);
    screen.status(1.0, 2).unwrap();
    let first = screen.target().pixels.clone();
    screen.start("stories15M").unwrap();
    screen.status(1.0, 2).unwrap();
    assert!(screen.target().pixels == first);
}

/// After whatever was shown, a new story looks as the first one did.
#[test]
fn nothing_is_left_behind() {
    for (width, height) in [(128, 64), (320, 240), (240, 320)] {
        let mut first = screen(width, height);
        first.push("One").unwrap();

        let mut later = Screen::new(Panel::new(width, height));
        later.start("a model with a very, very long name that no panel has the room for").unwrap();
        later.progress(3, 7).unwrap();
        later.push("story").unwrap();
        later.status(f32::INFINITY, u32::MAX).unwrap();
        later.message("error ".repeat(500)).unwrap();
        later.start("stories15M").unwrap();
        later.status(f32::NAN, 1).unwrap();
        later.message("error").unwrap();
        later.clear().unwrap();
        later.push("One").unwrap();
        // The llama may be in another pose; what has no width moves it on.
        let same = (0..4).any(|_| {
            later.push("\u{200b}").unwrap();
            later.target().pixels == first.target().pixels
        });
        assert!(same, "{width}x{height}");
    }
}
