//! The console from key to text, with a port that is a script and a card in memory.

mod board;
mod card;
mod faults;
#[cfg(feature = "display")]
#[path = "../../../display/tests/display/golden.rs"]
mod golden;
mod json;
mod keys;
mod late;
#[cfg(feature = "display")]
#[path = "../../../display/tests/display/panel.rs"]
#[allow(dead_code, reason = "the display's own tests count what is drawn")]
mod panel;
mod shown;
mod stories;

use std::fs;
use std::sync::LazyLock;

use llamita::weights::{Entry, Tape};
use llamita::{
    CacheFormat, Capacity, Engine, Generation, Kernels, Model, Resident, Sampler, Settings, Solo, State,
    Tokenizer, Utf8Stream, state_len,
};
use zerocopy::IntoBytes;

/// The smallest model, aligned as flash is.
struct Nano {
    words: Vec<u64>,
    len: usize,
}

impl Nano {
    fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.len]
    }
}

static NANO: LazyLock<Nano> = LazyLock::new(|| {
    let file = fs::read(models("nano.gguf")).unwrap();
    let mut words = vec![0_u64; file.len().div_ceil(8)];
    words.as_mut_bytes()[..file.len()].copy_from_slice(&file);
    Nano { words, len: file.len() }
});

fn models(name: &str) -> String {
    format!("{}/../../models/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A story that every machine tells of the smallest model.
fn golden(name: &str) -> String {
    let text = fs::read_to_string(models(&format!("golden/nano-{name}.txt"))).unwrap();
    text.strip_suffix('\n').unwrap().to_owned()
}

/// What the engine tells with all weights in memory.
fn told(prompt: &str, temperature: f32, seed: u64, steps: usize, cache: CacheFormat) -> String {
    let file = NANO.bytes();
    let model = Model::read(file).unwrap();
    let config = *model.config();
    let mut entries = vec![Entry::EMPTY; Tape::len(&config)];
    let weights = Resident::new(model.tape(&mut entries).unwrap(), file).unwrap();
    let capacity = Capacity { context: 256, batch: 1, logits: 1, cache };
    let mut memory = vec![0.0; state_len(&config, capacity).unwrap()];
    let state = State::new(&config, capacity, &mut memory).unwrap();
    let mut engine = Engine::new(weights, state, Solo, Kernels::detect());
    let vocabulary = model.vocabulary().unwrap().unwrap();
    let mut index = vec![0; vocabulary.index_len()];
    let tokenizer = Tokenizer::from_gguf(&vocabulary, &mut index).unwrap();
    let mut tokens = vec![0; (steps + 1).min(258)];
    let count = tokenizer.encode(prompt, &mut [], &mut tokens).unwrap().max(1);
    tokens[0] = tokenizer.bos();
    let settings = Settings { temperature, ..Settings::default() };
    let mut sampler = Sampler::new(settings, seed).unwrap();
    let ends = [tokenizer.bos(), tokenizer.eos()];
    let mut story = Generation::new(&mut engine, &mut sampler, &mut tokens, count, ends).unwrap();
    while story.next().unwrap().is_some() {}
    let (mut text, mut stream, mut last) = (String::new(), Utf8Stream::new(), tokenizer.bos());
    for &token in story.tokens() {
        tokenizer.decode(last, token).for_each(|bytes| stream.push(bytes, |piece| text.push_str(piece)));
        last = token;
    }
    stream.finish(|piece| text.push_str(piece));
    text
}
