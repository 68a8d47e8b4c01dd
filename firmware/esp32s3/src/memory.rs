//! The memory inside the chip, as the linker script divides it.

use core::sync::atomic::{AtomicBool, Ordering};
use core::{ptr, slice};

use llamita_storage::Sector;

/// What the stack is painted with, to see later how much of it was used.
const PAINT: u32 = 0xC5C5_C5C5;
/// Bytes at the lower end of the stack that stay as they are: esp-hal watches a word there.
const GUARD: usize = 64;
/// Bytes below the caller's frame that the painting itself may use.
const FRAME: usize = 1024;

unsafe extern "C" {
    // Places alone: what lies there is reached by their addresses.
    static mut __arena_start: [Sector; 0];
    static mut __arena_end: [Sector; 0];
    static mut _stack_end: [u32; 0];
    static mut _stack_start: [u32; 0];
}

/// The memory for the engine: all of it for whoever asks first, then none.
pub fn arena() -> &'static mut [Sector] {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return &mut [];
    }
    let (start, end) = ((&raw mut __arena_start).expose_provenance(), (&raw const __arena_end).addr());
    // SAFETY: The linker script sets these bytes aside for this alone, from a multiple of 64 on. They are written before
    // anyone reads them, any bytes are sectors, and since the flag is set they are lent only once.
    unsafe { sectors(start, end - start) }
}

/// Memory as sectors, cleared.
///
/// # Safety
/// There is memory, from a multiple of 64 on, which from now on is used by this alone.
pub unsafe fn sectors(start: usize, len: usize) -> &'static mut [Sector] {
    let (start, count) = (ptr::with_exposed_provenance_mut::<Sector>(start), len / size_of::<Sector>());
    // SAFETY: The caller says that the memory is there and nobody else's.
    unsafe {
        start.write_bytes(0, count);
        slice::from_raw_parts_mut(start, count)
    }
}

/// The lower and the upper end of the stack.
fn stack_ends() -> (usize, usize) {
    ((&raw mut _stack_end).expose_provenance(), (&raw const _stack_start).addr())
}

/// Paints the part of the stack that is not used yet.
#[inline(never)]
pub fn paint_stack() {
    let here = 0_u32;
    let (bottom, _) = stack_ends();
    let top = (&raw const here).addr() - FRAME;
    for at in (bottom + GUARD..top).step_by(size_of::<u32>()) {
        // SAFETY: The word is of the stack, and below what this function and those it calls use.
        unsafe { ptr::with_exposed_provenance_mut::<u32>(at).write_volatile(PAINT) };
    }
}

/// Bytes of the stack that have been used so far, and all that it has.
pub fn stack() -> (usize, usize) {
    let (bottom, top) = stack_ends();
    let word = |at: &usize| ptr::with_exposed_provenance::<u32>(*at);
    let mut words = (bottom + GUARD..top).step_by(size_of::<u32>());
    // SAFETY: Every word lies between the two ends of the stack. The read is volatile, so nothing is assumed of what it
    // finds.
    let used = words.find(|at| unsafe { word(at).read_volatile() } != PAINT);
    (top - used.unwrap_or(top), top - bottom)
}
