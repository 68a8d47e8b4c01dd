//! `llamita-train corpus`: texts that a model writes.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use llamita::weights::Entry;
use llamita::{CacheFormat, Capacity, Engine, Generation, Kernels, Resident, Sampler, Settings, Solo, State};
use llamita::{Model, Stop, Tape, state_len};
use llamita_convert::stories::SEPARATOR;
use llamita_convert::vocabulary::{self, Encoder};
use llamita_storage::ModelFile;

use crate::model::write_atomically;

/// Writes stories that a model tells, as a text to train another with
///
/// Stories that do not come to an end within the context are left out.
#[derive(clap::Args)]
pub struct Options {
    /// The model, which the engine can use in place: what `llamita convert` writes
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,

    /// Its tokenizer, if it has none inside
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Bytes to write, at least; with k or M, thousands or millions
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value = "1M")]
    size: u64,

    /// Divides the logits: 1 keeps the model's probabilities, lower ones are safer and less varied
    #[arg(short, long, value_name = "T", default_value_t = 1.0)]
    temperature: f32,

    /// Keeps the likeliest tokens that together exceed this probability; 1 keeps all
    #[arg(short = 'p', long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,

    /// The stories are the same for the same seed, whatever the number of threads
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Threads, each of which tells stories of its own [default: all processors]
    #[arg(long, value_name = "N", value_parser = super::train::threads)]
    threads: Option<std::num::NonZeroUsize>,
}

fn bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1000),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let number: Option<u64> = digits.parse().ok().filter(|&number| number > 0);
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "expected bytes, such as 500k or 20M".to_owned())
}

/// Runs the command.
pub fn run(options: &Options) -> Result<()> {
    let settings = Settings { temperature: options.temperature, top_p: options.top_p, ..Settings::default() };
    settings.check()?;
    let named = || format!("{}", options.model.display());
    let file = ModelFile::open(&options.model)?;
    let model = Model::read(file.bytes()).with_context(named)?;
    let mut entries = vec![Entry::EMPTY; Tape::len(model.config())];
    model.tape(&mut entries).with_context(named)?;
    model.verify().with_context(named)?;
    let vocabulary = match &options.tokenizer {
        Some(path) => vocabulary::read_file(path, model.config().vocab_size)?,
        None => vocabulary::from_gguf(&model)?
            .with_context(named)
            .context("it has no tokenizer: name one by --tokenizer")?,
    };
    ensure!(
        !options.output.exists(),
        "{}: there is such a file: remove it, or choose another name",
        options.output.display()
    );
    let threads = options.threads.map_or_else(thread::available_parallelism, Ok)?.get();
    let template = "{wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    let bar = ProgressBar::new(options.size).with_style(ProgressStyle::with_template(template)?);

    let tell = Teller { file: &file, model: &model, entries: &entries, vocabulary: &vocabulary, settings };
    write_atomically(&options.output, |out| {
        let out = Mutex::new(Ordered::new(BufWriter::new(out), options.size, &bar));
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            let work = || tell.stories(options.seed, &next, &out);
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
        })?;
        out.into_inner().expect("no worker panicked").finish()
    })?;
    bar.finish_and_clear();
    Ok(())
}

/// The seed of one story: other ones for each number, and for each seed of the whole text.
const fn story_seed(seed: u64, number: u64) -> u64 {
    // Two odd factors with bits everywhere, as seeds next to each other begin alike.
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number + 1).wrapping_mul(0xd134_2543_de82_ef95)
}

/// Stories in the order of their numbers, whichever is finished first, so that a text depends on the seed alone.
struct Ordered<'b, W> {
    out: W,
    /// Finished, but not their turn yet.
    waiting: std::collections::BTreeMap<u64, Option<String>>,
    next: u64,
    written: u64,
    told: u64,
    size: u64,
    bar: &'b ProgressBar,
}

impl<'b, W: Write> Ordered<'b, W> {
    const fn new(out: W, size: u64, bar: &'b ProgressBar) -> Self {
        Self { out, waiting: std::collections::BTreeMap::new(), next: 0, written: 0, told: 0, size, bar }
    }

    /// A story is finished, or came to no end. Returns whether more are needed.
    fn put(&mut self, number: u64, story: Option<String>) -> Result<bool> {
        self.waiting.insert(number, story);
        while let Some(story) = self.waiting.remove(&self.next) {
            self.next += 1;
            if let Some(story) = story.filter(|_| self.written < self.size) {
                let text = format!("{}\n{SEPARATOR}\n", story.trim());
                self.out.write_all(text.as_bytes())?;
                self.written += text.len() as u64;
                self.told += 1;
            }
            self.bar.set_position(self.written.min(self.size));
        }
        ensure!(
            self.next < 1000 || self.told > 0,
            "none of {} stories came to an end within the context: this model tells no stories, use another",
            self.next
        );
        Ok(self.written < self.size)
    }

    fn finish(mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

/// What stories are told with.
#[derive(Clone, Copy)]
struct Teller<'m> {
    file: &'m ModelFile,
    model: &'m Model<'m>,
    entries: &'m [Entry],
    vocabulary: &'m llamita_convert::Vocabulary,
    settings: Settings,
}

impl Teller<'_> {
    /// Tells stories until there are enough.
    fn stories<W: Write>(self, seed: u64, next: &AtomicU64, out: &Mutex<Ordered<'_, W>>) -> Result<()> {
        let config = *self.model.config();
        let capacity = Capacity { context: config.seq_len, batch: 1, logits: 1, cache: CacheFormat::F32 };
        let mut memory = vec![0.0; state_len(&config, capacity)?];
        let state = State::new(&config, capacity, &mut memory)?;
        let weights = Resident::new(Tape::new(config, self.entries)?, self.file.bytes())?;
        let mut engine = Engine::new(weights, state, Solo, Kernels::detect());
        let mut encoder = Encoder::new(self.vocabulary)?;
        let tokenizer = encoder.tokenizer()?;
        let stop = [tokenizer.bos(), tokenizer.eos()];
        let mut tokens = vec![tokenizer.bos(); config.seq_len + 1];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let mut sampler = Sampler::new(self.settings, story_seed(seed, number))?;
            let mut generation = Generation::new(&mut engine, &mut sampler, &mut tokens, 1, stop)?;
            while generation.next()?.is_some() {}
            let story = (generation.stop() == Some(Stop::EndOfText)).then(|| {
                let pairs = generation.tokens().windows(2);
                let bytes: Vec<u8> =
                    pairs.flat_map(|pair| tokenizer.decode(pair[0], pair[1])).flatten().copied().collect();
                String::from_utf8_lossy(&bytes).into_owned()
            });
            if !out.lock().expect("no worker panicked").put(number, story)? {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_share_no_story() {
        let seeds = (0..4).flat_map(|seed| (0..1000).map(move |number| story_seed(seed, number)));
        let distinct: std::collections::HashSet<_> = seeds.collect();
        assert_eq!(distinct.len(), 4000);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([bytes("7"), bytes("2k"), bytes("20M")], [Ok(7), Ok(2000), Ok(20_000_000)]);
        assert!(
            ["", "0", "-1", "1.5M", "k", "99999999999999999999M", "18446744073709551615k"]
                .iter()
                .all(|text| bytes(text).is_err())
        );
    }
}
