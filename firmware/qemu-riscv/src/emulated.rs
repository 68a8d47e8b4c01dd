//! Where the emulated card differs from any that can be bought.

use core::convert::Infallible;

use embedded_hal::spi::{ErrorType, Operation, SpiDevice};
use llamita_firmware::CardSpi;

use crate::spi::Spi;

/// CMD58, which asks for the register of operating conditions, as its first byte.
const READ_OCR: u8 = 0x40 | 58;
/// The bit of an answer that says: still starting.
const STARTING: u8 = 1;

/// The card at its SPI.
///
/// To CMD58 QEMU's card answers that it is still starting, whatever its state (`hw/ssi/ssi-sd.c`, 7.2). Drivers ask it
/// of a card that has just said it is ready, and `embedded-sdmmc` gives up then. So the bit is taken out.
pub struct Emulated {
    spi: Spi,
    /// CMD58 was sent, and its answer has not come yet.
    asked: bool,
}

impl Emulated {
    /// The card, before it has been asked anything.
    pub const fn new(spi: Spi) -> Self {
        Self { spi, asked: false }
    }
}

impl ErrorType for Emulated {
    type Error = Infallible;
}

impl SpiDevice for Emulated {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
        self.spi.transaction(operations)?;
        for operation in operations {
            match operation {
                Operation::Write([READ_OCR, _, _, _, _, _]) => self.asked = true,
                // An answer is the first byte without its highest bit.
                Operation::Transfer([answer @ 0..=0x7F], _) if self.asked => {
                    *answer &= !STARTING;
                    self.asked = false;
                }
                _ => (),
            }
        }
        Ok(())
    }
}

impl CardSpi for Emulated {
    fn wake(&mut self) -> Result<(), Infallible> {
        self.spi.wake()
    }

    fn speed_up(&mut self) {
        self.spi.speed_up();
    }
}
