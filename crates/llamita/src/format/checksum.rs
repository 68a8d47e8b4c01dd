//! Checksums of tensors.

#[cfg(not(feature = "std"))]
use crc::{CRC_32_ISO_HDLC, Crc, Digest, Table};

/// The CRC-32 of zlib and PNG, of bytes that come a few at a time.
#[derive(Clone)]
pub struct Checksum(Sum);

#[cfg(feature = "std")]
type Sum = crc32fast::Hasher;
// Without vectors speed is a matter of tables, and the fastest have 16 KB: too much for a chip.
#[cfg(not(feature = "std"))]
type Sum = Digest<'static, u32, Table<1>>;

impl Checksum {
    /// The checksum of nothing.
    pub fn new() -> Self {
        #[cfg(feature = "std")]
        return Self(crc32fast::Hasher::new());
        #[cfg(not(feature = "std"))]
        {
            static CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);
            Self(CRC.digest())
        }
    }

    /// The checksum of these bytes.
    pub fn of(bytes: &[u8]) -> u32 {
        let mut sum = Self::new();
        sum.update(bytes);
        sum.finish()
    }

    /// Adds bytes behind those before.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far.
    pub fn finish(&self) -> u32 {
        self.0.clone().finalize()
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_standard() {
        // The check value of CRC-32/ISO-HDLC in the RevEng catalogue.
        assert_eq!(Checksum::of(b"123456789"), 0xcbf4_3926);
        let mut sum = Checksum::new();
        sum.update(b"1234");
        sum.update(b"56789");
        assert_eq!(sum.finish(), 0xcbf4_3926);
    }
}
