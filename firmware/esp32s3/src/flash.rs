//! The model in a partition of the flash, mapped into memory.

use core::{ptr, slice};

use esp_hal::peripherals::{EXTMEM, FLASH, MMU_TABLE};
use esp_hal::ram;

/// Bytes of a page that is mapped.
const PAGE: u32 = 64 << 10;
/// Where the first page is mapped to.
const BASE: u32 = 0x3C00_0000;
/// The bootloader keeps the last page for itself.
const PAGES: usize = 511;

unsafe extern "C" {
    // Functions in ROM, see `esp32s3/rom/cache.h` of ESP-IDF.
    fn Cache_Suspend_DCache() -> u32;
    fn Cache_Resume_DCache(autoload: u32);
    fn cache_dbus_mmu_set(memory: u32, at: u32, from: u32, page_kb: u32, pages: u32, fixed: u32) -> i32;
}

/// Where the partition table is, which has up to 95 entries and begins each with the same two bytes.
const TABLE: usize = 0x8000;
const ENTRY: [u8; 2] = [0xAA, 0x50];

/// The partition of a name, if there is one.
///
/// The table is read by the mapping as well: the functions in ROM that read flash have to know how the bootloader has set
/// it up, on how many lines it answers above all.
pub fn model(_flash: FLASH<'static>, name: &str) -> Option<&'static [u8]> {
    let page = map(0, PAGE)? as usize;
    // SAFETY: These addresses show the first page of the flash from now on, and as long as its only owner is here nobody
    // writes to it.
    let table: &[[u8; 32]; 95] = unsafe { &*ptr::with_exposed_provenance(page + TABLE) };
    let entry = table.iter().take_while(|entry| entry.starts_with(&ENTRY)).find(|entry| {
        let label = entry[12..28].split(|&byte| byte == 0).next();
        label == Some(name.as_bytes())
    })?;
    let number = |at: usize| entry[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let (offset, len) = (number(4)?, number(8)?);
    let at = map(offset, len)? as usize;
    // SAFETY: These addresses show the partition from now on, and nobody writes to it, as above.
    Some(unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(at), len as usize) })
}

/// Maps flash behind all that is mapped so far. Returns where.
fn map(offset: u32, len: u32) -> Option<u32> {
    let first = (0..PAGES).rev().find(|&page| !MMU_TABLE::regs().entry(page).read().invalid().bit());
    let first = first.map_or(0, |last| last + 1);
    let count = len.div_ceil(PAGE);
    if !offset.is_multiple_of(PAGE) || first + count as usize > PAGES {
        return None;
    }
    let at = BASE + first as u32 * PAGE;
    (show(at, offset, count) == 0).then_some(at)
}

/// Has pages of flash shown at addresses. The data cache rests meanwhile, so nothing that it may hold is used.
#[ram]
fn show(at: u32, offset: u32, count: u32) -> i32 {
    // SAFETY: The functions are where ESP-IDF's linker script says, and called in the order of its `mmu_map`. Nothing has
    // used these addresses. This function and the stack are in memory inside the chip, and interrupts need none other.
    unsafe {
        let autoload = Cache_Suspend_DCache();
        let result = cache_dbus_mmu_set(0, at, offset, PAGE / 1024, count, 0);
        let bus = EXTMEM::regs().dcache_ctrl1();
        bus.modify(|_, w| w.dcache_shut_core0_bus().clear_bit().dcache_shut_core1_bus().clear_bit());
        Cache_Resume_DCache(autoload);
        result
    }
}
