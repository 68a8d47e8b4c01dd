//! An SD card at an SPI.

use core::cell::Cell;
use core::fmt;

use embedded_hal::delay::DelayNs;
use embedded_hal::spi::{Operation, SpiDevice};
use embedded_sdmmc::sdcard::spi::AcquireOpts;
use embedded_sdmmc::{SdCard, SdCardError};
use llamita_storage::sd::{Block, BlockCount, BlockDevice, BlockIdx};

/// The SPI of a card.
pub trait CardSpi: SpiDevice {
    /// Sets the clock to 400 kHz or less, and sends 74 bits or more, all ones, while no card is selected: then it listens.
    fn wake(&mut self) -> Result<(), Self::Error>;

    /// Sets the clock to the fastest at which a card that has started is read.
    fn speed_up(&mut self);
}

/// CMD0, by which a card begins anew and goes over to SPI, with its checksum.
const GO_IDLE: [u8; 6] = [0x40, 0, 0, 0, 0, 0x95];
/// What it answers.
const IDLE: u8 = 1;
/// Bytes within which it has to answer.
const ANSWER: usize = 10;
/// How often it is asked: it may have been in the midst of something.
const CALLS: usize = 10;

/// What a card did not do.
#[derive(Clone, Copy, Debug)]
pub enum SpiCardError {
    /// Nobody answers.
    Absent,
    /// What the driver says.
    Card(SdCardError),
}

impl fmt::Display for SpiCardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("nothing answers at the SPI"),
            Self::Card(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SpiCardError {}

impl From<SdCardError> for SpiCardError {
    fn from(error: SdCardError) -> Self {
        Self::Card(error)
    }
}

/// A card that is started at the first read, slowly as the specification wants it, and again after each error: it may
/// have been taken out, and another put in its place.
pub struct SpiCard<S: CardSpi, D: DelayNs> {
    card: SdCard<S, D>,
    /// Blocks of the card that has been started.
    count: Cell<Option<BlockCount>>,
}

impl<S: CardSpi, D: DelayNs> SpiCard<S, D> {
    /// The place for a card, before one was looked for.
    pub fn new(spi: S, delay: D) -> Self {
        let options = AcquireOpts { use_crc: true, acquire_retries: 1 };
        Self { card: SdCard::new_with_options(spi, delay, options), count: Cell::new(None) }
    }

    fn started(&self) -> Result<BlockCount, SpiCardError> {
        if let Some(count) = self.count.get() {
            return Ok(count);
        }
        self.card.mark_card_uninit();
        // The driver would wait for a third of a second, twice, where there is none.
        if !self.card.spi(answers) {
            return Err(SpiCardError::Absent);
        }
        let count = self.card.num_blocks()?;
        self.card.spi(S::speed_up);
        self.count.set(Some(count));
        Ok(count)
    }
}

/// Whether there is a card.
fn answers<S: CardSpi>(spi: &mut S) -> bool {
    let called = |spi: &mut S| {
        let mut answer = [0xFF; ANSWER];
        let call = &mut [Operation::Write(&GO_IDLE), Operation::TransferInPlace(&mut answer)];
        spi.transaction(call).is_ok() && answer.contains(&IDLE)
    };
    spi.wake().is_ok() && (0..CALLS).any(|_| called(spi))
}

impl<S: CardSpi, D: DelayNs> BlockDevice for SpiCard<S, D> {
    type Error = SpiCardError;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), SpiCardError> {
        self.started()?;
        Ok(self.card.read(blocks, start).inspect_err(|_| self.count.set(None))?)
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), SpiCardError> {
        self.started()?;
        Ok(self.card.write(blocks, start).inspect_err(|_| self.count.set(None))?)
    }

    fn num_blocks(&self) -> Result<BlockCount, SpiCardError> {
        self.started()
    }
}
