//! What a panel shows beside the port.

use std::fmt::Display;

use llamita::CacheFormat;
use llamita_firmware::Panel;

#[cfg(feature = "display")]
use crate::board::after;
use crate::board::{line, shown_on};
use crate::card::Card;
use crate::{NANO, told};

/// A panel that remembers.
#[derive(Debug, PartialEq)]
enum Event {
    Start(String),
    Progress(u64, u64),
    Clear,
    Push(String),
    Status(f32, u32),
    Note(String),
    Message(String),
}

struct Remembered(Vec<Event>);

impl Panel for Remembered {
    fn start(&mut self, name: &str) {
        self.0.push(Event::Start(name.into()));
    }

    fn progress(&mut self, done: u64, total: u64) {
        self.0.push(Event::Progress(done, total));
    }

    fn clear(&mut self) {
        self.0.push(Event::Clear);
    }

    fn push(&mut self, text: &str) {
        self.0.push(Event::Push(text.into()));
    }

    fn status(&mut self, tokens_per_second: f32, tokens: u32) {
        self.0.push(Event::Status(tokens_per_second, tokens));
    }

    fn note(&mut self, text: &str) {
        self.0.push(Event::Note(text.into()));
    }

    fn message(&mut self, text: &dyn Display) {
        self.0.push(Event::Message(text.to_string()));
    }
}

#[test]
fn a_panel_hears_of_everything_in_order() {
    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    let mut panel = Remembered(Vec::new());
    let steps = [line("/temp 0"), line("/steps 30"), line("Once"), line("/nonsense")];
    shown_on(&mut panel, 500 << 10, Some(&card), steps.into());
    let mut events = panel.0.into_iter().peekable();

    let text = |text: &str| text.to_owned();
    assert_eq!(events.next(), Some(Event::Start(text("llamita"))));
    assert_eq!(events.next(), Some(Event::Start(text("nano.gguf"))));
    assert_eq!(events.next(), Some(Event::Note(text("loading"))));
    let (mut last, mut all) = (0, 0);
    while let Some(Event::Progress(done, total)) =
        events.next_if(|event| matches!(event, Event::Progress(..)))
    {
        assert!(done > last && (all == 0 || all == total), "{done} of {total}");
        (last, all) = (done, total);
    }
    assert!(last > 0 && last == all, "{last} of {all}");
    assert_eq!(events.next(), Some(Event::Clear));
    assert_eq!(events.next(), Some(Event::Note(text("type a prompt"))));

    assert_eq!(events.next(), Some(Event::Clear));
    let (mut story, mut tokens) = (String::new(), 0);
    for event in events.by_ref() {
        match event {
            Event::Push(piece) => story += &piece,
            Event::Status(rate, count) => {
                assert!(count == tokens + 1 || count == tokens, "{count} after {tokens}");
                assert!(rate > 0.0 || count == 1, "{rate}");
                tokens = count;
            }
            other => {
                assert_eq!(
                    other,
                    Event::Message(text("there is no command /nonsense: /help lists those that there are"))
                );
                break;
            }
        }
    }
    assert_eq!(story, told("Once", 0.0, 1, 30, CacheFormat::Q8));
    // BOS and a prompt of one token.
    assert_eq!(tokens, 29);
    assert_eq!(events.next(), None);
}

#[cfg(feature = "display")]
#[test]
fn a_screen_shows_a_story_and_an_error() {
    use llamita_display::Screen;

    use crate::board::CLOCK;
    use crate::panel::Panel as Pixels;

    let card = Card::with(&[("nano.gguf", NANO.bytes())]);
    let begin = || vec![line("/kv f32"), line("/temp 0"), line("/steps 60"), line("")];
    let mut fails = begin();
    fails.push(after(|| card.answers.set(40), "Once"));
    for (name, steps) in [("console-story", begin()), ("console-error", fails)] {
        CLOCK.set(Some(0));
        let mut screen = Screen::new(Pixels::new(240, 135));
        shown_on(&mut screen, 410 << 10, Some(&card), steps.into());
        CLOCK.set(None);
        crate::golden::compare(screen.target(), name);
    }
}
