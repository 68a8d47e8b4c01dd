//! `llamita compare`: how far the predictions of two models are apart.

mod report;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use llamita::{Capacity, Tokenizer};
use llamita_storage::Placement;

use crate::divergence::{self, Pair};
use crate::error::{Error, Result};
use crate::load::{self, File, HostEngine, LoadedModel};
use crate::options::{CacheChoice, ThreadsArgument};
use crate::output;
use crate::plot;
use crate::stories::{self, Batch, Stories, StoriesArguments};
use crate::units::{rate, rate_text};
use crate::vocabulary::Vocabulary;

use report::{Report, Setting};

/// Compare the predictions of two models on a text
///
/// Both models read the text as eval does. B is measured against A: by how much its perplexity is higher, how
/// often both hold the same token for the most probable, and how far its distributions are from A's
/// (Kullback-Leibler divergence). Models of vocabularies of different sizes are compared by byte of the text
/// alone.
#[derive(clap::Args)]
#[command(override_usage = "llamita compare [OPTIONS] --text FILE A B")]
pub struct Options {
    /// The model to compare with: a llama2.c checkpoint or GGUF
    #[arg(value_name = "A")]
    a: PathBuf,

    /// The model to be compared, for example A in another format
    #[arg(value_name = "B")]
    b: PathBuf,

    #[command(flatten)]
    stories: StoriesArguments,

    /// The tokenizer of both models where they have none in their files; given twice, that of A, then that
    /// of B [default: as for eval]
    #[arg(long = "tokenizer", value_name = "PATH")]
    tokenizers: Vec<PathBuf>,

    /// Keep keys and values as they are, or rounded to eight bits; given twice, those of A, then those of B
    /// [default: f32]
    #[arg(long = "kv", value_name = "FORMAT", value_enum)]
    caches: Vec<CacheChoice>,

    #[command(flatten)]
    threads: ThreadsArgument,

    /// Draw how divergences and stories are distributed
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The letters by which reports call the models.
const LETTERS: [char; 2] = ['A', 'B'];

/// What was found of a story by both models.
#[derive(Clone, Copy, Default)]
struct Story {
    /// Nats of all its predicted tokens.
    nll: [f64; 2],
    /// Predicted tokens.
    tokens: [usize; 2],
    /// Bytes of the text of these.
    bytes: usize,
}

/// What was found by token, where both models have the same tokens.
#[derive(Default)]
struct Tokens {
    /// The divergences, in nats.
    kl: Vec<f64>,
    /// Tokens for which both models hold the same one for the most probable.
    agreed: usize,
    worst: Worst,
}

/// The token with the largest divergence.
#[derive(Clone, Copy, Default)]
struct Worst {
    kl: f64,
    /// Its story, counted from 0.
    story: usize,
    /// Its position in the story; BOS is at 0.
    token: usize,
    greedy: [u32; 2],
}

/// Compare the models.
pub fn run(options: &Options) -> Result<()> {
    let paths = [options.a.as_path(), options.b.as_path()];
    if let Some(plot) = &options.plot {
        plot::check(plot, &[paths[0], paths[1], &options.stories.text])?;
    }
    let files = [File::open_model(paths[0], Placement::Auto)?, File::open_model(paths[1], Placement::Auto)?];
    let models = [LoadedModel::read(&files[0])?, LoadedModel::read(&files[1])?];
    let mut vocabularies = [options.vocabulary(&models[0], 0)?, options.vocabulary(&models[1], 1)?];
    let [a, b] = &mut vocabularies;
    let tokenizers = [a.tokenizer()?, b.tokenizer()?];
    let same = tokenizers[0].vocab_size() == tokenizers[1].vocab_size();
    if same {
        check_vocabularies(&tokenizers, paths)?;
    }

    let text = options.stories.open()?;
    let split = options.stories.split(&text)?;
    let limits = [options.stories.context(&models[0])?, options.stories.context(&models[1])?];
    let shorter = limits[0].min(limits[1]);
    let limits = if same { [shorter; 2] } else { limits };
    let (stories, cut) = encode(&tokenizers, &split, limits, same)?;
    options.stories.check_bytes(stories[0].bytes(&tokenizers[0]), shorter)?;
    if same {
        check_tokens(&stories, paths)?;
    }

    let caches = options.caches()?;
    let capacity = |side: usize| {
        let (batch, cache) = (load::MAX_BATCH, caches[side].format());
        Capacity { context: stories[side].longest(), batch, logits: batch, cache }
    };
    let mut memories =
        [load::memory(models[0].config(), capacity(0))?, load::memory(models[1].config(), capacity(1))?];
    let threads = [
        options.threads.count(models[0].bytes_per_token()?),
        options.threads.count(models[1].bytes_per_token()?),
    ];
    let [a, b] = &mut memories;
    let engines =
        [models[0].engine(capacity(0), a, threads[0])?, models[1].engine(capacity(1), b, threads[1])?];

    let mut comparison = Comparison { engines, files: &files, times: [Duration::ZERO; 2] };
    let (found, tokens) = comparison.measure(&stories, &tokenizers[0], same)?;
    let seconds = comparison.times.map(|time| time.as_secs_f64());
    let setting =
        Setting { models: &models, tokenizer: &tokenizers[0], caches, threads, seconds, limits, cut };
    let report = Report::new(&setting, &stories[0], &found, tokens.as_ref());
    if let Some(path) = &options.plot {
        plot::save(path, &report.title(), &report::panels(&found, tokens))?;
    }
    if options.json { output::json(&report) } else { output::print(&report.text()) }
}

impl Options {
    /// The formats of A's keys and values, and of B's.
    fn caches(&self) -> Result<[CacheChoice; 2]> {
        match *self.caches.as_slice() {
            [] => Ok([CacheChoice::default(); 2]),
            [both] => Ok([both; 2]),
            [a, b] => Ok([a, b]),
            _ => Err(Error::usage(format_args!(
                "--kv is given {} times, expected once or twice: for A, then for B",
                self.caches.len()
            ))),
        }
    }

    /// The vocabulary of A, which is model 0, or of B.
    fn vocabulary<'f>(&self, model: &LoadedModel<'f>, side: usize) -> Result<Vocabulary<'f>> {
        match self.tokenizers.as_slice() {
            [] => Vocabulary::find(model, None),
            [both] => Vocabulary::find_or(model, both),
            [a, b] => Vocabulary::find(model, Some([a, b][side])),
            more => Err(Error::usage(format_args!(
                "{} tokenizers are named, expected one or two: that of A, then that of B",
                more.len()
            ))),
        }
    }
}

/// Refuses vocabularies of one size with different tokens.
fn check_vocabularies(tokenizers: &[Tokenizer<'_>; 2], paths: [&Path; 2]) -> Result<()> {
    let [a, b] = tokenizers;
    let refuse = |what: String, [a, b]: [String; 2]| {
        Err(Error::failure(format_args!(
            "{what} is {a} in {} and {b} in {}, expected one vocabulary: compare models that share theirs, or \
             name the right tokenizers with --tokenizer",
            paths[0].display(),
            paths[1].display()
        )))
    };
    for (name, ids) in [("BOS", [a.bos(), b.bos()]), ("EOS", [a.eos(), b.eos()])] {
        if ids[0] != ids[1] {
            return refuse(name.to_owned(), ids.map(|id| format!("token {id}")));
        }
    }
    // As files write them, the same tokens may look different: "▁a" and " a".
    let text = |tokenizer: &Tokenizer<'_>, token| {
        tokenizer.decode(tokenizer.eos(), token).collect::<Vec<_>>().concat()
    };
    for token in 0..a.vocab_size() as u32 {
        let unknown = tokenizers.each_ref().map(|tokenizer| tokenizer.unknown() == Some(token));
        let texts = tokenizers.each_ref().map(|tokenizer| text(tokenizer, token));
        if texts[0] != texts[1] && unknown != [true; 2] {
            let texts = texts.map(|text| format!("{:?}", String::from_utf8_lossy(&text)));
            return refuse(format!("token {token}"), texts);
        }
    }
    Ok(())
}

/// Refuses vocabularies whose tokens are the same, but not what a text becomes.
fn check_tokens(stories: &[Stories; 2], paths: [&Path; 2]) -> Result<()> {
    let mut pairs = stories[0].tokens.iter().zip(&stories[1].tokens);
    match pairs.position(|(a, b)| a != b) {
        None => Ok(()),
        Some(place) => Err(Error::failure(format_args!(
            "{} and {} have the same tokens but cut story {} into different ones, expected the same order of \
             merges: name the tokenizer of both with --tokenizer",
            paths[0].display(),
            paths[1].display(),
            place + 1
        ))),
    }
}

/// The stories as the tokens of each model, and how many were cut.
fn encode(
    tokenizers: &[Tokenizer<'_>; 2],
    split: &[&str],
    limits: [usize; 2],
    same: bool,
) -> Result<([Stories; 2], usize)> {
    let [a, b] = tokenizers;
    if same {
        let stories = [Stories::encode(a, split, limits[0])?, Stories::encode(b, split, limits[1])?];
        let cut = stories[0].cut;
        return Ok((stories, cut));
    }
    // Tokens of different lengths would end a long story in different places.
    let fitting: Vec<_> =
        split.iter().map(|story| stories::fit(tokenizers, story, limits)).collect::<Result<_>>()?;
    let cut = split.iter().zip(&fitting).filter(|(whole, fitting)| whole.len() > fitting.len()).count();
    let stories = [Stories::encode(a, &fitting, limits[0])?, Stories::encode(b, &fitting, limits[1])?];
    Ok((stories, cut))
}

/// Two engines at work on the same text.
struct Comparison<'a> {
    engines: [HostEngine<'a>; 2],
    files: &'a [File; 2],
    /// Time that each of them took.
    times: [Duration; 2],
}

impl Comparison<'_> {
    /// Runs both engines over all stories; tokens are compared where they are the same.
    fn measure(
        &mut self,
        stories: &[Stories; 2],
        tokenizer: &Tokenizer<'_>,
        same: bool,
    ) -> Result<(Vec<Story>, Option<Tokens>)> {
        let progress = stories::progress_bar(stories[0].tokens.len())?;
        let (mut found, mut all) = (Vec::new(), Story::default());
        let mut tokens = same.then(Tokens::default);
        for (place, [a, b]) in
            stories[0].tokens.iter().zip(&stories[1].tokens).map(<[_; 2]>::from).enumerate()
        {
            let nll = match &mut tokens {
                Some(tokens) => self.by_token(place, a, tokens)?,
                None => [self.nll(0, a)?, self.nll(1, b)?],
            };
            let story =
                Story { nll, tokens: [a.len() - 1, b.len() - 1], bytes: stories::bytes(tokenizer, a) };
            all.add(&story);
            found.push(story);
            let rates = [0, 1].map(|side| rate(all.tokens[side], self.times[side].as_secs_f64()));
            let [a, b] = [0, 1].map(|side| {
                let nll = all.nll[side] / all.tokens[side].max(1) as f64;
                format!("{} {nll:.4} nats/token, {}", LETTERS[side], rate_text(rates[side], "tok/s"))
            });
            progress.set_message(format!("{a}; {b}"));
            progress.inc(1);
        }
        progress.finish_and_clear();
        for (side, file) in self.files.iter().enumerate() {
            stories::check_finite(all.nll[side], file)?;
        }
        // An infinite logit may leave the token of the text a probability, but no divergence.
        if tokens.as_ref().is_some_and(|tokens| tokens.kl.iter().any(|kl| !kl.is_finite())) {
            return Err(Error::failure(
                "the divergence is not finite, expected finite logits of both models: one of the files is \
                 damaged, copy or download it again",
            ));
        }
        Ok((found, tokens))
    }

    /// A story's nats under one model.
    fn nll(&mut self, side: usize, story: &[u32]) -> Result<f64> {
        let start = Instant::now();
        let nll = stories::story_nll(&mut self.engines[side], story);
        self.times[side] += start.elapsed();
        nll.map_err(|error| Error::file(&self.files[side].path, error))
    }

    /// A story's nats under both models, token by token.
    fn by_token(&mut self, place: usize, story: &[u32], tokens: &mut Tokens) -> Result<[f64; 2]> {
        let vocab_size = self.engines[0].config().vocab_size;
        let mut sums = [0.0; 2];
        for Batch { position, given, predicted } in stories::batches(story) {
            let [a, b] = &mut self.engines;
            let start = Instant::now();
            let of_a = a.forward(given, position, given.len());
            let middle = Instant::now();
            let of_b = b.forward(given, position, given.len());
            let (time_a, time_b) = (middle - start, middle.elapsed());
            self.times[0] += time_a;
            self.times[1] += time_b;
            let of_a = of_a.map_err(|error| Error::file(&self.files[0].path, error))?;
            let of_b = of_b.map_err(|error| Error::file(&self.files[1].path, error))?;
            let rows = of_a.chunks_exact(vocab_size).zip(of_b.chunks_exact(vocab_size));
            for (i, ((a, b), &token)) in rows.zip(predicted).enumerate() {
                let pair = divergence::pair(a, b, token);
                (sums[0], sums[1]) = (sums[0] + pair.nll[0], sums[1] + pair.nll[1]);
                tokens.add(pair, place, position + i + 1);
            }
        }
        Ok(sums)
    }
}

impl Story {
    fn add(&mut self, other: &Self) {
        for side in [0, 1] {
            self.nll[side] += other.nll[side];
            self.tokens[side] += other.tokens[side];
        }
        self.bytes += other.bytes;
    }
}

impl Tokens {
    fn add(&mut self, Pair { greedy, kl, .. }: Pair, story: usize, token: usize) {
        self.kl.push(kl);
        self.agreed += usize::from(greedy[0] == greedy[1]);
        // The first token of all, so that there is one, and then those with more.
        if self.kl.len() == 1 || kl > self.worst.kl {
            self.worst = Worst { kl, story, token, greedy };
        }
    }
}
