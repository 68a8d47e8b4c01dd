//! Where the time goes.

/// A part of the work of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for weights that are streamed.
    Storage,
    /// Products with Wq, Wk, Wv and Wo.
    Projections,
    /// Attention, and writing the key/value cache.
    Attention,
    /// Products with W1, W3 and W2, and the SwiGLU between them.
    FeedForward,
    /// Embedding, norms and rope.
    NormAndRope,
    /// The product with the classifier.
    Classifier,
    /// Choosing the next token.
    Sampling,
}

impl Stage {
    /// All stages, in the order of [`Profile::ticks`].
    pub const ALL: [Self; 7] = [
        Self::Storage,
        Self::Projections,
        Self::Attention,
        Self::FeedForward,
        Self::NormAndRope,
        Self::Classifier,
        Self::Sampling,
    ];

    /// A name for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Storage => "waiting for storage",
            Self::Projections => "attention products",
            Self::FeedForward => "feed-forward",
            Self::Attention => "attention",
            Self::NormAndRope => "norm and rope",
            Self::Classifier => "classifier",
            Self::Sampling => "sampling",
        }
    }
}

/// Adds up the time of each stage, if it is given a clock: nanoseconds, or a chip's cycle counter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Profile {
    clock: Option<fn() -> u64>,
    last: u64,
    waited: u64,
    ticks: [u64; Stage::ALL.len()],
}

impl Profile {
    /// A profile that measures nothing and costs nothing.
    pub const OFF: Self = Self { clock: None, last: 0, waited: 0, ticks: [0; Stage::ALL.len()] };

    /// A profile that reads this clock seven times a layer.
    pub const fn with_clock(clock: fn() -> u64) -> Self {
        Self { clock: Some(clock), ..Self::OFF }
    }

    /// Time of each of [`Stage::ALL`] so far, in ticks of the clock.
    pub const fn ticks(&self) -> [u64; Stage::ALL.len()] {
        self.ticks
    }

    /// Begins to measure; `waited` is what the weights have waited so far.
    #[inline]
    pub(crate) fn start(&mut self, waited: u64) {
        if let Some(clock) = self.clock {
            self.last = clock();
            self.waited = waited;
        }
    }

    /// Counts the time since the last call for a stage, but what the weights have waited since for the storage.
    #[inline]
    pub(crate) fn end(&mut self, stage: Stage, waited: u64) {
        if let Some(clock) = self.clock {
            let now = clock();
            let storage = waited.wrapping_sub(self.waited);
            self.ticks[Stage::Storage as usize] += storage;
            self.ticks[stage as usize] += now.wrapping_sub(self.last).saturating_sub(storage);
            (self.last, self.waited) = (now, waited);
        }
    }
}
