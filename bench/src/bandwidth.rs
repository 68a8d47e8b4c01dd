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

/// Several runs side by side hide what one prefetcher cannot, and asking ahead what none of them can; what is
/// best depends on the CPU and on the size.
const READERS: [Reader; 12] = [
    Reader::of::<1>(0),
    Reader::of::<1>(1 << 10),
    Reader::of::<1>(4 << 10),
    Reader::of::<2>(0),
    Reader::of::<2>(1 << 10),
    Reader::of::<2>(4 << 10),
    Reader::of::<4>(0),
    Reader::of::<4>(1 << 10),
    Reader::of::<4>(4 << 10),
    Reader::of::<8>(0),
    Reader::of::<8>(1 << 10),
    Reader::of::<8>(4 << 10),
];

/// A way to read memory.
#[derive(Clone, Copy)]
struct Reader {
    streams: usize,
    /// How far ahead each stream is asked for, in bytes; 0 for not at all.
    ahead: usize,
    sum: fn(&[u64], usize) -> u64,
}

impl Reader {
    const fn of<const STREAMS: usize>(ahead: usize) -> Self {
        Self { streams: STREAMS, ahead, sum: sum::<STREAMS> }
    }
}

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

    /// How it is read, in words.
    pub fn way(&self) -> String {
        let Reader { streams, ahead, .. } = self.reader;
        let prefetch =
            if ahead == 0 { "no prefetch".to_owned() } else { format!("prefetch {ahead} bytes ahead") };
        format!("{streams} runs, {prefetch}")
    }

    /// Reads the buffer again and again; bytes per second.
    pub fn read(&self) -> f64 {
        let bytes = &self.memory[self.start..self.start + self.len];
        let (words, _) = <[u64]>::ref_from_prefix(bytes).expect("a page is aligned to its words");
        let (start, mut passes) = (Instant::now(), 0u32);
        while start.elapsed() < DURATION {
            black_box((self.reader.sum)(black_box(words), self.reader.ahead));
            passes += 1;
        }
        f64::from(passes) * size_of_val(words) as f64 / start.elapsed().as_secs_f64()
    }
}

/// The sum of all words, read as `STREAMS` runs side by side, each asked for some bytes ahead.
fn sum<const STREAMS: usize>(words: &[u64], ahead: usize) -> u64 {
    let (blocks, rest) = words.as_chunks::<LANES>();
    let len = blocks.len() / STREAMS;
    let streams: [_; STREAMS] = std::array::from_fn(|stream| &blocks[stream * len..][..len]);
    let mut sums = [0u64; LANES];
    for block in 0..len {
        for stream in streams {
            if ahead > 0 {
                prefetch(stream[block].as_ptr().wrapping_byte_add(ahead));
                prefetch(stream[block].as_ptr().wrapping_byte_add(ahead + 64));
            }
            for (sum, word) in sums.iter_mut().zip(stream[block]) {
                *sum = sum.wrapping_add(word);
            }
        }
    }
    let rest = blocks[STREAMS * len..].as_flattened().iter().chain(rest);
    sums.iter().chain(rest).fold(0, |sum, word| sum.wrapping_add(*word))
}

/// Asks for the line of an address, where the CPU can be asked.
#[inline]
fn prefetch(address: *const u64) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: A prefetch is a hint: it reads nothing that the program could see, and ignores addresses
        // that are not mapped.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
