//! `llamita run`: a model tells a story.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use llamita::{Config, Generation, Resident, Sampler, Settings, Stop, Tokenizer, state_len};
use llamita_kernels::Threads;
use llamita_storage::Placement;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::load::{self, File, LoadedModel};
use crate::options::{self, CacheArgument, ThreadsArgument, TokenizerArgument, positive};
use crate::output;
use crate::units::{bytes, counted, digits, rate, rate_text};
use crate::vocabulary::{self, Text, Vocabulary};

/// Continue a text, or tell a new one
///
/// The text goes to standard output as it is made, with the prompt before it; a line of statistics goes to
/// standard error.
#[derive(clap::Args)]
pub struct Options {
    /// The text to continue; - reads it from standard input, without the newline at its end
    ///
    /// Without a prompt the model begins by itself.
    prompt: Option<OsString>,

    /// The model file, a llama2.c checkpoint or GGUF, or the name of a model that `llamita models` lists
    /// [default: tiny]
    #[arg(short, long, value_name = "PATH")]
    model: Option<PathBuf>,

    #[command(flatten)]
    tokenizer: TokenizerArgument,

    /// How many new tokens to make at most
    #[arg(short = 'n', long, value_name = "N", value_parser = positive, conflicts_with = "steps")]
    max_tokens: Option<usize>,

    /// How many tokens the text may have, the prompt's included: what -n means to llama2.c
    /// [default: 256, or 128 more than the prompt has where that is more]
    ///
    /// The text never grows beyond the context.
    #[arg(long, value_name = "N", value_parser = positive)]
    steps: Option<usize>,

    /// Longest text to make room for, in tokens [default: the model's context, of long ones 2048]
    #[arg(long, value_name = "N", value_parser = positive)]
    context: Option<usize>,

    #[command(flatten)]
    cache: CacheArgument,

    #[command(flatten)]
    threads: ThreadsArgument,

    /// Print one JSON object at the end, instead of the text as it is made
    #[arg(long)]
    json: bool,

    /// Print no statistics
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    sampling: Sampling,
}

/// How tokens are chosen.
#[derive(clap::Args)]
#[command(next_help_heading = "Sampling")]
struct Sampling {
    /// Divides the logits: 0 takes the likeliest token always, 1 keeps the model's probabilities
    #[arg(short, long, value_name = "T", default_value_t = 1.0, allow_negative_numbers = true)]
    temperature: f32,

    /// Choose among the likeliest tokens that make up this probability, 0 to 1; 0 and 1 keep all
    #[arg(short = 'p', long, value_name = "P", default_value_t = 0.9, allow_negative_numbers = true)]
    top_p: f32,

    /// Choose among this many of the likeliest tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,

    /// Choose among tokens at least this likely, relative to the likeliest, 0 to 1; 0 keeps all
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,

    /// Make each of the last 64 tokens less likely by this factor, above 0; 1 changes nothing
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, allow_negative_numbers = true)]
    repeat_penalty: f32,

    /// Start of the random numbers, 1 or more: the same seed tells the same story [default: the time]
    #[arg(short, long, value_name = "SEED", value_parser = clap::value_parser!(u64).range(1..))]
    seed: Option<u64>,
}

impl Sampling {
    fn settings(&self) -> Settings {
        let &Self { temperature, top_k, top_p, min_p, repeat_penalty, .. } = self;
        Settings { temperature, top_k, top_p, min_p, repeat_penalty }
    }
}

/// Tell the story.
pub fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let seed = options.sampling.seed.unwrap_or_else(seed_of_the_time);
    let mut sampler = Sampler::new(options.sampling.settings(), seed)
        .map_err(|error| Error::usage(format_args!("--{error}")))?;
    let path = options::one_model(None, options.model.as_deref())?;
    let prompt = options::text(options.prompt.clone().unwrap_or_default(), "prompt")?;

    let file = File::open_model(path, Placement::Auto)?;
    let model = LoadedModel::read(&file)?;
    let mut vocabulary = Vocabulary::find(&model, options.tokenizer.path())?;
    let tokenizer_bytes = vocabulary.index_bytes();
    let tokenizer = vocabulary.tokenizer()?;
    let mut tokens = vocabulary::encode(&tokenizer, &prompt)?;
    let prompt_tokens = tokens.len();
    let (context, room) = plan(options, model.config(), prompt_tokens)?;
    // Every token is of the prompt or made; none is asked for before it is.
    tokens.resize(room, 0);

    let capacity = load::capacity(model.config(), context, file.len(), options.cache.format())?;
    let mut memory = load::memory(model.config(), capacity)?;
    let threads = options.threads.count(model.bytes_per_token()?);
    let mut engine = model.engine(capacity, &mut memory, threads)?;
    let ends = [tokenizer.bos(), tokenizer.eos()];
    let generation = Generation::new(&mut engine, &mut sampler, &mut tokens, prompt_tokens, ends);
    let generation = generation.map_err(|error| Error::file(path, error))?;
    let story = tell(options, path, &tokenizer, generation, start)?;

    let stats = Stats {
        state_bytes: 4 * state_len(model.config(), capacity)? as u64,
        tokenizer_bytes,
        weights_bytes: file.len(),
        context,
        batch: capacity.batch,
        threads: engine.team().members(),
        kernels: engine.kernels().name(),
        ..story.stats
    };
    if options.json {
        output::json(&Report {
            prompt,
            text: story.text,
            tokens: story.tokens,
            seed,
            stop: story.stop,
            stats,
        })?;
    }
    if !options.quiet {
        output::note(&stats.line(seed));
    }
    Ok(())
}

/// How many tokens a text may have, after BOS, for a prompt of so many, BOS included: as llama2.c has it, but
/// a long prompt asks for its continuation all the same.
fn default_steps(prompt_tokens: usize) -> usize {
    (prompt_tokens - 1).saturating_add(128).max(256)
}

/// The context, and the room for tokens, BOS included.
fn plan(options: &Options, config: &Config, prompt_tokens: usize) -> Result<(usize, usize)> {
    let steps = options.steps.unwrap_or(default_steps(prompt_tokens));
    let tokens = match options.max_tokens {
        Some(new) => prompt_tokens.saturating_add(new),
        None => steps.saturating_add(1),
    };
    // The last token is not computed any further.
    let context = load::context(config, options.context, prompt_tokens.max(tokens - 1))?;
    if prompt_tokens > context {
        let longer = if context < config.seq_len { " or raise --context" } else { "" };
        return Err(Error::failure(format_args!(
            "the prompt has {prompt_tokens} tokens, the context room for {context}: \
             shorten the prompt{longer}"
        )));
    }
    if prompt_tokens > tokens {
        let found = prompt_tokens - 1;
        return Err(Error::failure(format_args!(
            "the prompt has {found} tokens, the whole text may have {steps}: \
             raise --steps, or use --max-tokens"
        )));
    }
    if options.context.is_none() && context < config.seq_len && !options.quiet {
        let whole = config.seq_len;
        output::note(&format!("note: a context of {context} tokens is used, of {whole} (see --context)"));
    }
    // With room for one token more than the context allows, generation ends for the right reason.
    Ok((context, tokens.min(context.saturating_add(2))))
}

/// What was told.
struct Story {
    text: String,
    tokens: Vec<u32>,
    stop: &'static str,
    stats: Stats,
}

/// Generates and prints, from a text that is the prompt so far; `path` is that of the model.
fn tell(
    options: &Options,
    path: &Path,
    tokenizer: &Tokenizer<'_>,
    mut generation: Generation<'_, '_, Resident<'_>, Threads>,
    start: Instant,
) -> Result<Story> {
    let print = |text: &str| if options.json { Ok(()) } else { output::print(text) };
    let prompt = generation.tokens();
    // BOS is before every text, whether it is encoded or not, and has no text itself.
    let (mut text, mut last, prompt_tokens) = (Text::default(), tokenizer.bos(), prompt.len());
    for &token in prompt {
        text.push(tokenizer, last, token);
        last = token;
    }
    print(text.as_str())?;
    let begin = Instant::now();
    let (mut prefill, mut first_token) = (None, None);
    let outcome = loop {
        let next = generation.next();
        prefill.get_or_insert_with(|| begin.elapsed());
        match next {
            Ok(Some(token)) => {
                print(text.push(tokenizer, last, token))?;
                first_token.get_or_insert_with(|| start.elapsed());
                last = token;
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let all = begin.elapsed();
    print(text.finish())?;
    print("\n")?;
    outcome.map_err(|error| Error::file(path, error))?;

    let new_tokens = generation.tokens().len() - prompt_tokens;
    // A pass for each new token but the first, which is the prompt's, and one that found the end.
    let ended = generation.stop() == Some(Stop::EndOfText);
    let passes = (new_tokens + usize::from(ended)).saturating_sub(1);
    let prefill = prefill.unwrap_or_default();
    let stats = Stats {
        prompt_tokens,
        new_tokens,
        prefill_tokens_per_second: rate(prompt_tokens, prefill.as_secs_f64()),
        decode_tokens_per_second: rate(passes, (all - prefill).as_secs_f64()),
        seconds_to_first_token: first_token.map(|time| time.as_secs_f64()),
        ..Stats::default()
    };
    let stop = match generation.stop() {
        Some(Stop::EndOfText) => "end_of_text",
        Some(Stop::Context) => "context",
        Some(Stop::Length) | None => "length",
    };
    Ok(Story { tokens: generation.tokens().to_vec(), text: text.into_string(), stop, stats })
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    prompt: String,
    /// The prompt and its continuation.
    text: String,
    /// BOS, the prompt and the new tokens.
    tokens: Vec<u32>,
    seed: u64,
    stop: &'static str,
    stats: Stats,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Stats {
    /// BOS included.
    prompt_tokens: usize,
    new_tokens: usize,
    prefill_tokens_per_second: Option<f64>,
    decode_tokens_per_second: Option<f64>,
    /// From the start of the command.
    seconds_to_first_token: Option<f64>,
    state_bytes: u64,
    /// Of the tokenizer's index.
    tokenizer_bytes: u64,
    weights_bytes: u64,
    context: usize,
    batch: usize,
    threads: usize,
    kernels: &'static str,
}

impl Stats {
    fn line(&self, seed: u64) -> String {
        let first = self.seconds_to_first_token.map(|time| format!("{} ms", digits(time * 1e3)));
        format!(
            "prefill {} ({}), decode {} ({}), first token after {}, memory {} (state {}, tokenizer {}, \
             weights {}), seed {seed}, {}, {}",
            rate_text(self.prefill_tokens_per_second, "tok/s"),
            counted(self.prompt_tokens, "token"),
            rate_text(self.decode_tokens_per_second, "tok/s"),
            counted(self.new_tokens, "token"),
            first.as_deref().unwrap_or("-"),
            bytes(self.state_bytes + self.tokenizer_bytes + self.weights_bytes),
            bytes(self.state_bytes),
            bytes(self.tokenizer_bytes),
            bytes(self.weights_bytes),
            counted(self.threads, "thread"),
            self.kernels,
        )
    }
}

/// A seed that differs from run to run and is short enough to type.
fn seed_of_the_time() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Fibonacci hashing brings the digits that change to the top (Knuth, volume 3, 6.4).
    let mixed = (time.as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prompt_has_room_for_a_continuation() {
        // BOS is of the prompt's tokens, but not of the steps.
        let cases = [(1, 256), (128, 256), (129, 256), (130, 257), (256, 383), (257, 384), (258, 385)];
        for (prompt_tokens, steps) in cases {
            assert_eq!(default_steps(prompt_tokens), steps, "{prompt_tokens} tokens");
        }
    }
}
