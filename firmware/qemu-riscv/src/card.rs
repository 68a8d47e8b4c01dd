//! The card as a device that comes back.

use embedded_hal::delay::DelayNs;
use embedded_hal::spi::SpiDevice;
use embedded_sdmmc::{Block, BlockCount, BlockDevice, BlockIdx, SdCard, SdCardError as Error};

/// A card that is started anew after each error: it may have been taken out, and another put in its place.
pub struct Restarted<S: SpiDevice, D: DelayNs>(pub SdCard<S, D>);

impl<S: SpiDevice, D: DelayNs> Restarted<S, D> {
    fn watch<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.inspect_err(|_| self.0.mark_card_uninit())
    }
}

impl<S: SpiDevice, D: DelayNs> BlockDevice for Restarted<S, D> {
    type Error = Error;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Error> {
        self.watch(self.0.read(blocks, start))
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), Error> {
        self.watch(self.0.write(blocks, start))
    }

    fn num_blocks(&self) -> Result<BlockCount, Error> {
        self.watch(self.0.num_blocks())
    }
}
