//! What shows a story besides the port.

use core::fmt::Display;

use heapless::String;

/// A panel that shows what is told.
///
/// Nobody hears of its errors: what it failed to show is missing, and all else goes on. With the feature `display` the
/// `Screen` of the crate `llamita-display` is one, on any target of `embedded-graphics`.
pub trait Panel {
    /// A model is to be loaded, or the console begins.
    fn start(&mut self, name: &str);

    /// So much of the model is loaded.
    fn progress(&mut self, done: u64, total: u64);

    /// A new text begins.
    fn clear(&mut self);

    /// A piece of the text.
    fn push(&mut self, text: &str);

    /// How fast the text comes, and how many tokens came: what belongs to a token has been pushed.
    fn status(&mut self, tokens_per_second: f32, tokens: u32);

    /// For a while nothing comes: what was put off is shown.
    fn finish(&mut self) {}

    /// What to do next.
    fn note(&mut self, text: &str);

    /// What went wrong.
    fn message(&mut self, text: &dyn Display);
}

/// Of so many parts of the time, drawing takes one while a text is told.
const SHARE: u64 = 20;
/// Bytes of text that are drawn at once: more than any token has, and few milliseconds.
const AT_ONCE: usize = 32;
/// Bytes of text that may be put off.
const PUT_OFF: usize = 1024;

/// A panel that costs a text little of its rate. A token takes a small panel on SPI a millisecond at worst, in which the
/// smallest models make another one: what they tell faster than it is drawn is put off, until the end at the latest.
pub struct Paced<P> {
    panel: P,
    ticks: fn() -> u64,
    /// When drawing is allowed again.
    rested: u64,
    text: String<PUT_OFF>,
    status: Option<(f32, u32)>,
}

impl<P: Panel> Paced<P> {
    /// A panel, with a counter that never goes back.
    pub const fn new(panel: P, ticks: fn() -> u64) -> Self {
        Self { panel, ticks, rested: 0, text: String::new(), status: None }
    }

    /// Draws as much as is drawn at once.
    fn draw(&mut self) {
        let begin = (self.ticks)();
        let end = self.text.floor_char_boundary(AT_ONCE);
        if end > 0 {
            self.panel.push(&self.text[..end]);
            self.text.drain(..end);
        }
        if let Some((tokens_per_second, tokens)) = self.status.take() {
            self.panel.status(tokens_per_second, tokens);
        }
        let end = (self.ticks)();
        self.rested = end + end.saturating_sub(begin) * (SHARE - 1);
    }

    fn forget(&mut self) {
        self.text.clear();
        self.status = None;
    }
}

impl<P: Panel> Panel for Paced<P> {
    fn start(&mut self, name: &str) {
        self.forget();
        self.panel.start(name);
    }

    fn progress(&mut self, done: u64, total: u64) {
        self.finish();
        self.panel.progress(done, total);
    }

    fn clear(&mut self) {
        self.forget();
        self.panel.clear();
    }

    fn push(&mut self, text: &str) {
        for char in text.chars() {
            while self.text.push(char).is_err() {
                self.draw();
            }
        }
    }

    fn status(&mut self, tokens_per_second: f32, tokens: u32) {
        self.status = Some((tokens_per_second, tokens));
        if (self.ticks)() >= self.rested {
            self.draw();
        }
    }

    fn finish(&mut self) {
        while !self.text.is_empty() || self.status.is_some() {
            self.draw();
        }
        self.panel.finish();
    }

    fn note(&mut self, text: &str) {
        self.finish();
        self.panel.note(text);
    }

    fn message(&mut self, text: &dyn Display) {
        self.forget();
        self.panel.message(text);
    }
}

#[cfg(feature = "display")]
impl<D> Panel for llamita_display::Screen<D>
where
    D: embedded_graphics::draw_target::DrawTarget<Color = embedded_graphics::pixelcolor::Rgb565>,
{
    fn start(&mut self, name: &str) {
        let _ = self.start(name);
    }

    fn progress(&mut self, done: u64, total: u64) {
        let _ = self.progress(done, total);
    }

    fn clear(&mut self) {
        let _ = self.clear();
    }

    fn push(&mut self, text: &str) {
        let _ = self.push(text);
    }

    fn status(&mut self, tokens_per_second: f32, tokens: u32) {
        let _ = self.status(tokens_per_second, tokens);
    }

    fn note(&mut self, text: &str) {
        let _ = self.note(text);
    }

    fn message(&mut self, text: &dyn Display) {
        let _ = self.message(text);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::cell::Cell;
    use std::string::String;

    use super::*;

    std::thread_local! {
        static TIME: Cell<u64> = const { Cell::new(0) };
    }

    fn pass(ticks: usize) {
        TIME.set(TIME.get() + ticks as u64);
    }

    /// A panel that takes a tick for a byte, and one for a status.
    #[derive(Default)]
    struct Slow {
        shown: String,
        tokens: u32,
        /// Ticks that were taken by it.
        taken: usize,
    }

    impl Slow {
        fn take(&mut self, ticks: usize) {
            pass(ticks);
            self.taken += ticks;
        }
    }

    impl Panel for Slow {
        fn start(&mut self, _: &str) {}
        fn progress(&mut self, _: u64, _: u64) {}
        fn note(&mut self, _: &str) {}
        fn message(&mut self, _: &dyn Display) {}

        fn clear(&mut self) {
            self.shown.clear();
        }

        fn push(&mut self, text: &str) {
            self.shown += text;
            self.take(text.len());
        }

        fn status(&mut self, _: f32, tokens: u32) {
            self.tokens = tokens;
            self.take(1);
        }
    }

    fn paced() -> Paced<Slow> {
        TIME.set(0);
        Paced::new(Slow::default(), || TIME.get())
    }

    /// Tells tokens with a pause before each; returns the text.
    fn tell(panel: &mut Paced<Slow>, tokens: u32, pause: usize, mut look: impl FnMut(&Slow, &str)) -> String {
        let mut text = String::new();
        for token in 1..=tokens {
            pass(pause);
            for piece in [" né", "o"] {
                panel.push(piece);
                text += piece;
            }
            panel.status(1.0, token);
            look(&panel.panel, &text);
        }
        text
    }

    #[test]
    fn slow_texts_are_shown_at_once() {
        let mut panel = paced();
        tell(&mut panel, 100, 6 * SHARE as usize, |shown, text| assert_eq!(shown.shown, text));
    }

    #[test]
    fn fast_texts_keep_their_rate() {
        let mut panel = paced();
        let mut halves = [0; 2];
        let text = tell(&mut panel, 190, 6, |shown, text| halves[text.len() / 480] = shown.taken);
        // One time in twenty, and what was begun when that was over.
        assert!(panel.panel.taken > 20, "nothing was shown meanwhile");
        assert!(panel.panel.taken * SHARE as usize <= 190 * 6 + (AT_ONCE + 1) * SHARE as usize + 60);
        assert!(halves[1] > halves[0], "it went on");
        panel.finish();
        assert_eq!((panel.panel.shown, panel.panel.tokens), (text, 190));
    }

    #[test]
    fn nothing_is_lost_where_more_is_put_off_than_there_is_room_for() {
        let mut panel = paced();
        let text = tell(&mut panel, 1000, 0, |_, _| ());
        assert!(text.len() > 4 * PUT_OFF);
        panel.finish();
        assert_eq!(panel.panel.shown, text);
        panel.push("left behind");
        panel.clear();
        panel.finish();
        assert_eq!(panel.panel.shown, "");
    }
}
