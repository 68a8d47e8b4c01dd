//! `llamita run`: a model tells a story.

mod draft;
mod placed;
mod profile;
mod tell;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use llamita::{Config, Draft, Sampler, Settings, Tokenizer, state_len};
use llamita_kernels::Threads;
use llamita_storage::Placement;

use crate::clock;
use crate::error::{Error, Result};
use crate::load::{self, File, LoadedModel};
use crate::options::{self, CacheArgument, ThreadsArgument, TokenizerArgument, positive};
use crate::output;
use crate::plot;
use crate::vocabulary::{self, Vocabulary};

use draft::Drafting;
use placed::Places;
use tell::{Report, Stats};

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

    #[command(flatten)]
    places: Places,

    #[command(flatten)]
    drafting: Drafting,

    /// Measure where the time goes, and say it in a line at the end
    #[arg(long)]
    profile: bool,

    /// Measure it, and draw it as bars to this file, in SVG
    #[arg(long, value_name = "FILE.svg")]
    profile_plot: Option<PathBuf>,

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
    let sampler = Sampler::new(options.sampling.settings(), seed)
        .map_err(|error| Error::usage(format_args!("--{error}")))?;
    options.places.check()?;
    let path = options::one_model(None, options.model.as_deref())?;
    let prompt = options::text(options.prompt.clone().unwrap_or_default(), "prompt")?;
    if let Some(plot) = &options.profile_plot {
        plot::check(plot, &[path])?;
    }
    let job = Job { options, path, prompt, seed, sampler, start };
    if options.places.asked() { placed::run(&job) } else { resident(&job) }
}

/// What was asked for.
struct Job<'o> {
    options: &'o Options,
    path: &'o Path,
    prompt: String,
    seed: u64,
    sampler: Sampler,
    start: Instant,
}

/// A text that is to be continued.
struct Text<'t> {
    tokenizer: Tokenizer<'t>,
    /// The prompt, and room for what comes.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    context: usize,
}

impl Job<'_> {
    /// The prompt as tokens, and how long the text may become.
    fn text<'t>(&self, model: &LoadedModel<'_>, vocabulary: &'t mut Vocabulary<'_>) -> Result<Text<'t>> {
        let tokenizer = vocabulary.tokenizer()?;
        let mut tokens = vocabulary::encode(&tokenizer, &self.prompt)?;
        let prompt_tokens = tokens.len();
        let (context, room) = plan(self.options, model.config(), prompt_tokens)?;
        // Every token is of the prompt or made; none is asked for before it is.
        tokens.resize(room, 0);
        Ok(Text { tokenizer, tokens, prompt_tokens, context })
    }

    /// A team for a model that reads so many bytes per token.
    fn team(&self, bytes_per_token: u64) -> Result<Threads> {
        let threads = self.options.threads.count(bytes_per_token);
        Threads::new(threads).map_err(|error| {
            Error::failure(format_args!("cannot start {threads} threads ({error}): use fewer with --threads"))
        })
    }

    /// Seconds since the start of the command, or of the board that is imitated, which has loaded its weights by then.
    fn since_start(&self, now: fn() -> u64) -> f64 {
        if self.options.places.imitates() { now() as f64 / 1e9 } else { self.start.elapsed().as_secs_f64() }
    }

    /// Whether the time is to be divided up.
    fn profiles(&self) -> bool {
        self.options.profile || self.options.profile_plot.is_some()
    }

    /// Says what was told and how: as JSON, as lines, as a picture.
    fn report(&self, story: tell::Story, stats: Stats) -> Result<()> {
        let Self { options, seed, .. } = *self;
        if let (Some(plot), Some(profile)) = (&options.profile_plot, &stats.profile) {
            profile.save(plot, &format!("{}: where the time goes", self.path.display()))?;
        }
        let lines = stats.lines(seed);
        if options.json {
            let (prompt, text) = (self.prompt.clone(), story.text);
            output::json(&Report { prompt, text, tokens: story.tokens, seed, stop: story.stop, stats })?;
        }
        if !options.quiet {
            lines.iter().for_each(|line| output::note(line));
        }
        Ok(())
    }
}

/// Tells a story with all weights in memory.
fn resident(job: &Job<'_>) -> Result<()> {
    let file = File::open_model(job.path, Placement::Auto)?;
    let model = LoadedModel::read(&file)?;
    let mut vocabulary = Vocabulary::find(&model, job.options.tokenizer.path())?;
    let tokenizer_bytes = vocabulary.index_bytes();
    let text = job.text(&model, &mut vocabulary)?;

    let cache = job.options.cache.format();
    let capacity = load::capacity(model.config(), text.context, file.len(), cache)?;
    let capacity = job.options.drafting.capacity(capacity);
    let mut memory = load::memory(model.config(), capacity)?;
    let team = job.team(model.bytes_per_token()?)?;
    let mut engine = model.engine_with(model.weights()?, capacity, &mut memory, team)?;

    let draft_file = job.options.drafting.open()?;
    let mut room = job.options.drafting.room(draft_file.as_ref(), &model, text.context)?;
    let mut draft = room.as_mut().map(|room| room.draft(model.config(), |weights, _| weights)).transpose()?;
    let draft = draft.as_mut().map(|draft| &mut **draft as &mut dyn Draft);
    if job.profiles() {
        engine.profile = llamita::Profile::with_clock(clock::nanoseconds);
    }
    let weights_bytes = file.len();
    let story = tell::tell(job, text, &mut engine, draft, clock::nanoseconds)?;
    let profile = job.profiles().then(|| profile::Profile::new(&engine.profile.ticks(), story.nanoseconds));
    let stats = Stats {
        state_bytes: 4 * state_len(model.config(), capacity)? as u64,
        tokenizer_bytes,
        weights_bytes,
        profile,
        ..story.stats.clone()
    };
    job.report(story, stats)
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
    let needed = prompt_tokens.max(tokens - 1);
    // Where memory is counted, there is room for this text and no more.
    let asked = options.context.or_else(|| options.places.asked().then(|| needed.min(config.seq_len)));
    let context = load::context(config, asked, needed)?;
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
    if asked.is_none() && context < config.seq_len && !options.quiet {
        let whole = config.seq_len;
        output::note(&format!("note: a context of {context} tokens is used, of {whole} (see --context)"));
    }
    // With room for one token more than the context allows, generation ends for the right reason.
    Ok((context, tokens.min(context.saturating_add(2))))
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
