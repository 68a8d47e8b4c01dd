//! Quantization that knows what the weights are multiplied with.
//!
//! The error of a weight matters as far as its input is large, and what one weight is off by can be made up for
//! by others whose inputs go along with its own. From texts the products of all pairs of inputs of a matrix are
//! summed; a row is then rounded from its first column to its last, and the error of each column is spread over
//! those that are still to come, as GPTQ does (Frantar et al., 2023, "GPTQ: accurate post-training quantization
//! for generative pre-trained transformers"). Groups get the scale of the least error, weighted by the inputs.

use half::f16;
use llamita::weights::{Matrix, Norm, Tensor};
use llamita::{Config, Rows, Weights};
use llamita_kernels::quantized::{Layout, Quant};

use crate::error::Result;
use crate::quantize::{Quantizer, quantize_rows};

/// The part of the mean square that is added to every input's, so that the system can be solved.
const DAMPING: f64 = 0.001;

/// Products of the inputs of every matrix with one another, summed over the tokens of texts.
pub struct Calibration {
    config: Config,
    /// For each input of the tape: (columns, columns), the upper triangle.
    products: Vec<Vec<f32>>,
}

impl Calibration {
    /// Sums of nothing, for a model of this shape.
    pub fn new(config: &Config) -> Self {
        let Config { dim, hidden_dim, .. } = *config;
        let layer = [dim, config.q_dim(), dim, hidden_dim];
        let columns = (0..config.n_layers).flat_map(|_| layer).chain([dim]);
        Self { config: *config, products: columns.map(|columns| vec![0.0; columns * columns]).collect() }
    }

    /// The weights of a model whose passes are to be observed.
    pub fn observe<W: Weights>(&mut self, weights: W) -> Observed<'_, W> {
        Observed { weights, calibration: self }
    }

    /// The place of the input that a matrix is multiplied with.
    fn input(&self, matrix: Matrix) -> usize {
        match matrix {
            Matrix::Wq(layer) | Matrix::Wk(layer) | Matrix::Wv(layer) => 4 * layer,
            Matrix::Wo(layer) => 4 * layer + 1,
            Matrix::W1(layer) | Matrix::W3(layer) => 4 * layer + 2,
            Matrix::W2(layer) => 4 * layer + 3,
            Matrix::Classifier => 4 * self.config.n_layers,
        }
    }

    fn add(&mut self, matrix: Matrix, input: &[f32]) {
        let place = self.input(matrix);
        let products = &mut self.products[place];
        let columns = products.len().isqrt();
        for x in input.chunks_exact(columns) {
            for (i, products) in products.chunks_exact_mut(columns).enumerate() {
                for (product, other) in products[i..].iter_mut().zip(&x[i..]) {
                    *product += x[i] * other;
                }
            }
        }
    }
}

/// Weights that tell a [`Calibration`] what they are multiplied with.
pub struct Observed<'c, W> {
    weights: W,
    calibration: &'c mut Calibration,
}

impl<W: Weights> Weights for Observed<'_, W> {
    type Error = W::Error;

    fn config(&self) -> &Config {
        self.weights.config()
    }

    fn norm(&self, norm: Norm) -> &[f32] {
        self.weights.norm(norm)
    }

    fn embed(&mut self, token: u32, out: &mut [f32]) -> std::result::Result<(), W::Error> {
        self.weights.embed(token, out)
    }

    fn observe(&mut self, first: Matrix, input: &[f32]) {
        self.calibration.add(first, input);
    }

    fn lend<const N: usize>(
        &mut self,
        matrices: [Matrix; N],
        from: [usize; N],
    ) -> std::result::Result<[Rows<'_>; N], W::Error> {
        self.weights.lend(matrices, from)
    }
}

/// Quantizes with what a calibration has seen.
pub struct Calibrated<'c> {
    calibration: &'c Calibration,
    /// The input that was solved for last.
    solved: Option<(usize, Solved)>,
}

/// What the rounding of a row needs to know of its inputs.
struct Solved {
    /// The mean square of each input, in an arbitrary unit: (columns,).
    importance: Vec<f32>,
    /// Where the error of a column goes: row i has at j, above i, the share of column j. (columns, columns)
    shares: Vec<f32>,
}

impl<'c> Calibrated<'c> {
    /// A quantizer with these sums, which are not empty.
    pub const fn new(calibration: &'c Calibration) -> Self {
        Self { calibration, solved: None }
    }

    fn solved(&mut self, input: usize) -> &Solved {
        if self.solved.as_ref().is_none_or(|(known, _)| *known != input) {
            self.solved = None;
        }
        let products = &self.calibration.products[input];
        &self.solved.get_or_insert_with(|| (input, Solved::new(products))).1
    }
}

impl Quantizer for Calibrated<'_> {
    fn quantize(
        &mut self,
        tensor: Tensor,
        _: usize,
        layout: Layout,
        rows: &[f32],
        values: &mut [i8],
        scales: &mut [u16],
    ) -> Result<()> {
        let matrix = match tensor {
            Tensor::Matrix(matrix) => matrix,
            // Multiplied with nothing, unless it is the classifier.
            _ if self.calibration.config.shared_classifier => Matrix::Classifier,
            _ => {
                quantize_rows(layout.quant, layout.group, rows, layout.columns, None, values, scales);
                return Ok(());
            }
        };
        let solved = self.solved(self.calibration.input(matrix));
        let rows = rows.chunks_exact(layout.columns).zip(values.chunks_exact_mut(layout.columns));
        for ((row, values), scales) in rows.zip(scales.chunks_exact_mut(layout.groups())) {
            solved.round(layout.quant, layout.group, &mut row.to_vec(), values, scales);
        }
        Ok(())
    }
}

impl Solved {
    /// From the upper triangle of the inputs' products.
    fn new(products: &[f32]) -> Self {
        let n = products.len().isqrt();
        let at = |i: usize, j: usize| f64::from(products[i.min(j) * n + i.max(j)]);
        let mean = (0..n).map(|i| at(i, i)).sum::<f64>() / n as f64;
        let damping = if mean > 0.0 { mean * DAMPING } else { 1.0 };

        // The inverse, then its Cholesky factor: what is left to decide after each column.
        let damped = |i: usize, j: usize| at(i, j) + if i == j { damping } else { 0.0 };
        let inverse = invert(&cholesky(n, damped), n);
        let factor = cholesky(n, |i, j| inverse[i * n + j]);
        let unit = mean + damping;
        let importance =
            (0..n).map(|i| (1.0 / (factor[i * n + i] * factor[i * n + i] * unit)) as f32).collect();
        let mut shares = vec![0.0; n * n];
        for i in 0..n {
            for j in i + 1..n {
                // The factor is a lower triangle: its column i, in units of the pivot.
                shares[i * n + j] = (factor[j * n + i] / factor[i * n + i]) as f32;
            }
        }
        Self { importance, shares }
    }

    /// Rounds a row: `row` holds what is left of it and is used up.
    fn round(&self, quant: Quant, group: usize, row: &mut [f32], values: &mut [i8], scales: &mut [u16]) {
        let columns = row.len();
        for (index, scale) in scales.iter_mut().enumerate() {
            let start = index * group;
            let end = columns.min(start + group);
            let trials = trial_scales(quant, &row[start..end]);
            let mut numbers = Vec::new();
            let best = trials.map(|trial| {
                numbers.clear();
                numbers.extend_from_slice(&row[start..end]);
                (self.round_group(quant, trial, start, &mut numbers, None), trial)
            });
            let best = best.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(f16::ZERO, |best| best.1);
            *scale = best.to_bits();
            self.round_group(quant, best, start, &mut row[start..], Some(&mut values[start..end]));
        }
    }

    /// Rounds a group that begins at column `start`: its numbers, and those of later columns, to which errors
    /// are passed on. Returns what the error costs.
    fn round_group(
        &self,
        quant: Quant,
        scale: f16,
        start: usize,
        numbers: &mut [f32],
        values: Option<&mut [i8]>,
    ) -> f32 {
        let (least, most) = match quant {
            Quant::Q8 => (-127.0, 127.0),
            Quant::Q4 => (-8.0, 7.0),
        };
        let columns = self.importance.len();
        let scale = scale.to_f32();
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let count = values.as_ref().map_or(numbers.len(), |values| values.len());
        let mut values = values;
        let mut cost = 0.0;
        for i in 0..count {
            let value = (numbers[i] * inverse).round_ties_even().clamp(least, most);
            let error = numbers[i] - value * scale;
            cost += error * error * self.importance[start + i];
            if let Some(values) = &mut values {
                values[i] = value as i8;
            }
            let shares = &self.shares[(start + i) * columns + start + i + 1..];
            for (number, share) in numbers[i + 1..].iter_mut().zip(shares) {
                *number -= error * share;
            }
        }
        cost
    }
}

/// Scales that are worth a trial for a group, all finite.
fn trial_scales(quant: Quant, numbers: &[f32]) -> impl Iterator<Item = f16> {
    const Q4: [f32; 20] =
        [5.0, 5.3, 5.6, 5.9, 6.2, 6.5, 6.8, 7.0, 7.2, 7.4, 7.6, 7.8, 8.0, 8.2, 8.4, 8.7, 9.0, 9.4, 9.8, 10.5];
    const Q8: [f32; 2] = [127.0, 126.0];
    let far =
        numbers.iter().fold(0.0_f32, |far, &number| if number.abs() > far.abs() { number } else { far });
    let targets: &[f32] = match quant {
        Quant::Q8 => &Q8,
        Quant::Q4 => &Q4,
    };
    let half = |scale| f16::from_f32(scale).clamp(f16::MIN, f16::MAX);
    // The least numbers of half precision are far apart: a scale that was rounded down may be too small.
    let next = f16::from_bits(half(far / Q8[0]).to_bits() + 1).clamp(f16::MIN, f16::MAX);
    let next = matches!(quant, Quant::Q8).then_some(next);
    targets.iter().flat_map(move |target| [far / target, far / -target]).map(half).chain(next)
}

/// The lower triangle L of L Lᵀ, which is a positive definite matrix: (n, n).
fn cholesky(n: usize, matrix: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut lower = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let (row, other) = (&lower[i * n..][..j], &lower[j * n..][..j]);
            let rest = matrix(i, j) - row.iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
            // Rounding may leave a little less than nothing.
            lower[i * n + j] =
                if i == j { rest.max(f64::MIN_POSITIVE).sqrt() } else { rest / lower[j * n + j] };
        }
    }
    lower
}

/// The inverse of L Lᵀ: (n, n).
fn invert(lower: &[f64], n: usize) -> Vec<f64> {
    // The inverse of L, column by column; stored as rows of its transpose.
    let mut inverse = vec![0.0; n * n];
    for column in 0..n {
        let solution = &mut inverse[column * n..][..n];
        solution[column] = 1.0 / lower[column * n + column];
        for i in column + 1..n {
            let row = &lower[i * n..][..i];
            let sum: f64 = row[column..].iter().zip(&solution[column..i]).map(|(a, b)| a * b).sum();
            solution[i] = -sum / lower[i * n + i];
        }
    }
    let mut product = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            // Both have zeros before `i`.
            let (a, b) = (&inverse[i * n + i..][..n - i], &inverse[j * n + i..][..n - i]);
            let sum = a.iter().zip(b).map(|(a, b)| a * b).sum();
            (product[i * n + j], product[j * n + i]) = (sum, sum);
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs that go along with one another.
    fn inputs(columns: usize, tokens: usize) -> Vec<f32> {
        let mut random = 0x9e37_79b9_u32;
        let mut number = || {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            (random >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let mut inputs = Vec::new();
        for _ in 0..tokens {
            let common = number();
            inputs.extend((0..columns).map(|i| common * (i % 5) as f32 + number() * (1 + i % 3) as f32));
        }
        inputs
    }

    const CONFIG: Config = Config {
        dim: 64,
        hidden_dim: 40,
        n_layers: 1,
        n_heads: 2,
        n_kv_heads: 2,
        head_size: 32,
        vocab_size: 16,
        seq_len: 8,
        norm_eps: 1e-5,
        rope_theta: 1e4,
        shared_classifier: true,
    };

    #[test]
    fn the_inverse_is_one() {
        let x = inputs(7, 50);
        let products: Vec<f64> =
            (0..49).map(|k| x.chunks(7).map(|x| f64::from(x[k / 7]) * f64::from(x[k % 7])).sum()).collect();
        let inverse = invert(&cholesky(7, |i, j| products[i * 7 + j]), 7);
        for i in 0..7 {
            for j in 0..7 {
                let sum: f64 = (0..7).map(|k| products[i * 7 + k] * inverse[k * 7 + j]).sum();
                assert!((sum - f64::from(u8::from(i == j))).abs() < 1e-9, "{i} {j} {sum}");
            }
        }
    }

    #[test]
    fn what_the_inputs_see_of_the_error_gets_smaller() {
        let mut calibration = Calibration::new(&CONFIG);
        let x = inputs(64, 500);
        calibration.add(Matrix::Wq(0), &x);
        let weights = inputs(64, 16);
        let error = |values: &[i8], scales: &[u16]| -> f64 {
            let rows = weights.chunks(64).zip(values.chunks(64)).zip(scales.chunks(2));
            rows.flat_map(|((row, values), scales)| {
                x.chunks(64).map(move |x| {
                    let off = |i: usize| {
                        row[i] - f32::from(values[i]) * half::f16::from_bits(scales[i / 32]).to_f32()
                    };
                    (0..64).map(|i| f64::from(off(i) * x[i])).sum::<f64>().powi(2)
                })
            })
            .sum()
        };
        let layout = Layout { quant: Quant::Q4, rows: 16, columns: 64, group: 32 };
        let (mut values, mut scales) = (vec![0; 16 * 64], vec![0; 32]);
        let tensor = Tensor::Matrix(Matrix::Wq(0));
        let mut measure = |quantizer: &mut dyn Quantizer| {
            quantizer.quantize(tensor, 0, layout, &weights, &mut values, &mut scales).unwrap();
            assert!(values.iter().all(|value| (-8..8).contains(value)));
            error(&values, &scales)
        };
        let plain = measure(&mut crate::quantize::Rounding);
        let calibrated = measure(&mut Calibrated::new(&calibration));
        assert!(calibrated < 0.6 * plain, "{calibrated} against {plain}");
    }

    #[test]
    fn extreme_groups_stay_finite() {
        let calibration = Calibration::new(&CONFIG);
        for quant in [Quant::Q8, Quant::Q4] {
            for number in [0.0, -0.0, 1e-45, -7e-7, 1e-5, 6e4, -6e4, 1e7, -3e38] {
                let layout = Layout { quant, rows: 1, columns: 64, group: 64 };
                let (mut row, mut values, mut scales) = ([0.0; 64], [0; 64], [0]);
                row[5] = number;
                let tensor = Tensor::Matrix(Matrix::Wq(0));
                let mut quantizer = Calibrated::new(&calibration);
                quantizer.quantize(tensor, 0, layout, &row, &mut values, &mut scales).unwrap();
                let scale = half::f16::from_bits(scales[0]).to_f32();
                assert!(scale.is_finite(), "{quant:?}: {number} with scale {scale}");
                let back = f32::from(values[5]) * scale;
                if (1e-5..6.5e4).contains(&number.abs()) {
                    assert!((back / number - 1.0).abs() < 0.01, "{quant:?}: {number} became {back}");
                }
            }
        }
    }

    #[test]
    fn a_calibration_that_saw_nothing_rounds() {
        let calibration = Calibration::new(&CONFIG);
        let layout = Layout { quant: Quant::Q8, rows: 1, columns: 64, group: 32 };
        let row = inputs(64, 1);
        let (mut values, mut scales) = (vec![0; 64], vec![0; 2]);
        let mut quantizer = Calibrated::new(&calibration);
        quantizer.quantize(Tensor::Embedding, 0, layout, &row, &mut values, &mut scales).unwrap();
        for (i, number) in row.iter().enumerate() {
            let step = half::f16::from_bits(scales[i / 32]).to_f32();
            // A scale may be negative.
            assert!((f32::from(values[i]) * step - number).abs() <= 0.51 * step.abs());
        }
    }
}
