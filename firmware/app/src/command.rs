//! What can be typed.

use core::fmt;
use core::str::FromStr;

use llamita::{CacheFormat, Settings};

use crate::decimal::Decimal;

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Command<'l> {
    /// A story that begins so; with nothing, the model begins by itself.
    Prompt(&'l str),
    Help,
    Models,
    /// A model by its number or name, or the last one again.
    Model(&'l str),
    /// A setting: to be told, or to be changed.
    Set(Setting, &'l str),
    Stats,
    Plan,
    SelfTest,
    Bench,
    /// How fast the kernels multiply.
    #[cfg(feature = "kernels")]
    Kernels,
    Quit,
}

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Temperature,
    TopP,
    TopK,
    Seed,
    Steps,
    Context,
    Cache,
    Json,
}

/// For the help: commands and what they do.
pub(crate) const HELP: [(&str, &str); 16 + cfg!(feature = "kernels") as usize] = [
    ("TEXT", "continue this text; an empty line or /go lets the model begin. Ctrl-C stops it"),
    ("/models", "list the models in flash and on the card"),
    ("/model NAME", "load one of them, by its name or number; without either, the last one again"),
    ("/temp X", "temperature; 0 always takes the likeliest token [0.8]"),
    ("/topp X", "choose among the likeliest tokens that make up this probability [0.9]"),
    ("/topk N", "choose among this many of the likeliest tokens; 0 keeps all [0]"),
    ("/seed N", "start of the random numbers; 0 takes another one each time [0]"),
    ("/steps N", "tokens of the longest text, the prompt included [256]"),
    ("/context N", "tokens to make room for, and load the model anew [256]"),
    ("/kv q8|f32", "how keys and values are kept, and load the model anew [q8]"),
    ("/stats", "tell the statistics of the last text again"),
    ("/plan", "tell where the model is"),
    ("/selftest", "compare the arithmetic with its reference; takes 14 KB of stack more"),
    ("/bench", "make 32 tokens without telling them, for the statistics"),
    #[cfg(feature = "kernels")]
    ("/kernels", "time the products of each format on one core, and load the model anew"),
    ("/json on|off", "tell everything as JSON, an object a line"),
    ("/quit", "end the program, where it can end"),
];

/// A line that asks for nothing that there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Refused<'l> {
    /// No such command.
    Unknown(&'l str),
    /// A value that a command does not take: the command, what it takes, what was found.
    Value(&'static str, &'static str, &'l str),
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "there is no command {name}: /help lists those that there are"),
            Self::Value(name, expected, found) => write!(f, "{name} takes {expected}, found \"{found}\""),
        }
    }
}

/// Reads a line.
pub(crate) fn parse(line: &str) -> Result<Command<'_>, Refused<'_>> {
    if !line.starts_with('/') {
        return Ok(Command::Prompt(line));
    }
    let line = line.trim_end();
    let (name, value) = line.split_once(' ').unwrap_or((line, ""));
    let value = value.trim();
    Ok(match name {
        "/go" => Command::Prompt(""),
        "/help" => Command::Help,
        "/models" => Command::Models,
        "/model" => Command::Model(value),
        "/temp" => Command::Set(Setting::Temperature, value),
        "/topp" => Command::Set(Setting::TopP, value),
        "/topk" => Command::Set(Setting::TopK, value),
        "/seed" => Command::Set(Setting::Seed, value),
        "/steps" => Command::Set(Setting::Steps, value),
        "/context" => Command::Set(Setting::Context, value),
        "/kv" => Command::Set(Setting::Cache, value),
        "/json" => Command::Set(Setting::Json, value),
        "/stats" => Command::Stats,
        "/plan" => Command::Plan,
        "/selftest" => Command::SelfTest,
        "/bench" => Command::Bench,
        #[cfg(feature = "kernels")]
        "/kernels" => Command::Kernels,
        "/quit" => Command::Quit,
        _ => return Err(Refused::Unknown(name)),
    })
}

/// What was set.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub temperature: Decimal,
    pub top_p: Decimal,
    pub top_k: usize,
    /// `None` takes another seed each time.
    pub seed: Option<u64>,
    pub steps: usize,
    pub context: usize,
    pub cache: CacheFormat,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            temperature: Decimal::from_tenths(8),
            top_p: Decimal::from_tenths(9),
            top_k: 0,
            seed: None,
            steps: 256,
            context: 256,
            cache: CacheFormat::Q8,
        }
    }
}

impl Options {
    /// How tokens are chosen.
    pub fn sampling(&self) -> Settings {
        let (temperature, top_p) = (self.temperature.to_f32(), self.top_p.to_f32());
        Settings { temperature, top_p, top_k: self.top_k, ..Settings::default() }
    }

    /// Changes a setting.
    pub fn set<'l>(&mut self, setting: Setting, value: &'l str) -> Result<(), Refused<'l>> {
        let mut new = *self;
        match setting {
            Setting::Temperature => {
                new.temperature = number("/temp", "0, or 0.001 to 1000", value)?;
                valid(&new, "/temp", "0, or 0.001 to 1000", value)?;
            }
            Setting::TopP => {
                new.top_p = number("/topp", "0 to 1", value)?;
                valid(&new, "/topp", "0 to 1", value)?;
            }
            Setting::TopK => new.top_k = number("/topk", "a whole number", value)?,
            Setting::Seed => {
                new.seed = Some(number("/seed", "a whole number", value)?).filter(|&seed| seed > 0)
            }
            Setting::Steps => new.steps = positive("/steps", value)?,
            Setting::Context => new.context = positive("/context", value)?,
            Setting::Cache => {
                new.cache = match value {
                    "q8" => CacheFormat::Q8,
                    "f32" => CacheFormat::F32,
                    _ => return Err(Refused::Value("/kv", "q8 or f32", value)),
                }
            }
            // The port's.
            Setting::Json => (),
        }
        *self = new;
        Ok(())
    }
}

/// The name of a format of keys and values.
pub(crate) const fn cache_name(cache: CacheFormat) -> &'static str {
    match cache {
        CacheFormat::Q8 => "q8",
        CacheFormat::F32 => "f32",
    }
}

fn number<'l, T: FromStr>(
    name: &'static str,
    expected: &'static str,
    value: &'l str,
) -> Result<T, Refused<'l>> {
    value.parse().map_err(|_| Refused::Value(name, expected, value))
}

fn positive<'l>(name: &'static str, value: &'l str) -> Result<usize, Refused<'l>> {
    let expected = "a whole number, 1 or more";
    Some(number(name, expected, value)?).filter(|&n| n > 0).ok_or(Refused::Value(name, expected, value))
}

fn valid<'l>(
    options: &Options,
    name: &'static str,
    expected: &'static str,
    value: &'l str,
) -> Result<(), Refused<'l>> {
    options.sampling().check().map_err(|_| Refused::Value(name, expected, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_prompts() {
        for (line, command) in [
            ("", Command::Prompt("")),
            ("/go", Command::Prompt("")),
            ("/go ", Command::Prompt("")),
            (" /help me", Command::Prompt(" /help me")),
            ("Once upon a time ", Command::Prompt("Once upon a time ")),
            ("/model", Command::Model("")),
            ("/model  my model.gguf ", Command::Model("my model.gguf")),
            ("/temp 0.5", Command::Set(Setting::Temperature, "0.5")),
            ("/json on", Command::Set(Setting::Json, "on")),
        ] {
            assert_eq!(parse(line), Ok(command), "{line:?}");
        }
        assert_eq!(parse("/nonsense 3"), Err(Refused::Unknown("/nonsense")));
        assert_eq!(parse("/"), Err(Refused::Unknown("/")));
    }

    #[test]
    fn the_help_is_for_commands_that_there_are() {
        for (name, _) in &HELP[1..] {
            assert!(parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn settings_outside_their_range_change_nothing() {
        for (setting, values) in [
            (Setting::Temperature, &["-1", "1e9", "NaN", "inf", "warm", ""][..]),
            (Setting::TopP, &["-0.1", "1.1", "NaN"]),
            (Setting::TopK, &["-1", "1.5", "99999999999999999999999"]),
            (Setting::Seed, &["-1", "x"]),
            (Setting::Steps, &["0", "-3", ""]),
            (Setting::Context, &["0"]),
            (Setting::Cache, &["q4", ""]),
        ] {
            for value in values {
                let mut options = Options::default();
                assert!(options.set(setting, value).is_err(), "{setting:?} {value}");
                let unchanged = Options::default();
                assert!(options.sampling() == unchanged.sampling() && options.seed.is_none());
                assert_eq!((options.steps, options.context), (256, 256));
            }
        }
        let mut options = Options::default();
        for (setting, value) in [
            (Setting::Temperature, "0"),
            (Setting::TopP, "1"),
            (Setting::TopK, "40"),
            (Setting::Seed, "42"),
            (Setting::Cache, "f32"),
        ] {
            options.set(setting, value).unwrap();
        }
        assert_eq!((options.temperature.to_f32(), options.top_k, options.seed), (0.0, 40, Some(42)));
        options.set(Setting::Seed, "0").unwrap();
        assert_eq!(options.seed, None);
    }
}
