//! Quantization by what the model does with a text: calibrated rounding, then tuning, and what both are worth.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use llamita::weights::Format;
use llamita::{Capacity, Engine, Kernels, State};
use llamita_convert::tune::{self, TunedSource, Tuning};
use llamita_convert::vocabulary::Encoder;
use llamita_convert::{Calibrated, Calibration, Plan, Quantizer, Rounding, Source};
use llamita_kernels::{CacheFormat, Threads};
use llamita_storage::Placement;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::load::{self, File, LoadedModel};
use crate::output::Table;
use crate::plot::{self, Axis, Colour, Panel, Scale, Series, Style};
use crate::stories::{self, Stories};
use crate::{options, threads};

/// By which text to quantize.
#[derive(clap::Args)]
pub struct CalibrationArguments {
    /// Quantize so that the predictions for texts like this one change least, and report the perplexity before and
    /// after on the part of it that is kept back; stories are separated by <|endoftext|>
    #[arg(long, value_name = "TEXT")]
    calibrate: Option<PathBuf>,

    /// Steps by which --calibrate tunes weights, scales and norms together until the model says what the original
    /// says; 0 for none, which is fast
    #[arg(long, value_name = "STEPS", requires = "calibrate", default_value_t = Tuning::default().steps)]
    tune: usize,

    /// Draw what --calibrate reports, as SVG
    #[arg(long, value_name = "FILE", requires = "calibrate")]
    plot: Option<PathBuf>,
}

/// What calibration was worth.
#[derive(Serialize)]
pub struct Report {
    text: String,
    /// Stories that the model was calibrated and tuned by.
    stories: usize,
    /// Stories that were kept back to measure with.
    kept_back: usize,
    /// Tokens of these that were predicted.
    tokens: usize,
    perplexity: Perplexity,
    /// The mean divergence of the predictions from the original's in each step of tuning, in nats per token.
    divergence: Vec<f64>,
}

/// On the stories that were kept back.
#[derive(Serialize)]
struct Perplexity {
    original: f64,
    /// Every matrix rounded by itself.
    rounded: f64,
    calibrated: f64,
    tuned: Option<f64>,
}

/// Stories that the products of inputs are summed over: far more tokens than an input has columns.
const CALIBRATION_STORIES: usize = 500;
/// Most stories that are kept back.
const KEPT_BACK: usize = 100;

/// A way to quantize that is ready to be used.
pub enum Quantization {
    /// Every matrix by itself.
    Rounding,
    /// With what was seen of the inputs.
    Calibrated(Calibration),
    /// Done already: the source to write in place of the original.
    Tuned(Box<TunedSource>),
}

impl CalibrationArguments {
    /// The file that is read, which may not be written to.
    pub fn input(&self) -> Option<&Path> {
        self.calibrate.as_deref()
    }

    /// The file to draw to.
    pub fn plot(&self) -> Option<&Path> {
        self.plot.as_deref()
    }

    /// Prepares the quantization of a model for a plan, and measures what it is worth; `name` is the model's path.
    pub fn prepare(
        &self,
        source: &mut dyn Source,
        plan: &Plan,
        name: &Path,
    ) -> Result<(Quantization, Option<Report>)> {
        let Some(path) = &self.calibrate else { return Ok((Quantization::Rounding, None)) };
        if !plan.tensors().any(|(_, format)| matches!(format, Format::Quantized { .. })) {
            return Err(Error::usage(
                "--calibrate is for the native q8 and q4, nothing else is quantized with it: \
                 give --quant q8 or q4 and an output of kind device",
            ));
        }
        let text = File::open(path, Placement::HugePages)?;
        let texts = Texts::read(source, &text)?;
        let measure = |source: &mut dyn Source, plan: &Plan, quantizer: &mut dyn Quantizer| {
            texts.kept_back.perplexity(&File::repack(name, source, plan, quantizer)?)
        };
        let floats = Plan::floats(source.config(), Format::F32).map_err(Error::failure)?;
        let original = File::repack(name, source, &floats, &mut Rounding)?;
        let calibration = calibrate(&original, &texts.calibration)?;
        let mut perplexity = Perplexity {
            original: texts.kept_back.perplexity(&original)?,
            rounded: measure(source, plan, &mut Rounding)?,
            calibrated: measure(source, plan, &mut Calibrated::new(&calibration))?,
            tuned: None,
        };
        drop(original);

        let mut divergence = Vec::new();
        let mut quantization = Quantization::Calibrated(calibration);
        if let Quantization::Calibrated(calibration) = &quantization
            && self.tune > 0
        {
            let tuning = Tuning { steps: self.tune, ..Tuning::default() };
            let bar = bar(self.tune, "tuning: {wide_bar} {pos}/{len} steps, {msg}, {eta} left")?;
            let mut progress = |_, loss: f64| {
                divergence.push(loss);
                bar.set_message(format!("{loss:.4} nats from the original"));
                bar.inc(1);
            };
            let quantizer = &mut Calibrated::new(calibration);
            let stories = &texts.calibration.tokens;
            let tuned = tune::tune(source, plan, quantizer, stories, tuning, &mut progress);
            bar.finish_and_clear();
            let mut tuned = tuned.map_err(Error::failure)?;
            perplexity.tuned = Some(measure(&mut tuned, plan, &mut Rounding)?);
            quantization = Quantization::Tuned(Box::new(tuned));
        }
        let report = Report {
            text: text.path.display().to_string(),
            stories: texts.calibration.tokens.len(),
            kept_back: texts.kept_back.tokens.len(),
            tokens: texts.kept_back.predicted(),
            perplexity,
            divergence,
        };
        if let Some(path) = &self.plot {
            plot::save(path, &report.title(), &report.panels())?;
        }
        Ok((quantization, Some(report)))
    }
}

/// A text in two parts.
struct Texts {
    calibration: Stories,
    kept_back: Stories,
}

impl Texts {
    /// The last tenth of the stories, of which one is the least and [`KEPT_BACK`] the most, is kept back.
    fn read(source: &dyn Source, text: &File) -> Result<Self> {
        let all = options::utf8(text.content.bytes(), &text.path.display().to_string())?;
        let all: Vec<_> = stories::split(all).collect();
        let kept_back = (all.len() / 10).clamp(1, KEPT_BACK);
        if all.len() < 2 {
            let message = format!(
                "it has {} stories, expected 2 or more, separated by <|endoftext|>: name a longer text",
                all.len()
            );
            return Err(Error::file(&text.path, message));
        }
        let vocabulary = source.vocabulary().ok_or_else(|| {
            Error::failure(
                "the model comes without a tokenizer, expected one to calibrate with: name it by --tokenizer",
            )
        })?;
        let mut encoder = Encoder::new(vocabulary).map_err(Error::failure)?;
        let tokenizer = encoder.tokenizer().map_err(Error::failure)?;
        let (calibration, kept_back) = all.split_at(all.len() - kept_back);
        let encode = |stories| Stories::encode(&tokenizer, stories, source.config().seq_len);
        let texts = Self { calibration: encode(calibration)?, kept_back: encode(kept_back)? };
        if texts.kept_back.predicted() == 0 {
            let message =
                "its last stories have no token to predict within the model's context: name another text";
            return Err(Error::file(&text.path, message));
        }
        Ok(texts)
    }
}

/// Sums what the matrices of a model are multiplied with.
fn calibrate(model: &File, stories: &Stories) -> Result<Calibration> {
    let model = LoadedModel::read(model)?;
    let config = *model.config();
    let mut calibration = Calibration::new(&config);
    let count = stories.tokens.len().min(CALIBRATION_STORIES);
    let bar = bar(count, "calibrating: {wide_bar} {pos}/{len} stories, {eta} left")?;
    let (batch, cache) = (load::MAX_BATCH, CacheFormat::F32);
    let capacity = Capacity { context: stories.longest().max(1), batch, logits: batch, cache };
    let mut memory = load::memory(&config, capacity)?;
    let state = State::new(&config, capacity, &mut memory)?;
    let weights = model.weights()?;
    let threads = threads::count(None, model.bytes_per_token()?);
    let team = Threads::new(threads).map_err(Error::failure)?;
    let mut engine = Engine::new(calibration.observe(weights), state, team, Kernels::detect());
    for story in stories.tokens.iter().take(count) {
        for (i, tokens) in story.chunks(batch).enumerate() {
            // With logits, so that the classifier's input is seen as well.
            engine.forward(tokens, i * batch, tokens.len())?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    drop(engine);
    Ok(calibration)
}

fn bar(len: usize, template: &str) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template(template).map_err(Error::failure)?;
    Ok(ProgressBar::new(len as u64).with_style(style))
}

impl Perplexity {
    /// What was measured, in the order in which the steps follow.
    fn steps(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let steps = [
            ("original", Some(self.original)),
            ("rounded", Some(self.rounded)),
            ("calibrated", Some(self.calibrated)),
            ("tuned", self.tuned),
        ];
        steps.into_iter().filter_map(|(name, perplexity)| Some((name, perplexity?)))
    }

    fn change(&self, perplexity: f64) -> f64 {
        100.0 * (perplexity / self.original - 1.0)
    }
}

impl Report {
    /// The report as lines.
    pub fn text(&self) -> String {
        let title = format!("perplexity, {} stories kept back", self.kept_back);
        let mut table = Table::new([&title, "nats per token", "perplexity", "change"]);
        for (name, perplexity) in self.perplexity.steps() {
            let change = format!("{:+.2} %", self.perplexity.change(perplexity));
            table.row([name, &format!("{:.5}", perplexity.ln()), &format!("{perplexity:.4}"), &change]);
        }
        table.lines()
    }

    fn title(&self) -> String {
        format!("Calibrated by {} stories, measured on {} others", self.stories, self.kept_back)
    }

    fn panels(&self) -> Vec<Panel> {
        let steps: Vec<_> = self.perplexity.steps().skip(1).collect();
        let changes = steps.iter().enumerate();
        let changes = changes.map(|(i, &(_, perplexity))| (i as f64, self.perplexity.change(perplexity)));
        let mut panels = vec![Panel {
            title: format!("Perplexity against the original's {:.4}", self.perplexity.original),
            x: Axis {
                label: String::new(),
                scale: Scale::names(steps.iter().map(|(name, _)| (*name).to_owned())),
            },
            y: Axis { label: "change, %".to_owned(), scale: Scale::Linear },
            series: vec![Series {
                name: String::new(),
                style: Style::Bars,
                colour: Colour::Blue,
                points: changes.collect(),
            }],
        }];
        if !self.divergence.is_empty() {
            let points = self.divergence.iter().enumerate().map(|(step, &loss)| (step as f64, loss));
            panels.push(Panel {
                title: "Tuning: how far the predictions are from the original's".to_owned(),
                x: Axis { label: "step".to_owned(), scale: Scale::Linear },
                y: Axis { label: "divergence, nats per token".to_owned(), scale: Scale::Linear },
                series: vec![Series {
                    name: String::new(),
                    style: Style::Line,
                    colour: Colour::Orange,
                    points: points.collect(),
                }],
            });
        }
        panels
    }
}
