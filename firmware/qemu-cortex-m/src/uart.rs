//! The first serial port of the board, CMSDK's, as console.

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, ReadReady, Write};
use llamita_qemu::Register;

use crate::clock;

// SAFETY: The first serial port of AN386, table 3-3 of its manual.
const DATA: Register = unsafe { Register::at(0x4000_4000) };
// SAFETY: The same port.
const STATE: Register = unsafe { Register::at(0x4000_4004) };
// SAFETY: The same port.
const CONTROL: Register = unsafe { Register::at(0x4000_4008) };
// SAFETY: The same port.
const DIVIDER: Register = unsafe { Register::at(0x4000_4010) };

/// `STATE`: what was written has not been taken yet.
const WRITE_FULL: u32 = 1;
/// `STATE`: a byte has come.
const READ_FULL: u32 = 1 << 1;
/// `CONTROL`: both ways are open.
const BOTH_WAYS: u32 = 3;

const BAUD: u32 = 115_200;

/// The port.
pub struct Uart(());

impl Uart {
    /// Opens the port. To do it twice, as a panic does, is harmless.
    pub fn start() -> Self {
        DIVIDER.write(clock::TICKS_PER_SECOND as u32 / BAUD);
        CONTROL.write(BOTH_WAYS);
        Self(())
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(STATE.read() & READ_FULL != 0)
    }
}

impl Read for Uart {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = bytes.first_mut() else { return Ok(0) };
        while STATE.read() & READ_FULL == 0 {}
        *first = DATA.read() as u8;
        Ok(1)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for &byte in bytes {
            while STATE.read() & WRITE_FULL != 0 {}
            DATA.write(byte.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        while STATE.read() & WRITE_FULL != 0 {}
        Ok(())
    }
}
