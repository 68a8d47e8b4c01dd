//! Models in one file: llama2.c checkpoints and GGUF.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::mem::take;
use std::path::Path;

use half::{bf16, f16};
use llamita::format::{Kind, Value};
use llamita::weights::{Blocks, Entry, Format, Tensor};
use llamita::{Config, Model, Tape};
use llamita_kernels::quantized::{BLOCK_ROWS, Layout};
use llamita_storage::{ModelFile, Placement};

use super::{Integers, Source};
use crate::blocks;
use crate::error::{Error, Result};
use crate::gguf::ROPE_TABLES;
use crate::llama2c;
use crate::quantize::unpack;
use crate::vocabulary::{Vocabulary, from_gguf};

/// A llama2.c checkpoint or a GGUF file, whose weights are read where they are asked for.
pub struct Checkpoint<F> {
    file: F,
    config: Config,
    name: Option<String>,
    vocabulary: Option<Vocabulary>,
    rope_tables: Option<Vec<u8>>,
    entries: Vec<Entry>,
    /// Bytes as they come from the file, and integers with their scales on the way to numbers.
    bytes: Vec<u8>,
    scale_bytes: Vec<u8>,
    values: Vec<i8>,
    scales: Vec<u16>,
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
        // Damaged weights would get checksums that say nothing is wrong with them.
        model.verify()?;
        let name = match model.metadata("general.name") {
            Some(Value::String(name)) => Some(String::from_utf8_lossy(name).into_owned()),
            _ => None,
        };
        let vocabulary = from_gguf(&model)?;
        Ok(Self {
            file,
            config,
            name,
            vocabulary,
            rope_tables: rope_tables(&model, bytes),
            entries,
            bytes: Vec::new(),
            scale_bytes: Vec::new(),
            values: Vec::new(),
            scales: Vec::new(),
        })
    }

    /// Gives the model a vocabulary, in place of its own if it has one.
    pub fn set_vocabulary(&mut self, vocabulary: Vocabulary) {
        self.vocabulary = Some(vocabulary);
    }

    fn entry(&self, tensor: Tensor) -> Entry {
        self.entries[Tape::index(&self.config, tensor)]
    }

    /// Rows in blocks that follow each other; `size` is that of a block, in weights and in bytes.
    fn fetch_rows(
        &mut self,
        offset: u64,
        columns: usize,
        first_row: usize,
        len: usize,
        size: (u64, u64),
    ) -> Result<()> {
        let bytes = |weights: usize| weights as u64 / size.0 * size.1;
        let start = offset + bytes(first_row * columns);
        fetch(&mut self.file, &mut self.bytes, start, bytes(len) as usize)
    }

    /// Rows of a native format, whose blocks of rows are read as a whole.
    fn fetch_native(
        &mut self,
        entry: Entry,
        whole: Layout,
        first_row: usize,
        count: usize,
    ) -> Result<Layout> {
        let first_block = first_row / BLOCK_ROWS;
        let rows = (first_row + count).next_multiple_of(BLOCK_ROWS) - first_block * BLOCK_ROWS;
        let layout = Layout { rows, ..whole };
        let before = Layout { rows: first_block * BLOCK_ROWS, ..whole };
        fetch(&mut self.file, &mut self.bytes, entry.offset + before.len() as u64, layout.len())?;
        Ok(layout)
    }

    /// Integers of llama2.c, of which `first` is the number of the first in the whole tensor, and the scales
    /// of all groups that they touch, which are `f32` as bytes and follow the integers of the tensor.
    fn fetch_llama2c(&mut self, tensor: Tensor, group: usize, first: usize, len: usize) -> Result<()> {
        let (Entry { offset, .. }, (rows, columns)) = (self.entry(tensor), Tape::shape(&self.config, tensor));
        fetch(&mut self.file, &mut self.bytes, offset + first as u64, len)?;
        let groups = first / group..(first + len).div_ceil(group);
        let start = offset + rows as u64 * columns as u64 + 4 * groups.start as u64;
        fetch(&mut self.file, &mut self.scale_bytes, start, 4 * groups.len())
    }
}

/// The tables of rope, from a checkpoint or as [`crate::gguf::ROPE_TABLES`].
fn rope_tables(model: &Model<'_>, bytes: &[u8]) -> Option<Vec<u8>> {
    let config = model.config();
    let tables = match model.kind() {
        Kind::Llama2cV0 => &bytes[llama2c::rope_tables(config)],
        _ => match model.metadata(ROPE_TABLES)? {
            Value::Array(tables) if tables.bytes.len() == llama2c::rope_tables(config).len() => tables.bytes,
            _ => return None,
        },
    };
    Some(tables.to_vec())
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

    fn rope_tables(&self) -> Option<&[u8]> {
        self.rope_tables.as_deref()
    }

    fn stored(&self, tensor: Tensor) -> Format {
        self.entry(tensor).format
    }

    fn read(&mut self, tensor: Tensor, first_row: usize, out: &mut [f32]) -> Result<()> {
        let Entry { offset, format, .. } = self.entry(tensor);
        let columns = super::check_rows(&self.config, tensor, first_row, out.len());
        match format {
            Format::F32 => {
                self.fetch_rows(offset, columns, first_row, out.len(), (1, 4))?;
                decode(&self.bytes, out, f32::from_le_bytes);
            }
            Format::F16 => {
                self.fetch_rows(offset, columns, first_row, out.len(), (1, 2))?;
                decode(&self.bytes, out, |bytes| f16::from_le_bytes(bytes).to_f32());
            }
            Format::Bf16 => {
                self.fetch_rows(offset, columns, first_row, out.len(), (1, 2))?;
                decode(&self.bytes, out, |bytes| bf16::from_le_bytes(bytes).to_f32());
            }
            Format::Quantized { group, .. } => {
                let (mut values, mut scales) = (take(&mut self.values), take(&mut self.scales));
                let group = group as usize;
                values.resize(out.len(), 0);
                scales.resize(out.len() / columns * columns.div_ceil(group), 0);
                self.read_integers(tensor, first_row, &mut values, &mut scales)?;
                let rows = out.chunks_exact_mut(columns).zip(values.chunks_exact(columns));
                for ((out, values), scales) in rows.zip(scales.chunks_exact(columns.div_ceil(group))) {
                    for (column, (out, &value)) in out.iter_mut().zip(values).enumerate() {
                        *out = f16::from_bits(scales[column / group]).to_f32() * f32::from(value);
                    }
                }
                (self.values, self.scales) = (values, scales);
            }
            Format::Blocks(Blocks::Llama2c { group }) => {
                let (first, group) = (first_row * columns, group as usize);
                self.fetch_llama2c(tensor, group, first, out.len())?;
                let scales = self.scale_bytes.as_chunks::<4>().0;
                for (i, (out, &byte)) in out.iter_mut().zip(&self.bytes).enumerate() {
                    let scale = scales[(first + i) / group - first / group];
                    *out = f32::from_le_bytes(scale) * f32::from(byte as i8);
                }
            }
            Format::Blocks(blocks) => {
                self.fetch_rows(offset, columns, first_row, out.len(), blocks.size())?;
                blocks::decode(blocks, &self.bytes, out);
            }
        }
        Ok(())
    }

    fn read_integers(
        &mut self,
        tensor: Tensor,
        first_row: usize,
        values: &mut [i8],
        scales: &mut [u16],
    ) -> Result<()> {
        let entry @ Entry { offset, format, .. } = self.entry(tensor);
        let columns = super::check_rows(&self.config, tensor, first_row, values.len());
        let integers = Integers::of(format, columns).expect("the tensor is stored in integers");
        let (rows, groups) = (values.len() / columns, integers.groups(columns));
        assert_eq!(scales.len(), rows * groups);
        match format {
            Format::Quantized { quant, .. } => {
                let whole = Layout { quant, rows: 0, columns, group: integers.group };
                let layout = self.fetch_native(entry, whole, first_row, rows)?;
                // What is unpacked are whole blocks of rows; what is asked for may be less.
                let (mut all_values, mut all_scales) =
                    (vec![0; layout.rows * columns], vec![0; layout.rows * groups]);
                unpack(&layout, &self.bytes, &mut all_values, &mut all_scales);
                let skipped = first_row % BLOCK_ROWS;
                values.copy_from_slice(&all_values[skipped * columns..][..values.len()]);
                scales.copy_from_slice(&all_scales[skipped * groups..][..scales.len()]);
            }
            Format::Blocks(Blocks::Llama2c { group }) => {
                self.fetch_llama2c(tensor, group as usize, first_row * columns, values.len())?;
                for (value, &byte) in values.iter_mut().zip(&self.bytes) {
                    *value = byte as i8;
                }
                for (scale, &bytes) in scales.iter_mut().zip(self.scale_bytes.as_chunks().0) {
                    *scale = f16::from_f32(f32::from_le_bytes(bytes)).to_bits();
                }
            }
            Format::Blocks(blocks) => {
                self.fetch_rows(offset, columns, first_row, values.len(), blocks.size())?;
                blocks::integers(blocks, &self.bytes, values, scales);
            }
            Format::F32 | Format::F16 | Format::Bf16 => unreachable!("these are no integers"),
        }
        Ok(())
    }
}

/// Reads `len` bytes of a file to a buffer.
fn fetch(file: &mut (impl Read + Seek), buffer: &mut Vec<u8>, offset: u64, len: usize) -> Result<()> {
    buffer.resize(len, 0);
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(buffer)).map_err(Error::Read)
}

/// Turns bytes into as many numbers.
pub(crate) fn decode<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = number(bytes);
    }
}
