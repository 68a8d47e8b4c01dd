//! How fast this board reads, measured on the board itself.

use core::fmt;
use core::hint::black_box;

use zerocopy::FromBytes;

use crate::Machine;
use crate::text::Thousandths;

/// Bytes that are read for a measurement: more than a chip's cache holds, in a few milliseconds.
const MEASURED: usize = 128 << 10;

/// Kilobytes of a second; 0 where nothing is known.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rates {
    /// Of the slower memory that was lent.
    pub more: u32,
    /// Of memory-mapped flash.
    pub flash: u32,
    /// Of the card, while the last file was found on it.
    pub card: u32,
}

impl Rates {
    /// Whether one of them is.
    pub const fn is_known(&self) -> bool {
        self.more | self.flash | self.card != 0
    }

    /// In megabytes of a second, to be told.
    pub fn told(&self) -> [Thousandths; 3] {
        [self.more, self.flash, self.card].map(|rate| Thousandths(rate.into()))
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [" from more memory", " from flash", " from the card"];
        let known = self.told().into_iter().zip(names).filter(|(rate, _)| rate.0 > 0);
        for (i, (rate, name)) in known.enumerate() {
            write!(f, "{} {rate} MB{name}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// Measures how fast one core reads memory that nobody has read lately, so that no cache holds it.
pub(crate) fn of_memory<M: Machine>(memory: &[u8]) -> u32 {
    // Caches have lines of 32 bytes and more: a word of each has the whole of it read, at little cost for the core.
    let count = memory.len().min(MEASURED) / 32;
    let Ok((lines, _)) = <[[u32; 8]]>::ref_from_prefix_with_elems(memory, count) else { return 0 };
    let begun = M::ticks();
    black_box(lines.iter().fold(0, |all, line| all ^ line[0]));
    rate::<M>(size_of_val(lines), begun)
}

/// The rate at which so many bytes have been read since then.
pub(crate) fn rate<M: Machine>(bytes: usize, begun: u64) -> u32 {
    let ticks = M::ticks().wrapping_sub(begun).max(1);
    u32::try_from(bytes as u64 * M::TICKS_PER_SECOND / (1000 * ticks)).unwrap_or(u32::MAX)
}
