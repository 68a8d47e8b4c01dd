//! The memory that the linker script has set aside.
//!
//! The stack lies at the very bottom, so that one that grows too far meets addresses that cannot be written instead of
//! somebody else's bytes. Before the first line of Rust it is painted, and the arena is cleared.

use core::sync::atomic::{AtomicBool, Ordering};
use core::{ptr, slice};

use llamita_storage::Sector;

/// What the stack is painted with. The boards' startup code has the same number.
pub const PAINT: u32 = 0xC5C5_C5C5;

unsafe extern "C" {
    // Places alone: what lies there is reached by their addresses.
    static mut __stack_bottom: [u32; 0];
    static mut __stack_top: [u32; 0];
    static mut __arena_start: [Sector; 0];
    static mut __arena_end: [Sector; 0];
}

/// The memory for the engine: all of it for whoever asks first, then none.
pub fn arena() -> &'static mut [Sector] {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // There is one core and no interrupt, so nobody comes between these two.
    if TAKEN.load(Ordering::Relaxed) {
        return &mut [];
    }
    TAKEN.store(true, Ordering::Relaxed);
    let (start, end) = ((&raw mut __arena_start).expose_provenance(), (&raw const __arena_end).addr());
    let sectors = (end - start) / size_of::<Sector>();
    // SAFETY: The linker script sets these bytes aside for this alone, from a multiple of 64 on, and the startup code has
    // cleared them; any bytes are sectors. Since the flag is set, they are lent only once.
    unsafe { slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut(start), sectors) }
}

/// Bytes of the stack that have been used so far, and all that it has.
pub fn stack() -> (usize, usize) {
    let (bottom, top) = ((&raw mut __stack_bottom).expose_provenance(), (&raw const __stack_top).addr());
    let words = (top - bottom) / size_of::<u32>();
    let word = |at: usize| ptr::with_exposed_provenance::<u32>(bottom + at * size_of::<u32>());
    // SAFETY: Every word lies between the two ends of the stack, which is memory and was painted. The read is volatile,
    // so nothing is assumed of what it finds, and the search ends at the first word that somebody has used.
    let painted = (0..words).take_while(|&at| unsafe { word(at).read_volatile() } == PAINT).count();
    ((words - painted) * size_of::<u32>(), words * size_of::<u32>())
}
