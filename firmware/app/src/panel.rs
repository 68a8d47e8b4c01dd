//! What shows a story besides the port.

use core::fmt::Display;

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

    /// How fast the text comes, and how many tokens came.
    fn status(&mut self, tokens_per_second: f32, tokens: u32);

    /// What to do next.
    fn note(&mut self, text: &str);

    /// What went wrong.
    fn message(&mut self, text: &dyn Display);
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
