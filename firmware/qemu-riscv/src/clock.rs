//! The core's counter of instructions.
//!
//! Started with `-icount shift=0`, the emulator counts each once and gives it a nanosecond.

use core::arch::asm;

use embedded_hal::delay::DelayNs;

/// Instructions in a second of the emulator's time.
pub const TICKS_PER_SECOND: u64 = 1_000_000_000;

/// Instructions since the start.
pub fn ticks() -> u64 {
    loop {
        let (high, low, again): (u32, u32, u32);
        // SAFETY: To read a counter changes nothing but the registers that are named.
        unsafe {
            asm!(
                "csrr {high}, minstreth",
                "csrr {low}, minstret",
                "csrr {again}, minstreth",
                high = out(reg) high,
                low = out(reg) low,
                again = out(reg) again,
                options(nomem, nostack, preserves_flags)
            );
        }
        // If not, the lower half came around between the reads of the upper one.
        if high == again {
            return u64::from(high) << 32 | u64::from(low);
        }
    }
}

/// Waits by counting instructions, which an emulator does slowly.
pub struct Clock;

/// The emulated card answers at once or never, so that a driver's waiting is cut short.
const HASTE: u64 = 10;

impl DelayNs for Clock {
    fn delay_ns(&mut self, nanoseconds: u32) {
        let begin = ticks();
        while ticks() - begin < u64::from(nanoseconds) / HASTE {}
    }
}
