//! `llamita eval`: how well a model predicts a text.

use std::path::PathBuf;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use llamita::{Capacity, Tokenizer};
use llamita_storage::Placement;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::load::{self, EngineError, File, HostEngine, LoadedModel};
use crate::options::{self, CacheArgument, ModelArgument, ThreadsArgument, TokenizerArgument, positive};
use crate::output::{self, list};
use crate::units::{grouped, rate, rate_text};
use crate::vocabulary::{self, Vocabulary};

/// Measure how well a model predicts a text
///
/// The text is split into stories at <|endoftext|>. Each is stripped of white space around it, encoded with
/// BOS first and cut to the context; the probability of every token after BOS counts.
#[derive(clap::Args)]
#[command(override_usage = "llamita eval [OPTIONS] --text FILE MODEL")]
pub struct Options {
    #[command(flatten)]
    model: ModelArgument,

    /// The text, UTF-8, stories separated by <|endoftext|>
    #[arg(long, value_name = "FILE")]
    text: PathBuf,

    #[command(flatten)]
    tokenizer: TokenizerArgument,

    /// Only the first N stories
    #[arg(long, value_name = "N", value_parser = positive)]
    limit: Option<usize>,

    /// Cut stories to this many tokens, BOS included [default: the model's context]
    #[arg(long, value_name = "N", value_parser = positive)]
    context: Option<usize>,

    #[command(flatten)]
    cache: CacheArgument,

    #[command(flatten)]
    threads: ThreadsArgument,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const SEPARATOR: &str = "<|endoftext|>";

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
    let file = File::open(options.model.path()?, Placement::Auto)?;
    let model = LoadedModel::read(&file)?;
    let mut vocabulary = Vocabulary::find(&model, options.tokenizer.path())?;
    let tokenizer = vocabulary.tokenizer()?;
    // A copy, since it has to stay the UTF-8 that it is found to be, and texts are edited.
    let text = File::open(&options.text, Placement::HugePages)?;
    let text = options::utf8(text.content.bytes(), &text.path.display().to_string())?;

    let limit = load::context(model.config(), options.context, model.config().seq_len)?;
    if limit < 2 {
        return Err(match options.context {
            Some(_) => Error::usage("--context is 1, expected 2 or more: BOS alone predicts nothing"),
            None => Error::file(
                &file.path,
                "the model's context is 1 token, expected 2 or more: BOS alone predicts nothing, use another \
                 model",
            ),
        });
    }
    let mut stories = encode(&tokenizer, text, options.limit.unwrap_or(usize::MAX))?;
    if stories.is_empty() {
        let message = "it has no story, expected text: name a file with some";
        return Err(Error::file(&options.text, message));
    }
    let cut = stories.iter().filter(|story| story.len() > limit).count();
    stories.iter_mut().for_each(|story| story.truncate(limit));
    let pairs = stories.iter().flat_map(|story| story.windows(2));
    let bytes = pairs.flat_map(|pair| tokenizer.decode(pair[0], pair[1])).flatten().count();
    if bytes == 0 {
        let message = format!(
            "its stories, cut to {limit} tokens, have no bytes to predict, expected 1 or more: use a longer \
             --context or another text"
        );
        return Err(Error::file(&options.text, message));
    }

    // No story needs a longer cache than this.
    let context = stories.iter().map(Vec::len).max().unwrap_or(limit);
    let (batch, cache) = (load::MAX_BATCH, options.cache.format());
    let capacity = Capacity { context, batch, logits: batch, cache };
    let mut memory = load::memory(model.config(), capacity)?;
    let threads = options.threads.count(model.bytes_per_token()?);
    let mut engine = model.engine(capacity, &mut memory, threads)?;

    let (start, progress) = (Instant::now(), progress_bar(stories.len())?);
    let (mut nll, mut tokens) = (0.0, 0);
    for story in &stories {
        nll += story_nll(&mut engine, story).map_err(|error| Error::file(&file.path, error))?;
        tokens += story.len() - 1;
        let speed = rate_text(rate(tokens, start.elapsed().as_secs_f64()), "tok/s");
        progress.set_message(format!("{:.4} nats/token, {speed}", nll / tokens as f64));
        progress.inc(1);
    }
    progress.finish_and_clear();
    if !nll.is_finite() {
        let message = "the logits are not finite: the file is damaged, copy or download it again";
        return Err(Error::file(&file.path, message));
    }

    let seconds = start.elapsed().as_secs_f64();
    let nll_per_token = nll / tokens as f64;
    let report = Report {
        nll_per_token,
        perplexity: nll_per_token.exp(),
        bits_per_byte: nll / std::f64::consts::LN_2 / bytes as f64,
        tokens,
        bytes,
        stories: stories.len(),
        cut,
        context: limit,
        seconds,
        tok_per_s: rate(tokens, seconds),
    };
    if options.json { output::json(&report) } else { output::print(&report.text()) }
}

/// The first stories of a text, as tokens; those that are empty do not count.
fn encode(tokenizer: &Tokenizer<'_>, text: &str, limit: usize) -> Result<Vec<Vec<u32>>> {
    let stories = text.split(SEPARATOR).map(str::trim).filter(|story| !story.is_empty());
    stories.take(limit).map(|story| vocabulary::encode(tokenizer, story)).collect()
}

/// The negative logarithm of the probability of all tokens but the first, in nats.
fn story_nll(engine: &mut HostEngine<'_>, story: &[u32]) -> std::result::Result<f64, EngineError> {
    let (given, predicted) = (&story[..story.len() - 1], &story[1..]);
    let vocab_size = engine.config().vocab_size;
    let (mut nll, mut position) = (0.0, 0);
    for (given, predicted) in given.chunks(load::MAX_BATCH).zip(predicted.chunks(load::MAX_BATCH)) {
        let logits = engine.forward(given, position, given.len())?;
        for (logits, &token) in logits.chunks_exact(vocab_size).zip(predicted) {
            nll += log_sum_exp(logits) - f64::from(logits[token as usize]);
        }
        position += given.len();
    }
    Ok(nll)
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    max + sum.ln()
}

/// A bar on standard error, if that is a terminal.
fn progress_bar(stories: usize) -> Result<ProgressBar> {
    let template = "{wide_bar} {pos}/{len} stories, {msg}, {eta} left";
    let style = ProgressStyle::with_template(template).map_err(Error::failure)?;
    Ok(ProgressBar::new(stories as u64).with_style(style))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sum_exp_stands_large_logits() {
        assert!((log_sum_exp(&[0.0, 0.0]) - std::f64::consts::LN_2).abs() < 1e-15);
        assert!((log_sum_exp(&[1e4, 1e4, -1e4]) - 1e4 - std::f64::consts::LN_2).abs() < 1e-10);
        assert!(log_sum_exp(&[f32::NAN, 1.0]).is_nan());
    }
}
