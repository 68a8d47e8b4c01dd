//! The shape of a model.

use core::fmt;

/// The shape of a Llama-family transformer, read from a model file and checked once.
///
/// Sizes are counts of elements, never bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward layer.
    pub hidden_dim: usize,
    /// Number of transformer layers.
    pub n_layers: usize,
    /// Number of query heads.
    pub n_heads: usize,
    /// Number of key and value heads; divides `n_heads` (grouped-query attention where smaller).
    pub n_kv_heads: usize,
    /// Elements of one head; even, because rope rotates pairs.
    pub head_size: usize,
    /// Number of tokens of the vocabulary.
    pub vocab_size: usize,
    /// The longest context the model was trained for, in tokens.
    pub seq_len: usize,
    /// Added to the mean square in rmsnorm.
    pub norm_eps: f32,
    /// Base of the rope frequencies.
    pub rope_theta: f32,
    /// Whether the classifier is the token embedding.
    pub shared_classifier: bool,
}

/// A shape that no model can have, with the field at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A size is zero.
    Zero(&'static str),
    /// A size is beyond what the engine accepts: field, found, limit.
    TooLarge(&'static str, u64, u64),
    /// `n_kv_heads` does not divide `n_heads`.
    KvHeads {
        /// Query heads found.
        n_heads: usize,
        /// Key and value heads found.
        n_kv_heads: usize,
    },
    /// The head size is odd (rope rotates pairs) or `dim` is no multiple of `n_heads`.
    HeadSize {
        /// Model width found.
        dim: usize,
        /// Query heads found.
        n_heads: usize,
    },
    /// `norm_eps` or `rope_theta` is not a positive finite number.
    NotPositive(&'static str),
}

impl Config {
    /// No size of a model this engine is for comes near this; products of two still fit 64 bits.
    pub const MAX_SIZE: usize = 1 << 24;
    /// Limit for the number of layers.
    pub const MAX_LAYERS: usize = 1 << 10;

    /// Elements of the queries of one token: `n_heads * head_size`.
    pub const fn q_dim(&self) -> usize {
        self.n_heads * self.head_size
    }

    /// Elements of the keys (or values) of one token and layer: `n_kv_heads * head_size`.
    pub const fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_size
    }

    /// Refuses shapes that no model can have, so that the engine never meets them.
    pub fn check(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("dim", self.dim, Self::MAX_SIZE),
            ("hidden_dim", self.hidden_dim, Self::MAX_SIZE),
            ("n_layers", self.n_layers, Self::MAX_LAYERS),
            ("n_heads", self.n_heads, Self::MAX_SIZE),
            ("n_kv_heads", self.n_kv_heads, Self::MAX_SIZE),
            ("vocab_size", self.vocab_size, Self::MAX_SIZE),
            ("seq_len", self.seq_len, Self::MAX_SIZE),
        ];
        for (name, size, limit) in sizes {
            if size == 0 {
                return Err(ConfigError::Zero(name));
            }
            if size > limit {
                return Err(ConfigError::TooLarge(name, size as u64, limit as u64));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(ConfigError::KvHeads { n_heads: self.n_heads, n_kv_heads: self.n_kv_heads });
        }
        if self.head_size > Self::MAX_SIZE {
            return Err(ConfigError::TooLarge("head_size", self.head_size as u64, Self::MAX_SIZE as u64));
        }
        if self.head_size == 0 || !self.head_size.is_multiple_of(2) {
            return Err(ConfigError::HeadSize { dim: self.dim, n_heads: self.n_heads });
        }
        let q_dim = self.n_heads as u64 * self.head_size as u64;
        if q_dim > Self::MAX_SIZE as u64 {
            return Err(ConfigError::TooLarge("n_heads * head_size", q_dim, Self::MAX_SIZE as u64));
        }
        for (name, value) in [("norm_eps", self.norm_eps), ("rope_theta", self.rope_theta)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(ConfigError::NotPositive(name));
            }
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Zero(name) => write!(f, "{name} is 0, expected at least 1"),
            Self::TooLarge(name, found, limit) => write!(f, "{name} is {found}, expected at most {limit}"),
            Self::KvHeads { n_heads, n_kv_heads } => {
                write!(f, "{n_kv_heads} key/value heads do not divide {n_heads} heads")
            }
            Self::HeadSize { dim, n_heads } => {
                write!(f, "a width of {dim} over {n_heads} heads gives no even head size")
            }
            Self::NotPositive(name) => write!(f, "{name} is not a positive number"),
        }
    }
}

impl core::error::Error for ConfigError {}
