//! Where the parts of a model are best on a board, and what a token takes then.

use core::fmt;

use llamita::Stage;
use llamita::state::{cache_len, state_len};
use llamita::weights::{Matrix, Pass, Tape, Tensor};

use crate::board::{Board, MEMORIES};
use crate::cost::{Costs, stage};
use crate::placed::{norms_len, single_len};
use crate::portions::{Cursor, Pinning, Place, Portion, Portions, Position};
use crate::sector::SECTOR;
use crate::source::MOST_READS;

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The model's tensors.
    pub tape: Tape<'a>,
    /// Bytes of its file.
    pub file: u64,
    /// What the state is for.
    pub capacity: llamita::Capacity,
    /// Bytes of all else that has to be in memory: the file's header with the vocabulary, the tokenizer's index, tokens.
    pub other: u64,
    /// Memories for portions, at least 1; 2 let one be read while the other is used.
    pub buffers: usize,
    /// Whether a memory that can only be read may hold the file.
    pub in_place: bool,
    /// Whether weights are pinned at all.
    pub pin: bool,
}

/// Where the parts of a model are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The memory, by its number, that holds the file, where it is used in place; else it is streamed.
    pub mapped: Option<usize>,
    /// Bytes of a memory for portions; where the file is used in place, bytes of a portion.
    pub buffer: usize,
    /// Their number.
    pub buffers: usize,
    /// Bytes of the memory for single reads.
    pub single: usize,
    /// Bytes of the norms.
    pub norms: u64,
    /// The memory of buffers and norms.
    pub buffers_in: usize,
    /// Bytes of the state, keys and values apart.
    pub state: u64,
    /// The memory of that.
    pub state_in: usize,
    /// Bytes of keys and values.
    pub cache: u64,
    /// The memory of keys and values.
    pub cache_in: usize,
    /// Bytes of all else.
    pub other: u64,
    /// The memory of all else.
    pub other_in: usize,
    /// What is pinned.
    pub pinning: Pinning,
    /// Bytes that are pinned in each memory.
    pub pinned: [u64; MEMORIES],
    /// Bytes that are read from the file for each token, a row of the embedding apart.
    pub streamed: u64,
    /// Reads for that; none where the file is used in place.
    pub reads: u64,
}

impl Plan {
    /// Bytes of buffers, the one for single reads included.
    pub const fn buffers_len(&self) -> u64 {
        self.buffer as u64 * self.buffers as u64 + self.single as u64
    }

    /// Bytes that are used of each memory, of those that can be written.
    pub fn used(&self) -> [u64; MEMORIES] {
        let mut used = self.pinning.room;
        used[self.buffers_in] += self.buffers_len() + self.norms;
        used[self.state_in] += self.state;
        used[self.cache_in] += self.cache;
        used[self.other_in] += self.other;
        used
    }

    /// Bytes that are used in all.
    pub fn total(&self) -> u64 {
        self.used().iter().sum()
    }

    /// Seconds that a token waits for slower memories than the first, and for the medium, in the middle of a text.
    // In single precision, which takes a chip less code.
    fn reading(&self, board: &Board<'_>) -> f32 {
        let home = self.mapped.map(|memory| board.memories[memory].rate);
        let home = home.or(board.storage.map(|medium| medium.rate)).unwrap_or(f64::INFINITY) as f32;
        let slower = board.memories.iter().enumerate().skip(1).map(|(i, memory)| {
            let cached = if self.cache_in == i { self.cache / 2 } else { 0 };
            (self.pinned[i] + cached) as f32 / memory.rate as f32
        });
        self.streamed as f32 / home + slower.sum::<f32>()
    }

    /// The tape in portions.
    pub const fn portions<'a>(&self, tape: Tape<'a>) -> Portions<'a> {
        portions(tape, self.buffer, self.mapped.is_some())
    }
}

/// A tape in portions of a file in memory, or of one that is read.
const fn portions(tape: Tape<'_>, buffer: usize, mapped: bool) -> Portions<'_> {
    if mapped { Portions::mapped(tape, buffer) } else { Portions::new(tape, buffer) }
}

/// Why a model cannot be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// The board has less memory than the model needs even if all of its weights are streamed: bytes that are
    /// missing, and what for.
    Memory(u64, &'static str),
    /// No memory holds the file, and there is nothing to read it from: its bytes.
    NoStorage(u64),
    /// The board has no memories, or more than can be told apart.
    Board(usize),
    /// The capacity makes no state.
    State(llamita::state::StateError),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(missing, what) => {
                write!(f, "the board is {missing} bytes short of memory for {what}")
            }
            Self::NoStorage(file) => write!(
                f,
                "no memory of the board has room for the model's file of {file} bytes, and there is no storage to read \
                 it from"
            ),
            Self::Board(found) => write!(f, "the board has {found} memories, expected 1 to {MEMORIES}"),
            Self::State(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PlanError {}

/// Memory that is still free.
struct Free<'a> {
    board: &'a Board<'a>,
    left: [u64; MEMORIES],
}

impl Free<'_> {
    /// Takes bytes of the fastest memory that has them, or of the slowest, of those that are `suited`.
    fn take(
        &mut self,
        bytes: u64,
        fastest: bool,
        suited: impl Fn(usize) -> bool,
        what: &'static str,
    ) -> Result<usize, PlanError> {
        let memories = (0..self.board.memories.len()).filter(|&memory| suited(memory));
        let mut fits = memories.clone().filter(|&memory| self.left[memory] >= bytes);
        let found = if fastest { fits.next() } else { fits.next_back() };
        let Some(memory) = found else {
            let most = memories.map(|memory| self.left[memory]).max().unwrap_or(0);
            return Err(PlanError::Memory(bytes - most, what));
        };
        self.left[memory] -= bytes;
        Ok(memory)
    }
}

/// Places a model: first what it needs to run at all, then as many of its weights as there is memory for, in the fastest
/// first. Keys and values are where a token waits least: it reads all weights, but of these only what the text has so far.
///
/// All weights are read once for each token, so that any bytes are as good to pin as any others: beside buffers of a
/// length, what is streamed is the least that is possible, but for at most a portion in each memory. Buffers are as long as
/// the medium reads best, shorter where nothing else fits, and shortest where all weights are pinned then.
///
/// # Errors
/// If the model cannot run on the board.
pub fn plan(request: &Request<'_>, board: &Board<'_>) -> Result<Plan, PlanError> {
    if board.memories.is_empty() || board.memories.len() > MEMORIES {
        return Err(PlanError::Board(board.memories.len()));
    }
    let in_place =
        |memory: &usize| board.memories[*memory].read_only && board.memories[*memory].size >= request.file;
    let mapped = (0..board.memories.len()).find(in_place).filter(|_| request.in_place);
    if mapped.is_none() && board.storage.is_none() {
        return Err(PlanError::NoStorage(request.file));
    }

    let writable = (0..board.memories.len()).filter(|&memory| !board.memories[memory].read_only);
    let plans = writable.map(|cache_in| with_cache_in(cache_in, request, board, mapped));
    // A plan rather than none, long reads if any, then what costs least; the fastest of those that are alike.
    let cost = |plan: &Result<Plan, PlanError>| match plan {
        Ok(plan) if plan.reads > 0 => (usize::MAX - plan.buffer, plan.reading(board)),
        Ok(plan) => (0, plan.reading(board)),
        Err(PlanError::Memory(missing, _)) => (usize::MAX, *missing as f32),
        Err(_) => (usize::MAX, f32::INFINITY),
    };
    let least = plans.min_by(|a, b| {
        let ((a, cost_a), (b, cost_b)) = (cost(a), cost(b));
        a.cmp(&b).then(cost_a.total_cmp(&cost_b))
    });
    least.unwrap_or(Err(PlanError::Board(0)))
}

/// Places a model with keys and values in a memory.
fn with_cache_in(
    cache_in: usize,
    request: &Request<'_>,
    board: &Board<'_>,
    mapped: Option<usize>,
) -> Result<Plan, PlanError> {
    let tape = &request.tape;
    let place = |buffer, buffers| place(request, board, mapped, cache_in, buffer, buffers);
    let least = Portions::least_buffer(tape);
    let best = board.storage.map_or(0, |medium| medium.best_read.min(1 << 30)) as usize;
    if mapped.is_some() {
        // Nothing is read, and portions need no memory. They are the longest where all are pinned in the fastest.
        let whole = place(Portions::whole(tape), 0)?;
        if whole.pinned[0] == whole.pinning.total {
            return Ok(whole);
        }
        return place(Portions::mapped_buffer(tape), 0);
    }
    let buffers = request.buffers.clamp(1, MOST_READS - 1);
    // A block more, since portions are whole blocks, and should not be shorter.
    let mut buffer = (best + least).next_multiple_of(SECTOR);
    let placed = loop {
        match place(buffer, buffers) {
            Err(PlanError::Memory(..)) if buffer > least => {
                // Shorter reads are slower, and better than none.
                buffer = (buffer / 2).next_multiple_of(SECTOR).max(least);
            }
            placed => break placed?,
        }
    };
    // Perhaps the buffers take the memory that would pin everything.
    let shortest = place(least, 1).ok();
    Ok(shortest.filter(|shortest| placed.streamed > 0 && shortest.streamed == 0).unwrap_or(placed))
}

/// Places a model with buffers of a length.
// Called from several places, and large.
#[inline(never)]
fn place(
    request: &Request<'_>,
    board: &Board<'_>,
    mapped: Option<usize>,
    cache_in: usize,
    buffer: usize,
    buffers: usize,
) -> Result<Plan, PlanError> {
    let Request { tape, capacity, .. } = request;
    let single = if buffers > 0 { single_len(tape) } else { 0 };
    let norms = 4 * norms_len(tape.config()) as u64;
    let cache = 4 * cache_len(tape.config(), *capacity).map_err(PlanError::State)? as u64;
    let state = 4 * state_len(tape.config(), *capacity).map_err(PlanError::State)? as u64 - cache;
    let of_buffers = buffer as u64 * buffers as u64 + single as u64 + norms;

    let mut free = Free { board, left: [0; MEMORIES] };
    for (left, memory) in free.left.iter_mut().zip(board.memories).filter(|(_, memory)| !memory.read_only) {
        *left = memory.size / SECTOR as u64 * SECTOR as u64;
    }
    let overlap = buffers > 0 && board.storage.is_some_and(|medium| medium.overlap);
    let written = |memory: usize| !overlap || board.memories[memory].dma;
    let places = free.take(of_buffers, true, written, "buffers and norms").and_then(|buffers_in| {
        let state_in = free.take(state, true, |_| true, "activations")?;
        free.take(cache, true, |memory| memory == cache_in, "keys and values")?;
        let what = "the header, the vocabulary and the tokens";
        Ok((buffers_in, state_in, free.take(request.other, false, |_| true, what)?))
    });
    let (buffers_in, state_in, other_in) = places.map_err(|error| match error {
        PlanError::Memory(missing, what) => {
            // What could not even be tried counts as well.
            let writable = board.memories.iter().filter(|memory| !memory.read_only);
            let all = of_buffers + state + cache + request.other;
            let all = all.saturating_sub(writable.map(|memory| memory.size).sum());
            PlanError::Memory(missing.max(all), what)
        }
        error => error,
    })?;

    let portions = portions(*tape, buffer, mapped.is_some());
    let total = portions.total();
    let (slack, longest) = portions_slack(&portions);
    let wanted = total + (slack * SECTOR) as u64;
    let mut room = [0; MEMORIES];
    for memory in (0..board.memories.len()).filter(|_| request.pin) {
        // To copy from a memory to a slower one would be no gain.
        if mapped.is_none_or(|home| board.memories[memory].rate > board.memories[home].rate) {
            let used = room.iter().sum();
            // What is left at the end of one memory may be too little for a portion.
            let ends = if used > 0 { longest } else { 0 };
            let left = (wanted.saturating_sub(used) + ends).next_multiple_of(SECTOR as u64);
            room[memory] = (free.left[memory] / SECTOR as u64 * SECTOR as u64).min(left);
        }
    }
    let mut plan = Plan {
        mapped,
        buffer,
        buffers,
        single,
        norms,
        buffers_in,
        state,
        state_in,
        cache,
        cache_in,
        other: request.other,
        other_in,
        pinning: Pinning { total, room },
        pinned: [0; MEMORIES],
        streamed: 0,
        reads: 0,
    };
    let mut cursor = Cursor::start(&portions);
    while let Some((portion, place)) = cursor.step(&portions, &plan.pinning) {
        match place {
            Place::Pinned(memory, _) => plan.pinned[memory] += portion.len as u64,
            Place::Home => {
                plan.streamed += portion.len as u64;
                plan.reads += u64::from(mapped.is_none());
            }
        }
    }
    Ok(plan)
}

/// Sectors for the alignment of portions, if all are pinned, and bytes of the longest.
fn portions_slack(portions: &Portions<'_>) -> (usize, u64) {
    let (mut at, mut count, mut longest) = (portions.start(), 0_usize, 0);
    while let Some(portion) = portions.portion(at) {
        (at, count, longest) = (portion.end, count + 1, longest.max(portion.len as u64));
    }
    (count.div_ceil(SECTOR / 64) + 1, longest)
}

/// What a pass takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Time {
    /// Seconds of the pass.
    pub total: f64,
    /// Seconds of its parts, in the order of [`Stage::ALL`].
    pub parts: [f64; Stage::ALL.len()],
    /// Seconds that the medium is busy.
    pub storage: f64,
    /// Seconds that the products would take if all weights were in the fastest memory.
    pub arithmetic: f64,
    /// Seconds that it takes to read the weights in each memory.
    pub memories: [f64; MEMORIES],
}

/// What takes most of a token's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Reading from the medium.
    Storage,
    /// Reading from a memory, by its number.
    Memory(usize),
    /// Computing.
    Arithmetic,
}

impl Time {
    /// The time of as many passes like it.
    pub fn times(mut self, passes: f64) -> Self {
        for time in self.parts.iter_mut().chain(&mut self.memories) {
            *time *= passes;
        }
        let (total, storage, arithmetic) = (self.total, self.storage, self.arithmetic);
        Self { total: passes * total, storage: passes * storage, arithmetic: passes * arithmetic, ..self }
    }

    /// What the pass would be faster without.
    pub fn bound(&self) -> Bound {
        let memory =
            (0..MEMORIES).max_by(|&a, &b| self.memories[a].total_cmp(&self.memories[b])).unwrap_or(0);
        let other = self.total - self.parts[Stage::Storage as usize];
        if self.storage >= other.min(self.total * 0.9) {
            Bound::Storage
        } else if self.memories[memory] >= self.total / 2.0 {
            Bound::Memory(memory)
        } else {
            Bound::Arithmetic
        }
    }
}

/// What a pass takes among others like it: the reads of the medium and the work of the cores, one beside the other as
/// [`crate::Placed`] has them.
pub fn predict(placement: &Plan, tape: Tape<'_>, costs: &Costs<'_>, pass: Pass) -> Time {
    let mut run = Run::new(placement, tape, costs, pass);
    // The first pass finds nothing read ahead.
    run.pass();
    let (begun, before) = (run.now, run.time);
    run.pass();
    let difference = |after: f64, before: f64| after - before;
    let mut time = run.time;
    time.total = run.now - begun;
    time.storage = difference(time.storage, before.storage);
    time.arithmetic = difference(time.arithmetic, before.arithmetic);
    for (part, before) in time.parts.iter_mut().zip(before.parts) {
        *part -= before;
    }
    for (memory, before) in time.memories.iter_mut().zip(before.memories) {
        *memory -= before;
    }
    time
}

/// A pass as it would run.
struct Run<'r> {
    placement: &'r Plan,
    portions: Portions<'r>,
    costs: &'r Costs<'r>,
    pass: Pass,
    time: Time,
    /// Seconds since the start, for the cores and for the medium.
    now: f64,
    medium: f64,
    /// When the reads that were begun will have ended, the oldest first.
    reads: [f64; MOST_READS],
    begun: usize,
    free: usize,
    ahead: Cursor,
}

impl<'r> Run<'r> {
    fn new(placement: &'r Plan, tape: Tape<'r>, costs: &'r Costs<'r>, pass: Pass) -> Self {
        let portions = placement.portions(tape);
        let ahead = Cursor::start(&portions);
        let (time, reads) = (Time::default(), [0.0; MOST_READS]);
        let free = placement.buffers;
        Self { placement, portions, costs, pass, time, now: 0.0, medium: 0.0, reads, begun: 0, free, ahead }
    }

    fn spend(&mut self, stage: Stage, seconds: f64) {
        self.now += seconds;
        self.time.parts[stage as usize] += seconds;
    }

    /// Begins a read that happens so often; returns when it will have ended.
    fn read(&mut self, bytes: usize, share: f64) -> f64 {
        let Some(medium) = self.costs.board.storage else { return self.now };
        // Whole sectors, of which those at the ends are half full.
        let seconds = share * medium.seconds((bytes + SECTOR) as u64);
        self.medium = self.medium.max(self.now) + seconds;
        self.time.storage += seconds;
        if !medium.overlap {
            self.wait(self.medium);
        }
        self.medium
    }

    fn wait(&mut self, until: f64) {
        let seconds = (until - self.now).max(0.0);
        self.spend(Stage::Storage, seconds);
    }

    fn read_ahead(&mut self) {
        while self.free > 0 && self.placement.streamed > 0 {
            match self.ahead.step(&self.portions, &self.placement.pinning) {
                Some((portion, Place::Home)) => {
                    self.reads[self.begun] = self.read(portion.len, 1.0);
                    self.begun += 1;
                    self.free -= 1;
                }
                Some(_) => (),
                None => self.ahead = Cursor::start(&self.portions),
            }
        }
    }

    fn pass(&mut self) {
        let tape = *self.portions.tape();
        let mapped = self.placement.mapped;
        if mapped.is_none() {
            self.read_ahead();
            self.embed();
        }
        let mut cursor = Cursor::start(&self.portions);
        let mut holds = false;
        while let Some((portion, place)) = cursor.step(&self.portions, &self.placement.pinning) {
            if mapped.is_none() {
                self.free += usize::from(core::mem::take(&mut holds));
                self.read_ahead();
            }
            let memory = match (place, mapped) {
                (Place::Pinned(memory, _), _) | (Place::Home, Some(memory)) => memory,
                (Place::Home, None) => {
                    self.wait(self.reads[0]);
                    self.reads.rotate_left(1);
                    self.begun -= 1;
                    holds = true;
                    self.placement.buffers_in
                }
            };
            self.products(&tape, &portion, memory);
        }
        self.free += usize::from(holds);
        let sampling = self.costs.sampling(self.pass);
        self.spend(Stage::Sampling, sampling);
    }

    /// Rows of the embedding, which are read one at a time where they are not pinned.
    fn embed(&mut self) {
        let tape = self.portions.tape();
        let config = tape.config();
        let format = tape.entry(Tensor::Embedding).format;
        let rows = if format.group().is_some() { llamita_kernels::quantized::BLOCK_ROWS } else { 1 };
        let bytes = format.bytes(rows, config.dim) as usize;
        // The share of them that is not.
        let share = if config.shared_classifier {
            let index = Tape::index(config, Tensor::Matrix(Matrix::Classifier));
            let mut cursor = Cursor::start(&self.portions);
            let mut home = 0;
            while let Some((portion, place)) = cursor.step(&self.portions, &self.placement.pinning) {
                let inside = portion.rows(index, config.vocab_size).len();
                home += if place == Place::Home { inside } else { 0 };
            }
            home as f64 / config.vocab_size as f64
        } else {
            1.0
        };
        if share > 0.0 {
            for _ in 0..self.pass.batch {
                // On average.
                let end = self.read(bytes, share);
                self.wait(end);
            }
        }
    }

    /// The products of a portion, and what comes before them.
    fn products(&mut self, tape: &Tape<'_>, portion: &Portion, memory: usize) {
        let config = *tape.config();
        for index in portion.first.tensor..=portion.end.tensor {
            if index >= Tape::len(&config) {
                break;
            }
            let Tensor::Matrix(matrix) = Tape::tensor(&config, index) else { continue };
            let (rows, columns) = Tape::shape(&config, Tensor::Matrix(matrix));
            let rows = portion.rows(index, rows);
            if rows.is_empty() {
                continue;
            }
            if rows.start == 0 {
                for (stage, seconds) in self.costs.before(tape, matrix, self.pass) {
                    self.spend(stage, seconds);
                }
            }
            let batch = if matrix == Matrix::Classifier { self.pass.logits } else { self.pass.batch };
            let seconds = self.costs.product(tape, matrix, rows.len(), batch, memory);
            self.spend(stage(matrix), seconds);
            let format = tape.entry(Tensor::Matrix(matrix)).format;
            self.time.arithmetic += self.costs.board.product(format, rows.len(), columns, batch, 0);
            if memory > 0 {
                let bytes = format.bytes(rows.len(), columns) as f64;
                self.time.memories[memory] += bytes / self.costs.board.memories[memory].rate;
            }
        }
    }
}

/// Bytes of a tensor that are pinned in each memory, and bytes that are not.
pub fn bytes_of(placement: &Plan, tape: Tape<'_>, tensor: usize) -> ([u64; MEMORIES], u64) {
    let portions = placement.portions(tape);
    let (rows, columns) = Tape::shape(tape.config(), Tape::tensor(tape.config(), tensor));
    let format = tape.entry(Tape::tensor(tape.config(), tensor)).format;
    let (mut cursor, mut pinned, mut home) = (Cursor::start(&portions), [0; MEMORIES], 0);
    while let Some((portion, place)) = cursor.step(&portions, &placement.pinning) {
        let inside = portion.rows(tensor, rows);
        if !inside.is_empty() && portion.contains(Position { tensor, row: inside.start }) {
            let bytes = format.bytes(inside.end, columns) - format.bytes(inside.start, columns);
            match place {
                Place::Pinned(memory, _) => pinned[memory] += bytes,
                Place::Home => home += bytes,
            }
        }
    }
    (pinned, home)
}
