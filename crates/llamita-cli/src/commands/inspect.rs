//! `llamita inspect`: what a model file holds, and what it takes to run it.

use llamita::state::cache_len;
use llamita::weights::{Entry, Matrix, Tape, Tensor};
use llamita::{Config, state_len};
use llamita_storage::Placement;
use serde::Serialize;

use crate::error::Result;
use crate::load::{self, File, LoadedModel};
use crate::options::{CacheArgument, ModelArgument, TokenizerArgument, positive};
use crate::output::{self, Table, list};
use crate::units::{bytes, grouped};
use crate::vocabulary::{self, Vocabulary};

/// Show what a model file holds, and what it takes to run it
#[derive(clap::Args)]
#[command(override_usage = "llamita inspect [OPTIONS] MODEL")]
pub struct Options {
    #[command(flatten)]
    model: ModelArgument,

    #[command(flatten)]
    tokenizer: TokenizerArgument,

    /// The context to compute the memory for, in tokens [default: the model's]
    #[arg(long, value_name = "N", value_parser = positive)]
    context: Option<usize>,

    #[command(flatten)]
    cache: CacheArgument,

    /// Print one JSON object; bytes are exact in it
    #[arg(long)]
    json: bool,
}

/// What is known of a model.
#[derive(Serialize)]
struct Report {
    path: String,
    kind: String,
    /// The engine knows one, and refuses files of others.
    architecture: &'static str,
    name: Option<String>,
    file_bytes: u64,
    shape: Shape,
    parameters: u64,
    tensors: Vec<Tensors>,
    /// Weights that a pass over one token reads.
    bytes_per_token: u64,
    memory: Memory,
    tokenizer: Option<TokenizerFacts>,
    /// Why there is no tokenizer.
    no_tokenizer: Option<String>,
}

/// The config, as plain numbers.
#[derive(Serialize)]
struct Shape {
    dim: usize,
    hidden_dim: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_size: usize,
    vocab_size: usize,
    seq_len: usize,
    norm_eps: f32,
    rope_theta: f32,
    shared_classifier: bool,
}

/// Tensors of one class and format.
#[derive(Serialize)]
struct Tensors {
    class: &'static str,
    format: String,
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

/// Memory of a run that generates, in bytes.
#[derive(Serialize)]
struct Memory {
    context: usize,
    batch: usize,
    key_value_cache: u64,
    logits: u64,
    activations: u64,
    state: u64,
    tokenizer_index: u64,
    weights: u64,
    total: u64,
}

#[derive(Serialize)]
struct TokenizerFacts {
    path: String,
    vocab_size: usize,
    bos: u32,
    eos: u32,
    unknown: Option<u32>,
}

/// Inspect the model.
pub fn run(options: &Options) -> Result<()> {
    let file = File::open_as_is(options.model.path()?, Placement::Mapped)?;
    let model = LoadedModel::read(&file)?;
    let config = *model.config();
    let tape = model.tape()?;
    let tensors = classes(&config, &tape);
    // A model without a tokenizer is worth looking at too, unless it was asked for.
    let (tokenizer, no_tokenizer) = match tokenizer_facts(&model, options) {
        Ok(facts) => (Some(facts), None),
        Err(error) if options.tokenizer.path().is_some() => return Err(error),
        Err(error) => (None, Some(error.to_string())),
    };
    let report = Report {
        path: file.path.display().to_string(),
        kind: model.kind().to_string(),
        architecture: "llama",
        name: model.header.name().map(str::to_owned),
        file_bytes: file.len(),
        shape: shape(&config),
        parameters: tensors.iter().map(|tensors| tensors.parameters).sum(),
        tensors,
        bytes_per_token: model.bytes_per_token()?,
        memory: memory(&model, options)?,
        tokenizer,
        no_tokenizer,
    };
    if options.json { output::json(&report) } else { output::print(&report.text()) }
}

fn tokenizer_facts(model: &LoadedModel<'_>, options: &Options) -> Result<TokenizerFacts> {
    let mut vocabulary = Vocabulary::find(model, options.tokenizer.path())?;
    let path = vocabulary.path().display().to_string();
    let tokenizer = vocabulary.tokenizer()?;
    Ok(TokenizerFacts {
        path,
        vocab_size: tokenizer.vocab_size(),
        bos: tokenizer.bos(),
        eos: tokenizer.eos(),
        unknown: tokenizer.unknown(),
    })
}

fn shape(config: &Config) -> Shape {
    let &Config {
        dim,
        hidden_dim,
        n_layers,
        n_heads,
        n_kv_heads,
        head_size,
        vocab_size,
        seq_len,
        norm_eps,
        rope_theta,
        shared_classifier,
    } = config;
    Shape {
        dim,
        hidden_dim,
        n_layers,
        n_heads,
        n_kv_heads,
        head_size,
        vocab_size,
        seq_len,
        norm_eps,
        rope_theta,
        shared_classifier,
    }
}

/// What a tensor is for.
pub fn class(tensor: Tensor) -> &'static str {
    match tensor {
        Tensor::Embedding => "embedding",
        Tensor::Norm(_) => "norms",
        Tensor::Matrix(Matrix::Wq(_) | Matrix::Wk(_) | Matrix::Wv(_) | Matrix::Wo(_)) => "attention",
        Tensor::Matrix(Matrix::W1(_) | Matrix::W2(_) | Matrix::W3(_)) => "feed-forward",
        Tensor::Matrix(Matrix::Classifier) => "classifier",
    }
}

/// The tensors by class and format, in the order in which they come first.
fn classes(config: &Config, tape: &Tape<'_>) -> Vec<Tensors> {
    let mut classes: Vec<Tensors> = Vec::new();
    for tensor in Tape::tensors(config) {
        if tensor == Tensor::Matrix(Matrix::Classifier) && config.shared_classifier {
            // It has been counted as the embedding.
            continue;
        }
        let class = class(tensor);
        let Entry { format, .. } = tape.entry(tensor);
        let (format, (rows, columns)) = (format.to_string(), Tape::shape(config, tensor));
        let place = classes.iter().position(|known| known.class == class && known.format == format);
        let place = place.unwrap_or_else(|| {
            classes.push(Tensors { class, format, tensors: 0, parameters: 0, bytes: 0 });
            classes.len() - 1
        });
        let known = &mut classes[place];
        known.tensors += 1;
        known.parameters += rows as u64 * columns as u64;
        known.bytes += tape.bytes(tensor);
    }
    classes
}

fn memory(model: &LoadedModel<'_>, options: &Options) -> Result<Memory> {
    let (config, file) = (model.config(), model.file);
    let context = load::context(config, Some(options.context.unwrap_or(config.seq_len)), 0)?;
    let capacity = load::capacity(config, context, file.len(), options.cache.format())?;
    let state = 4 * state_len(config, capacity)? as u64;
    let key_value_cache = 4 * cache_len(config, capacity)? as u64;
    let logits = 4 * (capacity.logits * config.vocab_size) as u64;
    let tokenizer_index = vocabulary::index_bytes(&model.header);
    let weights = file.len();
    Ok(Memory {
        context,
        batch: capacity.batch,
        key_value_cache,
        logits,
        activations: state - key_value_cache - logits,
        state,
        tokenizer_index,
        weights,
        total: state + tokenizer_index + weights,
    })
}

impl Report {
    fn text(&self) -> String {
        let Self { shape, memory, .. } = self;
        let classifier = if shape.shared_classifier { "is the embedding" } else { "has its own weights" };
        let mut facts = vec![("file", format!("{}, {}, {}", self.path, self.kind, bytes(self.file_bytes)))];
        facts.extend(self.name.clone().map(|name| ("name", name)));
        facts.extend([
            ("architecture", self.architecture.to_owned()),
            ("parameters", grouped(self.parameters)),
            ("layers", shape.n_layers.to_string()),
            ("width", format!("{}, feed-forward {}", shape.dim, shape.hidden_dim)),
            (
                "heads",
                format!("{} of {}, {} for keys and values", shape.n_heads, shape.head_size, shape.n_kv_heads),
            ),
            ("vocabulary", format!("{} tokens, classifier {classifier}", shape.vocab_size)),
            ("context", format!("{} tokens", shape.seq_len)),
            ("constants", format!("norm epsilon {:e}, rope base {}", shape.norm_eps, shape.rope_theta)),
            ("read per token", bytes(self.bytes_per_token)),
        ]);
        facts.extend(match (&self.tokenizer, &self.no_tokenizer) {
            (Some(found), _) => {
                let TokenizerFacts { path, vocab_size, bos, eos, .. } = found;
                let place = if *path == self.path { "in the file" } else { path };
                Some(("tokenizer", format!("{place}, {vocab_size} tokens, BOS {bos}, EOS {eos}")))
            }
            (None, reason) => reason.clone().map(|reason| ("tokenizer", reason)),
        });

        let mut tensors = Table::new(["tensors", "format", "count", "parameters", "bytes"]);
        for class in &self.tensors {
            let (count, numbers) = (class.tensors.to_string(), grouped(class.parameters));
            tensors.row([class.class, &class.format, &count, &numbers, &bytes(class.bytes)]);
        }

        let title = format!("memory, context {}, batch {}", memory.context, memory.batch);
        let mut parts = Table::new([&title, "bytes"]);
        for (name, part) in [
            ("key/value cache", memory.key_value_cache),
            ("activations", memory.activations),
            ("logits", memory.logits),
            ("tokenizer index", memory.tokenizer_index),
            ("weights", memory.weights),
            ("all", memory.total),
        ] {
            parts.row([name, &bytes(part)]);
        }
        format!("{}\n{}\n{}", list(&facts), tensors.lines(), parts.lines())
    }
}
