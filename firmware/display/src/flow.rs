//! Text that streams into a page of cells.
//!
//! A panel on SPI can neither scroll an area of any height nor be read back, so to scroll by a line would mean to send
//! the whole area. Instead the page turns when it is full, once in some hundred tokens: the area is cleared, and the
//! last line is carried over, faded, so that the sentence can be read on. Of what stands on the panel, one line is
//! remembered: its last word may have to move to the next line when more of it arrives, and it may be carried over.

use embedded_graphics::geometry::Size;
use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::DrawTarget;
use embedded_graphics::primitives::Rectangle;

use crate::glyph::{Glyph, Style, glyph};
use crate::layout::{Layout, MAX_COLUMNS};
use crate::palette::{FADED, NIGHT};

/// What to do when the page is full and more is to be shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Turns the page.
    Turn,
    /// Ends the page with dots and drops the rest.
    Cut,
}

/// Where the next character goes.
pub struct Flow {
    /// Cells of the line until `column`.
    line: [Glyph; MAX_COLUMNS],
    column: usize,
    /// Where the line's last word begins; `column` after a space.
    word: usize,
    /// The number of rows where the page is full, and one more once the rest is dropped.
    row: usize,
}

impl Flow {
    /// The beginning of a page.
    pub const fn new() -> Self {
        Self { line: [b' '; MAX_COLUMNS], column: 0, word: 0, row: 0 }
    }

    /// Draws `text` after what was drawn before.
    pub fn write<D: DrawTarget<Color = Rgb565>>(
        &mut self,
        target: &mut D,
        layout: &Layout,
        ink: Rgb565,
        full: Full,
        text: &str,
    ) -> Result<(), D::Error> {
        if layout.rows == 0 || layout.columns == 0 {
            return Ok(());
        }
        let mut page =
            Page { target, layout, style: Style { font: &layout.fonts.text, ink, paper: NIGHT }, full };
        for char in text.chars() {
            match char {
                '\n' => self.newline(layout.rows),
                ' ' | '\t' => self.space(layout),
                '…' => (0..3).try_for_each(|_| self.put(&mut page, b'.'))?,
                _ => {
                    if let Some(glyph) = glyph(char) {
                        self.put(&mut page, glyph)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The page turns only when there is something to show on the next one: until then its end can be read.
    fn newline(&mut self, rows: usize) {
        if self.row + 1 >= rows {
            self.row = self.row.max(rows);
        } else if self.row > 0 || self.column > 0 {
            self.row += 1;
            self.column = 0;
            self.word = 0;
        }
    }

    /// The paper is blank, so that a space need not be drawn. At either end of a line it takes no cell.
    fn space(&mut self, layout: &Layout) {
        if self.row < layout.rows {
            if (1..layout.columns).contains(&self.column) {
                self.line[self.column] = b' ';
                self.column += 1;
            }
            self.word = self.column;
        }
    }

    fn put<D: DrawTarget<Color = Rgb565>>(
        &mut self,
        page: &mut Page<'_, D>,
        glyph: Glyph,
    ) -> Result<(), D::Error> {
        let &Layout { rows, columns, .. } = page.layout;
        if self.row == rows {
            // A newline ended the last row.
            self.next_page(page, self.column)?;
            self.column = 0;
            self.word = 0;
        } else if self.row < rows && self.column == columns {
            // A word of a whole line is broken; any other one moves to the next line.
            let kept = if self.word == 0 { columns } else { self.word };
            page.erase(self.row, kept, columns)?;
            if self.row + 1 < rows {
                self.row += 1;
            } else {
                self.next_page(page, kept)?;
            }
            self.line.copy_within(kept..columns, 0);
            self.column = columns - kept;
            self.word = 0;
            if self.row < rows {
                page.draw(self.row, 0, &self.line[..self.column])?;
            }
        }
        if self.row < rows {
            self.line[self.column] = glyph;
            page.draw(self.row, self.column, &[glyph])?;
            self.column += 1;
        }
        Ok(())
    }

    /// Turns the page, or ends it. The last row has `kept` cells.
    fn next_page<D: DrawTarget<Color = Rgb565>>(
        &mut self,
        page: &mut Page<'_, D>,
        kept: usize,
    ) -> Result<(), D::Error> {
        let &Layout { rows, columns, .. } = page.layout;
        let last = self.line[..kept].trim_ascii_end();
        match page.full {
            Full::Cut => {
                self.row = rows + 1;
                let dots = columns.min(2);
                page.draw(rows - 1, last.len().min(columns - dots), &[b'.'; 2][..dots])
            }
            Full::Turn => {
                page.target.fill_solid(&page.layout.text_area(), NIGHT)?;
                // Of two rows both are needed.
                let carried = rows > 2 && !last.is_empty();
                self.row = usize::from(carried);
                if carried {
                    Style { ink: FADED, ..page.style }.draw(page.target, page.layout.text, last)
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// What is drawn on.
struct Page<'a, D> {
    target: &'a mut D,
    layout: &'a Layout,
    style: Style,
    full: Full,
}

impl<D: DrawTarget<Color = Rgb565>> Page<'_, D> {
    fn draw(&mut self, row: usize, column: usize, glyphs: &[Glyph]) -> Result<(), D::Error> {
        self.style.draw(self.target, self.layout.cell(row, column), glyphs)
    }

    /// Blanks the cells from `start` until `end`.
    fn erase(&mut self, row: usize, start: usize, end: usize) -> Result<(), D::Error> {
        if start == end {
            return Ok(());
        }
        let Size { width, height } = self.style.font.character_size;
        let size = Size::new((end - start) as u32 * width, height);
        self.target.fill_solid(&Rectangle::new(self.layout.cell(row, start), size), self.style.paper)
    }
}
