//! What a badge with a small colour panel shows while llamita tells a story: the model's name, a llama that walks a step
//! with every token, the text as it streams, and how fast it comes.
//!
//! It draws on any [`DrawTarget`] of [`Rgb565`] pixels from about 128x64 to 480x320, in landscape or in portrait. The
//! `Display` of the crate `mipidsi` is one (ST7735, ST7789, ILI9341 and their kin on SPI or a parallel bus). Every call
//! draws only what it changes, as few and solid rectangles, because an unbuffered panel on SPI pays for every pixel and
//! for every window. There is no frame buffer and no heap; a [`Screen`] is some 300 bytes beside its target.
//!
//! ```
//! use embedded_graphics::pixelcolor::Rgb565;
//! use embedded_graphics::prelude::DrawTarget;
//! use llamita_display::Screen;
//!
//! fn story<D: DrawTarget<Color = Rgb565>>(panel: D) -> Result<(), D::Error> {
//!     let mut screen = Screen::new(panel);
//!     screen.start("stories15M")?;
//!     for done in 0..=60 {
//!         screen.progress(done, 60)?;
//!     }
//!     for (i, token) in ["Once", " upon", " a", " time", "..."].into_iter().enumerate() {
//!         screen.push(token)?;
//!         screen.status(12.5, i as u32 + 1)?;
//!     }
//!     Ok(())
//! }
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod flow;
mod glyph;
mod layout;
mod llama;
mod loading;
mod palette;

use core::fmt::{self, Arguments, Display, Write};

use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::DrawTarget;
use embedded_graphics::primitives::Rectangle;

use flow::{Flow, Full};
use glyph::{Cells, Line, Style};
use layout::{Layout, MAX_COLUMNS};
use loading::Bar;
use palette::{AMBER, CORAL, CREAM, DUSK, NIGHT};

/// A panel and what is shown on it.
///
/// An error of the panel is returned as it is. What failed to be drawn may then be missing until the next
/// [`clear`](Self::clear), or, after the panel was set up anew, until the next [`start`](Self::start).
pub struct Screen<D> {
    target: D,
    layout: Layout,
    view: View,
    flow: Flow,
    bar: Bar,
    status: Cells<MAX_COLUMNS>,
    /// Pose of the llama's legs.
    step: u8,
}

/// What the middle of the panel shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    Story,
    Loading,
    Message,
}

impl<D: DrawTarget<Color = Rgb565>> Screen<D> {
    /// For a panel of the size that `target` has now. Nothing is drawn until [`start`](Self::start).
    pub fn new(target: D) -> Self {
        let layout = Layout::new(target.bounding_box());
        let (flow, bar, status) = (Flow::new(), Bar::new(), Cells::blank());
        Self { target, layout, view: View::Story, flow, bar, status, step: 0 }
    }

    /// Draws the whole panel: bars, the llama, the name of the model, and no text yet. What was shown is gone.
    pub fn start(&mut self, name: &str) -> Result<(), D::Error> {
        self.target.fill_solid(&self.layout.title, DUSK)?;
        self.target.fill_solid(&self.layout.status, DUSK)?;
        self.status = Cells::blank();
        self.begin(View::Story)?;

        self.layout.fonts.llama.draw(&mut self.target, self.layout.llama(), self.step, DUSK)?;
        let (at, columns) = self.layout.name();
        let mut line = Line::<MAX_COLUMNS>::new();
        write(&mut line, format_args!("{name}"));
        let style = Style { font: &self.layout.fonts.title, ink: AMBER, paper: DUSK };
        style.draw(&mut self.target, at, line.cut(columns))
    }

    /// Shows a token's text after what was pushed before, and lets the llama walk a step.
    ///
    /// Lines break at spaces and, where a word is longer than a line, within it. When the page is full it turns, and its
    /// last line is carried over. Characters beyond ISO 8859-1 are shown as a box, but for typographic quotes, dashes
    /// and dots, which get their plain forms.
    pub fn push(&mut self, text: &str) -> Result<(), D::Error> {
        if text.is_empty() {
            return Ok(());
        }
        if self.view != View::Story {
            self.begin(View::Story)?;
        }
        self.step = self.step.wrapping_add(1);
        self.layout.fonts.llama.draw_legs(&mut self.target, self.layout.llama(), self.step, DUSK)?;
        self.flow.write(&mut self.target, &self.layout, CREAM, Full::Turn, text)
    }

    /// Shows how much of a model is loaded, in any unit. It is cheap to call often: only a new percent is drawn.
    pub fn progress(&mut self, done: u64, total: u64) -> Result<(), D::Error> {
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100) as u32;
        if self.view != View::Loading || self.bar.is_beyond(percent) {
            self.begin(View::Loading)?;
        }
        self.bar.show(&mut self.target, &self.layout, percent)
    }

    /// Shows how fast tokens come and how many came, below the text.
    pub fn status(&mut self, tokens_per_second: f32, tokens: u32) -> Result<(), D::Error> {
        // In tenths, because the formatting of floats is large code. The cast saturates, and makes a zero of a NaN.
        let tenths = (tokens_per_second * 10.0 + 0.5) as u32;
        let mut line = Line::new();
        write(&mut line, format_args!("{}.{} tok/s", tenths / 10, tenths % 10));
        let mut count = Line::new();
        write(&mut count, format_args!("{tokens} token{}", if tokens == 1 { "" } else { "s" }));
        line.right(&count, self.layout.status_columns);
        self.show_status(line)
    }

    /// Shows a short text in place of the speed: "reading the card", "press a key".
    pub fn note(&mut self, text: &str) -> Result<(), D::Error> {
        let mut line = Line::new();
        write(&mut line, format_args!("{text}"));
        self.show_status(line)
    }

    /// Shows an error in place of the story, in another colour. What does not fit the page is cut. The next
    /// [`push`](Self::push) begins a page of its own.
    pub fn message(&mut self, text: impl Display) -> Result<(), D::Error> {
        self.begin(View::Message)?;
        let mut message = Message { screen: self, outcome: Ok(()) };
        // The panel's own error is kept.
        let _ = write!(message, "{text}");
        message.outcome
    }

    /// Makes room for a new story: the text and the status go, the title stays.
    pub fn clear(&mut self) -> Result<(), D::Error> {
        self.begin(View::Story)?;
        self.note("")
    }

    /// Where the text's cells are; nothing of a story is drawn beyond them but the llama's legs.
    pub fn text_area(&self) -> Rectangle {
        self.layout.text_area()
    }

    /// The panel, to set its brightness or to draw what this crate does not.
    pub fn target(&mut self) -> &mut D {
        &mut self.target
    }

    /// Gives the panel back.
    pub fn release(self) -> D {
        self.target
    }

    /// Blanks the middle for another view.
    fn begin(&mut self, view: View) -> Result<(), D::Error> {
        self.flow = Flow::new();
        self.bar = Bar::new();
        self.target.fill_solid(&self.layout.body, NIGHT)?;
        self.view = view;
        Ok(())
    }

    fn show_status(&mut self, mut line: Line<MAX_COLUMNS>) -> Result<(), D::Error> {
        line.cut(self.layout.status_columns);
        let style = Style { font: &self.layout.fonts.status, ink: AMBER, paper: DUSK };
        self.status.show(&mut self.target, self.layout.status_text(), &style, &line)
    }
}

/// An error as it is written, a piece at a time.
struct Message<'s, D: DrawTarget> {
    screen: &'s mut Screen<D>,
    outcome: Result<(), D::Error>,
}

impl<D: DrawTarget<Color = Rgb565>> Write for Message<'_, D> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Screen { target, layout, flow, .. } = &mut *self.screen;
        self.outcome = flow.write(target, layout, CORAL, Full::Cut, text);
        self.outcome.as_ref().map_err(|_| fmt::Error).copied()
    }
}

/// A line takes all that fits and never fails.
fn write(line: &mut Line<MAX_COLUMNS>, text: Arguments<'_>) {
    let _ = line.write_fmt(text);
}
