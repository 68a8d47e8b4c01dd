//! Where things stand on a panel of some size.

use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::mono_font::MonoFont;
use embedded_graphics::mono_font::iso_8859_1::{
    FONT_5X7, FONT_5X8, FONT_6X12, FONT_7X14, FONT_8X13_BOLD, FONT_9X18, FONT_9X18_BOLD,
};
use embedded_graphics::primitives::Rectangle;

use crate::llama::{LARGE, Llama, SMALL};

/// Cells that a line has at most; it bounds the memory. A panel that is wider leaves the rest free.
pub const MAX_COLUMNS: usize = 80;

/// From the top: the title's bar, the body with the text, the status's bar.
pub struct Layout {
    pub title: Rectangle,
    pub body: Rectangle,
    pub status: Rectangle,
    /// Where the text's cells begin; they lie within the body.
    pub text: Point,
    pub columns: usize,
    pub rows: usize,
    /// Pixels from a row to the next.
    pub pitch: u32,
    pub status_columns: usize,
    /// Space left free beside the text and around the llama.
    pub margin: u32,
    pub fonts: &'static Fonts,
}

/// What goes with a size of panel.
pub struct Fonts {
    pub title: MonoFont<'static>,
    pub text: MonoFont<'static>,
    pub status: MonoFont<'static>,
    pub llama: &'static Llama,
    /// Free pixels between two rows.
    leading: u32,
}

/// 128x64 and the like: every row counts.
static TINY: Fonts = Fonts { title: FONT_6X12, text: FONT_5X8, status: FONT_5X7, llama: &SMALL, leading: 0 };
/// 240x135, 160x128.
static SLIM: Fonts =
    Fonts { title: FONT_8X13_BOLD, text: FONT_6X12, status: FONT_6X12, llama: &LARGE, leading: 0 };
/// 320x240, 240x240.
static FULL: Fonts =
    Fonts { title: FONT_8X13_BOLD, text: FONT_7X14, status: FONT_6X12, llama: &LARGE, leading: 1 };
/// 480x320.
static WIDE: Fonts =
    Fonts { title: FONT_9X18_BOLD, text: FONT_9X18, status: FONT_7X14, llama: &LARGE, leading: 2 };

impl Layout {
    /// For a panel; turned by a quarter it keeps its fonts.
    pub fn new(panel: Rectangle) -> Self {
        let Size { width, height } = panel.size;
        let (fonts, margin) = match width.min(height) {
            0..100 => (&TINY, 1),
            100..200 => (&SLIM, 2),
            200..300 => (&FULL, 4),
            _ => (&WIDE, 6),
        };
        let gap = if margin == 1 { 0 } else { 2 };
        let title_height = (fonts.llama.side + 2 * gap).min(height);
        let status_height = (fonts.status.character_size.height + gap).min(height - title_height);
        let body_height = height - title_height - status_height;

        let pitch = fonts.text.character_size.height + fonts.leading;
        let inner = Size::new(width.saturating_sub(2 * margin), body_height.saturating_sub(2 * margin));
        let rows = (inner.height + fonts.leading) / pitch;
        let columns = (inner.width / fonts.text.character_size.width).min(MAX_COLUMNS as u32);
        let status_columns = (inner.width / fonts.status.character_size.width).min(MAX_COLUMNS as u32);
        // The rest is shared by what is above and below.
        let spare = body_height.saturating_sub((rows * pitch).saturating_sub(fonts.leading));

        let down = |rows: u32| panel.top_left + Point::new(0, rows as i32);
        let bar = |top: u32, height: u32| Rectangle::new(down(top), Size::new(width, height));
        Self {
            title: bar(0, title_height),
            body: bar(title_height, body_height),
            status: bar(height - status_height, status_height),
            text: down(title_height + spare / 2) + Point::new(margin as i32, 0),
            columns: columns as usize,
            rows: rows as usize,
            pitch,
            status_columns: status_columns as usize,
            margin,
            fonts,
        }
    }

    /// The text's cells.
    pub fn text_area(&self) -> Rectangle {
        let Size { width, height } = self.fonts.text.character_size;
        let below = (self.rows as u32).saturating_sub(1) * self.pitch + height;
        let size = Size::new(self.columns as u32 * width, if self.rows == 0 { 0 } else { below });
        Rectangle::new(self.text, size)
    }

    /// A cell of the text.
    pub fn cell(&self, row: usize, column: usize) -> Point {
        let width = self.fonts.text.character_size.width as usize;
        self.text + Point::new((column * width) as i32, (row * self.pitch as usize) as i32)
    }

    /// Where the title's llama stands.
    pub fn llama(&self) -> Point {
        let above = self.title.size.height.saturating_sub(self.fonts.llama.side) / 2;
        self.title.top_left + Point::new(self.margin as i32, above as i32)
    }

    /// Where the title's text begins, and how many cells it has.
    pub fn name(&self) -> (Point, usize) {
        let Size { width, height } = self.fonts.title.character_size;
        let left = self.margin + self.fonts.llama.side + 4;
        let above = self.title.size.height.saturating_sub(height) / 2;
        let columns = self.title.size.width.saturating_sub(left + self.margin) / width;
        (self.title.top_left + Point::new(left as i32, above as i32), columns as usize)
    }

    /// Where the status's text begins.
    pub fn status_text(&self) -> Point {
        let above = self.status.size.height.saturating_sub(self.fonts.status.character_size.height) / 2;
        self.status.top_left + Point::new(self.margin as i32, above as i32)
    }
}
