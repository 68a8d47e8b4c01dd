//! The command line: what commands have in common, and its errors.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use llamita::CacheFormat;

use crate::builtin;
use crate::error::{Error, Result};
use crate::threads;

/// Reads the command line.
pub fn parse<P: Parser>() -> Result<P> {
    P::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            error.print().map_or_else(Error::output, |()| Error::Quiet(ExitCode::SUCCESS))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Without a reader of standard error there is nobody to help.
            let _ = error.print();
            Error::Quiet(ExitCode::from(2))
        }
        _ => Error::Usage(summary(&error.render().to_string())),
    })
}

/// What a message of several paragraphs says before it repeats how the command is used, as one line.
fn summary(message: &str) -> String {
    let lines = message.strip_prefix("error: ").unwrap_or(message).lines().map(str::trim);
    let lines = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    format!("{} (see --help)", words.join(" "))
}

/// A number of things of which there must be one at least.
pub fn positive(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number, 1 or more".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// As many threads as a team can have.
const MAX_THREADS: usize = 16;

/// A number of threads.
fn thread_count(text: &str) -> std::result::Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MAX_THREADS).contains(count));
    count.ok_or_else(|| format!("expected a whole number, 1 to {MAX_THREADS}"))
}

/// The model, as commands take it that work on nothing else.
#[derive(clap::Args)]
pub struct ModelArgument {
    /// The model file, a llama2.c checkpoint or GGUF, or the name of a model that `llamita models` lists
    /// [default: tiny]
    #[arg(value_name = "MODEL")]
    positional: Option<PathBuf>,

    /// The same as an option
    #[arg(short = 'm', long = "model", value_name = "MODEL")]
    option: Option<PathBuf>,
}

impl ModelArgument {
    /// The one model that was named.
    pub fn path(&self) -> Result<&Path> {
        one_model(self.positional.as_deref(), self.option.as_deref())
    }
}

/// The one model that was named, as an argument or as an option; without any, the first of the program's own.
pub fn one_model<'a>(positional: Option<&'a Path>, option: Option<&'a Path>) -> Result<&'a Path> {
    match (positional, option) {
        (Some(path), None) | (None, Some(path)) => Ok(path),
        (None, None) => Ok(Path::new(builtin::ALL[0].name)),
        (Some(first), Some(second)) => Err(Error::usage(format_args!(
            "two models are named, {} and {}, expected one: name it as an argument or with --model",
            first.display(),
            second.display()
        ))),
    }
}

/// A tokenizer apart from the model.
#[derive(clap::Args)]
pub struct TokenizerArgument {
    /// The tokenizer of a llama2.c checkpoint [default: of tokenizer.bin and tok*.bin beside the model, the
    /// one with as many tokens as the model]
    #[arg(long = "tokenizer", value_name = "PATH")]
    path: Option<PathBuf>,
}

impl TokenizerArgument {
    /// The file, if one was named.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

/// How many threads compute.
#[derive(clap::Args)]
pub struct ThreadsArgument {
    /// Threads to compute with, 1 to 16 [default: 1 for tiny models, else one for each core]
    #[arg(long = "threads", value_name = "N", value_parser = thread_count)]
    count: Option<usize>,
}

impl ThreadsArgument {
    /// As many threads as were asked for, or as suit a model that reads this many bytes per token.
    pub fn count(&self, bytes_per_token: u64) -> usize {
        threads::count(self.count, bytes_per_token)
    }
}

/// How keys and values are kept.
#[derive(clap::Args)]
pub struct CacheArgument {
    /// Keep keys and values as they are, or rounded to eight bits in about a quarter of the memory
    #[arg(long = "kv", value_name = "FORMAT", value_enum, default_value_t = CacheChoice::F32)]
    choice: CacheChoice,
}

/// A format of keys and values.
#[derive(Clone, Copy, Default, clap::ValueEnum)]
pub enum CacheChoice {
    #[default]
    F32,
    Q8,
}

impl CacheChoice {
    /// The format, as the engine calls it.
    pub const fn format(self) -> CacheFormat {
        match self {
            Self::F32 => CacheFormat::F32,
            Self::Q8 => CacheFormat::Q8,
        }
    }

    /// The format, as users call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Q8 => "q8",
        }
    }
}

impl CacheArgument {
    /// The format.
    pub const fn format(&self) -> CacheFormat {
        self.choice.format()
    }
}

/// A text given as an argument; `-` stands for standard input, without the newline at its end.
pub fn text(argument: OsString, what: &str) -> Result<String> {
    if argument != "-" {
        return argument.into_string().map_err(|bytes| {
            let bytes = bytes.as_encoded_bytes();
            Error::usage(not_utf8(&format!("the {what}"), bytes))
        });
    }
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).map_err(|error| {
        Error::failure(format_args!("cannot read the {what} from standard input ({error}): check its source"))
    })?;
    let text = utf8(&bytes, &format!("the {what} on standard input"))?;
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.unwrap_or(text).to_owned())
}

/// Bytes that must be text.
pub fn utf8<'b>(bytes: &'b [u8], what: &str) -> Result<&'b str> {
    str::from_utf8(bytes).map_err(|_| Error::Failure(not_utf8(what, bytes)))
}

fn not_utf8(what: &str, bytes: &[u8]) -> String {
    let at = str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), |text| text.len());
    let byte = bytes.get(at).copied().unwrap_or_default();
    format!("{what} has 0x{byte:02x} at byte {at}, expected UTF-8: convert it, for example with iconv")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_paragraphs_becomes_one_line() {
        let message = "error: unexpected argument '--topp' found\n\n  \
                       tip: a similar argument exists: '--top-p'\n\n\
                       Usage: llamita run [OPTIONS] [PROMPT]\n\nFor more information, try '--help'.\n";
        assert_eq!(
            summary(message),
            "unexpected argument '--topp' found tip: a similar argument exists: '--top-p' (see --help)"
        );
    }

    #[test]
    fn counts_start_at_one() {
        assert_eq!(positive("16"), Ok(16));
        for text in ["0", "-1", "1.5", "", "many", "99999999999999999999999"] {
            assert!(positive(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_team_has_room_for_every_thread_that_can_be_asked_for() {
        assert_eq!(thread_count("1"), Ok(1));
        assert_eq!(thread_count("16"), Ok(MAX_THREADS));
        assert_eq!(llamita_kernels::Threads::new(MAX_THREADS).unwrap().members(), MAX_THREADS);
        assert_eq!(llamita_kernels::Threads::new(MAX_THREADS + 1).unwrap().members(), MAX_THREADS);
        for text in ["0", "17", "-1", "1.5", "", "many", "99999999999999999999999"] {
            assert!(thread_count(text).unwrap_err().contains("1 to 16"), "{text}");
        }
    }

    #[test]
    fn the_first_byte_that_is_no_text_is_named() {
        let message = not_utf8("the prompt", b"abc\xff");
        assert!(message.starts_with("the prompt has 0xff at byte 3, expected UTF-8"), "{message}");
    }
}
