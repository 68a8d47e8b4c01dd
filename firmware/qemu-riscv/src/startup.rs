//! From the first instruction to `main`, and where everything ends that must not happen.

use core::arch::{asm, naked_asm};
use core::panic::PanicInfo;

use llamita_qemu::{memory, stop};

use crate::uart::Uart;

/// Makes memory what Rust expects of it.
///
/// The board has a small core without floats, number 0, and a large one with them. The small one runs the program; what
/// needs floats would be a fault on it.
// SAFETY: The name is the linker script's entry, and the section is its first, where the board starts. No other function
// has either.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.start")]
#[unsafe(naked)]
unsafe extern "C" fn start() -> ! {
    naked_asm!(
        "csrr t0, mhartid",
        "bnez t0, 9f",
        "la sp, __stack_top",
        "la t0, __handler_stack_top",
        "csrw mscratch, t0",
        "la t0, 8f",
        "csrw mtvec, t0",
        // The program may be read and executed, and no longer written, not even by this mode; it is where the stack would
        // grow to. The model may be read. Both ranges are from one address to the next, and locked.
        "la t0, __flash_start",
        "srli t0, t0, 2",
        "csrw pmpaddr0, t0",
        "la t0, __flash_end",
        "srli t0, t0, 2",
        "csrw pmpaddr1, t0",
        "li t0, {model_start}",
        "csrw pmpaddr2, t0",
        "li t0, {model_end}",
        "csrw pmpaddr3, t0",
        "li t0, 0x89008D00",
        "csrw pmpcfg0, t0",
        // Variables with a value.
        "la t0, __data_start",
        "la t1, __data_end",
        "la t2, __data_source",
        "j 3f",
        "2: lw t3, 0(t2)",
        "sw t3, 0(t0)",
        "addi t0, t0, 4",
        "addi t2, t2, 4",
        "3: bltu t0, t1, 2b",
        // Variables without, and the arena.
        "la t0, __zero_start",
        "la t1, __zero_end",
        "j 5f",
        "4: sw zero, 0(t0)",
        "addi t0, t0, 4",
        "5: bltu t0, t1, 4b",
        // The stack.
        "la t0, __stack_bottom",
        "la t1, __stack_top",
        "li t2, {paint}",
        "j 7f",
        "6: sw t2, 0(t0)",
        "addi t0, t0, 4",
        "7: bltu t0, t1, 6b",
        "call {main}",
        // Faults, at a multiple of four as `mtvec` has it.
        ".balign 4",
        "8: mv a0, sp",
        "csrr sp, mscratch",
        "call {faulted}",
        // The other core.
        "9: wfi",
        "j 9b",
        model_start = const crate::FLASH.start >> 2,
        model_end = const crate::FLASH.end >> 2,
        paint = const memory::PAINT,
        main = sym crate::main,
        faulted = sym faulted,
    )
}

/// Tells of a fault.
extern "C" fn faulted(stack: u32) -> ! {
    let (cause, place, value): (u32, u32, u32);
    // SAFETY: To read these registers changes nothing but those that are named.
    unsafe {
        asm!(
            "csrr {cause}, mcause",
            "csrr {place}, mepc",
            "csrr {value}, mtval",
            cause = out(reg) cause,
            place = out(reg) place,
            value = out(reg) value,
            options(nomem, nostack, preserves_flags)
        );
    }
    stop(
        &mut Uart::start(),
        format_args!("fault: cause {cause}, at {place:#010x}, address {value:#010x}, stack at {stack:#010x}"),
    )
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    stop(&mut Uart::start(), format_args!("{info}"))
}
