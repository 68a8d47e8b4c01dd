//! llamita on a 32-bit RISC-V without floats and with 256 KB of RAM, as QEMU imitates it on the board `sifive_u`. The
//! model lies in mapped flash, or on an SD card, from which what has no room is read for every token.

#![no_std]
#![no_main]

mod clock;
mod emulated;
mod spi;
mod startup;
mod uart;

use core::ops::Range;

use emulated::Emulated;
use llamita_firmware::{Lent, Machine, Solo, SpiCard, run};
use llamita_qemu::{flash, memory};
use spi::Spi;
use uart::Uart;

/// The board.
struct Board {
    console: Uart,
}

impl Machine for Board {
    type Console = Uart;
    type Team = Solo;

    const NAME: &'static str = "QEMU sifive_u, RV32IMAC";

    /// A tick is an instruction where the emulator takes a nanosecond for each.
    const TICKS_PER_SECOND: u64 = clock::TICKS_PER_SECOND;

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

/// Where a model may be besides on the card. The startup code protects it as flash.
const FLASH: Range<usize> = 0x8020_0000..0x8040_0000;

/// What the board does, once memory and stack are as Rust wants them.
extern "C" fn main() -> ! {
    let mut board = Board { console: Uart::start() };
    let card = SpiCard::new(Emulated::new(Spi::start()), clock::Clock);
    // SAFETY: The board has memory there, the linker script leaves it alone, and no program can write to it any more.
    let mapped = unsafe { flash::model(FLASH) };
    let lent = Lent { memory: memory::arena(), more: &mut [], mapped };
    run(&mut board, lent, Some(&card));
    llamita_qemu::end(&mut board.console)
}
