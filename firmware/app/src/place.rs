//! How much of a model there is memory for.

use llamita::weights::Tape;
use llamita::{CacheFormat, Capacity, LANES, state_len};
use llamita_storage::{Board, Cycles, Medium, Memory, Plan, PlanError, Request, SECTOR, plan};

use crate::rates::Rates;

/// Tokens of a pass, at most.
const BATCH: usize = 8;

/// Memory that is enough for reads of the longer kind.
const ROOMY: u64 = 256 << 10;

/// Numbers of tokens beyond the context that a text has: the last one is not computed, and with one more the text ends
/// because the context does.
const BEYOND: usize = 2;

/// What is to be placed.
pub(crate) struct Wanted<'t> {
    pub tape: Tape<'t>,
    /// Bytes of the file.
    pub file: u64,
    /// Whether it is in memory-mapped flash.
    pub mapped: bool,
    /// Buffers for what is read.
    pub buffers: usize,
    /// Bytes that are left for it of each memory.
    pub memories: [u64; 2],
    /// The longest text.
    pub context: usize,
    pub cache: CacheFormat,
    pub rates: Rates,
}

/// Numbers of memory for the tokens of a text.
pub(crate) const fn tokens_len(context: usize) -> usize {
    context.saturating_add(BEYOND)
}

impl Wanted<'_> {
    /// Places the model with the context that was asked for, or the longest that there is memory for. Passes have as
    /// many tokens as take no more beside what one takes than a sixteenth of the faster memory, or a 32nd of the file.
    pub fn place(&self) -> Result<(Capacity, Plan), PlanError> {
        let context = self.context.min(self.tape.config().seq_len);
        let state =
            |batch| state_len(self.tape.config(), self.capacity(context, batch)).map_err(PlanError::State);
        let least = state(1)? as u64;
        let [memory, more] = self.memories;
        let room = (memory / 16).max((self.file / 32).min((memory + more) / 16));
        let limit = least + room / size_of::<f32>() as u64;
        let mut batch = BATCH;
        while batch > 1 && state(batch)? as u64 > limit {
            batch /= 2;
        }
        loop {
            match self.with(context, batch) {
                Err(PlanError::Memory(..)) if batch > 1 => batch /= 2,
                Err(PlanError::Memory(..)) if context > LANES => break,
                placed => return placed,
            }
        }
        // A context of `LANES * low` has a place, one of `LANES * high` has none.
        let (mut low, mut high) = (1, context.div_ceil(LANES));
        let mut placed = self.with(LANES, 1)?;
        while high - low > 1 {
            let middle = low.midpoint(high);
            match self.with(LANES * middle, 1) {
                Ok(found) => (placed, low) = (found, middle),
                Err(PlanError::Memory(..)) => high = middle,
                Err(error) => return Err(error),
            }
        }
        Ok(placed)
    }

    const fn capacity(&self, context: usize, batch: usize) -> Capacity {
        Capacity { context, batch, logits: 1, cache: self.cache }
    }

    fn with(&self, context: usize, batch: usize) -> Result<(Capacity, Plan), PlanError> {
        let best_read = if self.memories[0] >= ROOMY { 16 << 10 } else { 8 << 10 };
        let [slower, flash, card] =
            [self.rates.more, self.rates.flash, self.rates.card].map(|rate| 1e3 * f64::from(rate.max(1)));
        let medium = Medium { rate: card, latency: 0.0, best_read, overlap: self.buffers > 1 };
        // Less the sectors that norms, state and tokens do not fill.
        let [memory, more] = self.memories.map(|size| size.saturating_sub(3 * SECTOR as u64));
        let memory = Memory { size: memory, rate: f64::INFINITY, read_only: false, dma: true };
        let more = Memory { size: more, rate: slower, read_only: false, dma: false };
        let flash = Memory { size: self.file, rate: flash, read_only: true, dma: false };
        let memories = [memory, more, flash];
        let memories = if self.mapped { &memories[..] } else { &memories[..2] };
        let board = Board { clock: 1.0, cores: 1, cycles: Cycles::ONE, memories, storage: Some(medium) };
        let capacity = self.capacity(context, batch);
        let other = 4 * tokens_len(context) as u64;
        let request = Request {
            tape: self.tape,
            file: self.file,
            capacity,
            other,
            buffers: self.buffers,
            in_place: self.mapped,
            pin: true,
        };
        let planned = plan(&request, &board)?;
        // Where all is pinned nothing is read ahead: one buffer brings it there.
        let all_pinned = planned.buffers > 1 && planned.streamed == 0;
        let planned = if all_pinned { plan(&Request { buffers: 1, ..request }, &board)? } else { planned };
        Ok((capacity, planned))
    }
}

/// Where the parts of a model are, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    pub capacity: Capacity,
    /// Of its file.
    pub file: u64,
    /// Header with the vocabulary, and the tokenizer's index.
    pub vocabulary: u64,
    /// Activations, keys and values, and the tokens of a text.
    pub state: u64,
    /// For what is read, and for norms.
    pub buffers: u64,
    pub pinned: u64,
    /// Used for each token where they are: read from the card, or in flash.
    pub home: u64,
    /// Whether that is the flash.
    pub mapped: bool,
    /// Of the memory that was lent.
    pub free: u64,
}

impl Places {
    pub fn new(capacity: Capacity, plan: &Plan, vocabulary: usize, file: u64, free: u64) -> Self {
        Self {
            capacity,
            file,
            vocabulary: vocabulary as u64,
            state: plan.state + plan.cache + 4 * tokens_len(capacity.context) as u64,
            buffers: plan.buffers_len() + plan.norms,
            pinned: plan.pinned.iter().sum(),
            home: plan.streamed,
            mapped: plan.mapped.is_some(),
            free,
        }
    }
}
