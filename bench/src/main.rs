//! llamita and candle side by side: the same work in turns, in one process and on one thread, and beside it
//! how fast that thread can read memory.

mod bandwidth;
mod candle;
mod compare;
mod llamita;
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Parser;

use bandwidth::{Bandwidth, MEGABYTE};
use compare::Work;
use report::Spread;

/// Measure llamita and candle in turns, on one thread
///
/// Decoding computes one token after the other behind a prompt of 8; prefill computes a whole prompt. Tokens
/// are random and nothing is sampled. Read bandwidth is that of one thread, over a buffer as large as the
/// weights that a token reads.
#[derive(Parser)]
#[command(name = "llamita-bench")]
struct Options {
    /// The model that llamita reads
    #[arg(long, value_name = "FILE", required_unless_present = "bandwidth")]
    model: Option<PathBuf>,

    /// The model that candle reads, an ordinary GGUF of the same shape; without it, --model
    #[arg(long, value_name = "FILE")]
    peer_model: Option<PathBuf>,

    /// Tokens to decode
    #[arg(long, value_name = "N", default_value_t = 128)]
    tokens: usize,

    /// Tokens of the prompt for prefill
    #[arg(long, value_name = "N", default_value_t = 128)]
    prompt: usize,

    /// How often each of the two is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: usize,

    /// Tokens in one pass of llamita's prefill
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,

    /// Only measure the read bandwidth, over buffers of these sizes in MB (10^6 bytes)
    #[arg(long, value_name = "MB,…", value_delimiter = ',', conflicts_with = "model")]
    bandwidth: Option<Vec<usize>>,

    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    candle::require_one_thread()?;
    // candle's own pool: from its thread, what candle hands to the pool runs at once. llamita runs on the same
    // thread, so both have the same core.
    candle_core::utils::with_threadpool(|| match (&options.bandwidth, &options.model) {
        (Some(sizes), _) => bandwidth(sizes, options.rounds, options.json),
        (None, Some(model)) => measure(model, &options),
        (None, None) => unreachable!("clap asks for one of them"),
    })
}

fn bandwidth(megabytes: &[usize], rounds: usize, json: bool) -> Result<()> {
    let mut table = Vec::new();
    for &size in megabytes {
        ensure!(size > 0, "--bandwidth of 0 MB, expected at least 1");
        let bandwidth = Bandwidth::new(size * MEGABYTE)?;
        let rates = (0..rounds).map(|_| bandwidth.read()).collect();
        table.push(report::Bandwidth { megabytes: size, way: bandwidth.way(), rate: Spread::of(rates) });
    }
    report::bandwidth(&table, json)
}

fn measure(model: &Path, options: &Options) -> Result<()> {
    ensure!(options.tokens > 0 && options.prompt > 0, "--tokens and --prompt must be at least 1");
    ensure!(options.rounds > 0 && options.batch > 0, "--rounds and --batch must be at least 1");
    let peer_model = options.peer_model.as_deref().unwrap_or(model);
    let work = Work { prompt: options.prompt, tokens: options.tokens, rounds: options.rounds };

    let file = llamita::open(model)?;
    let mut ours = llamita::Llamita::new(&file, work.context(), options.batch)?;
    let mut peer = candle::Candle::open(peer_model)?;
    let result = compare::run([&mut ours, &mut peer], &work)?;
    report::comparison(&result, model, peer_model, &work, options.json)
}
