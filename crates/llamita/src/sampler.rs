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

/// Tokens with less than this share of the probability cannot be sorted out of a uniform vocabulary, and
/// more need not be: so many candidates are sorted at most.
const CANDIDATES: usize = 64;

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
        let probabilities = &*logits;
        let coin = self.coin();

        // What the filters keep is a head of the falling order; its mass says how long it is.
        let (by_k, by_p) = (top_k > 0 && top_k < probabilities.len(), top_p > 0.0 && top_p < 1.0);
        let mut kept = 1.0;
        if by_k {
            kept = find(kernels, probabilities, |_, count| count >= top_k, 0.0).mass;
        }
        if by_p {
            let target = top_p * kept;
            kept = kept.min(find(kernels, probabilities, |mass, _| mass > target, target).mass);
        }
        if min_p > 0.0 {
            let least = min_p * kernels.max(probabilities);
            kept = kept.min(kernels.mass_above(probabilities, least).0);
        } else if !by_k && !by_p {
            return Some(draw(probabilities, coin));
        }
        let target = coin * kept;
        Some(find(kernels, probabilities, |mass, _| mass > target, target).token)
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

/// A place in the order of falling probability, equal ones in the order of the vocabulary.
struct Found {
    token: u32,
    /// Sum of the probabilities up to this token, itself included.
    mass: f32,
}

/// The first place in the falling order where mass and count of the tokens up to it are `enough`; the last
/// place if they never are. `target` is a mass that is not enough, the larger the better, or 0.
fn find(kernels: Kernels, probabilities: &[f32], enough: impl Fn(f32, usize) -> bool, target: f32) -> Found {
    // Bits of positive floats are ordered as the floats are, so an interval of bits is one of probabilities:
    // tokens from `low` on are enough, those from `high` on are not.
    let (mut high, mut high_mass, mut high_count) = (f32::INFINITY.to_bits(), 0.0, 0);
    // If all tokens below this were missing, their mass would not make up for what is missing to the target.
    let share = (1.0 - target) / probabilities.len() as f32 * 0.9;
    let mut low = if target > 0.0 { share.max(0.0).to_bits() } else { 0 };
    let (mass, mut low_count) = kernels.mass_above(probabilities, f32::from_bits(low));
    if !enough(mass, low_count) {
        (low, low_count) = (0, probabilities.len());
    }
    while low_count - high_count > CANDIDATES && high - low > 1 {
        let middle = low + (high - low) / 2;
        let (mass, count) = kernels.mass_above(probabilities, f32::from_bits(middle));
        if enough(mass, count) {
            (low, low_count) = (middle, count);
        } else {
            (high, high_mass, high_count) = (middle, mass, count);
        }
    }
    if low_count <= CANDIDATES {
        // Few enough to add up from the first, as llama2.c does.
        (high, high_mass, high_count) = (f32::INFINITY.to_bits(), 0.0, 0);
    }

    let mut found = Found { token: 0, mass: high_mass };
    let mut count = high_count;
    // Adds a token; whether that is enough.
    let mut next = |token: u32| {
        found = Found { token, mass: found.mass + probabilities[token as usize] };
        count += 1;
        enough(found.mass, count)
    };
    let (from, below) = (f32::from_bits(low), f32::from_bits(high));
    let between = probabilities.iter().enumerate().filter(|&(_, &p)| p >= from && p < below);
    let mut tokens = between.map(|(token, _)| token as u32);
    if low_count - high_count > CANDIDATES {
        // All of one probability, so in the order of the vocabulary already.
        let _ = tokens.any(next);
    } else {
        let mut candidates = [0; CANDIDATES];
        let mut len = 0;
        for (candidate, token) in candidates.iter_mut().zip(tokens) {
            *candidate = token;
            len += 1;
        }
        let candidates = &mut candidates[..len];
        let probability = |token: &u32| probabilities[*token as usize];
        candidates.sort_unstable_by(|a, b| probability(b).total_cmp(&probability(a)).then(a.cmp(b)));
        let _ = candidates.iter().any(|&token| next(token));
    }
    found
}
