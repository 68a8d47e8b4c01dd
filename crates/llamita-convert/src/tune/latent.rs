//! Weights while they are tuned: numbers behind the integers, scales, and the optimizer's memory of both.

use half::f16;
use llamita_kernels::quantized::Quant;

use crate::source::Integers;

/// Decay of the means of Adam (Kingma and Ba, 2015).
const DECAY: [f32; 2] = [0.9, 0.99];

/// Running means of a gradient and of its square.
#[derive(Clone, Default)]
struct Adam {
    mean: f32,
    square: f32,
}

impl Adam {
    /// How far to go, in units of the rate.
    fn step(&mut self, gradient: f32, correction: [f32; 2]) -> f32 {
        self.mean += (1.0 - DECAY[0]) * (gradient - self.mean);
        self.square += (1.0 - DECAY[1]) * (gradient * gradient - self.square);
        let square = self.square * correction[1];
        if square > 0.0 { self.mean * correction[0] / square.sqrt() } else { 0.0 }
    }
}

/// How far one step goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// Of weights, in steps of their integers.
    pub integers: f32,
    /// Of scales and norms, in parts of what they are at first.
    pub scales: f32,
    /// What makes up for the means' start from zero.
    correction: [f32; 2],
}

impl Rates {
    /// Rates for a step, which are counted from 0.
    pub fn at(step: usize, integers: f32, scales: f32) -> Self {
        let correction = DECAY.map(|decay| 1.0 / (1.0 - decay.powi(step as i32 + 1)));
        Self { integers, scales, correction }
    }
}

/// A number that is tuned.
#[derive(Clone)]
struct Number {
    value: f32,
    adam: Adam,
}

impl Number {
    fn new(value: f32) -> Self {
        Self { value, adam: Adam::default() }
    }
}

/// A matrix that becomes integers.
///
/// A weight is `scale * clamp(round(latent))`, where the scale of a group is its first one times a factor.
pub(super) struct Latent {
    integers: Integers,
    columns: usize,
    /// (rows, columns), in units of the scales.
    weights: Vec<Number>,
    /// (rows, groups).
    first: Vec<f32>,
    factors: Vec<Number>,
}

impl Latent {
    /// From integers, (rows, columns), and the scales as bits, (rows, groups).
    ///
    /// The numbers behind the integers begin with these themselves: as far as can be from the next ones, so that
    /// only where many gradients agree there is another integer in the end.
    pub fn new(integers: Integers, columns: usize, values: &[i8], scales: &[u16]) -> Self {
        let weights = values.iter().map(|&value| Number::new(value.into())).collect();
        let first: Vec<_> = scales.iter().map(|&scale| f16::from_bits(scale).to_f32()).collect();
        let factors = vec![Number::new(1.0); first.len()];
        Self { integers, columns, weights, first, factors }
    }

    fn range(&self) -> (f32, f32) {
        match self.integers.quant {
            Quant::Q8 => (-127.0, 127.0),
            Quant::Q4 => (-8.0, 7.0),
        }
    }

    /// The groups in order: weights, first scales and factors.
    fn groups(&self) -> impl Iterator<Item = (&[Number], f32, &Number)> {
        let rows = self.weights.chunks_exact(self.columns);
        let groups = rows.flat_map(|row| row.chunks(self.integers.group));
        groups.zip(&self.first).zip(&self.factors).map(|((group, &first), factor)| (group, first, factor))
    }

    /// The scale of a group, as it is stored.
    fn scale(first: f32, factor: &Number) -> f16 {
        f16::from_f32(first * factor.value).clamp(f16::MIN, f16::MAX)
    }

    /// The weights as they will be: (rows, columns).
    pub fn rounded(&self, out: &mut Vec<f32>) {
        let (least, most) = self.range();
        out.clear();
        for (group, first, factor) in self.groups() {
            let scale = Self::scale(first, factor);
            let round = |number: &Number| number.value.round_ties_even().clamp(least, most);
            out.extend(group.iter().map(|number| round(number) * scale.to_f32()));
        }
    }

    /// The integers, (rows, columns), and the scales as bits, (rows, groups).
    pub fn integers(&self) -> (Vec<i8>, Vec<u16>) {
        let (least, most) = self.range();
        let (mut values, mut scales) = (Vec::with_capacity(self.weights.len()), Vec::new());
        for (group, first, factor) in self.groups() {
            let scale = Self::scale(first, factor);
            let round = |number: &Number| number.value.round_ties_even().clamp(least, most);
            values.extend(group.iter().map(|number| round(number) as i8));
            scales.push(scale.to_bits());
        }
        (values, scales)
    }

    /// A step against the gradient of the rounded weights. For the numbers behind the integers it is taken as if
    /// rounding were not there (Bengio et al., 2013, "Estimating or propagating gradients through stochastic
    /// neurons"); they stay within the range, so that none is lost beyond it.
    pub fn step(&mut self, gradient: &[f32], rates: Rates) {
        let (least, most) = self.range();
        let (columns, group) = (self.columns, self.integers.group);
        let rows = self.weights.chunks_exact_mut(columns).zip(gradient.chunks_exact(columns));
        let groups = rows.flat_map(|(row, gradient)| row.chunks_mut(group).zip(gradient.chunks(group)));
        for (((weights, gradient), first), factor) in groups.zip(&self.first).zip(&mut self.factors) {
            let mut d_factor = 0.0;
            for (number, gradient) in weights.iter_mut().zip(gradient) {
                let gradient = gradient * first;
                d_factor += gradient * number.value.round_ties_even().clamp(least, most);
                number.value -= rates.integers * number.adam.step(gradient, rates.correction);
                number.value = number.value.clamp(least - 0.5, most + 0.5);
            }
            factor.value -= rates.scales * factor.adam.step(d_factor, rates.correction);
        }
    }
}

/// The weights of a norm: (dim,).
pub(super) struct LatentNorm {
    weights: Vec<Number>,
    /// The mean size at first.
    unit: f32,
}

impl LatentNorm {
    pub fn new(weights: &[f32]) -> Self {
        let unit = weights.iter().map(|weight| weight.abs()).sum::<f32>() / weights.len() as f32;
        Self { weights: weights.iter().copied().map(Number::new).collect(), unit }
    }

    pub fn weights(&self) -> impl Iterator<Item = f32> {
        self.weights.iter().map(|number| number.value)
    }

    pub fn step(&mut self, gradient: &[f32], rates: Rates) {
        for (number, &gradient) in self.weights.iter_mut().zip(gradient) {
            number.value -= rates.scales * self.unit * number.adam.step(gradient, rates.correction);
        }
    }
}
