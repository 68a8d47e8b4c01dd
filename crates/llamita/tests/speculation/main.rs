//! Drafts: whoever guesses, and whatever goes wrong, the text is the one that there would be without; and the
//! passes are as few as the guesses are good.

#[path = "../common/mod.rs"]
mod common;
mod doubles;

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use common::File;
use doubles::{Failing, Oracle, Random, Unplugged};
use llamita::{
    CacheFormat, Capacity, Config, Draft, DraftModel, Engine, Error, Generation, Kernels, Lookup, Model,
    Resident, Sampler, Settings, Solo, Speculation, State, Stop, Tokenizer, Weights, state_len,
};

const GREEDY: Settings = Settings { temperature: 0.0, top_k: 0, top_p: 0.9, min_p: 0.0, repeat_penalty: 1.0 };
const SETTINGS: [Settings; 6] = [
    GREEDY,
    Settings { temperature: 0.8, ..GREEDY },
    Settings { temperature: 1.0, ..GREEDY },
    Settings { temperature: 0.8, repeat_penalty: 1.3, ..GREEDY },
    Settings { temperature: 1.0, top_k: 20, top_p: 1.0, ..GREEDY },
    Settings { temperature: 1.2, top_p: 1.0, min_p: 0.05, ..GREEDY },
];
const CAPACITY: Capacity = Capacity { context: 128, batch: 8, logits: 8, cache: CacheFormat::F32 };
/// No token of the vocabulary.
const NEVER: u32 = u32::MAX;

fn model(name: &str) -> File {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models");
    File::new(&fs::read(format!("{models}/{name}.gguf")).unwrap())
}

/// Calls `f` with an engine on these weights.
fn with_engine<W: Weights, R>(weights: W, capacity: Capacity, f: impl FnOnce(Engine<'_, W, Solo>) -> R) -> R {
    let config = *weights.config();
    let mut memory = vec![f32::NAN; state_len(&config, capacity).unwrap()];
    let state = State::new(&config, capacity, &mut memory).unwrap();
    f(Engine::new(weights, state, Solo, Kernels::detect()))
}

/// A text to tell: what it begins with, how, and where it ends.
#[derive(Clone)]
struct Task {
    prompt: Vec<u32>,
    settings: Settings,
    seed: u64,
    /// Tokens in all.
    room: usize,
    ends: [u32; 2],
}

/// What was told: all tokens, why they end, and the state of the sampler.
#[derive(Debug, PartialEq)]
struct Told {
    tokens: Vec<u32>,
    stop: Option<Stop>,
    sampler: String,
}

/// Who drafts, the most tokens at once, and a clock.
type Drafting<'d> = (&'d mut dyn Draft, usize, Option<fn() -> u64>);

/// Tells a text, with up to so many drafted tokens a pass.
fn tell<W: Weights>(
    engine: &mut Engine<'_, W, Solo>,
    task: &Task,
    draft: Option<Drafting<'_>>,
) -> (Told, Speculation) {
    let mut sampler = Sampler::new(task.settings, task.seed).unwrap();
    // What the room holds after the prompt must not matter.
    let mut tokens = vec![NEVER; task.room];
    tokens[..task.prompt.len()].copy_from_slice(&task.prompt);
    let mut text = Generation::new(engine, &mut sampler, &mut tokens, task.prompt.len(), task.ends).unwrap();
    if let Some((draft, most, clock)) = draft {
        text = text.with_draft(draft, most, clock);
    }
    let mut given = task.prompt.clone();
    loop {
        // Tokens that were chosen ahead are not seen before they are given.
        assert_eq!((text.tokens(), text.stop()), (&given[..], None));
        match text.next().map_err(|error| error.to_string()).unwrap() {
            Some(token) => given.push(token),
            None => break,
        }
    }
    let (stop, speculation) = (text.stop(), text.speculation());
    // The end is the end.
    assert_eq!((text.next().is_ok_and(|token| token.is_none()), text.tokens()), (true, &given[..]));
    assert_eq!((text.stop(), text.speculation()), (stop, speculation));
    assert!(stop.is_some());
    // Every token took a pass of its own or was drafted, and so did the end.
    let chosen = given.len() - task.prompt.len() + usize::from(stop == Some(Stop::EndOfText));
    assert_eq!(chosen, speculation.passes + speculation.accepted);
    assert!(speculation.accepted <= speculation.proposed);
    (Told { tokens: given, stop, sampler: format!("{sampler:?}") }, speculation)
}

const TRUE: fn(usize, u32) -> u32 = |_, token| token;
const WRONG: fn(usize, u32) -> u32 = |_, token| (token + 1) % 1024;

/// 54 beginnings of stories and their settings.
fn tasks(tokenizer: &Tokenizer<'_>, room: usize) -> Vec<Task> {
    let names = ["Lily", "Tom", "a little dog", "the old llama", "Mia and Ben", "a red car"];
    let openings = [
        "",
        "Once upon a time, there was NAME.",
        "One day, NAME went to the park",
        "NAME said, \"I want to play!\" NAME said, \"I want",
        "The sun was hot and NAME was sad because",
        "\"Look!\" said NAME. \"A big",
        "NAME had a box. In the box there was a ball. NAME liked the",
        "It was night. NAME could not",
        "Mom told NAME",
    ];
    let mut tasks = Vec::new();
    for name in names {
        for opening in openings {
            let text = opening.replace("NAME", name);
            let mut scratch = vec![llamita::tokenizer::Work::EMPTY; Tokenizer::scratch_len(text.len())];
            let mut prompt = vec![0; Tokenizer::max_tokens(text.len())];
            let count = tokenizer.encode(&text, &mut scratch, &mut prompt).unwrap();
            prompt.truncate(count);
            let seed = tasks.len() as u64 + 1;
            // Every opening and every name meets several settings.
            let settings = SETTINGS[(tasks.len() + tasks.len() / openings.len()) % SETTINGS.len()];
            let ends = [tokenizer.bos(), tokenizer.eos()];
            tasks.push(Task { room: count + room, prompt, settings, seed, ends });
        }
    }
    tasks
}

fn with_tasks<R>(file: &File, room: usize, f: impl FnOnce(Vec<Task>) -> R) -> R {
    let model = Model::read(file.bytes()).unwrap();
    let vocabulary = model.vocabulary().unwrap().unwrap();
    let mut index = vec![0; vocabulary.index_len()];
    f(tasks(&Tokenizer::from_gguf(&vocabulary, &mut index).unwrap(), room))
}

/// A clock by which some passes pay and some do not.
fn erratic() -> u64 {
    static TICKS: AtomicU64 = AtomicU64::new(0);
    let ticks = TICKS.load(Ordering::Relaxed);
    let step = ticks.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    TICKS.fetch_add(1 + step, Ordering::Relaxed)
}

#[test]
fn no_draft_changes_a_text() {
    let (tiny, nano) = (model("tiny"), model("nano"));
    let config = tiny.with_weights(|weights| *weights.config());
    let most = 4;
    let mut totals = [("lookup", 0, 0), ("nano", 0, 0), ("lookup, nano", 0, 0), ("random", 0, 0)];
    with_tasks(&tiny, 60, |tasks| {
        assert!(tasks.len() >= 50);
        tiny.with_weights(|target| {
            nano.with_weights(|draft| {
                with_engine(target, CAPACITY, |mut target| {
                    // One draft model for all texts: each finds what the one before left.
                    with_engine(draft, Capacity { logits: 1, ..CAPACITY }, |engine| {
                        let mut memory = vec![NEVER; CAPACITY.context];
                        let nano = DraftModel::new(engine, &mut memory, &config).unwrap();
                        let mut both = (Lookup { shortest: 3, longest: 4 }, nano);
                        for (i, task) in tasks.iter().enumerate() {
                            let (expected, plain) = tell(&mut target, task, None);
                            assert_eq!((plain.proposed, plain.accepted), (0, 0));
                            let mut check = |draft: &mut dyn Draft, which: usize, clock| {
                                let (told, speculation) = tell(&mut target, task, Some((draft, most, clock)));
                                assert_eq!(told, expected, "task {i}, {}", totals[which].0);
                                totals[which].1 += speculation.passes;
                                totals[which].2 += speculation.accepted;
                            };
                            check(&mut Lookup::default(), 0, None);
                            check(&mut both.1, 1, None);
                            check(&mut both, 2, Some(erratic));
                            check(&mut Random(i as u32), 3, None);
                        }
                    });
                });
            });
        });
    });
    for (name, passes, accepted) in totals {
        println!("{name}: {:.2} accepted tokens per pass", accepted as f32 / passes as f32);
    }
    let [lookup, nano, ..] = totals.map(|(_, passes, accepted)| accepted as f32 / passes as f32);
    assert!(lookup > 0.05 && nano > 0.8, "drafts are of use");
}

/// Calls `f` with an engine on `nano`, a task, and the text without drafts, which takes the whole room.
fn with_nano(
    settings: Settings,
    prompt: usize,
    room: usize,
    f: impl FnOnce(&mut Engine<'_, Resident<'_>, Solo>, Task, Vec<u32>),
) {
    let file = model("nano");
    with_tasks(&file, 0, |tasks| {
        let prompt = tasks[3].prompt[..prompt].to_vec();
        let task = Task { prompt, settings, seed: 7, room, ends: [NEVER; 2] };
        file.with_weights(|weights| {
            with_engine(weights, CAPACITY, |mut engine| {
                let (told, _) = tell(&mut engine, &task, None);
                f(&mut engine, task, told.tokens);
            });
        });
    });
}

#[test]
fn passes_are_counted() {
    for settings in SETTINGS {
        with_nano(settings, 1, 62, |engine, task, text| {
            for most in [0, 1, 3, 6, 7] {
                let right = tell(engine, &task, Some((&mut Oracle(&text, TRUE), most, None))).1;
                let passes = 61_usize.div_ceil(most + 1);
                assert_eq!((right.passes, right.accepted), (passes, 61 - passes), "{most}");
                assert_eq!(right.proposed, right.accepted);

                let wrong = tell(engine, &task, Some((&mut Oracle(&text, WRONG), most, None))).1;
                assert_eq!((wrong.passes, wrong.accepted), (61, 0));
                // Nothing is drafted for which there would be no room: the last passes draft less.
                assert_eq!(wrong.proposed, (0..61).map(|left: usize| left.min(most)).sum::<usize>());

                // Every third position is missed: two guesses and a correction, at the most.
                let third = |i, token| if i % 3 == 0 { WRONG(i, token) } else { token };
                let some = tell(engine, &task, Some((&mut Oracle(&text, third), most, None))).1;
                let expected = if most == 0 {
                    61
                } else if most == 1 {
                    41
                } else {
                    21
                };
                assert_eq!(some.passes, expected, "{most}");
            }
            // More than the state has logits for: as many as there are.
            let most = tell(engine, &task, Some((&mut Oracle(&text, TRUE), usize::MAX, None))).1;
            assert_eq!(most.passes, 61_usize.div_ceil(8));
        });
    }
}

#[test]
fn a_model_drafts_for_itself_without_a_miss() {
    // With the same probabilities, the same coins fall on the same tokens.
    let file = model("nano");
    for (settings, prompt) in SETTINGS.into_iter().zip([1, 1, 5, 8, 9, 13]) {
        with_nano(settings, prompt, 50, |target, task, text| {
            file.with_weights(|weights| {
                let capacity = Capacity { batch: 3, logits: 1, ..CAPACITY };
                with_engine(weights, capacity, |engine| {
                    let mut memory = vec![NEVER; CAPACITY.context];
                    let mut draft = DraftModel::new(engine, &mut memory, target.config()).unwrap();
                    draft.sharpness = 1.0;
                    // The second time it has all of the text in its cache already.
                    for _ in 0..2 {
                        let (told, speculation) = tell(target, &task, Some((&mut draft, 4, None)));
                        assert_eq!(told.tokens, text);
                        assert_eq!(speculation.proposed, speculation.accepted);
                        // After a prompt of several tokens there is a pass without a draft.
                        let first = usize::from(prompt > 1);
                        assert_eq!(speculation.passes, first + (50 - prompt - first).div_ceil(5));
                    }
                });
            });
        });
    }
}

#[test]
fn a_draft_model_forgets_what_was_wrong() {
    let file = model("nano");
    with_nano(SETTINGS[1], 1, 60, |target, _, text| {
        let config = *target.config();
        let sampler = Sampler::new(SETTINGS[1], 5).unwrap();
        let capacity = Capacity { context: 50, batch: 4, logits: 1, ..CAPACITY };
        let propose = |draft: &mut dyn Draft, text: &[u32]| {
            let mut out = [NEVER; 5];
            let count = draft.propose(text, &sampler, &mut out);
            out[..count].to_vec()
        };
        let with_draft = |f: &mut dyn FnMut(&mut dyn Draft)| {
            file.with_weights(|weights| {
                with_engine(weights, capacity, |engine| {
                    let mut memory = vec![NEVER; 99];
                    f(&mut DraftModel::new(engine, &mut memory, &config).unwrap());
                });
            });
        };
        let mut other = text.clone();
        other[20..].reverse();
        with_draft(&mut |draft| {
            // Longer, shorter, the same again, another text, and one that parts from it half way.
            for (text, len) in
                [(&text, 9), (&text, 30), (&text, 12), (&text, 12), (&other, 31), (&text, 31), (&other, 1)]
            {
                with_draft(&mut |fresh| {
                    let proposed = propose(draft, &text[..len]);
                    assert_eq!((&proposed, proposed.len()), (&propose(fresh, &text[..len]), 5), "{len}");
                });
            }
            // Near the end of its context it drafts less, and behind it nothing.
            for (len, count) in [(45, 5), (46, 5), (47, 4), (50, 1), (51, 0), (60, 0), (20, 5), (0, 0)] {
                assert_eq!(propose(draft, &text[..len]).len(), count, "{len}");
            }
            // A token that it does not have.
            assert_eq!(propose(draft, &[1, 1024, 1]), [] as [u32; 0]);
            assert_eq!(propose(draft, &[1, 1]).len(), 5);
        });
    });
}

#[test]
fn a_draft_model_must_have_the_same_tokens() {
    let file = model("nano");
    file.with_weights(|weights| {
        let target = Config { vocab_size: 1000, ..*weights.config() };
        with_engine(weights, CAPACITY, |engine| {
            let error = DraftModel::new(engine, &mut [0; 9], &target).err().unwrap();
            assert!(error.to_string().starts_with("the draft model has 1024 tokens, expected 1000"));
        });
    });
}

#[test]
fn a_text_ends_where_it_would_end_without_a_draft() {
    for settings in [GREEDY, SETTINGS[1]] {
        with_nano(settings, 5, 60, |engine, task, text| {
            let mut check = |task: &Task, stop| {
                let (expected, _) = tell(engine, task, None);
                assert_eq!(expected.stop, Some(stop));
                for most in 1..=7 {
                    for which in [TRUE, WRONG, |i, token| if i % 5 == 0 { token ^ 1 } else { token }] {
                        let told = tell(engine, task, Some((&mut Oracle(&text, which), most, None))).0;
                        assert_eq!(told, expected, "{most}");
                    }
                }
            };
            // At a token, wherever in a pass it comes.
            for at in 6..30 {
                if !text[5..at].contains(&text[at]) {
                    check(&Task { ends: [NEVER, text[at]], ..task.clone() }, Stop::EndOfText);
                }
            }
            // At a length.
            for room in [5, 6, 7, 8, 9, 13, 20] {
                check(&Task { room, ..task.clone() }, Stop::Length);
            }
        });
    }
}

#[test]
fn a_text_ends_with_the_context() {
    let file = model("nano");
    with_nano(SETTINGS[1], 5, 60, |_, task, text| {
        file.with_weights(|weights| {
            for context in 20..29 {
                with_engine(weights, Capacity { context, ..CAPACITY }, |mut engine| {
                    let (expected, _) = tell(&mut engine, &task, None);
                    assert_eq!((expected.tokens.len(), expected.stop), (context + 1, Some(Stop::Context)));
                    for most in [1, 4, 7] {
                        for which in [TRUE, WRONG] {
                            let draft = &mut Oracle(&text, which);
                            assert_eq!(tell(&mut engine, &task, Some((draft, most, None))).0, expected);
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn without_room_for_logits_nothing_is_drafted() {
    struct Unasked;
    impl Draft for Unasked {
        fn propose(&mut self, _: &[u32], _: &Sampler, _: &mut [u32]) -> usize {
            panic!("there is no room for a draft")
        }
    }
    let file = model("nano");
    with_nano(GREEDY, 5, 20, |engine, task, text| {
        file.with_weights(|weights| {
            for (batch, logits) in [(1, 1), (8, 1)] {
                with_engine(weights, Capacity { batch, logits, ..CAPACITY }, |mut engine| {
                    let told = tell(&mut engine, &task, Some((&mut Unasked, 4, None))).0;
                    assert_eq!(told.tokens, text);
                });
            }
            // Room for two.
            with_engine(weights, Capacity { batch: 2, logits: 2, ..CAPACITY }, |mut engine| {
                let (told, speculation) = tell(&mut engine, &task, Some((&mut Oracle(&text, TRUE), 4, None)));
                // The last batch of five has one token, so there is a draft from the first.
                assert_eq!((told.tokens, speculation.passes), (text.clone(), 8));
            });
        });
        assert_eq!(tell(engine, &task, Some((&mut Unasked, 0, None))).0.tokens, text);
    });
}

#[test]
fn odd_drafts_are_no_harm() {
    /// Says that it wrote so many tokens, and wrote this one everywhere.
    struct Odd(usize, u32);
    impl Draft for Odd {
        fn propose(&mut self, _: &[u32], _: &Sampler, out: &mut [u32]) -> usize {
            out.fill(self.1);
            self.0
        }
    }
    with_nano(SETTINGS[1], 5, 40, |engine, task, text| {
        let task = Task { ends: [1, 2], ..task };
        let expected = tell(engine, &task, None).0;
        assert_eq!(expected.tokens, text, "the text is without its ends");
        for (count, token, proposed) in
            [(usize::MAX, 5, true), (3, 1024, false), (3, NEVER, false), (9, 1, false), (9, 2, false)]
        {
            let (told, speculation) = tell(engine, &task, Some((&mut Odd(count, token), 4, None)));
            assert_eq!((&told, speculation.proposed > 0), (&expected, proposed), "{count} times {token}");
        }
    });
}

#[test]
fn a_text_goes_on_after_an_error_as_if_there_had_been_none() {
    let file = model("nano");
    let some = |i, token: u32| if i % 4 == 0 { token ^ 1 } else { token };
    for (i, settings) in [GREEDY, SETTINGS[3]].into_iter().enumerate() {
        with_nano(settings, 12, 50, |engine, task, text| {
            let expected = tell(engine, &task, None).0;
            // A pass takes 21 calls.
            for every in (22..64).skip(i).step_by(2) {
                file.with_weights(|resident| {
                    with_engine(Failing { resident, calls: 0, every }, CAPACITY, |mut engine| {
                        let mut sampler = Sampler::new(task.settings, task.seed).unwrap();
                        let mut tokens = vec![NEVER; task.room];
                        tokens[..12].copy_from_slice(&task.prompt);
                        let mut oracle = Oracle(&text, some);
                        let mut text =
                            Generation::new(&mut engine, &mut sampler, &mut tokens, 12, [NEVER; 2])
                                .unwrap()
                                .with_draft(&mut oracle, 5, None);
                        let mut errors = 0;
                        loop {
                            let before = (text.tokens().to_vec(), text.speculation());
                            match text.next() {
                                Ok(Some(_)) => {}
                                Ok(None) => break,
                                Err(error) => {
                                    assert_eq!(error, Error::Weights(Unplugged));
                                    assert_eq!((text.tokens().to_vec(), text.speculation()), before);
                                    errors += 1;
                                }
                            }
                        }
                        assert!(errors > 3, "every {every}: {errors} errors");
                        assert_eq!((text.tokens(), text.stop()), (&expected.tokens[..], expected.stop));
                        // As many passes were good as without errors.
                        assert_eq!(text.speculation().passes, 11);
                        assert_eq!(format!("{sampler:?}"), expected.sampler);
                    });
                });
            }
        });
    }
}

#[test]
fn a_draft_model_may_fail() {
    let file = model("nano");
    with_nano(SETTINGS[1], 12, 40, |target, task, _| {
        let expected = tell(target, &task, None).0;
        for every in [1, 20, 22, 45, 90] {
            file.with_weights(|resident| {
                let weights = Failing { resident, calls: 0, every };
                with_engine(weights, Capacity { batch: 4, logits: 1, ..CAPACITY }, |engine| {
                    let mut memory = vec![NEVER; 30];
                    let mut draft = DraftModel::new(engine, &mut memory, target.config()).unwrap();
                    draft.sharpness = 1.0;
                    let (told, speculation) = tell(target, &task, Some((&mut draft, 4, None)));
                    assert_eq!(told, expected);
                    // It works from time to time where a pass has fewer calls.
                    assert_eq!(speculation.accepted > 0, every > 21, "{every}");
                    assert_eq!(speculation.accepted, speculation.proposed);
                    assert!(draft.engine().weights().calls > 0);
                });
            });
        }
    });
}

#[test]
fn logits_that_are_not_finite_are_an_error_when_their_turn_comes() {
    // A classifier of its own, so that one token can have logits that are no numbers.
    let config = Config {
        dim: 48,
        hidden_dim: 100,
        n_layers: 1,
        n_heads: 4,
        n_kv_heads: 2,
        head_size: 12,
        vocab_size: 131,
        seq_len: 64,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        shared_classifier: false,
    };
    let good = common::random_model(&config);
    let task = Task { prompt: vec![1], settings: SETTINGS[1], seed: 3, room: 30, ends: [NEVER; 2] };
    let text = good.with_weights(|weights| {
        with_engine(weights, CAPACITY, |mut engine| tell(&mut engine, &task, None).0.tokens)
    });
    // The embedding comes first in a checkpoint: the last token that is new to the text is damaged.
    let at = (2..text.len() - 1).rev().find(|&at| !text[..at].contains(&text[at])).unwrap();
    let mut bytes = good.bytes().to_vec();
    let header = llamita::format::llama2c::header(&config).unwrap().len();
    let place = header + 4 * config.dim * text[at] as usize;
    bytes[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let bad = File::new(&bytes);
    bad.with_weights(|weights| {
        for most in [0, 1, 2, 3, 7] {
            with_engine(weights, CAPACITY, |mut engine| {
                let mut sampler = Sampler::new(task.settings, task.seed).unwrap();
                let mut tokens = vec![1; task.room];
                let mut oracle = Oracle(&text, TRUE);
                let mut told = Generation::new(&mut engine, &mut sampler, &mut tokens, 1, [NEVER; 2])
                    .unwrap()
                    .with_draft(&mut oracle, most, None);
                while told.tokens().len() <= at {
                    assert!(told.next().is_ok_and(|token| token.is_some()), "{most}");
                }
                for _ in 0..3 {
                    assert_eq!((told.next(), told.tokens()), (Err(Error::NotFinite), &text[..=at]), "{most}");
                }
            });
        }
    });
}
