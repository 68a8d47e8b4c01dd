//! The model as tensors with gradients: the forward pass in paper order, over a batch of sequences.
//!
//! Weights are in tape order, (rows, columns) each, norms (1, dim). Rows of queries and keys have the elements of a
//! head that rope turns as a pair half a head apart, as Hugging Face has them: halves are cut faster than pairs.

use burn::tensor::activation::{log_softmax, silu, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use llamita::weights::{Matrix, Norm, Tensor as Name};
use llamita::{Config, Tape};

use crate::fake_quant;
use crate::settings::FakeQuant;

/// The score of what is in the future: next to no probability beside those of a trained model, which are a few
/// tens at most. With a far lower one, the exponential takes the slow way of numbers too small for 32 bits.
const HIDDEN: f32 = -70.0;

/// The tensors of a model whose classifier is its embedding, in tape order.
pub fn tensors(config: &Config) -> impl Iterator<Item = Name> + use<> {
    Tape::tensors(config).filter(|&tensor| tensor != Name::Matrix(Matrix::Classifier))
}

/// How many weights each of these has.
pub fn sizes(config: &Config) -> impl Iterator<Item = usize> {
    tensors(config).map(|name| {
        let (rows, columns) = Tape::shape(config, name);
        rows * columns
    })
}

/// The values of one of these on a device: (rows, columns).
pub fn on_device(config: &Config, name: Name, values: &[f32], device: &Device) -> Tensor<2> {
    let (rows, columns) = Tape::shape(config, name);
    Tensor::from_data(TensorData::new(values.to_vec(), [rows, columns]), device)
}

/// Random weights to begin with, in tape order: normal, 0.02 wide, and narrower where they write to the residual
/// stream, which all layers do (Radford et al., 2019); norms are 1.
pub fn initial(config: &Config, seed: u64) -> Vec<Vec<f32>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let residual = 0.02 / (2.0 * config.n_layers as f32).sqrt();
    let tensors = tensors(config).map(|name| {
        let (rows, columns) = Tape::shape(config, name);
        let deviation = match name {
            Name::Norm(_) => return vec![1.0; columns],
            Name::Matrix(Matrix::Wo(_) | Matrix::W2(_)) => residual,
            _ => 0.02,
        };
        (0..rows * columns).map(|_| deviation * normal(&mut random)).collect()
    });
    tensors.collect()
}

/// A normally distributed number (Box and Muller, 1958).
fn normal(random: &mut fastrand::Rng) -> f32 {
    let (radius, angle) = (1.0 - random.f32(), random.f32());
    (-2.0 * radius.ln()).sqrt() * (std::f32::consts::TAU * angle).cos()
}

/// What is left out of the inputs of the residual stream while training (Srivastava et al., 2014).
pub struct Dropout {
    /// The share that is left out.
    pub share: f64,
    /// Decides what is.
    pub random: fastrand::Rng,
}

impl Dropout {
    /// Leaves nothing out.
    pub fn none() -> Self {
        Self { share: 0.0, random: fastrand::Rng::with_seed(0) }
    }

    fn apply(&mut self, x: Tensor<2>) -> Tensor<2> {
        if self.share == 0.0 {
            return x;
        }
        let [rows, columns] = x.dims();
        let kept = (1.0 / (1.0 - self.share)) as f32;
        let share = self.share as f32;
        let mask = (0..rows * columns).map(|_| if self.random.f32() < share { 0.0 } else { kept });
        let mask = TensorData::new(mask.collect::<Vec<f32>>(), [rows, columns]);
        x.clone() * Tensor::from_data(mask, &x.device())
    }
}

/// The forward pass of a model.
pub struct Network {
    config: Config,
    /// Whether, and to what, weights are rounded before they are used.
    pub fake_quant: Option<FakeQuant>,
}

impl Network {
    /// The forward pass of models of a shape.
    pub const fn new(config: Config) -> Self {
        Self { config, fake_quant: None }
    }

    /// The logits after each token of sequences of one length: (sequences * length, vocab_size).
    ///
    /// `tokens` are (sequences, length), `weights` in tape order.
    pub fn forward(
        &self,
        weights: &[Tensor<2>],
        tokens: &[u32],
        length: usize,
        dropout: &mut Dropout,
    ) -> Tensor<2> {
        let config = &self.config;
        let device = weights[0].device();
        let sequences = tokens.len() / length;
        let shape = Heads { sequences, length, size: config.head_size };
        let rope = Rope::new(config, length, &device);

        let matrix = |matrix| {
            let tensor = Name::Matrix(matrix);
            let weights = weights[Tape::index(config, tensor)].clone();
            fake_quant::rounded(weights, tensor, self.fake_quant).transpose()
        };
        let norm = |norm| weights[Tape::index(config, Name::Norm(norm))].clone();
        let rmsnorm = |x: Tensor<2>, weight| {
            let mean_square = x.clone().square().mean_dim(1);
            x * (mean_square + config.norm_eps).sqrt().recip() * weight
        };

        let embedding = fake_quant::rounded(weights[0].clone(), Name::Embedding, self.fake_quant);
        let mut x = dropout.apply(embedding.clone().select(0, ids(tokens, &device)));
        for layer in 0..config.n_layers {
            let normed = rmsnorm(x.clone(), norm(Norm::Attention(layer)));
            let q = rope.turn(shape.split(normed.clone().matmul(matrix(Matrix::Wq(layer)))));
            let k = rope.turn(shape.split(normed.clone().matmul(matrix(Matrix::Wk(layer)))));
            let v = shape.split(normed.matmul(matrix(Matrix::Wv(layer))));

            let heads = shape.attention(q, k, v);
            x = x + dropout.apply(shape.join(heads).matmul(matrix(Matrix::Wo(layer))));

            let normed = rmsnorm(x.clone(), norm(Norm::FeedForward(layer)));
            let gate = silu(normed.clone().matmul(matrix(Matrix::W1(layer))));
            let up = normed.matmul(matrix(Matrix::W3(layer)));
            x = x + dropout.apply((gate * up).matmul(matrix(Matrix::W2(layer))));
        }
        rmsnorm(x, norm(Norm::Final)).matmul(embedding.transpose())
    }
}

/// Queries whose scores are computed at once: they need no keys after the last of them, which saves up to half.
const QUERIES: usize = 128;

/// Queries, keys and values as heads: (sequences, heads, length, size).
struct Heads {
    sequences: usize,
    length: usize,
    size: usize,
}

impl Heads {
    /// From (sequences * length, heads * size).
    fn split(&self, x: Tensor<2>) -> Tensor<4> {
        let heads = x.dims()[1] / self.size;
        x.reshape([self.sequences, self.length, heads, self.size]).swap_dims(1, 2)
    }

    /// The values, weighted by how well their keys fit the queries; the heads of queries share those of keys and
    /// values in groups.
    fn attention(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
        let ([sequences, n_heads, length, size], [_, n_kv_heads, ..]) = (q.dims(), k.dims());
        let group = n_heads / n_kv_heads;
        let q = q / (size as f32).sqrt();
        let blocks = (0..length).step_by(QUERIES).map(|first| {
            let count = QUERIES.min(length - first);
            let keys = first + count;
            let hidden =
                Tensor::<2>::ones([count, keys], &q.device()).triu(first as i64 + 1).greater_elem(0.5);
            // The query heads that share keys and values lie one behind the other, as if they were one longer.
            let q = q.clone().narrow(2, first, count).reshape([sequences, n_kv_heads, group * count, size]);
            let scores = q.matmul(k.clone().narrow(2, 0, keys).transpose());
            let scores = scores.reshape([sequences, n_heads, count, keys]);
            let probabilities = softmax(scores.mask_fill(hidden.unsqueeze(), HIDDEN), 3);
            let probabilities = probabilities.reshape([sequences, n_kv_heads, group * count, keys]);
            let heads = probabilities.matmul(v.clone().narrow(2, 0, keys));
            heads.reshape([sequences, n_heads, count, size])
        });
        Tensor::cat(blocks.collect(), 2)
    }

    /// And back.
    fn join(&self, x: Tensor<4>) -> Tensor<2> {
        let heads = x.dims()[1];
        x.swap_dims(1, 2).reshape([self.sequences * self.length, heads * self.size])
    }
}

/// Rotations by position (Su et al., 2021): cosines and sines, (1, 1, length, size / 2).
struct Rope {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rope {
    fn new(config: &Config, length: usize, device: &Device) -> Self {
        let half = config.head_size / 2;
        let angles = (0..length).flat_map(|position| {
            (0..half).map(move |pair| {
                let frequency =
                    f64::from(config.rope_theta).powf(-(2.0 * pair as f64) / config.head_size as f64);
                position as f64 * frequency
            })
        });
        let angles: Vec<f64> = angles.collect();
        let table = |function: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&angle| function(angle) as f32).collect();
            Tensor::from_data(TensorData::new(values, [1, 1, length, half]), device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Turns heads, (sequences, heads, length, size).
    fn turn(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (first, second) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let Self { cos, sin } = self;
        let turned = [
            first.clone() * cos.clone() - second.clone() * sin.clone(),
            first * sin.clone() + second * cos.clone(),
        ];
        Tensor::cat(turned.to_vec(), 3)
    }
}

fn ids(tokens: &[u32], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    Tensor::from_data(TensorData::new(ids, [tokens.len()]), device)
}

/// The mean of the negative logarithms of the probabilities of these tokens, in nats.
pub fn cross_entropy(log_probabilities: Tensor<2>, tokens: &[u32]) -> Tensor<1> {
    let ids = ids(tokens, &log_probabilities.device()).reshape([tokens.len(), 1]);
    log_probabilities.gather(1, ids).mean().neg()
}

/// The mean cross-entropy of the student's predictions with the teacher's, in nats: the divergence of both
/// (Kullback and Leibler), and the entropy of the teacher's, which the student does not change.
pub fn divergence(log_probabilities: Tensor<2>, teacher_logits: Tensor<2>) -> Tensor<1> {
    let [tokens, _] = log_probabilities.dims();
    let probabilities = Tensor::from_inner(softmax(teacher_logits, 1));
    (log_probabilities * probabilities).sum().neg() / tokens as f32
}

/// The logarithms of the probabilities that logits stand for.
pub fn log_probabilities(logits: Tensor<2>) -> Tensor<2> {
    log_softmax(logits, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub const CONFIG: Config = Config {
        dim: 24,
        hidden_dim: 40,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_size: 6,
        vocab_size: 30,
        seq_len: 160,
        norm_eps: 1e-5,
        rope_theta: 1e4,
        shared_classifier: true,
    };

    /// Weights that are large enough for every part to matter.
    fn weights() -> Vec<Vec<f32>> {
        let mut random = fastrand::Rng::with_seed(5);
        let mut weights = initial(&CONFIG, 3);
        for (tensor, values) in super::tensors(&CONFIG).zip(&mut weights) {
            let spread = |value: &mut f32| match tensor {
                Name::Norm(_) => *value += 0.3 * normal(&mut random),
                _ => *value *= 12.0,
            };
            values.iter_mut().for_each(spread);
        }
        weights
    }

    fn tokens(count: usize) -> Vec<u32> {
        let mut random = fastrand::Rng::with_seed(9);
        (0..count).map(|_| random.u32(0..30)).collect()
    }

    fn tensors(values: &[Vec<f32>]) -> Vec<Tensor<2>> {
        let device = Device::flex().autodiff();
        let tensors = super::tensors(&CONFIG).zip(values);
        tensors.map(|(name, values)| on_device(&CONFIG, name, values, &device).require_grad()).collect()
    }

    /// The loss as the trainer has it, with a teacher and with numbers left out.
    fn loss(tensors: &[Tensor<2>]) -> Tensor<1> {
        let (given, predicted) = (tokens(2 * 7), tokens(2 * 7 + 1)[1..].to_vec());
        let mut dropout = Dropout { share: 0.1, random: fastrand::Rng::with_seed(4) };
        let logits = Network::new(CONFIG).forward(tensors, &given, 7, &mut dropout);
        let teacher: Vec<f32> = (0..14 * 30).map(|i| (i as f32 * 1.7).sin()).collect();
        let teacher = Tensor::from_data(TensorData::new(teacher, [14, 30]), &Device::flex());
        let log_probabilities = log_probabilities(logits);
        cross_entropy(log_probabilities.clone(), &predicted) + divergence(log_probabilities, teacher) * 0.7
    }

    fn value(loss: Tensor<1>) -> f64 {
        loss.into_scalar::<f32>().into()
    }

    /// For each tensor, the slope of the loss in a random direction is what the gradient says.
    #[test]
    fn gradients_are_those_of_finite_differences() {
        let values = weights();
        let leaves = tensors(&values);
        let gradients = loss(&leaves).backward();
        let mut random = fastrand::Rng::with_seed(2);
        for (place, name) in super::tensors(&CONFIG).enumerate() {
            let gradient: Vec<f32> =
                leaves[place].grad(&gradients).unwrap().into_data().try_to_vec().unwrap();
            let direction: Vec<f32> = gradient.iter().map(|_| normal(&mut random)).collect();
            let expected: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
            let length: f64 = gradient.iter().map(|&g| f64::from(g * g)).sum::<f64>().sqrt();
            assert!(length > 1e-3, "{name:?} takes no part");
            let at = |step: f32| {
                let mut values = values.clone();
                values[place].iter_mut().zip(&direction).for_each(|(value, d)| *value += step * d);
                value(loss(&tensors(&values)))
            };
            let step = 4e-3;
            // Of fourth order, so that the step can be wide enough for 32 bits.
            let slope = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step)))
                / (12.0 * f64::from(step));
            assert!(
                (slope - expected).abs() < 0.01 * length,
                "{name:?}: {slope}, expected {expected}, of {length}"
            );
        }
    }

    /// No token says anything about one before it, in one block of queries or several.
    #[test]
    fn the_future_is_hidden() {
        let tensors = tensors(&weights());
        let given = tokens(150);
        let logits = |given: &[u32]| -> Vec<f32> {
            let logits = Network::new(CONFIG).forward(&tensors, given, given.len(), &mut Dropout::none());
            logits.into_data().try_to_vec().unwrap()
        };
        let all = logits(&given);
        for len in [1, 100, 128, 129, 140] {
            let part = logits(&given[..len]);
            let difference = part.iter().zip(&all).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference < 1e-4, "{difference} after {len}");
        }
    }

    #[test]
    fn what_is_left_out_is_made_up_for() {
        let mut dropout = Dropout { share: 0.25, random: fastrand::Rng::with_seed(1) };
        let x = Tensor::<2>::ones([100, 100], &Device::flex());
        let found: Vec<f32> = dropout.apply(x).into_data().try_to_vec().unwrap();
        let left_out = found.iter().filter(|&&value| value == 0.0).count();
        assert!((2300..2700).contains(&left_out), "{left_out}");
        assert!(found.iter().all(|&value| value == 0.0 || (value - 4.0 / 3.0).abs() < 1e-6));
    }
}
