//! What a GGUF file has that `llamita convert` wrote: quantized tensors that are used in place, each followed
//! by its scales, and checksums.

use llamita_kernels::quantized::{BLOCK_ROWS, GROUP_STEP, MAX_COLUMNS, Quant};

use super::gguf::{Places, TensorInfo};
use super::metadata::{Cursor, Metadata, TYPE_U32};
use super::{FormatError, Name};
use crate::config::Config;
use crate::weights::{Entry, Format, Matrix, Tape, Tensor};

/// The version of the layout that is written and read here; files without quantized tensors need none.
pub const LAYOUT: u32 = 1;

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

/// Checks that integers and scales are what and where they must be.
pub(super) fn place(
    file: u64,
    config: &Config,
    places: &Places,
    tensor: Tensor,
    quant: Quant,
    [values, scales]: [&TensorInfo<'_>; 2],
) -> Result<Entry, FormatError> {
    let stem = |name: &[u8], ending: usize| name.len().checked_sub(ending);
    let same = stem(values.name, 3) == stem(scales.name, 7)
        && scales.name.ends_with(b".scales")
        && scales.name.starts_with(&values.name[..values.name.len() - 3]);
    if !same {
        return Err(FormatError::Scales(tensor));
    }
    if matches!(tensor, Tensor::Norm(_)) {
        return Err(FormatError::TensorType { tensor, found: values.kind });
    }
    for (part, info, expected) in [("values", values, I8), ("scales", scales, F16)] {
        if info.kind != expected {
            return Err(FormatError::QuantizedType { tensor, part, found: info.kind, expected });
        }
    }
    let (rows, columns) = Tape::shape(config, tensor);
    let (columns, blocks) = (columns as u64, rows.div_ceil(BLOCK_ROWS) as u64);
    let ([bytes, value_blocks, ..], [width, scale_blocks, ..]) = (values.dimensions, scales.dimensions);
    let bytes_for_two = match quant {
        Quant::Q8 => 2 * BLOCK_ROWS as u64,
        Quant::Q4 => BLOCK_ROWS as u64,
    };
    // What is beyond these limits is not looked at, so that nothing overflows.
    let padded = bytes.saturating_mul(2) / bytes_for_two;
    let groups = width / BLOCK_ROWS as u64;
    let group = padded.checked_div(groups).unwrap_or(0);
    let step = GROUP_STEP as u64;
    // Neither zero nor more than a state has memory for.
    let usual = [step, 2 * step, columns.next_multiple_of(step)].contains(&group);
    if !(usual
        && padded <= MAX_COLUMNS as u64
        && padded == columns.next_multiple_of(group)
        && values.dimensions == [padded * bytes_for_two / 2, blocks, 1, 1]
        && scales.dimensions == [padded / group * BLOCK_ROWS as u64, blocks, 1, 1])
    {
        let found = [bytes, value_blocks, width, scale_blocks];
        return Err(FormatError::QuantizedShape { tensor, found, expected: (rows, columns as usize) });
    }
    let offset = places.offset(file, tensor, values, 1, bytes * blocks)?;
    let scales = places.offset(file, tensor, scales, 2, 2 * width * blocks)?;
    // Within `MAX_COLUMNS`.
    Ok(Entry { offset, scales, format: Format::Quantized { quant, group: group as u32 } })
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
    const CHECKSUMS: &str = "llamita.checksums";
    let metadata = Metadata::read(bytes)?;
    let Some(sums) = metadata.array(CHECKSUMS, TYPE_U32, "array of u32")? else { return Ok(0) };
    if sums.count != places.tensor_count {
        let (found, expected) = (sums.count, places.tensor_count);
        return Err(FormatError::Disagree { key: CHECKSUMS, found, with: "the list of tensors", expected });
    }
    let mut infos = metadata.tensor_infos;
    for sum in sums.bytes.as_chunks::<4>().0 {
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
        if crc32fast::hash(data.take(count, "a tensor")?) != u32::from_le_bytes(*sum) {
            return Err(FormatError::Checksum(Name::new(info.name)));
        }
    }
    Ok(sums.count as usize)
}
