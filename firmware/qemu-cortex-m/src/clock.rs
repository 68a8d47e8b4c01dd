//! The first timer of the board, CMSDK's.
//!
//! The core's own counter of cycles is not imitated. The timer counts down at 25 MHz of the emulator's time: started
//! with `-icount shift=0` it gives every instruction a nanosecond, and a tick is 40 instructions.

use core::sync::atomic::{AtomicU32, Ordering};

use llamita_qemu::Register;

/// The board's clock.
pub const TICKS_PER_SECOND: u64 = 25_000_000;

// SAFETY: The first timer of AN386, table 3-3 of its manual.
const CONTROL: Register = unsafe { Register::at(0x4000_0000) };
// SAFETY: The same timer.
const VALUE: Register = unsafe { Register::at(0x4000_0004) };
// SAFETY: The same timer.
const RELOAD: Register = unsafe { Register::at(0x4000_0008) };

/// From now on it runs.
pub fn start() {
    RELOAD.write(u32::MAX);
    VALUE.write(u32::MAX);
    CONTROL.write(1);
}

/// Ticks since the start. The timer has 32 bits and comes around after 171 s: whoever asks less often loses rounds.
pub fn ticks() -> u64 {
    static ROUNDS: AtomicU32 = AtomicU32::new(0);
    static LAST: AtomicU32 = AtomicU32::new(0);

    let now = u32::MAX - VALUE.read();
    // There is one core and no interrupt, so nobody comes between these.
    let mut rounds = ROUNDS.load(Ordering::Relaxed);
    if now < LAST.load(Ordering::Relaxed) {
        rounds += 1;
        ROUNDS.store(rounds, Ordering::Relaxed);
    }
    LAST.store(now, Ordering::Relaxed);
    u64::from(rounds) << 32 | u64::from(now)
}
