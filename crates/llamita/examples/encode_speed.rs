//! Measures how fast a text is encoded: `encode_speed TOKENIZER.bin VOCAB_SIZE TEXT`.
//!
//! Prints the tokens, and the megabytes (10^6 bytes of text) per second: the median of several rounds
//! over the text as one piece, the same for a text without any spaces, and the time that the index takes.

use std::hint::black_box;
use std::time::Instant;

use llamita::tokenizer::{Tokenizer, Work};

const ROUNDS: usize = 15;

/// The median of the seconds that `round` takes.
fn median_seconds(mut round: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[ROUNDS / 2]
}

fn measure(name: &str, tokenizer: &Tokenizer<'_>, text: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut scratch = vec![Work::EMPTY; Tokenizer::scratch_len(text.len())];
    let mut tokens = vec![0; Tokenizer::max_tokens(text.len())];
    let count = tokenizer.encode(text, &mut scratch, &mut tokens)?;
    let seconds = median_seconds(|| {
        let result = tokenizer.encode(black_box(text), &mut scratch, &mut tokens);
        black_box(result.is_ok());
    });
    let (bytes, rate) = (text.len(), text.len() as f64 / seconds / 1e6);
    println!("{name}: {bytes} bytes, {count} tokens, {rate:.1} MB/s");
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tokenizer, vocab_size, text] = arguments.as_slice() else {
        return Err("usage: encode_speed TOKENIZER.bin VOCAB_SIZE TEXT".into());
    };
    let bytes = std::fs::read(tokenizer)?;
    let vocab_size = vocab_size.parse()?;
    let text = std::fs::read_to_string(text)?;

    let mut index = vec![0; Tokenizer::index_len(vocab_size)];
    let seconds = median_seconds(|| {
        black_box(Tokenizer::from_bin(black_box(&bytes), vocab_size, &mut index).is_ok());
    });
    println!("index: {} bytes, built in {:.2} ms", 4 * index.len(), seconds * 1e3);

    let tokenizer = Tokenizer::from_bin(&bytes, vocab_size, &mut index)?;
    measure("the text", &tokenizer, &text)?;
    let letters: String = text.chars().filter(|character| character.is_alphabetic()).collect();
    measure("its letters alone", &tokenizer, &letters)?;
    Ok(())
}
