//! Sectors as blocks of `embedded-sdmmc`, which a device writes without a copy between.

#![allow(unsafe_code)]

use core::mem::offset_of;
use core::slice;

use embedded_sdmmc::Block;

use crate::sector::{SECTOR, Sector};

// A block is its bytes and nothing else. With another field this would not compile.
const _: fn(Block) -> [u8; SECTOR] = |Block { contents }| contents;
const _: () = assert!(size_of::<Block>() == SECTOR && size_of::<Sector>() == SECTOR);
const _: () = assert!(offset_of!(Block, contents) == 0 && align_of::<Block>() <= align_of::<Sector>());

/// The same memory, as blocks.
pub(super) fn as_blocks(sectors: &mut [Sector]) -> &mut [Block] {
    let (start, count) = (sectors.as_mut_ptr(), sectors.len());
    // SAFETY: The memory is that of the slice, borrowed for as long as the blocks are, and by nobody else. Both types
    // are 512 bytes of `u8` and nothing else, as the assertions above prove, so every block is at its sector's place,
    // aligned, and initialised, and whatever is written to it is a sector.
    unsafe { slice::from_raw_parts_mut(start.cast::<Block>(), count) }
}
