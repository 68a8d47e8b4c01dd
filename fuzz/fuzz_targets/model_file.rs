//! Model files of every kind: the input itself, or damage to a good llama2.c checkpoint.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llamita_fuzz::builder::{CONFIG, SHARED, damage, v0, v1};
use llamita_fuzz::load;

fuzz_target!(|data: &[u8]| {
    let Some((kind, edits)) = data.split_first() else { return load(data) };
    let mut file = match kind {
        0 => v0(&CONFIG),
        1 => v0(&SHARED),
        2 => v1(&CONFIG),
        3 => v1(&SHARED),
        _ => return load(data),
    };
    damage(&mut file, edits);
    load(&file);
});
