//! Where a model's weights live.
//!
//! Every token reads every weight once, so where they lie decides how fast a model is. With the feature
//! `mmap`, for machines with an operating system, `ModelFile` holds a file's bytes: mapped, or copied to
//! memory of huge pages where that is worth the time.
//!
//! Without features the crate is `no_std` and empty so far. Weights on chips will be here: a plan of what is
//! pinned in which memory and what is streamed, from flash or a card, while the arithmetic goes on.

#![cfg_attr(not(feature = "mmap"), no_std)]
#![deny(unsafe_code)]

#[cfg(feature = "mmap")]
mod error;
#[cfg(feature = "mmap")]
mod mmap;
#[cfg(feature = "mmap")]
mod model_file;

#[cfg(feature = "mmap")]
pub use error::{OpenError, Reason};
#[cfg(feature = "mmap")]
pub use model_file::{ModelFile, Placement};
