//! Memory beside the chip.

use core::ptr;

use esp_hal::peripherals::PSRAM;
use esp_hal::psram::{Psram, PsramConfig, PsramMode};
use llamita_storage::Sector;

use crate::board::PSRAM_CLOCKS;
use crate::memory;

/// Bytes between words that are tried: in all sets of the cache, and more lines than it has.
const STRIDE: usize = 1024 + 64;

/// Starts the PSRAM at the fastest clock at which it keeps what is written to it, and returns all of it; nothing where
/// there is none.
///
/// Atomic operations do not work in it, and DMA of the card's host does not reach it.
pub fn start(psram: PSRAM<'static>) -> &'static mut [Sector] {
    for ram_frequency in PSRAM_CLOCKS {
        let config = PsramConfig { mode: PsramMode::OctalSpi, ram_frequency, ..PsramConfig::default() };
        // SAFETY: What was started before, at another clock, is no longer used.
        let again = unsafe { psram.clone_unchecked() };
        let (start, len) = Psram::new(again, config).raw_parts();
        let start = start.expose_provenance();
        if len > 0 && keeps(start, len) {
            // SAFETY: esp-hal has mapped the memory there, from a page on, and nobody else knows of it.
            return unsafe { memory::sectors(start, len) };
        }
    }
    &mut []
}

/// Whether the memory at an address keeps words.
fn keeps(start: usize, len: usize) -> bool {
    let words = || (start..start + len - size_of::<u32>()).step_by(STRIDE);
    // Different everywhere, and in many bits at once.
    let pattern = |at: usize| (at as u32).wrapping_mul(0x9E37_79B1);
    for at in words() {
        // SAFETY: The memory is mapped there, and nobody else's.
        unsafe { ptr::with_exposed_provenance_mut::<u32>(at).write_volatile(pattern(at)) };
    }
    // SAFETY: As above.
    words().all(|at| unsafe { ptr::with_exposed_provenance::<u32>(at).read_volatile() } == pattern(at))
}
