//! The wiring of the board, and its sizes: all that is to be changed for another one.
//!
//! | what | pins |
//! |---|---|
//! | UART0 | 43 sends, 44 receives |
//! | SD card at the SDMMC host | clock 39, command 38, data 40, 41, 42, 21; data 40 alone is enough |
//!
//! 19 and 20 are USB, 26 to 37 flash and octal PSRAM.

use esp_hal::peripherals as p;
use esp_hal::psram::SpiRamFreq;
use esp_hal::time::Duration;

/// What the board is called.
pub const NAME: &str = "ESP32-S3";

/// Bits of a second on UART0.
pub const BAUD: u32 = 115_200;
/// Where UART0 sends.
pub type UartTx = p::GPIO43<'static>;
/// Where UART0 receives.
pub type UartRx = p::GPIO44<'static>;

/// Clocks of the PSRAM that are tried, the first at which it keeps what is written to it. At 120 MHz no board is sure to
/// work at any temperature.
pub const PSRAM_CLOCKS: [SpiRamFreq; 2] = [SpiRamFreq::Freq80m, SpiRamFreq::Freq40m];

/// The lines of an SD card.
pub struct CardPins {
    /// Clock.
    pub clock: p::GPIO39<'static>,
    /// Command.
    pub command: p::GPIO38<'static>,
    /// Data 0.
    pub data0: p::GPIO40<'static>,
    /// Data 1.
    pub data1: p::GPIO41<'static>,
    /// Data 2.
    pub data2: p::GPIO42<'static>,
    /// Data 3.
    pub data3: p::GPIO21<'static>,
}

/// Whether the second core computes as well. Stories are the same without, and come about half as fast.
pub const BOTH_CORES: bool = true;

/// Name of the partition of the flash that holds a model.
pub const MODEL_PARTITION: &str = "model";

/// The longest that the console does not feed the watchdog: while kernels are checked.
pub const PATIENCE: Duration = Duration::from_secs(60);
