//! `llamita tokenize`: what a model reads of a text.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use llamita_storage::Placement;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::load::{File, LoadedModel};
use crate::options::{self, TokenizerArgument};
use crate::output;
use crate::vocabulary::{self, Vocabulary};

/// Show the tokens of a text
///
/// The ids go to standard output on one line, BOS first.
#[derive(clap::Args)]
#[command(
    override_usage = "llamita tokenize [OPTIONS] MODEL TEXT\n       llamita tokenize [OPTIONS] -m MODEL TEXT"
)]
pub struct Options {
    /// The model file: a llama2.c checkpoint or GGUF; left out where --model names it
    #[arg(value_name = "MODEL")]
    first: Option<OsString>,

    /// The text; - reads it from standard input, without the newline at its end
    #[arg(value_name = "TEXT")]
    second: Option<OsString>,

    /// The model file as an option
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,

    #[command(flatten)]
    tokenizer: TokenizerArgument,

    /// Print a line for each token: its id and its piece as the vocabulary has it
    #[arg(short, long, conflicts_with = "json")]
    verbose: bool,

    /// Print a JSON object with ids and pieces
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    tokens: Vec<u32>,
    pieces: Vec<String>,
}

/// Tokenize the text.
pub fn run(options: &Options) -> Result<()> {
    let (model, text) = match (&options.first, &options.second) {
        (Some(model), Some(text)) => (Some(Path::new(model)), text),
        (Some(text), None) if options.model.is_some() => (None, text),
        _ => return Err(Error::usage("a model and a text are expected, one of them is missing: name both")),
    };
    let path = options::one_model(model, options.model.as_deref())?;
    let text = options::text(text.clone(), "text")?;

    let file = File::open_as_is(path, Placement::Mapped)?;
    let model = LoadedModel::read(&file)?;
    let mut vocabulary = Vocabulary::find(&model, options.tokenizer.path())?;
    let tokenizer = vocabulary.tokenizer()?;
    let tokens = vocabulary::encode(&tokenizer, &text)?;
    let piece = |&token: &u32| String::from_utf8_lossy(tokenizer.piece(token)).into_owned();
    if options.json {
        let pieces = tokens.iter().map(piece).collect();
        return output::json(&Report { tokens, pieces });
    }
    let mut lines = String::new();
    if options.verbose {
        for token in &tokens {
            lines += &format!("{token:>6}  {}\n", output::one_line(&piece(token)));
        }
    } else {
        let ids: Vec<_> = tokens.iter().map(u32::to_string).collect();
        lines = ids.join(" ") + "\n";
    }
    output::print(&lines)
}
