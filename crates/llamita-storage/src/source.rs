//! What a model file is read from.

use crate::sector::{SECTOR, Sector, bytes_mut};

/// A file that is read in whole sectors, while the caller does something else.
///
/// Reads are finished in the order in which they were started. The source owns the memory of a read while it is under
/// way, so that a DMA unit, another core or another thread may write it.
#[expect(clippy::len_without_is_empty, reason = "no model file is empty")]
pub trait Source {
    /// Why a read failed.
    type Error: core::error::Error;
    /// Memory that a read fills.
    type Buffer: AsRef<[Sector]> + AsMut<[Sector]>;

    /// Bytes of the file.
    fn len(&self) -> u64;

    /// Begins to read `count` sectors of the file from sector `first` on to the start of `buffer`, which has room for
    /// them; less at the end of the file. Others may be under way.
    fn start(&mut self, first: u64, count: usize, buffer: Self::Buffer);

    /// Waits for the oldest read that is under way, of which there is one. `None` if it takes longer than the source
    /// has patience: it is still under way then.
    fn finish(&mut self) -> Option<Finished<Self::Buffer, Self::Error>>;
}

/// A read that has ended.
#[derive(Debug)]
pub struct Finished<B, E> {
    /// Its memory.
    pub buffer: B,
    /// The bytes that were read, or why none were.
    pub outcome: Result<usize, E>,
}

/// Bytes that a read of these sectors has in a file of `len` bytes.
pub fn read_len(len: u64, first: u64, count: usize) -> usize {
    let (start, most) = (first * SECTOR as u64, (count * SECTOR) as u64);
    // No more than `most`, which is in memory.
    len.saturating_sub(start).min(most) as usize
}

/// A file in memory, from which it is copied.
#[derive(Debug)]
pub struct InMemory<'a, B> {
    file: &'a [u8],
    /// Reads that have been done when they were started, the oldest first.
    done: [Option<(B, usize)>; MOST_READS],
    len: usize,
}

/// Reads that may be under way at once.
pub const MOST_READS: usize = 8;

impl<'a, B> InMemory<'a, B> {
    /// A source of these bytes.
    pub const fn new(file: &'a [u8]) -> Self {
        Self { file, done: [const { None }; MOST_READS], len: 0 }
    }
}

impl<B: AsRef<[Sector]> + AsMut<[Sector]>> Source for InMemory<'_, B> {
    type Error = core::convert::Infallible;
    type Buffer = B;

    fn len(&self) -> u64 {
        self.file.len() as u64
    }

    fn start(&mut self, first: u64, count: usize, mut buffer: B) {
        let len = read_len(self.len(), first, count);
        if len > 0 {
            let start = first as usize * SECTOR;
            bytes_mut(buffer.as_mut())[..len].copy_from_slice(&self.file[start..start + len]);
        }
        self.done[self.len] = Some((buffer, len));
        self.len += 1;
    }

    fn finish(&mut self) -> Option<Finished<B, Self::Error>> {
        let (buffer, len) = self.done[0].take()?;
        self.done[..self.len].rotate_left(1);
        self.len -= 1;
        Some(Finished { buffer, outcome: Ok(len) })
    }
}
