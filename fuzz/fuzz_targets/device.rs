//! Quantized GGUF as `llamita convert` writes it: damage to good files, which the engine runs if it is not found.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llamita_fuzz::builder::{CONFIG, Gguf, SHARED, Tensor, damage};
use llamita_fuzz::{forward, load};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, edits)) = data.split_first() else { return };
    let config = if kind & 1 == 0 { &CONFIG } else { &SHARED };
    let bits = if kind & 2 == 0 { 8 } else { 4 };
    let group = [Some(32), Some(64), None][usize::from(kind >> 2) % 3];
    let mut file = Gguf::device(config, bits, group);
    // Sizes, types and offsets are a small part of a file's bytes, and the most dangerous.
    let edits = if kind & 128 == 0 { edits } else { change(&mut file, edits) };
    let mut bytes = file.bytes();
    damage(&mut bytes, edits);
    load(&bytes);
    forward(&bytes);
});

/// Changes one number of a tensor's entry in the list: which of what tensor the first two bytes say, and the
/// next eight the number. Returns the other bytes.
fn change<'a>(file: &mut Gguf, edits: &'a [u8]) -> &'a [u8] {
    let Some((&[tensor, field, ref number @ ..], rest)) = edits.split_first_chunk::<10>() else {
        return edits;
    };
    let number = u64::from_le_bytes(*number);
    let count = file.tensors.len();
    let Tensor { dimensions, kind, offset, .. } = &mut file.tensors[usize::from(tensor) % count];
    match field {
        0 => *kind = number as u32,
        1 => *offset = Some(number),
        2 => dimensions.push(number),
        _ => {
            let index = usize::from(field) % dimensions.len();
            dimensions[index] = number;
        }
    }
    rest
}
