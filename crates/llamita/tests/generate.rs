//! Texts under way: where they end, what a prompt may be, and going on after an error.

mod common;

use std::fmt;

use common::{File, random_model};
use llamita::generate::Stop;
use llamita::weights::{Matrix, Norm};
use llamita::{
    CacheFormat, Capacity, Config, Engine, Error, Generation, Kernels, Resident, Rows, Sampler, Settings,
    Solo, State, Weights, state_len,
};

const CONFIG: Config = Config {
    dim: 48,
    hidden_dim: 100,
    n_layers: 2,
    n_heads: 4,
    n_kv_heads: 2,
    head_size: 12,
    vocab_size: 131,
    seq_len: 64,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    shared_classifier: false,
};

const GREEDY: Settings = Settings { temperature: 0.0, top_k: 0, top_p: 0.9, min_p: 0.0, repeat_penalty: 1.0 };
const CAPACITY: Capacity = Capacity { context: 32, batch: 4, logits: 1, cache: CacheFormat::F32 };
/// No token of the vocabulary.
const NEVER: u32 = u32::MAX;
/// Room for more tokens than the context has.
const ROOMY: usize = 99;

/// Calls `f` with an engine on these weights.
fn with_engine<W: Weights, R>(
    weights: W,
    capacity: Capacity,
    f: impl FnOnce(&mut Engine<'_, W, Solo>) -> R,
) -> R {
    let mut memory = vec![f32::NAN; state_len(&CONFIG, capacity).unwrap()];
    let state = State::new(&CONFIG, capacity, &mut memory).unwrap();
    f(&mut Engine::new(weights, state, Solo, Kernels::detect()))
}

/// Calls `f` with a greedy text that begins with `prompt` and has room for so many tokens.
fn with_text<W: Weights, R>(
    weights: W,
    capacity: Capacity,
    prompt: &[u32],
    room: usize,
    ends: [u32; 2],
    f: impl FnOnce(Generation<'_, '_, W, Solo>) -> R,
) -> R {
    with_engine(weights, capacity, |engine| {
        let mut sampler = Sampler::new(GREEDY, 1).unwrap();
        // What the room holds after the prompt must not matter.
        let mut tokens = vec![NEVER; room];
        tokens[..prompt.len()].copy_from_slice(prompt);
        f(Generation::new(engine, &mut sampler, &mut tokens, prompt.len(), ends).unwrap())
    })
}

/// What comes after a prompt, and why it ends.
fn continuation(file: &File, prompt: &[u32], room: usize, ends: [u32; 2]) -> (Vec<u32>, Stop) {
    continuation_in(file, CAPACITY, prompt, room, ends)
}

fn continuation_in(
    file: &File,
    capacity: Capacity,
    prompt: &[u32],
    room: usize,
    ends: [u32; 2],
) -> (Vec<u32>, Stop) {
    file.with_weights(|weights| {
        with_text(weights, capacity, prompt, room, ends, |mut text| {
            let mut given = Vec::new();
            assert_eq!((text.tokens(), text.stop()), (prompt, None));
            while let Some(token) = text.next().unwrap() {
                given.push(token);
                assert_eq!((text.tokens(), text.stop()), (&[prompt, &given].concat()[..], None));
            }
            let stop = text.stop().unwrap();
            // The end is the end.
            for _ in 0..3 {
                assert_eq!(text.next(), Ok(None));
                assert_eq!((text.tokens(), text.stop()), (&[prompt, &given].concat()[..], Some(stop)));
            }
            (given, stop)
        })
    })
}

/// A prompt of so many tokens.
fn prompt(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (1 + i * 7919) % CONFIG.vocab_size as u32).collect()
}

/// A model, its greedy text after three tokens, and an index of that at which is a token for the first time.
fn model_and_token() -> (File, Vec<u32>, usize) {
    let file = random_model(&CONFIG);
    let (text, stop) = continuation(&file, &prompt(3), 20, [NEVER; 2]);
    assert_eq!((text.len(), stop), (17, Stop::Length));
    let first = (1..text.len()).rev().find(|&at| !text[..at].contains(&text[at]));
    (file, text, first.expect("a text of more than one token"))
}

#[test]
fn a_text_ends_at_eos_and_at_bos_without_giving_it() {
    let (file, text, at) = model_and_token();
    for ends in [[NEVER, text[at]], [text[at], NEVER], [text[at]; 2]] {
        assert_eq!(continuation(&file, &prompt(3), 20, ends), (text[..at].to_vec(), Stop::EndOfText));
    }
    // Also as the very first token.
    for ends in [[NEVER, text[0]], [text[0], NEVER]] {
        assert_eq!(continuation(&file, &prompt(3), 20, ends), (vec![], Stop::EndOfText));
    }
    // A prompt may have what would end a text.
    assert_eq!(continuation(&file, &prompt(3), 20, [prompt(3)[0], NEVER]).0[0], text[0]);
}

#[test]
fn a_text_ends_at_its_length() {
    let (file, text, _) = model_and_token();
    for steps in [1, 2, 10] {
        let expected = (text[..steps].to_vec(), Stop::Length);
        assert_eq!(continuation(&file, &prompt(3), 3 + steps, [NEVER; 2]), expected);
    }
    // A prompt that leaves no room for a token.
    assert_eq!(continuation(&file, &prompt(3), 3, [NEVER; 2]), (vec![], Stop::Length));
    // BOS alone, one step.
    assert_eq!(continuation(&file, &[1], 2, [NEVER; 2]).0.len(), 1);
    // The room and the context end at the same token.
    let (both, stop) = continuation(&file, &prompt(3), CAPACITY.context + 1, [NEVER; 2]);
    assert_eq!((3 + both.len(), stop), (CAPACITY.context + 1, Stop::Length));
}

#[test]
fn a_text_ends_with_the_context() {
    let file = random_model(&CONFIG);
    // The last token needs no position: nothing comes after it.
    for len in [1, 3, CAPACITY.context - 1, CAPACITY.context] {
        let (text, stop) = continuation(&file, &prompt(len), ROOMY, [NEVER; 2]);
        assert_eq!((len + text.len(), stop), (CAPACITY.context + 1, Stop::Context), "{len}");
    }
}

#[test]
fn prompts_that_do_not_fit_are_refused() {
    random_model(&CONFIG).with_weights(|weights| {
        with_engine(weights, CAPACITY, |engine| {
            let mut sampler = Sampler::new(GREEDY, 1).unwrap();
            let mut refusal = |prompt, room| {
                let mut tokens = vec![1; room];
                let text = Generation::new(engine, &mut sampler, &mut tokens, prompt, [NEVER; 2]);
                text.err().map(|error| error.to_string())
            };
            let of = |found, room| Some(format!("a prompt of {found} tokens, expected 1 to {room}"));
            assert_eq!(refusal(0, 5), of(0, 5));
            assert_eq!(refusal(0, 0), of(0, 0));
            assert_eq!(refusal(1, 0), of(1, 0));
            assert_eq!(refusal(6, 5), of(6, 5));
            assert_eq!(refusal(5, 5), None);
            assert_eq!(refusal(CAPACITY.context, ROOMY), None);
            let text = refusal(CAPACITY.context + 1, ROOMY).unwrap();
            assert!(text.starts_with("the text needs 33 positions, the context has 32"), "{text}");
            assert!(refusal(usize::MAX, ROOMY).is_some());
        });
    });
}

#[test]
fn batches_of_a_prompt_do_not_change_what_follows() {
    let file = random_model(&CONFIG);
    let batch = 5;
    for len in [1, batch - 1, batch, batch + 1, 2 * batch - 1, 2 * batch, 2 * batch + 1] {
        let told = |batch| {
            let capacity = Capacity { batch, ..CAPACITY };
            continuation_in(&file, capacity, &prompt(len), len + 12, [NEVER; 2])
        };
        let expected = told(1);
        assert_eq!(expected.0.len(), 12);
        assert_eq!(told(batch), expected, "a prompt of {len} in batches of {batch}");
        assert_eq!(told(len), expected, "a prompt of {len} at once");
    }
}

#[test]
fn a_prompt_that_is_computed_pass_by_pass_changes_nothing() {
    let file = random_model(&CONFIG);
    for len in [1, 4, 5, 8, 9, 13] {
        let (expected, _) = continuation(&file, &prompt(len), len + 6, [NEVER; 2]);
        for most in 0..5 {
            let told = file.with_weights(|weights| {
                with_text(weights, CAPACITY, &prompt(len), len + 6, [NEVER; 2], |mut text| {
                    let passes = (0..most).take_while(|_| text.prefill().unwrap()).count();
                    // The last batch is the one that gives a token.
                    assert_eq!(passes, most.min((len - 1) / CAPACITY.batch));
                    assert_eq!(text.tokens(), prompt(len));
                    let first = text.next().unwrap();
                    assert_eq!(text.prefill(), Ok(false));
                    let rest = std::iter::from_fn(|| text.next().unwrap());
                    first.into_iter().chain(rest).collect::<Vec<_>>()
                })
            });
            assert_eq!(told, expected, "a prompt of {len}, {most} passes by themselves");
        }
    }
}

/// What a card that is pulled out says.
#[derive(Debug, PartialEq)]
struct Unplugged;

impl fmt::Display for Unplugged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the card is gone")
    }
}

impl std::error::Error for Unplugged {}

/// Weights that fail at every call whose number from 1 is a multiple of `every`; embeddings are calls too.
struct Failing<'a> {
    resident: Resident<'a>,
    calls: usize,
    every: usize,
}

impl Failing<'_> {
    fn call(&mut self) -> Result<(), Unplugged> {
        self.calls += 1;
        if self.calls.is_multiple_of(self.every) { Err(Unplugged) } else { Ok(()) }
    }
}

impl Weights for Failing<'_> {
    type Error = Unplugged;

    fn config(&self) -> &Config {
        self.resident.config()
    }

    fn norm(&self, norm: Norm) -> &[f32] {
        self.resident.norm(norm)
    }

    fn embed(&mut self, token: u32, out: &mut [f32]) -> Result<(), Unplugged> {
        self.call()?;
        self.resident.embed(token, out).map_err(|_| Unplugged)
    }

    fn lend<const N: usize>(
        &mut self,
        matrices: [Matrix; N],
        from: [usize; N],
    ) -> Result<[Rows<'_>; N], Unplugged> {
        self.call()?;
        self.resident.lend(matrices, from).map_err(|_| Unplugged)
    }
}

#[test]
fn a_text_goes_on_after_an_error_as_if_there_had_been_none() {
    let file = random_model(&CONFIG);
    let prompt = prompt(10);
    let expected = continuation(&file, &prompt, 30, [NEVER; 2]);
    // A pass of a batch takes 13 calls, and every one of them fails once for some of these.
    for every in 14..60 {
        file.with_weights(|resident| {
            let weights = Failing { resident, calls: 0, every };
            with_text(weights, CAPACITY, &prompt, 30, [NEVER; 2], |mut text| {
                let (mut given, mut errors) = (Vec::new(), 0);
                loop {
                    let before = text.tokens().to_vec();
                    match text.next() {
                        Ok(Some(token)) => given.push(token),
                        Ok(None) => break,
                        Err(error) => {
                            assert_eq!(error, Error::Weights(Unplugged));
                            assert_eq!((text.tokens(), text.stop()), (&before[..], None));
                            errors += 1;
                        }
                    }
                }
                assert!(errors > 3, "every {every}: {errors} errors");
                assert_eq!((given, text.stop().unwrap()), expected, "every {every}");
            });
        });
    }
}

#[test]
fn logits_that_are_not_finite_are_an_error() {
    let mut bytes = random_model(&CONFIG).bytes().to_vec();
    // The classifier is the last tensor of a checkpoint.
    let at = bytes.len() - 4 * CONFIG.dim * CONFIG.vocab_size;
    bytes[at + 40..at + 44].copy_from_slice(&f32::NAN.to_le_bytes());
    File::new(&bytes).with_weights(|weights| {
        with_text(weights, CAPACITY, &prompt(10), 30, [NEVER; 2], |mut text| {
            // It stays one, and nothing is added to the text.
            for _ in 0..3 {
                assert_eq!(text.next(), Err(Error::NotFinite));
                assert_eq!((text.tokens(), text.stop()), (&prompt(10)[..], None));
            }
        });
    });
}
