//! The choice of the next token.
//!
//! Filters keep the likeliest tokens: the first ones in the order of descending probability. How far the filters
//! reach, and which token the coin falls on, is found by halving an interval of probabilities with vector
//! sums over the whole vocabulary, so nothing is sorted but a few candidates and no memory is needed. For one
//! seed the choices are those of llama2.c, whose generator this is.

use core::fmt;

use llamita_kernels::Kernels;

use crate::heap;

/// How to choose; [`Settings::default`] is llama2.c's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Divides the logits: 0 always takes the likeliest token, 1 keeps the model's probabilities.
    pub temperature: f32,
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens that together exceed this probability (Holtzman et al., 2019); 0 and 1
    /// keep all.
    pub top_p: f32,
    /// Keeps tokens at least this likely, relative to the likeliest (Nguyen et al., 2024); 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens among the last [`REPEAT_WINDOW`] (Keskar et
    /// al., 2019); 1 changes nothing.
    pub repeat_penalty: f32,
}

/// Tokens that the repetition penalty looks back on.
pub const REPEAT_WINDOW: usize = 64;

impl Default for Settings {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 0.9, min_p: 0.0, repeat_penalty: 1.0 }
    }
}

/// A setting outside its range: name, range, found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SettingsError(pub &'static str, pub &'static str, pub f32);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, range, found) = self;
        write!(f, "{name} is {found}, expected {range}")
    }
}

impl core::error::Error for SettingsError {}

impl Settings {
    /// Refuses numbers outside their range.
    ///
    /// # Errors
    /// The first such setting.
    pub fn check(&self) -> Result<(), SettingsError> {
        let checks = [
            ("temperature", "0, or 0.001 to 1000", self.temperature, 0.001..=1000.0),
            ("top-p", "0 to 1", self.top_p, 0.0..=1.0),
            ("min-p", "0 to 1", self.min_p, 0.0..=1.0),
            ("repeat-penalty", "0.01 to 100", self.repeat_penalty, 0.01..=100.0),
        ];
        for (name, expected, found, range) in checks {
            let greedy = name == "temperature" && found == 0.0;
            if !(greedy || range.contains(&found)) {
                return Err(SettingsError(name, expected, found));
            }
        }
        Ok(())
    }
}

/// Chooses tokens by [`Settings`] and a seed.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    settings: Settings,
    random: u64,
}

/// So many tokens are sorted at most.
const CANDIDATES: usize = 64;
/// A search begins here: tokens that are less likely rarely matter.
const SMALLEST: f32 = 1e-6;

impl Sampler {
    /// A sampler; equal seeds make equal choices. The generator cannot start from 0, which counts as 1.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn new(settings: Settings, seed: u64) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(Self { settings, random: seed.max(1) })
    }

    /// Chooses a token by its logits, (vocab_size,), which it changes. `text` are the tokens so far, for the
    /// repetition penalty. `None` if a logit is not a number, or the largest is infinite.
    pub fn sample(&mut self, kernels: Kernels, logits: &mut [f32], text: &[u32]) -> Option<u32> {
        let Settings { temperature, top_k, top_p, min_p, repeat_penalty } = self.settings;
        let mut max = kernels.max(logits);
        // A square is no number only if what it is of is none.
        if !max.is_finite() || kernels.sum_of_squares(logits).is_nan() {
            return None;
        }
        if repeat_penalty != 1.0 {
            penalize(logits, &text[text.len().saturating_sub(REPEAT_WINDOW)..], repeat_penalty);
            max = kernels.max(logits);
        }
        if temperature == 0.0 {
            // The first token with the highest logit.
            let mut token = [0];
            let found = kernels.between(logits, max, f32::INFINITY, &mut token);
            return (found == 1).then_some(token[0]);
        }
        if temperature != 1.0 {
            // Chips take six times as long to divide.
            let inverse = 1.0 / temperature;
            for logit in logits.iter_mut() {
                *logit *= inverse;
            }
        }
        kernels.softmax(logits);
        let coin = self.coin();

        let (by_k, by_p, by_min_p) = (top_k > 0, top_p > 0.0 && top_p < 1.0, min_p > 0.0);
        if !(by_k || by_p || by_min_p) {
            return Some(draw(logits, coin));
        }

        // What the filters keep is a head of the descending order, so many tokens with so much probability.
        let mut order = DescendingOrder::new(kernels, logits);
        let mut kept = Head { token: 0, mass: 1.0, count: logits.len() };
        if by_k && top_k < kept.count {
            kept = order.find(&|head| head.count >= top_k);
        }
        if by_p {
            let (target, most) = (top_p * kept.mass, kept.count);
            kept = order.find(&|head| head.mass > target || head.count >= most);
        }
        if by_min_p {
            let (mass, count) = kernels.mass_above(logits, min_p * kernels.max(logits));
            if count < kept.count {
                kept = Head { mass, count, ..kept };
            }
        }
        let target = coin * kept.mass;
        Some(order.find(&|head| head.mass > target || head.count >= kept.count).token)
    }

    /// A number from 0 to 1, 1 excluded: xorshift* (S. Vigna, 2016), as llama2.c uses it.
    fn coin(&mut self) -> f32 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let random = (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32;
        (random >> 8) as f32 / 16_777_216.0
    }
}

/// Makes each of the tokens in `recent` less likely, once.
fn penalize(logits: &mut [f32], recent: &[u32], penalty: f32) {
    for (i, token) in recent.iter().enumerate() {
        if recent[..i].contains(token) {
            continue;
        }
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
}

/// The token on which the coin falls, in the order of the vocabulary.
fn draw(probabilities: &[f32], coin: f32) -> u32 {
    let mut sum = 0.0;
    let token = probabilities.iter().position(|p| {
        sum += p;
        coin < sum
    });
    // The sum may round to less than 1.
    token.unwrap_or(probabilities.len() - 1) as u32
}

/// Probabilities in descending order, equal ones in the order of the vocabulary, without sorting them: an interval
/// of probabilities is halved until few tokens are in it.
struct DescendingOrder<'p> {
    kernels: Kernels,
    probabilities: &'p [f32],
    /// What was measured, to begin the next search with.
    measured: [Measured; MEASURED],
    len: usize,
}

/// Measurements to keep: the passes of two searches or so.
const MEASURED: usize = 32;

/// Mass and number of the tokens that are at least as likely as a threshold, which is given by its bits: those
/// of positive floats are ordered as the floats are.
#[derive(Clone, Copy)]
struct Measured {
    bits: u32,
    mass: f32,
    count: usize,
}

/// The tokens up to a place in the descending order.
#[derive(Clone, Copy)]
struct Head {
    /// The last of them.
    token: u32,
    /// The sum of their probabilities.
    mass: f32,
    /// Their number.
    count: usize,
}

impl<'p> DescendingOrder<'p> {
    fn new(kernels: Kernels, probabilities: &'p [f32]) -> Self {
        // All tokens: what is least likely may be 0.
        let all = Measured { bits: 0, mass: 1.0, count: probabilities.len() };
        Self { kernels, probabilities, measured: [all; MEASURED], len: 1 }
    }

    fn measure(&mut self, bits: u32) -> Measured {
        let (mass, count) = self.kernels.mass_above(self.probabilities, f32::from_bits(bits));
        let measured = Measured { bits, mass, count };
        if self.len < MEASURED {
            self.measured[self.len] = measured;
            self.len += 1;
        }
        measured
    }

    /// The shortest head that is `enough`, which more mass and a higher count never undo; all tokens if none is.
    fn find(&mut self, enough: &dyn Fn(Head) -> bool) -> Head {
        let enough_at = |at: &Measured| enough(Head { token: 0, mass: at.mass, count: at.count });
        // Tokens from `low` on are enough, or they are all; those from `high` on are not, or there are none.
        let top = Measured { bits: 1.0f32.to_bits() + 1, mass: 0.0, count: 0 };
        let (mut low, mut high) = (self.measured[0], top);
        for measured in &self.measured[1..self.len] {
            if enough_at(measured) {
                if measured.bits > low.bits {
                    low = *measured;
                }
            } else if measured.bits < high.bits {
                high = *measured;
            }
        }
        while low.count - high.count > CANDIDATES && high.bits - low.bits > 1 {
            // From all tokens, halving bits would step through ever smaller numbers that no token has.
            let least = SMALLEST.to_bits();
            let between = low.bits < least && least < high.bits;
            let middle = self.measure(if between { least } else { low.bits.midpoint(high.bits) });
            if enough_at(&middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        if low.count <= CANDIDATES {
            // Few enough to add up from the first, as llama2.c does.
            high = top;
        }
        self.walk(low, high, enough)
    }

    /// Adds token after token to those from `high` on, until they are enough.
    fn walk(&self, low: Measured, high: Measured, enough: &dyn Fn(Head) -> bool) -> Head {
        let probabilities = self.probabilities;
        let mut head = Head { token: 0, mass: high.mass, count: high.count };
        let mut next = |token: u32| {
            let mass = head.mass + probabilities[token as usize];
            head = Head { token, mass, count: head.count + 1 };
            enough(head)
        };
        let [from, below] = [low.bits, high.bits].map(f32::from_bits);
        if low.count - high.count > CANDIDATES {
            // All of one probability, so in the order of the vocabulary already.
            let same = |&(_, &p): &(usize, &f32)| p >= from && p < below;
            let _ = probabilities.iter().enumerate().filter(same).any(|(token, _)| next(token as u32));
        } else {
            let mut candidates = [0; CANDIDATES];
            let len = self.kernels.between(probabilities, from, below, &mut candidates);
            // Of positive floats the bits are ordered as the floats are.
            let order = |token: u32| (probabilities[token as usize].to_bits(), !token);
            let before = |a, b| order(a) < order(b);
            let mut candidates = &mut candidates[..len];
            heap::build(candidates, &before);
            while let Some((rest, token)) = heap::pop(candidates, &before)
                && !next(token)
            {
                candidates = rest;
            }
        }
        head
    }
}
