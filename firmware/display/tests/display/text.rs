//! The text against a layout that knows it all beforehand.

use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::iso_8859_1::{FONT_5X8, FONT_6X12, FONT_7X14, FONT_9X18};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{BinaryColor, Rgb565, RgbColor};
use embedded_graphics::prelude::{DrawTarget, Drawable, Pixel};
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::text::{Baseline, Text};
use llamita_display::Screen;

use crate::panel::Panel;

/// Panels, their fonts, and the pixels between two rows.
const PANELS: [(u32, u32, &MonoFont<'static>, u32); 8] = [
    (128, 64, &FONT_5X8, 0),
    (160, 80, &FONT_5X8, 0),
    (240, 135, &FONT_6X12, 0),
    (135, 240, &FONT_6X12, 0),
    (128, 160, &FONT_6X12, 0),
    (320, 240, &FONT_7X14, 1),
    (480, 320, &FONT_9X18, 2),
    (320, 480, &FONT_9X18, 2),
];

/// Lines of a text, broken as a person would, with the whole text at hand.
fn lines(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split_inclusive(' ') {
            let (word, space) = word.strip_suffix(' ').map_or((word, false), |word| (word, true));
            let mut letters: Vec<char> = word.chars().collect();
            if !letters.is_empty() && line.chars().count() + letters.len() > columns && !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            while letters.len() > columns {
                lines.push(letters.drain(..columns).collect());
            }
            line.extend(letters);
            if space && !line.is_empty() && line.chars().count() < columns {
                line.push(' ');
            }
        }
        lines.push(line);
    }
    lines
}

/// The last page: its lines, and whether the first one was carried over.
fn last_page(text: &str, columns: usize, rows: usize) -> (Vec<String>, bool) {
    let mut page: Vec<String> = Vec::new();
    let mut carried = false;
    for line in lines(text, columns) {
        let line = line.trim_end_matches(' ').to_owned();
        if page.len() == rows && !line.is_empty() {
            let last = page.pop().unwrap();
            carried = !last.is_empty();
            page.clear();
            page.extend(carried.then_some(last));
        }
        // Neither a page nor a story begins with blank lines.
        if page.len() < rows && !(page.is_empty() && line.is_empty()) {
            page.push(line);
        }
    }
    (page, carried)
}

/// Ink or none.
struct Mask(Size, Vec<bool>);

impl OriginDimensions for Mask {
    fn size(&self) -> Size {
        self.0
    }
}

impl DrawTarget for Mask {
    type Color = BinaryColor;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Self::Error> {
        for Pixel(Point { x, y }, colour) in pixels {
            self.1[y as usize * self.0.width as usize + x as usize] = colour.is_on();
        }
        Ok(())
    }
}

fn check(pushed: &[&str], (width, height, font, leading): (u32, u32, &MonoFont<'static>, u32)) {
    let mut screen = Screen::new(Panel::new(width, height));
    screen.start("m").unwrap();
    let area = screen.text_area();
    let before = screen.target().pixels.clone();
    for piece in pushed {
        screen.push(piece).unwrap();
    }
    let panel = screen.release();

    // No pixel changes beyond the text but the llama's legs, which are in the title.
    let mut outside = panel.pixels.iter().zip(&before).enumerate().filter(|(i, (after, before))| {
        let (x, y) = (*i as i32 % width as i32, *i as i32 / width as i32);
        after != before && !area.contains(Point::new(x, y)) && y >= 28
    });
    assert_eq!(outside.next(), None, "{width}x{height}");

    let cell = font.character_size;
    let (columns, rows) =
        (area.size.width / cell.width, (area.size.height + leading) / (cell.height + leading));
    let text = pushed.concat();
    let (page, carried) = last_page(&text, columns as usize, rows as usize);
    let mut mask = Mask(area.size, vec![false; (area.size.width * area.size.height) as usize]);
    let style = MonoTextStyle::new(font, BinaryColor::On);
    for (row, line) in page.iter().enumerate() {
        let at = Point::new(0, (row as u32 * (cell.height + leading)) as i32);
        Text::with_baseline(line, at, style, Baseline::Top).draw(&mut mask).unwrap();
    }
    let shown = panel.part(area);
    let paper = Rgb565::new(2, 4, 3);
    let ink: Vec<bool> = shown.iter().map(|&pixel| pixel != paper).collect();
    assert!(ink == mask.1, "{width}x{height}: {text:?} should show {page:#?}");

    // The carried line is fainter than all others, which are alike.
    let pitch = (cell.height + leading) as usize * area.size.width as usize;
    let inks = |pixels: &[Rgb565]| {
        let mut inks: Vec<_> =
            pixels.iter().filter(|&&p| p != paper).map(|p| (p.r(), p.g(), p.b())).collect();
        inks.sort_unstable();
        inks.dedup();
        inks
    };
    let split = if carried { pitch.min(shown.len()) } else { 0 };
    assert!(inks(&shown[..split]).len() <= 1 && inks(&shown[split..]).len() <= 1);
    if carried {
        assert!(inks(&shown[..split]) < inks(&shown[split..]), "{width}x{height}");
    }
}

/// Each on every panel, at once and character by character.
fn check_everywhere(text: &str) {
    for panel in PANELS {
        check(&[text], panel);
        let characters: Vec<&str> = text.split("").filter(|piece| !piece.is_empty()).collect();
        check(&characters, panel);
    }
}

#[test]
fn words_wrap() {
    for text in [
        "",
        " ",
        "\n\n",
        "Once upon a time there was a llama who liked to count from one to a hundred and back.",
        " leading and  double  spaces   and trailing ones   ",
        "a\nb\n\nc \n d",
        "Pneumonoultramicroscopicsilicovolcanoconiosisandthensomemoreandsomemoreandstillmoreandalotmoreofitafterthat",
        "short Pneumonoultramicroscopicsilicovolcanoconiosisandthensomemoreandsomemoreandstillmore short",
        "fünf Zwerge saßen früh im Café, ça va? ¡Sí! Ærøskøbing",
    ] {
        check_everywhere(text);
    }
}

/// Words that end just before, at and after the end of a line, in all ways of going on.
#[test]
fn line_ends() {
    for panel in PANELS {
        let screen = Screen::new(Panel::new(panel.0, panel.1));
        let columns = (screen.text_area().size.width / panel.2.character_size.width) as usize;
        for length in columns - 2..=columns + 2 {
            for end in ["", " ", "  ", "\n", " \n", "\n ", "b", " b", "  b", "\nb", " \n b", " bb b"] {
                let word = "a".repeat(length);
                check(&[&word, end], panel);
                let two = format!("x {}", &word[2..]);
                check(&[&two, end], panel);
            }
        }
    }
}

#[test]
fn pages_turn() {
    for panel in PANELS {
        for lines in 1..40 {
            for end in
                ["", "\n", "\n\n", "\n\nz", "zz zz zz zz zz zz zz zz zz zz zz zz zz zz zz zz zz zz zz zz zz"]
            {
                let text: Vec<String> = (0..lines).map(|line| format!("line {line}")).collect();
                check(&[&text.join("\n"), end], panel);
            }
        }
    }
}

/// Words of all lengths, spaces and newlines in any order, in pieces of any length.
#[test]
fn any_text_in_any_pieces() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    for round in 0..400 {
        let mut text = String::new();
        for _ in 0..random(120) {
            let length = if random(12) == 0 { random(120) } else { random(9) };
            text.extend((0..length).map(|_| ['a', 'W', 'é', '.', 'g', 'ÿ', '"', '@'][random(8)]));
            text.push_str([" ", " ", " ", " ", " ", " ", "  ", "\n", "\n\n", " \n"][random(10)]);
        }
        let panel = PANELS[round % PANELS.len()];
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let length = rest.char_indices().nth(1 + random(7)).map_or(rest.len(), |(at, _)| at);
            let (piece, more) = rest.split_at(length);
            pieces.push(piece);
            rest = more;
        }
        check(&pieces, panel);
    }
}

/// Of a word that is not moved, every character is drawn once, in its cell; spaces are not drawn.
#[test]
fn characters_are_drawn_once() {
    let mut screen = Screen::new(Panel::new(320, 240));
    screen.start("m").unwrap();
    let area = screen.text_area();
    screen.target().rest();
    screen.push("Once upon 日 time").unwrap();
    let cells: Vec<Rectangle> =
        screen.target().windows.iter().filter(|window| area.contains(window.top_left)).copied().collect();
    let columns = [0, 1, 2, 3, 5, 6, 7, 8, 10, 12, 13, 14, 15];
    let expected =
        columns.map(|column| Rectangle::new(area.top_left + Point::new(column * 7, 0), Size::new(7, 14)));
    assert_eq!(cells, expected);
}

/// What has no glyph is a box, a cell wide, and what has no width takes none.
#[test]
fn boxes() {
    let show = |text: &str| {
        let mut screen = Screen::new(Panel::new(240, 135));
        screen.start("m").unwrap();
        screen.push(text).unwrap();
        let area = screen.text_area();
        screen.release().part(area)
    };
    assert!(show("a🦙b") == show("a日b"));
    assert!(show("a🦙b") != show("a b") && show("a🦙b") != show("a?b"));
    assert!(show("“It’s” – well…") == show("\"It's\" - well..."));
    assert!(show("e\u{301}\r\x1b\u{200d}a\u{fe0f}") == show("ea"));
    assert!(show("a\tb") == show("a b"));
}
