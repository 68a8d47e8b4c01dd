//! A story as it is made, and what is said of its making.

use llamita::draft::{Draft, Speculation};
use llamita::{Engine, Generation, Stop, Weights};
use llamita_kernels::Threads;
use serde::Serialize;

use super::Job;
use super::placed::PlacedStats;
use super::profile::Profile;
use crate::error::{Error, Result};
use crate::output;
use crate::units::{bytes, counted, digits, rate, rate_text};
use crate::vocabulary;

/// What was told.
pub struct Story {
    /// The prompt and what follows it.
    pub text: String,
    /// The same as tokens.
    pub tokens: Vec<u32>,
    /// Why it ends.
    pub stop: &'static str,
    /// What it took.
    pub nanoseconds: u64,
    /// What is known of its making.
    pub stats: Stats,
}

/// Generates and prints; `now` gives nanoseconds, of the machine's time or a board's.
pub fn tell<W: Weights>(
    job: &Job<'_>,
    mut text: super::Text<'_>,
    engine: &mut Engine<'_, W, Threads>,
    draft: Option<&mut dyn Draft>,
    now: fn() -> u64,
) -> Result<Story> {
    let (options, tokenizer) = (job.options, &text.tokenizer);
    let refuse = |error| Error::file(job.path, error);
    let facts = Stats {
        context: text.context,
        batch: engine.state().capacity().batch,
        threads: engine.team().members(),
        kernels: engine.kernels().name(),
        ..Stats::default()
    };
    let ends = [tokenizer.bos(), tokenizer.eos()];
    let mut sampler = job.sampler;
    let generation = Generation::new(engine, &mut sampler, &mut text.tokens, text.prompt_tokens, ends);
    let mut generation = generation.map_err(refuse)?;
    let drafts = draft.is_some();
    if let Some(draft) = draft {
        generation = generation.with_draft(draft, options.drafting.most(), Some(now));
    }
    let print = |text: &str| if options.json { Ok(()) } else { output::print(text) };
    let prompt = generation.tokens();
    // BOS is before every text, whether it is encoded or not, and has no text itself.
    let (mut told, mut last, prompt_tokens) = (vocabulary::Text::default(), tokenizer.bos(), prompt.len());
    for &token in prompt {
        told.push(tokenizer, last, token);
        last = token;
    }
    print(told.as_str())?;
    let begin = now();
    let (mut prefill, mut first_token) = (None, None);
    let outcome = loop {
        let next = generation.next();
        prefill.get_or_insert_with(|| now() - begin);
        match next {
            Ok(Some(token)) => {
                print(told.push(tokenizer, last, token))?;
                first_token.get_or_insert_with(|| job.since_start(now));
                last = token;
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let all = now() - begin;
    print(told.finish())?;
    // A story that failed before its first word leaves nothing.
    if outcome.is_ok() || !told.as_str().is_empty() {
        print("\n")?;
    }
    outcome.map_err(refuse)?;

    let new_tokens = generation.tokens().len() - prompt_tokens;
    // A pass for each new token but the first, which is the prompt's, and one that found the end.
    let ended = generation.stop() == Some(Stop::EndOfText);
    let passes = (new_tokens + usize::from(ended)).saturating_sub(1);
    let prefill = prefill.unwrap_or_default();
    let stats = Stats {
        prompt_tokens,
        new_tokens,
        prefill_tokens_per_second: rate(prompt_tokens, prefill as f64 / 1e9),
        decode_tokens_per_second: rate(passes, (all - prefill) as f64 / 1e9),
        seconds_to_first_token: first_token,
        speculation: drafts.then(|| Drafted::of(generation.speculation())),
        ..facts
    };
    let stop = match generation.stop() {
        Some(Stop::EndOfText) => "end_of_text",
        Some(Stop::Context) => "context",
        Some(Stop::Length) | None => "length",
    };
    Ok(Story {
        tokens: generation.tokens().to_vec(),
        text: told.into_string(),
        stop,
        nanoseconds: all,
        stats,
    })
}

/// What `--json` prints.
#[derive(Serialize)]
pub struct Report {
    /// As it was given.
    pub prompt: String,
    /// The prompt and its continuation.
    pub text: String,
    /// BOS, the prompt and the new tokens.
    pub tokens: Vec<u32>,
    /// The start of the random numbers.
    pub seed: u64,
    /// Why the text ends.
    pub stop: &'static str,
    /// How it was made.
    pub stats: Stats,
}

/// How a story was made.
#[derive(Clone, Default, Serialize)]
pub struct Stats {
    /// BOS included.
    pub prompt_tokens: usize,
    /// Without the prompt's.
    pub new_tokens: usize,
    /// Of the prompt.
    pub prefill_tokens_per_second: Option<f64>,
    /// After it.
    pub decode_tokens_per_second: Option<f64>,
    /// From the start of the command.
    pub seconds_to_first_token: Option<f64>,
    /// Of activations, keys and values.
    pub state_bytes: u64,
    /// Of the tokenizer's index.
    pub tokenizer_bytes: u64,
    /// In memory.
    pub weights_bytes: u64,
    /// Longest text.
    pub context: usize,
    /// Tokens in a pass.
    pub batch: usize,
    /// That computed.
    pub threads: usize,
    /// The arithmetic.
    pub kernels: &'static str,
    /// What drafts were worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speculation: Option<Drafted>,
    /// Where the weights were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placed: Option<PlacedStats>,
    /// Where the time went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// What drafts were worth.
#[derive(Clone, Copy, Serialize)]
pub struct Drafted {
    /// Passes that gave tokens, the last of the prompt included.
    pub passes: usize,
    /// Tokens that were proposed.
    pub proposed: usize,
    /// Tokens that were the ones that came.
    pub accepted: usize,
    /// Mean of a pass.
    pub accepted_per_pass: f64,
}

impl Drafted {
    fn of(speculation: Speculation) -> Self {
        let Speculation { passes, proposed, accepted } = speculation;
        Self { passes, proposed, accepted, accepted_per_pass: accepted as f64 / passes.max(1) as f64 }
    }
}

impl Stats {
    /// All of it for people.
    pub fn lines(&self, seed: u64) -> Vec<String> {
        let mut lines = vec![self.line(seed)];
        lines.extend(self.placed.as_ref().map(PlacedStats::line));
        lines.extend(self.speculation.map(|drafted| {
            format!(
                "drafts: {} of {} proposed tokens accepted, {} for each of {}",
                drafted.accepted,
                drafted.proposed,
                digits(drafted.accepted_per_pass),
                counted(drafted.passes, "pass").replace("passs", "passes"),
            )
        }));
        lines.extend(self.profile.as_ref().map(Profile::line));
        lines
    }

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
