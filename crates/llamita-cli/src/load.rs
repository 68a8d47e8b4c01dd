//! From the path of a model to an engine.

use std::fmt::Display;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use llamita::format::{FormatError, Kind};
use llamita::state::cache_len;
use llamita::weights::{Entry, Format, Matrix, Tape, Tensor};
use llamita::{
    CacheFormat, Capacity, Config, Engine, Kernels, Model, Resident, State, Team, Weights, state_len,
};
use llamita_convert::source::Checkpoint;
use llamita_convert::{Conversion, GgufFile, Plan, Quantizer, Rounding, Source};
use llamita_kernels::Threads;
use llamita_storage::{ModelFile, Placement};

use crate::builtin::BuiltIn;
use crate::error::{Error, Result};

/// An engine on a machine with an operating system.
pub type HostEngine<'a> = Engine<'a, Resident<'a>, Threads>;

/// Why it could not compute.
pub type EngineError = llamita::Error<FormatError>;

/// A file in memory, with its name.
pub struct File {
    /// The path it was opened by.
    pub path: PathBuf,
    /// Its bytes.
    pub content: ModelFile,
    /// What the file is and how long, where the bytes are those of a model that was repacked.
    repacked: Option<(Kind, u64)>,
    /// The length of the file, where only its header is in memory.
    whole: Option<u64>,
}

impl File {
    /// Opens a file.
    pub fn open(path: &Path, placement: Placement) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            content: ModelFile::open_in(path, placement)?,
            repacked: None,
            whole: None,
        })
    }

    /// A model that is part of the program.
    pub fn of_program(model: &'static BuiltIn) -> Self {
        Self {
            path: model.name.into(),
            content: ModelFile::of_program(model.bytes()),
            repacked: None,
            whole: None,
        }
    }

    /// Opens a model as it is: that of the program which has this name, or a file.
    pub fn open_as_is(path: &Path, placement: Placement) -> Result<Self> {
        BuiltIn::find(path).map_or_else(|| Self::open(path, placement), |model| Ok(Self::of_program(model)))
    }

    /// Reads the header of a model, and no more of it: that of the program which has this name, or a file.
    pub fn open_header(path: &Path) -> Result<Self> {
        if let Some(model) = BuiltIn::find(path) {
            let (bytes, whole) = (model.bytes(), model.bytes().len() as u64);
            let header = Model::read(bytes).map_err(|error| Error::file(path, error))?.header_len();
            // Within the bytes that it was read from.
            let content = ModelFile::of_program(&bytes[..header as usize]);
            return Ok(Self { path: path.to_owned(), content, repacked: None, whole: Some(whole) });
        }
        let (content, whole) =
            ModelFile::open_start(path, |bytes, len| match Model::read_header(bytes, len) {
                Ok(model) => Ok(model.header_len()),
                Err(FormatError::Truncated { .. }) if (bytes.len() as u64) < len => Err(None),
                Err(error) => Err(Some(error)),
            })?;
        let content = content.map_err(|error| Error::file(path, error))?;
        Ok(Self { path: path.to_owned(), content, repacked: None, whole: Some(whole) })
    }

    /// Opens a model to run it: one that the engine cannot use in place, as ordinary quantized GGUF and llama2.c
    /// version 2, is repacked into memory. Integers stay as they are where a native format has the like, and
    /// others become eight bits; no tensor is made of floats as a whole.
    pub fn open_model(path: &Path, placement: Placement) -> Result<Self> {
        let repacked = to_repack(&Self::open_as_is(path, Placement::Mapped)?)?;
        if repacked.is_none() {
            return Self::open_as_is(path, placement);
        }
        let refuse = |error: llamita_convert::Error| Error::failure(error.at(path));
        let mut source = Checkpoint::open(path).map_err(refuse)?;
        let plan = Plan::nearest(&source).map_err(refuse)?;
        Ok(Self { repacked, ..Self::repack(path, &mut source, &plan, &mut Rounding)? })
    }

    /// A model as the engine uses it, in memory; `path` is for errors.
    pub fn repack(
        path: &Path,
        source: &mut dyn Source,
        plan: &Plan,
        quantizer: &mut dyn Quantizer,
    ) -> Result<Self> {
        let image = GgufFile::device(source, plan);
        let memory = |error: &dyn Display| {
            let needed = crate::units::bytes(image.len());
            let message = format!("repacked it needs {needed} of memory ({error}): use a smaller model");
            Error::file(path, message)
        };
        let len = usize::try_from(image.len()).map_err(|error| memory(&error))?;
        let content = ModelFile::in_memory(len, |bytes| {
            let mut conversion = Conversion { source, quantizer, progress: &mut |_| () };
            image.write(&mut conversion, &mut Cursor::new(bytes))
        });
        let content = content.map_err(|error| memory(&error))?;
        let content = content.map_err(|error| Error::failure(error.at(path)))?;
        Ok(Self { path: path.to_owned(), content, repacked: None, whole: None })
    }

    /// Its length in bytes; of a model that was repacked, that in memory.
    pub fn len(&self) -> u64 {
        self.content.bytes().len() as u64
    }

    /// The length of the file itself, in bytes.
    pub fn stored_len(&self) -> u64 {
        self.repacked.map_or_else(|| self.whole.unwrap_or(self.len()), |(_, len)| len)
    }
}

/// What a model is and how long, if some tensor is stored in blocks that the engine cannot use in place.
fn to_repack(file: &File) -> Result<Option<(Kind, u64)>> {
    let refuse = |error| Error::file(&file.path, error);
    let header = Model::read(file.content.bytes()).map_err(refuse)?;
    let mut entries = vec![Entry::EMPTY; Tape::len(header.config())];
    header.tape(&mut entries).map_err(refuse)?;
    let blocks = entries.iter().any(|entry| matches!(entry.format, Format::Blocks(_)));
    Ok(blocks.then(|| (header.kind(), file.len())))
}

/// A model file whose header has been read and whose tensors have been found.
pub struct LoadedModel<'f> {
    /// The file.
    pub file: &'f File,
    /// Its header.
    pub header: Model<'f>,
    entries: Vec<Entry>,
}

impl<'f> LoadedModel<'f> {
    /// Reads and checks a model, its checksums included.
    pub fn read(file: &'f File) -> Result<Self> {
        let model = Self::read_header(file)?;
        model.header.verify().map_err(|error| Error::file(&file.path, error))?;
        Ok(model)
    }

    /// Reads and checks the header of a model, of which no more may be in memory.
    pub fn read_header(file: &'f File) -> Result<Self> {
        let refuse = |error| Error::file(&file.path, error);
        let header =
            Model::read_header(file.content.bytes(), file.whole.unwrap_or(file.len())).map_err(refuse)?;
        let mut entries = vec![Entry::EMPTY; Tape::len(header.config())];
        header.tape(&mut entries).map_err(refuse)?;
        Ok(Self { file, header, entries })
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        self.header.config()
    }

    /// Its weights, those of a shared classifier once.
    pub fn parameters(&self) -> usize {
        let config = self.config();
        let own =
            |&tensor: &Tensor| !config.shared_classifier || tensor != Tensor::Matrix(Matrix::Classifier);
        let size = |tensor| {
            let (rows, columns) = Tape::shape(config, tensor);
            rows * columns
        };
        Tape::tensors(config).filter(own).map(size).sum()
    }

    /// Its tensors.
    pub fn tape(&self) -> Result<Tape<'_>> {
        Tape::new(*self.config(), &self.entries).map_err(|error| Error::file(&self.file.path, error))
    }

    /// Bytes of the weights that a pass over one token reads: all of them, but of the embedding one row.
    pub fn bytes_per_token(&self) -> Result<u64> {
        let tape = self.tape()?;
        let tensors = Tape::tensors(self.config()).filter(|&tensor| tensor != Tensor::Embedding);
        let all: u64 = tensors.map(|tensor| tape.bytes(tensor)).sum();
        let row = tape.bytes(Tensor::Embedding) / self.config().vocab_size as u64;
        // A shared embedding is read as the classifier, which has been counted.
        Ok(all + if self.config().shared_classifier { 0 } else { row })
    }

    /// Its weights.
    pub fn weights(&self) -> Result<Resident<'_>> {
        let weights = Resident::new(self.tape()?, self.file.content.bytes());
        weights.map_err(|error| Error::file(&self.file.path, error))
    }

    /// An engine with this many threads, in memory from [`memory`] for the same capacity.
    pub fn engine<'a>(
        &'a self,
        capacity: Capacity,
        memory: &'a mut [f32],
        threads: usize,
    ) -> Result<HostEngine<'a>> {
        let team = Threads::new(threads).map_err(|error| {
            Error::failure(format_args!("cannot start {threads} threads ({error}): use fewer with --threads"))
        })?;
        self.engine_with(self.weights()?, capacity, memory, team)
    }

    /// An engine with weights of this model that may be anywhere.
    pub fn engine_with<'a, W: Weights, T: Team>(
        &self,
        weights: W,
        capacity: Capacity,
        memory: &'a mut [f32],
        team: T,
    ) -> Result<Engine<'a, W, T>> {
        let state = State::new(self.config(), capacity, memory)?;
        Ok(Engine::new(weights, state, team, Kernels::detect()))
    }

    /// The kind of the file.
    pub fn kind(&self) -> Kind {
        self.file.repacked.map_or_else(|| self.header.kind(), |(kind, _)| kind)
    }
}

/// A longer context is made only where it is asked for: its cache takes memory, whether it is used or not.
const DEFAULT_CONTEXT: usize = 2048;

/// The context to use: as asked, or else all that the model was trained for, unless that is far more than
/// the `needed` positions.
pub fn context(config: &Config, asked: Option<usize>, needed: usize) -> Result<usize> {
    match asked {
        Some(asked) if asked > config.seq_len => Err(Error::usage(format_args!(
            "--context is {asked}, expected 1 to {}, the longest text this model was trained for",
            config.seq_len
        ))),
        Some(asked) => Ok(asked),
        None => Ok(config.seq_len.min(needed.max(DEFAULT_CONTEXT))),
    }
}

/// Tokens in one pass, beyond which passes gain nothing.
pub const MAX_BATCH: usize = 64;

/// The capacity to generate with: as many tokens in a pass as keep all that is not the key/value cache
/// within a sixteenth of its size, or within a sixty-fourth of that of the weights, in bytes.
pub fn capacity(config: &Config, context: usize, weights: u64, cache: CacheFormat) -> Result<Capacity> {
    let with = |batch| Capacity { context, batch, logits: 1, cache };
    let cached = 4 * cache_len(config, with(1))? as u64;
    // The same batch whatever the cache's format is.
    let floats = 4 * cache_len(config, Capacity { cache: CacheFormat::F32, ..with(1) })? as u64;
    let limit = (floats / 16).max(weights / 64);
    for batch in (2..=MAX_BATCH).rev() {
        if (4 * state_len(config, with(batch))? as u64).saturating_sub(cached) <= limit {
            return Ok(with(batch));
        }
    }
    Ok(with(1))
}

/// Memory for a state of this capacity.
pub fn memory(config: &Config, capacity: Capacity) -> Result<Vec<f32>> {
    let len = state_len(config, capacity)?;
    // The zeros that the system gives cost nothing until they are used, but where it has none to give the
    // process would end without a word.
    Vec::<f32>::new().try_reserve_exact(len).map_err(|_| {
        let needed = crate::units::bytes(4 * len as u64);
        Error::failure(format_args!(
            "a context of {} tokens needs {needed} of memory, more than there is: use a shorter --context",
            capacity.context
        ))
    })?;
    Ok(vec![0.0; len])
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORIES260K: Config = Config {
        dim: 64,
        hidden_dim: 172,
        n_layers: 5,
        n_heads: 8,
        n_kv_heads: 4,
        head_size: 8,
        vocab_size: 512,
        seq_len: 512,
        norm_eps: 1e-5,
        rope_theta: 10000.0,
        shared_classifier: true,
    };

    #[test]
    fn a_small_model_takes_little_memory() {
        let capacity = capacity(&STORIES260K, 512, 1_056_540, CacheFormat::F32).unwrap();
        let bytes = 4 * state_len(&STORIES260K, capacity).unwrap();
        assert!(bytes <= 700_000, "{bytes} bytes with {capacity:?}");
        assert!(capacity.batch >= 8, "{capacity:?}");
    }

    #[test]
    fn batches_grow_with_the_model() {
        let batch =
            |config, context, weights| capacity(config, context, weights, CacheFormat::F32).unwrap().batch;
        assert_eq!(batch(&STORIES260K, 1, 0), 1);
        let deep = Config { n_layers: 40, ..STORIES260K };
        assert_eq!(batch(&deep, 512, 0), MAX_BATCH);
        let large =
            Config { dim: 288, hidden_dim: 768, n_heads: 6, n_kv_heads: 6, head_size: 48, ..STORIES260K };
        let large = Config { n_layers: 6, vocab_size: 32000, seq_len: 256, ..large };
        assert_eq!(batch(&large, 256, 60_816_028), MAX_BATCH);
    }

    #[test]
    fn long_contexts_are_made_on_demand() {
        let long = Config { seq_len: 131_072, ..STORIES260K };
        assert_eq!(context(&long, None, 300).unwrap(), 2048);
        assert_eq!(context(&long, None, 5000).unwrap(), 5000);
        assert_eq!(context(&long, Some(131_072), 300).unwrap(), 131_072);
        assert!(context(&long, Some(131_073), 300).is_err());
        assert_eq!(context(&STORIES260K, None, 5000).unwrap(), 512);
    }
}
