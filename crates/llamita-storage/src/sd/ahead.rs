//! A file of a card that is read while its caller does something else.

use core::ops::Range;

use embedded_sdmmc::BlockIdx;

use super::{BlockError, Extents};
use crate::sector::{SECTOR, Sector};
use crate::source::{Finished, MOST_READS, Source, read_len};

/// Who brings blocks of a card to memory while others compute, such as a DMA unit: one run of adjacent blocks at a time.
///
/// A buffer is the mover's own from where it is told to begin until it gives it back. Dropped before that, it ends what is
/// under way: nothing may write to the buffer any more. Nobody may forget it (`mem::forget`) before that.
pub trait Mover {
    /// Why blocks were not brought.
    type Error: core::error::Error;
    /// Memory for them.
    type Buffer: AsRef<[Sector]> + AsMut<[Sector]>;

    /// Begins to read blocks from `first` on to these sectors of a buffer. Nothing else is under way.
    fn begin(&mut self, first: BlockIdx, buffer: Self::Buffer, sectors: Range<usize>);

    /// The buffer, if what was begun has ended, and how it has.
    fn poll(&mut self) -> Option<Moved<Self>>;

    /// Waits for what was begun. `None` if it takes longer than the mover has patience: it is still under way then.
    fn wait(&mut self) -> Option<Moved<Self>>;
}

/// A buffer that comes back from a [`Mover`], and whether the blocks are in it.
pub type Moved<M> = (<M as Mover>::Buffer, Result<(), <M as Mover>::Error>);

/// A file of a card that a [`Mover`] reads while the engine computes.
///
/// Whenever a read is started or waited for, a mover that is idle gets the next run of blocks. So with two buffers the
/// next portion comes while the engine computes with the one before.
pub struct SdAhead<'a, M: Mover> {
    mover: M,
    extents: Extents<'a>,
    /// The oldest first.
    reads: [Option<Read<M>>; MOST_READS],
    len: usize,
    /// How many of the oldest have ended.
    ended: usize,
    /// The run that the mover has, of the oldest read that has not ended.
    run: Option<(BlockIdx, usize)>,
}

/// A read that was started.
struct Read<M: Mover> {
    first: u64,
    /// Its sectors, and those that have come.
    count: usize,
    here: usize,
    /// Its memory, unless the mover has it.
    buffer: Option<M::Buffer>,
    /// What went wrong with it.
    error: Option<BlockError<M::Error>>,
}

impl<'a, M: Mover> SdAhead<'a, M> {
    /// A source of the file that is in `extents` of the mover's card.
    pub const fn new(mover: M, extents: Extents<'a>) -> Self {
        Self { mover, extents, reads: [const { None }; MOST_READS], len: 0, ended: 0, run: None }
    }

    /// Has the next run brought if none is, of which a read has none when it has ended.
    fn begin(&mut self) {
        while self.run.is_none() {
            let Some(Some(read)) = self.reads.get_mut(self.ended) else { return };
            let (next, left) = (read.first + read.here as u64, read.count - read.here);
            let run = self.extents.runs(next, left).next().filter(|_| read.error.is_none());
            match run.and_then(|run| Some((run, read.buffer.take()?))) {
                Some(((block, count), buffer)) => {
                    self.mover.begin(block, buffer, read.here..read.here + count);
                    self.run = Some((block, count));
                }
                None => self.ended += 1,
            }
        }
    }

    /// Takes what the mover gives back.
    fn take(&mut self, (buffer, outcome): Moved<M>) {
        if let (Some((BlockIdx(block), count)), Some(Some(read))) =
            (self.run.take(), self.reads.get_mut(self.ended))
        {
            read.buffer = Some(buffer);
            match outcome {
                Ok(()) => read.here += count,
                Err(error) => read.error = Some(BlockError { block, error }),
            }
        }
        self.begin();
    }

    /// Keeps the mover at work.
    fn go_on(&mut self) {
        match self.run.and_then(|_| self.mover.poll()) {
            Some(moved) => self.take(moved),
            None => self.begin(),
        }
    }
}

impl<M: Mover> Source for SdAhead<'_, M> {
    type Error = BlockError<M::Error>;
    type Buffer = M::Buffer;

    fn len(&self) -> u64 {
        self.extents.len()
    }

    fn start(&mut self, first: u64, count: usize, buffer: M::Buffer) {
        let count = count.min(buffer.as_ref().len());
        self.reads[self.len] = Some(Read { first, count, here: 0, buffer: Some(buffer), error: None });
        self.len += 1;
        self.go_on();
    }

    fn finish(&mut self) -> Option<Finished<M::Buffer, Self::Error>> {
        self.go_on();
        while self.ended == 0 && self.run.is_some() {
            let moved = self.mover.wait()?;
            self.take(moved);
        }
        let Read { first, count, here, buffer, error } = self.reads[0].take()?;
        self.reads[..self.len].rotate_left(1);
        (self.len, self.ended) = (self.len - 1, self.ended - 1);
        let len = read_len(self.extents.len(), first, count).min(here * SECTOR);
        Some(Finished { buffer: buffer?, outcome: error.map_or(Ok(len), Err) })
    }
}
