//! Memory of a forward pass: activations and the key/value cache, all lent by the caller.

use core::fmt;

use llamita_kernels::LANES;

use crate::config::Config;

/// How many tokens a state is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Positions of the key/value cache: the longest text, prompt included.
    pub context: usize,
    /// Tokens in one forward pass.
    pub batch: usize,
    /// Tokens of a pass whose logits can be asked for, at most `batch`; 1 to generate.
    pub logits: usize,
}

/// A state that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// A capacity is zero, or more logits than tokens are asked for.
    Capacity(Capacity),
    /// The memory is not of the length that [`state_len`] gives: found, expected, in `f32`s.
    Memory(usize, usize),
    /// This machine's memory could never hold the state.
    TooLarge,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capacity(Capacity { context, batch, logits }) => write!(
                f,
                "a context of {context}, a batch of {batch} and logits of {logits} tokens make no state: \
                 each must be at least 1, and logits at most the batch"
            ),
            Self::Memory(found, expected) => {
                write!(f, "the state was lent {found} numbers of memory, expected {expected}")
            }
            Self::TooLarge => {
                f.write_str("the state is larger than the address space: use a shorter context")
            }
        }
    }
}

impl core::error::Error for StateError {}

/// The lengths of a state's parts, in `f32`s.
#[derive(Clone, Copy)]
struct Lengths {
    x: usize,
    xb: usize,
    hidden: usize,
    rope: usize,
    scores: usize,
    logits: usize,
    cache: usize,
}

impl Lengths {
    /// `None` on overflow, possible where addresses have 32 bits.
    fn new(config: &Config, capacity: Capacity) -> Option<Self> {
        let product = |factors: [usize; 3]| factors[0].checked_mul(factors[1])?.checked_mul(factors[2]);
        let batch = capacity.batch;
        let positions = capacity.context.checked_next_multiple_of(LANES)?;
        let qkv = config.q_dim() + 2 * config.kv_dim();
        Some(Self {
            x: product([batch, config.dim, 1])?,
            xb: product([batch, config.dim.max(config.q_dim()), 1])?,
            hidden: product([batch, qkv.max(2 * config.hidden_dim), 1])?,
            // Cosine and sine for each element and token, and the frequencies.
            rope: product([2, batch, config.head_size])?.checked_add(config.head_size / 2)?,
            scores: product([config.n_kv_heads, positions, 1])?,
            logits: product([capacity.logits, config.vocab_size, 1])?,
            cache: product([config.n_layers, config.kv_dim(), positions])?,
        })
    }

    fn total(&self) -> Option<usize> {
        [self.x, self.xb, self.hidden, self.rope, self.scores, self.logits, self.cache, self.cache]
            .into_iter()
            .try_fold(0_usize, usize::checked_add)
    }
}

/// Memory that a state needs, in `f32`s.
///
/// # Errors
/// If the capacity makes no sense or the length overflows.
pub fn state_len(config: &Config, capacity: Capacity) -> Result<usize, StateError> {
    let Capacity { context, batch, logits } = capacity;
    if context == 0 || batch == 0 || logits == 0 || logits > batch {
        return Err(StateError::Capacity(capacity));
    }
    Lengths::new(config, capacity).and_then(|lengths| lengths.total()).ok_or(StateError::TooLarge)
}

/// Activations and the key/value cache.
pub struct State<'a> {
    pub(crate) config: Config,
    capacity: Capacity,
    /// Residual stream: (batch, dim).
    pub(crate) x: &'a mut [f32],
    /// Inside a residual branch: normed activations (batch, dim), then heads (batch, q_dim).
    pub(crate) xb: &'a mut [f32],
    /// Queries, keys and values, then the two sides of the feed-forward layer.
    pub(crate) hidden: &'a mut [f32],
    /// Attention scores: (n_kv_heads, context).
    pub(crate) scores: &'a mut [f32],
    /// (logits, vocab_size).
    pub(crate) logits: &'a mut [f32],
    pub(crate) rope: Rope<'a>,
    /// (layer, n_kv_heads, context / 8, head_size, 8); see `Kernels::attention`.
    pub(crate) keys: &'a mut [f32],
    /// Like the keys.
    pub(crate) values: &'a mut [f32],
}

impl<'a> State<'a> {
    /// A state in lent memory of [`state_len`] numbers, whatever they are.
    ///
    /// # Errors
    /// If the memory is of another length or the capacity makes no sense.
    pub fn new(config: &Config, capacity: Capacity, memory: &'a mut [f32]) -> Result<Self, StateError> {
        let expected = state_len(config, capacity)?;
        let lengths = Lengths::new(config, capacity).ok_or(StateError::TooLarge)?;
        if memory.len() != expected {
            return Err(StateError::Memory(memory.len(), expected));
        }
        let mut rest = memory;
        let mut take = |len| {
            let (head, tail) = core::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            head
        };
        Ok(Self {
            config: *config,
            capacity,
            x: take(lengths.x),
            xb: take(lengths.xb),
            hidden: take(lengths.hidden),
            scores: take(lengths.scores),
            logits: take(lengths.logits),
            rope: Rope::new(config, take(lengths.rope)),
            keys: take(lengths.cache),
            values: take(lengths.cache),
        })
    }

    /// What the state is for.
    pub const fn capacity(&self) -> Capacity {
        self.capacity
    }
}

/// The rotations of a batch's positions.
pub(crate) struct Rope<'a> {
    head_size: usize,
    /// Radians per position of each pair: (head_size / 2,).
    frequencies: &'a mut [f32],
    /// (batch, head_size), that of a pair twice.
    cos: &'a mut [f32],
    /// (batch, head_size), that of a pair twice, first negated.
    sin: &'a mut [f32],
}

impl<'a> Rope<'a> {
    fn new(config: &Config, memory: &'a mut [f32]) -> Self {
        let head_size = config.head_size;
        let (frequencies, factors) = memory.split_at_mut(head_size / 2);
        for (pair, frequency) in frequencies.iter_mut().enumerate() {
            *frequency = 1.0 / libm::powf(config.rope_theta, (2 * pair) as f32 / head_size as f32);
        }
        let (cos, sin) = factors.split_at_mut(factors.len() / 2);
        Self { head_size, frequencies, cos, sin }
    }

    /// Prepares the rotations of `count` positions from `position` on.
    pub(crate) fn turn_to(&mut self, position: usize, count: usize) {
        let cos = self.cos.chunks_exact_mut(self.head_size);
        let sin = self.sin.chunks_exact_mut(self.head_size);
        for (i, (cos, sin)) in cos.zip(sin).take(count).enumerate() {
            let pairs = cos.as_chunks_mut::<2>().0.iter_mut().zip(sin.as_chunks_mut::<2>().0);
            for ((cos, sin), frequency) in pairs.zip(self.frequencies.iter()) {
                let (s, c) = libm::sincosf((position + i) as f32 * frequency);
                *cos = [c, c];
                *sin = [-s, s];
            }
        }
    }

    /// Cosines and sines for the `i`th position that was prepared: (head_size,) each.
    pub(crate) fn at(&self, i: usize) -> (&[f32], &[f32]) {
        let place = i * self.head_size..(i + 1) * self.head_size;
        (&self.cos[place.clone()], &self.sin[place])
    }
}
