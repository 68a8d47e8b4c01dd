//! llamita on a board: a console on a serial port, and stories of a model from flash or from a card.
//!
//! A board implements [`Machine`], lends its memory, and calls [`run`]. All else is the same on every board: finding
//! the models, placing one in the memory that there is, the console with its commands, and the errors, after each of
//! which the console lives on. What a person types is a line; a host program asks for JSON by `/json on` and gets an
//! object a line.
//!
//! Beside the memory that is lent, it takes stack: 24 KiB for models of up to 6 layers, 27 KiB for those of up to 16, 36 KiB
//! for those of up to 48, which is the most; and 14 KiB more while `/selftest` runs (Cortex-M, 2026).
//!
//! ```no_run
//! use llamita_firmware::{Lent, Machine, NoCard, run};
//! use llamita_storage::Sector;
//!
//! fn main_loop(board: &mut impl Machine, memory: &mut [Sector], flash: &[u8]) {
//!     run(board, Lent { memory, more: &mut [], mapped: Some(flash) }, None::<&NoCard>);
//! }
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod app;
mod arena;
mod card;
mod check;
mod command;
mod decimal;
mod editor;
mod either_card;
#[cfg(feature = "kernels")]
mod kernels;
mod load;
mod models;
mod panel;
mod place;
mod port;
mod rates;
#[cfg(feature = "spi-card")]
mod spi_card;
mod stats;
mod tell;
mod text;

pub use card::{Card, NoCard};
pub use either_card::{EitherCard, EitherDevice, EitherError, EitherSource};
pub use panel::{Paced, Panel};
#[cfg(feature = "spi-card")]
pub use spi_card::{CardSpi, SpiCard, SpiCardError};

pub use llamita::{Solo, Team};
use llamita_storage::Sector;

/// What the application needs of a board.
pub trait Machine {
    /// Serial port. Reads are asked for only when one is ready.
    type Console: embedded_io::Read + embedded_io::ReadReady + embedded_io::Write;

    /// The cores that compute: [`Solo`] where there is one.
    type Team: Team;

    /// The port.
    fn console(&mut self) -> &mut Self::Console;

    /// The cores, for a model; there is no other at the time.
    fn team(&self) -> Self::Team;

    /// A counter that never goes back: cycles, or instructions on an emulator.
    fn ticks() -> u64;

    /// Ticks of a second.
    const TICKS_PER_SECOND: u64;

    /// A counter of the asking core's cycles, or instructions on an emulator, that comes around; for `/kernels`, where there
    /// is one.
    fn cycles() -> Option<u32> {
        None
    }

    /// What the board is called.
    const NAME: &'static str;

    /// How a model comes into the flash of this board, for somebody who finds none there.
    const FLASH_REMEDY: &'static str = "write a GGUF file there as the board wants it";

    /// Tells the watchdog that all is well. It is asked for several times a layer, before each read from a card, all
    /// through a self-test, and while waiting for keys: as [`ticks`](Self::ticks), where nobody has the machine.
    fn feed() {}

    /// What shows the story besides, if the board has something.
    fn panel(&mut self) -> Option<&mut dyn Panel> {
        None
    }

    /// Bytes of the stack that have been used so far, and all that it has, if the board knows.
    fn stack() -> Option<(usize, usize)> {
        None
    }
}

/// The ticks of a machine for those who ask for them in the midst of a pass, so that its watchdog is fed there.
fn watched_ticks<M: Machine>() -> u64 {
    M::feed();
    M::ticks()
}

/// What the board lends.
pub struct Lent<'m> {
    /// All memory for a model: state, buffers, pinned weights, tokenizer index, tokens (aligned sectors).
    pub memory: &'m mut [Sector],
    /// More of it that is slower, such as PSRAM beside the chip; or none.
    pub more: &'m mut [Sector],
    /// A model in memory-mapped flash, if there is one.
    pub mapped: Option<&'m [u8]>,
}

/// Runs the console until the host asks to end it by `/quit`, or for ever.
///
/// The only model that there is is loaded at once; of several, one is chosen by `/model`.
pub fn run<M: Machine, C: Card>(machine: &mut M, lent: Lent<'_>, card: Option<&C>) {
    app::App::new(machine, lent.mapped, card).run([lent.memory, lent.more]);
}
