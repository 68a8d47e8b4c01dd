//! `llamita eval`: how well a model predicts a text.

use std::time::Instant;

use llamita::Capacity;
use llamita_storage::Placement;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::load::{self, File, LoadedModel};
use crate::options::{CacheArgument, ModelArgument, ThreadsArgument, TokenizerArgument};
use crate::output::{self, list};
use crate::stories::{self, Stories, StoriesArguments};
use crate::units::{grouped, rate, rate_text};
use crate::vocabulary::Vocabulary;

/// Measure how well a model predicts a text
///
/// The text is split into stories at <|endoftext|>. Each is stripped of white space around it, encoded with
/// BOS first and cut to the context; the probability of every token after BOS counts.
#[derive(clap::Args)]
#[command(override_usage = "llamita eval [OPTIONS] --text FILE MODEL")]
pub struct Options {
    #[command(flatten)]
    model: ModelArgument,

    #[command(flatten)]
    stories: StoriesArguments,

    #[command(flatten)]
    tokenizer: TokenizerArgument,

    #[command(flatten)]
    cache: CacheArgument,

    #[command(flatten)]
    threads: ThreadsArgument,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Serialize)]
struct Report {
    /// Nats.
    nll_per_token: f64,
    perplexity: f64,
    bits_per_byte: f64,
    /// Predicted tokens: BOS is given.
    tokens: usize,
    /// Of the text of the predicted tokens.
    bytes: usize,
    stories: usize,
    /// Stories that were longer than the context.
    cut: usize,
    context: usize,
    seconds: f64,
    tok_per_s: Option<f64>,
}

/// Evaluate the model.
pub fn run(options: &Options) -> Result<()> {
    let file = File::open_model(options.model.path()?, Placement::Auto)?;
    let model = LoadedModel::read(&file)?;
    let mut vocabulary = Vocabulary::find(&model, options.tokenizer.path())?;
    let tokenizer = vocabulary.tokenizer()?;
    let text = options.stories.open()?;
    let split = options.stories.split(&text)?;
    let limit = options.stories.context(&model)?;
    let stories = Stories::encode(&tokenizer, &split, limit)?;
    let bytes = stories.bytes(&tokenizer);
    options.stories.check_bytes(bytes, limit)?;

    let (batch, cache) = (load::MAX_BATCH, options.cache.format());
    let capacity = Capacity { context: stories.longest(), batch, logits: batch, cache };
    let mut memory = load::memory(model.config(), capacity)?;
    let threads = options.threads.count(model.bytes_per_token()?);
    let mut engine = model.engine(capacity, &mut memory, threads)?;

    let (start, progress) = (Instant::now(), stories::progress_bar(stories.tokens.len())?);
    let (mut nll, mut tokens) = (0.0, 0);
    for story in &stories.tokens {
        nll += stories::story_nll(&mut engine, story).map_err(|error| Error::file(&file.path, error))?;
        tokens += story.len() - 1;
        let speed = rate_text(rate(tokens, start.elapsed().as_secs_f64()), "tok/s");
        progress.set_message(format!("{:.4} nats/token, {speed}", nll / tokens as f64));
        progress.inc(1);
    }
    progress.finish_and_clear();
    stories::check_finite(nll, &file)?;

    let seconds = start.elapsed().as_secs_f64();
    let nll_per_token = nll / tokens as f64;
    let report = Report {
        nll_per_token,
        perplexity: nll_per_token.exp(),
        bits_per_byte: stories::bits_per_byte(nll, bytes),
        tokens,
        bytes,
        stories: stories.tokens.len(),
        cut: stories.cut,
        context: limit,
        seconds,
        tok_per_s: rate(tokens, seconds),
    };
    if options.json { output::json(&report) } else { output::print(&report.text()) }
}

impl Report {
    fn text(&self) -> String {
        let cut = if self.cut == 0 { "none".to_owned() } else { self.cut.to_string() };
        list(&[
            ("nats per token", format!("{:.5}", self.nll_per_token)),
            ("perplexity", format!("{:.4}", self.perplexity)),
            ("bits per byte", format!("{:.5}", self.bits_per_byte)),
            ("tokens", grouped(self.tokens as u64)),
            ("bytes", grouped(self.bytes as u64)),
            ("stories", format!("{}, {cut} cut to {} tokens", self.stories, self.context)),
            ("time", format!("{:.2} s, {}", self.seconds, rate_text(self.tok_per_s, "tok/s"))),
        ])
    }
}
