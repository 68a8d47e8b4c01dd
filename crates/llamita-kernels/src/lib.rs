//! The arithmetic of llamita: matrix products, attention and the functions around them.
//!
//! [`Kernels`] holds one implementation, chosen for the CPU at hand. `scalar.rs` defines every answer and
//! the others give the same bits, with one exception: where a CPU fuses multiplication and addition, the
//! matrix product of floats uses it, and [`Kernels::matmul`] states how far results may differ.
//!
//! A [`Team`] runs a step of work on several cores.

#![cfg_attr(not(any(test, feature = "std")), no_std)]
// The compilers for the ESP32-S3 are not stable ones.
#![cfg_attr(llamita_pie, feature(asm_experimental_arch))]

mod arch;
mod attention;
mod cache;
mod kernels;
pub mod quantized;
mod rows;
mod scalar;
mod team;
mod words;

pub use cache::{Cache, CacheFormat, CacheMut};
pub use kernels::Kernels;
pub use rows::Rows;
#[cfg(feature = "std")]
pub use team::Threads;
pub use team::{Meeting, Pair, Panel, Solo, Team};

/// Sums run in this many lanes on every machine, so that they round alike.
pub const LANES: usize = 8;
