//! How a board's program ends, well or not.

use core::arch::asm;
use core::fmt;

use embedded_io::Write;

use crate::{memory, semihosting};

/// Ends the emulator, after the stack's measure has been told.
pub fn end(console: &mut impl Write) -> ! {
    tell_stack(console);
    semihosting::exit();
    park()
}

/// Says what happened that must not, and does no more.
pub fn stop(console: &mut impl Write, words: fmt::Arguments) -> ! {
    let _ = writeln!(console, "\nstopped: {words}");
    tell_stack(console);
    park()
}

fn tell_stack(console: &mut impl Write) {
    let (used, stack) = memory::stack();
    // Nobody may be listening.
    let _ = writeln!(console, "stack: {used} of {stack} bytes used");
}

/// Waits for ever.
fn park() -> ! {
    loop {
        // SAFETY: The core waits for an interrupt; registers and memory stay as they are.
        unsafe { asm!("wfi", options(nomem, nostack, preserves_flags)) }
    }
}
