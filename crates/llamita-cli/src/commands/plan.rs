//! `llamita plan`: where a model would live on a board, and how fast it would be there.

mod picture;
mod variant;

use std::path::PathBuf;

use llamita::{CacheFormat, Stage};
use llamita_storage::{Board, Bound, Plan};
use serde::Serialize;

use crate::board::{Figure, NamedBoard, NamedStorage};
use crate::commands::inspect::class;
use crate::error::Result;
use crate::load::{self, File, LoadedModel};
use crate::options::{CacheArgument, ModelArgument, TokenizerArgument, positive};
use crate::output::{self, Table};
use crate::places;
use crate::plot;
use crate::units::{bytes, counted, digits, size};
use crate::vocabulary::Vocabulary;

use variant::{Outcome, Use, Variant};

/// Say where a model would live on a board, what a token takes there, and what would be faster
///
/// All of it follows from the figures of the board, see `llamita boards NAME`; `llamita run --board` imitates it.
#[derive(clap::Args)]
#[command(override_usage = "llamita plan [OPTIONS] MODEL --board NAME")]
pub struct Options {
    #[command(flatten)]
    model: ModelArgument,

    #[command(flatten)]
    tokenizer: TokenizerArgument,

    /// The board, one of `llamita boards` or a file
    #[arg(long, value_name = "NAME|FILE")]
    board: PathBuf,

    /// The board's storage to read the model from [default: its flash if it fits there, or else its first]
    #[arg(long, value_name = "NAME")]
    storage: Option<String>,

    /// Use no more of the board's memory than this, in bytes, or with k for 1024, M or G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,

    /// Longest text to make room for, in tokens [default: the model's context, of long ones 2048]
    #[arg(long, value_name = "N", value_parser = positive)]
    context: Option<usize>,

    #[command(flatten)]
    cache: CacheArgument,

    /// Draw where everything is and what a token waits for to this file, in SVG
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    /// List the figures of the board that the prediction follows from, each with its source
    #[arg(long)]
    sources: bool,

    /// Print one JSON object; bytes and seconds are exact in it
    #[arg(long)]
    json: bool,
}

/// Tokens of the prompt that is planned for.
const PROMPT: usize = 16;

#[derive(Serialize)]
struct Report {
    model: String,
    board: String,
    about: String,
    /// Where weights come from that are not pinned.
    home: String,
    context: usize,
    key_value_cache: &'static str,
    batch: usize,
    memories: Vec<MemoryUse>,
    tensors: Vec<TensorsAt>,
    streamed_bytes_per_token: u64,
    reads_per_token: u64,
    token: Pace,
    prompt: Pace,
    variants: Vec<VariantPace>,
    /// What would be faster, the best first.
    advice: Vec<Advice>,
    /// The position of the token in its text.
    position: usize,
    /// What all of it follows from.
    figures: Vec<Figure>,
}

#[derive(Serialize)]
struct MemoryUse {
    name: String,
    size: u64,
    weights: u64,
    state: u64,
    buffers: u64,
    other: u64,
}

#[derive(Serialize)]
struct TensorsAt {
    class: &'static str,
    bytes: u64,
    /// In each memory.
    pinned: Vec<u64>,
    home: u64,
}

#[derive(Serialize)]
struct Pace {
    tokens: usize,
    seconds: f64,
    tokens_per_second: f64,
    bound: String,
    parts: Vec<(&'static str, f64)>,
}

#[derive(Serialize)]
struct VariantPace {
    name: String,
    convert: String,
    file_bytes: u64,
    pinned_bytes: Option<u64>,
    streamed_bytes: Option<u64>,
    tokens_per_second: Option<f64>,
    bound: Option<String>,
    /// Why it has no place.
    reason: Option<String>,
}

#[derive(Serialize)]
struct Advice {
    what: String,
    times_as_fast: f64,
}

/// Plan it.
pub fn run(options: &Options) -> Result<()> {
    let path = options.model.path()?;
    if let Some(plot) = &options.plot {
        plot::check(plot, &[path])?;
    }
    let file = File::open_header(path)?;
    let model = LoadedModel::read_header(&file)?;
    places::check_formats(&model)?;
    let mut board = NamedBoard::find(&options.board)?;
    if let Some(limit) = options.memory {
        board.limit(limit);
    }
    let storage = board.storage(options.storage.as_deref())?;
    let plain = board.with(storage);
    let how = Use {
        context: load::context(model.config(), options.context, 0)?,
        cache: options.cache.format(),
        in_place: options.storage.is_none(),
        prompt: PROMPT,
    };
    // A model can be planned for before it has a tokenizer.
    let vocabulary = match Vocabulary::find(&model, options.tokenizer.path()) {
        Err(error) if options.tokenizer.path().is_some() => return Err(error),
        found => found.ok(),
    };
    let variants = Variant::all(&model, vocabulary.as_ref())?;
    let mut outcomes = Vec::new();
    for variant in &variants {
        outcomes.push(variant.on(&plain, how)?);
    }
    let outcome = match &outcomes[0] {
        Ok(outcome) => outcome,
        Err(error) => {
            let fits = variants.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
            let mut fits: Vec<_> =
                fits.map(|(variant, _)| format!("llamita convert {}", variant.convert)).collect();
            if let Ok(Ok(_)) = variants[0].on(&plain, Use { cache: CacheFormat::Q8, ..how }) {
                fits.insert(0, "--kv q8".to_owned());
            }
            let shorter = [256, 128, 64, 32].into_iter().filter(|&context| context < how.context);
            let fit = |&context: &usize| matches!(variants[0].on(&plain, Use { context, ..how }), Ok(Ok(_)));
            fits.extend(shorter.into_iter().find(fit).map(|context| format!("--context {context}")));
            return Err(places::explain(*error, &board.name, &fits));
        }
    };
    let home = match (outcome.plan.mapped, storage) {
        (Some(memory), _) => board.memories[memory].name.clone(),
        (None, Some(storage)) => format!("{} ({})", storage.name, storage.about),
        (None, None) => "nowhere".to_owned(),
    };
    let short_home = home.split(" (").next().unwrap_or_default();
    let report = Report {
        model: path.display().to_string(),
        about: format!("{}; {}", board.about, board.cores()),
        context: how.context,
        key_value_cache: if how.cache == CacheFormat::F32 { "f32" } else { "q8" },
        batch: outcome.capacity.batch,
        memories: memories(&board, outcome),
        tensors: tensors(&variants[0], outcome, board.memories.len())?,
        streamed_bytes_per_token: outcome.plan.streamed,
        reads_per_token: outcome.plan.reads,
        token: pace(&outcome.token, 1, &board, short_home),
        prompt: pace(&outcome.prompt, outcome.prompt_tokens, &board, short_home),
        variants: variants
            .iter()
            .zip(&outcomes)
            .map(|(variant, outcome)| variant_pace(variant, outcome, &board, short_home))
            .collect(),
        advice: advice(options, &board, &variants, &outcomes, outcome, how)?,
        position: how.context / 2,
        figures: figures(&board, storage, &outcome.plan),
        board: board.name.clone(),
        home: home.clone(),
    };
    if let Some(plot) = &options.plot {
        let known = variants.iter().zip(&outcomes);
        let known: Vec<_> =
            known.filter_map(|(variant, outcome)| Some((variant, outcome.as_ref().ok()?))).collect();
        let title = format!("{} on {}", report.model, board.name);
        picture::save(plot, &title, &board, short_home, (&variants[0], outcome), &known)?;
    }
    if options.json {
        return output::json(&report);
    }
    let sources = if options.sources {
        report.sources()
    } else {
        "\nwhat this follows from, and where that was found: --sources\n".to_owned()
    };
    output::print(&(report.text() + &sources))
}

/// The board's figures, but those of storages that nothing is read from.
fn figures(board: &NamedBoard, storage: Option<&NamedStorage>, plan: &Plan) -> Vec<Figure> {
    let read = storage.filter(|_| plan.mapped.is_none()).map(|storage| format!("storage {}", storage.name));
    let used = |figure: &&Figure| !figure.part.starts_with("storage ") || Some(&figure.part) == read.as_ref();
    board.figures.iter().filter(used).cloned().collect()
}

fn memories(board: &NamedBoard, outcome: &Outcome) -> Vec<MemoryUse> {
    let plan = &outcome.plan;
    let of = |i: usize, place: usize, bytes: u64| if place == i { bytes } else { 0 };
    let memory = |(i, memory): (usize, &crate::board::NamedMemory)| MemoryUse {
        name: memory.name.clone(),
        size: memory.memory.size,
        weights: if plan.mapped == Some(i) { plan.streamed } else { plan.pinned[i] },
        state: of(i, plan.state_in, plan.state) + of(i, plan.cache_in, plan.cache),
        buffers: of(i, plan.buffers_in, plan.buffers_len() + plan.norms),
        other: of(i, plan.other_in, plan.other),
    };
    board.memories.iter().enumerate().map(memory).collect()
}

fn tensors(variant: &Variant, outcome: &Outcome, memories: usize) -> Result<Vec<TensorsAt>> {
    let (tape, config) = (variant.tape()?, &variant.config);
    let mut classes: Vec<TensorsAt> = Vec::new();
    for index in 1..llamita::Tape::len(config) {
        let tensor = llamita::Tape::tensor(config, index);
        if !matches!(tensor, llamita::weights::Tensor::Matrix(_)) {
            continue;
        }
        let class = class(tensor);
        let place = classes.iter().position(|known| known.class == class).unwrap_or_else(|| {
            classes.push(TensorsAt { class, bytes: 0, pinned: vec![0; memories], home: 0 });
            classes.len() - 1
        });
        let (pinned, home) = llamita_storage::bytes_of(&outcome.plan, tape, index);
        let known = &mut classes[place];
        known.home += home;
        known.bytes += home + pinned.iter().sum::<u64>();
        known.pinned.iter_mut().zip(pinned).for_each(|(sum, bytes)| *sum += bytes);
    }
    Ok(classes)
}

fn bound(time: &llamita_storage::Time, board: &NamedBoard, home: &str) -> String {
    match time.bound() {
        Bound::Storage => format!("reading {home}"),
        Bound::Memory(memory) => format!("reading {}", board.memories[memory].name),
        Bound::Arithmetic => "arithmetic".to_owned(),
    }
}

fn pace(time: &llamita_storage::Time, tokens: usize, board: &NamedBoard, home: &str) -> Pace {
    Pace {
        tokens,
        seconds: time.total,
        tokens_per_second: tokens as f64 / time.total,
        bound: bound(time, board, home),
        parts: Stage::ALL.iter().map(|stage| stage.name()).zip(time.parts).collect(),
    }
}

fn variant_pace(
    variant: &Variant,
    outcome: &std::result::Result<Outcome, llamita_storage::PlanError>,
    board: &NamedBoard,
    home: &str,
) -> VariantPace {
    let known = outcome.as_ref().ok();
    // A variant may fit where the model itself does not.
    let home = |outcome: &Outcome| {
        outcome.plan.mapped.map_or_else(|| home.to_owned(), |memory| board.memories[memory].name.clone())
    };
    VariantPace {
        name: variant.name.clone(),
        convert: variant.convert.clone(),
        file_bytes: variant.file,
        pinned_bytes: known.map(|outcome| outcome.plan.pinned.iter().sum()),
        streamed_bytes: known.map(|outcome| outcome.plan.streamed),
        tokens_per_second: known.map(|outcome| 1.0 / outcome.token.total),
        bound: known.map(|outcome| bound(&outcome.token, board, &home(outcome))),
        reason: outcome.as_ref().err().map(ToString::to_string),
    }
}

/// Other formats, another cache, another storage: what would be faster by a twentieth at least.
fn advice(
    options: &Options,
    board: &NamedBoard,
    variants: &[Variant],
    outcomes: &[std::result::Result<Outcome, llamita_storage::PlanError>],
    outcome: &Outcome,
    how: Use,
) -> Result<Vec<Advice>> {
    let mut advice = Vec::new();
    let mut add = |what: String, other: &Outcome| {
        let times_as_fast = outcome.token.total / other.token.total;
        if times_as_fast >= 1.05 {
            advice.push(Advice { what, times_as_fast });
        }
    };
    for (variant, other) in variants.iter().zip(outcomes).skip(1) {
        if let Ok(other) = other {
            add(format!("llamita convert {}", variant.convert), other);
        }
    }
    let storage = board.storage(options.storage.as_deref())?;
    let plain = board.with(storage);
    let mut try_use = |what: &str, board: &Board<'_>, how: Use| -> Result<()> {
        if let Ok(other) = variants[0].on(board, how)? {
            add(what.to_owned(), &other);
        }
        Ok(())
    };
    if how.cache == CacheFormat::F32 {
        try_use("--kv q8", &plain, Use { cache: CacheFormat::Q8, ..how })?;
    }
    if how.context >= 256 {
        let context = how.context / 2;
        try_use(&format!("--context {context}"), &plain, Use { context, ..how })?;
    }
    for other in &board.storages {
        if storage.is_none_or(|storage| storage.name != other.name) {
            let what = format!("--storage {}", other.name);
            try_use(&what, &board.with(Some(other)), Use { in_place: false, ..how })?;
        }
    }
    if !how.in_place {
        try_use("from flash, without --storage", &plain, Use { in_place: true, ..how })?;
    }
    if outcome.token.bound() == Bound::Storage {
        let times_as_fast = 2.0 * outcome.token.total / outcome.guessed.total;
        let what = "--draft MODEL, if two tokens come of a pass on average (drafting itself is left aside)";
        advice.push(Advice { what: what.to_owned(), times_as_fast });
    }
    advice.sort_by(|a, b| b.times_as_fast.total_cmp(&a.times_as_fast));
    Ok(advice)
}

impl Report {
    /// The figures that the report follows from.
    fn sources(&self) -> String {
        let mut lines = String::new();
        for Figure { part, name, value, source } in &self.figures {
            let figure = if part.is_empty() { name.clone() } else { format!("{part}: {name}") };
            let source = if source.is_empty() { "no source is given" } else { source };
            lines += &output::one_line(&format!("{figure:24} {value:>8}  {source}"));
            lines.push('\n');
        }
        format!(
            "\nThe token is at position {} of its text and chosen by its logits. All cores share products, activation and \
             attention, and\none has the rest. A core that waits for a memory computes nothing; what is read of a storage \
             comes meanwhile.\nR: read there. I: inferred from such figures.\n\n{lines}",
            self.position,
        )
    }

    fn text(&self) -> String {
        let title = format!(
            "{} on {} ({})\ncontext {}, keys and values {}, {} in a pass\n",
            output::one_line(&self.model),
            output::one_line(&self.board),
            output::one_line(&self.about),
            counted(self.context, "token"),
            self.key_value_cache,
            counted(self.batch, "token"),
        );
        let some = |count: u64| if count == 0 { "-".to_owned() } else { bytes(count) };
        let mut memories =
            Table::new(["memory", "size", "weights", "state", "buffers, norms", "header, tokenizer", "free"]);
        for MemoryUse { name, size, weights, state, buffers, other } in &self.memories {
            let free = size.saturating_sub(weights + state + buffers + other);
            let cells = [*size, *weights, *state, *buffers, *other, free].map(some);
            let [size, weights, state, buffers, other, free] = &cells;
            memories.row([name, size, weights, state, buffers, other, free]);
        }
        let mut tensors = Table::new(["weights", "bytes", "pinned", "from home"]);
        for TensorsAt { class, bytes: all, pinned, home } in &self.tensors {
            let names = self.memories.iter().map(|memory| &memory.name);
            let pinned: Vec<_> = names
                .zip(pinned)
                .filter(|(_, bytes)| **bytes > 0)
                .map(|(name, count)| format!("{name} {}", bytes(*count)))
                .collect();
            let pinned = if pinned.is_empty() { "-".to_owned() } else { pinned.join(", ") };
            tensors.row([class, &bytes(*all), &pinned, &some(*home)]);
        }
        let home = format!("home: {}, {} a token", self.home, bytes(self.streamed_bytes_per_token));
        let reads = if self.reads_per_token > 0 {
            format!(" in {} reads", self.reads_per_token)
        } else {
            String::new()
        };

        let per = |pace: &Pace| format!("{} ms", digits(1e3 * pace.seconds));
        let (token, prompt) = (per(&self.token), per(&self.prompt));
        let prompt_name = format!("prompt of {}", self.prompt.tokens);
        let mut times = Table::new(["time", "a token", "share", &prompt_name, "share"]);
        for (part, prompt_part) in self.token.parts.iter().zip(&self.prompt.parts) {
            let cells = |part: f64, all: f64| {
                (format!("{} ms", digits(1e3 * part)), format!("{:.1} %", 100.0 * part / all))
            };
            let prompt_all: f64 = self.prompt.parts.iter().map(|part| part.1).sum();
            let (a, b) = cells(part.1, self.token.seconds);
            let share = prompt_part.1 / prompt_all;
            let (c, d) = cells(share * self.prompt.seconds, self.prompt.seconds);
            times.row([part.0, &a, &b, &c, &d]);
        }
        times.row(["all", &token, "", &prompt, ""]);
        let pace = |name: &str, pace: &Pace| {
            format!("{name}: {} tok/s, bound by {}\n", digits(pace.tokens_per_second), pace.bound)
        };
        let paces = format!("{}{}", pace("decode", &self.token), pace("prefill", &self.prompt));

        let mut variants = Table::new(["format", "file", "pinned", "from home", "tok/s", "bound by"]);
        for variant in &self.variants {
            let [pinned, streamed] =
                [variant.pinned_bytes, variant.streamed_bytes].map(|b| b.map_or_else(String::new, some));
            let rate = variant.tokens_per_second.map_or_else(|| "does not fit".to_owned(), digits);
            let bound = variant.bound.as_deref().unwrap_or("memory");
            variants.row([&variant.name, &bytes(variant.file_bytes), &pinned, &streamed, &rate, bound]);
        }
        let mut advice: String = self
            .advice
            .iter()
            .take(6)
            .map(|advice| format!("  {:>5} times as fast: {}\n", digits(advice.times_as_fast), advice.what))
            .collect();
        if advice.is_empty() {
            advice = "  nothing that a plan knows of: a smaller model, a faster board\n".to_owned();
        }
        format!(
            "{title}\n{}\n{}{home}{reads}\n\n{}\n{paces}\n{}\nto go faster:\n{advice}",
            memories.lines(),
            tensors.lines(),
            times.lines(),
            variants.lines(),
        )
    }
}
