//! The engine on models of many shapes with random weights: however a text is cut into passes, whoever
//! computes it and wherever the weights come from, the logits have the same bits.

#[path = "format/builder.rs"]
mod builder;
mod common;

use common::{File, Lender, logits, random_model};
use llamita::state::{StateError, cache_len};
use llamita::{
    CacheFormat, Capacity, Config, Engine, Error, Kernels, Resident, Solo, State, Weights, state_len,
};
use llamita_kernels::Threads;

const fn config(dim: usize, hidden: usize, heads: [usize; 2], vocab: usize, shared: bool) -> Config {
    Config {
        dim,
        hidden_dim: hidden,
        n_layers: 2,
        n_heads: heads[0],
        n_kv_heads: heads[1],
        head_size: dim / heads[0],
        vocab_size: vocab,
        seq_len: 64,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        shared_classifier: shared,
    }
}

/// Tails everywhere, grouped and single key heads, a classifier of its own, tiny and wide.
const SHAPES: [Config; 5] = [
    config(64, 172, [8, 4], 512, true),
    config(12, 20, [6, 3], 17, false),
    config(48, 100, [4, 1], 131, true),
    config(96, 33, [2, 2], 40, false),
    config(2, 1, [1, 1], 2, true),
];

fn tokens(config: &Config) -> Vec<u32> {
    (0..45_u32).map(|i| i * 7919 % config.vocab_size as u32).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

/// The forward pass as the paper has it, in double precision, a number at a time.
fn plain_logits(file: &File, config: &Config, tokens: &[u32]) -> Vec<f64> {
    use llamita::Tape;
    use llamita::weights::{Matrix, Norm, Tensor};
    file.with_weights(|mut weights| {
        let mut matrix = |matrix| {
            let (rows, columns) = Tape::shape(config, Tensor::Matrix(matrix));
            let [lent] = weights.lend([matrix], [0]).unwrap();
            let mut floats = vec![0.0; rows * columns];
            floats.chunks_exact_mut(columns).enumerate().for_each(|(row, out)| lent.row(row, out));
            floats
        };
        let product = |w: &[f32], x: &[f64]| -> Vec<f64> {
            w.chunks(x.len()).map(|w| w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()).collect()
        };
        let matrices: Vec<[Vec<f32>; 7]> = (0..config.n_layers)
            .map(|l| {
                [
                    Matrix::Wq(l),
                    Matrix::Wk(l),
                    Matrix::Wv(l),
                    Matrix::Wo(l),
                    Matrix::W1(l),
                    Matrix::W3(l),
                    Matrix::W2(l),
                ]
                .map(&mut matrix)
            })
            .collect();
        let classifier = matrix(Matrix::Classifier);
        let norm = |x: &[f64], norm: Norm| -> Vec<f64> {
            let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
            let scale = 1.0 / (mean + f64::from(config.norm_eps)).sqrt();
            x.iter().zip(weights.norm(norm)).map(|(x, w)| x * scale * f64::from(*w)).collect()
        };
        let size = config.head_size;
        let turn = |x: &mut [f64], position: usize| {
            for head in x.chunks_mut(size) {
                for (i, pair) in head.chunks_mut(2).enumerate() {
                    let angle =
                        position as f64 / f64::from(config.rope_theta).powf((2 * i) as f64 / size as f64);
                    let (sin, cos) = angle.sin_cos();
                    let [a, b] = [pair[0], pair[1]];
                    (pair[0], pair[1]) = (a * cos - b * sin, a * sin + b * cos);
                }
            }
        };
        let mut embedder = weights;
        let mut cache = vec![(Vec::new(), Vec::new()); config.n_layers];
        let mut all = Vec::new();
        for (position, &token) in tokens.iter().enumerate() {
            let mut row = vec![0.0; config.dim];
            embedder.embed(token, &mut row).unwrap();
            let mut x: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            for (layer, [wq, wk, wv, wo, w1, w3, w2]) in matrices.iter().enumerate() {
                let xb = norm(&x, Norm::Attention(layer));
                let (mut q, mut k, v) = (product(wq, &xb), product(wk, &xb), product(wv, &xb));
                turn(&mut q, position);
                turn(&mut k, position);
                let (keys, values) = &mut cache[layer];
                keys.push(k);
                values.push(v);
                let mut heads = Vec::new();
                for (h, q) in q.chunks(size).enumerate() {
                    let group = h * config.n_kv_heads / config.n_heads * size;
                    let score = |k: &Vec<f64>| -> f64 {
                        let sum: f64 = q.iter().zip(&k[group..]).map(|(q, k)| q * k).sum();
                        (sum / (size as f64).sqrt()).exp()
                    };
                    let scores: Vec<f64> = keys.iter().map(score).collect();
                    let sum: f64 = scores.iter().sum();
                    heads.extend((0..size).map(|i| {
                        scores.iter().zip(values.iter()).map(|(s, v)| s / sum * v[group + i]).sum::<f64>()
                    }));
                }
                x.iter_mut().zip(product(wo, &heads)).for_each(|(x, y)| *x += y);
                let xb = norm(&x, Norm::FeedForward(layer));
                let gate = product(w1, &xb);
                let hidden: Vec<f64> =
                    gate.iter().zip(product(w3, &xb)).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                x.iter_mut().zip(product(w2, &hidden)).for_each(|(x, y)| *x += y);
            }
            all.extend(product(&classifier, &norm(&x, Norm::Final)));
        }
        all
    })
}

#[test]
fn logits_are_those_of_the_paper_s_formulas() {
    for config in SHAPES {
        let file = random_model(&config);
        let tokens = tokens(&config);
        let expected = plain_logits(&file, &config, &tokens);
        for kernels in [Kernels::SCALAR, Kernels::detect()] {
            let found = file.with_weights(|weights| logits(weights, Solo, kernels, &tokens, 8));
            let worst =
                found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-4, "{config:?}, {}: {worst:e}", kernels.name());
        }
    }
}

#[test]
fn neither_batches_nor_threads_nor_places_change_a_bit() {
    for config in SHAPES {
        let tokens = tokens(&config);
        random_model(&config).with_weights(|weights| {
            let kernels = Kernels::detect();
            let expected = bits(&logits(weights, Solo, kernels, &tokens, 1));
            for batch in [2, 3, 8, 16, 45] {
                let found = logits(weights, Solo, kernels, &tokens, batch);
                assert_eq!(bits(&found), expected, "{config:?} in batches of {batch}");
            }
            for members in [1, 2, 3, 7] {
                let team = || Threads::new(members).unwrap();
                for batch in [1, 16] {
                    let found = logits(weights, team(), kernels, &tokens, batch);
                    assert_eq!(bits(&found), expected, "{config:?} by {members} threads");
                    let lender = Lender::new(weights, 5);
                    let found = logits(lender, team(), kernels, &tokens, batch);
                    assert_eq!(bits(&found), expected, "{config:?} lent, by {members} threads");
                }
            }
            for rows in [1, 3, 8, 1000] {
                for batch in [1, 7] {
                    let found = logits(Lender::new(weights, rows), Solo, kernels, &tokens, batch);
                    assert_eq!(bits(&found), expected, "{config:?}, {rows} rows at once");
                }
            }
        });
    }
}

/// Half-precision weights are used as they are: the same bits as from their conversion to single precision.
#[test]
fn halves_compute_what_their_floats_do() {
    let config = config(20, 36, [2, 1], 7, false);
    let original = random_model(&config);
    let words: Vec<u16> =
        original.bytes().as_chunks().0.iter().map(|word| u16::from_le_bytes(*word)).collect();
    // F16 and BF16, as ggml numbers them.
    for kind in [1, 30] {
        let mut file = builder::Gguf::new(&config);
        for (i, tensor) in file.tensors.iter_mut().enumerate() {
            let count = tensor.data.len() / 4;
            if tensor.name.contains("norm") {
                tensor.data = (0..count).flat_map(|i| (i as f32 / 16.0).to_le_bytes()).collect();
            } else {
                tensor.kind = kind;
                // Any bits, with an exponent that makes neither infinity nor a very large number.
                let bits = words[14 + 97 * i..].iter().take(count).map(|word| word & 0xbbff);
                tensor.data = bits.flat_map(u16::to_le_bytes).collect();
            }
        }
        File::new(&file.bytes()).with_weights(|weights| {
            for kernels in [Kernels::SCALAR, Kernels::detect()] {
                for batch in [1, 5] {
                    let found = logits(weights, Solo, kernels, &[1, 2, 3, 4, 5, 6], batch);
                    let floats = logits(Lender::new(weights, 4), Solo, kernels, &[1, 2, 3, 4, 5, 6], batch);
                    assert!(found.iter().all(|x| x.is_finite()));
                    assert!(found.iter().any(|&x| x != found[0]));
                    assert_eq!(bits(&found), bits(&floats), "type {kind}, {}", kernels.name());
                }
            }
        });
    }
}

/// Calls `f` with an engine of the first shape for 16 positions, 4 tokens and 2 logits at once.
fn with_engine(f: impl FnOnce(Engine<'_, Resident<'_>, Solo>)) {
    random_model(&SHAPES[0]).with_weights(|weights| {
        let capacity = Capacity { context: 16, batch: 4, logits: 2, cache: CacheFormat::F32 };
        let mut memory = vec![f32::NAN; state_len(&SHAPES[0], capacity).unwrap()];
        let state = State::new(&SHAPES[0], capacity, &mut memory).unwrap();
        f(Engine::new(weights, state, Solo, Kernels::detect()));
    });
}

#[test]
fn a_pass_reads_every_matrix_once_whatever_its_batch() {
    random_model(&SHAPES[0]).with_weights(|weights| {
        let capacity = Capacity { context: 16, batch: 4, logits: 2, cache: CacheFormat::F32 };
        let config = SHAPES[0];
        let layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 172 * 64;
        let body = 4 * (config.n_layers * layer) as u64;
        for (tokens, logits, expected) in
            [(4, 0, body), (1, 1, body + 4 * 512 * 64), (4, 2, body + 4 * 512 * 64)]
        {
            let mut memory = vec![0.0; state_len(&config, capacity).unwrap()];
            let state = State::new(&config, capacity, &mut memory).unwrap();
            let mut engine = Engine::new(Lender::new(weights, 9), state, Solo, Kernels::detect());
            engine.forward(&[1, 2, 3, 4][..tokens], 0, logits).unwrap();
            assert_eq!(engine.weights().bytes, expected);
        }
    });
}

#[test]
fn going_back_forgets_what_came_after() {
    with_engine(|mut engine| {
        engine.forward(&[1, 2, 3, 4], 0, 1).unwrap();
        let expected = bits(engine.forward(&[5], 4, 1).unwrap());
        engine.forward(&[9, 9, 9], 4, 1).unwrap();
        engine.forward(&[8, 8, 8], 7, 1).unwrap();
        assert_eq!(bits(engine.forward(&[5], 4, 1).unwrap()), expected);
    });
}

#[test]
fn a_pass_that_does_not_fit_is_refused() {
    with_engine(|mut engine| {
        let mut error = |tokens: &[u32], position, logits| {
            engine.forward(tokens, position, logits).map(|_| ()).unwrap_err().to_string()
        };
        assert_eq!(error(&[], 0, 0), "a pass of 0 tokens, expected 1 to 4");
        assert_eq!(error(&[1; 5], 0, 1), "a pass of 5 tokens, expected 1 to 4");
        assert_eq!(error(&[1; 3], 0, 3), "logits of 3 tokens, expected at most 2");
        assert_eq!(error(&[1], 0, 2), "logits of 2 tokens, expected at most 1");
        assert!(error(&[1; 2], 15, 1).starts_with("the text needs 17 positions, the context has 16"));
        assert!(error(&[1], usize::MAX, 1).starts_with("the text needs 18446744073709551615 positions"));
        assert!(error(&[512], 0, 1).starts_with("token 512 is not in the vocabulary of 512"));
        assert!(engine.forward(&[511], 0, 1).is_ok());
    });
}

#[test]
fn errors_of_the_weights_reach_the_caller() {
    #[derive(Debug, PartialEq)]
    struct Unplugged;
    impl std::fmt::Display for Unplugged {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the card is gone")
        }
    }
    impl std::error::Error for Unplugged {}
    /// Weights that fail after some calls.
    struct Failing<'a>(Resident<'a>, usize);
    impl Weights for Failing<'_> {
        type Error = Unplugged;
        fn config(&self) -> &Config {
            self.0.config()
        }
        fn norm(&self, norm: llamita::weights::Norm) -> &[f32] {
            self.0.norm(norm)
        }
        fn embed(&mut self, token: u32, out: &mut [f32]) -> Result<(), Unplugged> {
            self.0.embed(token, out).map_err(|_| Unplugged)
        }
        fn lend<const N: usize>(
            &mut self,
            matrices: [llamita::weights::Matrix; N],
            from: [usize; N],
        ) -> Result<[llamita::Rows<'_>; N], Unplugged> {
            self.1 = self.1.checked_sub(1).ok_or(Unplugged)?;
            self.0.lend(matrices, from).map_err(|_| Unplugged)
        }
    }
    random_model(&SHAPES[0]).with_weights(|weights| {
        let capacity = Capacity { context: 16, batch: 4, logits: 2, cache: CacheFormat::F32 };
        for calls in 0..9 {
            let mut memory = vec![0.0; state_len(&SHAPES[0], capacity).unwrap()];
            let state = State::new(&SHAPES[0], capacity, &mut memory).unwrap();
            let mut engine = Engine::new(Failing(weights, calls), state, Solo, Kernels::detect());
            let result = engine.forward(&[1], 0, 1).map(|_| ());
            assert_eq!(result, Err(Error::Weights(Unplugged)), "{calls}");
            assert_eq!(result.unwrap_err().to_string(), "the card is gone");
        }
    });
}

#[test]
fn a_state_is_exactly_as_large_as_it_says() {
    let capacity = Capacity { context: 512, batch: 16, logits: 1, cache: CacheFormat::F32 };
    let mut config = SHAPES[0];
    config.n_layers = 5;
    let len = state_len(&config, capacity).unwrap();
    // The bar for stories260K, whose shape this is.
    assert!(4 * len <= 700_000, "{}", 4 * len);
    assert!(State::new(&config, capacity, &mut vec![0.0; len]).is_ok());
    for wrong in [len - 1, len + 1] {
        let error = State::new(&config, capacity, &mut vec![0.0; wrong]).err().unwrap().to_string();
        assert_eq!(error, format!("the state was lent {wrong} numbers of memory, expected {len}"));
    }
    let cached = cache_len(&config, capacity).unwrap();
    let apart = |memory: usize, cache: usize| {
        State::with_cache(&config, capacity, &mut vec![0.0; memory], &mut vec![0.0; cache]).err()
    };
    assert_eq!(apart(len - cached, cached), None);
    assert_eq!(apart(len - cached + 1, cached - 1), Some(StateError::Memory(cached - 1, cached)));
    assert_eq!(apart(len - cached - 1, cached), Some(StateError::Memory(len - cached - 1, len - cached)));
    for capacity in [
        Capacity { context: 0, batch: 1, logits: 1, cache: CacheFormat::F32 },
        Capacity { context: 1, batch: 0, logits: 0, cache: CacheFormat::F32 },
        Capacity { context: 1, batch: 1, logits: 2, cache: CacheFormat::F32 },
    ] {
        assert!(state_len(&config, capacity).unwrap_err().to_string().contains("make no state"));
    }
    let endless = Capacity { context: usize::MAX, batch: 1, logits: 1, cache: CacheFormat::F32 };
    assert!(state_len(&config, endless).unwrap_err().to_string().contains("larger than the address space"));
}
