//! The display, which shows the story beside the console.

use embedded_graphics::pixelcolor::{Rgb565, RgbColor};
use embedded_graphics::prelude::DrawTarget;
use esp_hal::delay::Delay;
use esp_hal::gpio::{AnyPin, Level, Output, OutputConfig};
use llamita_display::Screen;
use mipidsi::Builder;
use mipidsi::interface::SpiInterface;
use mipidsi::models::Model;
use static_cell::ConstStaticCell;

use crate::board::{self, Controller, DisplayPins};
use crate::spi::{self, Device, Shared};

/// Bytes of pixels that are gathered before they are sent: a character, or most of one.
const BATCH: usize = 256;

// The builder would find this out only when the board starts.
const _: () = {
    let (width, height) = board::DISPLAY_SIZE;
    let (x, y) = board::DISPLAY_OFFSET;
    let (columns, rows) = Controller::FRAMEBUFFER_SIZE;
    assert!(width > 0 && height > 0, "a display has pixels");
    assert!(x + width <= columns && y + height <= rows, "the controller has fewer pixels");
};

/// The display, in colours of 16 bits.
pub type Display =
    Screen<mipidsi::Display<SpiInterface<'static, Device, Output<'static>>, Controller, Output<'static>>>;

/// Starts the display, if the board is to have one. It stays dark until its memory is blank.
pub fn start(bus: &'static Shared, pins: DisplayPins) -> Option<Display> {
    static PIXELS: ConstStaticCell<[u8; BATCH]> = ConstStaticCell::new([0; BATCH]);
    if !board::DISPLAY {
        return None;
    }
    let output = |pin: AnyPin<'static>, level| Output::new(pin, level, OutputConfig::default());
    let mut light = output(pins.light, Level::Low);
    let device = Device::new(
        bus,
        output(pins.select, Level::High),
        spi::at(board::DISPLAY_CLOCK).with_mode(board::DISPLAY_MODE),
    );
    let interface = SpiInterface::new(device, output(pins.data, Level::Low), PIXELS.take());
    let (width, height) = board::DISPLAY_SIZE;
    let (x, y) = board::DISPLAY_OFFSET;
    let panel = Builder::new(board::CONTROLLER, interface)
        .reset_pin(output(pins.reset, Level::High))
        .display_size(width, height)
        .display_offset(x, y)
        .orientation(board::ORIENTATION)
        .color_order(board::COLOR_ORDER)
        .invert_colors(board::COLOR_INVERSION)
        .init(&mut Delay::new());
    let mut panel = panel.ok()?;
    panel.clear(Rgb565::BLACK).ok()?;
    light.set_high();
    Some(Screen::new(panel))
}
