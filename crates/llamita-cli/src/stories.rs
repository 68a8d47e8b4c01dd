//! The protocol by which models are measured on a text: what is split, encoded, cut and predicted.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use llamita::{CacheFormat, Capacity, Tokenizer};
pub use llamita_convert::stories::split;
use llamita_storage::Placement;

use crate::error::{Error, Result};
use crate::load::{self, EngineError, File, HostEngine, LoadedModel};
use crate::options::{self, positive};
use crate::{threads, vocabulary};

/// The text, and how much of it counts.
#[derive(clap::Args)]
pub struct StoriesArguments {
    /// The text, UTF-8, stories separated by <|endoftext|>
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,

    /// Only the first N stories
    #[arg(long, value_name = "N", value_parser = positive)]
    limit: Option<usize>,

    /// Cut stories to this many tokens, BOS included [default: the model's context]
    #[arg(long, value_name = "N", value_parser = positive)]
    context: Option<usize>,
}

impl StoriesArguments {
    /// Opens the text.
    pub fn open(&self) -> Result<File> {
        // A copy, since it has to stay the UTF-8 that it is found to be, and texts are edited.
        File::open(&self.text, Placement::HugePages)
    }

    /// The stories that count, without white space around them; there is one at least.
    pub fn split<'t>(&self, text: &'t File) -> Result<Vec<&'t str>> {
        let all = options::utf8(text.content.bytes(), &text.path.display().to_string())?;
        let limit = self.limit.unwrap_or(usize::MAX);
        let stories: Vec<_> = split(all).take(limit).collect();
        if stories.is_empty() {
            let message = "it has no story, expected text: name a file with some";
            return Err(Error::file(&self.text, message));
        }
        Ok(stories)
    }

    /// The tokens of a story that a model reads at most, BOS included: 2 or more.
    pub fn context(&self, model: &LoadedModel<'_>) -> Result<usize> {
        let limit = load::context(model.config(), self.context, model.config().seq_len)?;
        if limit < 2 {
            return Err(match self.context {
                Some(_) => Error::usage("--context is 1, expected 2 or more: BOS alone predicts nothing"),
                None => Error::file(
                    &model.file.path,
                    "the model's context is 1 token, expected 2 or more: BOS alone predicts nothing, use \
                     another model",
                ),
            });
        }
        Ok(limit)
    }

    /// Refuses stories without a byte to predict, of which no bits per byte can be told.
    pub fn check_bytes(&self, bytes: usize, context: usize) -> Result<()> {
        if bytes > 0 {
            return Ok(());
        }
        let message = format!(
            "its stories, cut to {context} tokens, have no bytes to predict, expected 1 or more: use a \
             longer --context or another text"
        );
        Err(Error::file(&self.text, message))
    }
}

/// Stories as the tokens that a model reads.
pub struct Stories {
    /// The tokens of each, BOS first, no more than the context.
    pub tokens: Vec<Vec<u32>>,
    /// Stories that were longer than the context.
    pub cut: usize,
}

impl Stories {
    /// Encodes stories and cuts them to a context.
    pub fn encode(tokenizer: &Tokenizer<'_>, stories: &[&str], context: usize) -> Result<Self> {
        let encode = |story: &&str| vocabulary::encode(tokenizer, story);
        let mut tokens: Vec<_> = stories.iter().map(encode).collect::<Result<_>>()?;
        let cut = tokens.iter().filter(|story| story.len() > context).count();
        tokens.iter_mut().for_each(|story| story.truncate(context));
        Ok(Self { tokens, cut })
    }

    /// Bytes of the text that is predicted.
    pub fn bytes(&self, tokenizer: &Tokenizer<'_>) -> usize {
        self.tokens.iter().map(|story| bytes(tokenizer, story)).sum()
    }

    /// Tokens that are predicted: all but the first of each story.
    pub fn predicted(&self) -> usize {
        self.tokens.iter().map(|story| story.len().saturating_sub(1)).sum()
    }

    /// The negative logarithm of the probability of all tokens that a model predicts, in nats, computed as fast as
    /// this machine does it.
    pub fn nll(&self, model: &File) -> Result<f64> {
        let loaded = LoadedModel::read(model)?;
        let batch = load::MAX_BATCH;
        let capacity =
            Capacity { context: self.longest().max(1), batch, logits: batch, cache: CacheFormat::F32 };
        let mut memory = load::memory(loaded.config(), capacity)?;
        let threads = threads::count(None, loaded.bytes_per_token()?);
        let mut engine = loaded.engine(capacity, &mut memory, threads)?;
        let progress = progress_bar(self.tokens.len())?;
        let mut nll = 0.0;
        for story in &self.tokens {
            nll += story_nll(&mut engine, story)?;
            progress.inc(1);
        }
        progress.finish_and_clear();
        check_finite(nll, model)?;
        Ok(nll)
    }

    /// The perplexity of a model on them.
    pub fn perplexity(&self, model: &File) -> Result<f64> {
        Ok((self.nll(model)? / self.predicted() as f64).exp())
    }

    /// The longest story, in tokens: no longer cache is needed.
    pub fn longest(&self) -> usize {
        self.tokens.iter().map(Vec::len).max().unwrap_or(0)
    }
}

/// Bytes of the text of all tokens but the first.
pub fn bytes(tokenizer: &Tokenizer<'_>, story: &[u32]) -> usize {
    story.windows(2).flat_map(|pair| tokenizer.decode(pair[0], pair[1])).map(<[u8]>::len).sum()
}

/// The begin of a story that fits the contexts of two models with other tokens: these would end a long story
/// in different places.
pub fn fit<'t>(tokenizers: &[Tokenizer<'_>; 2], mut story: &'t str, limits: [usize; 2]) -> Result<&'t str> {
    loop {
        let mut fits = story.len();
        for (tokenizer, limit) in tokenizers.iter().zip(limits) {
            let tokens = vocabulary::encode(tokenizer, story)?;
            if tokens.len() > limit {
                // What is cut encodes to other tokens at its end, perhaps to more: it is tried again.
                fits = fits.min(bytes(tokenizer, &tokens[..limit])).min(story.len() - 1);
            }
        }
        if fits == story.len() {
            return Ok(story);
        }
        story = &story[..story.floor_char_boundary(fits)];
    }
}

/// Tokens that go through a model at once, and those that it should predict: each follows one given.
pub struct Batch<'s> {
    /// The position of the first given token in the story.
    pub position: usize,
    /// As many as are predicted.
    pub given: &'s [u32],
    /// The tokens of the story after those given.
    pub predicted: &'s [u32],
}

/// A story in batches of up to [`load::MAX_BATCH`] tokens.
pub fn batches(story: &[u32]) -> impl Iterator<Item = Batch<'_>> {
    let predicted = story.get(1..).unwrap_or_default();
    let given = &story[..predicted.len()];
    let pairs = given.chunks(load::MAX_BATCH).zip(predicted.chunks(load::MAX_BATCH));
    pairs.enumerate().map(|(batch, (given, predicted))| Batch {
        position: batch * load::MAX_BATCH,
        given,
        predicted,
    })
}

/// The negative logarithm of the probability of all tokens of a story but the first, in nats.
pub fn story_nll(engine: &mut HostEngine<'_>, story: &[u32]) -> std::result::Result<f64, EngineError> {
    let vocab_size = engine.config().vocab_size;
    let mut sum = 0.0;
    for Batch { position, given, predicted } in batches(story) {
        let logits = engine.forward(given, position, given.len())?;
        for (logits, &token) in logits.chunks_exact(vocab_size).zip(predicted) {
            sum += nll(logits, token);
        }
    }
    Ok(sum)
}

/// The negative logarithm of the probability of a token, in nats.
pub fn nll(logits: &[f32], token: u32) -> f64 {
    log_sum_exp(logits) - f64::from(logits[token as usize])
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = max(logits);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    max + sum.ln()
}

/// The highest logit.
pub fn max(logits: &[f32]) -> f64 {
    f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max))
}

/// Bits per byte of a text that takes this many nats.
pub fn bits_per_byte(nll: f64, bytes: usize) -> f64 {
    nll / std::f64::consts::LN_2 / bytes as f64
}

/// Refuses what damaged weights lead to.
pub fn check_finite(nll: f64, model: &File) -> Result<()> {
    if nll.is_finite() {
        return Ok(());
    }
    let message = "the logits are not finite: the file is damaged, copy or download it again";
    Err(Error::file(&model.path, message))
}

/// A bar on standard error, if that is a terminal.
pub fn progress_bar(stories: usize) -> Result<ProgressBar> {
    let template = "{wide_bar} {pos}/{len} stories, {msg}, {eta} left";
    let style = ProgressStyle::with_template(template).map_err(Error::failure)?;
    Ok(ProgressBar::new(stories as u64).with_style(style))
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

    #[test]
    fn batches_cover_all_tokens_but_the_first() {
        for len in [0, 1, 2, 64, 65, 66, 129, 200] {
            let story: Vec<u32> = (0..len).collect();
            let mut next = 0;
            for Batch { position, given, predicted } in batches(&story) {
                assert_eq!((position, given.len()), (next, predicted.len()));
                for (i, (&given, &predicted)) in given.iter().zip(predicted).enumerate() {
                    assert_eq!((given as usize, predicted as usize), (next + i, next + i + 1));
                }
                next += given.len();
            }
            assert_eq!(next, story.len().saturating_sub(1));
        }
    }
}
