//! Serial ports: which of them a board is at, and what keeps one from being opened.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use serialport::{ErrorKind, SerialPort, SerialPortInfo, SerialPortType};

use crate::error::{Error, Result};

/// A port that has been opened.
pub type Port = Box<dyn SerialPort>;

/// USB's number of the chip's maker.
const ESPRESSIF: u16 = 0x303A;
/// Of those who make what stands between USB and a UART on boards: Silicon Labs, WCH, FTDI, Prolific.
const BRIDGES: [u16; 4] = [0x10C4, 0x1A86, 0x0403, 0x067B];

/// How long a read waits for a first byte.
const WAIT: Duration = Duration::from_millis(50);
/// How long a port may be away when its board restarts.
const RETURN: Duration = Duration::from_secs(5);

/// Which port, and how fast it is.
#[derive(clap::Args)]
pub struct PortArgument {
    /// The serial port that the board is at, such as /dev/ttyACM0 or COM3 [default: the only one that is an ESP32-S3's,
    /// or else the only one with a USB bridge as boards have them]
    #[arg(long = "port", value_name = "PORT")]
    name: Option<String>,

    /// Bits of a second of the board's console; USB of the chip itself does not care
    #[arg(long, value_name = "N", default_value_t = 115_200, value_parser = clap::value_parser!(u32).range(300..))]
    baud: u32,
}

impl PortArgument {
    /// The name of the port.
    pub fn find(&self) -> Result<String> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let ports = serialport::available_ports().map_err(|error| {
            Error::failure(format_args!(
                "cannot list the serial ports ({error}): name the board's with --port"
            ))
        })?;
        choose(&ports)
    }

    /// Opens a port.
    pub fn open(&self, name: &str) -> Result<Port> {
        let port = serialport::new(name, self.baud).timeout(WAIT).open();
        port.map_err(|error| Error::Failure(refusal(name, &error)))
    }

    /// Opens a port whose board has just been restarted, which takes a chip with a USB port of its own away for a moment.
    pub fn open_again(&self, name: &str) -> Result<Port> {
        let start = Instant::now();
        loop {
            match self.open(name) {
                Err(_) if start.elapsed() < RETURN => thread::sleep(WAIT),
                result => return result,
            }
        }
    }
}

/// The port of the only board among these.
fn choose(ports: &[SerialPortInfo]) -> Result<String> {
    let made_by = |vendors: &[u16]| -> Vec<_> {
        let usb = |port: &&SerialPortInfo| match &port.port_type {
            // macOS shows each port twice, and this one waits for a signal that boards do not give.
            SerialPortType::UsbPort(usb) => {
                vendors.contains(&usb.vid) && !port.port_name.starts_with("/dev/tty.")
            }
            _ => false,
        };
        ports.iter().filter(usb).map(|port| port.port_name.as_str()).collect()
    };
    // Of a board with both, the chip's own is faster.
    let found = Some(made_by(&[ESPRESSIF])).filter(|found| !found.is_empty());
    match found.unwrap_or_else(|| made_by(&BRIDGES))[..] {
        [] => Err(Error::failure(
            "there is no board at any USB port: connect it with a cable that carries data, hold BOOT while you press \
             RESET if it stays unseen, or name its port with --port",
        )),
        [port] => Ok(port.to_owned()),
        ref several => Err(Error::failure(format_args!(
            "there are boards at {}, expected one: name its port with --port",
            several.join(", ")
        ))),
    }
}

/// Why a port was not opened, and what to do.
fn refusal(name: &str, error: &serialport::Error) -> String {
    match error.kind {
        ErrorKind::Io(io::ErrorKind::PermissionDenied) => format!(
            "{name} may not be opened ({error}): join the group that owns it, with sudo usermod -aG dialout $USER on \
             most systems, and log in again"
        ),
        ErrorKind::Io(io::ErrorKind::NotFound) => {
            format!("there is no port {name}: connect the board, or name another with --port")
        }
        ErrorKind::NoDevice => {
            format!("{name} is in use ({error}): close the program that has it open, such as another monitor")
        }
        _ => format!(
            "{name} cannot be opened ({error}): check that it is a serial port, and name another with --port"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serialport::UsbPortInfo;

    use super::*;

    fn usb(name: &str, vid: u16) -> SerialPortInfo {
        let usb = UsbPortInfo { vid, pid: 0x1001, serial_number: None, manufacturer: None, product: None };
        SerialPortInfo { port_name: name.to_owned(), port_type: SerialPortType::UsbPort(usb) }
    }

    #[test]
    fn the_only_board_is_found() {
        let modem = usb("/dev/ttyUSB9", 0x0483);
        let built_in =
            SerialPortInfo { port_name: "/dev/ttyS0".to_owned(), port_type: SerialPortType::Unknown };
        let (own, bridge) = (usb("/dev/ttyACM0", ESPRESSIF), usb("/dev/ttyUSB0", BRIDGES[1]));
        let none = [modem.clone(), built_in.clone()];
        for (ports, expected) in [
            (vec![bridge.clone(), own.clone()], Ok("/dev/ttyACM0")),
            (none.iter().chain([&bridge]).cloned().collect(), Ok("/dev/ttyUSB0")),
            (
                vec![usb("/dev/tty.usbmodem1", ESPRESSIF), usb("/dev/cu.usbmodem1", ESPRESSIF)],
                Ok("/dev/cu.usbmodem1"),
            ),
            (vec![], Err("a cable that carries data")),
            (none.to_vec(), Err("--port")),
            (
                vec![own.clone(), usb("/dev/ttyACM1", ESPRESSIF)],
                Err("/dev/ttyACM0, /dev/ttyACM1, expected one"),
            ),
            (vec![bridge, usb("/dev/ttyUSB1", BRIDGES[0])], Err("--port")),
        ] {
            match (choose(&ports), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        for (kind, part) in [
            (ErrorKind::Io(io::ErrorKind::PermissionDenied), "usermod -aG dialout"),
            (ErrorKind::Io(io::ErrorKind::NotFound), "connect the board"),
            (ErrorKind::NoDevice, "close the program"),
            (ErrorKind::Unknown, "check that it is a serial port"),
        ] {
            let message = refusal("/dev/ttyACM0", &serialport::Error::new(kind, "why"));
            assert!(
                message.starts_with("/dev/ttyACM0") || message.contains("port /dev/ttyACM0"),
                "{message}"
            );
            assert!(message.contains(part), "{message}");
        }
    }
}
