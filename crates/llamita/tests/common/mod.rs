//! What the tests share: reference data, models made up on the spot, and a double for weights that are not in
//! memory.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod data;

use llamita::weights::{Entry, Matrix, Norm};
use llamita::{
    CacheFormat, Capacity, Config, Engine, Generation, Kernels, Model, Resident, Rows, Sampler, Settings,
    State, Tape, Team, Tokenizer, Utf8Stream, Weights, state_len,
};
use llamita_kernels::quantized::QuantizedRows;

/// A model file in memory that is aligned to its numbers.
pub struct File(Vec<f32>, usize);

impl File {
    pub fn new(bytes: &[u8]) -> Self {
        let mut words: Vec<f32> = vec![0.0; bytes.len().div_ceil(4)];
        zerocopy::IntoBytes::as_mut_bytes(&mut words[..])[..bytes.len()].copy_from_slice(bytes);
        Self(words, bytes.len())
    }

    pub fn bytes(&self) -> &[u8] {
        &zerocopy::IntoBytes::as_bytes(&self.0[..])[..self.1]
    }

    /// Calls `f` with the weights of the file.
    pub fn with_weights<R>(&self, f: impl FnOnce(Resident<'_>) -> R) -> R {
        let model = Model::read(self.bytes()).unwrap();
        let mut entries = vec![Entry::EMPTY; Tape::len(model.config())];
        f(Resident::new(model.tape(&mut entries).unwrap(), self.bytes()).unwrap())
    }
}

/// A checkpoint of llama2.c with random weights.
pub fn random_model(config: &Config) -> File {
    let mut random = 0x853c_49e6_u32;
    let mut number = |range: f32| {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        (random >> 8) as f32 * (range / 8_388_608.0) - range
    };
    let mut words = vec![0.0_f32; llamita::format::llama2c::file_len(config) as usize / 4];
    let range = (3.0 / config.dim as f32).sqrt();
    words.iter_mut().for_each(|word| *word = number(range));
    let header = llamita::format::llama2c::header(config).unwrap();
    zerocopy::IntoBytes::as_mut_bytes(&mut words[..])[..header.len()].copy_from_slice(&header);
    let len = 4 * words.len();
    File(words, len)
}

/// Weights that lend a few rows at a time from a buffer of their own, as a stream from a card would, and
/// count the bytes.
pub struct Lender<'a> {
    pub resident: Resident<'a>,
    pub rows_at_once: usize,
    pub bytes: u64,
    buffer: Vec<f32>,
    quantized: Vec<u8>,
}

impl<'a> Lender<'a> {
    pub fn new(resident: Resident<'a>, rows_at_once: usize) -> Self {
        Self { resident, rows_at_once, bytes: 0, buffer: Vec::new(), quantized: Vec::new() }
    }
}

impl Weights for Lender<'_> {
    type Error = llamita::format::FormatError;

    fn config(&self) -> &Config {
        self.resident.config()
    }

    fn norm(&self, norm: Norm) -> &[f32] {
        self.resident.norm(norm)
    }

    fn embed(&mut self, token: u32, out: &mut [f32]) -> Result<(), Self::Error> {
        self.resident.embed(token, out)
    }

    fn lend<const N: usize>(
        &mut self,
        matrices: [Matrix; N],
        from: [usize; N],
    ) -> Result<[Rows<'_>; N], Self::Error> {
        let config = *self.resident.config();
        let shape = |matrix| Tape::shape(&config, llamita::weights::Tensor::Matrix(matrix));
        let turn = (0..N).find(|&i| from[i] < shape(matrices[i]).0).expect("a product asks until it has all");
        let (rows, columns) = shape(matrices[turn]);
        let all = self.resident.lend([matrices[turn]], [from[turn]])?[0];
        // Quantized rows come in blocks of eight.
        let quantized = matches!(all, Rows::Quantized(_));
        let at_once = if quantized { self.rows_at_once.next_multiple_of(8) } else { self.rows_at_once };
        let count = at_once.min(rows - from[turn]);
        let some = all.slice(0..count, columns);
        self.bytes += match some {
            Rows::F32(w) => 4 * w.len(),
            Rows::F16(w) | Rows::Bf16(w) => 2 * w.len(),
            Rows::Quantized(w) => w.bytes.len(),
        } as u64;
        // Elsewhere in memory each time, as from a card.
        let lent = match some {
            Rows::Quantized(w) => {
                self.quantized = w.bytes.to_vec();
                Rows::Quantized(QuantizedRows { bytes: &self.quantized, ..w })
            }
            floats => {
                self.buffer = vec![0.0; count * columns];
                for (row, out) in self.buffer.chunks_exact_mut(columns).enumerate() {
                    floats.row(row, out);
                }
                Rows::F32(&self.buffer)
            }
        };
        Ok(core::array::from_fn(|i| if i == turn { lent } else { Rows::default() }))
    }
}

/// Logits after each of `tokens`, computed `batch` at once.
pub fn logits<W: Weights, T: Team>(
    weights: W,
    team: T,
    kernels: Kernels,
    tokens: &[u32],
    batch: usize,
) -> Vec<f32> {
    logits_with(weights, team, kernels, tokens, batch, CacheFormat::F32)
}

/// The same, with a format of the cache.
pub fn logits_with<W: Weights, T: Team>(
    weights: W,
    team: T,
    kernels: Kernels,
    tokens: &[u32],
    batch: usize,
    cache: CacheFormat,
) -> Vec<f32> {
    let config = *weights.config();
    let capacity = Capacity { context: tokens.len(), batch, logits: batch, cache };
    // Memory as a chip finds it: anything.
    let mut memory = vec![f32::NAN; state_len(&config, capacity).unwrap()];
    let state = State::new(&config, capacity, &mut memory).unwrap();
    let mut engine = Engine::new(weights, state, team, kernels);
    let mut all = Vec::new();
    for (i, tokens) in tokens.chunks(batch).enumerate() {
        all.extend_from_slice(engine.forward(tokens, i * batch, tokens.len()).unwrap());
    }
    all
}

/// What a model tells, the prompt included: at most `steps` tokens, as llama2.c counts them.
pub fn story<W: Weights, T: Team>(
    weights: W,
    team: T,
    tokenizer: &Tokenizer<'_>,
    prompt: &str,
    settings: Settings,
    seed: u64,
    steps: usize,
) -> String {
    let config = *weights.config();
    let capacity = Capacity { context: config.seq_len, batch: 8, logits: 1, cache: CacheFormat::F32 };
    let mut memory = vec![f32::NAN; state_len(&config, capacity).unwrap()];
    let state = State::new(&config, capacity, &mut memory).unwrap();
    let mut engine = Engine::new(weights, state, team, Kernels::detect());

    let mut scratch = vec![llamita::tokenizer::Work::EMPTY; Tokenizer::scratch_len(prompt.len())];
    let mut tokens = vec![0; (steps + 1).max(Tokenizer::max_tokens(prompt.len()))];
    let prompt = tokenizer.encode(prompt, &mut scratch, &mut tokens).unwrap();
    tokens.truncate(steps + 1);
    let ends = [tokenizer.bos(), tokenizer.eos()];
    let mut sampler = Sampler::new(settings, seed).unwrap();
    let mut generation = Generation::new(&mut engine, &mut sampler, &mut tokens, prompt, ends).unwrap();
    while generation.next().unwrap().is_some() {}

    let (mut text, mut stream) = (String::new(), Utf8Stream::new());
    for pair in generation.tokens().windows(2) {
        for bytes in tokenizer.decode(pair[0], pair[1]) {
            stream.push(bytes, |piece| text.push_str(piece));
        }
    }
    stream.finish(|piece| text.push_str(piece));
    text
}
