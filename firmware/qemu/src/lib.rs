//! What the emulated boards have in common. Each has a linker script of its own, and the same names in it.

#![no_std]

pub mod flash;
pub mod memory;
pub mod semihosting;

mod register;

pub use register::Register;
