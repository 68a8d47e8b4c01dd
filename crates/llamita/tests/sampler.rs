//! The sampler against the plain method: sort everything, walk from the top.

use llamita::{Kernels, Sampler, Settings};
use proptest::prelude::*;

/// The generator of llama2.c.
fn coin(state: &mut u64) -> f32 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    ((state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as u32) as f32 / 16_777_216.0
}

/// The filters one after the other on sorted probabilities, in double precision: each token that is kept, and
/// where its share of the coin's range begins and ends.
fn shares(logits: &[f32], settings: Settings) -> Vec<(u32, f64, f64)> {
    let max = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let weight = |logit: f32| (f64::from(logit - max) / f64::from(settings.temperature)).exp();
    let sum: f64 = logits.iter().map(|&logit| weight(logit)).sum();
    let mut sorted: Vec<(u32, f64)> =
        logits.iter().enumerate().map(|(token, &logit)| (token as u32, weight(logit) / sum)).collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if settings.top_k > 0 {
        sorted.truncate(settings.top_k);
    }
    let mass: f64 = sorted.iter().map(|x| x.1).sum();
    if settings.top_p > 0.0 && settings.top_p < 1.0 {
        let mut running = 0.0;
        let enough = sorted.iter().position(|x| {
            running += x.1;
            running > f64::from(settings.top_p) * mass
        });
        sorted.truncate(enough.map_or(sorted.len(), |last| last + 1));
    }
    let least = f64::from(settings.min_p) * sorted[0].1;
    sorted.retain(|x| x.1 >= least);
    let kept: f64 = sorted.iter().map(|x| x.1).sum();
    let mut running = 0.0;
    let share = |&(token, p): &(u32, f64)| {
        let start = running;
        running += p;
        (token, start / kept, running / kept)
    };
    sorted.iter().map(share).collect()
}

/// The sampler's choice is the plain method's, for filters and a coin that differ by no more than sums of single
/// precision do.
fn agrees(logits: &[f32], settings: Settings, seed: u64) -> Result<(), TestCaseError> {
    let near = 2e-5;
    let coin = f64::from(coin(&mut seed.clone()));
    let nudged = |p: f32, by: f32| p * (1.0 + by * near as f32);
    let plain: Vec<_> = [(0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)]
        .map(|(p, min)| Settings {
            top_p: nudged(settings.top_p, p),
            min_p: nudged(settings.min_p, min),
            ..settings
        })
        .iter()
        .map(|&settings| shares(logits, settings))
        .collect();
    for kernels in [Kernels::SCALAR, Kernels::detect()] {
        let mut sampler = Sampler::new(settings, seed).unwrap();
        let token = sampler.sample(kernels, &mut logits.to_vec(), &[]).unwrap();
        let here =
            |&(kept, start, end): &(u32, f64, f64)| kept == token && coin > start - near && coin < end + near;
        let fits = plain.iter().flatten().any(here);
        prop_assert!(fits, "{}: token {token}, coin {coin}, {:?}", kernels.name(), plain[0]);
    }
    Ok(())
}

fn settings() -> impl Strategy<Value = Settings> {
    let top_k = prop_oneof![Just(0_usize), 1..200_usize];
    let top_p = prop_oneof![Just(0.9_f32), 0.01..0.999_f32];
    let min_p = prop_oneof![Just(0.0_f32), 0.001..0.5_f32];
    (0.2..2.0_f32, top_k, top_p, min_p).prop_map(|(temperature, top_k, top_p, min_p)| Settings {
        temperature,
        top_k,
        top_p,
        min_p,
        repeat_penalty: 1.0,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn choices_are_those_of_a_full_sort(
        logits in prop::collection::vec(-12.0..12.0_f32, 2..2000),
        settings in settings(),
        seed in 1..u64::MAX,
    ) {
        agrees(&logits, settings, seed)?;
    }

    #[test]
    fn equal_logits_are_taken_in_the_order_of_the_vocabulary(
        values in prop::collection::vec(-3_i8..3, 2..900),
        settings in settings(),
        seed in 1..u64::MAX,
    ) {
        let logits: Vec<f32> = values.iter().map(|&value| f32::from(value)).collect();
        agrees(&logits, settings, seed)?;
    }
}

/// The largest coin there is: where sums round unluckily, the last token that a filter keeps is the last resort.
#[test]
fn no_coin_leaves_the_filters() {
    const LARGEST_COIN: u64 = 1_574_392;
    assert_eq!(coin(&mut LARGEST_COIN.clone()), 1.0 - 1.0 / 16_777_216.0);
    let mut random = 1_u64;
    for round in 0..400 {
        let logits: Vec<f32> =
            (0..2000).map(|i| if i % 2 == 0 { -200.0 } else { 6.0 * coin(&mut random) }).collect();
        let mut ranks: Vec<f32> = logits.clone();
        ranks.sort_by(|a, b| b.total_cmp(a));
        let all = Settings { top_p: 1.0, ..Settings::default() };
        for (settings, least) in [
            (Settings { top_k: 1000, ..all }, ranks[999]),
            (Settings { top_k: 100, ..all }, ranks[99]),
            (Settings { top_k: 10, top_p: 0.999_999, ..all }, ranks[9]),
            (Settings { min_p: 0.5, ..all }, ranks[0] - 0.694),
        ] {
            for kernels in [Kernels::SCALAR, Kernels::detect()] {
                let mut sampler = Sampler::new(settings, LARGEST_COIN).unwrap();
                let token = sampler.sample(kernels, &mut logits.clone(), &[]).unwrap() as usize;
                assert!(logits[token] >= least, "round {round}, {settings:?}: {} < {least}", logits[token]);
            }
        }
    }
}

/// Frequencies over many draws, with every filter off: the order of the vocabulary, as in llama2.c.
#[test]
fn without_filters_the_distribution_is_the_model_s() {
    let logits = [0.0, 1.0, 2.0, -1.0];
    let settings = Settings { top_p: 1.0, ..Settings::default() };
    let mut sampler = Sampler::new(settings, 7).unwrap();
    let mut counts = [0; 4];
    for _ in 0..200_000 {
        counts[sampler.sample(Kernels::detect(), &mut logits.clone(), &[]).unwrap() as usize] += 1;
    }
    let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
    for (logit, count) in logits.iter().zip(counts) {
        let (found, expected) = (f64::from(count) / 200_000.0, f64::from(*logit).exp() / sum);
        assert!((found - expected).abs() < 0.005, "{found} {expected}");
    }
}

#[test]
fn temperature_zero_takes_the_first_of_the_likeliest() {
    let settings = Settings { temperature: 0.0, ..Settings::default() };
    let mut logits: Vec<f32> = (0..100).map(|i| (i % 10) as f32).collect();
    let mut sampler = Sampler::new(settings, 1).unwrap();
    assert_eq!(sampler.sample(Kernels::detect(), &mut logits, &[]), Some(9));
}

#[test]
fn repetition_is_punished_once_and_within_the_window() {
    let settings = Settings { temperature: 0.0, repeat_penalty: 1.5, ..Settings::default() };
    let mut sampler = Sampler::new(settings, 1).unwrap();
    let mut choose =
        |text: &[u32]| sampler.sample(Kernels::SCALAR, &mut [3.0, 2.5, 1.4, -1.0], text).unwrap();
    assert_eq!(choose(&[]), 0);
    assert_eq!(choose(&[0]), 1);
    // 3 / 1.5 is still above 2.5 / 1.5; a second division would not be.
    assert_eq!(choose(&[0, 0, 1, 1]), 0);
    assert_eq!(choose(&[0, 1]), 0);
    let mut long = vec![0];
    long.extend([3; 64]);
    assert_eq!(choose(&long), 0, "the first token is out of the window");
}

#[test]
fn damage_is_seen() {
    for settings in [Settings::default(), Settings { temperature: 0.0, ..Settings::default() }] {
        for logits in [
            [f32::NAN; 5],
            [1.0, f32::INFINITY, 0.0, 0.0, 0.0],
            [f32::NEG_INFINITY; 5],
            [0.0, 1.0, f32::NAN, 9.0, 2.0],
        ] {
            let mut sampler = Sampler::new(settings, 1).unwrap();
            assert_eq!(sampler.sample(Kernels::detect(), &mut logits.clone(), &[]), None, "{logits:?}");
        }
    }
}

#[test]
fn settings_outside_their_range_are_named() {
    let default = Settings::default();
    let cases = [
        (Settings { top_p: 7.0, ..default }, "top-p is 7, expected 0 to 1"),
        (Settings { temperature: -1.0, ..default }, "temperature is -1, expected 0, or 0.001 to 1000"),
        (Settings { temperature: f32::NAN, ..default }, "temperature is NaN, expected 0, or 0.001 to 1000"),
        (Settings { temperature: 1e-4, ..default }, "temperature is 0.0001, expected 0, or 0.001 to 1000"),
        (Settings { min_p: 1.5, ..default }, "min-p is 1.5, expected 0 to 1"),
        (Settings { repeat_penalty: 0.0, ..default }, "repeat-penalty is 0, expected 0.01 to 100"),
    ];
    for (settings, message) in cases {
        assert_eq!(Sampler::new(settings, 1).unwrap_err().to_string(), message);
    }
}
