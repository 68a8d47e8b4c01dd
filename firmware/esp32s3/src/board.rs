//! The wiring of the board, and its sizes: all that is to be changed for another one.
//!
//! | what | pins |
//! |---|---|
//! | UART0 | 43 sends, 44 receives |
//! | SD card at the SDMMC host | clock 39, command 38, data 40, 41, 42, 21; data 40 alone is enough |
//! | ST7789 display | SCL 12, SDA 11, CS 9, DC 8, RST 18, backlight 17 |
//! | or: SD card by SPI, on the display's bus | CLK 12, MOSI 11, MISO 13, CS 10 |
//!
//! 19 and 20 are USB, 26 to 37 flash and octal PSRAM. What is not there does no harm: nobody waits for a display, and where
//! a card is asked for, the SDMMC host is tried first, then SPI.

use esp_hal::gpio::AnyPin;
use esp_hal::peripherals as p;
use esp_hal::psram::SpiRamFreq;
use esp_hal::spi::Mode;
use esp_hal::time::{Duration, Rate};
use mipidsi::models::ST7789;
use mipidsi::options::{ColorInversion, ColorOrder, Orientation, Rotation};

/// What the board is called.
pub const NAME: &str = "ESP32-S3";

/// Bits of a second on UART0.
pub const BAUD: u32 = 115_200;
/// Where UART0 sends.
pub type UartTx = p::GPIO43<'static>;
/// Where UART0 receives.
pub type UartRx = p::GPIO44<'static>;

/// Clocks of the PSRAM that are tried, the first at which it keeps what is written to it.
///
/// 120 MHz is none of them: octal PSRAM needs its timing tuned then, which esp-hal 1.2 leaves out, and takes the flash to
/// 120 MHz as well, since both share a clock of 240 MHz that Espressif divides by powers of two alone.
pub const PSRAM_CLOCKS: [SpiRamFreq; 2] = [SpiRamFreq::Freq80m, SpiRamFreq::Freq40m];

/// The lines of an SD card at the SDMMC host.
pub struct CardPins {
    /// Clock.
    pub clock: AnyPin<'static>,
    /// Command.
    pub command: AnyPin<'static>,
    /// Data.
    pub data: [AnyPin<'static>; 4],
}

/// The lines of the bus that the display and an SD card by SPI share.
pub struct BusPins {
    /// Clock: SCL, CLK.
    pub clock: AnyPin<'static>,
    /// To the devices: SDA, MOSI.
    pub out: AnyPin<'static>,
    /// From the card: MISO.
    pub back: AnyPin<'static>,
    /// Selects the card.
    pub card: AnyPin<'static>,
}

/// The lines of the display beside the bus.
pub struct DisplayPins {
    /// Selects it.
    pub select: AnyPin<'static>,
    /// Data, where it is not a command.
    pub data: AnyPin<'static>,
    /// Reset.
    pub reset: AnyPin<'static>,
    /// Its light.
    pub light: AnyPin<'static>,
}

/// The pins of all of these, of the chip's peripherals.
macro_rules! pins {
    ($p:ident) => {{
        use esp_hal::gpio::Pin;
        (
            $crate::board::CardPins {
                clock: $p.GPIO39.degrade(),
                command: $p.GPIO38.degrade(),
                data: [$p.GPIO40.degrade(), $p.GPIO41.degrade(), $p.GPIO42.degrade(), $p.GPIO21.degrade()],
            },
            $crate::board::BusPins {
                clock: $p.GPIO12.degrade(),
                out: $p.GPIO11.degrade(),
                back: $p.GPIO13.degrade(),
                card: $p.GPIO10.degrade(),
            },
            $crate::board::DisplayPins {
                select: $p.GPIO9.degrade(),
                data: $p.GPIO8.degrade(),
                reset: $p.GPIO18.degrade(),
                light: $p.GPIO17.degrade(),
            },
        )
    }};
}
pub(crate) use pins;

/// Whether a display is driven. Nothing tells whether one is there; without one, this costs a third of a second at the
/// start, and the smallest models a twentieth of their rate.
pub const DISPLAY: bool = true;
/// The controller of the display: any of `mipidsi`'s models with colours of 16 bits.
pub type Controller = ST7789;
/// The same, as a value.
pub const CONTROLLER: Controller = ST7789;
/// Width and height as the controller has them, before the display is turned. Modules with an ST7789 and their offsets:
/// 240x320 (0, 0), 240x240 (0, 0), 170x320 (35, 0), 135x240 (52, 40).
pub const DISPLAY_SIZE: (u16, u16) = (240, 320);
/// Where the panel begins in the controller's memory.
pub const DISPLAY_OFFSET: (u16, u16) = (0, 0);
/// How the panel is held.
pub const ORIENTATION: Orientation = Orientation::new().rotate(Rotation::Deg90);
/// Where red and blue are exchanged, the other one.
pub const COLOR_ORDER: ColorOrder = ColorOrder::Rgb;
/// Where light is dark, the other one. IPS panels are inverted.
pub const COLOR_INVERSION: ColorInversion = ColorInversion::Inverted;
/// Clock of the bus to the display. An ST7789 takes 62 MHz by its data sheet; wires on a breadboard may take 20.
pub const DISPLAY_CLOCK: Rate = Rate::from_mhz(40);

/// When the bus's clock is at rest and which of its edges counts. Modules whose CS is wired to ground inside want mode 3.
pub const DISPLAY_MODE: Mode = Mode::_0;

/// Clock of the bus to a card that has started. Any card takes up to 25 MHz; what comes of it is 80 MHz divided by an
/// integer.
pub const SPI_CARD_CLOCK: Rate = Rate::from_mhz(20);

/// Whether the second core computes as well. Stories are the same without, and come about half as fast.
pub const BOTH_CORES: bool = true;

/// Name of the partition of the flash that holds a model.
pub const MODEL_PARTITION: &str = "model";

/// The longest that the console does not feed the watchdog: while kernels are checked.
pub const PATIENCE: Duration = Duration::from_secs(60);
