//! `llamita convert`: a model in another form.

mod files;
mod report;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use llamita::Tape;
use llamita::weights::Format;
use llamita_convert::source::{Checkpoint, Folder};
use llamita_convert::vocabulary::{self, from_llama2c_bin, to_llama2c_bin};
use llamita_convert::{
    Calibrated, Conversion, GgufFile, Group, Plan, Precision, Quantizer, Rounding, Source, Vocabulary,
    VocabularyModel, hugging_face, llama2c,
};
use llamita_kernels::quantized::Quant;

use crate::builtin::BuiltIn;
use crate::calibration::{CalibrationArguments, Quantization};
use crate::error::{Error, Result};
use crate::output;
use crate::pruning::PruningArguments;
use files::Output;
use report::{Measured, Report};

/// Convert a model to another form, and quantize it
///
/// The model is a llama2.c checkpoint (.bin, versions 0, 1 and 2), a GGUF file (F32, F16, BF16, Q8_0, Q4_0,
/// Q4_1, Q5_0, Q5_1, Q4_K, Q6_K) or a Hugging Face folder (config.json, safetensors, tokenizer).
#[derive(clap::Args)]
#[command(override_usage = "llamita convert [OPTIONS] IN OUT")]
pub struct Options {
    /// The model to convert: a file or a folder
    #[arg(value_name = "IN")]
    input: PathBuf,

    /// The file or the folder to write; it appears once it is complete
    #[arg(value_name = "OUT")]
    output: PathBuf,

    /// What to write [default: by the name of OUT, device for .gguf, llama2c for .bin, safetensors for
    /// .safetensors and folders]
    #[arg(long, value_name = "KIND")]
    to: Option<Kind>,

    /// How to store matrices: f32, f16, q8 or q4; q8 and q4 are eight and four bits with a scale for each
    /// group [default: q8 for device and gguf, f32 for the others]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    quant: Option<Storage>,

    /// How to store the matrices of the layers, if not as --quant says
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    body: Option<Storage>,

    /// How to store the embedding and the classifier, if not as --quant says
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    head: Option<Storage>,

    /// Columns that share a scale, for device: 32, 64 or row [default: 32]
    #[arg(long, value_name = "COLUMNS", value_parser = group)]
    group: Option<Group>,

    /// The tokenizer, in place of the model's own: tokenizer.bin, tokenizer.model or tokenizer.json [default
    /// for .bin: of tokenizer.bin and tok*.bin beside it, the one with as many tokens as the model]
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,

    #[command(flatten)]
    pruning: PruningArguments,

    #[command(flatten)]
    calibration: CalibrationArguments,

    /// Replace files that exist; never the model that is converted
    #[arg(long)]
    force: bool,

    /// Print one JSON object; bytes are exact in it
    #[arg(long)]
    json: bool,
}

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// GGUF for llamita, which every machine uses in place
    Device,
    /// GGUF for llama.cpp and others
    Gguf,
    /// A llama2.c checkpoint of version 0, with tokenizer.bin beside it
    Llama2c,
    /// model.safetensors and config.json, for Hugging Face
    Safetensors,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Storage {
    F32,
    F16,
    Q8,
    Q4,
}

impl From<Storage> for Precision {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::F32 => Self::F32,
            Storage::F16 => Self::F16,
            Storage::Q8 => Self::Quantized(Quant::Q8),
            Storage::Q4 => Self::Quantized(Quant::Q4),
        }
    }
}

fn group(text: &str) -> std::result::Result<Group, String> {
    match text {
        "32" => Ok(Group::Columns(32)),
        "64" => Ok(Group::Columns(64)),
        "row" => Ok(Group::Row),
        _ => Err("expected 32, 64 or row".to_owned()),
    }
}

/// Convert the model.
pub fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let kind = kind(options)?;
    let formats = Formats::of(options, kind)?;
    let mut output = Output::new(options, kind)?;
    let (mut source, pruning) = options.pruning.apply(open(options, &mut output)?)?;
    let source = &mut *source;
    let plan = formats.plan(source, kind)?;
    // What is refused is refused before the long part of the work.
    write_others(kind, &plan, &mut output, source.vocabulary())?;
    let (mut quantization, calibration) = options.calibration.prepare(source, &plan, &options.input)?;

    let bar = progress_bar(&plan)?;
    let mut calibrated;
    let (written, quantizer): (&mut dyn Source, &mut dyn Quantizer) = match &mut quantization {
        Quantization::Rounding => (&mut *source, &mut Rounding),
        Quantization::Calibrated(calibration) => {
            calibrated = Calibrated::new(calibration);
            (&mut *source, &mut calibrated)
        }
        Quantization::Tuned(tuned) => (&mut **tuned, &mut Rounding),
    };
    let mut measured = Measured::new(quantizer, plan.config());
    let progress = &mut |weights| bar.inc(weights);
    let mut conversion = Conversion { source: written, quantizer: &mut measured, progress };
    write(kind, &plan, options, &mut output, &mut conversion)?;
    bar.finish_and_clear();

    let errors = measured.errors();
    output.publish()?;
    let extras = (pruning, calibration);
    let report = Report::new(options, kind.describe(), source, &plan, &errors, extras, start.elapsed());
    if options.json { output::json(&report) } else { output::print(&report.text()) }
}

/// What is written, by option or by name.
fn kind(options: &Options) -> Result<Kind> {
    if let Some(kind) = options.to {
        return Ok(kind);
    }
    let extension = options.output.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        _ if options.output.is_dir() => Ok(Kind::Safetensors),
        None | Some("safetensors") => Ok(Kind::Safetensors),
        Some("gguf") => Ok(Kind::Device),
        Some("bin") => Ok(Kind::Llama2c),
        Some(other) => Err(Error::usage(format_args!(
            "the name of the output ends with .{other}, expected .gguf, .bin, .safetensors or a folder: \
             name the kind with --to"
        ))),
    }
}

/// How matrices are stored.
struct Formats {
    body: Precision,
    head: Precision,
    group: Group,
}

impl Formats {
    fn of(options: &Options, kind: Kind) -> Result<Self> {
        let floats = matches!(kind, Kind::Llama2c | Kind::Safetensors);
        let all = options.quant.unwrap_or(if floats { Storage::F32 } else { Storage::Q8 });
        let (body, head) = (options.body.unwrap_or(all), options.head.unwrap_or(all));
        let fits = match kind {
            Kind::Device | Kind::Gguf => true,
            Kind::Llama2c => [body, head] == [Storage::F32; 2],
            Kind::Safetensors => body == head && matches!(body, Storage::F32 | Storage::F16),
        };
        if !fits {
            let expected = if kind == Kind::Llama2c { "f32" } else { "f32 or f16 for all" };
            return Err(Error::usage(format_args!(
                "{} is written as {expected}: leave --quant, --body and --head away, or write GGUF",
                kind.describe()
            )));
        }
        if options.group.is_some() && kind != Kind::Device {
            return Err(Error::usage(format_args!(
                "--group is for --to device, {} has groups of its own: leave it away",
                kind.describe()
            )));
        }
        if options.group.is_some() && ![body, head].iter().any(|all| matches!(all, Storage::Q8 | Storage::Q4))
        {
            return Err(Error::usage(
                "--group is for matrices in q8 or q4, and none is to be: leave it away, or choose one by --quant",
            ));
        }
        let group = options.group.unwrap_or(Group::Columns(32));
        Ok(Self { body: body.into(), head: head.into(), group })
    }

    fn plan(&self, source: &dyn Source, kind: Kind) -> Result<Plan> {
        let config = source.config();
        let plan = match kind {
            Kind::Device => Plan::native(config, self.body, self.head, self.group),
            Kind::Gguf => Plan::ordinary(config, self.body, self.head),
            Kind::Llama2c => Plan::floats(config, Format::F32),
            Kind::Safetensors if self.body == Precision::F16 => Plan::floats(config, Format::F16),
            Kind::Safetensors => Plan::floats(config, Format::F32),
        };
        plan.map_err(Error::failure)
    }
}

impl Kind {
    const fn describe(self) -> &'static str {
        match self {
            Self::Device => "device GGUF",
            Self::Gguf => "GGUF",
            Self::Llama2c => "llama2.c version 0",
            Self::Safetensors => "safetensors",
        }
    }
}

/// The folder of a Hugging Face model, if the path names one or a file of one.
fn folder(path: &Path) -> Option<&Path> {
    if path.is_dir() {
        return Some(path);
    }
    let is_part = path.extension().is_some_and(|extension| extension == "safetensors");
    let parent = || path.parent().map(|parent| if parent == "" { Path::new(".") } else { parent });
    if is_part || path.ends_with("config.json") { parent() } else { None }
}

/// Refuses a file that is no part of the model in its folder, which would be converted in its place.
fn check_part(input: &Path, folder: &Path) -> Result<()> {
    let is_part = input.is_dir()
        || ["config.json", "model.safetensors"].iter().any(|name| input.ends_with(name))
        || folder.join("model.safetensors.index.json").exists();
    if is_part {
        return Ok(());
    }
    Err(Error::usage(format_args!(
        "{} is no part of a model's folder, expected model.safetensors, or parts with \
         model.safetensors.index.json: rename it, or name the folder",
        input.display()
    )))
}

/// Opens the model, with its vocabulary as far as one is found.
fn open(options: &Options, output: &mut Output) -> Result<Box<dyn Source>> {
    let named = options.tokenizer.as_deref();
    if let Some(folder) = folder(&options.input) {
        check_part(&options.input, folder)?;
        return Ok(Box::new(Folder::open(folder, named).map_err(Error::failure)?));
    }
    if let Some(model) = BuiltIn::find(&options.input) {
        let source = Checkpoint::new(model.bytes(), Cursor::new(model.bytes()));
        let mut source = source.map_err(Error::failure)?;
        if let Some(path) = named {
            let vocab_size = source.config().vocab_size;
            source.set_vocabulary(vocabulary::read_file(path, vocab_size).map_err(Error::failure)?);
        }
        return Ok(Box::new(source));
    }
    let mut source = Checkpoint::open(&options.input).map_err(Error::failure)?;
    let vocab_size = source.config().vocab_size;
    if let Some(path) = named {
        source.set_vocabulary(vocabulary::read_file(path, vocab_size).map_err(Error::failure)?);
    } else if source.vocabulary().is_none() {
        match beside(&options.input, vocab_size) {
            Ok((path, vocabulary)) => {
                output.protect(path)?;
                source.set_vocabulary(vocabulary);
            }
            // Without one there is still a model, for who has the tokenizer elsewhere.
            Err(error) => output::note(&format!("note: {error}; the result has none")),
        }
    }
    Ok(Box::new(source))
}

fn beside(model: &Path, vocab_size: usize) -> Result<(PathBuf, Vocabulary)> {
    let path = crate::vocabulary::beside(model, vocab_size)?.path;
    let vocabulary = vocabulary::read_file(&path, vocab_size).map_err(Error::failure)?;
    Ok((path, vocabulary))
}

/// Writes the weights, with all that is in one file with them.
fn write(
    kind: Kind,
    plan: &Plan,
    options: &Options,
    output: &mut Output,
    conversion: &mut Conversion<'_>,
) -> Result<()> {
    let mut file = output.create()?;
    let written = match kind {
        Kind::Device => GgufFile::device(conversion.source, plan).write(conversion, &mut file),
        Kind::Gguf => GgufFile::ordinary(conversion.source, plan).write(conversion, &mut file),
        Kind::Llama2c => llama2c::write(conversion, &mut file),
        Kind::Safetensors => hugging_face::write_safetensors(conversion, plan, &mut file),
    };
    written.map_err(|error| {
        let is_result = matches!(error, llamita_convert::Error::Write(_));
        Error::failure(error.at(if is_result { output.path() } else { &options.input }))
    })
}

/// Writes the files that belong to the weights.
fn write_others(kind: Kind, plan: &Plan, output: &mut Output, vocabulary: Option<&Vocabulary>) -> Result<()> {
    match kind {
        Kind::Device | Kind::Gguf => Ok(()),
        Kind::Llama2c => match vocabulary.filter(|vocabulary| vocabulary.model == VocabularyModel::Llama) {
            Some(vocabulary) => {
                let bytes = to_llama2c_bin(vocabulary).map_err(Error::failure)?;
                // Tokenizers spell BOS and EOS in more ways than one.
                let again = |bytes: &[u8]| from_llama2c_bin(bytes).ok();
                output.also(files::TOKENIZER_BIN, &bytes, |found| again(found) == again(&bytes))
            }
            None => {
                output::note("note: there is no tokenizer of the SentencePiece kind, so no tokenizer.bin");
                Ok(())
            }
        },
        Kind::Safetensors => {
            let format = plan.tensors().next().map_or(Format::F32, |(_, format)| format);
            let json = hugging_face::config_json(plan.config(), vocabulary, format);
            output.also(files::CONFIG, json.as_bytes(), |found| found == json.as_bytes())?;
            let Some(model) = vocabulary.and_then(hugging_face::tokenizer_model) else {
                output::note("note: there is no tokenizer of the SentencePiece kind, so no tokenizer.model");
                return Ok(());
            };
            output.also(files::TOKENIZER_MODEL, &model, |found| found == model)?;
            let json = vocabulary.map(hugging_face::tokenizer_config_json).unwrap_or_default();
            output.also(files::TOKENIZER_CONFIG, json.as_bytes(), |found| found == json.as_bytes())
        }
    }
}

/// A bar on standard error, if that is a terminal.
fn progress_bar(plan: &Plan) -> Result<ProgressBar> {
    let template = "{wide_bar} {percent} % of the weights, {eta} left";
    let style = ProgressStyle::with_template(template).map_err(Error::failure)?;
    let shapes = plan.tensors().map(|(tensor, _)| Tape::shape(plan.config(), tensor));
    let weights = shapes.map(|(rows, columns)| rows as u64 * columns as u64).sum();
    Ok(ProgressBar::new(weights).with_style(style))
}
