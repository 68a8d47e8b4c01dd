//! Several cores on one step of work.

mod pair;
mod panel;
mod parts;
#[cfg(feature = "std")]
mod threads;

pub use pair::{Meeting, Pair};
pub use panel::Panel;
#[cfg(feature = "std")]
pub use threads::Threads;

/// A fixed set of cores that do one step of work together and return when it is done.
///
/// Work comes in parts that touch nothing in common, so the result does not depend on who does which.
pub trait Team {
    /// Into how many parts work is best cut.
    fn parts(&self) -> usize;

    /// Runs `work` on every part and returns when all are done.
    fn run<P: Send>(&mut self, parts: impl Iterator<Item = P>, work: impl Fn(P) + Sync);

    /// Nanoseconds spent so far waiting for others at the end of a step, where that is measured.
    fn waited(&self) -> u64 {
        0
    }
}

/// A team of one: the caller's own core.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Team for Solo {
    fn parts(&self) -> usize {
        1
    }

    fn run<P: Send>(&mut self, parts: impl Iterator<Item = P>, work: impl Fn(P) + Sync) {
        parts.for_each(work);
    }
}
