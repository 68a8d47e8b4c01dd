//! From a prompt to a story, a token at a time.

use llamita_kernels::Team;

use crate::forward::{Engine, Error};
use crate::profile::Stage;
use crate::sampler::Sampler;
use crate::weights::Weights;

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model ended it.
    EndOfText,
    /// It has as many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
}

/// A text under way: a loop over [`Generation::next`] gives its tokens.
///
/// The prompt is computed in batches at the first call, each token after it alone.
pub struct Generation<'g, 'a, W, T> {
    engine: &'g mut Engine<'a, W, T>,
    sampler: &'g mut Sampler,
    /// The text so far, and room for the rest.
    tokens: &'g mut [u32],
    len: usize,
    computed: usize,
    stop_tokens: [u32; 2],
    stop: Option<Stop>,
}

impl<'g, 'a, W: Weights, T: Team> Generation<'g, 'a, W, T> {
    /// A text that begins with the first `prompt` of `tokens`, usually BOS first, and grows to at most as
    /// many as there is room for in `tokens`. It ends at either of `stop_tokens`, BOS and EOS, which are not
    /// part of it.
    ///
    /// # Errors
    /// If the prompt is empty, longer than the context, or longer than `tokens`.
    pub fn new(
        engine: &'g mut Engine<'a, W, T>,
        sampler: &'g mut Sampler,
        tokens: &'g mut [u32],
        prompt: usize,
        stop_tokens: [u32; 2],
    ) -> Result<Self, Error<W::Error>> {
        let context = engine.state().capacity().context;
        if prompt > context {
            return Err(Error::Context(prompt, context));
        }
        if prompt == 0 || prompt > tokens.len() {
            return Err(Error::Prompt(prompt, tokens.len()));
        }
        Ok(Self { engine, sampler, tokens, len: prompt, computed: 0, stop_tokens, stop: None })
    }

    /// Computes the next token; `None` at the end of the text.
    ///
    /// # Errors
    /// If a pass fails. The text so far is intact, and the call can be repeated.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would go on after an error")]
    pub fn next(&mut self) -> Result<Option<u32>, Error<W::Error>> {
        if self.stop.is_none() {
            let context = self.engine.state().capacity().context;
            self.stop = if self.len == self.tokens.len() {
                Some(Stop::Length)
            } else if self.len > context {
                Some(Stop::Context)
            } else {
                None
            };
        }
        if self.stop.is_some() {
            return Ok(None);
        }
        // All but the last batch of the prompt, whose logits nobody needs.
        let batch = self.engine.state().capacity().batch;
        while self.len - self.computed > batch {
            let next = self.computed + batch;
            self.engine.forward(&self.tokens[self.computed..next], self.computed, 0)?;
            self.computed = next;
        }
        let kernels = self.engine.kernels();
        let logits = self.engine.forward(&self.tokens[self.computed..self.len], self.computed, 1)?;
        let token = self.sampler.sample(kernels, logits, &self.tokens[..self.len]);
        self.engine.end(Stage::Sampling);
        let token = token.ok_or(Error::NotFinite)?;
        self.computed = self.len;
        if self.stop_tokens.contains(&token) {
            self.stop = Some(Stop::EndOfText);
            return Ok(None);
        }
        self.tokens[self.len] = token;
        self.len += 1;
        Ok(Some(token))
    }

    /// The text so far, the prompt included.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens[..self.len]
    }

    /// Why the text ended, once it has.
    pub const fn stop(&self) -> Option<Stop> {
        self.stop
    }
}
