//! A file of a card as a source.

use embedded_sdmmc::{BlockDevice, BlockIdx};

use super::blocks::as_blocks;
use super::{BlockError, Extents};
use crate::sector::{SECTOR, Sector};
use crate::source::{Finished, MOST_READS, Source, read_len};

/// A file of a device that keeps its caller waiting.
///
/// Reads are done when they are started, one of the device for each run of adjacent blocks, straight into the memory of
/// the caller; so nothing is computed meanwhile. For a board whose card has DMA, or a second core, there is
/// [`SdAhead`](super::SdAhead).
pub struct SdSource<'a, D: BlockDevice, B> {
    device: D,
    extents: Extents<'a>,
    /// Reads that have been done, the oldest first.
    done: [Option<Finished<B, BlockError<D::Error>>>; MOST_READS],
    len: usize,
}

impl<'a, D: BlockDevice, B> SdSource<'a, D, B> {
    /// A source of the file that is in `extents` of `device`, which may be [`Shared`](super::Shared).
    pub const fn new(device: D, extents: Extents<'a>) -> Self {
        Self { device, extents, done: [const { None }; MOST_READS], len: 0 }
    }

    /// The device.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// Where the file is.
    pub const fn extents(&self) -> Extents<'a> {
        self.extents
    }

    /// Gives the device back.
    pub fn free(self) -> D {
        self.device
    }

    fn read(&self, first: u64, mut sectors: &mut [Sector]) -> Result<usize, BlockError<D::Error>> {
        let (wanted, mut read) = (read_len(self.extents.len(), first, sectors.len()), 0);
        for (BlockIdx(block), count) in self.extents.runs(first, sectors.len()) {
            let (run, rest) = sectors.split_at_mut(count);
            let outcome = self.device.read(as_blocks(run), BlockIdx(block));
            outcome.map_err(|error| BlockError { block, error })?;
            sectors = rest;
            read += count * SECTOR;
        }
        Ok(read.min(wanted))
    }
}

impl<D: BlockDevice, B: AsRef<[Sector]> + AsMut<[Sector]>> Source for SdSource<'_, D, B> {
    type Error = BlockError<D::Error>;
    type Buffer = B;

    fn len(&self) -> u64 {
        self.extents.len()
    }

    fn start(&mut self, first: u64, count: usize, mut buffer: B) {
        let sectors = buffer.as_mut();
        let count = count.min(sectors.len());
        let outcome = self.read(first, &mut sectors[..count]);
        self.done[self.len] = Some(Finished { buffer, outcome });
        self.len += 1;
    }

    fn finish(&mut self) -> Option<Finished<B, Self::Error>> {
        let finished = self.done[0].take()?;
        self.done[..self.len].rotate_left(1);
        self.len -= 1;
        Some(finished)
    }
}
