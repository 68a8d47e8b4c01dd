//! The engine on quantized models: however a text is cut into passes, whoever computes it, on whatever unit
//! and wherever the weights come from, the logits have the same bits.

#[path = "format/builder.rs"]
mod builder;
mod common;

use builder::Gguf;
use common::{File, Lender, logits_with, random_model};
use llamita::{CacheFormat, Config, Kernels, Solo};
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

/// Columns and rows that have to be filled up, and such that need not be.
const SHAPES: [Config; 3] = [
    config(64, 172, [8, 4], 512, true),
    config(12, 20, [6, 3], 17, false),
    config(96, 33, [2, 2], 40, false),
];

/// Bits of the layers and of the head, and the group, as the builder takes them.
const FORMATS: [([u32; 2], Option<usize>); 5] =
    [([8, 8], Some(32)), ([8, 8], None), ([4, 4], Some(64)), ([4, 4], None), ([4, 8], Some(32))];

const CACHES: [CacheFormat; 2] = [CacheFormat::F32, CacheFormat::Q8];

/// A model with random weights, as floats.
fn floats(config: &Config) -> Gguf {
    let words = random_model(config);
    // Behind the header: numbers without a place of their own.
    let mut numbers = words.bytes()[28..].as_chunks::<4>().0.iter();
    let mut file = Gguf::new(config);
    for tensor in &mut file.tensors {
        let (weights, _) = tensor.data.as_chunks_mut::<4>();
        weights.iter_mut().zip(&mut numbers).for_each(|(weight, number)| *weight = *number);
    }
    file
}

/// The same, quantized.
fn quantized(config: &Config, [body, head]: [u32; 2], group: Option<usize>) -> File {
    let mut file = floats(config);
    for name in ["token_embd.weight", "output.weight"] {
        if file.tensors.iter().any(|tensor| tensor.name == name) {
            file.quantize(name, head, group);
        }
    }
    File::new(&file.quantize_all(body, group).bytes())
}

fn tokens(config: &Config) -> Vec<u32> {
    (0..45_u32).map(|i| i * 7919 % config.vocab_size as u32).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

/// Calls `check` for every shape, format and cache.
fn for_all(check: impl Fn(&Config, &File, [u32; 2], CacheFormat, &str)) {
    for config in SHAPES {
        for (bits, group) in FORMATS {
            let file = quantized(&config, bits, group);
            for cache in CACHES {
                let what = format!("{config:?}, {bits:?} bits, groups {group:?}, {cache:?}");
                check(&config, &file, bits, cache, &what);
            }
        }
    }
}

#[test]
fn neither_batches_nor_threads_nor_places_nor_units_change_a_bit() {
    for_all(|config, file, _, cache, what| {
        let tokens = tokens(config);
        file.with_weights(|weights| {
            let kernels = Kernels::detect();
            // Floats would differ from unit to unit, but there are none left in any product.
            let expected = bits(&logits_with(weights, Solo, Kernels::SCALAR, &tokens, 1, cache));
            for batch in [1, 2, 3, 8, 45] {
                let found = logits_with(weights, Solo, kernels, &tokens, batch, cache);
                assert_eq!(bits(&found), expected, "{what}, batches of {batch}");
            }
            for members in [1, 2, 3] {
                let team = || Threads::new(members).unwrap();
                for batch in [1, 16] {
                    let found = logits_with(weights, team(), kernels, &tokens, batch, cache);
                    assert_eq!(bits(&found), expected, "{what}, {members} threads");
                    let lender = Lender::new(weights, 16);
                    let found = logits_with(lender, team(), kernels, &tokens, batch, cache);
                    assert_eq!(bits(&found), expected, "{what}, lent, {members} threads");
                }
            }
            for rows in [8, 24, 1000] {
                for batch in [1, 7] {
                    let lender = Lender::new(weights, rows);
                    let found = logits_with(lender, Solo, kernels, &tokens, batch, cache);
                    assert_eq!(bits(&found), expected, "{what}, {rows} rows at once");
                }
            }
        });
    });
}

/// The size of a difference as a part of the size of the logits.
fn difference(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (error / expected.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}

#[test]
fn quantized_models_are_near_their_floats() {
    for_all(|config, file, bits, cache, what| {
        let tokens = tokens(config);
        let told = |file: &File, cache| {
            file.with_weights(|weights| logits_with(weights, Solo, Kernels::detect(), &tokens, 9, cache))
        };
        let floats = told(&File::new(&floats(config).bytes()), CacheFormat::F32);
        let difference = difference(&told(file, cache), &floats);
        println!("{what}: {difference:.4}");
        // Scales that are powers of two, as the builder makes them, cost up to a bit.
        let limit = if bits.contains(&4) { 0.3 } else { 0.02 };
        assert!(difference > 1e-4 && difference < limit, "{what}: {difference}");
    });
}

/// The cache alone costs little.
#[test]
fn integers_in_the_cache_are_near_its_floats() {
    for config in SHAPES {
        let tokens = tokens(&config);
        random_model(&config).with_weights(|weights| {
            let told = |cache| logits_with(weights, Solo, Kernels::detect(), &tokens, 9, cache);
            let difference = difference(&told(CacheFormat::Q8), &told(CacheFormat::F32));
            println!("{config:?}: {difference:.5}");
            assert!(difference > 1e-6 && difference < 0.01, "{config:?}: {difference}");
        });
    }
}
