//! What became of a model.

use std::fs;
use std::path::Path;
use std::time::Duration;

use half::f16;
use llamita::weights::Tensor;
use llamita::{Config, Tape};
use llamita_convert::{Plan, Quantizer, Source};
use llamita_kernels::quantized::Layout;
use serde::Serialize;

use super::{Options, folder};
use crate::builtin::BuiltIn;
use crate::commands::inspect::class;
use crate::output::{Table, list};
use crate::units::{bytes, digits, grouped};
use crate::{calibration, pruning};

/// Squares of weights, and of what they are off by.
#[derive(Clone, Copy, Default)]
struct Squares {
    weights: f64,
    errors: f64,
}

/// A quantizer whose errors are summed.
pub struct Measured<'q> {
    quantizer: &'q mut dyn Quantizer,
    config: Config,
    /// In tape order; nothing where integers were taken over.
    squares: Vec<Option<Squares>>,
}

impl<'q> Measured<'q> {
    /// The same quantizer, measured.
    pub fn new(quantizer: &'q mut dyn Quantizer, config: &Config) -> Self {
        Self { quantizer, config: *config, squares: vec![None; Tape::len(config)] }
    }

    /// What was measured.
    pub fn errors(self) -> Errors {
        Errors { config: self.config, squares: self.squares }
    }
}

/// How much weights were rounded.
pub struct Errors {
    config: Config,
    squares: Vec<Option<Squares>>,
}

impl Errors {
    fn of(&self, tensor: Tensor) -> Option<Squares> {
        self.squares[Tape::index(&self.config, tensor)]
    }
}

impl Quantizer for Measured<'_> {
    fn quantize(
        &mut self,
        tensor: Tensor,
        first_row: usize,
        layout: Layout,
        rows: &[f32],
        values: &mut [i8],
        scales: &mut [u16],
    ) -> llamita_convert::Result<()> {
        self.quantizer.quantize(tensor, first_row, layout, rows, values, scales)?;
        let squares = self.squares[Tape::index(&self.config, tensor)].get_or_insert_default();
        let rows = rows.chunks_exact(layout.columns).zip(values.chunks_exact(layout.columns));
        for ((row, values), scales) in rows.zip(scales.chunks_exact(layout.groups())) {
            for (column, (&weight, &value)) in row.iter().zip(values).enumerate() {
                let rounded = f16::from_bits(scales[column / layout.group]).to_f32() * f32::from(value);
                squares.weights += f64::from(weight) * f64::from(weight);
                squares.errors += f64::from(weight - rounded) * f64::from(weight - rounded);
            }
        }
        Ok(())
    }
}

/// What was read and what was written.
#[derive(Serialize)]
pub struct Report {
    input: Side,
    output: Side,
    /// Of all weights of the result, with scales and zeros to fill up.
    bits_per_weight: f64,
    weights: u64,
    tensors: Vec<Tensors>,
    tokenizer: Option<Tokenizer>,
    pruned: Option<pruning::Report>,
    calibrated: Option<calibration::Report>,
    seconds: f64,
}

#[derive(Serialize)]
struct Side {
    path: String,
    kind: Option<&'static str>,
    bytes: u64,
}

/// Tensors of one class that were and became the same.
#[derive(Serialize)]
struct Tensors {
    class: &'static str,
    from: String,
    to: String,
    tensors: usize,
    weights: u64,
    bytes: u64,
    bits_per_weight: f64,
    /// Root of the mean square of what weights were rounded by, over that of the weights; none where integers
    /// were taken over, or nothing is quantized.
    relative_error: Option<f64>,
    #[serde(skip)]
    squares: Squares,
}

#[derive(Serialize)]
struct Tokenizer {
    model: &'static str,
    tokens: usize,
}

impl Report {
    /// What became of a source that has been written.
    pub fn new(
        options: &Options,
        kind: &'static str,
        source: &dyn Source,
        plan: &Plan,
        errors: &Errors,
        (pruned, calibrated): (Option<pruning::Report>, Option<calibration::Report>),
        time: Duration,
    ) -> Self {
        let tensors = classes(source, plan, errors);
        let weights = tensors.iter().map(|tensors| tensors.weights).sum::<u64>();
        let stored = tensors.iter().map(|tensors| tensors.bytes).sum::<u64>();
        let side = |path: &Path, kind| Side { path: path.display().to_string(), kind, bytes: size(path) };
        Self {
            input: side(&options.input, None),
            output: side(&options.output, Some(kind)),
            bits_per_weight: bits(stored, weights),
            weights,
            tensors,
            tokenizer: source.vocabulary().map(|vocabulary| Tokenizer {
                model: match vocabulary.model {
                    llamita_convert::VocabularyModel::Llama => "SentencePiece",
                    llamita_convert::VocabularyModel::Gpt2 => "byte-level",
                },
                tokens: vocabulary.tokens.len(),
            }),
            pruned,
            calibrated,
            seconds: time.as_secs_f64(),
        }
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let Self { input, output, .. } = self;
        let mut facts = vec![
            ("from", format!("{}, {}", input.path, bytes(input.bytes))),
            ("to", format!("{}, {}, {}", output.path, output.kind.unwrap_or_default(), bytes(output.bytes))),
            ("weights", format!("{}, {} bits each", grouped(self.weights), digits(self.bits_per_weight))),
        ];
        if let Some(Tokenizer { model, tokens }) = &self.tokenizer {
            facts.push(("tokenizer", format!("{model}, {tokens} tokens")));
        }
        facts.push(("time", format!("{:.2} s", self.seconds)));
        let mut table = Table::new(["tensors", "from", "to", "count", "weights", "bytes", "bits", "error"]);
        for class in &self.tensors {
            let error = class.relative_error;
            table.row([
                class.class,
                &class.from,
                &class.to,
                &class.tensors.to_string(),
                &grouped(class.weights),
                &bytes(class.bytes),
                &digits(class.bits_per_weight),
                &error.map_or_else(|| "-".to_owned(), |error| format!("{} %", digits(100.0 * error))),
            ]);
        }
        let pruned = self.pruned.as_ref().map(pruning::Report::text);
        let calibrated = self.calibrated.as_ref().map(calibration::Report::text);
        let parts = [Some(list(&facts)), Some(table.lines()), pruned, calibrated];
        parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }
}

fn bits(bytes: u64, weights: u64) -> f64 {
    8.0 * bytes as f64 / weights as f64
}

/// Bytes of a file, or of the weights in the folder of a model.
fn size(path: &Path) -> u64 {
    let len = |path: &Path| match BuiltIn::find(path) {
        Some(model) => model.bytes().len() as u64,
        None => fs::metadata(path).map_or(0, |metadata| metadata.len()),
    };
    match folder(path) {
        Some(folder) => {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            let is_part = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "safetensors");
            entries.filter(is_part).map(|path| len(&path)).sum()
        }
        None => len(path),
    }
}

/// The tensors by class, by what they were and by what they became, in the order in which they come first.
fn classes(source: &dyn Source, plan: &Plan, errors: &Errors) -> Vec<Tensors> {
    let mut classes: Vec<Tensors> = Vec::new();
    for (tensor, format) in plan.tensors() {
        let (rows, columns) = Tape::shape(plan.config(), tensor);
        let (class, from, to) = (class(tensor), source.stored(tensor).to_string(), format.to_string());
        let is_same = |known: &Tensors| known.class == class && known.from == from && known.to == to;
        let place = classes.iter().position(is_same).unwrap_or_else(|| {
            let (from, to) = (from.clone(), to.clone());
            classes.push(Tensors {
                class,
                from,
                to,
                tensors: 0,
                weights: 0,
                bytes: 0,
                bits_per_weight: 0.0,
                relative_error: None,
                squares: Squares::default(),
            });
            classes.len() - 1
        });
        let known = &mut classes[place];
        known.tensors += 1;
        known.weights += rows as u64 * columns as u64;
        known.bytes += format.bytes(rows, columns);
        known.bits_per_weight = bits(known.bytes, known.weights);
        if let Some(squares) = errors.of(tensor) {
            known.squares.weights += squares.weights;
            known.squares.errors += squares.errors;
            let ratio = known.squares.errors / known.squares.weights.max(f64::MIN_POSITIVE);
            known.relative_error = Some(ratio.sqrt());
        }
    }
    classes
}
