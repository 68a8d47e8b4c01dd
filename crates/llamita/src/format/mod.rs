//! Model files: GGUF, and llama2.c checkpoints of versions 0, 1 and 2.
//!
//! A file is read where it lies, as bytes that the caller lends. What can be wrong with it is found here,
//! so that nothing behind this module meets a bad offset, shape or norm.

mod checksum;
mod device;
mod error;
mod gguf;
pub mod llama2c;
mod metadata;

use core::fmt;

pub use checksum::Checksum;
pub use error::{Foreign, FormatError, Name};
pub use gguf::TensorName;
pub use metadata::{Array, Value};

use crate::config::Config;
use crate::tokenizer::GgufVocabulary;
use crate::weights::{Entry, Tape, Tensor};

/// The kind of a model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A llama2.c checkpoint of version 0: f32, without a magic number.
    Llama2cV0,
    /// A llama2.c checkpoint of version 1: f32.
    Llama2cV1,
    /// A llama2.c checkpoint of version 2: eight bits, which have to be repacked before they are used.
    Llama2cV2,
    /// GGUF, version 2 or 3.
    Gguf,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Llama2cV0 => "llama2.c version 0",
            Self::Llama2cV1 => "llama2.c version 1",
            Self::Llama2cV2 => "llama2.c version 2",
            Self::Gguf => "GGUF",
        })
    }
}

/// A model file whose header has been read and checked.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    /// The file, or its beginning.
    bytes: &'a [u8],
    /// Bytes of the whole file.
    len: u64,
    config: Config,
    source: Source,
}

#[derive(Clone, Copy)]
enum Source {
    Llama2c(llama2c::Version),
    Gguf(gguf::Places),
}

impl<'a> Model<'a> {
    /// Reads and checks the header of a file, given as a whole.
    pub fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        Self::read_header(bytes, bytes.len() as u64)
    }

    /// Reads and checks the header of a file of `len` bytes, of which `bytes` are the first ones: all before the
    /// tensors, or more. The tensors themselves may be anywhere else, as on a card.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] if the header is longer than `bytes`: read more of the file.
    pub fn read_header(bytes: &'a [u8], len: u64) -> Result<Self, FormatError> {
        if bytes.starts_with(&metadata::MAGIC) {
            let (config, places) = gguf::read(bytes)?;
            return Ok(Self { bytes, len, config, source: Source::Gguf(places) });
        }
        if llama2c::has_magic(bytes) {
            let (config, version) = llama2c::read_marked(bytes, len)?;
            return Ok(Self { bytes, len, config, source: Source::Llama2c(version) });
        }
        // What has no mark might be anything; only a file that is not a checkpoint is searched for others.
        match llama2c::read_v0(bytes, len) {
            Ok(config) => Ok(Self { bytes, len, config, source: Source::Llama2c(llama2c::Version::V0) }),
            Err(error) => Err(foreign(bytes).map_or(error, FormatError::Foreign)),
        }
    }

    /// Bytes before the first tensor: what [`Model::read_header`] and [`Model::tape`] look at.
    pub fn header_len(&self) -> u64 {
        match self.source {
            Source::Gguf(places) => places.data,
            Source::Llama2c(version) => version.header_len() as u64,
        }
    }

    /// The kind of the file.
    pub fn kind(&self) -> Kind {
        match self.source {
            Source::Llama2c(version) => version.kind(),
            Source::Gguf(_) => Kind::Gguf,
        }
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Finds the tensors and checks that each is whole, of the right shape, in a format that the engine
    /// reads, and aligned to its numbers from the start of the file; norms that have been lent must be finite.
    ///
    /// `entries` is the memory for the tape: [`Tape::len`] entries, whose content does not matter.
    pub fn tape<'t>(&self, entries: &'t mut [Entry]) -> Result<Tape<'t>, FormatError> {
        let (found, expected) = (entries.len(), Tape::len(&self.config));
        if found != expected {
            return Err(FormatError::TapeLength { found, expected });
        }
        match &self.source {
            Source::Gguf(places) => gguf::fill(self.bytes, self.len, &self.config, places, entries)?,
            Source::Llama2c(version) => self.fill_llama2c(*version, entries),
        }
        let tape = Tape::new(self.config, entries)?;
        self.check_norms(&tape)?;
        device::check_groups(&tape)?;
        Ok(tape)
    }

    /// Compares the tensors with the checksums in the file, if it has any: files that `llamita convert` wrote
    /// do. Returns how many tensors were compared. It reads the whole file, which must have been lent.
    ///
    /// # Errors
    /// The first tensor whose checksum differs, or a list of checksums that is not one.
    pub fn verify(&self) -> Result<usize, FormatError> {
        match &self.source {
            Source::Gguf(places) => device::verify(self.bytes, places),
            Source::Llama2c(_) => Ok(0),
        }
    }

    fn fill_llama2c(&self, version: llama2c::Version, entries: &mut [Entry]) {
        let index = |tensor| Tape::index(&self.config, tensor);
        llama2c::walk(&self.config, version, |tensor, entry| entries[index(tensor)] = entry);
        if self.config.shared_classifier {
            let shared = entries[index(Tensor::Embedding)];
            entries[index(Tensor::Matrix(crate::weights::Matrix::Classifier))] = shared;
        }
    }

    /// A norm that is not finite makes every activation so: it is a damaged file's most telling trace.
    fn check_norms(&self, tape: &Tape<'_>) -> Result<(), FormatError> {
        for tensor in Tape::tensors(&self.config).filter(|tensor| matches!(tensor, Tensor::Norm(_))) {
            let Entry { offset, .. } = tape.entry(tensor);
            let end = offset.saturating_add(tape.bytes(tensor));
            if end > self.bytes.len() as u64 && self.len > self.bytes.len() as u64 {
                // Only the beginning of the file is here.
                continue;
            }
            let mut rest = metadata::Cursor::new(self.bytes);
            rest.take(offset, "a norm")?;
            let (numbers, _) = rest.take(tape.bytes(tensor), "a norm")?.as_chunks::<4>();
            let finite = |number: &[u8; 4]| f32::from_le_bytes(*number).is_finite();
            if let Some(index) = numbers.iter().position(|number| !finite(number)) {
                return Err(FormatError::NotFinite { tensor, index });
            }
        }
        Ok(())
    }

    /// The vocabulary, where the file has one: GGUF usually, llama2.c checkpoints never.
    pub fn vocabulary(&self) -> Result<Option<GgufVocabulary<'a>>, FormatError> {
        match self.source {
            Source::Gguf(_) => gguf::vocabulary(self.bytes),
            Source::Llama2c(_) => Ok(None),
        }
    }

    /// The metadata value of any key, for what the engine itself has no use for; llama2.c checkpoints have
    /// none.
    pub fn metadata(&self, key: &str) -> Option<Value<'a>> {
        match self.source {
            Source::Gguf(_) => metadata::find(self.bytes, key),
            Source::Llama2c(_) => None,
        }
    }

    /// The template that makes a text of a conversation, in Jinja; [`crate::Tokenizer::encode_special`] encodes
    /// such a text.
    pub fn chat_template(&self) -> Option<&'a str> {
        match self.metadata("tokenizer.chat_template")? {
            Value::String(template) => core::str::from_utf8(template).ok(),
            _ => None,
        }
    }

    /// The name that the file gives its model.
    pub fn name(&self) -> Option<&'a str> {
        match self.source {
            Source::Gguf(_) => gguf::name(self.bytes),
            Source::Llama2c(_) => None,
        }
    }
}

impl fmt::Debug for Model<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, .. } = self;
        f.debug_struct("Model").field("kind", &self.kind()).field("config", config).finish_non_exhaustive()
    }
}

/// What else a file is that is no model, where its first bytes tell.
fn foreign(bytes: &[u8]) -> Option<Foreign> {
    let text = bytes.trim_ascii_start();
    let starts = |marks: &[&str]| marks.iter().any(|mark| bytes.starts_with(mark.as_bytes()));
    Some(if bytes.is_empty() {
        Foreign::Empty
    } else if starts(&["PK\x03\x04"]) {
        Foreign::Zip
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        Foreign::Gzip
    } else if starts(&["lmgg", "fmgg", "tjgg"]) {
        Foreign::OldGgml
    } else if starts(&["version https://git-lfs"]) {
        Foreign::GitLfs
    } else if text.first_chunk().is_some_and(|start: &[u8; 5]| {
        start.eq_ignore_ascii_case(b"<!doc") || start.eq_ignore_ascii_case(b"<html")
    }) {
        Foreign::Html
    } else if bytes.get(8) == Some(&b'{') {
        // The length of the JSON, then the JSON.
        Foreign::Safetensors
    } else if bytes.get(8..17) == Some(b"\x05\0\0\0<unk>") {
        // Longest token, score, length and bytes of the first token.
        Foreign::Tokenizer
    } else if bytes.get(2..9) == Some(b"\x0a\x05<unk>") {
        Foreign::SentencePiece
    } else {
        return None;
    })
}
