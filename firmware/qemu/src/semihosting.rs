//! Requests to the emulator, by which a program can end it.

use core::arch::asm;

/// `SYS_EXIT`, with one word for why.
const EXIT: usize = 0x18;
/// The program came to its end.
const APPLICATION_EXIT: usize = 0x20026;

/// Ends the emulator with success. Returns if it was started without `-semihosting`, as it can on RISC-V; on Arm the
/// request is a fault then.
pub fn exit() {
    // SAFETY: A debugger's breakpoint, by which the emulator knows a request. It takes two registers and changes none
    // but the first.
    #[cfg(target_arch = "arm")]
    unsafe {
        asm!("bkpt 0xab", inout("r0") EXIT => _, in("r1") APPLICATION_EXIT, options(nostack));
    }
    // SAFETY: The same for RISC-V, where two instructions without effect around the breakpoint mark it. All three have
    // to be uncompressed and in one page, hence the alignment.
    #[cfg(target_arch = "riscv32")]
    unsafe {
        asm!(
            ".option push",
            ".option norvc",
            ".balign 16",
            "slli x0, x0, 0x1f",
            "ebreak",
            "srai x0, x0, 7",
            ".option pop",
            inout("a0") EXIT => _,
            in("a1") APPLICATION_EXIT,
            options(nostack)
        );
    }
}
