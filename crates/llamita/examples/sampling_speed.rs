//! How long the choice of a token takes: medians in microseconds, for logits of several spreads.
//!
//! ```sh
//! cargo run --release -p llamita --example sampling_speed [VOCABULARY_SIZE]
//! ```

use std::hint::black_box;
use std::time::Instant;

use llamita::{Kernels, Sampler, Settings};

fn main() {
    let size = std::env::args().nth(1).map_or(32_000, |size| size.parse().expect("a vocabulary's size"));
    let all = Settings { top_p: 1.0, ..Settings::default() };
    let methods = [
        ("top-p 0.9", Settings::default()),
        ("top-k 40", Settings { top_k: 40, ..all }),
        ("min-p 0.05", Settings { min_p: 0.05, ..all }),
        ("no filter", all),
        ("greedy", Settings { temperature: 0.0, ..all }),
    ];
    println!("{size} logits, normal with deviation  1      2      4      8");
    for (name, settings) in methods {
        print!("{name:33}");
        for deviation in [1.0, 2.0, 4.0, 8.0] {
            print!("{:7.1}", microseconds(&normal(size, deviation), settings));
        }
        println!();
    }
}

/// The median time of a choice among these logits.
fn microseconds(logits: &[f32], settings: Settings) -> f64 {
    let mut sampler = Sampler::new(settings, 1).expect("settings in range");
    let kernels = Kernels::detect();
    let mut times: Vec<f64> = (0..301)
        .map(|_| {
            let mut logits = logits.to_vec();
            let start = Instant::now();
            black_box(sampler.sample(kernels, &mut logits, &[]));
            1e6 * start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Nearly normal numbers: sums of twelve uniform ones (xorshift, G. Marsaglia).
fn normal(count: usize, deviation: f32) -> Vec<f32> {
    let mut random = 1_u64;
    let mut uniform = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 40) as f32 / 16_777_216.0
    };
    (0..count).map(|_| deviation * ((0..12).map(|_| uniform()).sum::<f32>() - 6.0)).collect()
}
