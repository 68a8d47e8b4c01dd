//! Memory of a forward pass: activations and the key/value cache, all lent by the caller.

use core::fmt;

use llamita_kernels::quantized::{GROUP_STEP, Quantized};
use llamita_kernels::{CacheFormat, CacheMut, Kernels, LANES};
use zerocopy::{FromBytes, IntoBytes};

use crate::config::Config;
use crate::rope::Rope;

/// How many tokens a state is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Positions of the key/value cache: the longest text, prompt included.
    pub context: usize,
    /// Tokens in one forward pass.
    pub batch: usize,
    /// Tokens of a pass whose logits can be asked for, at most `batch`; 1 to generate, one more than is guessed to
    /// generate with a draft.
    pub logits: usize,
    /// How keys and values are kept.
    pub cache: CacheFormat,
}

/// A state that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// A capacity is zero, or more logits than tokens are asked for.
    Capacity(Capacity),
    /// The memory is not of the length that [`state_len`] or [`cache_len`] gives: found, expected, in `f32`s.
    Memory(usize, usize),
    /// This machine's memory could never hold the state.
    TooLarge,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capacity(Capacity { context, batch, logits, .. }) => write!(
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
    scratch: usize,
    logits: usize,
    /// Numbers of the keys, as many of the values, and their scales.
    cache: [usize; 2],
}

impl Lengths {
    /// `None` on overflow, possible where addresses have 32 bits.
    fn new(config: &Config, capacity: Capacity) -> Option<Self> {
        let product = |factors: [usize; 3]| factors[0].checked_mul(factors[1])?.checked_mul(factors[2]);
        let batch = capacity.batch;
        let positions = capacity.context.checked_next_multiple_of(LANES)?;
        let columns = config.dim.max(config.q_dim()).max(config.hidden_dim);
        let numbers = product([config.n_layers, config.kv_dim(), positions])?;
        let scales = product([config.n_layers, config.n_kv_heads, positions])?;
        let qkv = config.q_dim() + 2 * config.kv_dim();
        Some(Self {
            x: product([batch, config.dim, 1])?,
            xb: product([batch, config.dim.max(config.q_dim()), 1])?,
            hidden: product([batch, qkv.max(2 * config.hidden_dim), 1])?,
            // Cosine and sine for each element and token, and the frequencies.
            rope: product([2, batch, config.head_size])?.checked_add(config.head_size / 2)?,
            scratch: product([config.n_kv_heads, positions, 1])?.max(quantized_len(batch, columns)?),
            logits: product([capacity.logits, config.vocab_size, 1])?,
            // Both are multiples of 8.
            cache: match capacity.cache {
                CacheFormat::F32 => [numbers, 0],
                CacheFormat::Q8 => [numbers / 4, scales / 2],
            },
        })
    }

    fn total(&self) -> Option<usize> {
        [self.x, self.xb, self.hidden, self.rope, self.scratch, self.logits]
            .into_iter()
            .chain(self.cache)
            .chain(self.cache)
            .try_fold(0_usize, usize::checked_add)
    }
}

/// Memory that a state needs, in `f32`s.
///
/// # Errors
/// If the capacity makes no sense or the length overflows.
pub fn state_len(config: &Config, capacity: Capacity) -> Result<usize, StateError> {
    let Capacity { context, batch, logits, .. } = capacity;
    if context == 0 || batch == 0 || logits == 0 || logits > batch {
        return Err(StateError::Capacity(capacity));
    }
    Lengths::new(config, capacity).and_then(|lengths| lengths.total()).ok_or(StateError::TooLarge)
}

/// Of that memory what the keys and values take, in `f32`s.
///
/// # Errors
/// As [`state_len`].
pub fn cache_len(config: &Config, capacity: Capacity) -> Result<usize, StateError> {
    state_len(config, capacity)?;
    let lengths = Lengths::new(config, capacity).ok_or(StateError::TooLarge)?;
    Ok(2 * lengths.cache.iter().sum::<usize>())
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
    /// In attention the scores, (n_kv_heads, context); in a product its input, where that is quantized.
    pub(crate) scratch: &'a mut [f32],
    /// (logits, vocab_size).
    pub(crate) logits: &'a mut [f32],
    pub(crate) rope: Rope<'a>,
    /// (layer, n_kv_heads, context / 8, head_size, 8); see `llamita_kernels::Cache`.
    pub(crate) keys: CacheMut<'a>,
    /// Like the keys.
    pub(crate) values: CacheMut<'a>,
}

impl<'a> State<'a> {
    /// A state in lent memory of [`state_len`] numbers, whatever they are.
    ///
    /// # Errors
    /// If the memory is of another length or the capacity makes no sense.
    pub fn new(config: &Config, capacity: Capacity, memory: &'a mut [f32]) -> Result<Self, StateError> {
        let expected = state_len(config, capacity)?;
        if memory.len() != expected {
            return Err(StateError::Memory(memory.len(), expected));
        }
        let (cache, memory) = memory.split_at_mut(cache_len(config, capacity)?);
        Self::with_cache(config, capacity, memory, cache)
    }

    /// The same with memory of its own for keys and values, [`cache_len`] numbers, which may be slower: a token reads all
    /// weights, but only as much of these as the text is long. The other memory is that much shorter.
    ///
    /// # Errors
    /// As [`State::new`].
    pub fn with_cache(
        config: &Config,
        capacity: Capacity,
        memory: &'a mut [f32],
        cache: &'a mut [f32],
    ) -> Result<Self, StateError> {
        let cached = cache_len(config, capacity)?;
        let other = state_len(config, capacity)? - cached;
        for (found, expected) in [(cache.len(), cached), (memory.len(), other)] {
            if found != expected {
                return Err(StateError::Memory(found, expected));
            }
        }
        let lengths = Lengths::new(config, capacity).ok_or(StateError::TooLarge)?;
        let (mut cached, mut rest) = (cache, memory);
        let keys = lengths.cache.map(|len| split(&mut cached, len));
        let values = lengths.cache.map(|len| split(&mut cached, len));
        let mut take = |len| split(&mut rest, len);
        let cache = |[numbers, scales]: [&'a mut [f32]; 2]| match capacity.cache {
            CacheFormat::F32 => CacheMut::F32(numbers),
            CacheFormat::Q8 => CacheMut::Q8 { values: as_integers(numbers), scales: as_integers(scales) },
        };
        // What vector units load whole runs of comes first, in lengths of such runs where sizes of the model are: where a
        // memory begins with a run, all of it does.
        Ok(Self {
            config: *config,
            capacity,
            keys: cache(keys),
            values: cache(values),
            scratch: take(lengths.scratch),
            x: take(lengths.x),
            xb: take(lengths.xb),
            hidden: take(lengths.hidden),
            logits: take(lengths.logits),
            rope: Rope::new(config, take(lengths.rope)),
        })
    }

    /// What the state is for.
    pub const fn capacity(&self) -> Capacity {
        self.capacity
    }
}

/// Takes so many numbers from the beginning.
fn split<'a>(memory: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (head, tail) = core::mem::take(memory).split_at_mut(len);
    *memory = tail;
    head
}

/// Memory of floats as integers of no more than their size.
fn as_integers<T: FromBytes + IntoBytes>(memory: &mut [f32]) -> &mut [T] {
    // Alignment and size fit, as the bytes are whole floats.
    <[T]>::mut_from_bytes(memory.as_mut_bytes()).unwrap_or_default()
}

/// Memory for quantized activations, in `f32`s, whatever their groups: the largest have 64 columns or the row.
fn quantized_len(batch: usize, columns: usize) -> Option<usize> {
    let padded = columns.checked_next_multiple_of(2 * GROUP_STEP)?;
    // Four values take the place of a float; a group has a scale and a sum.
    (padded / 4 + 2 * padded / GROUP_STEP).checked_mul(batch)
}

/// Rounds the activations of a batch, (batch, columns), in groups of this size.
pub(crate) fn quantize<'s>(
    kernels: Kernels,
    x: &[f32],
    batch: usize,
    group: usize,
    scratch: &'s mut [f32],
) -> Quantized<'s> {
    let columns = x.len() / batch;
    let groups = columns.div_ceil(group);
    let (values, rest) = scratch.split_at_mut(batch * groups * group / 4);
    let (scales, rest) = rest.split_at_mut(batch * groups);
    let (values, sums) = (as_integers(values), as_integers(&mut rest[..batch * groups]));
    let outs = scales.chunks_exact_mut(groups).zip(sums.chunks_exact_mut(groups));
    let outs = values.chunks_exact_mut(groups * group).zip(outs);
    for (x, (values, (scales, sums))) in x.chunks_exact(columns).zip(outs) {
        kernels.quantize(x, group, values, scales, sums);
    }
    Quantized { values, scales, sums }
}
