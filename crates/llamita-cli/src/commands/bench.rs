//! `llamita bench`: how fast a model is on this machine, and where the time goes.

use std::result;
use std::time::Instant;

use clap::ValueEnum;
use llamita::{Capacity, Generation, Profile, Sampler, Settings, Stage, Team};
use llamita_storage::Placement;
use serde::Serialize;

use crate::clock;
use crate::error::{Error, Result};
use crate::load::{self, EngineError, File, HostEngine, LoadedModel};
use crate::options::{CacheArgument, ModelArgument, ThreadsArgument, positive};
use crate::output::{self, Table};
use crate::units::{bytes, counted, digits};

/// Measure how fast a model is on this machine
///
/// Prefill is the time from a prompt to its first new token. Decoding is the time of the tokens after the
/// first, which follows a prompt of 8; they are chosen with temperature 1 and top-p 0.9. Prompts are random
/// tokens, so no tokenizer is needed. Where the time goes is measured in a pass of its own.
#[derive(clap::Args)]
#[command(override_usage = "llamita bench [OPTIONS] MODEL")]
pub struct Options {
    #[command(flatten)]
    model: ModelArgument,

    /// Tokens of the prompt for prefill
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 128)]
    prompt_tokens: usize,

    /// Tokens to decode
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 128)]
    tokens: usize,

    /// How often to measure
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 5)]
    repeat: usize,

    #[command(flatten)]
    cache: CacheArgument,

    #[command(flatten)]
    threads: ThreadsArgument,

    /// Where to hold the weights
    #[arg(long, value_enum, default_value_t = Weights::Auto)]
    weights: Weights,

    /// Print one JSON object; rates in tokens per second, times in microseconds per token
    #[arg(long)]
    json: bool,
}

/// A placement that can be named.
#[derive(Clone, Copy, ValueEnum)]
enum Weights {
    /// What suits the size of the file and the memory
    Auto,
    /// The file, mapped
    Mapped,
    /// A copy in huge pages
    HugePages,
}

/// Tokens of the prompt before decoding.
const DECODE_PROMPT: usize = 8;
/// Ids that no vocabulary has: what is measured does not end early.
const NO_ENDS: [u32; 2] = [u32::MAX; 2];
const SEED: u64 = 133_742;

#[derive(Serialize)]
struct Report {
    model: String,
    weights: &'static str,
    weights_bytes: u64,
    threads: usize,
    kernels: &'static str,
    batch: usize,
    repeat: usize,
    prefill: Rates,
    decode: Rates,
    components: Vec<Component>,
    /// Contained in the components.
    waiting: Times,
}

/// Tokens per second, over all repetitions.
#[derive(Serialize)]
struct Rates {
    tokens: usize,
    median: f64,
    min: f64,
    max: f64,
}

#[derive(Serialize)]
struct Component {
    name: &'static str,
    #[serde(flatten)]
    times: Times,
}

/// Of one component: microseconds per token, and share of all.
#[derive(Serialize)]
struct Times {
    prefill_us: f64,
    prefill_share: f64,
    decode_us: f64,
    decode_share: f64,
}

/// Measure the model.
pub fn run(options: &Options) -> Result<()> {
    let placement = match options.weights {
        Weights::Auto => Placement::Auto,
        Weights::Mapped => Placement::Mapped,
        Weights::HugePages => Placement::HugePages,
    };
    let file = File::open_model(options.model.path()?, placement)?;
    let model = LoadedModel::read(&file)?;
    let capacity = capacity(options, &model)?;
    let mut memory = load::memory(model.config(), capacity)?;
    let threads = options.threads.count(model.bytes_per_token()?);
    let mut engine = model.engine(capacity, &mut memory, threads)?;

    let sampler = Sampler::new(Settings::default(), SEED).map_err(Error::failure)?;
    let refuse = |error: EngineError| Error::file(&file.path, error);
    // The first passes bring weights and memory to where the others find them.
    measure(&mut engine, sampler, options.prompt_tokens, 1).map_err(refuse)?;
    measure(&mut engine, sampler, DECODE_PROMPT, 2).map_err(refuse)?;
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for _ in 0..options.repeat {
        let (seconds, _) = measure(&mut engine, sampler, options.prompt_tokens, 1).map_err(refuse)?;
        prefill.push(options.prompt_tokens as f64 / seconds);
        let (_, seconds) =
            measure(&mut engine, sampler, DECODE_PROMPT, options.tokens + 1).map_err(refuse)?;
        decode.push(options.tokens as f64 / seconds);
    }
    let prefill_times = profile(&mut engine, sampler, options.prompt_tokens, 1).map_err(refuse)?;
    // Of the tokens after the first alone.
    let begin = profile(&mut engine, sampler, DECODE_PROMPT, 1).map_err(refuse)?;
    let mut decode_times =
        profile(&mut engine, sampler, DECODE_PROMPT, options.tokens + 1).map_err(refuse)?;
    for (time, begin) in decode_times.iter_mut().zip(begin) {
        *time = time.saturating_sub(begin);
    }

    let times = |stage: usize| Times {
        prefill_us: prefill_times[stage] as f64 / 1e3 / options.prompt_tokens as f64,
        prefill_share: share(&prefill_times, stage),
        decode_us: decode_times[stage] as f64 / 1e3 / options.tokens as f64,
        decode_share: share(&decode_times, stage),
    };
    // All weights are in memory.
    let components = Stage::ALL.into_iter().enumerate().filter(|(_, stage)| *stage != Stage::Storage);
    let report = Report {
        model: file.path.display().to_string(),
        weights: match file.content.placement() {
            Placement::HugePages => "huge-pages",
            _ => "mapped",
        },
        weights_bytes: file.len(),
        threads: engine.team().members(),
        kernels: engine.kernels().name(),
        batch: capacity.batch,
        repeat: options.repeat,
        prefill: Rates::of(options.prompt_tokens, prefill),
        decode: Rates::of(options.tokens, decode),
        components: components.map(|(i, stage)| Component { name: stage.name(), times: times(i) }).collect(),
        waiting: times(WAITING),
    };
    if options.json { output::json(&report) } else { output::print(&report.text()) }
}

/// Room for both measurements, and no more of it than a run of this length would take.
fn capacity(options: &Options, model: &LoadedModel<'_>) -> Result<Capacity> {
    let config = model.config();
    let decode = options.tokens.saturating_add(DECODE_PROMPT);
    for (option, tokens) in [("--prompt-tokens", options.prompt_tokens), ("--tokens", decode)] {
        if tokens > config.seq_len {
            return Err(Error::usage(format_args!(
                "{option} needs {tokens} positions, the model's context has {}: give a smaller number",
                config.seq_len
            )));
        }
    }
    let needed = options.prompt_tokens.max(decode);
    load::capacity(config, load::context(config, None, needed)?, model.file.len(), options.cache.format())
}

/// Generates tokens after a random prompt; returns the seconds up to the first new token, and after it.
fn measure(
    engine: &mut HostEngine<'_>,
    mut sampler: Sampler,
    prompt: usize,
    new: usize,
) -> result::Result<(f64, f64), EngineError> {
    let mut tokens = random_tokens(engine.config().vocab_size, prompt);
    tokens.resize(prompt + new, 0);
    let mut generation = Generation::new(engine, &mut sampler, &mut tokens, prompt, NO_ENDS)?;
    let start = Instant::now();
    generation.next()?;
    let first = Instant::now();
    while generation.next()?.is_some() {}
    Ok(((first - start).as_secs_f64(), first.elapsed().as_secs_f64()))
}

/// Tokens of the vocabulary, the same ones every time.
fn random_tokens(vocab_size: usize, count: usize) -> Vec<u32> {
    let mut random = SEED;
    let token = |_| {
        // xorshift (G. Marsaglia, 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Below the size of the vocabulary, which fits.
        (random % vocab_size as u64) as u32
    };
    (0..count).map(token).collect()
}

/// Nanoseconds of each stage, and of waiting, which is contained in them.
type Profiled = [u64; Stage::ALL.len() + 1];
const WAITING: usize = Stage::ALL.len();

/// Where the time of a measurement goes. Reading the clock so often takes time of its own: the rates come
/// from other passes.
fn profile(
    engine: &mut HostEngine<'_>,
    sampler: Sampler,
    prompt: usize,
    new: usize,
) -> result::Result<Profiled, EngineError> {
    engine.profile = Profile::with_clock(clock::nanoseconds);
    let waited = engine.team().waited();
    measure(engine, sampler, prompt, new)?;
    let mut profiled = [0; WAITING + 1];
    profiled[..WAITING].copy_from_slice(&engine.profile.ticks());
    profiled[WAITING] = engine.team().waited() - waited;
    engine.profile = Profile::OFF;
    Ok(profiled)
}

fn share(profiled: &Profiled, stage: usize) -> f64 {
    let all: u64 = profiled[..WAITING].iter().sum();
    profiled[stage] as f64 / all.max(1) as f64
}

impl Rates {
    fn of(tokens: usize, mut rates: Vec<f64>) -> Self {
        rates.sort_by(f64::total_cmp);
        let middle = rates.len() / 2;
        let median = if rates.len().is_multiple_of(2) {
            (rates[middle - 1] + rates[middle]) / 2.0
        } else {
            rates[middle]
        };
        Self { tokens, median, min: rates[0], max: rates[rates.len() - 1] }
    }
}

impl Report {
    fn text(&self) -> String {
        let Self { weights, kernels, batch, repeat, .. } = self;
        let title = format!(
            "{}, {} of weights ({weights}), {}, {kernels}, batch {batch}, measured {}\n",
            output::one_line(&self.model),
            bytes(self.weights_bytes),
            counted(self.threads, "thread"),
            counted(*repeat, "time"),
        );
        let mut rates = Table::new(["tokens per second", "tokens", "median", "min", "max"]);
        for (name, Rates { tokens, median, min, max }) in
            [("prefill", &self.prefill), ("decode", &self.decode)]
        {
            rates.row([name, &tokens.to_string(), &digits(*median), &digits(*min), &digits(*max)]);
        }
        let mut parts = Table::new(["microseconds per token", "prefill", "share", "decode", "share"]);
        let mut row = |name: &str, times: &Times| {
            let percent = |share: f64| format!("{:.1} %", 100.0 * share);
            let (prefill, decode) = (digits(times.prefill_us), digits(times.decode_us));
            parts.row([name, &prefill, &percent(times.prefill_share), &decode, &percent(times.decode_share)]);
        };
        self.components.iter().for_each(|component| row(component.name, &component.times));
        row("of these, waiting", &self.waiting);
        format!("{title}\n{}\n{}", rates.lines(), parts.lines())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let rates = Rates::of(1, vec![3.0, 1.0, 2.0]);
        assert_eq!((rates.median, rates.min, rates.max), (2.0, 1.0, 3.0));
        assert_eq!(Rates::of(1, vec![4.0, 1.0]).median, 2.5);
        assert_eq!(Rates::of(1, vec![4.0]).median, 4.0);
    }
}
