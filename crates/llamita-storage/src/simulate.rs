//! A board that is imitated: its medium's pace, its cores' pace, and a clock for both.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use llamita::weights::{Matrix, Norm, Pass, Tape, Tensor, Weights};
use llamita::{Config, Rows, Stage};

use crate::board::Medium;
use crate::cost::{Costs, stage};
use crate::sector::bytes_mut;
use crate::source::{Finished, MOST_READS, Source, read_len};

/// Time, in nanoseconds: that of the world, or one that goes on as it is told.
#[derive(Debug)]
pub enum Clock {
    /// Waiting takes time.
    Real(Instant),
    /// Waiting sets the hands forward: results are the same each time, and are there at once.
    Virtual(AtomicU64),
}

impl Clock {
    /// A clock of the world, from now on.
    pub fn real() -> Self {
        Self::Real(Instant::now())
    }

    /// A clock that stands until it is waited for.
    pub const fn virtual_time() -> Self {
        Self::Virtual(AtomicU64::new(0))
    }

    /// Nanoseconds since the clock's start.
    pub fn now(&self) -> u64 {
        match self {
            Self::Real(start) => start.elapsed().as_nanos() as u64,
            Self::Virtual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Returns once a time has come.
    pub fn wait_until(&self, time: u64) {
        match self {
            Self::Real(_) => loop {
                let left = Duration::from_nanos(time.saturating_sub(self.now()));
                if left.is_zero() {
                    return;
                }
                // A sleep may be late by a part of a millisecond.
                match left.checked_sub(Duration::from_millis(1)) {
                    Some(long) if !long.is_zero() => thread::sleep(long),
                    _ => std::hint::spin_loop(),
                }
            },
            Self::Virtual(now) => {
                now.fetch_max(time, Ordering::Relaxed);
            }
        }
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Random numbers from 0 to 1 (S. Vigna's splitmix64, 2015).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What a medium does besides reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// By how much of its time a read may be longer or shorter, 0 to 1.
    pub jitter: f64,
    /// Share of the reads that fail, 0 to 1.
    pub errors: f64,
    /// Share of the reads in which a bit is wrong, 0 to 1.
    pub corrupt: f64,
}

/// A source that is as slow as a medium, and as faulty.
#[derive(Debug)]
pub struct Throttled<'c, S: Source> {
    source: S,
    medium: Medium,
    faults: Faults,
    random: Random,
    clock: &'c Clock,
    /// When the reads under way end, the oldest first.
    ends: [u64; MOST_READS],
    under_way: usize,
    free_at: u64,
}

/// Why a throttled read failed.
#[derive(Debug)]
pub enum ThrottledError<E> {
    /// The source itself failed.
    Source(E),
    /// It was to fail.
    Simulated,
}

impl<E: fmt::Display> fmt::Display for ThrottledError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::Simulated => f.write_str("a simulated error"),
        }
    }
}

impl<E: std::error::Error> std::error::Error for ThrottledError<E> {}

impl<'c, S: Source> Throttled<'c, S> {
    /// Reads from `source` at the pace of `medium`.
    pub fn new(source: S, medium: Medium, faults: Faults, seed: u64, clock: &'c Clock) -> Self {
        let ends = [0; MOST_READS];
        Self { source, medium, faults, random: Random(seed), clock, ends, under_way: 0, free_at: 0 }
    }
}

impl<S: Source> Source for Throttled<'_, S> {
    type Error = ThrottledError<S::Error>;
    type Buffer = S::Buffer;

    fn len(&self) -> u64 {
        self.source.len()
    }

    fn start(&mut self, first: u64, count: usize, buffer: S::Buffer) {
        let seconds = self.medium.seconds(read_len(self.source.len(), first, count) as u64);
        let jitter = 1.0 + self.faults.jitter * (2.0 * self.random.next() - 1.0);
        let taken = nanoseconds(seconds * jitter);
        // One read after the other.
        self.free_at = self.free_at.max(self.clock.now()).saturating_add(taken);
        self.ends[self.under_way] = self.free_at;
        self.under_way += 1;
        self.source.start(first, count, buffer);
        if !self.medium.overlap {
            self.clock.wait_until(self.free_at);
        }
    }

    fn finish(&mut self) -> Option<Finished<S::Buffer, Self::Error>> {
        let Finished { mut buffer, outcome } = self.source.finish()?;
        self.clock.wait_until(self.ends[0]);
        self.ends.rotate_left(1);
        self.under_way -= 1;
        let mut outcome = outcome.map_err(ThrottledError::Source);
        if self.random.next() < self.faults.errors {
            outcome = Err(ThrottledError::Simulated);
        }
        if let Ok(len) = outcome
            && self.random.next() < self.faults.corrupt
        {
            let bit = (self.random.next() * 8.0 * len as f64) as usize;
            if let Some(byte) = bytes_mut(buffer.as_mut()).get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Some(Finished { buffer, outcome })
    }
}

/// Weights whose arithmetic takes as long as on a board.
pub struct Simulated<'c, W, M> {
    weights: W,
    tape: Tape<'c>,
    costs: Costs<'c>,
    clock: &'c Clock,
    /// The memory that rows were lent from last.
    memory: M,
    pass: Pass,
    work: Work,
}

/// What the cores have done.
#[derive(Clone, Copy)]
struct Work {
    /// Nanoseconds of each of [`Stage::ALL`]; what was waited for the medium is apart.
    charged: [u64; Stage::ALL.len()],
    /// When the work so far ends, and what had been waited by then.
    end: u64,
    waited: u64,
}

const NO_WORK: Work = Work { charged: [0; Stage::ALL.len()], end: 0, waited: 0 };

/// From so many nanoseconds on, a wait for the medium is one, and not the time that it takes to look.
const A_WAIT: u64 = 50_000;

impl Work {
    /// Lets time go by for a part of the work. It begins now, or by the world's clock where the work before it ended, since
    /// this machine may be late to notice, unless the weights were waited for.
    fn charge(&mut self, clock: &Clock, waited: u64, stage: Stage, seconds: f64) {
        let taken = nanoseconds(seconds);
        let late = matches!(clock, Clock::Real(_)) && waited.saturating_sub(self.waited) < A_WAIT;
        let begin = if late { self.end } else { clock.now() };
        self.waited = waited;
        self.end = begin.saturating_add(taken);
        let charged = &mut self.charged[stage as usize];
        *charged = charged.saturating_add(taken);
        clock.wait_until(self.end);
    }
}

impl<'c, W: Weights, M: Fn(&W) -> usize> Simulated<'c, W, M> {
    /// The weights of a tape on a board; `memory` says by its number what rows were lent from last.
    pub const fn new(weights: W, tape: Tape<'c>, costs: Costs<'c>, clock: &'c Clock, memory: M) -> Self {
        let pass = Pass { position: 0, batch: 1, logits: 1 };
        Self { weights, tape, costs, clock, memory, pass, work: NO_WORK }
    }

    /// The weights themselves.
    pub const fn inner(&self) -> &W {
        &self.weights
    }

    /// Nanoseconds of each of [`Stage::ALL`] so far.
    pub fn charged(&self) -> [u64; Stage::ALL.len()] {
        let mut all = self.work.charged;
        all[Stage::Storage as usize] = self.weights.waited();
        all
    }

    fn charge(&mut self, stage: Stage, seconds: f64) {
        self.work.charge(self.clock, self.weights.waited(), stage, seconds);
    }
}

impl<W: Weights, M: Fn(&W) -> usize> Weights for Simulated<'_, W, M> {
    type Error = W::Error;

    fn config(&self) -> &Config {
        self.weights.config()
    }

    fn begin(&mut self, pass: Pass) {
        self.pass = pass;
        // Whatever was done between passes is no work of the board.
        (self.work.end, self.work.waited) = (self.clock.now(), self.weights.waited());
        self.weights.begin(pass);
    }

    fn retry(&mut self, error: &Self::Error) -> bool {
        self.weights.retry(error)
    }

    fn waited(&self) -> u64 {
        self.weights.waited()
    }

    fn observe(&mut self, first: Matrix, input: &[f32]) {
        self.weights.observe(first, input);
        for (stage, seconds) in self.costs.before(&self.tape, first, self.pass) {
            self.charge(stage, seconds);
        }
        if first == Matrix::Classifier {
            // Tokens are chosen after that, which nothing else tells of.
            self.charge(Stage::Sampling, self.costs.sampling(self.pass));
        }
    }

    fn norm(&self, norm: Norm) -> &[f32] {
        self.weights.norm(norm)
    }

    fn embed(&mut self, token: u32, out: &mut [f32]) -> Result<(), Self::Error> {
        self.weights.embed(token, out)
    }

    fn lend<const N: usize>(
        &mut self,
        matrices: [Matrix; N],
        from: [usize; N],
    ) -> Result<[Rows<'_>; N], Self::Error> {
        let Self { weights, tape, costs, clock, memory, pass, work } = self;
        // The lent rows keep the weights borrowed: how many there are is all that counts, and can be had first.
        let counts = {
            let lent = weights.lend(matrices, from)?;
            let columns = |i: usize| Tape::shape(tape.config(), Tensor::Matrix(matrices[i])).1;
            let left = |i: usize| Tape::shape(tape.config(), Tensor::Matrix(matrices[i])).0 - from[i];
            core::array::from_fn::<_, N, _>(|i| lent[i].count(columns(i)).min(left(i)))
        };
        let memory = memory(weights);
        for (matrix, count) in matrices.into_iter().zip(counts) {
            let batch = if matrix == Matrix::Classifier { pass.logits } else { pass.batch };
            let seconds = costs.product(tape, matrix, count, batch, memory);
            work.charge(clock, weights.waited(), stage(matrix), seconds);
        }
        weights.lend(matrices, from)
    }
}
