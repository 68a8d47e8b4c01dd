//! Files in the format of llama2.c's tokenizer.bin.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llamita::Tokenizer;
use llamita_fuzz::use_tokenizer;

fuzz_target!(|data: &[u8]| {
    let count = Tokenizer::count_bin(data).unwrap_or(data.len() / 8);
    let mut index = vec![0; Tokenizer::index_len(count)];
    match Tokenizer::from_bin(data, count, &mut index) {
        // What the file says is a text, too.
        Ok(tokenizer) => use_tokenizer(&tokenizer, &String::from_utf8_lossy(data)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
