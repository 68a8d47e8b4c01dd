//! From a file to a model that is ready to tell.

use core::{fmt, mem};

use llamita::format::FormatError;
use llamita::weights::{Entry, Tape};
use llamita::{Engine, Kernels, Model, State, Team, Tokenizer};
use llamita_storage::sd::{Extent, Extents, SdSource, Shared};
use llamita_storage::{Home, Lent, MEMORIES, Placed, PlanError, Reader, SECTOR, Sector, Source, Verify};
use zerocopy::IntoBytes;

use crate::app::{App, Next};
use crate::arena::{Arena, Memories, Room, Short};
use crate::card::Watched;
use crate::check;
use crate::models::{FLASH, Name};
use crate::place::{Places, Wanted, tokens_len};
use crate::port::Told;
use crate::rates;
use crate::{Card, Machine, watched_ticks};

/// Pieces of a file on the card, at most.
pub(crate) const PIECES: usize = 64;
/// Sectors of a file to begin with.
const FIRST_READ: usize = 8;
/// How often the header is read where that fails.
const TRIES: u32 = 3;
/// Tensors of a layer, and those that belong to none.
const TENSORS: (usize, usize) = (Tape::LAYER.len(), 3);

/// A model that is ready.
pub(crate) struct Session<'s, C: Card + 's, T: Team> {
    pub name: &'s str,
    pub engine: Engine<'s, Placed<'s, C::Source<'s>>, T>,
    pub tokenizer: Tokenizer<'s>,
    /// Room for the tokens of a text.
    pub tokens: &'s mut [u32],
    pub places: Places,
    /// Where it is on the card, if it is read from there.
    pub streamed: Option<Extents<'s>>,
}

/// Where a model is.
#[derive(Clone, Copy)]
enum Origin<'s> {
    Flash(&'s [u8]),
    Card(Extents<'s>),
}

impl Origin<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Flash(file) => file.len() as u64,
            Self::Card(extents) => extents.len(),
        }
    }
}

/// A model that cannot be loaded: its name, and why.
struct Refused<'e>(&'e str, &'e dyn fmt::Display);

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0, self.1)
    }
}

/// Of two memories the one for what is seldom used: the slower one, if there is one.
fn seldom_used<T: Room>(memories: &mut [T; 2]) -> &mut T {
    let [memory, more] = memories;
    if more.has_room() { more } else { memory }
}

impl<'c, M: Machine, C: Card> App<'_, 'c, M, C> {
    /// Loads a model, and runs the console with it until something else is to be done.
    pub fn load(&mut self, memories: Memories<'_>, name: &Name) -> Next {
        self.port.feed();
        if let Some(panel) = self.port.panel() {
            panel.start(name);
            panel.note("loading");
        }
        let next = match self.flash.filter(|_| name == FLASH) {
            Some(file) => self.with_header(name, Origin::Flash(file), file, memories),
            None => self.load_from_card(memories, name),
        };
        next.unwrap_or(Next::Idle)
    }

    fn refuse(&mut self, name: &str, error: &dyn fmt::Display) -> Told {
        self.port.refuse(&Refused(name, error))
    }

    fn load_from_card(&mut self, mut memories: Memories<'_>, name: &str) -> Result<Next, Told> {
        let Some(card) = self.device() else {
            return Err(
                self.refuse(name, &"this board has no card, only its flash: /models lists what it has")
            );
        };
        let mut pieces = [Extent::EMPTY; PIECES];
        let extents = Extents::find(&card, name, &mut pieces).map_err(|error| self.refuse(name, &error))?;
        let lender = seldom_used(&mut memories);
        let memory = mem::take(lender);
        let len = self.read_header(&card, extents, name, memory)?;
        let (header, rest) = memory.split_at_mut(len.div_ceil(SECTOR));
        let header: &[Sector] = header;
        *lender = rest;
        self.with_header(name, Origin::Card(extents), &header.as_bytes()[..len], memories)
    }

    /// Reads the header to the begin of the memory, and returns its length.
    fn read_header(
        &mut self,
        card: &Watched<'_, M, C::Device>,
        extents: Extents<'_>,
        name: &str,
        memory: &mut [Sector],
    ) -> Result<usize, Told> {
        let all = extents.len().div_ceil(SECTOR as u64);
        let room = memory.len();
        if room == 0 {
            return Err(self.refuse(name, &Short("the header with the vocabulary", SECTOR as u64, 0)));
        }
        let mut wanted = FIRST_READ;
        loop {
            // No more than there is memory for.
            let count = (wanted.min(room) as u64).min(all) as usize;
            let begun = M::ticks();
            let len = self.read(card, extents, name, &mut memory[..count])?;
            // The last of these reads is the longest.
            self.rates.card = rates::rate::<M>(count * SECTOR, begun);
            self.port.feed();
            match Model::read_header(&memory.as_bytes()[..len], extents.len()) {
                Ok(model) => return Ok(model.header_len().min(len as u64) as usize),
                Err(FormatError::Truncated { .. }) if (count as u64) < all => {
                    if count == room {
                        let left = (room * SECTOR) as u64;
                        return Err(
                            self.refuse(name, &Short("the header with the vocabulary", left + 1, left))
                        );
                    }
                    wanted *= 2;
                }
                Err(error) => return Err(self.refuse(name, &error)),
            }
        }
    }

    /// Reads the first sectors of a file; some more times where that fails.
    fn read(
        &mut self,
        card: &Watched<'_, M, C::Device>,
        extents: Extents<'_>,
        name: &str,
        memory: &mut [Sector],
    ) -> Result<usize, Told> {
        let mut tries = 1;
        loop {
            let mut source = SdSource::new(Shared(card), extents);
            source.start(0, memory.len(), &mut *memory);
            match source.finish().map(|finished| finished.outcome) {
                Some(Ok(len)) => return Ok(len),
                Some(Err(error)) if tries == TRIES => {
                    let text = format_args!("{error}: check the card and its contacts, then /model again");
                    return Err(self.refuse(name, &text));
                }
                _ => tries += 1,
            }
        }
    }

    /// Lends memory for the tape, no more than that of a model with a few times the layers.
    fn with_header(
        &mut self,
        name: &str,
        origin: Origin<'_>,
        header: &[u8],
        memories: Memories<'_>,
    ) -> Result<Next, Told> {
        let model = Model::read_header(header, origin.len()).map_err(|error| self.refuse(name, &error))?;
        match model.config().n_layers {
            0..=6 => {
                self.with_entries::<{ 6 * TENSORS.0 + TENSORS.1 }>(name, origin, &model, header, memories)
            }
            7..=16 => {
                self.with_entries::<{ 16 * TENSORS.0 + TENSORS.1 }>(name, origin, &model, header, memories)
            }
            17..=48 => {
                self.with_entries::<{ 48 * TENSORS.0 + TENSORS.1 }>(name, origin, &model, header, memories)
            }
            layers => {
                let text =
                    format_args!("the model has {layers} layers, expected at most 48: take a smaller one");
                Err(self.refuse(name, &text))
            }
        }
    }

    // In the stack of its caller the memory of every size would be at once.
    #[inline(never)]
    fn with_entries<const N: usize>(
        &mut self,
        name: &str,
        origin: Origin<'_>,
        model: &Model<'_>,
        header: &[u8],
        memories: Memories<'_>,
    ) -> Result<Next, Told> {
        let mut entries = [Entry::EMPTY; N];
        let entries = &mut entries[..Tape::len(model.config())];
        let tape = model.tape(entries).map_err(|error| self.refuse(name, &error))?;
        let mut session = self.prepare(name, origin, model, tape, header, memories)?;
        Ok(self.console(Some(&mut session)))
    }

    /// Places the model in the memory.
    #[inline(never)]
    fn prepare<'s>(
        &mut self,
        name: &'s str,
        origin: Origin<'s>,
        model: &Model<'s>,
        tape: Tape<'s>,
        header: &[u8],
        memories: Memories<'s>,
    ) -> Result<Session<'s, C, M::Team>, Told>
    where
        'c: 's,
    {
        let kernels = Kernels::detect();
        if !check::agrees(kernels) {
            let text = "the arithmetic does not agree with its reference: /selftest says more, the program is damaged \
                        or built for another chip";
            return Err(self.refuse(name, &text));
        }
        let config = *model.config();
        let mut arenas = memories.map(Arena::new);

        let vocabulary = model.vocabulary().map_err(|error| self.refuse(name, &error))?;
        let Some(vocabulary) = vocabulary else {
            let text = "the file has no vocabulary: make a GGUF file of it with `llamita convert`";
            return Err(self.refuse(name, &text));
        };
        let index_len = vocabulary.index_len();
        let index = seldom_used(&mut arenas).numbers(index_len, "the tokenizer's index");
        let index = index.map_err(|error| self.refuse(name, &error))?;
        let tokenizer = Tokenizer::from_gguf(&vocabulary, index).map_err(|error| {
            let text = format_args!("{error}: the file is damaged, copy it anew");
            self.refuse(name, &text)
        })?;

        let wanted = Wanted {
            tape,
            file: origin.len(),
            mapped: matches!(origin, Origin::Flash(_)),
            memories: [arenas[0].left(), arenas[1].left()],
            buffers: C::BUFFERS,
            context: self.options.context,
            cache: self.options.cache,
            rates: self.rates,
        };
        let (capacity, plan) = wanted.place().map_err(|error| match error {
            PlanError::Memory(missing, what) => {
                let text = format_args!(
                    "there is too little memory: {missing} bytes are missing for {what}; take a smaller model"
                );
                self.refuse(name, &text)
            }
            error => self.refuse(name, &error),
        })?;

        let mut take = || {
            let tokens =
                arenas[plan.other_in].numbers(tokens_len(capacity.context), "the tokens of a text")?;
            let arena = &mut arenas[plan.buffers_in];
            let buffers = arena.sectors(plan.buffers * (plan.buffer / SECTOR), "buffers")?;
            let single = arena.sectors(plan.single / SECTOR, "a row of the embedding")?;
            let norms = arena.numbers(plan.norms as usize / size_of::<f32>(), "the norms")?;
            let [state, cache] = [plan.state, plan.cache].map(|bytes| bytes as usize / size_of::<f32>());
            let (cache, state) = if plan.cache_in == plan.state_in {
                arenas[plan.state_in]
                    .numbers(cache + state, "activations, keys and values")?
                    .split_at_mut(cache)
            } else {
                let cache = arenas[plan.cache_in].numbers(cache, "keys and values")?;
                (cache, arenas[plan.state_in].numbers(state, "activations")?)
            };
            let mut pinned = <[&mut [Sector]; MEMORIES]>::default();
            for (memory, arena) in arenas.iter_mut().enumerate() {
                pinned[memory] = arena.sectors(plan.pinning.room[memory] as usize / SECTOR, "the weights")?;
            }
            Ok::<_, Short>((tokens, [buffers, single], norms, [state, cache], pinned))
        };
        let (tokens, [buffers, single], norms, [state, cache], pinned) =
            take().map_err(|error| self.refuse(name, &error))?;
        // In flash the header takes no memory.
        let header_len = if plan.mapped.is_some() { 0 } else { header.len() };
        let vocabulary = header_len + size_of::<u32>() * index_len;
        let places =
            Places::new(capacity, &plan, vocabulary, origin.len(), arenas[0].left() + arenas[1].left());

        let (home, streamed) = match (origin, self.card) {
            (Origin::Card(extents), Some(card)) => {
                let buffers = buffers.chunks_exact_mut((plan.buffer / SECTOR).max(1));
                let reader = Reader::new(card.source(extents), buffers, single);
                let reader = reader.with_clock(watched_ticks::<M>);
                // An embedding that is no classifier is never pinned.
                let reads = plan.streamed > 0 || !config.shared_classifier;
                (Home::Streamed(reader), Some(extents).filter(|_| reads))
            }
            (Origin::Flash(file), _) => (Home::Mapped(file, plan.buffer), None),
            // It was found there.
            (Origin::Card(_), None) => return Err(self.refuse(name, &"there is no card any more: /models")),
        };
        let lent = Lent { norms, pinned };
        let weights = Placed::load(tape, home, lent, Verify::First, |done, all| {
            self.port.feed();
            if let Some(panel) = self.port.panel() {
                panel.progress(done, all);
            }
        });
        let weights = weights.map_err(|error| self.refuse(name, &error))?;
        let state = State::with_cache(&config, capacity, state, cache);
        let state = state.map_err(|error| self.refuse(name, &error))?;
        let engine = Engine::new(weights, state, self.port.team(), kernels);
        Ok(Session { name, engine, tokenizer, tokens, places, streamed })
    }
}
