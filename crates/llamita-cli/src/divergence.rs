//! How far the predictions of two models are apart.

use crate::stories;

/// What two models, A and B, say of the same token of a text.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The negative logarithm of its probability under each, in nats.
    pub nll: [f64; 2],
    /// The token that each holds for the most probable; the first of several.
    pub greedy: [u32; 2],
    /// The Kullback-Leibler divergence D(A‖B) of the distributions over the vocabulary, in nats.
    pub kl: f64,
}

/// Compares two models' logits over one vocabulary where the text has `token`.
pub fn pair(a: &[f32], b: &[f32], token: u32) -> Pair {
    let (max_a, max_b) = (stories::max(a), stories::max(b));
    let (mut sum_a, mut sum_b, mut apart) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (f64::from(a) - max_a, f64::from(b) - max_b);
        let weight = a.exp();
        sum_a += weight;
        sum_b += b.exp();
        apart += weight * (a - b);
    }
    let (log_a, log_b) = (sum_a.ln(), sum_b.ln());
    let nll = |logits: &[f32], max, log_sum| max + log_sum - f64::from(logits[token as usize]);
    let kl = apart / sum_a + log_b - log_a;
    Pair {
        nll: [nll(a, max_a, log_a), nll(b, max_b, log_b)],
        greedy: [greedy(a), greedy(b)],
        // Rounding may take a divergence of nothing below 0; what is no number stays none.
        kl: if kl < 0.0 { 0.0 } else { kl },
    }
}

/// The first of the tokens with the highest logit.
fn greedy(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = token;
        }
    }
    best as u32
}

/// A number with the interval that holds the true one in 95 of 100 samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The number that was found.
    pub value: f64,
    /// The ends of the interval.
    pub interval: [f64; 2],
}

/// Standard deviations on either side of the mean that hold 95 % of a normal distribution.
const Z: f64 = 1.959_964;

impl Estimate {
    /// A share of `hits` in `count`, with the interval of Wilson (1927), which is never beyond 0 or 1.
    pub fn share(hits: usize, count: usize) -> Self {
        let n = count as f64;
        let value = hits as f64 / n;
        let scale = 1.0 / (1.0 + Z * Z / n);
        let middle = (value + Z * Z / (2.0 * n)) * scale;
        let half = (value * (1.0 - value) / n + Z * Z / (4.0 * n * n)).sqrt() * Z * scale;
        Self { value, interval: [(middle - half).clamp(0.0, value), (middle + half).clamp(value, 1.0)] }
    }

    /// The sum of the first numbers over that of the second ones, such as nats over tokens, where each pair
    /// is a sample of its own: tokens of one story are not independent, stories are.
    ///
    /// `None` from fewer than two pairs, of which no spread can be told.
    pub fn ratio(pairs: &[(f64, f64)]) -> Option<Self> {
        let n = pairs.len() as f64;
        let (above, below) = pairs.iter().fold((0.0, 0.0), |sums, pair| (sums.0 + pair.0, sums.1 + pair.1));
        let value = above / below;
        let squares: f64 = pairs.iter().map(|&(above, below)| (above - value * below).powi(2)).sum();
        let half = Z * (squares * n / (n - 1.0)).sqrt() / below;
        (pairs.len() > 1).then_some(Self { value, interval: [value - half, value + half] })
    }

    /// The estimate of a growing function of the number.
    pub fn map(self, function: impl Fn(f64) -> f64) -> Self {
        Self { value: function(self.value), interval: self.interval.map(function) }
    }
}

/// Numbers in rising order, to ask for their quantiles.
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// Sorts the numbers.
    pub fn new(mut numbers: Vec<f64>) -> Self {
        numbers.sort_unstable_by(f64::total_cmp);
        Self(numbers)
    }

    /// The number below which this share of all of them is, between two neighbours where none is; there is
    /// one number at least.
    pub fn quantile(&self, share: f64) -> f64 {
        let place = share.clamp(0.0, 1.0) * (self.0.len() - 1) as f64;
        let below = self.0[place as usize];
        let above = self.0[place.ceil() as usize];
        below + (above - below) * place.fract()
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_measured_as_its_definition_says() {
        // Probabilities 0.5, 0.25, 0.25 and 0.25, 0.5, 0.25, with logits far from 0.
        let logits = |shares: [f32; 3], offset: f32| shares.map(|share| share.ln() + offset);
        let (a, b) = (logits([0.5, 0.25, 0.25], 40.0), logits([0.25, 0.5, 0.25], -7.0));
        let found = pair(&a, &b, 1);
        let (two, four) = (2_f64.ln(), 4_f64.ln());
        assert_eq!(found.greedy, [0, 1]);
        assert!((found.nll[0] - four).abs() < 1e-5 && (found.nll[1] - two).abs() < 1e-5, "{found:?}");
        assert!((found.kl - (0.5 * two - 0.25 * two)).abs() < 1e-5, "{found:?}");
        assert!((found.nll[0] - stories::nll(&a, 1)).abs() < 1e-12);
        assert_eq!(pair(&a, &a, 2).kl, 0.0);
        // The same distribution, but for rounding.
        let shifted = a.map(|logit| logit + 3.0);
        let kl = pair(&a, &shifted, 2).kl;
        assert!((0.0..1e-9).contains(&kl), "{kl}");
        assert!(pair(&[f32::NAN, 0.0], &[0.0, 0.0], 0).kl.is_nan());
    }

    #[test]
    fn of_equal_logits_the_first_is_greedy() {
        assert_eq!(greedy(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(greedy(&[2.0, 2.0]), 0);
    }

    #[test]
    fn intervals_are_those_of_the_books() {
        // 8 of 10: Wilson's interval is 0.4902 to 0.9433.
        let Estimate { value, interval: [low, high] } = Estimate::share(8, 10);
        assert_eq!(value, 0.8);
        assert!((low - 0.4902).abs() < 1e-4 && (high - 0.9433).abs() < 1e-4, "{low} to {high}");
        let all = Estimate::share(50, 50);
        assert!(all.interval[0] > 0.9 && all.interval[1] == 1.0, "{all:?}");
        // With equal denominators the ratio is a mean, and its error the standard error of one.
        let pairs = [1.0, 2.0, 4.0, 5.0].map(|number| (2.0 * number, 2.0));
        let found = Estimate::ratio(&pairs).unwrap();
        let error = (10.0_f64 / 3.0 / 4.0).sqrt();
        assert!((found.value - 3.0).abs() < 1e-12);
        assert!((found.interval[1] - 3.0 - Z * error).abs() < 1e-9, "{found:?}");
        assert_eq!(Estimate::ratio(&pairs[..1]), None);
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let sorted = Sorted::new(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!([0.0, 0.5, 1.0].map(|share| sorted.quantile(share)), [1.0, 2.5, 4.0]);
        assert_eq!((sorted.mean(), sorted.len()), (2.5, 4));
        assert_eq!(Sorted::new(vec![7.0]).quantile(0.99), 7.0);
    }
}
