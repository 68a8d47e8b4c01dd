//! llamita on a Cortex-M4 with 256 KB of RAM, as QEMU imitates it on the board `mps2-an386`. The model lies in flash
//! and is used where it is.

#![no_std]
#![no_main]

mod clock;
mod mpu;
mod startup;
mod uart;

use core::ops::Range;

use llamita_firmware::{Lent, Machine, NoCard, Solo, run};
use llamita_qemu::{flash, memory};
use uart::Uart;

/// The board.
struct Board {
    console: Uart,
}

impl Machine for Board {
    type Console = Uart;
    type Team = Solo;

    const NAME: &'static str = "QEMU mps2-an386, Cortex-M4F";

    /// A tick of the board's clock is 40 instructions where the emulator takes a nanosecond for each.
    const TICKS_PER_SECOND: u64 = clock::TICKS_PER_SECOND;

    const FLASH_REMEDY: &'static str = "`cargo xtask firmware run qemu-cortex-m --console --model FILE` writes a GGUF file to \
                                        0x200000, behind a header of 64 bytes that begins with LLMF and tells its length";

    fn console(&mut self) -> &mut Uart {
        &mut self.console
    }

    fn team(&self) -> Solo {
        Solo
    }

    fn ticks() -> u64 {
        clock::ticks()
    }

    fn stack() -> Option<(usize, usize)> {
        Some(memory::stack())
    }
}

/// Where the model is: what the board has of flash behind the program's megabyte and another.
const FLASH: Range<usize> = 0x0020_0000..0x0040_0000;

/// What the board does, once memory and stack are as Rust wants them.
extern "C" fn main() -> ! {
    mpu::guard();
    clock::start();
    let mut board = Board { console: Uart::start() };
    // SAFETY: The board has memory there, the linker script leaves it alone, and no program can write to it any more.
    let mapped = unsafe { flash::model(FLASH) };
    let lent = Lent { memory: memory::arena(), more: &mut [], mapped };
    run(&mut board, lent, None::<&NoCard>);
    llamita_qemu::end(&mut board.console)
}
