//! What a run says: a bar on a terminal, a log, and a plot of the losses.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Progress;
use crate::model::write_atomically;

/// A step, as a line of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Steps done.
    pub step: usize,
    /// Loss of the step's sequences before it, nats per token; with a teacher, of both parts together.
    pub loss: f64,
    /// Length of the gradient of all weights, before it was shortened.
    pub norm: f64,
    /// Share of the highest learning rate.
    pub rate: f64,
    /// Tokens that were trained with in a second.
    pub tokens_per_second: f64,
    /// Seconds of training until then.
    pub seconds: f64,
    /// Loss on the validation text, nats per token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
}

/// Where a run says what it does.
pub struct Report {
    bar: ProgressBar,
    log: File,
    plot: PathBuf,
    records: Vec<Record>,
    /// Nats per token to bits per byte, of the validation text: roughly, as BOS is predicted here, too.
    bits_per_byte: f64,
}

impl Report {
    /// Begins a report, or goes on after the steps that are done: what the log has of later ones is cut off.
    pub fn begin(folder: &Path, done: usize, steps: usize, bits_per_byte: f64) -> Result<Self> {
        let path = folder.join("log.jsonl");
        let at = || format!("{}", path.display());
        let mut records = Vec::new();
        if done > 0 {
            let text = match fs::read_to_string(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
                text => text.with_context(at)?,
            };
            // A line may have been cut off in the middle when training was stopped.
            let all = text.lines().map_while(|line| serde_json::from_str::<Record>(line).ok());
            records.extend(all.filter(|record| record.step <= done));
        }
        let lines: Result<Vec<String>, _> = records.iter().map(serde_json::to_string).collect();
        let lines: String = lines?.into_iter().map(|line| line + "\n").collect();
        write_atomically(&path, |file| Ok(file.write_all(lines.as_bytes())?))?;
        let log = OpenOptions::new().append(true).open(&path).with_context(at)?;
        let template = "{wide_bar} {pos}/{len} steps, {msg}, {eta} left";
        let bar = ProgressBar::new(steps as u64).with_style(ProgressStyle::with_template(template)?);
        bar.set_position(done as u64);
        bar.reset_eta();
        Ok(Self { bar, log, plot: folder.join("loss.svg"), records, bits_per_byte })
    }

    /// A step is done.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record)? + "\n";
        self.log.write_all(line.as_bytes()).context("log.jsonl cannot be written, check the space there")?;
        self.bar.set_position(record.step as u64);
        self.bar.set_message(format!("loss {:.3}, {:.0} tok/s", record.loss, record.tokens_per_second));
        if let Some(loss) = record.validation {
            let bits = loss * self.bits_per_byte;
            self.say(&format!(
                "step {:>6}: validation {loss:.4} nats/token, about {bits:.3} bits/byte",
                record.step
            ));
        }
        self.records.push(record.clone());
        Ok(())
    }

    /// A line for people.
    pub fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Training has ended.
    pub fn end(&self, progress: &Progress) {
        self.bar.finish_and_clear();
        let time = Duration::from_secs(progress.seconds as u64);
        let best = progress.best.map_or_else(String::new, |best| {
            format!(
                ", best validation {best:.4} nats/token, about {:.3} bits/byte",
                best * self.bits_per_byte
            )
        });
        self.say(&format!("{} steps in {}{best}", progress.step, indicatif::HumanDuration(time)));
    }

    /// Draws the losses so far; training does not depend on it.
    pub fn draw(&self) {
        let mut svg = String::new();
        let drawn =
            draw(&mut svg, &self.records).map_err(|error| anyhow!("the plot cannot be drawn: {error}"));
        let written =
            drawn.and_then(|()| write_atomically(&self.plot, |file| Ok(file.write_all(svg.as_bytes())?)));
        if let Err(error) = written {
            self.say(&format!("warning: {error:#}"));
        }
    }
}

/// Colours that are told apart by those who do not see all of them (Okabe and Ito, 2008).
const TRAINING: RGBColor = RGBColor(0, 114, 178);
const VALIDATION: RGBColor = RGBColor(213, 94, 0);

/// Losses over steps; those of single steps as means over a hundredth of the run.
fn draw(svg: &mut String, records: &[Record]) -> Result<(), Box<dyn std::error::Error>> {
    let window = records.len().div_ceil(100).max(1);
    let mean = |records: &[Record]| {
        let loss: f64 = records.iter().map(|record| record.loss).sum();
        (records[records.len() - 1].step as f64, loss / records.len() as f64)
    };
    let training: Vec<(f64, f64)> = records.chunks(window).map(mean).collect();
    let validation: Vec<(f64, f64)> =
        records.iter().filter_map(|record| Some((record.step as f64, record.validation?))).collect();
    let losses = || training.iter().chain(&validation).map(|&(_, loss)| loss);
    let (low, high) = (losses().fold(f64::MAX, f64::min), losses().fold(f64::MIN, f64::max));
    // The fall of the first steps would leave no room for what comes after it.
    let high = high.min(low + 2.0);
    let last = training.last().map_or(1.0, |&(step, _)| step);
    let root = SVGBackend::with_string(svg, (900, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last, low - 0.05..high + 0.05)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("steps")
        .y_desc("loss, nats per token")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .draw()?;
    for (name, points, colour) in [("training", training, TRAINING), ("validation", validation, VALIDATION)] {
        let line = LineSeries::new(points, colour.stroke_width(2));
        chart
            .draw_series(line)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}
