//! GGUF: what follows the magic number, or damage to a good file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llamita_fuzz::builder::{CONFIG, Gguf, SHARED, damage};
use llamita_fuzz::load;

fuzz_target!(|data: &[u8]| {
    let (kind, edits) = data.split_first().unwrap_or((&3, data));
    let mut file = match kind {
        0 => Gguf::new(&CONFIG).bytes(),
        1 => Gguf::new(&SHARED).bytes(),
        2 => Gguf::byte_level().bytes(),
        _ => return load(&[b"GGUF\x03\0\0\0", edits].concat()),
    };
    damage(&mut file, edits);
    load(&file);
});
