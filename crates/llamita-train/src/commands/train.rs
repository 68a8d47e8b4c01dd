//! `llamita-train`: trains a model.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use llamita_convert::{Vocabulary, stories, vocabulary};

use crate::checkpoint::Checkpoint;
use crate::model::Model;
use crate::network;
use crate::report::Report;
use crate::settings::Settings;
use crate::stories::Stories;
use crate::tokenizer;
use crate::trainer::{Files, Material, Trainer};

/// A number of threads.
pub fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let count = text.parse().ok().filter(|count| (1..=256).contains(count)).and_then(NonZeroUsize::new);
    count.ok_or_else(|| "expected a whole number, 1 to 256".to_owned())
}

/// Trains a model on texts.
#[derive(clap::Args)]
pub struct Options {
    /// Texts to train on, UTF-8, stories separated by <|endoftext|>
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    text: Vec<PathBuf>,

    /// Texts that are read as well until the last part of the training, such as those that `llamita-train corpus`
    /// writes
    #[arg(long, value_name = "FILE", num_args = 1..)]
    extra: Vec<PathBuf>,

    /// The text to validate with [default: every 100th story of --text, which is not trained on]
    #[arg(long, value_name = "FILE")]
    validation: Option<PathBuf>,

    /// Shape and training of the model, TOML [default: one million weights, ten thousand steps]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The folder of the model, its checkpoint, its log and its plot; training that was stopped goes on from there
    #[arg(short, long, value_name = "FOLDER", required = true)]
    output: PathBuf,

    /// A GGUF model whose tokens are used, or a tokenizer.model, .json or .bin [default: those of --teacher or
    /// --init, or learned from --text]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    /// A model with the same tokens whose predictions are learned as well
    #[arg(long, value_name = "MODEL")]
    teacher: Option<PathBuf>,

    /// A model of the same shape and tokens to begin with
    #[arg(long, value_name = "MODEL")]
    init: Option<PathBuf>,

    /// Threads, each of which trains with a part of every batch [default: all processors]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<NonZeroUsize>,

    /// Where to compute; a GPU only where this program was built with --features gpu
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
}

/// Where to compute.
#[derive(Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum DeviceName {
    /// The processor.
    #[default]
    Cpu,
    /// A GPU that Vulkan, Metal or DirectX 12 know.
    #[cfg(feature = "gpu")]
    Gpu,
}

impl DeviceName {
    fn device(self) -> Device {
        match self {
            Self::Cpu => Device::flex(),
            #[cfg(feature = "gpu")]
            Self::Gpu => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        }
    }
}

/// Runs the command.
pub fn run(options: &Options) -> Result<()> {
    let mut settings = options.config.as_deref().map_or_else(|| Ok(Settings::default()), Settings::read)?;
    let files = Files { folder: options.output.clone() };
    let checkpoint = Checkpoint::read(&files.checkpoint())?;
    match &checkpoint {
        None => files.check_free()?,
        Some(checkpoint) => {
            let begun = &checkpoint.progress.settings;
            if options.config.is_none() {
                settings = begun.clone();
            }
            ensure!(
                *begun == settings,
                "{}: the training in this folder was begun with other settings: use these, or choose another folder",
                options.output.display()
            );
        }
    }
    // A training that goes on has its tokens in its model.
    let begun = checkpoint.is_some().then(|| Model::open(&files.model())).transpose()?;
    let material = material(options, &settings, begun.map(|model| model.vocabulary))?;
    fs::create_dir_all(&options.output).with_context(|| {
        format!("{}: there can be no such folder, choose another with -o", options.output.display())
    })?;
    let done = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.progress.step);
    let steps = settings.training.steps;
    let threads = match options.device {
        DeviceName::Cpu => options.threads.map_or_else(thread::available_parallelism, Ok)?.get(),
        #[cfg(feature = "gpu")]
        DeviceName::Gpu => 1,
    };
    let predicted = material.validation.tokens() - material.validation.count();
    let bits_per_byte = predicted as f64 / material.validation.bytes as f64 / std::f64::consts::LN_2;
    let summary = format!(
        "{} weights; {} stories of {} tokens, {:.2} bytes each; {} threads",
        network::sizes(&settings.model.config()?).sum::<usize>(),
        material.stories.count(),
        material.stories.tokens(),
        material.stories.bytes as f64 / material.stories.tokens() as f64,
        threads
    );
    let trainer = Trainer::new(settings, material, checkpoint, options.device.device(), threads)?;
    let mut report = Report::begin(&options.output, done, steps, bits_per_byte)?;
    report.say(&summary);
    // The first time it is pressed, Ctrl-C waits for the end of a step; the second time it ends the program.
    static STOP: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    trainer.run(&files, &mut report, &STOP)
}

/// Reads everything that is trained with; `begun` are the tokens of a training that goes on.
fn material(options: &Options, settings: &Settings, begun: Option<Vocabulary>) -> Result<Material> {
    let config = settings.model.config()?;
    let texts = read(&options.text)?;
    let extra = read(&options.extra)?;
    let validation = options.validation.as_ref().map(|path| read(std::slice::from_ref(path))).transpose()?;
    let (texts, validation) = match validation {
        Some(validation) => (texts, validation),
        None => set_aside(&texts)?,
    };
    let open = |path: &Option<PathBuf>| path.as_deref().map(Model::open).transpose();
    let (teacher, first) = (open(&options.teacher)?, open(&options.init)?);
    let tokenizer =
        options.tokenizer.as_deref().map(|path| read_tokenizer(path, config.vocab_size)).transpose()?;
    let given = [
        ("--tokenizer", tokenizer.as_ref()),
        ("--teacher", teacher.as_ref().map(|model| &model.vocabulary)),
        ("--init", first.as_ref().map(|model| &model.vocabulary)),
    ];
    let mut given = given.into_iter().filter_map(|(flag, vocabulary)| Some((flag, vocabulary?))).peekable();
    let vocabulary = match (begun, given.peek()) {
        (Some(vocabulary), _) => vocabulary,
        (None, Some(&(_, vocabulary))) => vocabulary.clone(),
        (None, None) => {
            tokenizer::train(texts.iter().flat_map(|text| stories::split(text)), config.vocab_size)?
        }
    };
    for (flag, other) in given {
        ensure!(
            other.tokens == vocabulary.tokens,
            "{flag} has other tokens than the training: all of --tokenizer, --teacher, --init and what was begun in \
             the folder of -o must have the same"
        );
    }
    ensure!(
        vocabulary.tokens.len() == config.vocab_size,
        "the tokenizer has {} tokens, model.vocab_size is {}: choose one of these",
        vocabulary.tokens.len(),
        config.vocab_size
    );
    if let Some(teacher) = &teacher {
        ensure!(
            teacher.config.seq_len >= config.seq_len,
            "the teacher's context is {} tokens, model.context {}: lower that, or use another teacher",
            teacher.config.seq_len,
            config.seq_len
        );
    }
    if let Some(first) = &first {
        ensure!(
            first.config == config,
            "the model of --init has the shape {:?}, [model] says {config:?}: choose one of these",
            first.config
        );
    }
    Ok(Material {
        stories: Stories::encode(&vocabulary, &texts)?,
        extra: (!extra.is_empty()).then(|| Stories::encode(&vocabulary, &extra)).transpose()?,
        validation: Stories::encode(&vocabulary, &validation)?,
        vocabulary,
        teacher,
        first,
    })
}

fn read(paths: &[PathBuf]) -> Result<Vec<String>> {
    let read = |path: &PathBuf| {
        let at = || {
            format!("{}: it cannot be read as text in UTF-8, check the name or convert it", path.display())
        };
        fs::read_to_string(path).with_context(at)
    };
    paths.iter().map(read).collect()
}

/// The tokens of a model, or of a tokenizer's file.
fn read_tokenizer(path: &Path, vocab_size: usize) -> Result<Vocabulary> {
    if path.extension().is_some_and(|extension| extension == "gguf") {
        return Ok(Model::open(path)?.vocabulary);
    }
    Ok(vocabulary::read_file(path, vocab_size)?)
}

/// Every 100th story, or the last one, for validation.
fn set_aside(texts: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let all: Vec<&str> = texts.iter().flat_map(|text| stories::split(text)).collect();
    ensure!(all.len() > 1, "the texts have {} stories, expected 2 or more, or --validation", all.len());
    let every = all.len().min(100);
    let (aside, others): (Vec<_>, Vec<_>) =
        all.into_iter().enumerate().partition(|(i, _)| (i + 1) % every == 0);
    let joined = |part: Vec<(usize, &str)>| {
        let part: Vec<&str> = part.into_iter().map(|(_, story)| story).collect();
        vec![part.join(stories::SEPARATOR)]
    };
    Ok((joined(others), joined(aside)))
}
