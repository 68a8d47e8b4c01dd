//! From rows of a source to the bytes of a file.

use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;

use half::{bf16, f16};
use llamita::Tape;
use llamita::format::TensorName;
use llamita::weights::{Blocks, Format, Tensor};
use llamita_kernels::quantized::{BLOCK_ROWS, Layout, Quant};

use crate::error::{Error, Result};
use crate::quantize::{Quantizer, pack};
use crate::source::{Integers, Source};

/// What takes part in a conversion, besides the file that is written.
pub struct Conversion<'a> {
    /// Where the weights come from.
    pub source: &'a mut dyn Source,
    /// Makes integers of those that are not stored as such already.
    pub quantizer: &'a mut dyn Quantizer,
    /// Hears how many more weights have been written, again and again.
    pub progress: &'a mut dyn FnMut(u64),
}

/// Numbers that are read at once, unless eight rows have more.
const CHUNK: usize = 1 << 16;

/// Whole blocks of rows, but for the last of a matrix.
fn chunks(rows: usize, columns: usize) -> impl Iterator<Item = Range<usize>> {
    let step = (CHUNK / columns).max(1).next_multiple_of(BLOCK_ROWS);
    (0..rows).step_by(step).map(move |first| first..rows.min(first + step))
}

/// Memory that is used again from chunk to chunk.
#[derive(Default)]
struct Scratch {
    floats: Vec<f32>,
    values: Vec<i8>,
    scales: Vec<u16>,
    bytes: Vec<u8>,
}

impl Conversion<'_> {
    /// Writes a tensor in a format to its place in a file; returns its checksum.
    pub(crate) fn write(
        &mut self,
        tensor: Tensor,
        format: Format,
        place: u64,
        out: &mut (impl Write + Seek),
    ) -> Result<u32> {
        let (rows, columns) = Tape::shape(self.source.config(), tensor);
        let mut scratch = Scratch::default();
        let mut checksum = crc32fast::Hasher::new();
        out.seek(SeekFrom::Start(place)).map_err(Error::Write)?;
        for rows in chunks(rows, columns) {
            let weights = rows.len() * columns;
            match format {
                Format::F32 | Format::F16 | Format::Bf16 => {
                    self.floats(tensor, rows, columns, &mut scratch)?;
                    encode_floats(format, tensor, &scratch.floats, &mut scratch.bytes)?;
                }
                Format::Quantized { quant, group } => {
                    let layout = Layout { quant, rows: rows.len(), columns, group: group as usize };
                    self.integers(tensor, rows.start, layout, &mut scratch)?;
                    let Scratch { values, scales, bytes, .. } = &mut scratch;
                    bytes.resize(layout.len(), 0);
                    pack(&layout, values, scales, bytes);
                }
                Format::Blocks(blocks) => {
                    let quant = if blocks == Blocks::Q8_0 { Quant::Q8 } else { Quant::Q4 };
                    let layout = Layout { quant, rows: rows.len(), columns, group: 32 };
                    self.integers(tensor, rows.start, layout, &mut scratch)?;
                    encode_blocks(quant, &mut scratch);
                }
            }
            checksum.update(&scratch.bytes);
            out.write_all(&scratch.bytes).map_err(Error::Write)?;
            (self.progress)(weights as u64);
        }
        Ok(checksum.finalize())
    }

    /// Reads rows as floats.
    fn floats(
        &mut self,
        tensor: Tensor,
        rows: Range<usize>,
        columns: usize,
        scratch: &mut Scratch,
    ) -> Result<()> {
        scratch.floats.resize(rows.len() * columns, 0.0);
        self.source.read(tensor, rows.start, &mut scratch.floats)
    }

    /// Reads rows as integers, or makes them such.
    fn integers(
        &mut self,
        tensor: Tensor,
        first_row: usize,
        layout: Layout,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Layout { quant, rows, columns, group } = layout;
        let stored = Integers::of(self.source.stored(tensor), columns);
        if let Some(stored) = stored.filter(|stored| stored.fit(quant, group, columns))
            && self.stored_integers(tensor, first_row, layout, stored, scratch)?
        {
            return Ok(());
        }
        self.floats(tensor, first_row..first_row + rows, columns, scratch)?;
        let Scratch { floats, values, scales, .. } = scratch;
        if let Some(index) = floats.iter().position(|number| !number.is_finite()) {
            return Err(Error::refused(format_args!(
                "weight {} of row {} of tensor {} is infinite or not a number: \
                 the file is damaged, copy or download it again",
                index % columns,
                first_row + index / columns,
                TensorName(tensor)
            )));
        }
        values.resize(rows * columns, 0);
        scales.resize(rows * layout.groups(), 0);
        self.quantizer.quantize(tensor, first_row, layout, floats, values, scales)
    }

    /// Takes over integers and scales as they are stored, if the format of the result has them all.
    fn stored_integers(
        &mut self,
        tensor: Tensor,
        first_row: usize,
        layout: Layout,
        stored: Integers,
        scratch: &mut Scratch,
    ) -> Result<bool> {
        let Layout { rows, columns, group, .. } = layout;
        let mut stored_scales = vec![0; rows * stored.groups(columns)];
        scratch.values.resize(rows * columns, 0);
        self.source.read_integers(tensor, first_row, &mut scratch.values, &mut stored_scales)?;
        // The native eight bits are symmetric; others' may be not.
        let fit = layout.quant == Quant::Q4 || !scratch.values.contains(&i8::MIN);
        if !fit || stored_scales.iter().any(|&scale| !f16::from_bits(scale).is_finite()) {
            return Ok(false);
        }
        scratch.scales.clear();
        for scales in stored_scales.chunks_exact(stored.groups(columns)) {
            let starts = (0..columns).step_by(group);
            scratch.scales.extend(starts.map(|column| scales[column / stored.group]));
        }
        Ok(true)
    }
}

fn encode_floats(format: Format, tensor: Tensor, floats: &[f32], bytes: &mut Vec<u8>) -> Result<()> {
    bytes.clear();
    match format {
        Format::F16 => {
            for &float in floats {
                let half = f16::from_f32(float);
                if half.is_infinite() && float.is_finite() {
                    return Err(Error::refused(format_args!(
                        "tensor {} has the weight {float}, half precision ends at {}: convert with --quant f32",
                        TensorName(tensor),
                        f16::MAX
                    )));
                }
                bytes.extend(half.to_le_bytes());
            }
        }
        Format::Bf16 => floats.iter().for_each(|&float| bytes.extend(bf16::from_f32(float).to_le_bytes())),
        _ => floats.iter().for_each(|float| bytes.extend(float.to_le_bytes())),
    }
    Ok(())
}

/// Integers in groups of 32 as Q8_0 or Q4_0.
fn encode_blocks(quant: Quant, scratch: &mut Scratch) {
    let Scratch { values, scales, bytes, .. } = scratch;
    bytes.clear();
    for (values, scale) in values.as_chunks::<32>().0.iter().zip(scales) {
        bytes.extend(scale.to_le_bytes());
        match quant {
            Quant::Q8 => bytes.extend(values.map(|value| value as u8)),
            Quant::Q4 => {
                let (low, high) = values.split_at(16);
                let pairs = low.iter().zip(high);
                bytes.extend(pairs.map(|(&low, &high)| (low + 8) as u8 | ((high + 8) as u8) << 4));
            }
        }
    }
}
