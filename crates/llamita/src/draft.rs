//! Drafts: guesses of the next tokens, which one pass checks together.
//!
//! Where weights stream from a card, a pass over five tokens costs little more than a pass over one, so it
//! pays to guess. The guesses never change the text: a pass gives the logits after each of them, bit for bit
//! those that it would have without, the sampler chooses from these as ever, and a drafted token counts if it
//! is the one that was chosen. This is stricter than speculative sampling (Leviathan et al., 2023; Chen et
//! al., 2023), which keeps the distribution but not the text.

use core::fmt;

use llamita_kernels::Team;

use crate::config::Config;
use crate::forward::Engine;
use crate::sampler::Sampler;
use crate::weights::Weights;

pub(crate) mod length;

/// Guesses how a text goes on.
pub trait Draft {
    /// Writes likely next tokens of `text`, the prompt included, to the front of `out` and returns their
    /// number; 0 if there is nothing to guess by. A copy of `sampler` throws the very coins by which these
    /// tokens of the text will be chosen.
    fn propose(&mut self, text: &[u32], sampler: &Sampler, out: &mut [u32]) -> usize;
}

/// The first of two drafts that proposes anything.
impl<A: Draft, B: Draft> Draft for (A, B) {
    fn propose(&mut self, text: &[u32], sampler: &Sampler, out: &mut [u32]) -> usize {
        match self.0.propose(text, sampler, out) {
            0 => self.1.propose(text, sampler, out),
            count => count,
        }
    }
}

/// What drafts were good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speculation {
    /// Passes that chose tokens; those of a long prompt's first batches do not.
    pub passes: usize,
    /// Tokens that were drafted and checked.
    pub proposed: usize,
    /// Tokens of the text that had been drafted. The others took a pass each.
    pub accepted: usize,
}

/// Proposes what came after the same tokens earlier in the text (Saxena, 2023, "prompt lookup decoding").
///
/// To guess after a single token in common gives most right guesses, and most wrong ones: best where
/// further tokens of a pass cost next to nothing. In front of a draft model three or four in common are
/// better, as the model guesses better than fewer do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// So many tokens have to be the same for a guess, at least 1.
    pub shortest: usize,
    /// More than these are not compared: the latest place with so many is taken.
    pub longest: usize,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { shortest: 1, longest: 4 }
    }
}

impl Lookup {
    /// Where something goes on that ends like the text: the latest of the places with most tokens in common.
    fn find(&self, text: &[u32]) -> Option<usize> {
        let (mut place, mut longest) = (None, self.shortest.max(1) - 1);
        for end in (1..text.len()).rev() {
            let pairs = text[..end].iter().rev().zip(text.iter().rev());
            let common = pairs.take(self.longest).take_while(|(a, b)| a == b).count();
            if common > longest {
                (place, longest) = (Some(end), common);
                if common >= self.longest {
                    break;
                }
            }
        }
        place
    }
}

impl Draft for Lookup {
    fn propose(&mut self, text: &[u32], _: &Sampler, out: &mut [u32]) -> usize {
        let Some(place) = self.find(text) else { return 0 };
        // Behind the end of the text come the guesses themselves, as in LZ77: a loop goes on.
        for i in 0..out.len() {
            out[i] = text.get(place + i).copied().unwrap_or_else(|| out[place + i - text.len()]);
        }
        out.len()
    }
}

/// A draft model that has other tokens than the model it drafts for: found, expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VocabularyError(pub usize, pub usize);

impl fmt::Display for VocabularyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(found, expected) = self;
        write!(
            f,
            "the draft model has {found} tokens, expected {expected}: \
             it must share the vocabulary of the model that it drafts for"
        )
    }
}

impl core::error::Error for VocabularyError {}

/// A smaller model that drafts for a larger one.
///
/// It chooses with the coins of the larger model's sampler, so the two agree not only where one token is
/// certain, but wherever a coin falls on the same token for both.
pub struct DraftModel<'a, W, T> {
    engine: Engine<'a, W, T>,
    /// The text as this model has it, and guesses behind.
    tokens: &'a mut [u32],
    /// Of these, how many the engine has computed.
    computed: usize,
    /// Multiplies the logits; 2 at first. With 1 a draft is drawn as the text is, but what falls to a coin
    /// far from the likeliest token is seldom the same for two models: a likelier token is the better guess.
    /// A greedy text has the same drafts with all.
    pub sharpness: f32,
}

impl<'a, W: Weights, T: Team> DraftModel<'a, W, T> {
    /// A draft model for a model of the shape `target`. It drafts texts up to its context and the length of
    /// `tokens`, whatever these are; a batch of more than 1 lets it catch up with a prompt, and logits are
    /// needed of 1 token.
    ///
    /// # Errors
    /// If the models have not the same number of tokens.
    pub fn new(
        engine: Engine<'a, W, T>,
        tokens: &'a mut [u32],
        target: &Config,
    ) -> Result<Self, VocabularyError> {
        match (engine.config().vocab_size, target.vocab_size) {
            (found, expected) if found != expected => Err(VocabularyError(found, expected)),
            _ => Ok(Self { engine, tokens, computed: 0, sharpness: 2.0 }),
        }
    }

    /// The engine that drafts.
    pub const fn engine(&self) -> &Engine<'a, W, T> {
        &self.engine
    }
}

impl<W: Weights, T: Team> Draft for DraftModel<'_, W, T> {
    fn propose(&mut self, text: &[u32], sampler: &Sampler, out: &mut [u32]) -> usize {
        let capacity = self.engine.state().capacity();
        let context = capacity.context.min(self.tokens.len());
        // The last guess needs no position: nothing comes after it.
        let most = out.len().min((context + 1).saturating_sub(text.len()));
        if most == 0 || text.is_empty() {
            return 0;
        }
        // Guesses that were wrong are forgotten; the last token is always computed, for its logits.
        let pairs = self.tokens[..self.computed].iter().zip(&text[..text.len() - 1]);
        self.computed = pairs.take_while(|(a, b)| a == b).count();
        self.tokens[self.computed..text.len()].copy_from_slice(&text[self.computed..]);

        let (kernels, mut len, mut sampler) = (self.engine.kernels(), text.len(), *sampler);
        while len - self.computed > capacity.batch {
            let next = self.computed + capacity.batch;
            // A draft may fail without a word: the text does not need it.
            if self.engine.forward(&self.tokens[self.computed..next], self.computed, 0).is_err() {
                return 0;
            }
            self.computed = next;
        }
        for count in 0..most {
            let missing = &self.tokens[self.computed..len];
            let Ok(logits) = self.engine.forward(missing, self.computed, 1) else { return count };
            self.computed = len;
            for logit in logits.iter_mut() {
                *logit *= self.sharpness;
            }
            let Some(token) = sampler.sample(kernels, logits, &self.tokens[..len]) else { return count };
            out[count] = token;
            if count + 1 < most {
                self.tokens[len] = token;
                len += 1;
            }
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::Settings;

    fn lookup(lookup: Lookup, text: &[u32], most: usize) -> Vec<u32> {
        let mut out = vec![99; most];
        let sampler = Sampler::new(Settings::default(), 1).unwrap();
        let count = { lookup }.propose(text, &sampler, &mut out);
        out.truncate(count);
        out
    }

    #[test]
    fn lookup_takes_the_latest_of_the_longest_matches() {
        let up_to = |shortest, longest| Lookup { shortest, longest };
        let text = [7, 1, 2, 3, 4, 5, 2, 3, 6, 9, 3, 8, 1, 2, 3];
        assert_eq!(lookup(up_to(1, 4), &text, 3), [4, 5, 2], "three tokens in common");
        assert_eq!(lookup(up_to(1, 2), &text, 3), [6, 9, 3], "the latest of two in common");
        assert_eq!(lookup(up_to(1, 1), &text, 3), [8, 1, 2], "the latest of one");
        assert_eq!(lookup(up_to(4, 4), &text, 3), [] as [u32; 0], "no four in common");
        assert_eq!(lookup(up_to(0, 0), &text, 3), [] as [u32; 0]);
        assert_eq!(lookup(up_to(0, 3), &text, 0), [] as [u32; 0]);
    }

    #[test]
    fn lookup_goes_on_with_a_loop() {
        let all = Lookup { shortest: 1, longest: 4 };
        assert_eq!(lookup(all, &[1, 2, 3, 2, 3], 5), [2, 3, 2, 3, 2]);
        assert_eq!(lookup(all, &[5, 5], 3), [5, 5, 5]);
    }

    #[test]
    fn lookup_has_nothing_for_what_is_new() {
        for text in [&[][..], &[1], &[1, 2, 3]] {
            assert_eq!(lookup(Lookup { shortest: 1, longest: 4 }, text, 4), [] as [u32; 0]);
        }
    }

    #[test]
    fn the_second_draft_is_asked_where_the_first_has_nothing() {
        struct Fixed(usize, u32);
        impl Draft for Fixed {
            fn propose(&mut self, _: &[u32], _: &Sampler, out: &mut [u32]) -> usize {
                out[..self.0].fill(self.1);
                self.0
            }
        }
        let sampler = Sampler::new(Settings::default(), 1).unwrap();
        for (first, second, expected) in [(0, 2, &[8, 8][..]), (1, 2, &[7]), (0, 0, &[])] {
            let mut out = [0; 3];
            let count = (Fixed(first, 7), Fixed(second, 8)).propose(&[1], &sampler, &mut out);
            assert_eq!(&out[..count], expected);
        }
    }
}
