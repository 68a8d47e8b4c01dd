//! A story with weights in places: some pinned in memory, the rest streamed, on this machine or on one that is imitated.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use llamita::weights::{Pass, Tape};
use llamita::{Draft, Engine, Profile, Stage, Weights, state_len};
use llamita_kernels::Threads;
use llamita_storage::simulate::{Faults, Simulated, Throttled};
use llamita_storage::{
    Costs, FileSource, Finished, Home, InMemory, Lent, MEMORIES, Memory, Placed, Placement, Plan, Reader,
    Sector, Source, Stats as ReadStats, Verify, predict,
};
use serde::Serialize;

use super::tell::{self, Stats};
use super::{Job, Text, profile};
use crate::board::NamedBoard;
use crate::builtin::BuiltIn;
use crate::clock;
use crate::error::{Error, Result};
use crate::load::{self, File, LoadedModel};
use crate::places::{self, Wanted};
use crate::units::{bytes, digits, size};
use crate::vocabulary::Vocabulary;

/// Where weights are.
#[derive(clap::Args)]
#[command(next_help_heading = "Memory and storage")]
pub struct Places {
    /// Use no more memory than this for the model, in bytes, or with k for 1024, M or G; weights beyond that are read
    /// from the file for each token
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,

    /// Read weights from the file for each token: all of them, or with --memory those that it has no room for
    #[arg(long)]
    stream: bool,

    /// Imitate this board, one of `llamita boards` or a file: its memories, its storage, its pace
    ///
    /// The text is the one that the board would tell (to the byte where weights are q8 or q4), and the times are those of
    /// the board, by a clock of its own.
    #[arg(long, value_name = "NAME|FILE")]
    board: Option<PathBuf>,

    /// The board's storage to read the model from [default: its flash if it fits there, or else its first]
    #[arg(long, value_name = "NAME", requires = "board")]
    storage: Option<String>,

    /// Take as much time as the board does
    #[arg(long, requires = "board")]
    real_time: bool,

    /// Compare weights with their checksums each time that they are read, not only the first; with --memory, --stream or
    /// --board
    #[arg(long)]
    verify: bool,
}

impl Places {
    /// Whether weights are to be anywhere else than in memory.
    pub const fn asked(&self) -> bool {
        self.memory.is_some() || self.stream || self.board.is_some()
    }

    /// Refuses what would have no effect.
    pub fn check(&self) -> Result<()> {
        if self.verify && !self.asked() {
            return Err(Error::usage(
                "--verify is for weights that are streamed, others are compared once: give --memory, --stream or --board \
                 with it",
            ));
        }
        Ok(())
    }

    /// Whether the time is that of a board.
    pub const fn imitates(&self) -> bool {
        self.board.is_some()
    }
}

/// How long a file may not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a model is read from.
pub enum ModelSource {
    File(FileSource),
    Program(Box<InMemory<'static, Vec<Sector>>>),
}

impl Source for ModelSource {
    type Error = io::Error;
    type Buffer = Vec<Sector>;

    fn len(&self) -> u64 {
        match self {
            Self::File(file) => file.len(),
            Self::Program(program) => program.len(),
        }
    }

    fn start(&mut self, first: u64, count: usize, buffer: Vec<Sector>) {
        match self {
            Self::File(file) => file.start(first, count, buffer),
            Self::Program(program) => program.start(first, count, buffer),
        }
    }

    fn finish(&mut self) -> Option<Finished<Vec<Sector>, io::Error>> {
        match self {
            Self::File(file) => file.finish(),
            Self::Program(program) => {
                let Finished { buffer, outcome } = program.finish()?;
                Some(Finished { buffer, outcome: outcome.map_err(|never| match never {}) })
            }
        }
    }
}

/// Where the weights were, and what was read.
#[derive(Clone, Serialize)]
pub struct PlacedStats {
    /// The board that was imitated.
    board: Option<String>,
    storage: String,
    /// Bytes of weights in each memory.
    pinned: Vec<(String, u64)>,
    /// Bytes that each token reads from the storage.
    streamed_bytes_per_token: u64,
    /// Of all memories together, the weights' included.
    planned_memory_bytes: u64,
    /// What the plan said.
    planned_tokens_per_second: Option<f64>,
    read: Read,
}

/// What was read while the story was told.
#[derive(Clone, Copy, Serialize)]
struct Read {
    bytes: u64,
    reads: u64,
    retries: u64,
    bytes_per_second: f64,
}

impl PlacedStats {
    /// All of it for people.
    pub fn line(&self) -> String {
        let pinned = self.pinned.iter().filter(|(_, size)| *size > 0);
        let pinned: Vec<_> = pinned.map(|(name, size)| format!("{} in {name}", bytes(*size))).collect();
        let pinned = if pinned.is_empty() { "nothing".to_owned() } else { pinned.join(", ") };
        let board = self.board.as_ref().map_or_else(String::new, |board| format!("{board}, imitated: "));
        let planned = self.planned_tokens_per_second;
        let planned = planned.map_or_else(String::new, |rate| format!(", planned {} tok/s", digits(rate)));
        format!(
            "{board}{} a token from {}, pinned {pinned}, memory {} as planned, {} read in {} reads ({}/s, {} retries){planned}",
            bytes(self.streamed_bytes_per_token),
            self.storage,
            bytes(self.planned_memory_bytes),
            bytes(self.read.bytes),
            self.read.reads,
            bytes(self.read.bytes_per_second as u64),
            self.read.retries,
        )
    }
}

/// Tells the story.
pub fn run(job: &Job<'_>) -> Result<()> {
    let places = &job.options.places;
    let refuse = |error: &dyn std::fmt::Display| Error::file(job.path, error);
    let file = File::open_header(job.path)?;
    let model = LoadedModel::read_header(&file)?;
    places::check_formats(&model)?;
    let mut vocabulary = Vocabulary::find(&model, job.options.tokenizer.path())?;
    let tokenizer_bytes = vocabulary.index_bytes();
    let config = *model.config();

    let mut named = places.board.as_deref().map(NamedBoard::find).transpose()?;
    if let (Some(board), Some(limit)) = (&mut named, places.memory) {
        board.limit(limit);
    }
    let storage = named.as_ref().map(|board| board.storage(places.storage.as_deref())).transpose()?.flatten();
    let all = [Memory { size: places.memory.unwrap_or(1 << 50), rate: 1e10, read_only: false, dma: true }];
    let board = named.as_ref().map_or_else(|| places::this_machine(&all), |board| board.with(storage));

    let other = places::other_bytes(&model, Some(&vocabulary));
    let text = job.text(&model, &mut vocabulary)?;
    let draft_file = job.options.drafting.open()?;
    let mut room = job.options.drafting.room(draft_file.as_ref(), &model, text.context)?;
    let draft_bytes = room.as_ref().map(super::draft::Room::bytes).transpose()?.unwrap_or(0);
    let wanted = Wanted {
        tape: model.tape()?,
        file: file.stored_len(),
        other: other + places::text_bytes(text.context) + draft_bytes,
        header: model.header.header_len(),
        context: text.context,
        cache: job.options.cache.format(),
        logits: job.options.drafting.logits(),
        in_place: named.is_some() && places.storage.is_none() && !places.stream,
        pin: !places.stream || places.memory.is_some(),
    };
    let (capacity, planned) = places::plan(&wanted, &board)?.map_err(|error| match &named {
        Some(board) => {
            let model = job.path.display();
            let advice = format!("`llamita plan {model} --board {}` says", board.name);
            places::explain(error, &board.name, &[advice])
        }
        None => places::explain(error, "this machine, with that --memory,", &[]),
    })?;

    // All memory that was planned, and no more.
    let mut memory = load::memory(&config, capacity)?;
    let mut norms = vec![0.0; planned.norms as usize / 4];
    let mut pinned: [Vec<Sector>; MEMORIES] = Default::default();
    for (pinned, &room) in pinned.iter_mut().zip(&planned.pinning.room) {
        *pinned = sectors(room)?;
    }
    let whole = planned.mapped.map(|_| File::open_as_is(job.path, Placement::Mapped)).transpose()?;
    let clock = clock::of_board(places.real_time);
    let source = match BuiltIn::find(job.path) {
        Some(model) => ModelSource::Program(Box::new(InMemory::new(model.bytes()))),
        None => ModelSource::File(FileSource::open(job.path, PATIENCE)?),
    };
    let lent = Lent { norms: &mut norms, pinned: pinned.each_mut().map(|pinned| &mut pinned[..]) };
    let verify = if places.verify { Verify::Always } else { Verify::First };
    let bar = loading(&planned)?;
    let progress = |done: u64, all: u64| {
        bar.set_length(all);
        bar.set_position(done);
    };

    let costs = Costs { board, config, cache: capacity.cache, cache_memory: planned.cache_in };
    let team = job.team(model.bytes_per_token()?)?;
    let facts = Stats {
        state_bytes: 4 * state_len(&config, capacity)? as u64,
        tokenizer_bytes,
        weights_bytes: planned.pinned.iter().sum::<u64>() + planned.norms + planned.buffers_len(),
        ..Stats::default()
    };
    let place = Place {
        planned,
        tape: wanted.tape,
        costs,
        named: named.as_ref(),
        storage: storage.map(|storage| storage.name.as_str()),
    };
    if named.is_none() {
        let home = Home::Streamed(reader(source, &planned, clock::nanoseconds)?);
        let weights =
            Placed::load(wanted.tape, home, lent, verify, progress).map_err(|error| refuse(&error))?;
        bar.finish_and_clear();
        let mut engine = model.engine_with(weights, capacity, &mut memory, team)?;
        if job.profiles() {
            engine.profile = llamita::Profile::with_clock(clock::nanoseconds);
        }
        let mut draft = room.as_mut().map(|room| room.draft(&config, |weights, _| weights)).transpose()?;
        let draft = draft.as_mut().map(|draft| &mut **draft as &mut dyn Draft);
        return finish(job, text, &mut engine, draft, facts, &place, clock::nanoseconds);
    }

    let now = clock::board_nanoseconds;
    let home = match &whole {
        Some(file) => Home::Mapped(file.content.bytes(), planned.buffer),
        None => {
            // A board without storage has the model in memory.
            let medium = board.storage.ok_or_else(|| refuse(&"the board has no storage"))?;
            let faults = storage.map_or_else(Faults::default, |storage| storage.faults);
            Home::Streamed(reader(Throttled::new(source, medium, faults, job.seed, clock), &planned, now)?)
        }
    };
    let weights = Placed::load(wanted.tape, home, lent, verify, progress).map_err(|error| refuse(&error))?;
    bar.finish_and_clear();
    let from = planned.mapped.unwrap_or(planned.buffers_in);
    let weights = Simulated::new(weights, wanted.tape, costs, clock, move |weights: &Placed<'_, _>| {
        weights.memory().unwrap_or(from)
    });
    let mut engine = model.engine_with(weights, capacity, &mut memory, team)?;
    let mut draft = match &mut room {
        None => None,
        Some(room) => Some(room.draft(&config, |weights, tape| {
            let costs = Costs { config: *tape.config(), ..costs };
            Simulated::new(weights, tape, costs, clock, move |_: &llamita::Resident<'_>| planned.other_in)
        })?),
    };
    let draft = draft.as_mut().map(|draft| &mut **draft as &mut dyn Draft);
    finish(job, text, &mut engine, draft, facts, &place, now)
}

/// What was planned, with names.
struct Place<'p> {
    planned: Plan,
    tape: Tape<'p>,
    costs: Costs<'p>,
    named: Option<&'p NamedBoard>,
    storage: Option<&'p str>,
}

/// Weights that know what they did.
trait Watched: Weights {
    /// Nanoseconds of each of [`Stage::ALL`], by the clock that counts.
    fn parts(&self, profile: &Profile) -> [u64; Stage::ALL.len()];

    /// What was read.
    fn read(&self) -> ReadStats;
}

impl<S: Source> Watched for Placed<'_, S> {
    fn parts(&self, profile: &Profile) -> [u64; Stage::ALL.len()] {
        profile.ticks()
    }

    fn read(&self) -> ReadStats {
        self.stats()
    }
}

impl<'a, S: Source, M: Fn(&Placed<'a, S>) -> usize> Watched for Simulated<'_, Placed<'a, S>, M> {
    fn parts(&self, _: &Profile) -> [u64; Stage::ALL.len()] {
        self.charged()
    }

    fn read(&self) -> ReadStats {
        self.inner().stats()
    }
}

/// Tells the story, and says how.
fn finish<W: Watched>(
    job: &Job<'_>,
    text: Text<'_>,
    engine: &mut Engine<'_, W, Threads>,
    draft: Option<&mut dyn Draft>,
    facts: Stats,
    place: &Place<'_>,
    now: fn() -> u64,
) -> Result<()> {
    let done =
        |engine: &Engine<'_, W, Threads>| (engine.weights().parts(&engine.profile), engine.weights().read());
    let (parts_before, before) = done(engine);
    let story = tell::tell(job, text, engine, draft, now)?;
    let (mut parts, after) = done(engine);
    for (part, before) in parts.iter_mut().zip(parts_before) {
        *part -= before;
    }
    let Place { planned, tape, costs, named, storage } = place;
    // What the plan says of a token in the middle of those that were made.
    let position = story.stats.prompt_tokens + story.stats.new_tokens / 2;
    let pass = Pass { position, batch: 1, logits: 1 };
    let expected = named.map(|_| 1.0 / predict(planned, *tape, costs, pass).total);
    let names: [String; MEMORIES] =
        named.map_or_else(|| core::array::from_fn(|_| "memory".to_owned()), places::memory_names);
    let storage = match (planned.mapped, storage) {
        (Some(memory), _) => &names[memory],
        (None, storage) => storage.unwrap_or("the file"),
    };
    let read_bytes = after.bytes - before.bytes;
    let placed = PlacedStats {
        board: named.map(|board| board.name.clone()),
        storage: storage.to_owned(),
        pinned: names
            .clone()
            .into_iter()
            .zip(planned.pinned)
            .take(named.map_or(1, |b| b.memories.len()))
            .collect(),
        streamed_bytes_per_token: planned.streamed,
        planned_memory_bytes: planned.total(),
        planned_tokens_per_second: expected,
        read: Read {
            bytes: read_bytes,
            reads: after.reads - before.reads,
            retries: after.retries - before.retries,
            bytes_per_second: read_bytes as f64 / (story.nanoseconds.max(1) as f64 / 1e9),
        },
    };
    let stats = Stats {
        state_bytes: facts.state_bytes,
        tokenizer_bytes: facts.tokenizer_bytes,
        weights_bytes: facts.weights_bytes,
        placed: Some(placed),
        profile: job.profiles().then(|| profile::Profile::new(&parts, story.nanoseconds)),
        ..story.stats.clone()
    };
    job.report(story, stats)
}

/// Memory of so many bytes.
fn sectors(count: u64) -> Result<Vec<Sector>> {
    let count = Sector::count(count);
    let mut memory = Vec::new();
    memory.try_reserve_exact(count).map_err(|_| {
        let needed = bytes(512 * count as u64);
        Error::failure(format_args!("there are no {needed} of memory for weights: give less with --memory"))
    })?;
    memory.resize(count, Sector::ZERO);
    Ok(memory)
}

/// A reader with the memory that was planned.
fn reader<S: Source<Buffer = Vec<Sector>>>(source: S, planned: &Plan, now: fn() -> u64) -> Result<Reader<S>> {
    let buffers = (0..planned.buffers).map(|_| sectors(planned.buffer as u64)).collect::<Result<Vec<_>>>()?;
    Ok(Reader::new(source, buffers, sectors(planned.single as u64)?).with_clock(now))
}

/// How far loading is, where someone looks and it takes a while.
fn loading(planned: &Plan) -> Result<ProgressBar> {
    let all: u64 = planned.pinned.iter().sum();
    if all < 1 << 20 {
        return Ok(ProgressBar::hidden());
    }
    let style =
        ProgressStyle::with_template("loading {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}");
    Ok(ProgressBar::new(all).with_style(style.map_err(Error::failure)?))
}
