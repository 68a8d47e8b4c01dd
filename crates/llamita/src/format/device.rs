//! What a GGUF file has that `llamita convert` wrote: quantized tensors that are used in place, scales included,
//! and checksums.

use llamita_kernels::quantized::{GROUP_STEP, Layout, MAX_COLUMNS, Quant};

use super::gguf::{Places, TensorInfo};
use super::metadata::{Cursor, Metadata, TYPE_U32};
use super::{Checksum, FormatError, Name};
use crate::config::Config;
use crate::weights::{Entry, Format, Matrix, Tape, Tensor};

/// The version of the layout that is written and read here; files without quantized tensors need none. Version 1
/// had the scales as tensors of their own.
pub const LAYOUT: u32 = 2;

/// ggml's numbers of the types.
const F32: u32 = 0;
const F16: u32 = 1;
const I8: u32 = 24;
const BF16: u32 = 30;

/// A tensor's name without its last part, which says how it is stored, and the bits if it is quantized.
pub(super) fn quant(name: &[u8]) -> (Option<&[u8]>, Option<Quant>) {
    if let Some(name) = name.strip_suffix(b".q8") {
        (Some(name), Some(Quant::Q8))
    } else if let Some(name) = name.strip_suffix(b".q4") {
        (Some(name), Some(Quant::Q4))
    } else {
        (name.strip_suffix(b".weight"), None)
    }
}

/// Checks that a quantized tensor is what and where it must be.
pub(super) fn place(
    file: u64,
    config: &Config,
    places: &Places,
    tensor: Tensor,
    quant: Quant,
    info: &TensorInfo<'_>,
) -> Result<Entry, FormatError> {
    if matches!(tensor, Tensor::Norm(_)) {
        return Err(FormatError::TensorType { tensor, found: info.kind });
    }
    if info.kind != I8 {
        return Err(FormatError::QuantizedType { tensor, found: info.kind });
    }
    let (rows, columns) = Tape::shape(config, tensor);
    // Neither of zero columns nor of more than a state has memory for.
    let groups = [GROUP_STEP, 2 * GROUP_STEP, columns.next_multiple_of(GROUP_STEP)];
    let layouts = groups.map(|group| Layout { quant, rows, columns, group });
    let dimensions = |layout: &Layout| [layout.block_len() as u64, layout.blocks() as u64, 1, 1];
    let fits = |layout: &&Layout| layout.padded() <= MAX_COLUMNS && dimensions(layout) == info.dimensions;
    let Some(layout) = layouts.iter().find(fits) else {
        let [width, height, ..] = info.dimensions;
        return Err(FormatError::QuantizedShape {
            tensor,
            found: (width, height),
            expected: (rows, columns),
        });
    };
    // Both are within `MAX_COLUMNS` and the limits of a config.
    let offset = places.offset(file, tensor, info, 1, layout.block_len() as u64 * layout.blocks() as u64)?;
    Ok(Entry { offset, format: Format::Quantized { quant, group: layout.group as u32 }, ..Entry::EMPTY })
}

/// The checksums of the tensors, in the order of their list, if the file has them.
pub(super) fn checksums<'a>(metadata: &Metadata<'a>) -> Result<Option<&'a [[u8; 4]]>, FormatError> {
    const CHECKSUMS: &str = "llamita.checksums";
    let Some(sums) = metadata.array(CHECKSUMS, TYPE_U32, "array of u32")? else { return Ok(None) };
    if sums.count != metadata.tensor_count {
        let (found, expected) = (sums.count, metadata.tensor_count);
        return Err(FormatError::Disagree { key: CHECKSUMS, found, with: "the list of tensors", expected });
    }
    Ok(Some(sums.bytes.as_chunks().0))
}

/// Matrices that share an input must agree on the groups in which it is quantized.
pub(super) fn check_groups(tape: &Tape<'_>) -> Result<(), FormatError> {
    for layer in 0..tape.config().n_layers {
        for matrices in [
            &[Matrix::Wq(layer), Matrix::Wk(layer), Matrix::Wv(layer)][..],
            &[Matrix::W1(layer), Matrix::W3(layer)],
        ] {
            let group = |matrix| tape.entry(Tensor::Matrix(matrix)).format.group();
            let mut known = matrices.iter().filter_map(|&matrix| group(matrix));
            if let Some(first) = known.next()
                && known.any(|group| group != first)
            {
                return Err(FormatError::MixedGroups(Tensor::Matrix(matrices[0])));
            }
        }
    }
    Ok(())
}

/// Refuses a layout that this version does not know.
pub(super) fn check_layout(metadata: &Metadata<'_>) -> Result<(), FormatError> {
    match metadata.integer("llamita.layout")? {
        Some(found) if found != u64::from(LAYOUT) => Err(FormatError::Layout(found)),
        _ => Ok(()),
    }
}

/// Compares every tensor with its checksum, if the file has them; returns the number of tensors compared.
pub(super) fn verify(bytes: &[u8], places: &Places) -> Result<usize, FormatError> {
    let metadata = Metadata::read(bytes)?;
    let Some(sums) = checksums(&metadata)? else { return Ok(0) };
    let mut infos = metadata.tensor_infos;
    for sum in sums {
        let info = TensorInfo::read(&mut infos)?;
        let size = match info.kind {
            F32 => 4,
            F16 | BF16 => 2,
            I8 => 1,
            _ => return Err(FormatError::Checksum(Name::new(info.name))),
        };
        let count = info.dimensions.iter().fold(size, |count: u64, &size| count.saturating_mul(size));
        let mut data = Cursor::new(bytes);
        data.take(places.data.saturating_add(info.offset), "a tensor")?;
        if Checksum::of(data.take(count, "a tensor")?) != u32::from_le_bytes(*sum) {
            return Err(FormatError::Checksum(Name::new(info.name)));
        }
    }
    Ok(sums.len())
}
