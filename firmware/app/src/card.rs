//! What a card is to the console: a device for looking files up, and a way to read one of them.

use core::convert::Infallible;
use core::marker::PhantomData;

use llamita_storage::sd::{Block, BlockCount, BlockDevice, BlockIdx, Extents, SdSource, Shared};
use llamita_storage::{Sector, Source};

use crate::Machine;

/// A card, and how a file on it is read.
///
/// Every [`BlockDevice`] is one, which keeps the engine waiting while it reads. A board whose card is read by DMA, or by
/// another core, implements this for a type that is no block device itself, with a [`Source`] that reads while the
/// engine computes, such as [`SdAhead`](llamita_storage::sd::SdAhead).
pub trait Card {
    /// The device in which files are looked up. It is asked between texts, while the source may still have reads under
    /// way that the next text will use: it waits for the card until these are done.
    type Device: BlockDevice;

    /// Reads a file. When it is dropped, with reads under way or not, nothing may write to their memory any more.
    type Source<'s>: Source<Buffer = &'s mut [Sector]>
    where
        Self: 's;

    /// Buffers for what is read: one where reads are done when they are started, and two where they are done while the
    /// engine computes; never more than seven.
    const BUFFERS: usize = 1;

    /// The device.
    fn device(&self) -> &Self::Device;

    /// A source of the file in these blocks.
    fn source<'s>(&'s self, extents: Extents<'s>) -> Self::Source<'s>;
}

impl<D: BlockDevice> Card for D {
    type Device = D;
    type Source<'s>
        = SdSource<'s, Shared<'s, D>, &'s mut [Sector]>
    where
        D: 's;

    fn device(&self) -> &D {
        self
    }

    fn source<'s>(&'s self, extents: Extents<'s>) -> Self::Source<'s> {
        SdSource::new(Shared(self), extents)
    }
}

/// The card of a board that has none, for [`run`](crate::run).
#[derive(Clone, Copy, Debug)]
pub enum NoCard {}

impl BlockDevice for NoCard {
    type Error = Infallible;

    fn read(&self, _: &mut [Block], _: BlockIdx) -> Result<(), Infallible> {
        match *self {}
    }

    fn write(&self, _: &[Block], _: BlockIdx) -> Result<(), Infallible> {
        match *self {}
    }

    fn num_blocks(&self) -> Result<BlockCount, Infallible> {
        match *self {}
    }
}

/// Blocks of the longest read without a look at the watchdog: 64 KiB.
const LONGEST_READ: usize = 128;

/// A device that feeds the watchdog before each read: to look up a file takes as many as the card pleases.
pub(crate) struct Watched<'d, M, D>(&'d D, PhantomData<M>);

impl<'d, M: Machine, D: BlockDevice> Watched<'d, M, D> {
    pub const fn new(device: &'d D) -> Self {
        Self(device, PhantomData)
    }
}

impl<M: Machine, D: BlockDevice> BlockDevice for Watched<'_, M, D> {
    type Error = D::Error;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), D::Error> {
        for (index, blocks) in blocks.chunks_mut(LONGEST_READ).enumerate() {
            M::feed();
            self.0.read(blocks, BlockIdx(start.0 + (index * LONGEST_READ) as u32))?;
        }
        Ok(())
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), D::Error> {
        self.0.write(blocks, start)
    }

    fn num_blocks(&self) -> Result<BlockCount, D::Error> {
        M::feed();
        self.0.num_blocks()
    }
}
