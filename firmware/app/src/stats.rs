//! How a text was made.

use core::fmt::{self, Display};

use llamita::Stage;

use crate::text::Thousandths;

/// What is known of a text.
#[derive(Clone, Copy)]
pub(crate) struct Stats {
    /// Why it ended.
    pub stop: &'static str,
    pub seed: u64,
    /// With BOS.
    pub prompt_tokens: usize,
    pub new_tokens: usize,
    /// Ticks until the first new token.
    pub prefill: u64,
    /// Ticks after it, and the passes in them.
    pub decode: u64,
    pub passes: u64,
    pub ticks_per_second: u64,
    /// Ticks of each of [`Stage::ALL`].
    pub stages: [u64; Stage::ALL.len()],
    /// Bytes that were read, and reads that were repeated.
    pub read: u64,
    pub retries: u64,
    /// Bytes of the stack that have been used since the start, and all that it has, if the board knows.
    pub stack: Option<(usize, usize)>,
}

/// Parts of the time, and what they are called.
const PARTS: [(&str, &[Stage]); 5] = [
    ("storage", &[Stage::Storage]),
    ("products", &[Stage::Projections, Stage::FeedForward, Stage::Classifier]),
    ("attention", &[Stage::Attention]),
    ("sampling", &[Stage::Sampling]),
    ("other", &[Stage::NormAndRope]),
];

/// The names of [`Stage::ALL`] for programs.
const STAGES: [&str; Stage::ALL.len()] =
    ["storage", "projections", "attention", "feed_forward", "norm_and_rope", "classifier", "sampling"];

impl Stats {
    /// Tokens per second after the first, in thousandths.
    fn rate(&self) -> Option<Thousandths> {
        let ticks = Some(self.decode).filter(|&ticks| ticks > 0 && self.passes > 0)?;
        Some(Thousandths(self.passes.saturating_mul(1000).saturating_mul(self.ticks_per_second) / ticks))
    }

    fn ticks_per_token(&self) -> Option<u64> {
        self.decode.checked_div(self.passes)
    }

    /// Thousandths of the time of all passes that each part takes.
    fn shares(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = self.stages.iter().sum::<u64>().max(1);
        PARTS.into_iter().map(move |(name, stages)| {
            let ticks: u64 = stages.iter().map(|&stage| self.stages[stage as usize]).sum();
            (name, ticks.saturating_mul(1000) / all)
        })
    }
}

/// For people.
pub(crate) struct Lines<'s>(pub &'s Stats);

impl Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { stop, seed, prompt_tokens, new_tokens, prefill, read, retries, .. } = self.0;
        write!(f, "[{stop}: {prompt_tokens} prompt tokens in {prefill} ticks, {new_tokens} new tokens")?;
        if let (Some(rate), Some(ticks)) = (self.0.rate(), self.0.ticks_per_token()) {
            write!(f, ", {rate} tok/s, {ticks} ticks a token")?;
        }
        for (name, share) in self.0.shares() {
            write!(f, ", {name} {}.{} %", share / 10, share % 10)?;
        }
        write!(f, ", {read} bytes read, {retries} retries, seed {seed}")?;
        if let Some((used, all)) = self.0.stack {
            write!(f, ", {used} of {all} bytes of stack")?;
        }
        f.write_str("]")
    }
}

/// For programs: the members of an object.
pub(crate) struct Members<'s>(pub &'s Stats);

impl Display for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { stop, seed, prompt_tokens, new_tokens, .. } = self.0;
        let Stats { prefill, decode, ticks_per_second, read, retries, .. } = self.0;
        write!(f, "\"stop\":\"{stop}\",\"prompt_tokens\":{prompt_tokens},\"new_tokens\":{new_tokens},")?;
        match self.0.rate() {
            Some(rate) => write!(f, "\"tokens_per_second\":{rate},")?,
            None => f.write_str("\"tokens_per_second\":null,")?,
        }
        match self.0.ticks_per_token() {
            Some(ticks) => write!(f, "\"ticks_per_token\":{ticks},")?,
            None => f.write_str("\"ticks_per_token\":null,")?,
        }
        write!(
            f,
            "\"prefill_ticks\":{prefill},\"decode_ticks\":{decode},\"ticks_per_second\":{ticks_per_second},"
        )?;
        for (name, ticks) in STAGES.iter().zip(self.0.stages) {
            write!(f, "\"{name}_ticks\":{ticks},")?;
        }
        write!(f, "\"read_bytes\":{read},\"retries\":{retries},\"seed\":{seed}")?;
        if let Some((used, all)) = self.0.stack {
            write!(f, ",\"stack_used\":{used},\"stack_bytes\":{all}")?;
        }
        Ok(())
    }
}
