//! The choice of the next token.
//!
//! Filters keep the likeliest tokens: the first ones in the order of falling probability. How far the filters
//! reach, and which token the coin falls on, is found by halving an interval of probabilities with vector
//! sums over the whole vocabulary, so nothing is sorted but a few candidates and no memory is needed. For one
//! seed the choices are those of llama2.c, whose generator this is.

use core::fmt;

use llamita_kernels::Kernels;

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
            ("temperature", "0 or more", self.temperature, f32::MAX),
            ("top-p", "0 to 1", self.top_p, 1.0),
            ("min-p", "0 to 1", self.min_p, 1.0),
            ("repeat-penalty", "more than 0", self.repeat_penalty, f32::MAX),
        ];
        for (name, range, found, most) in checks {
            let positive = name != "repeat-penalty" || found > 0.0;
            if !((0.0..=most).contains(&found) && positive) {
                return Err(SettingsError(name, range, found));
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
    /// repetition penalty. `None` if the logits are not finite.
    pub fn sample(&mut self, kernels: Kernels, logits: &mut [f32], text: &[u32]) -> Option<u32> {
        let Settings { temperature, top_k, top_p, min_p, repeat_penalty } = self.settings;
        if repeat_penalty != 1.0 {
            penalize(logits, &text[text.len().saturating_sub(REPEAT_WINDOW)..], repeat_penalty);
        }
        if temperature == 0.0 {
            return likeliest(kernels, logits);
        }
        if temperature != 1.0 {
            for logit in logits.iter_mut() {
                *logit /= temperature;
            }
        }
        // At least the likeliest token adds 1 to the sum, if it is a number.
        if !(kernels.softmax(logits) >= 1.0) {
            return None;
        }
        let coin = self.coin();

        // What the filters keep is a head of the falling order; its mass says how long it is.
        let mut order = FallingOrder::new(kernels, logits);
        let (by_k, by_p) = (top_k > 0 && top_k < logits.len(), top_p > 0.0 && top_p < 1.0);
        let mut kept = 1.0;
        if by_k {
            kept = order.find(|_, count| count >= top_k).mass;
        }
        if by_p {
            let target = top_p * kept;
            kept = kept.min(order.find(|mass, _| mass > target).mass);
        }
        if min_p > 0.0 {
            let least = min_p * kernels.max(logits);
            kept = kept.min(kernels.mass_above(logits, least).0);
        } else if !by_k && !by_p {
            return Some(draw(logits, coin));
        }
        let target = coin * kept;
        Some(order.find(|mass, _| mass > target).token)
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

/// The first token with the highest logit; `None` if that is not finite.
fn likeliest(kernels: Kernels, logits: &[f32]) -> Option<u32> {
    let max = kernels.max(logits);
    let token = logits.iter().position(|&logit| logit == max)?;
    max.is_finite().then_some(token as u32)
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

/// Probabilities in falling order, equal ones in the order of the vocabulary, without sorting them: an interval
/// of probabilities is halved until few tokens are in it.
struct FallingOrder<'p> {
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

/// A place in the falling order.
struct Found {
    token: u32,
    /// Sum of the probabilities up to this token, itself included.
    mass: f32,
}

impl<'p> FallingOrder<'p> {
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

    /// The first place where mass and number of the tokens up to it are `enough`; the last place if they never
    /// are.
    fn find(&mut self, enough: impl Fn(f32, usize) -> bool) -> Found {
        // Tokens from `low` on are enough, or they are all; those from `high` on are not, or there are none.
        let top = Measured { bits: 1.0f32.to_bits() + 1, mass: 0.0, count: 0 };
        let (mut low, mut high) = (self.measured[0], top);
        for measured in &self.measured[1..self.len] {
            if enough(measured.mass, measured.count) {
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
            let bits =
                if low.bits < least && least < high.bits { least } else { low.bits.midpoint(high.bits) };
            let middle = self.measure(bits);
            if enough(middle.mass, middle.count) {
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
    fn walk(&self, low: Measured, high: Measured, enough: impl Fn(f32, usize) -> bool) -> Found {
        let probabilities = self.probabilities;
        let (mut found, mut count) = (Found { token: 0, mass: high.mass }, high.count);
        let mut next = |token: u32| {
            found = Found { token, mass: found.mass + probabilities[token as usize] };
            count += 1;
            enough(found.mass, count)
        };
        let [from, below] = [low.bits, high.bits].map(f32::from_bits);
        if low.count - high.count > CANDIDATES {
            // All of one probability, so in the order of the vocabulary already.
            let same = |&(_, &p): &(usize, &f32)| p >= from && p < below;
            let _ = probabilities.iter().enumerate().filter(same).any(|(token, _)| next(token as u32));
        } else {
            let mut candidates = [0; CANDIDATES];
            let len = self.kernels.between(probabilities, from, below, &mut candidates);
            let probability = |token: &u32| probabilities[*token as usize];
            let falling = |a: &u32, b: &u32| probability(b).total_cmp(&probability(a)).then(a.cmp(b));
            candidates[..len].sort_unstable_by(falling);
            let _ = candidates[..len].iter().any(|&token| next(token));
        }
        found
    }
}
