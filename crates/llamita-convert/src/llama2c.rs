//! Writing llama2.c checkpoints of version 0: f32.

use std::io::{Seek, SeekFrom, Write};

use llamita::format::llama2c;
use llamita::weights::Format;

use crate::conversion::Conversion;
use crate::error::{Error, Result};

/// Writes a checkpoint from the start of `out` on.
///
/// What nothing reads any more, the tables of rope, is left 0.
pub fn write(conversion: &mut Conversion<'_>, out: &mut (impl Write + Seek)) -> Result<()> {
    let config = *conversion.source.config();
    let header = llama2c::header(&config)?;
    out.seek(SeekFrom::Start(0)).and_then(|_| out.write_all(&header)).map_err(Error::Write)?;
    let mut tensors = Vec::new();
    llama2c::places(&config, |tensor, place| tensors.push((tensor, place)));
    let mut end = header.len() as u64;
    for (tensor, place) in tensors {
        zeros(out, end, place)?;
        conversion.write(tensor, Format::F32, [place, 0], out)?;
        let (rows, columns) = llamita::Tape::shape(&config, tensor);
        end = place + 4 * rows as u64 * columns as u64;
    }
    zeros(out, end, llama2c::file_len(&config))?;
    out.flush().map_err(Error::Write)
}

fn zeros(out: &mut (impl Write + Seek), from: u64, to: u64) -> Result<()> {
    let mut zeros = std::io::Read::take(std::io::repeat(0), to - from);
    out.seek(SeekFrom::Start(from)).and_then(|_| std::io::copy(&mut zeros, out)).map_err(Error::Write)?;
    Ok(())
}
