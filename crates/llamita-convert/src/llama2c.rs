//! Writing llama2.c checkpoints of version 0: f32.

use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;

use llamita::Config;
use llamita::format::llama2c;
use llamita::weights::{Format, Norm, Tensor};

use crate::conversion::Conversion;
use crate::error::{Error, Result};

/// Writes a checkpoint from the start of `out` on.
///
/// What nothing reads any more, the tables of rope, is as the source has it, or else 0.
pub fn write(conversion: &mut Conversion<'_>, out: &mut (impl Write + Seek)) -> Result<()> {
    let config = *conversion.source.config();
    let header = llama2c::header(&config)?;
    out.seek(SeekFrom::Start(0)).and_then(|_| out.write_all(&header)).map_err(Error::Write)?;
    let mut tensors = Vec::new();
    llama2c::places(&config, |tensor, place| tensors.push((tensor, place)));
    let mut end = header.len() as u64;
    for (tensor, place) in tensors {
        zeros(out, end, place)?;
        conversion.write(tensor, Format::F32, place, out)?;
        let (rows, columns) = llamita::Tape::shape(&config, tensor);
        end = place + 4 * rows as u64 * columns as u64;
    }
    zeros(out, end, llama2c::file_len(&config))?;
    let place = rope_tables(&config);
    if let Some(tables) = conversion.source.rope_tables().filter(|tables| tables.len() == place.len()) {
        let start = SeekFrom::Start(place.start as u64);
        out.seek(start).and_then(|_| out.write_all(tables)).map_err(Error::Write)?;
    }
    out.flush().map_err(Error::Write)
}

/// Where a checkpoint has tables that nothing reads any more: after the last norm.
pub(crate) fn rope_tables(config: &Config) -> Range<usize> {
    let mut start = 0;
    llama2c::places(config, |tensor, place| {
        if tensor == Tensor::Norm(Norm::Final) {
            start = place as usize + 4 * config.dim;
        }
    });
    start..start + 4 * config.seq_len * config.head_size
}

fn zeros(out: &mut (impl Write + Seek), from: u64, to: u64) -> Result<()> {
    let mut zeros = std::io::Read::take(std::io::repeat(0), to - from);
    out.seek(SeekFrom::Start(from)).and_then(|_| std::io::copy(&mut zeros, out)).map_err(Error::Write)?;
    Ok(())
}
