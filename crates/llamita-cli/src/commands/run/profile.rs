//! Where the time of a run went.

use std::path::Path;

use llamita::Stage;
use serde::Serialize;

use crate::error::Result;
use crate::stack::{self, Bar, Stack};
use crate::units::digits;

/// The time of a run, in parts.
#[derive(Clone, Serialize)]
pub struct Profile {
    /// Seconds in all.
    seconds: f64,
    parts: Vec<Part>,
}

#[derive(Clone, Serialize)]
struct Part {
    name: &'static str,
    seconds: f64,
    share: f64,
}

impl Profile {
    /// The parts of a run, in the order of [`Stage::ALL`]; what is none of them is the rest.
    pub fn new(parts: &[u64; Stage::ALL.len()], total: u64) -> Self {
        let rest = total.saturating_sub(parts.iter().sum());
        let names = Stage::ALL.iter().map(|stage| stage.name()).chain(["other"]);
        let seconds = total as f64 / 1e9;
        let part = |(name, nanoseconds): (&'static str, u64)| {
            let part = nanoseconds as f64 / 1e9;
            Part { name, seconds: part, share: part / seconds.max(1e-9) }
        };
        Self { seconds, parts: names.zip(parts.iter().copied().chain([rest])).map(part).collect() }
    }

    /// The parts that take time, the longest first.
    pub fn line(&self) -> String {
        let mut parts: Vec<_> = self.parts.iter().filter(|part| part.share >= 0.0005).collect();
        parts.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let part = |part: &&Part| format!("{} {:.1} %", part.name, 100.0 * part.share);
        format!("{} s: {}", digits(self.seconds), parts.iter().map(part).collect::<Vec<_>>().join(", "))
    }

    /// Draws the parts.
    pub fn save(&self, path: &Path, title: &str) -> Result<()> {
        let parts: Vec<_> = self.parts.iter().map(|part| part.seconds).collect();
        let bar = Bar { label: "this run".to_owned(), note: format!("{} s", digits(self.seconds)), parts };
        let kinds = self.parts.iter().map(|part| part.name.to_owned()).collect();
        stack::save(
            path,
            title,
            &[Stack { title: "Time".to_owned(), unit: "seconds".to_owned(), kinds, bars: vec![bar] }],
        )
    }
}
