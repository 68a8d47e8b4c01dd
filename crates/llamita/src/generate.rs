//! From a prompt to a story, a token at a time.

use llamita_kernels::Team;

use crate::draft::length::{DraftLength, Pass};
use crate::draft::{Draft, Speculation};
use crate::forward::{Engine, Error};
use crate::profile::Stage;
use crate::sampler::Sampler;
use crate::state::Capacity;
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
/// The prompt is computed in batches at the first call, each token after it alone, or together with tokens
/// that were drafted.
pub struct Generation<'g, 'a, W, T> {
    engine: &'g mut Engine<'a, W, T>,
    sampler: &'g mut Sampler,
    /// The text so far, tokens that were chosen ahead, and room for the rest.
    tokens: &'g mut [u32],
    len: usize,
    /// The length of the text with the tokens that were chosen ahead.
    chosen: usize,
    /// Tokens of the text whose keys and values are in the cache.
    computed: usize,
    stop_tokens: [u32; 2],
    /// Whether the model has chosen one of them.
    ended: bool,
    stop: Option<Stop>,
    drafting: Option<Drafting<'g>>,
    speculation: Speculation,
}

/// Who drafts, and how much.
struct Drafting<'g> {
    draft: &'g mut dyn Draft,
    most: usize,
    clock: Option<fn() -> u64>,
    length: DraftLength,
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
        Ok(Self {
            engine,
            sampler,
            tokens,
            len: prompt,
            chosen: prompt,
            computed: 0,
            stop_tokens,
            ended: false,
            stop: None,
            drafting: None,
            speculation: Speculation::default(),
        })
    }

    /// The same text in fewer passes: each checks up to `most` drafted tokens. The state needs logits, and so
    /// a batch, of one token more than are to be drafted; with less, fewer are.
    ///
    /// With a `clock`, in any unit that tells one pass from two, drafts are as long as pays by what was
    /// measured, and none are made where none pay; without, they are always as long as they can be.
    #[must_use]
    pub fn with_draft(mut self, draft: &'g mut dyn Draft, most: usize, clock: Option<fn() -> u64>) -> Self {
        self.drafting = Some(Drafting { draft, most, clock, length: DraftLength::new(self.chosen) });
        self
    }

    /// Computes the next token, or gives the next of those that were chosen ahead, for which the sampler has
    /// thrown its coins already; `None` at the end of the text.
    ///
    /// # Errors
    /// If a pass fails. The text so far is intact, and the call can be repeated.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would go on after an error")]
    pub fn next(&mut self) -> Result<Option<u32>, Error<W::Error>> {
        if self.len == self.chosen {
            self.stop = self.end();
            if self.stop.is_none() {
                self.pass()?;
                // A pass chooses at least a token, or the end.
                self.stop = if self.len == self.chosen { self.end() } else { None };
            }
        }
        if self.stop.is_some() {
            return Ok(None);
        }
        self.len += 1;
        Ok(Some(self.tokens[self.len - 1]))
    }

    /// Computes a batch of a prompt that has more than one, and says whether it did. [`Self::next`] computes
    /// all that are left; this is for callers who have something to look after between them, such as a watchdog.
    ///
    /// # Errors
    /// If the pass fails; the call can be repeated.
    pub fn prefill(&mut self) -> Result<bool, Error<W::Error>> {
        let batch = self.engine.state().capacity().batch;
        // The logits of all but the last batch are what nobody needs.
        if self.chosen - self.computed <= batch {
            return Ok(false);
        }
        let next = self.computed + batch;
        self.engine.forward(&self.tokens[self.computed..next], self.computed, 0)?;
        self.computed = next;
        Ok(true)
    }

    /// Why no token can be chosen, if so.
    fn end(&self) -> Option<Stop> {
        if self.ended {
            Some(Stop::EndOfText)
        } else if self.chosen == self.tokens.len() {
            Some(Stop::Length)
        } else if self.chosen > self.engine.state().capacity().context {
            Some(Stop::Context)
        } else {
            None
        }
    }

    /// Chooses a token, and further ones as long as they are those that were drafted.
    fn pass(&mut self) -> Result<(), Error<W::Error>> {
        while self.prefill()? {}
        let single = self.chosen - self.computed == 1;
        let clock = self.drafting.as_ref().and_then(|drafting| drafting.clock);
        let now = || clock.map_or(0, |clock| clock());
        let start = now();
        // A prompt has to be computed whole before there is something to guess.
        let drafted = if single { self.draft() } else { 0 };
        let end_of_draft = now();
        let (from, to) = (self.computed, self.chosen + drafted);
        let (kernels, vocab_size) = (self.engine.kernels(), self.engine.config().vocab_size);
        let logits = self.engine.forward(&self.tokens[from..to], from, drafted + 1)?;
        let end_of_pass = now();

        let (mut accepted, mut finite) = (0, true);
        for (i, logits) in logits.chunks_exact_mut(vocab_size).enumerate() {
            // As ever: by these logits, this text and the next coin.
            let Some(token) = self.sampler.sample(kernels, logits, &self.tokens[..self.chosen]) else {
                // After the first, an error waits for the pass that begins here.
                finite = i > 0;
                break;
            };
            self.computed = self.chosen;
            if self.stop_tokens.contains(&token) {
                self.ended = true;
                break;
            }
            let same = i < drafted && self.tokens[self.chosen] == token;
            self.tokens[self.chosen] = token;
            self.chosen += 1;
            if !same {
                break;
            }
            accepted += 1;
        }
        self.engine.end(Stage::Sampling);
        if !finite {
            return Err(Error::NotFinite);
        }
        self.speculation.passes += 1;
        self.speculation.proposed += drafted;
        self.speculation.accepted += accepted;
        if single && let Some(drafting) = &mut self.drafting {
            let draft_ticks = end_of_draft.wrapping_sub(start);
            let pass_ticks = end_of_pass.wrapping_sub(end_of_draft);
            drafting.length.learn(Pass { drafted, accepted, draft_ticks, pass_ticks });
        }
        Ok(())
    }

    /// Drafts tokens in the room behind the text and returns their number.
    fn draft(&mut self) -> usize {
        let Some(Drafting { draft, most, clock, length }) = &mut self.drafting else { return 0 };
        let Capacity { context, logits, .. } = self.engine.state().capacity();
        // One more is chosen than was drafted, and that needs no position.
        let room = context.min(self.tokens.len() - 1) - self.chosen;
        let most = room.min(logits - 1).min(*most);
        let most = if clock.is_some() { length.choose(most) } else { most };
        if most == 0 {
            return 0;
        }
        let (text, rest) = self.tokens.split_at_mut(self.chosen);
        let out = &mut rest[..most];
        let count = draft.propose(text, self.sampler, out).min(most);
        // What would end the text is not worth a position, and what no vocabulary has must not fail a pass.
        let vocab_size = self.engine.config().vocab_size;
        let odd = |token: &u32| *token as usize >= vocab_size || self.stop_tokens.contains(token);
        out[..count].iter().position(odd).unwrap_or(count)
    }

    /// The text so far, the prompt included.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens[..self.len]
    }

    /// Why the text ended, once it has.
    pub const fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// What drafts were good for so far.
    pub const fn speculation(&self) -> Speculation {
        self.speculation
    }
}
