//! The model, which somebody has written to flash behind the program.
//!
//! Flash does not say where its contents end, so there is a header: `LLMF`, four bytes of zero, and the length of what
//! follows at the next multiple of 64, as 64 bits with the low byte first.

use core::ops::Range;
use core::{ptr, slice};

const MAGIC: [u8; 4] = *b"LLMF";
/// The model's distance from the header: numbers in it can be used where they are.
const OFFSET: usize = 64;

/// The model in a range of addresses that begins with its header, if there is one.
///
/// # Safety
/// There is memory at all of these addresses, none of it has an object of Rust's, and nobody writes to it.
pub unsafe fn model(flash: Range<usize>) -> Option<&'static [u8]> {
    let room = flash.len().checked_sub(OFFSET)?;
    let header: *const [u8; 16] = ptr::with_exposed_provenance(flash.start);
    // SAFETY: There is memory for a header, as the range was just found to be longer and the caller vouches for it; any
    // bytes will do.
    let header = unsafe { header.read_volatile() };
    let (magic, length) = (header.first_chunk::<4>()?, header.last_chunk::<8>()?);
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    if *magic != MAGIC || length > room {
        return None;
    }
    let model: *const u8 = ptr::with_exposed_provenance(flash.start + OFFSET);
    // SAFETY: The bytes lie behind the header and within the range, as was just checked, and the caller vouches that they
    // are there and stay as they are.
    Some(unsafe { slice::from_raw_parts(model, length) })
}
