//! Pictures of what things consist of: bars of parts, under each other.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{Error, Result};
use crate::output;

/// Bars over one axis, which begins at 0.
pub struct Stack {
    /// Said above it.
    pub title: String,
    /// What the axis counts.
    pub unit: String,
    /// What the parts are; that named [`FREE`] is grey.
    pub kinds: Vec<String>,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// A bar.
pub struct Bar {
    /// Said before it.
    pub label: String,
    /// Said behind it.
    pub note: String,
    /// The length of each kind's part.
    pub parts: Vec<f64>,
}

const WIDTH: u32 = 900;
const TITLE: u32 = 44;
const HEAD: u32 = 34;
const LEGEND_LINE: u32 = 22;
const BAR: u32 = 26;
const AXIS: u32 = 50;
const FONT: &str = "sans-serif";
/// Room for labels and notes.
const LEFT: i32 = 190;
const RIGHT: i32 = 190;

/// What is left over.
pub const FREE: &str = "free";

/// Colours that are told apart by those who do not see all of them (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(240, 228, 66),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

impl Stack {
    /// The kinds that some bar has.
    fn used(&self) -> Vec<usize> {
        let has =
            |kind: &usize| self.bars.iter().any(|bar| bar.parts.get(*kind).is_some_and(|&part| part > 0.0));
        (0..self.kinds.len()).filter(has).collect()
    }

    /// Where the names of the kinds stand: their places and how many lines they take.
    fn legend(&self) -> (Vec<(usize, i32, i32)>, u32) {
        let (mut x, mut line, mut places) = (LEFT, 0, Vec::new());
        for kind in self.used() {
            // Readers have fonts of their own: this leaves room for wide ones.
            let width = 34 + 8 * self.kinds[kind].chars().count() as i32;
            if x > LEFT && x + width > WIDTH as i32 {
                (x, line) = (LEFT, line + 1);
            }
            places.push((kind, x, line));
            x += width;
        }
        (places, line as u32 + 1)
    }

    fn colour(&self, kind: usize) -> RGBColor {
        if self.kinds[kind] == FREE { RGBColor(225, 225, 225) } else { COLOURS[kind % COLOURS.len()] }
    }

    fn height(&self) -> u32 {
        HEAD + self.legend().1 * LEGEND_LINE + BAR * self.bars.len() as u32 + AXIS
    }
}

/// Draws stacks under a title, and writes them to a file.
pub fn save(path: &Path, title: &str, stacks: &[Stack]) -> Result<()> {
    let svg = svg(title, stacks).map_err(|error| Error::file(path, error))?;
    output::file(path, svg.as_bytes())
}

fn svg(title: &str, stacks: &[Stack]) -> std::result::Result<String, String> {
    let mut svg = String::new();
    {
        let height = TITLE + stacks.iter().map(Stack::height).sum::<u32>();
        let mut rest = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let root = rest.clone();
        let failure = |error: DrawingAreaErrorKind<_>| error.to_string();
        root.fill(&WHITE).map_err(failure)?;
        let style = (FONT, 20).into_font().color(&BLACK);
        root.draw_text(&output::one_line(title), &style, (16, 14)).map_err(failure)?;
        rest = rest.split_vertically(TITLE).1;
        for stack in stacks {
            let (area, below) = rest.split_vertically(stack.height());
            draw(&area, stack).map_err(failure)?;
            rest = below;
        }
        root.present().map_err(failure)?;
    }
    Ok(svg)
}

type Area<DB> = DrawingArea<DB, plotters::coord::Shift>;
type Outcome<DB> = std::result::Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

fn draw<DB: DrawingBackend>(area: &Area<DB>, stack: &Stack) -> Outcome<DB> {
    let text = |size: u32| (FONT, size).into_font().color(&BLACK);
    area.draw_text(&output::one_line(&stack.title), &text(16), (16, 8))?;
    let (legend, lines) = stack.legend();
    for (kind, x, line) in legend {
        let y = (HEAD + LEGEND_LINE * line as u32) as i32;
        area.draw(&Rectangle::new([(x, y), (x + 12, y + 12)], stack.colour(kind).filled()))?;
        area.draw_text(&output::one_line(&stack.kinds[kind]), &text(13), (x + 18, y - 1))?;
    }

    let top = (HEAD + lines * LEGEND_LINE) as i32;
    let bottom = top + BAR as i32 * stack.bars.len() as i32;
    let length = |bar: &Bar| bar.parts.iter().filter(|part| part.is_finite()).sum::<f64>();
    let longest = stack.bars.iter().map(length).fold(0.0, f64::max);
    let longest = if longest > 0.0 { longest } else { 1.0 };
    let width = f64::from(WIDTH as i32 - LEFT - RIGHT);
    let x = |value: f64| LEFT + (width * value / longest).round() as i32;

    for mark in marks(longest) {
        let line = [(x(mark), top), (x(mark), bottom + 4)];
        area.draw(&PathElement::new(line, BLACK.mix(0.2)))?;
        let style = text(12).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw_text(&format!("{mark}"), &style, (x(mark), bottom + 8))?;
    }
    let style = text(13).pos(Pos::new(HPos::Center, VPos::Top));
    area.draw_text(&output::one_line(&stack.unit), &style, (LEFT + width as i32 / 2, bottom + 24))?;
    for (row, bar) in stack.bars.iter().enumerate() {
        let y = top + BAR as i32 * row as i32;
        let style = text(13).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw_text(&output::one_line(&bar.label), &style, (LEFT - 8, y + BAR as i32 / 2))?;
        let mut end = 0.0;
        for (kind, &part) in bar.parts.iter().enumerate().filter(|(_, part)| part.is_finite() && **part > 0.0)
        {
            let corners = [(x(end), y + 3), (x(end + part).max(x(end) + 1), y + BAR as i32 - 3)];
            area.draw(&Rectangle::new(corners, stack.colour(kind).filled()))?;
            end += part;
        }
        let style = text(13).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw_text(&output::one_line(&bar.note), &style, (x(end) + 8, y + BAR as i32 / 2))?;
    }
    Ok(())
}

/// Round numbers up to the longest bar, about five of them.
fn marks(longest: f64) -> Vec<f64> {
    let power = 10_f64.powf((longest / 5.0).log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| longest / step <= 6.0);
    let step = step.unwrap_or(10.0 * power);
    let decimals = 10_f64.powf((-step.log10().floor()).clamp(0.0, 12.0));
    (0..=(longest / step) as usize).map(|i| (i as f64 * step * decimals).round() / decimals).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        assert_eq!(marks(1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(marks(0.034), [0.0, 0.01, 0.02, 0.03]);
        assert_eq!(marks(8500.0), [0.0, 2000.0, 4000.0, 6000.0, 8000.0]);
    }

    #[test]
    fn every_part_is_drawn_and_named() {
        let bar =
            |parts: [f64; 3]| Bar { label: "a<b".to_owned(), note: "1 s".to_owned(), parts: parts.to_vec() };
        let stack = |bars| Stack {
            title: "Time".to_owned(),
            unit: "seconds".to_owned(),
            kinds: ["storage", "nothing", "products"].map(str::to_owned).to_vec(),
            bars,
        };
        let svg = svg("A picture", &[stack(vec![bar([1.0, 0.0, 2.0]), bar([0.5, 0.0, f64::NAN])])]).unwrap();
        for text in ["A picture", "Time", "seconds", "storage", "products", "a&lt;b", "1 s"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert!(!svg.contains("nothing") && !svg.contains("NaN"), "{svg}");
        // Two kinds in the legend, three parts that have a length, and the background.
        assert_eq!(svg.matches("<rect").count(), 6, "{svg}");
        assert!(super::svg("", &[stack(Vec::new())]).is_ok());
    }
}
