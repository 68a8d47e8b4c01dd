//! Weights that are all in memory: a file that is mapped or has been read.

use llamita_kernels::Rows;
use zerocopy::FromBytes;

use crate::config::Config;
use crate::format::FormatError;
use crate::weights::{Format, Matrix, Norm, Tape, Tensor, Weights};

/// A whole model file in memory, used in place.
#[derive(Clone, Copy, Debug)]
pub struct Resident<'a> {
    tape: Tape<'a>,
    file: &'a [u8],
}

impl<'a> Resident<'a> {
    /// The tensors of `tape` in `file`.
    ///
    /// # Errors
    /// If a tensor is not inside the file, or the file is not aligned to its numbers.
    pub fn new(tape: Tape<'a>, file: &'a [u8]) -> Result<Self, FormatError> {
        let resident = Self { tape, file };
        for tensor in Tape::tensors(tape.config()) {
            resident.rows(tensor, 0)?;
        }
        Ok(resident)
    }

    /// The rows of a tensor from one on.
    fn rows(&self, tensor: Tensor, from: usize) -> Result<Rows<'a>, FormatError> {
        let entry = self.tape.entry(tensor);
        let (rows, columns) = Tape::shape(self.tape.config(), tensor);
        let skipped = entry.format.bytes(from.min(rows) as u64 * columns as u64);
        let (start, end) =
            (entry.offset.saturating_add(skipped), entry.offset.saturating_add(self.tape.bytes(tensor)));
        let file = self.file.len() as u64;
        // What ends inside the file is within this machine's addresses.
        let bytes = if end <= file { self.file.get(start as usize..end as usize) } else { None };
        let bytes = bytes.ok_or(FormatError::TensorBounds { tensor, end, file })?;
        let alignment = entry.format.bytes(1);
        let misaligned = FormatError::MemoryAlignment { tensor, alignment };
        Ok(match entry.format {
            Format::F32 => Rows::F32(<[f32]>::ref_from_bytes(bytes).map_err(|_| misaligned)?),
            Format::F16 => Rows::F16(<[u16]>::ref_from_bytes(bytes).map_err(|_| misaligned)?),
            Format::Bf16 => Rows::Bf16(<[u16]>::ref_from_bytes(bytes).map_err(|_| misaligned)?),
        })
    }
}

impl Weights for Resident<'_> {
    type Error = FormatError;

    fn config(&self) -> &Config {
        self.tape.config()
    }

    fn norm(&self, norm: Norm) -> &[f32] {
        match self.rows(Tensor::Norm(norm), 0) {
            Ok(Rows::F32(weights)) => weights,
            // Readers refuse norms of another format, and `new` looked at this one.
            _ => &[],
        }
    }

    fn embed(&mut self, token: u32, out: &mut [f32]) -> Result<(), FormatError> {
        self.rows(Tensor::Embedding, token as usize)?.to_f32(out);
        Ok(())
    }

    fn lend<const N: usize>(
        &mut self,
        matrices: [Matrix; N],
        from: [usize; N],
    ) -> Result<[Rows<'_>; N], FormatError> {
        let mut lent = [Rows::default(); N];
        for ((lent, matrix), from) in lent.iter_mut().zip(matrices).zip(from) {
            *lent = self.rows(Tensor::Matrix(matrix), from)?;
        }
        Ok(lent)
    }
}
