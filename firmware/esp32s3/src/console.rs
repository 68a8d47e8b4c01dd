//! The console: the serial port over USB and UART0 at once. What either receives is read, and both send the same.

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, ReadReady, Write};
use esp_hal::Blocking;
use esp_hal::peripherals::{UART0, USB_DEVICE};
use esp_hal::time::{Duration, Instant};
use esp_hal::uart::{Config, Uart};
use esp_hal::usb::usb_serial_jtag::UsbSerialJtag;

use crate::board::{BAUD, UartRx, UartTx};

/// How long a host may leave what was sent by USB unread before it counts as absent.
const PATIENCE: Duration = Duration::from_millis(50);

/// Both ports.
pub struct Console {
    uart: Uart<'static, Blocking>,
    usb: UsbSerialJtag<'static, Blocking>,
    /// Taken from USB and not asked for yet: the port does not tell whether a byte is there without giving it away.
    taken: Option<u8>,
    /// Nobody reads at the other end of USB: what has no room is lost, until there is room again.
    deaf: bool,
}

impl Console {
    /// Opens both ports.
    pub fn start(uart: UART0<'static>, usb: USB_DEVICE<'static>, tx: UartTx, rx: UartRx) -> Self {
        let config = Config::default().with_baudrate(BAUD);
        // The rate is one that the clock can be divided to.
        let Ok(uart) = Uart::new(uart, config) else { unreachable!("{BAUD} baud") };
        let usb = UsbSerialJtag::new(usb);
        Self { uart: uart.with_tx(tx).with_rx(rx), usb, taken: None, deaf: false }
    }

    /// Waits until UART0 has sent all.
    pub fn drain(&mut self) {
        let _ = self.flush();
        let _ = self.uart.flush();
    }

    /// Sends a byte by USB, if anyone is there to read it.
    fn send_by_usb(&mut self, byte: u8) {
        let start = Instant::now();
        while self.usb.write_byte_nb(byte).is_err() {
            if self.deaf {
                return;
            }
            // What is full goes on its way.
            let _ = self.usb.flush_tx_nb();
            self.deaf = start.elapsed() > PATIENCE;
        }
        self.deaf = false;
    }
}

impl ErrorType for Console {
    type Error = Infallible;
}

impl ReadReady for Console {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        self.taken = self.taken.or_else(|| self.usb.read_byte().ok());
        Ok(self.taken.is_some() || self.uart.read_ready())
    }
}

impl Read for Console {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = bytes.first_mut() else { return Ok(0) };
        loop {
            self.read_ready()?;
            if let Some(byte) = self.taken.take() {
                *first = byte;
                return Ok(1);
            }
            // Bytes that were damaged on their way are left out.
            if self.uart.read_ready() && matches!(self.uart.read_buffered(core::slice::from_mut(first)), Ok(1)) {
                return Ok(1);
            }
        }
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for &byte in bytes {
            self.send_by_usb(byte);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            // It sends at its pace, whether anyone listens or not.
            let Ok(count) = self.uart.write(rest) else { break };
            rest = &rest[count..];
        }
        Ok(bytes.len())
    }

    /// Sees that nothing is held back; it is on its way then, and nobody waits until it is there. A token's text takes
    /// UART0 as long as a small model a part of the next one.
    fn flush(&mut self) -> Result<(), Infallible> {
        let _ = self.usb.flush_tx_nb();
        Ok(())
    }
}
