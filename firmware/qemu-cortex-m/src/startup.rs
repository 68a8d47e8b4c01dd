//! From the first instruction to `main`, and where everything ends that must not happen.

use core::arch::naked_asm;
use core::panic::PanicInfo;

use llamita_qemu::{Register, memory, stop};

use crate::uart::Uart;

unsafe extern "C" {
    static __handler_stack_top: u32;
}

/// What the core reads at address zero.
#[repr(C)]
struct Vectors {
    stack: *const u32,
    start: unsafe extern "C" fn() -> !,
    exceptions: [unsafe extern "C" fn() -> !; 14],
}

// SAFETY: Nobody but the core ever reads it, and nobody writes.
unsafe impl Sync for Vectors {}

// SAFETY: The section is the linker script's for exactly this table.
#[unsafe(link_section = ".vectors")]
#[used]
static VECTORS: Vectors =
    Vectors { stack: &raw const __handler_stack_top, start, exceptions: [exception; 14] };

/// Makes memory what Rust expects of it.
///
/// The core begins on the stack of the vectors, which stays that of faults. The program gets the other one: a fault can
/// then be told though the program's stack is used up.
// SAFETY: The name is the linker script's entry, and no other function has it.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn start() -> ! {
    naked_asm!(
        // The FPU is off at first, and any function may use it: CPACR, full access to both halves.
        "ldr r0, =0xE000ED88",
        "ldr r1, [r0]",
        "orr r1, r1, #(0xF << 20)",
        "str r1, [r0]",
        // Faults of the bus, of memory and of instructions have their own numbers: SHCSR.
        "ldr r0, =0xE000ED24",
        "ldr r1, [r0]",
        "orr r1, r1, #(7 << 16)",
        "str r1, [r0]",
        "dsb",
        "isb",
        // Variables with a value.
        "ldr r0, =__data_start",
        "ldr r1, =__data_end",
        "ldr r2, =__data_source",
        "b 3f",
        "2: ldr r3, [r2], #4",
        "str r3, [r0], #4",
        "3: cmp r0, r1",
        "blo 2b",
        // Variables without, and the arena.
        "ldr r0, =__zero_start",
        "ldr r1, =__zero_end",
        "movs r2, #0",
        "b 5f",
        "4: str r2, [r0], #4",
        "5: cmp r0, r1",
        "blo 4b",
        // The stack.
        "ldr r0, =__stack_bottom",
        "ldr r1, =__stack_top",
        "ldr r2, ={paint}",
        "b 7f",
        "6: str r2, [r0], #4",
        "7: cmp r0, r1",
        "blo 6b",
        "msr psp, r1",
        "movs r0, #2",
        "msr control, r0",
        "isb",
        "bl {main}",
        paint = const memory::PAINT,
        main = sym crate::main,
    )
}

/// All exceptions end here: there are no interrupts, so each is a fault.
#[unsafe(naked)]
unsafe extern "C" fn exception() -> ! {
    naked_asm!("mrs r0, ipsr", "mrs r1, psp", "bl {faulted}", faulted = sym faulted)
}

/// Tells of a fault.
extern "C" fn faulted(exception: u32, stack: u32) -> ! {
    // SAFETY: Registers of every Cortex-M4 that say what a fault was; to read them changes nothing.
    let [status, memory, bus] =
        unsafe { [0xE000_ED28, 0xE000_ED34, 0xE000_ED38].map(|address| Register::at(address)) };
    let status = status.read();
    // Two units note addresses, each in a register of its own, and say in a bit whether they did.
    let address = match (status & 1 << 7, status & 1 << 15) {
        (0, 0) => 0,
        (0, _) => bus.read(),
        _ => memory.read(),
    };
    stop(
        &mut Uart::start(),
        format_args!(
            "fault: exception {exception}, status {status:#010x}, address {address:#010x}, stack at {stack:#010x}"
        ),
    )
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    stop(&mut Uart::start(), format_args!("{info}"))
}
