//! A text as it is made.

use llamita::sampler::SettingsError;
use llamita::tokenizer::{TokenizerError, Work};
use llamita::{Generation, Profile, Sampler, Settings, Stop, Tokenizer, Utf8Stream};
use llamita_storage::sd::{Extent, Extents};

use crate::app::{App, Next};
use crate::load::Session;
use crate::port::{Port, Told};
use crate::stats::Stats;
use crate::{Card, Machine, watched_ticks};

/// Bytes of the longest word of a prompt, which are merged in memory of the stack.
const WORD: usize = 256;
/// Tokens of a benchmark.
const BENCH: usize = 32;

/// How a text is made.
struct Way {
    sampling: Settings,
    seed: u64,
    steps: usize,
    /// Whether it is told.
    aloud: bool,
}

impl<M: Machine, C: Card> App<'_, '_, M, C> {
    /// Continues a prompt; says what is next where the model is of no use any more.
    pub fn tell(&mut self, session: &mut Session<'_, C, M::Team>, prompt: &str) -> Option<Next> {
        let seed = self.options.seed.unwrap_or_else(seed_of::<M>);
        let way = Way { sampling: self.options.sampling(), seed, steps: self.options.steps, aloud: true };
        self.make(session, prompt, &way).unwrap_or(None)
    }

    /// Makes a text that nobody reads, for its statistics.
    pub fn bench(&mut self, session: &mut Session<'_, C, M::Team>) -> Option<Next> {
        let sampling = Settings { temperature: 0.0, ..Settings::default() };
        self.make(session, "", &Way { sampling, seed: 1, steps: BENCH, aloud: false }).unwrap_or(None)
    }

    fn make(
        &mut self,
        session: &mut Session<'_, C, M::Team>,
        prompt: &str,
        way: &Way,
    ) -> Result<Option<Next>, Told> {
        if !self.is_same_card(session) {
            let text = "the model is not where it was on the card, or the card is gone: /model loads it again, /models \
                        lists what there is";
            self.port.refuse(&text);
            return Ok(Some(Next::Idle));
        }
        let port = &mut self.port;
        let Session { engine, tokenizer, tokens, .. } = session;
        let context = engine.state().capacity().context;
        let count = encode(tokenizer, prompt, tokens).map_err(|error| match error {
            TokenizerError::TokenMemory { .. } => port.refuse(&format_args!(
                "the prompt has more tokens than the context, which has {context}: shorten it, or raise /context"
            )),
            TokenizerError::ScratchMemory { .. } => port.refuse(&format_args!(
                "a word of the prompt has more than {WORD} bytes: put spaces into it"
            )),
            error => port.refuse(&error),
        })?;
        // BOS is of the prompt's tokens, but not of the steps; no text becomes it.
        let control = usize::from(tokens[0] == tokenizer.bos());
        let steps = way.steps;
        let room = steps.saturating_add(control).min(tokens.len());
        if count > room {
            return Err(port.refuse(&format_args!(
                "the prompt has {} tokens, a text may have {steps}: shorten it, or raise /steps",
                count - control
            )));
        }
        let mut sampler = Sampler::new(way.sampling, way.seed).map_err(|SettingsError(name, range, _)| {
            port.refuse(&format_args!("{name} is out of its range, expected {range}"))
        })?;
        let read = engine.weights().stats();
        engine.profile = Profile::with_clock(watched_ticks::<M>);
        let ends = [tokenizer.bos(), tokenizer.eos()];
        let text = Generation::new(engine, &mut sampler, &mut tokens[..room], count, ends);
        let mut text = text.map_err(|error| port.refuse(&error))?;

        let mut told =
            Telling { port, tokenizer: *tokenizer, stream: Utf8Stream::new(), last: tokenizer.bos() };
        if way.aloud {
            if let Some(panel) = told.port.panel() {
                panel.clear();
            }
            told.start(text.tokens(), way.seed);
        }
        let begin = M::ticks();
        let (mut first, mut made) = (None, 0_u32);
        let outcome = loop {
            if told.port.interrupted() {
                break Ok("stopped");
            }
            match text.prefill() {
                Ok(true) => continue,
                Ok(false) => (),
                Err(error) => break Err(error),
            }
            match text.next() {
                Ok(Some(token)) => {
                    let first = *first.get_or_insert_with(M::ticks);
                    if way.aloud {
                        told.token(token);
                        made += 1;
                        if let Some(panel) = told.port.panel() {
                            panel.status(speed::<M>(made - 1, M::ticks().saturating_sub(first)), made);
                        }
                    }
                }
                Ok(None) => break Ok(stop_name(text.stop())),
                Err(error) => break Err(error),
            }
        };
        let end = M::ticks();
        if way.aloud {
            told.finish();
        }
        let new_tokens = text.tokens().len() - count;
        // A pass for each new token but the first, which is the prompt's, and one that found the end.
        let ended = text.stop() == Some(Stop::EndOfText);
        let passes = (new_tokens + usize::from(ended)).saturating_sub(1) as u64;
        let first = first.unwrap_or(end);
        let after = engine.weights().stats();
        match outcome {
            Ok(stop) => {
                let stats = Stats {
                    stop,
                    seed: way.seed,
                    prompt_tokens: count,
                    new_tokens,
                    prefill: first.saturating_sub(begin),
                    decode: end.saturating_sub(first),
                    passes,
                    ticks_per_second: M::TICKS_PER_SECOND,
                    stages: engine.profile.ticks(),
                    read: after.bytes - read.bytes,
                    retries: after.retries - read.retries,
                    stack: M::stack(),
                };
                if let Some(panel) = port.panel() {
                    panel.status(speed::<M>(passes as u32, stats.decode), new_tokens as u32);
                    panel.finish();
                }
                self.last = Some(stats);
                self.tell_stats(if way.aloud { "end" } else { "bench" });
                Ok(None)
            }
            Err(error) => {
                // What comes from a card that failed once is not to be trusted before its model is looked up again.
                let useless = matches!(error, llamita::Error::Weights(_) | llamita::Error::NotFinite);
                self.port.refuse(&error);
                if useless {
                    self.port.say(format_args!("/model loads the model again, /models lists what there is"));
                }
                Ok(useless.then_some(Next::Idle))
            }
        }
    }

    /// Whether a model that is read for each token is still where it was found. Weights are compared with their
    /// checksums once, so that another card would only be noticed by its stories.
    fn is_same_card(&self, session: &Session<'_, C, M::Team>) -> bool {
        let (Some(extents), Some(card)) = (session.streamed, self.device()) else { return true };
        let mut pieces = [Extent::EMPTY; crate::load::PIECES];
        let found = Extents::find(&card, session.name, &mut pieces);
        found.is_ok_and(|found| found.len() == extents.len() && found.as_slice() == extents.as_slice())
    }
}

/// A text on its way to the port.
struct Telling<'p, 'm, 't, M: Machine> {
    port: &'p mut Port<'m, M>,
    tokenizer: Tokenizer<'t>,
    stream: Utf8Stream,
    last: u32,
}

impl<M: Machine> Telling<'_, '_, '_, M> {
    /// Tells the prompt.
    fn start(&mut self, prompt: &[u32], seed: u64) {
        if self.port.json {
            let count = prompt.len();
            self.port.put(format_args!(
                "{{\"event\":\"start\",\"prompt_tokens\":{count},\"seed\":{seed},\"text\":\""
            ));
        }
        for &token in prompt {
            self.add(token);
        }
        self.close();
        if let Some(panel) = self.port.panel() {
            panel.finish();
        }
    }

    fn token(&mut self, token: u32) {
        self.open();
        self.add(token);
        self.close();
    }

    fn finish(&mut self) {
        let (port, mut rest) = (&mut *self.port, false);
        self.stream.finish(|_| rest = true);
        if rest && port.json {
            self.open();
            self.port.piece("\u{FFFD}");
            self.close();
        } else if rest {
            port.piece("\u{FFFD}");
        }
        if !self.port.json {
            self.port.put(format_args!("\r\n"));
        }
    }

    fn open(&mut self) {
        if self.port.json {
            self.port.put(format_args!("{{\"event\":\"token\",\"text\":\""));
        }
    }

    fn add(&mut self, token: u32) {
        let port = &mut *self.port;
        for bytes in self.tokenizer.decode(self.last, token) {
            self.stream.push(bytes, |piece| port.piece(piece));
        }
        self.last = token;
    }

    fn close(&mut self) {
        if self.port.json {
            self.port.put(format_args!("\"}}\n"));
        }
        self.port.flush();
    }
}

/// Writes a prompt's tokens, BOS first where the vocabulary has it so; without any text BOS, whatever it has.
// Its memory is free again before a pass begins.
#[inline(never)]
fn encode(tokenizer: &Tokenizer<'_>, prompt: &str, tokens: &mut [u32]) -> Result<usize, TokenizerError> {
    let mut scratch = [Work::EMPTY; WORD + 1];
    let count = tokenizer.encode(prompt, &mut scratch, tokens)?;
    if count == 0 {
        // A model can only continue. There is room for two tokens more than the context has.
        tokens[0] = tokenizer.bos();
    }
    Ok(count.max(1))
}

/// Tokens of a second, for a panel; not a number before there is one.
fn speed<M: Machine>(tokens: u32, ticks: u64) -> f32 {
    tokens as f32 * M::TICKS_PER_SECOND as f32 / ticks as f32
}

/// A seed that is short enough to type.
fn seed_of<M: Machine>() -> u64 {
    // Fibonacci hashing brings the digits that change to the top (Knuth, volume 3, 6.4).
    (M::ticks().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).max(1)
}

const fn stop_name(stop: Option<Stop>) -> &'static str {
    match stop {
        Some(Stop::EndOfText) => "end_of_text",
        Some(Stop::Context) => "context",
        Some(Stop::Length) | None => "length",
    }
}
