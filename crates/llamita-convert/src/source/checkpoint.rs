//! Models in one file: llama2.c checkpoints and GGUF.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use half::{bf16, f16};
use llamita::format::Value;
use llamita::weights::{Entry, Format, Tensor};
use llamita::{Config, Model, Tape};
use llamita_storage::{ModelFile, Placement};

use super::{Source, Stored};
use crate::error::{Error, Result};
use crate::vocabulary::{Vocabulary, from_gguf};

/// A llama2.c checkpoint or a GGUF file, whose weights are read where they are asked for.
pub struct Checkpoint<F> {
    file: F,
    config: Config,
    name: Option<String>,
    vocabulary: Option<Vocabulary>,
    entries: Vec<Entry>,
    buffer: Vec<u8>,
}

impl Checkpoint<File> {
    /// Opens a file.
    ///
    /// It is mapped only while its header is read: what is read of the weights later does not stay in memory.
    pub fn open(path: &Path) -> Result<Self> {
        let mapped = ModelFile::open_in(path, Placement::Mapped)?;
        let file = File::open(path).map_err(|error| Error::Read(error).at(path))?;
        Self::new(mapped.bytes(), file).map_err(|error| error.at(path))
    }
}

impl<F: Read + Seek> Checkpoint<F> {
    /// Reads the header of a whole file, from `bytes`; weights will be read from `file`, which has the same
    /// bytes.
    pub fn new(bytes: &[u8], file: F) -> Result<Self> {
        let model = Model::read(bytes)?;
        let config = *model.config();
        let mut entries = vec![Entry::EMPTY; Tape::len(&config)];
        model.tape(&mut entries)?;
        let name = match model.metadata("general.name") {
            Some(Value::String(name)) => Some(String::from_utf8_lossy(name).into_owned()),
            _ => None,
        };
        let vocabulary = from_gguf(&model)?;
        Ok(Self { file, config, name, vocabulary, entries, buffer: Vec::new() })
    }

    /// Gives the model a vocabulary, in place of its own if it has one.
    pub fn set_vocabulary(&mut self, vocabulary: Vocabulary) {
        self.vocabulary = Some(vocabulary);
    }

    /// Fills the buffer with bytes of the file.
    fn fetch(&mut self, offset: u64, len: usize) -> io::Result<()> {
        self.buffer.resize(len, 0);
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(&mut self.buffer)
    }
}

impl<F: Read + Seek> Source for Checkpoint<F> {
    fn config(&self) -> &Config {
        &self.config
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }

    fn stored(&self, tensor: Tensor) -> Stored {
        match self.entries[Tape::index(&self.config, tensor)].format {
            Format::F32 => Stored::F32,
            Format::F16 => Stored::F16,
            Format::Bf16 => Stored::Bf16,
        }
    }

    fn read(&mut self, tensor: Tensor, first_row: usize, out: &mut [f32]) -> Result<()> {
        let Entry { offset, format } = self.entries[Tape::index(&self.config, tensor)];
        let columns = super::check_rows(&self.config, tensor, first_row, out.len());
        let start = offset + format.bytes((first_row * columns) as u64);
        self.fetch(start, format.bytes(out.len() as u64) as usize).map_err(Error::Read)?;
        match format {
            Format::F32 => decode(&self.buffer, out, f32::from_le_bytes),
            Format::F16 => decode(&self.buffer, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Format::Bf16 => decode(&self.buffer, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        }
        Ok(())
    }
}

/// Turns bytes into as many numbers.
pub(super) fn decode<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = number(bytes);
    }
}
