//! Characters as the fonts have them, and their drawing.

use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyleBuilder};
use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::DrawTarget;
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::text::Baseline;
use embedded_graphics::text::renderer::TextRenderer;

/// What stands in a cell: a character of ISO 8859-1, or [`BOX`]. A byte a cell keeps the buffers small.
pub type Glyph = u8;

/// In place of a character that the fonts have not.
pub const BOX: Glyph = 0;

/// Glyph of a character that takes a cell, or None for one that takes none: controls, and what only changes the
/// character before it.
pub fn glyph(char: char) -> Option<Glyph> {
    match char {
        ' '..='~' | '\u{a0}'..='\u{ff}' => Some(char as u8),
        '\0'..='\u{9f}' => None,
        // Models write as printers do; the straight forms read better than boxes.
        '‘' | '’' | '‚' => Some(b'\''),
        '“' | '”' | '„' => Some(b'"'),
        '‐'..='―' => Some(b'-'),
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' => None,
        _ => Some(BOX),
    }
}

/// How glyphs are drawn.
#[derive(Clone, Copy)]
pub struct Style {
    pub font: &'static MonoFont<'static>,
    pub ink: Rgb565,
    pub paper: Rgb565,
}

impl Style {
    /// Draws glyphs side by side. Each one fills its cell, ink and paper, in one go: a panel on SPI takes the cell as
    /// one window, which costs it less than setting a window for every run of ink.
    pub fn draw<D: DrawTarget<Color = Rgb565>>(
        &self,
        target: &mut D,
        mut at: Point,
        glyphs: &[Glyph],
    ) -> Result<(), D::Error> {
        let style = MonoTextStyleBuilder::new()
            .font(self.font)
            .text_color(self.ink)
            .background_color(self.paper)
            .build();
        for &glyph in glyphs {
            if glyph == BOX {
                self.draw_box(target, at)?;
            } else {
                let mut utf8 = [0; 2];
                style.draw_string(char::from(glyph).encode_utf8(&mut utf8), at, Baseline::Top, target)?;
            }
            at.x += self.font.character_size.width as i32;
        }
        Ok(())
    }

    /// From the baseline up, as capitals are.
    fn draw_box<D: DrawTarget<Color = Rgb565>>(&self, target: &mut D, at: Point) -> Result<(), D::Error> {
        let Size { width, height } = self.font.character_size;
        let (right, bottom) = (width - 2, self.font.baseline);
        let top = bottom - (bottom * 3 / 4);
        let cells = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let colours = cells.map(|(x, y)| {
            let inside = x <= right && (top..=bottom).contains(&y);
            let edge = x == 0 || x == right || y == top || y == bottom;
            if inside && edge { self.ink } else { self.paper }
        });
        target.fill_contiguous(&Rectangle::new(at, self.font.character_size), colours)
    }
}

/// A line of cells that remembers what it shows, and draws only what changes.
pub struct Cells<const N: usize> {
    shown: [Glyph; N],
}

impl<const N: usize> Cells<N> {
    /// Cells that are blank on the panel too.
    pub const fn blank() -> Self {
        Self { shown: [b' '; N] }
    }

    /// Draws `line`. After an error of the panel, what was not drawn is drawn by the next call.
    pub fn show<D: DrawTarget<Color = Rgb565>>(
        &mut self,
        target: &mut D,
        at: Point,
        style: &Style,
        line: &Line<N>,
    ) -> Result<(), D::Error> {
        let width = style.font.character_size.width as i32;
        for (i, (shown, glyph)) in self.shown.iter_mut().zip(line.padded()).enumerate() {
            if *shown != glyph {
                style.draw(target, at + Point::new(i as i32 * width, 0), &[glyph])?;
                *shown = glyph;
            }
        }
        Ok(())
    }
}

/// A line that is being written. What does not fit is cut.
pub struct Line<const N: usize> {
    glyphs: [Glyph; N],
    length: usize,
}

impl<const N: usize> Line<N> {
    pub const fn new() -> Self {
        Self { glyphs: [b' '; N], length: 0 }
    }

    /// The glyphs, with dots at the end if there are more than `columns`.
    pub fn cut(&mut self, columns: usize) -> &[Glyph] {
        if self.length > columns {
            self.length = columns;
            let dots = columns.min(2);
            self.glyphs[columns - dots..columns].fill(b'.');
        }
        &self.glyphs[..self.length]
    }

    pub fn len(&self) -> usize {
        self.length
    }

    /// Appends `other` so that it ends at `columns`, where there is room for it and for a space.
    pub fn right(&mut self, other: &Self, columns: usize) {
        if self.length + 1 + other.length <= columns.min(N) {
            self.glyphs[columns - other.length..columns].copy_from_slice(&other.glyphs[..other.length]);
            self.length = columns;
        }
    }

    fn padded(&self) -> impl Iterator<Item = Glyph> {
        self.glyphs[..self.length].iter().copied().chain(core::iter::repeat(b' '))
    }
}

impl<const N: usize> core::fmt::Write for Line<N> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for glyph in text.chars().filter_map(glyph) {
            if let Some(free) = self.glyphs.get_mut(self.length) {
                *free = glyph;
                self.length += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glyphs_of_characters() {
        for (char, expected) in [('a', Some(b'a')), ('é', Some(0xe9)), ('ÿ', Some(0xff)), ('’', Some(b'\''))]
        {
            assert_eq!(glyph(char), expected, "{char}");
        }
        for boxed in ['🦙', 'Ā', '€', '\u{fffd}', '日'] {
            assert_eq!(glyph(boxed), Some(BOX), "{boxed}");
        }
        for nothing in ['\0', '\r', '\x1b', '\x7f', '\u{9b}', '\u{301}', '\u{200d}', '\u{fe0f}'] {
            assert_eq!(glyph(nothing), None, "{nothing:?}");
        }
    }
}
