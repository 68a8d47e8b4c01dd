//! The third SPI of the board, SiFive's, at which its card is.

use core::cell::Cell;
use core::convert::Infallible;

use embedded_hal::delay::DelayNs;
use embedded_hal::spi::{ErrorType, Operation, SpiDevice};
use llamita_firmware::CardSpi;
use llamita_qemu::Register;

use crate::clock::Clock;

// SAFETY: The third SPI of the FU540, chapters 5 and 19 of its manual.
const CLOCK_DIVIDER: Register = unsafe { Register::at(0x1005_0000) };
// SAFETY: The same SPI.
const CHIP_SELECT: Register = unsafe { Register::at(0x1005_0018) };
// SAFETY: The same SPI.
const FORMAT: Register = unsafe { Register::at(0x1005_0040) };
// SAFETY: The same SPI.
const WRITE_DATA: Register = unsafe { Register::at(0x1005_0048) };
// SAFETY: The same SPI.
const READ_DATA: Register = unsafe { Register::at(0x1005_004C) };

/// `CHIP_SELECT`: selected for each byte, which between bytes is not selected.
const AUTO: u32 = 0;
/// `CHIP_SELECT`: selected until further notice.
const HOLD: u32 = 2;
/// `CHIP_SELECT`: never selected.
const OFF: u32 = 3;

/// `FORMAT`: bytes of eight bits, the highest first, on one wire each way, and none that comes is dropped.
const BYTES: u32 = 8 << 16;
/// `READ_DATA`: there is no byte in it.
const READ_EMPTY: u32 = 1 << 31;

/// Bytes that the unit has room for, each way.
const ROOM: usize = 8;
/// What is sent where only what comes is of interest. Cards want ones.
const IDLE: u8 = 0xFF;

/// Half of what the unit is clocked with on the board, in Hz.
const HALF_CLOCK: u32 = 250_000_000;

/// The card at the SPI.
pub struct Spi(());

impl Spi {
    /// Prepares the unit.
    pub fn start() -> Self {
        FORMAT.write(BYTES);
        CHIP_SELECT.write(AUTO);
        Self(())
    }

    /// Sends bytes, and takes as many.
    fn exchange(&mut self, count: usize, send: impl Fn(usize) -> u8, mut take: impl FnMut(usize, u8)) {
        let mut done = 0;
        while done < count {
            // What has been sent so far has come back, so there is room for all of these.
            let end = count.min(done + ROOM);
            (done..end).for_each(|at| WRITE_DATA.write(send(at).into()));
            for at in done..end {
                let byte = loop {
                    let data = READ_DATA.read();
                    if data & READ_EMPTY == 0 {
                        break data as u8;
                    }
                };
                take(at, byte);
            }
            done = end;
        }
    }
}

impl CardSpi for Spi {
    fn wake(&mut self) -> Result<(), Infallible> {
        CLOCK_DIVIDER.write(HALF_CLOCK / 400_000 - 1);
        CHIP_SELECT.write(OFF);
        self.exchange(10, |_| IDLE, |_, _| ());
        CHIP_SELECT.write(AUTO);
        Ok(())
    }

    fn speed_up(&mut self) {
        CLOCK_DIVIDER.write(HALF_CLOCK / 20_000_000 - 1);
    }
}

impl ErrorType for Spi {
    type Error = Infallible;
}

impl SpiDevice for Spi {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
        CHIP_SELECT.write(HOLD);
        for operation in operations {
            match operation {
                Operation::Read(taken) => self.exchange(taken.len(), |_| IDLE, |at, byte| taken[at] = byte),
                Operation::Write(sent) => self.exchange(sent.len(), |at| sent[at], |_, _| ()),
                Operation::Transfer(taken, sent) => self.exchange(
                    sent.len().max(taken.len()),
                    |at| sent.get(at).copied().unwrap_or(IDLE),
                    |at, byte| {
                        if let Some(taken) = taken.get_mut(at) {
                            *taken = byte;
                        }
                    },
                ),
                Operation::TransferInPlace(bytes) => {
                    // A byte is replaced after it was sent, so both may know of it.
                    let bytes = Cell::from_mut(&mut **bytes).as_slice_of_cells();
                    self.exchange(bytes.len(), |at| bytes[at].get(), |at, byte| bytes[at].set(byte));
                }
                Operation::DelayNs(nanoseconds) => Clock.delay_ns(*nanoseconds),
            }
        }
        CHIP_SELECT.write(AUTO);
        Ok(())
    }
}
