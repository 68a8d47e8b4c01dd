//! What the emulated boards have in common. Each has a linker script of its own, and the same names in it.

#![no_std]

pub mod flash;
pub mod memory;

mod ending;
mod register;
mod semihosting;

pub use ending::{end, stop};
pub use register::Register;
