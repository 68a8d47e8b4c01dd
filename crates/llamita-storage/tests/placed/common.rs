//! A model, weights of it in every place, and what they compute.

use llamita::weights::{Entry, Tape, Weights};
use llamita::{
    CacheFormat, Capacity, Config, Engine, Kernels, Model, Resident, Sampler, Settings, Solo, State,
    state_len,
};
use llamita_storage::{
    Error, Home, Lent, MEMORIES, Patience, Placed, Portions, Reader, Sector, Source, Verify, norms_len,
    single_len,
};

#[path = "../../../llamita/tests/format/builder.rs"]
mod builder;

use builder::Gguf;

/// Bytes at an alignment that tensors need.
pub struct File {
    sectors: Vec<Sector>,
    len: usize,
}

impl File {
    pub fn new(bytes: &[u8]) -> Self {
        let mut sectors = vec![Sector::ZERO; Sector::count(bytes.len() as u64)];
        zerocopy::IntoBytes::as_mut_bytes(&mut sectors[..])[..bytes.len()].copy_from_slice(bytes);
        Self { sectors, len: bytes.len() }
    }

    pub fn nano() -> Self {
        Self::new(include_bytes!("../../../../models/nano.gguf"))
    }

    pub fn bytes(&self) -> &[u8] {
        &zerocopy::IntoBytes::as_bytes(&self.sectors[..])[..self.len]
    }

    /// The tape of the file, in memory that lives on.
    pub fn tape(&self) -> Tape<'static> {
        let model = Model::read(self.bytes()).unwrap();
        let entries = Vec::leak(vec![Entry::EMPTY; Tape::len(model.config())]);
        model.tape(entries).unwrap()
    }
}

/// How weights are placed.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Bytes for what is pinned, in two memories.
    pub pinned: [usize; 2],
    /// Bytes of a buffer; 0 for the smallest.
    pub buffer: usize,
    pub buffers: usize,
    pub verify: Verify,
}

pub const STREAMED: Places = Places { pinned: [0, 0], buffer: 16 << 10, buffers: 2, verify: Verify::First };

/// Memory that a reader may have.
pub fn reader<S: Source<Buffer = Vec<Sector>>>(source: S, tape: &Tape<'_>, places: Places) -> Reader<S> {
    let buffer = places.buffer.max(Portions::least_buffer(tape));
    let sectors = |bytes: usize| vec![Sector::ZERO; bytes.div_ceil(512)];
    let buffers = (0..places.buffers).map(|_| sectors(buffer));
    Reader::new(source, buffers, sectors(single_len(tape))).with_patience(Patience { tries: 3, stalls: 3 })
}

/// Weights from a home, in memory that lives on.
pub fn placed<S: Source>(
    tape: Tape<'static>,
    home: Home<'static, S>,
    places: Places,
) -> Result<Placed<'static, S>, Error<S::Error>> {
    let mut pinned: [&'static mut [Sector]; MEMORIES] = Default::default();
    for (memory, bytes) in pinned.iter_mut().zip(places.pinned) {
        *memory = Vec::leak(vec![Sector::ZERO; bytes.div_ceil(512)]);
    }
    let norms = Vec::leak(vec![0.0; norms_len(tape.config())]);
    Placed::load(tape, home, Lent { norms, pinned }, places.verify, |_, _| ())
}

/// An engine for short texts.
pub fn engine<W: Weights>(weights: W) -> Engine<'static, W, Solo> {
    let config: Config = *weights.config();
    let capacity = Capacity { context: 40, batch: 12, logits: 1, cache: CacheFormat::F32 };
    let memory = Vec::leak(vec![f32::NAN; state_len(&config, capacity).unwrap()]);
    Engine::new(weights, State::new(&config, capacity, memory).unwrap(), Solo, Kernels::detect())
}

/// Tokens, and the bits of the logits after each.
pub type Told = (Vec<u32>, Vec<u32>);

/// A story after a prompt that takes two passes.
pub fn story<W: Weights>(
    engine: &mut Engine<'_, W, Solo>,
    count: usize,
) -> Result<Told, llamita::Error<W::Error>> {
    let mut tokens: Vec<u32> = (0..17).map(|i| (i * 37 + 1) % 1000).collect();
    let mut bits = Vec::new();
    let mut sampler = Sampler::new(Settings::default(), 7).unwrap();
    engine.forward(&tokens[..12], 0, 0)?;
    let mut computed = 12;
    for _ in 0..count {
        let kernels = engine.kernels();
        let logits = engine.forward(&tokens[computed..], computed, 1)?;
        bits.extend(logits.iter().map(|logit| logit.to_bits()));
        computed = tokens.len();
        tokens.push(sampler.sample(kernels, logits, &tokens).unwrap());
    }
    Ok((tokens, bits))
}

/// What resident weights tell.
pub fn expected(file: &File, count: usize) -> Told {
    story(&mut engine(Resident::new(file.tape(), file.bytes()).unwrap()), count).unwrap()
}

/// A file of the tiny model's shape, of floats or of so many bits in groups of 32.
pub fn shape_of_tiny(bits: Option<u32>) -> Vec<u8> {
    shape_of_tiny_with(bits, true)
}

/// The same, with the embedding as the classifier or with one of its own.
pub fn shape_of_tiny_with(bits: Option<u32>, shared_classifier: bool) -> Vec<u8> {
    let tiny = File::new(include_bytes!("../../../../models/tiny.gguf"));
    let config = Config { shared_classifier, ..*tiny.tape().config() };
    bits.map_or_else(|| Gguf::new(&config), |bits| Gguf::device(&config, bits, Some(32))).bytes()
}
