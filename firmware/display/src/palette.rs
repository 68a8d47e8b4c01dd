//! Colours: light on dark, so that a panel is read in a dim room and draws little where its pixels shine themselves.

use embedded_graphics::pixelcolor::Rgb565;

/// From the eight bits a channel that drawing programs show.
const fn rgb(red: u8, green: u8, blue: u8) -> Rgb565 {
    Rgb565::new(red >> 3, green >> 2, blue >> 3)
}

/// Behind the text.
pub const NIGHT: Rgb565 = rgb(0x10, 0x10, 0x18);
/// Behind the title and the status.
pub const DUSK: Rgb565 = rgb(0x28, 0x24, 0x40);
/// The text.
pub const CREAM: Rgb565 = rgb(0xf8, 0xec, 0xd0);
/// The line that was carried over from the page before.
pub const FADED: Rgb565 = rgb(0x98, 0x90, 0x88);
/// The title, the status and the bar.
pub const AMBER: Rgb565 = rgb(0xf8, 0xb8, 0x50);
/// Errors.
pub const CORAL: Rgb565 = rgb(0xf8, 0x80, 0x70);

/// The llama's wool, where the light does not fall on it.
pub const FAWN: Rgb565 = rgb(0xc8, 0xa0, 0x78);
/// The llama's eye, nose and hooves.
pub const UMBER: Rgb565 = rgb(0x58, 0x34, 0x28);
/// The llama's blanket.
pub const ROSE: Rgb565 = rgb(0xe0, 0x40, 0x58);
/// A stripe of the blanket.
pub const TEAL: Rgb565 = rgb(0x30, 0xb8, 0xa8);

#[cfg(test)]
mod tests {
    extern crate std;
    use embedded_graphics::pixelcolor::RgbColor;

    use super::*;

    /// Relative luminance (WCAG 2).
    fn luminance(colour: Rgb565) -> f64 {
        let linear = |value: u8, max: u8| {
            let value = f64::from(value) / f64::from(max);
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(colour.r(), 31) + 0.7152 * linear(colour.g(), 63) + 0.0722 * linear(colour.b(), 31)
    }

    #[test]
    fn all_that_is_read_has_contrast() {
        for (ink, paper) in [(CREAM, NIGHT), (FADED, NIGHT), (CORAL, NIGHT), (AMBER, NIGHT), (AMBER, DUSK)] {
            let contrast = (luminance(ink) + 0.05) / (luminance(paper) + 0.05);
            // WCAG asks for 4.5; small panels are looked at from the side.
            assert!(contrast >= 5.5, "{ink:?} on {paper:?}: {contrast:.1}");
        }
    }
}
