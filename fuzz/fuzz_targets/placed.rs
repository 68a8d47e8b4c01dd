//! Damaged files from a medium that fails: weights in places compute what resident ones do, or nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llamita_fuzz::builder::{CONFIG, Gguf, SHARED, damage};
use llamita_fuzz::placed::compare;

fuzz_target!(|data: &[u8]| {
    let Some((&[kind, pinned, buffer, buffers, length, ref rest @ ..], edits)) =
        data.split_first_chunk::<6>()
    else {
        return;
    };
    let config = if kind & 1 == 0 { &CONFIG } else { &SHARED };
    let file = match kind >> 1 & 3 {
        0 => Gguf::new(config),
        1 => Gguf::device(config, 8, Some(32)),
        _ => Gguf::device(config, 4, None),
    };
    let (script, edits) = edits.split_at(edits.len().min(usize::from(length)));
    let mut bytes = file.bytes();
    damage(&mut bytes, edits);
    compare(&bytes, [pinned, rest[0]], buffer, buffers, script, kind & 128 != 0);
});
