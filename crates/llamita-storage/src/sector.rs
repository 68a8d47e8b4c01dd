//! Memory in whole sectors, which is what media read.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a [`Sector`].
pub const SECTOR: usize = 512;

/// 512 bytes, aligned as vector units and DMA like it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Sector(pub [u8; SECTOR]);

impl Sector {
    /// Zeros, to make memory of.
    pub const ZERO: Self = Self([0; SECTOR]);

    /// Sectors for so many bytes.
    pub const fn count(bytes: u64) -> usize {
        bytes.div_ceil(SECTOR as u64) as usize
    }
}

/// Sectors as bytes.
pub fn bytes(sectors: &[Sector]) -> &[u8] {
    sectors.as_bytes()
}

/// Sectors as bytes that can be written.
pub fn bytes_mut(sectors: &mut [Sector]) -> &mut [u8] {
    sectors.as_mut_bytes()
}
