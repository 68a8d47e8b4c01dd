//! How fast one thread reads memory: what no engine can beat, since a token reads every weight.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use memmap2::MmapMut;
use zerocopy::FromBytes;

/// In bytes.
pub const MEGABYTE: usize = 1_000_000;

/// How long one measurement reads, at least.
const DURATION: Duration = Duration::from_millis(20);

/// A huge page, and what the streams begin at multiples of, in bytes.
const HUGE_PAGE: usize = 2 << 20;

/// Words that are added side by side: two lines of a cache, more than any CPU adds at once.
const LANES: usize = 16;

/// Something that reads words, and with how many streams it does so.
type Reader = (usize, fn(&[u64]) -> u64);

/// Streams hide what one prefetcher cannot; how many are best depends on the CPU.
const READERS: [Reader; 4] = [(1, sum::<1>), (2, sum::<2>), (4, sum::<4>), (8, sum::<8>)];

/// A buffer in huge pages, and the way to read it that was fastest here.
pub struct Bandwidth {
    memory: MmapMut,
    start: usize,
    len: usize,
    reader: Reader,
}

impl Bandwidth {
    /// A buffer of `len` bytes, at least a word.
    pub fn new(len: usize) -> Result<Self> {
        let mut memory = MmapMut::map_anon(len + HUGE_PAGE).context("no memory for a buffer")?;
        // Without huge pages it is slower, as weights would be.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let address = memory.as_ptr().addr();
        let start = address.next_multiple_of(HUGE_PAGE) - address;
        // Pages that were never written are all the same page of zeros.
        memory.fill(1);
        let mut bandwidth = Self { memory, start, len, reader: READERS[0] };
        let mut best = 0.0;
        let mut reader = bandwidth.reader;
        for candidate in READERS {
            bandwidth.reader = candidate;
            let rate = (0..3).map(|_| bandwidth.read()).fold(0.0, f64::max);
            if rate > best {
                (best, reader) = (rate, candidate);
            }
        }
        bandwidth.reader = reader;
        Ok(bandwidth)
    }

    /// Streams that are read side by side.
    pub const fn streams(&self) -> usize {
        self.reader.0
    }

    /// Reads the buffer again and again; bytes per second.
    pub fn read(&self) -> f64 {
        let bytes = &self.memory[self.start..self.start + self.len];
        let (words, _) = <[u64]>::ref_from_prefix(bytes).expect("a page is aligned to its words");
        let (start, mut passes) = (Instant::now(), 0u32);
        while start.elapsed() < DURATION {
            black_box((self.reader.1)(black_box(words)));
            passes += 1;
        }
        f64::from(passes) * size_of_val(words) as f64 / start.elapsed().as_secs_f64()
    }
}

/// The sum of all words, read as `STREAMS` runs side by side.
fn sum<const STREAMS: usize>(words: &[u64]) -> u64 {
    let (blocks, rest) = words.as_chunks::<LANES>();
    let len = blocks.len() / STREAMS;
    let streams: [_; STREAMS] = std::array::from_fn(|stream| &blocks[stream * len..][..len]);
    let mut sums = [0u64; LANES];
    for block in 0..len {
        for stream in streams {
            for (sum, word) in sums.iter_mut().zip(stream[block]) {
                *sum = sum.wrapping_add(word);
            }
        }
    }
    let rest = blocks[STREAMS * len..].as_flattened().iter().chain(rest);
    sums.iter().chain(rest).fold(0, |sum, word| sum.wrapping_add(*word))
}
