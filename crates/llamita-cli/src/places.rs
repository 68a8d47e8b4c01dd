//! What a model needs on a board, for the commands that place it there.

use llamita::weights::{Entry, Tape};
use llamita::{CacheFormat, Capacity, state_len};
use llamita_storage::{Board, MEMORIES, Medium, Memory, Plan, PlanError, Request};

use crate::error::{Error, Result};
use crate::load::LoadedModel;
use crate::units::bytes;
use crate::vocabulary::Vocabulary;

/// Memories for portions that are read: with three the medium is still busy while a token is chosen.
pub const BUFFERS: usize = 3;

/// Tokens in one pass over slow weights, at most.
const MAX_BATCH: usize = 32;

/// A machine with so much memory whose files are read as fast as it can.
pub const fn this_machine(memory: &[Memory; 1]) -> Board<'_> {
    let storage = Medium { rate: 1e9, latency: 1e-4, best_read: 256 << 10, overlap: true };
    Board {
        clock: 1e9,
        cores: 1,
        cycles: llamita_storage::Cycles::ONE,
        memories: memory,
        storage: Some(storage),
    }
}

/// Bytes of all memories that can be written.
fn writable(board: &Board<'_>) -> u64 {
    board.memories.iter().filter(|memory| !memory.read_only).map(|memory| memory.size).sum()
}

/// A model that is to be placed.
#[derive(Clone, Copy)]
pub struct Wanted<'t> {
    /// Its tensors.
    pub tape: Tape<'t>,
    /// Bytes of its file.
    pub file: u64,
    /// Bytes of all else that has to be in memory.
    pub other: u64,
    /// Bytes of these that need not where the file is in memory already: its header.
    pub header: u64,
    /// Longest text.
    pub context: usize,
    /// How keys and values are kept.
    pub cache: CacheFormat,
    /// Rows of logits that a pass makes at most.
    pub logits: usize,
    /// Whether memory-mapped flash may hold the file.
    pub in_place: bool,
    /// Whether weights are pinned.
    pub pin: bool,
}

/// Places a model on a board, with passes of as many tokens as take no more beside what one takes than a sixteenth of the
/// fastest memory, or a 32nd of the file if that is less than a sixteenth of all memory. They are fewer where the model has
/// no place then; the inner error is that of the plan.
pub fn plan(
    wanted: &Wanted<'_>,
    board: &Board<'_>,
) -> Result<std::result::Result<(Capacity, Plan), PlanError>> {
    let &Wanted { tape, file, other, header, context, cache, logits, in_place, pin } = wanted;
    let in_flash = in_place && board.memories.iter().any(|memory| memory.read_only && memory.size >= file);
    let other = if in_flash { other.saturating_sub(header) } else { other };
    let with = |batch| Capacity { context, batch, logits, cache };
    let bytes = |batch| Ok::<_, Error>(4 * state_len(tape.config(), with(batch))? as u64);
    let least = bytes(logits)?;
    let fastest = board.memories.first().map_or(0, |memory| memory.size);
    let limit = least + (fastest / 16).max((file / 32).min(writable(board) / 16));
    let mut batch = MAX_BATCH.max(logits);
    while batch > logits && bytes(batch)? > limit {
        batch -= 1;
    }
    loop {
        let capacity = with(batch);
        let request = Request { tape, file, capacity, other, buffers: BUFFERS, in_place, pin };
        match llamita_storage::plan(&request, board) {
            Err(PlanError::Memory(..)) if batch > logits => batch = (batch / 2).max(logits),
            planned => return Ok(planned.map(|planned| (capacity, planned))),
        }
    }
}

/// Bytes of what is in memory beside weights and state, and the text: the header, the tape, the tokenizer.
pub fn other_bytes(model: &LoadedModel<'_>, vocabulary: Option<&Vocabulary<'_>>) -> u64 {
    let tape = Tape::len(model.config()) * size_of::<Entry>();
    let tokenizer = vocabulary.map_or_else(
        || crate::vocabulary::index_bytes(&model.header),
        |vocabulary| vocabulary.index_bytes() + vocabulary.file_bytes(),
    );
    model.header.header_len() + tokenizer + tape as u64
}

/// Bytes of a text of so many tokens.
pub const fn text_bytes(context: usize) -> u64 {
    4 * (context as u64 + 2)
}

/// A model that the engine uses as it is stored.
pub fn check_formats(model: &LoadedModel<'_>) -> Result<()> {
    let tape = model.tape()?;
    let blocks = |tensor| match tape.entry(tensor).format {
        llamita::weights::Format::Blocks(blocks) => Some(blocks),
        _ => None,
    };
    match Tape::tensors(model.config()).find_map(blocks) {
        None => Ok(()),
        Some(blocks) => Err(Error::file(
            &model.file.path,
            format_args!(
                "{} has to be repacked, which takes memory for all of it: make a file that is used as it is with \
                 `llamita convert`",
                blocks.name()
            ),
        )),
    }
}

/// Explains why a model has no place, and what to do.
pub fn explain(error: PlanError, board: &str, fits: &[String]) -> Error {
    let what = match error {
        PlanError::Memory(missing, what) => {
            format!("{board} has {} ({missing} bytes) too little memory for {what}", bytes(missing))
        }
        PlanError::NoStorage(file) => {
            format!("no memory of {board} has room for the model of {}, and it has no storage", bytes(file))
        }
        error => format!("{board}: {error}"),
    };
    let remedy = match fits {
        [] => "use a shorter --context, --kv q8, a smaller model or another board".to_owned(),
        fits => format!("what fits: {}", fits.join("; ")),
    };
    Error::failure(format_args!("{what}: {remedy}"))
}

/// What a board's memories are called.
pub fn memory_names(board: &crate::board::NamedBoard) -> [String; MEMORIES] {
    core::array::from_fn(|i| board.memories.get(i).map_or_else(String::new, |memory| memory.name.clone()))
}
