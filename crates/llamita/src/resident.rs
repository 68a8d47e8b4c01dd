//! Weights that are all in memory: a file that is mapped or has been read.

use llamita_kernels::Rows;
use llamita_kernels::quantized::QuantizedRows;
use zerocopy::FromBytes;

use crate::config::Config;
use crate::format::FormatError;
use crate::weights::{Entry, Format, Matrix, Norm, Tape, Tensor, Weights};

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
            resident.rows(tensor)?;
        }
        Ok(resident)
    }

    /// All rows of a tensor.
    fn rows(&self, tensor: Tensor) -> Result<Rows<'a>, FormatError> {
        let Entry { offset, format, .. } = self.tape.entry(tensor);
        let shape = Tape::shape(self.tape.config(), tensor);
        let bytes = self.part(tensor, offset, format.bytes(shape.0, shape.1))?;
        rows_of(tensor, format, shape.1, bytes)
    }

    /// Bytes of the file.
    fn part(&self, tensor: Tensor, start: u64, len: u64) -> Result<&'a [u8], FormatError> {
        let (end, file) = (start.saturating_add(len), self.file.len() as u64);
        // What ends inside the file is within this machine's addresses.
        let bytes = if end <= file { self.file.get(start as usize..end as usize) } else { None };
        bytes.ok_or(FormatError::TensorBounds { tensor, end, file })
    }
}

/// Bytes of a file as rows of a tensor, each of `columns` weights.
///
/// # Errors
/// If the bytes are not aligned to the numbers, or have to be repacked.
pub fn rows_of(
    tensor: Tensor,
    format: Format,
    columns: usize,
    bytes: &[u8],
) -> Result<Rows<'_>, FormatError> {
    let misaligned = |alignment| FormatError::MemoryAlignment { tensor, alignment };
    let halves = || <[u16]>::ref_from_bytes(bytes).map_err(|_| misaligned(format.alignment()));
    Ok(match format {
        Format::F32 => Rows::F32(<[f32]>::ref_from_bytes(bytes).map_err(|_| misaligned(format.alignment()))?),
        Format::F16 => Rows::F16(halves()?),
        Format::Bf16 => Rows::Bf16(halves()?),
        Format::Quantized { quant, group } => {
            let group = group as usize;
            Rows::Quantized(QuantizedRows { quant, padded: columns.next_multiple_of(group), group, bytes })
        }
        Format::Blocks(_) => return Err(FormatError::Repack { tensor, format }),
    })
}

impl Weights for Resident<'_> {
    type Error = FormatError;

    fn config(&self) -> &Config {
        self.tape.config()
    }

    fn norm(&self, norm: Norm) -> &[f32] {
        match self.rows(Tensor::Norm(norm)) {
            Ok(Rows::F32(weights)) => weights,
            // Readers refuse norms of another format, and `new` looked at this one.
            _ => &[],
        }
    }

    fn embed(&mut self, token: u32, out: &mut [f32]) -> Result<(), FormatError> {
        self.rows(Tensor::Embedding)?.row(token as usize, out);
        Ok(())
    }

    fn lend<const N: usize>(
        &mut self,
        matrices: [Matrix; N],
        from: [usize; N],
    ) -> Result<[Rows<'_>; N], FormatError> {
        let mut lent = [Rows::default(); N];
        for ((lent, matrix), from) in lent.iter_mut().zip(matrices).zip(from) {
            let (rows, columns) = Tape::shape(self.tape.config(), Tensor::Matrix(matrix));
            *lent = self.rows(Tensor::Matrix(matrix))?.slice(from..rows, columns);
        }
        Ok(lent)
    }
}
