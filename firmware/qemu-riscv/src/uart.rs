//! The first serial port of the board, SiFive's, as console.

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, ReadReady, Write};
use llamita_qemu::Register;

// SAFETY: The first serial port of the FU540, chapters 5 and 13 of its manual.
const WRITE_DATA: Register = unsafe { Register::at(0x1001_0000) };
// SAFETY: The same port.
const READ_DATA: Register = unsafe { Register::at(0x1001_0004) };
// SAFETY: The same port.
const WRITE_CONTROL: Register = unsafe { Register::at(0x1001_0008) };
// SAFETY: The same port.
const READ_CONTROL: Register = unsafe { Register::at(0x1001_000C) };

/// `WRITE_DATA`: there is no room for another byte.
const WRITE_FULL: u32 = 1 << 31;
/// `READ_DATA`: there is no byte in it.
const READ_EMPTY: u32 = 1 << 31;
/// Either control: the way is open.
const OPEN: u32 = 1;

/// The port, with a byte that has been taken from it and not been asked for yet: it does not tell whether one is there
/// without giving it away.
pub struct Uart {
    taken: Option<u8>,
}

impl Uart {
    /// Opens the port. To do it twice, as a panic does, is harmless.
    pub fn start() -> Self {
        WRITE_CONTROL.write(OPEN);
        READ_CONTROL.write(OPEN);
        Self { taken: None }
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        if self.taken.is_none() {
            let data = READ_DATA.read();
            self.taken = (data & READ_EMPTY == 0).then_some(data as u8);
        }
        Ok(self.taken.is_some())
    }
}

impl Read for Uart {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = bytes.first_mut() else { return Ok(0) };
        loop {
            self.read_ready()?;
            if let Some(byte) = self.taken.take() {
                *first = byte;
                return Ok(1);
            }
        }
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for &byte in bytes {
            while WRITE_DATA.read() & WRITE_FULL != 0 {}
            WRITE_DATA.write(byte.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
