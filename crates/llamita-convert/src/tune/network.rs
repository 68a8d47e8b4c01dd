//! The forward pass over a whole text at once, and the way back: how a loss changes with each weight.
//!
//! The engine's own pass keeps nothing that it does not need for the next token. Here each layer keeps the inputs
//! of its products, from which the gradients are made. All arithmetic is of 32 bits; attention is computed once
//! more on the way back, which is cheaper than to keep its probabilities.

use llamita::weights::{Matrix, Norm, Tensor};
use llamita::{Config, Tape};
use llamita_kernels::quantized::Input;
use llamita_kernels::{Kernels, Panel, Rows};

/// Numbers for each tensor, in tape order. A classifier that is shared has none.
pub(super) type Tensors = Vec<Vec<f32>>;

/// A model whose weights are all floats.
pub(super) struct Network<'a> {
    config: Config,
    kernels: Kernels,
    weights: &'a Tensors,
    /// Cosines and sines of each position: (seq_len, head_size) each, as [`Kernels::rope`] takes them.
    rope: &'a [Vec<f32>; 2],
}

/// What a layer was computed from: (tokens, columns) each.
struct Layer {
    x: Vec<f32>,
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    heads: Vec<f32>,
    middle: Vec<f32>,
    middle_normed: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    hidden: Vec<f32>,
}

/// A forward pass.
pub(super) struct Pass {
    layers: Vec<Layer>,
    x: Vec<f32>,
    normed: Vec<f32>,
    /// (tokens, vocab_size).
    pub logits: Vec<f32>,
}

/// The place of a matrix among the tensors: a shared classifier is the embedding.
pub(super) fn place(config: &Config, tensor: Tensor) -> usize {
    match tensor {
        Tensor::Matrix(Matrix::Classifier) if config.shared_classifier => 0,
        _ => Tape::index(config, tensor),
    }
}

/// The rotations of all positions: cosines and sines.
pub(super) fn rope(config: &Config) -> [Vec<f32>; 2] {
    let mut factors = [Vec::new(), Vec::new()];
    for position in 0..config.seq_len {
        for pair in 0..config.head_size / 2 {
            let frequency = config.rope_theta.powf(-(2.0 * pair as f32) / config.head_size as f32);
            let (sin, cos) = (position as f32 * frequency).sin_cos();
            factors[0].extend([cos, cos]);
            factors[1].extend([-sin, sin]);
        }
    }
    factors
}

impl<'a> Network<'a> {
    pub fn new(config: &Config, weights: &'a Tensors, rope: &'a [Vec<f32>; 2]) -> Self {
        Self { config: *config, kernels: Kernels::detect(), weights, rope }
    }

    pub const fn config(&self) -> &Config {
        &self.config
    }

    fn matrix(&self, matrix: Matrix) -> &'a [f32] {
        &self.weights[place(&self.config, Tensor::Matrix(matrix))]
    }

    fn norm(&self, norm: Norm) -> &'a [f32] {
        &self.weights[place(&self.config, Tensor::Norm(norm))]
    }

    /// `out = x Wᵀ`: (tokens, rows).
    fn linear(&self, matrix: Matrix, x: &[f32]) -> Vec<f32> {
        let (rows, columns) = Tape::shape(&self.config, Tensor::Matrix(matrix));
        let mut out = vec![0.0; x.len() / columns * rows];
        self.product(x, self.matrix(matrix), columns, &mut out, false);
        out
    }

    /// `out = a bᵀ`, or added to it, where rows of both have `columns`: (rows of a, rows of b).
    fn product(&self, a: &[f32], b: &[f32], columns: usize, out: &mut [f32], add: bool) {
        let batch = a.len() / columns;
        self.kernels.matmul(Rows::F32(b), Input::from(a), Panel::new(out, batch), add);
    }

    /// Computes the logits after each token.
    pub fn forward(&self, tokens: &[u32]) -> Pass {
        let Config { dim, n_layers, vocab_size, .. } = self.config;
        let embedding = &self.weights[0];
        let mut x: Vec<f32> =
            tokens.iter().flat_map(|&token| &embedding[token as usize * dim..][..dim]).copied().collect();
        let mut layers = Vec::with_capacity(n_layers);
        for layer in 0..n_layers {
            let normed = self.rmsnorm(&x, self.norm(Norm::Attention(layer)));
            let mut q = self.linear(Matrix::Wq(layer), &normed);
            let mut k = self.linear(Matrix::Wk(layer), &normed);
            let v = self.linear(Matrix::Wv(layer), &normed);
            self.rotate(&mut q, self.config.q_dim(), true);
            self.rotate(&mut k, self.config.kv_dim(), true);
            let heads = self.attention(&q, &k, &v);
            let mut middle = self.linear(Matrix::Wo(layer), &heads);
            add(&mut middle, &x);

            let middle_normed = self.rmsnorm(&middle, self.norm(Norm::FeedForward(layer)));
            let gate = self.linear(Matrix::W1(layer), &middle_normed);
            let up = self.linear(Matrix::W3(layer), &middle_normed);
            let mut hidden = gate.clone();
            self.kernels.swiglu(&mut hidden, &up);
            let mut next = self.linear(Matrix::W2(layer), &hidden);
            add(&mut next, &middle);
            let x = std::mem::replace(&mut x, next);
            layers.push(Layer { x, normed, q, k, v, heads, middle, middle_normed, gate, up, hidden });
        }
        let normed = self.rmsnorm(&x, self.norm(Norm::Final));
        let logits = self.linear(Matrix::Classifier, &normed);
        debug_assert_eq!(logits.len(), tokens.len() * vocab_size);
        Pass { layers, x, normed, logits }
    }

    /// Adds to `gradients` how a loss changes with each weight, from how it changes with the logits.
    pub fn backward(&self, tokens: &[u32], pass: &Pass, d_logits: &[f32], gradients: &mut Tensors) {
        let Config { dim, n_layers, .. } = self.config;
        let d_normed = self.linear_back(Matrix::Classifier, &pass.normed, d_logits, gradients);
        let mut dx = vec![0.0; tokens.len() * dim];
        self.rmsnorm_back(Norm::Final, &pass.x, &d_normed, &mut dx, gradients);
        for (layer, saved) in (0..n_layers).zip(&pass.layers).rev() {
            let d_hidden = self.linear_back(Matrix::W2(layer), &saved.hidden, &dx, gradients);
            let [d_gate, d_up] = swiglu_back(&saved.gate, &saved.up, &d_hidden);
            let mut d_normed = self.linear_back(Matrix::W1(layer), &saved.middle_normed, &d_gate, gradients);
            add(&mut d_normed, &self.linear_back(Matrix::W3(layer), &saved.middle_normed, &d_up, gradients));
            self.rmsnorm_back(Norm::FeedForward(layer), &saved.middle, &d_normed, &mut dx, gradients);

            let d_heads = self.linear_back(Matrix::Wo(layer), &saved.heads, &dx, gradients);
            let [mut dq, mut dk, dv] = self.attention_back(saved, &d_heads);
            self.rotate(&mut dq, self.config.q_dim(), false);
            self.rotate(&mut dk, self.config.kv_dim(), false);
            let mut d_normed = self.linear_back(Matrix::Wq(layer), &saved.normed, &dq, gradients);
            add(&mut d_normed, &self.linear_back(Matrix::Wk(layer), &saved.normed, &dk, gradients));
            add(&mut d_normed, &self.linear_back(Matrix::Wv(layer), &saved.normed, &dv, gradients));
            self.rmsnorm_back(Norm::Attention(layer), &saved.x, &d_normed, &mut dx, gradients);
        }
        for (&token, dx) in tokens.iter().zip(dx.chunks_exact(dim)) {
            add(&mut gradients[0][token as usize * dim..][..dim], dx);
        }
    }

    /// Adds the gradient of a matrix, and returns that of its input.
    fn linear_back(&self, matrix: Matrix, x: &[f32], d_out: &[f32], gradients: &mut Tensors) -> Vec<f32> {
        let (rows, columns) = Tape::shape(&self.config, Tensor::Matrix(matrix));
        let tokens = x.len() / columns;
        let gradient = &mut gradients[place(&self.config, Tensor::Matrix(matrix))];
        self.product(&transpose(d_out, rows), &transpose(x, columns), tokens, gradient, true);
        let mut dx = vec![0.0; x.len()];
        self.product(d_out, &transpose(self.matrix(matrix), columns), rows, &mut dx, false);
        dx
    }

    fn rmsnorm(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            self.kernels.scale(x, self.inverse_rms(x), weight, out);
        }
        out
    }

    fn inverse_rms(&self, x: &[f32]) -> f32 {
        1.0 / (self.kernels.sum_of_squares(x) / x.len() as f32 + self.config.norm_eps).sqrt()
    }

    /// Adds the gradients of a norm and of its input.
    fn rmsnorm_back(&self, norm: Norm, x: &[f32], d_out: &[f32], dx: &mut [f32], gradients: &mut Tensors) {
        let weight = self.norm(norm);
        let gradient = &mut gradients[place(&self.config, Tensor::Norm(norm))];
        let n = weight.len();
        for ((x, d_out), dx) in x.chunks_exact(n).zip(d_out.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
            let inverse = self.inverse_rms(x);
            let sum: f32 = x.iter().zip(d_out).zip(weight).map(|((x, d), w)| x * d * w).sum();
            let common = inverse * inverse * inverse * sum / n as f32;
            for i in 0..n {
                gradient[i] += x[i] * inverse * d_out[i];
                dx[i] += inverse * weight[i] * d_out[i] - common * x[i];
            }
        }
    }

    /// Turns the heads of each token, (tokens, width), to their positions, or back.
    fn rotate(&self, x: &mut [f32], width: usize, forth: bool) {
        let size = self.config.head_size;
        let [cos, sin] = self.rope;
        for (token, heads) in x.chunks_exact_mut(width).enumerate() {
            let cos = &cos[token * size..][..size];
            let mut sin = sin[token * size..][..size].to_vec();
            if !forth {
                sin.iter_mut().for_each(|sin| *sin = -*sin);
            }
            heads.chunks_exact_mut(size).for_each(|head| self.kernels.rope(head, cos, &sin));
        }
    }

    /// The probabilities of a query head's attention: (tokens, tokens).
    fn probabilities(&self, q: &[f32], k: &[f32]) -> Vec<f32> {
        let size = self.config.head_size;
        let tokens = q.len() / size;
        let scale = 1.0 / (size as f32).sqrt();
        let mut scores = vec![0.0; tokens * tokens];
        self.product(q, k, size, &mut scores, false);
        for (token, scores) in scores.chunks_exact_mut(tokens).enumerate() {
            let (past, future) = scores.split_at_mut(token + 1);
            past.iter_mut().for_each(|score| *score *= scale);
            self.kernels.softmax(past);
            future.fill(0.0);
        }
        scores
    }

    fn attention(&self, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
        let Config { n_heads, n_kv_heads, head_size, .. } = self.config;
        let tokens = q.len() / self.config.q_dim();
        let mut out = vec![0.0; q.len()];
        for head in 0..n_heads {
            let shared = head / (n_heads / n_kv_heads);
            let probabilities =
                self.probabilities(&part(q, n_heads, head, tokens), &part(k, n_kv_heads, shared, tokens));
            let values = transpose(&part(v, n_kv_heads, shared, tokens), head_size);
            let mut heads = vec![0.0; tokens * head_size];
            self.product(&probabilities, &values, tokens, &mut heads, false);
            add_part(&mut out, n_heads, head, &heads, tokens);
        }
        out
    }

    /// The gradients of queries, keys and values.
    fn attention_back(&self, layer: &Layer, d_heads: &[f32]) -> [Vec<f32>; 3] {
        let Config { n_heads, n_kv_heads, head_size, .. } = self.config;
        let Layer { q, k, v, .. } = layer;
        let tokens = q.len() / self.config.q_dim();
        let scale = 1.0 / (head_size as f32).sqrt();
        let mut gradients = [q, k, v].map(|x| vec![0.0; x.len()]);
        for head in 0..n_heads {
            let shared = head / (n_heads / n_kv_heads);
            let q = part(q, n_heads, head, tokens);
            let [k, v] = [k, v].map(|x| part(x, n_kv_heads, shared, tokens));
            let d_out = part(d_heads, n_heads, head, tokens);
            let probabilities = self.probabilities(&q, &k);

            let mut d_scores = vec![0.0; tokens * tokens];
            self.product(&d_out, &v, head_size, &mut d_scores, false);
            for (p, d) in probabilities.chunks_exact(tokens).zip(d_scores.chunks_exact_mut(tokens)) {
                let mean = self.kernels.dot(p, d);
                p.iter().zip(d).for_each(|(p, d)| *d = scale * p * (*d - mean));
            }
            let products = [
                (&d_scores, &k),
                (&transpose(&d_scores, tokens), &q),
                (&transpose(&probabilities, tokens), &d_out),
            ];
            let places = [(n_heads, head), (n_kv_heads, shared), (n_kv_heads, shared)];
            for ((gradient, (a, b)), (count, index)) in gradients.iter_mut().zip(products).zip(places) {
                let mut found = vec![0.0; tokens * head_size];
                self.product(a, &transpose(b, head_size), tokens, &mut found, false);
                add_part(gradient, count, index, &found, tokens);
            }
        }
        gradients
    }
}

/// The gradients of both sides of the feed-forward layer.
fn swiglu_back(gate: &[f32], up: &[f32], d_hidden: &[f32]) -> [Vec<f32>; 2] {
    let sides = gate.iter().zip(up).zip(d_hidden).map(|((gate, up), d)| {
        let sigmoid = 1.0 / (1.0 + (-gate).exp());
        (d * up * sigmoid * (1.0 + gate * (1.0 - sigmoid)), d * gate * sigmoid)
    });
    let (d_gate, d_up) = sides.unzip();
    [d_gate, d_up]
}

fn add(to: &mut [f32], other: &[f32]) {
    to.iter_mut().zip(other).for_each(|(to, other)| *to += other);
}

/// (rows, columns) to (columns, rows).
fn transpose(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len() / columns;
    let mut out = vec![0.0; matrix.len()];
    for (i, row) in matrix.chunks_exact(columns).enumerate() {
        for (j, &number) in row.iter().enumerate() {
            out[j * rows + i] = number;
        }
    }
    out
}

/// One of `count` heads of each token: (tokens, head_size).
fn part(x: &[f32], count: usize, index: usize, tokens: usize) -> Vec<f32> {
    let width = x.len() / tokens;
    let size = width / count;
    x.chunks_exact(width).flat_map(|x| &x[index * size..][..size]).copied().collect()
}

/// Adds to one of `count` heads of each token.
fn add_part(x: &mut [f32], count: usize, index: usize, head: &[f32], tokens: usize) {
    let width = x.len() / tokens;
    let size = width / count;
    let tokens = x.chunks_exact_mut(width).zip(head.chunks_exact(size));
    tokens.for_each(|(x, head)| add(&mut x[index * size..][..size], head));
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Config = Config {
        dim: 12,
        hidden_dim: 10,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_size: 4,
        vocab_size: 9,
        seq_len: 8,
        norm_eps: 1e-5,
        rope_theta: 1e4,
        shared_classifier: true,
    };

    fn weights(config: &Config) -> Tensors {
        let mut random = 0x9e37_79b9_u32;
        let mut number = move || {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            (random >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let tensors = Tape::tensors(config).map(|tensor| match tensor {
            Tensor::Norm(_) => (0..config.dim).map(|_| 1.0 + 0.3 * number()).collect(),
            Tensor::Matrix(Matrix::Classifier) if config.shared_classifier => Vec::new(),
            _ => {
                let (rows, columns) = Tape::shape(config, tensor);
                (0..rows * columns).map(|_| 0.7 * number()).collect()
            }
        });
        tensors.collect()
    }

    /// Gradients of the sum of logits, each times a number of its own, against differences.
    #[test]
    fn gradients_are_what_differences_tell() {
        for shared_classifier in [true, false] {
            let config = Config { shared_classifier, ..CONFIG };
            let rope = rope(&config);
            let tokens = [1, 5, 2, 2, 8, 0, 7];
            let factor = |i: usize| ((i * 7919 % 13) as f32 - 6.0) / 6.0;
            let loss = |weights: &Tensors| {
                let logits = Network::new(&config, weights, &rope).forward(&tokens).logits;
                logits.iter().enumerate().map(|(i, &x)| f64::from(x * factor(i))).sum::<f64>()
            };
            let mut weights = weights(&config);
            let mut gradients: Tensors = weights.iter().map(|tensor| vec![0.0; tensor.len()]).collect();
            let network = Network::new(&config, &weights, &rope);
            let pass = network.forward(&tokens);
            let d_logits: Vec<f32> = (0..pass.logits.len()).map(factor).collect();
            network.backward(&tokens, &pass, &d_logits, &mut gradients);
            for tensor in 0..weights.len() {
                for i in (0..weights[tensor].len()).step_by(5) {
                    let weight = weights[tensor][i];
                    let step = 1e-2;
                    let [high, low] = [step, -step].map(|step| {
                        weights[tensor][i] = weight + step;
                        loss(&weights)
                    });
                    weights[tensor][i] = weight;
                    let (found, expected) = (gradients[tensor][i], (high - low) / f64::from(2.0 * step));
                    assert!(
                        (f64::from(found) - expected).abs() < 0.01 * (1.0 + expected.abs()),
                        "tensor {tensor}, weight {i}: {found}, expected {expected}"
                    );
                }
            }
        }
    }
}
