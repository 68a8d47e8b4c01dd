//! Plots as SVG: panels under each other, each with its axes and series.

use std::fs;
use std::ops::Range;
use std::path::Path;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::element::DynElement;
use plotters::prelude::*;
use plotters::style::FontTransform;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{Error, Result};
use crate::output;

/// A panel: what is drawn over one pair of axes.
pub struct Panel {
    /// Said above it.
    pub title: String,
    /// The axis to the right.
    pub x: Axis,
    /// The axis upwards.
    pub y: Axis,
    /// Drawn one over the other, except that bars at one place stand side by side.
    pub series: Vec<Series>,
}

/// An axis, as long as its numbers need.
pub struct Axis {
    /// What its numbers are, with their unit.
    pub label: String,
    /// Where they lie on it.
    pub scale: Scale,
}

/// How numbers lie on an axis.
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm; numbers that are not above 0 are not drawn.
    Log,
    /// Evenly, with these marks alone.
    Marks(Vec<(f64, String)>),
}

impl Scale {
    /// A place for each name: the first at 0, the next at 1, and so on.
    pub fn names(names: impl IntoIterator<Item = String>) -> Self {
        Self::Marks(names.into_iter().enumerate().map(|(place, name)| (place as f64, name)).collect())
    }
}

/// Numbers that belong together.
pub struct Series {
    /// Its entry in the legend, if it has one.
    pub name: String,
    /// How it is drawn.
    pub style: Style,
    /// Which of the colours it has.
    pub colour: Colour,
    /// (x, y)
    pub points: Vec<(f64, f64)>,
}

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A line through the points.
    Line,
    /// A bar for each point, from 0, or from the end of a logarithmic axis.
    Bars,
}

/// The colours, which are told apart by those who do not see all of them (Okabe and Ito, 2008).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// For what was before, or comes first.
    Blue,
    /// For what came after, or is to be noticed.
    Orange,
    /// For what helps to read the others.
    Grey,
}

impl Colour {
    const fn rgb(self) -> RGBColor {
        match self {
            Self::Blue => RGBColor(0, 114, 178),
            Self::Orange => RGBColor(213, 94, 0),
            Self::Grey => RGBColor(90, 90, 90),
        }
    }
}

const WIDTH: u32 = 900;
const PANEL_HEIGHT: u32 = 340;
const TITLE_HEIGHT: u32 = 40;
const FONT: &str = "sans-serif";
/// Room for the title of a panel, and for the numbers to its left.
const HEAD_HEIGHT: u32 = 36;
const LEFT: u32 = 72;
/// More names than this stand upright.
const NAMES_ABREAST: usize = 10;

type Area<DB> = DrawingArea<DB, plotters::coord::Shift>;
type Failure<DB> = DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>;

/// Refuses to draw over what is read or written otherwise, and over what is no file; files that do not exist are
/// none of these.
pub fn check(plot: &Path, files: &[&Path]) -> Result<()> {
    if plot.exists() && !plot.is_file() {
        // A rename would put a file in the place of a device.
        return Err(Error::file(plot, "this is no file, expected one to draw to: name a file with --plot"));
    }
    let Ok(place) = fs::canonicalize(plot) else { return Ok(()) };
    match files.iter().find(|&&input| fs::canonicalize(input).is_ok_and(|input| input == place)) {
        None => Ok(()),
        Some(_) => Err(taken(plot)),
    }
}

/// The refusal of a plot that would go where something else is.
pub fn taken(plot: &Path) -> Error {
    Error::usage(format_args!(
        "--plot names {}, which is read or written otherwise, expected a new file: choose another name",
        plot.display()
    ))
}

/// Draws panels under a title, and writes them to a file.
pub fn save(path: &Path, title: &str, panels: &[Panel]) -> Result<()> {
    let svg = svg(title, panels).map_err(|error| Error::file(path, error))?;
    output::file(path, svg.as_bytes())
}

/// Draws panels under a title.
fn svg(title: &str, panels: &[Panel]) -> std::result::Result<String, String> {
    let mut svg = String::new();
    {
        let height = TITLE_HEIGHT + PANEL_HEIGHT * panels.len() as u32;
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(|error| error.to_string())?;
        let (head, body) = root.split_vertically(TITLE_HEIGHT);
        let style = (FONT, 20).into_font().color(&BLACK);
        head.draw_text(&output::one_line(title), &style, (16, 14)).map_err(|error| error.to_string())?;
        for (area, panel) in body.split_evenly((panels.len().max(1), 1)).iter().zip(panels) {
            panel.draw(area).map_err(|error| error.to_string())?;
        }
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

impl Panel {
    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> std::result::Result<(), Failure<DB>> {
        let (head, body) = area.split_vertically(HEAD_HEIGHT);
        self.draw_head(&head)?;

        let bars = self.series.iter().filter(|series| series.style == Style::Bars).count();
        let (mut xs, mut ys) = (self.numbers(|point| point.0), self.numbers(|point| point.1));
        if bars > 0 {
            xs.extend(ends(&xs).map(|(first, last)| [first - 0.5, last + 0.5]).into_iter().flatten());
            if !matches!(self.y.scale, Scale::Log) {
                ys.push(0.0);
            }
        }
        let (mut x, y) = (self.x.ruler(&xs, bars == 0), self.y.ruler(&ys, true));
        let (bottom, floor) =
            (y.range.start, if let Scale::Log = self.y.scale { y.range.start } else { 0.0 });
        // Plotters would centre names that stand upright on the axis.
        let upright = matches!(self.x.scale, Scale::Marks(_)) && x.marks.len() > NAMES_ABREAST;
        let names = if upright { x.take_texts() } else { Vec::new() };

        let mut chart = ChartBuilder::on(&body)
            .margin_right(16)
            .margin_left(12)
            .x_label_area_size(if upright { 110 } else { 44 })
            .y_label_area_size(LEFT)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(output::one_line(&self.x.label))
            .y_desc(output::one_line(&self.y.label))
            .axis_desc_style((FONT, 14))
            .label_style((FONT, 12))
            .bold_line_style(BLACK.mix(0.12))
            .light_line_style(TRANSPARENT)
            .axis_style(BLACK.mix(0.6))
            .draw()?;
        let (left, top) = (body.get_pixel_range().0.start, body.get_pixel_range().1.start);
        let style = (FONT, 11).into_font().transform(FontTransform::Rotate90).color(&BLACK);
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        for (place, name) in names {
            let (x, y) = chart.backend_coord(&(place, bottom));
            body.draw_text(&output::one_line(&name), &style, (x - left, y - top + 8))?;
        }

        let mut bar = 0;
        for series in &self.series {
            let colour = series.colour.rgb();
            let points = series
                .points
                .iter()
                .filter_map(|&(x, y)| Some((self.x.scale.place(x)?, self.y.scale.place(y)?)));
            let elements: Vec<DynElement<'static, DB, (f64, f64)>> = match series.style {
                Style::Line => {
                    vec![PathElement::new(points.collect::<Vec<_>>(), colour.stroke_width(2)).into_dyn()]
                }
                Style::Bars => {
                    // Side by side in four fifths of the place.
                    let width = 0.8 / bars as f64;
                    let left = width * bar as f64 - 0.4;
                    bar += 1;
                    let corners = |(x, y)| [(x + left, floor), (x + left + width, y)];
                    points.map(|point| Rectangle::new(corners(point), colour.filled()).into_dyn()).collect()
                }
            };
            chart.draw_series(elements)?;
        }
        Ok(())
    }

    /// The title to the left, the legend to the right: neither lies over what is drawn.
    fn draw_head<DB: DrawingBackend>(&self, head: &Area<DB>) -> std::result::Result<(), Failure<DB>> {
        let title = (FONT, 16).into_font().color(&BLACK);
        head.draw_text(&output::one_line(&self.title), &title, (LEFT as i32 + 12, 10))?;
        let entry = (FONT, 13).into_font().color(&BLACK);
        let mut right = head.dim_in_pixel().0 as i32 - 16;
        for series in self.series.iter().rev().filter(|series| !series.name.is_empty()) {
            let name = output::one_line(&series.name);
            // Readers have fonts of their own: this leaves room for wide ones.
            right -= 8 * name.chars().count() as i32;
            head.draw_text(&name, &entry, (right, 12))?;
            let half = if series.style == Style::Line { 1 } else { 5 };
            let mark = [(right - 22, 18 - half), (right - 6, 18 + half)];
            head.draw(&Rectangle::new(mark, series.colour.rgb().filled()))?;
            right -= 36;
        }
        Ok(())
    }

    /// The numbers of all series on one axis.
    fn numbers(&self, number: impl Fn(&(f64, f64)) -> f64) -> Vec<f64> {
        self.series.iter().flat_map(|series| &series.points).map(number).collect()
    }
}

/// The least and the greatest number.
fn ends(numbers: &[f64]) -> Option<(f64, f64)> {
    let finite = || numbers.iter().copied().filter(|number| number.is_finite());
    Some((finite().reduce(f64::min)?, finite().reduce(f64::max)?))
}

impl Scale {
    /// Where a number lies, if it can be drawn.
    fn place(&self, number: f64) -> Option<f64> {
        let place = if let Self::Log = self { number.log10() } else { number };
        place.is_finite().then_some(place)
    }
}

impl Axis {
    /// The axis for these numbers, with some room at its ends where that is wished.
    fn ruler(&self, numbers: &[f64], room: bool) -> Ruler {
        let places: Vec<_> = numbers.iter().filter_map(|&number| self.scale.place(number)).collect();
        let (mut low, mut high) = ends(&places).unwrap_or((0.0, 1.0));
        if let Scale::Marks(marks) = &self.scale {
            let (first, last) =
                ends(&marks.iter().map(|mark| mark.0).collect::<Vec<_>>()).unwrap_or((low, high));
            (low, high) = (low.min(first), high.max(last));
        }
        if !(high - low > 1e-12 * high.abs().max(low.abs())) {
            (low, high) = (low - 0.5, high + 0.5);
        }
        if room {
            let room = 0.04 * (high - low);
            (low, high) = (low - room, high + room);
        }
        let marks = match &self.scale {
            Scale::Linear => linear_marks(low, high),
            Scale::Log => log_marks(low, high),
            Scale::Marks(marks) => marks.clone(),
        };
        Ruler { range: low..high, marks }
    }
}

/// About six round numbers in a range, with their texts.
fn linear_marks(low: f64, high: f64) -> Vec<(f64, String)> {
    let rough = (high - low) / 6.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|&step| step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|i| (i as f64 * step, format!("{:.decimals$}", i as f64 * step))).collect()
}

/// Powers of ten in a range of logarithms, and where they are few their doubles and quintuples.
fn log_marks(low: f64, high: f64) -> Vec<(f64, String)> {
    let digits: &[f64] = if high - low < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let powers = low.floor() as i32..=high.ceil() as i32;
    let marks = powers.flat_map(|power| {
        digits.iter().map(move |&digit| {
            let text = match power {
                -3..0 => format!("{:.1$}", digit * 10_f64.powi(power), -power as usize),
                0..5 => format!("{}", digit * 10_f64.powi(power)),
                _ => format!("{digit}e{power}"),
            };
            (f64::from(power) + digit.log10(), text)
        })
    });
    marks.filter(|mark| (low..=high).contains(&mark.0)).collect()
}

/// An axis whose places and marks are known.
struct Ruler {
    range: Range<f64>,
    /// Places with their texts.
    marks: Vec<(f64, String)>,
}

impl Ruler {
    /// Takes the texts from the marks, which stay.
    fn take_texts(&mut self) -> Vec<(f64, String)> {
        self.marks.iter_mut().map(|mark| (mark.0, std::mem::take(&mut mark.1))).collect()
    }
}

impl Ranged for Ruler {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (start, end): (i32, i32)) -> i32 {
        let share = (place - self.range.start) / (self.range.end - self.range.start);
        start + (f64::from(end - start) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.iter().map(|mark| mark.0).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Ruler {
    fn format_ext(&self, place: &f64) -> String {
        let mark = self.marks.iter().find(|mark| mark.0 == *place);
        mark.map_or_else(String::new, |mark| output::one_line(&mark.1).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(marks: Vec<(f64, String)>) -> Vec<String> {
        marks.into_iter().map(|mark| mark.1).collect()
    }

    #[test]
    fn marks_are_round() {
        assert_eq!(texts(linear_marks(-0.3, 5.2)), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(texts(linear_marks(-0.021, 0.032)), ["-0.02", "-0.01", "0.00", "0.01", "0.02", "0.03"]);
        assert_eq!(texts(log_marks(-1.1, 1.1)), ["0.1", "0.2", "0.5", "1", "2", "5", "10"]);
        assert_eq!(texts(log_marks(-5.5, -0.5)), ["1e-5", "1e-4", "0.001", "0.01", "0.1"]);
    }

    /// A panel of names with bars before and after.
    fn panel(names: usize, scale: Scale) -> Panel {
        let names: Vec<_> = (0..names).map(|name| format!("blk.{}.<{name}>", name / 7)).collect();
        let points =
            |factor: f64| (0..names.len()).map(|i| (i as f64, factor * (1 + i % 7) as f64)).collect();
        let series = |name: &str, colour, factor| Series {
            name: name.to_owned(),
            style: Style::Bars,
            colour,
            points: points(factor),
        };
        Panel {
            title: "Error by matrix".to_owned(),
            x: Axis { label: String::new(), scale: Scale::names(names.clone()) },
            y: Axis { label: "error".to_owned(), scale },
            series: vec![series("before", Colour::Blue, 0.01), series("after", Colour::Orange, 0.006)],
        }
    }

    #[test]
    fn a_plot_has_all_that_it_should_show() {
        for (names, scale) in [(5, Scale::Linear), (43, Scale::Log)] {
            let svg = svg("before & after", &[panel(names, scale)]).unwrap();
            assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
            for part in
                ["before &amp; after", "Error by matrix", "error", "before", "after", "blk.0.&lt;3&gt;"]
            {
                assert!(svg.contains(part), "{part}: {svg}");
            }
            assert_eq!(svg.matches("#0072B2").count(), names + 1, "a bar for each and one in the legend");
        }
    }

    #[test]
    fn nothing_to_draw_is_no_error() {
        let scale = || Axis { label: "x".to_owned(), scale: Scale::Log };
        let points = vec![(0.0, f64::NAN), (-1.0, 1.0), (1.0, f64::INFINITY)];
        let series = Series { name: String::new(), style: Style::Line, colour: Colour::Grey, points };
        let empty = Panel { title: "t".to_owned(), x: scale(), y: scale(), series: vec![series] };
        assert!(svg("", &[empty]).unwrap().contains("<svg"));
        assert!(svg("", &[]).unwrap().contains("<svg"));
    }
}
