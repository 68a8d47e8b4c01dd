//! The two cores.

use core::arch::asm;

use esp_hal::peripherals::CPU_CTRL;
use esp_hal::system::{CpuControl, Stack};
use llamita_kernels::{Meeting, Pair};

/// Where the cores meet. It has to be in memory inside the chip: in PSRAM atomic operations do nothing that is atomic.
static MEETING: Meeting = Meeting::new();

/// Stack of the second core, which runs kernels and nothing else. It is where the core's first instructions, which are
/// in ROM, have theirs: any other memory there would be overwritten when the core starts.
// SAFETY: The section is for memory that is not initialised, and a stack needs not be.
#[unsafe(link_section = ".dram2_uninit")]
static mut STACK: Stack<{ 16 << 10 }> = Stack::new();

/// Lets this core use its floats and its vectors.
///
/// After a reset it may, but emulators begin without.
pub fn enable_coprocessors() {
    // SAFETY: All coprocessors may be used; no register is changed that holds anything.
    unsafe { asm!("wsr.cpenable {0}", "rsync", in(reg) 0xFF_u32, options(nomem, nostack)) };
}

/// Starts the second core, to help the first for ever.
pub fn start(control: CPU_CTRL<'static>) {
    // SAFETY: Whoever has the only control of the core calls this, so it is called once.
    let stack = unsafe { &mut *(&raw mut STACK) };
    let started = CpuControl::new(control).start_app_core(stack, || {
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
