//! What may not be touched.
//!
//! On a chip there is nothing below RAM, and flash cannot be written by mistake. The emulated board takes writes to
//! both without a word, so the unit that protects memory makes them faults.

use core::arch::asm;

use llamita_qemu::Register;

// SAFETY: Registers of every Cortex-M4 that has the unit. It can only take rights away, from two ranges in which Rust has
// nothing that it writes.
const CONTROL: Register = unsafe { Register::at(0xE000_ED94) };
// SAFETY: The same unit.
const BASE: Register = unsafe { Register::at(0xE000_ED9C) };
// SAFETY: The same unit.
const ATTRIBUTES: Register = unsafe { Register::at(0xE000_EDA0) };

/// `BASE`: the number of the region, in the lowest bits, is valid.
const VALID: u32 = 1 << 4;
/// `ATTRIBUTES`: no access; reading only.
const NONE: u32 = 0;
const READ: u32 = 6 << 24;
/// `ATTRIBUTES`: normal memory, which may be cached and written through.
const NORMAL: u32 = 1 << 17;
/// `CONTROL`: the unit is on, and elsewhere everything is as without it.
const ON: u32 = 1 | 1 << 2;

/// From now on.
pub fn guard() {
    // 128 MB below RAM, for a stack that grows too far, and 4 MB of flash.
    protect(0, 0x1800_0000, 27, NONE);
    protect(1, 0x0000_0000, 22, READ | NORMAL);
    CONTROL.write(ON);
    // What comes next must not have been begun before.
    // SAFETY: Barriers wait, and change nothing.
    unsafe { asm!("dsb", "isb", options(nostack, preserves_flags)) };
}

/// Protects a region of `1 << bits` bytes.
fn protect(region: u32, base: u32, bits: u32, rights: u32) {
    BASE.write(base | VALID | region);
    ATTRIBUTES.write(rights | (bits - 1) << 1 | 1);
}
