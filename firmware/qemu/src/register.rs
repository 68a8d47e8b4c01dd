//! Registers of devices.

/// A register of 32 bits.
pub struct Register(*mut u32);

impl Register {
    /// The register at an address.
    ///
    /// # Safety
    /// There is a register of a device, and neither to read nor to write it changes memory that Rust knows of.
    pub const unsafe fn at(address: usize) -> Self {
        Self(address as *mut u32)
    }

    /// What it says.
    pub fn read(&self) -> u32 {
        // SAFETY: Whoever made this vouched for a register at the address, which may be read at any time.
        unsafe { self.0.read_volatile() }
    }

    /// Tells it something.
    pub fn write(&self, value: u32) {
        // SAFETY: Whoever made this vouched for a register at the address that has no power over Rust's memory.
        unsafe { self.0.write_volatile(value) }
    }
}
