//! Places for cards, with cards that are imitated.

mod either;
#[cfg(feature = "spi-card")]
mod spi;
