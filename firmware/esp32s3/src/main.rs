//! llamita on an ESP32-S3: the console on USB and on UART0, a model in a partition of the flash or on an SD card, memory
//! for it inside the chip and in PSRAM.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod board;
mod card;
mod console;
mod cores;
mod display;
mod flash;
mod memory;
mod power;
mod psram;
mod reads;
mod spi;

use core::pin::pin;

use esp_hal::Config;
use esp_hal::clock::CpuClock;
use esp_hal::delay::Delay;
use esp_hal::timer::systimer::{SystemTimer, Unit};
use esp_hal::xtensa_lx::timer::get_cycle_count;
use llamita_firmware::{EitherCard, Lent, Machine, Paced, Panel, SpiCard, run};
use llamita_kernels::Pair;
use llamita_storage::sd::BlockDevice;

use card::Card;
use console::Console;
use display::Display;
use spi::Bus;

esp_bootloader_esp_idf::esp_app_desc!();

/// The board.
struct Board {
    console: Console,
    display: Option<Paced<Display>>,
}

impl Machine for Board {
    type Console = Console;
    type Team = Pair<'static>;

    const NAME: &'static str = board::NAME;

    const FLASH_REMEDY: &'static str = "llamita flash -m MODEL writes one";

    /// Of the system timer, which no change of the cores' clock reaches.
    const TICKS_PER_SECOND: u64 = 16_000_000;

    fn console(&mut self) -> &mut Console {
        &mut self.console
    }

    fn ticks() -> u64 {
        SystemTimer::unit_value(Unit::Unit0)
    }

    fn cycles() -> Option<u32> {
        Some(get_cycle_count())
    }

    fn team(&self) -> Pair<'static> {
        cores::team()
    }

    fn feed() {
        power::feed();
    }

    fn panel(&mut self) -> Option<&mut dyn Panel> {
        self.display.as_mut().map(|display| display as &mut dyn Panel)
    }

    fn stack() -> Option<(usize, usize)> {
        Some(memory::stack())
    }
}

/// What the board does, once memory and stack are as Rust wants them.
#[esp_hal::main]
fn main() -> ! {
    cores::enable_coprocessors();
    let p = esp_hal::init(Config::default().with_cpu_clock(CpuClock::max()));
    memory::paint_stack();
    power::guard(p.RTC_TIMER);
    let console = Console::start(p.UART0, p.USB_DEVICE, p.GPIO43, p.GPIO44);

    // The flash first: PSRAM takes the addresses behind all that is mapped.
    let mapped = flash::model(p.FLASH, board::MODEL_PARTITION);
    let more = psram::start(p.PSRAM);
    if board::BOTH_CORES {
        cores::start(p.CPU_CTRL);
    }
    let (card_pins, bus_pins, display_pins) = board::pins!(p);
    let (bus, place) = Bus::start(p.SPI2, p.DMA_CH0, bus_pins);
    let card = SpiCard::new(place, Delay::new());
    // Before anyone else uses the bus: until it is told to use SPI, a card takes all for commands.
    let _ = card.num_blocks();
    let display = display::start(bus, display_pins).map(|display| Paced::new(display, Board::ticks));
    let desk = card::host(p.SDHOST, card_pins);
    let reading = pin!(desk.serve());
    let card = EitherCard::new(Card::new(&desk, reading), card);
    let mut board = Board { console, display };

    run(&mut board, Lent { memory: memory::arena(), more, mapped }, Some(&card));
    power::end(&mut board.console)
}
