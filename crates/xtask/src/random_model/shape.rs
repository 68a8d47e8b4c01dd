//! The numbers that a llama2.c checkpoint begins with.

use std::str::FromStr;

/// The shape of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Length of the vector that flows from layer to layer.
    pub dim: u64,
    /// Length of the vector within a feed-forward network.
    pub hidden: u64,
    /// Layers.
    pub layers: u64,
    /// Heads of attention; divide `dim`.
    pub heads: u64,
    /// Heads of keys and values; divide `heads`.
    pub kv_heads: u64,
    /// Pieces of the vocabulary.
    pub vocab: u64,
    /// Positions, at most.
    pub seq: u64,
}

/// The shapes of the models that llama2.c's author trained on TinyStories.
const NAMED: [(&str, [u64; 7]); 4] = [
    ("260k", [64, 172, 5, 8, 4, 512, 512]),
    ("15m", [288, 768, 6, 6, 6, 32000, 256]),
    ("42m", [512, 1376, 8, 8, 8, 32000, 1024]),
    ("110m", [768, 2048, 12, 12, 12, 32000, 1024]),
];

impl Shape {
    /// Length of a position's keys, and of its values.
    pub fn kv_dim(&self) -> u64 {
        self.dim / self.heads * self.kv_heads
    }

    /// Numbers in the tables of cosines and sines.
    pub fn frequencies(&self) -> u64 {
        self.seq * (self.dim / self.heads)
    }

    /// The seven numbers of the header; a negative vocabulary announces a separate classifier.
    pub fn header(&self, separate: bool) -> [i32; 7] {
        let Self { dim, hidden, layers, heads, kv_heads, vocab, seq } = *self;
        // `from_str` lets no larger number pass.
        let mut header = [dim, hidden, layers, heads, kv_heads, vocab, seq].map(|number| number as i32);
        if separate {
            header[5] = -header[5];
        }
        header
    }

    /// Bytes of the file; none where they cannot be counted in 64 bits.
    pub fn file_len(&self, separate: bool) -> Option<u64> {
        let Self { dim, hidden, layers, vocab, .. } = *self;
        let attention = 2 * dim * (dim + self.kv_dim()); // (dim, dim) twice, (kv_dim, dim) twice
        let feed_forward = 3 * hidden * dim;
        let layer = attention.checked_add(feed_forward)?.checked_add(2 * dim)?;
        let embeddings = vocab * dim * if separate { 2 } else { 1 };
        let floats = layers.checked_mul(layer)?.checked_add(embeddings + dim + self.frequencies())?;
        floats.checked_mul(4)?.checked_add(7 * 4)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = match NAMED.iter().find(|(name, _)| *name == text.to_ascii_lowercase()) {
            Some((_, numbers)) => *numbers,
            None => parse_numbers(text)?,
        };
        let [dim, hidden, layers, heads, kv_heads, vocab, seq] = numbers;
        if dim % heads != 0 {
            return Err(format!("{heads} heads do not divide the dimension {dim}"));
        }
        if heads % kv_heads != 0 {
            return Err(format!("{kv_heads} kv_heads do not divide {heads} heads"));
        }
        if dim / heads % 2 != 0 {
            return Err(format!("a head of {} elements cannot be rotated in pairs", dim / heads));
        }
        Ok(Self { dim, hidden, layers, heads, kv_heads, vocab, seq })
    }
}

fn parse_numbers(text: &str) -> Result<[u64; 7], String> {
    let expected = || {
        let names = NAMED.map(|(name, _)| name).join(", ");
        format!(
            "expected {names} or dim,hidden,layers,heads,kv_heads,vocab,seq: seven numbers from 1 to 2^24"
        )
    };
    let number = |text: &str| text.trim().parse().ok().filter(|number| (1..=1 << 24).contains(number));
    let numbers: Option<Vec<u64>> = text.split(',').map(number).collect();
    numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_the_same() {
        assert_eq!("15M".parse::<Shape>(), "288,768,6,6,6,32000,256".parse());
    }

    #[test]
    fn shapes_that_no_model_has_are_refused() {
        for text in [
            "",
            "7b",
            "64,172,5,8,4,512",
            "64,172,5,8,4,512,512,1",
            "0,172,5,8,4,512,512",
            "64,172,5,8,4,512,-1",
        ] {
            assert!(text.parse::<Shape>().unwrap_err().contains("seven numbers"), "{text}");
        }
        assert!("64,172,5,7,7,512,512".parse::<Shape>().unwrap_err().contains("divide"));
        assert!("64,172,5,8,3,512,512".parse::<Shape>().unwrap_err().contains("divide"));
        assert!("24,172,5,8,8,512,512".parse::<Shape>().unwrap_err().contains("pairs"));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let largest = 1u64 << 24;
        let text = [largest; 7].map(|number| number.to_string()).join(",");
        // The heads would have a single element each.
        assert!(text.parse::<Shape>().is_err());
        let shape: Shape = format!("{largest},{largest},{largest},1,1,{largest},{largest}").parse().unwrap();
        assert_eq!(shape.file_len(true), None);
    }
}
