//! Where a model's weights live.
//!
//! Every token reads every weight once, in the same order, so where they lie decides how fast a model is. A
//! [`Board`] says what memories and which medium a machine has; [`plan`](plan()) says what of a model is best pinned in
//! which of them, what is streamed, and what a token takes then; [`Placed`] lends weights from these places, and reads
//! what comes next from a [`Source`] while the arithmetic goes on.
//!
//! All of that is `no_std` and allocates nothing. With the feature `std`, for machines with an operating system,
//! `ModelFile` holds a file's bytes, mapped or in huge pages; `file` reads a file on a thread of its own, and `simulate`
//! imitates a board. With the feature `sd`, files come from FAT volumes on any block device.

#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

mod board;
mod cost;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "std")]
mod file;
#[cfg(feature = "std")]
mod mmap;
#[cfg(feature = "std")]
mod model_file;
mod placed;
mod plan;
mod portions;
mod reader;
#[cfg(feature = "sd")]
pub mod sd;
mod sector;
#[cfg(feature = "std")]
pub mod simulate;
mod source;

pub use board::{Board, Cycles, MEMORIES, Medium, Memory};
pub use cost::{Costs, stage};
#[cfg(feature = "std")]
pub use error::{OpenError, Reason};
#[cfg(feature = "std")]
pub use file::FileSource;
#[cfg(feature = "std")]
pub use model_file::{ModelFile, Placement};
pub use placed::{Error, Home, Lent, Placed, Verify, norms_len, single_len};
pub use plan::{Bound, Plan, PlanError, Request, Time, bytes_of, plan, predict};
pub use portions::{Cursor, Pinning, Place, Portion, Portions, Position};
pub use reader::{Cause, Patience, ReadError, Reader, Span, Stats};
pub use sector::{SECTOR, Sector};
pub use source::{Finished, InMemory, MOST_READS, Source, read_len};
