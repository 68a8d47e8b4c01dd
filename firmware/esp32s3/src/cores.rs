//! The two cores.

use core::arch::asm;

use esp_hal::peripherals::CPU_CTRL;
use esp_hal::system::{CpuControl, Stack};
use llamita_kernels::{Meeting, Pair};
use static_cell::ConstStaticCell;

/// Where the cores meet. It has to be in memory inside the chip: in PSRAM atomic operations do nothing that is atomic.
static MEETING: Meeting = Meeting::new();

/// Stack of the second core, which runs kernels and nothing else.
const STACK: usize = 8 << 10;

/// Lets this core use its floats and its vectors.
///
/// After a reset it may, but emulators begin without.
pub fn enable_coprocessors() {
    // SAFETY: All coprocessors may be used; no register is changed that holds anything.
    unsafe { asm!("wsr.cpenable {0}", "rsync", in(reg) 0xFF_u32, options(nomem, nostack)) };
}

/// Starts the second core, to help the first for ever.
pub fn start(control: CPU_CTRL<'static>) {
    static MEMORY: ConstStaticCell<Stack<STACK>> = ConstStaticCell::new(Stack::new());
    let started = CpuControl::new(control).start_app_core(MEMORY.take(), || {
        enable_coprocessors();
        MEETING.help()
    });
    // Dropped, this would stop the core. If the core runs already, the first works alone.
    core::mem::forget(started);
}

/// Both cores, or the one that asks where the other is taken or does not run.
pub fn team() -> Pair<'static> {
    MEETING.team()
}
