//! A bar that fills while the model loads, and the llama that walks along it.

use core::fmt::Write;

use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::DrawTarget;
use embedded_graphics::primitives::Rectangle;

use crate::glyph::{Cells, Line, Style};
use crate::layout::Layout;
use crate::palette::{AMBER, CREAM, DUSK, NIGHT};

/// Cells of the longest caption.
const CAPTION: usize = "Loading 100 %".len();

/// How far the bar is drawn.
pub struct Bar {
    percent: Option<u32>,
    caption: Cells<CAPTION>,
}

impl Bar {
    /// Nothing of it is drawn.
    pub const fn new() -> Self {
        Self { percent: None, caption: Cells::blank() }
    }

    /// Whether `percent` is less than what is drawn, so that it must be drawn anew.
    pub fn is_beyond(&self, percent: u32) -> bool {
        self.percent.is_some_and(|drawn| drawn > percent)
    }

    /// Draws what is new since the last call: at most a hundred times something, however often it is called.
    pub fn show<D: DrawTarget<Color = Rgb565>>(
        &mut self,
        target: &mut D,
        layout: &Layout,
        percent: u32,
    ) -> Result<(), D::Error> {
        if self.percent == Some(percent) {
            return Ok(());
        }
        let llama = layout.fonts.llama;
        let (side, thickness) = (llama.side, llama.side / 3);
        let Size { width: cell, height: text } = layout.fonts.text.character_size;
        let gap = thickness / 2;
        let body = layout.body.size;
        let above = body.height.saturating_sub(side + thickness + gap + text) / 2;
        let top_left = layout.body.top_left + Point::new(side as i32, above as i32);
        let width = body.width.saturating_sub(2 * side);
        let stretch = |width: u32, percent: u32| width * percent / 100;

        let from = match self.percent {
            Some(drawn) => stretch(width, drawn),
            None => {
                let trough =
                    Rectangle::new(top_left + Point::new(0, side as i32), Size::new(width, thickness));
                target.fill_solid(&trough, DUSK)?;
                0
            }
        };
        let filled = Rectangle::new(
            top_left + Point::new(from as i32, side as i32),
            Size::new(stretch(width, percent) - from, thickness),
        );
        target.fill_solid(&filled, AMBER)?;

        let path = width.saturating_sub(side);
        let left = stretch(path, percent);
        if let Some(drawn) = self.percent {
            let left_behind = stretch(path, drawn);
            let steps = (left - left_behind).min(side);
            let behind = Rectangle::new(top_left + Point::new(left_behind as i32, 0), Size::new(steps, side));
            target.fill_solid(&behind, NIGHT)?;
        }
        llama.draw(target, top_left + Point::new(left as i32, 0), percent as u8, NIGHT)?;

        let mut line = Line::<CAPTION>::new();
        let word = if layout.columns < CAPTION { "" } else { "Loading " };
        // A line takes all that fits and never fails.
        let _ = write!(line, "{word}{percent:3} %");
        let aside = body.width.saturating_sub(line.len() as u32 * cell) / 2;
        let below = above + side + thickness + gap;
        let at = layout.body.top_left + Point::new(aside as i32, below as i32);
        self.caption.show(
            target,
            at,
            &Style { font: &layout.fonts.text, ink: CREAM, paper: NIGHT },
            &line,
        )?;
        self.percent = Some(percent);
        Ok(())
    }
}
