//! The shape of a model, as it is named on the command line.

use std::str::FromStr;

use llamita::Config;

/// The shape of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape(Config);

/// The shapes of the models that llama2.c's author trained on TinyStories.
const NAMED: [(&str, [usize; 7]); 4] = [
    ("260k", [64, 172, 5, 8, 4, 512, 512]),
    ("15m", [288, 768, 6, 6, 6, 32000, 256]),
    ("42m", [512, 1376, 8, 8, 8, 32000, 1024]),
    ("110m", [768, 2048, 12, 12, 12, 32000, 1024]),
];

impl Shape {
    /// The shape, with a classifier of its own or that of the embedding.
    pub fn config(&self, separate: bool) -> Config {
        Config { shared_classifier: !separate, ..self.0 }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = match NAMED.iter().find(|(name, _)| *name == text.to_ascii_lowercase()) {
            Some((_, numbers)) => *numbers,
            None => parse_numbers(text)?,
        };
        let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len] = numbers;
        if !dim.is_multiple_of(n_heads) {
            return Err(format!("{n_heads} heads do not divide the width {dim}"));
        }
        let config = Config {
            dim,
            hidden_dim,
            n_layers,
            n_heads,
            n_kv_heads,
            head_size: dim / n_heads,
            vocab_size,
            seq_len,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            shared_classifier: true,
        };
        config.check().map_err(|error| error.to_string())?;
        Ok(Self(config))
    }
}

fn parse_numbers(text: &str) -> Result<[usize; 7], String> {
    let expected = || {
        let names = NAMED.map(|(name, _)| name).join(", ");
        format!("expected {names} or dim,hidden,layers,heads,kv_heads,vocab,seq: seven numbers from 1")
    };
    let number = |text: &str| text.trim().parse().ok().filter(|&number| number > 0);
    let numbers: Option<Vec<usize>> = text.split(',').map(number).collect();
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
        assert!("24,172,5,8,8,512,512".parse::<Shape>().unwrap_err().contains("even head size"));
        assert!("64,172,5,8,4,512,99999999".parse::<Shape>().unwrap_err().contains("at most"));
    }
}
