//! The system's two ways to memory for a file.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapMut, MmapOptions};

/// Size of a huge page on every system that has them and that llamita knows of, in bytes.
const HUGE_PAGE: usize = 2 << 20;

/// Maps the first `len` bytes of a file, to be read only.
pub(crate) fn map(file: &File, len: usize) -> io::Result<Mmap> {
    // SAFETY: The map is private to us and only read, so nothing in this program changes the bytes. That no
    // other program changes the file meanwhile cannot be checked or prevented here: like every user of file
    // maps we assume it, and `ModelFile` says so. The assumption is needed: the bytes are lent as a slice,
    // which must not change, and names and tokens as text that was found to be UTF-8 once.
    unsafe { MmapOptions::new().len(len).map(file) }
}

/// New memory of huge pages, where the system has them, and where in it to put `len` bytes so that byte
/// `first` of them is at a multiple of 64.
pub(crate) fn huge_pages(len: usize, first: usize) -> io::Result<(MmapMut, usize)> {
    // Room to begin at a huge page, wherever the system puts the memory. What is never touched costs nothing.
    let room = len.checked_add(HUGE_PAGE + 64).ok_or(io::ErrorKind::OutOfMemory)?;
    let memory = MmapOptions::new().len(room).map_anon()?;
    let address = memory.as_ptr().addr();
    let begin = address.next_multiple_of(HUGE_PAGE) - address;
    // Without huge pages it is slower, no more. For less than two of them they would be mostly empty, and so would
    // be one for the end of the bytes.
    #[cfg(target_os = "linux")]
    if len >= 2 * HUGE_PAGE {
        let whole = len / HUGE_PAGE * HUGE_PAGE;
        let _ = memory.advise_range(memmap2::Advice::HugePage, begin, whole);
    }
    Ok((memory, begin + first.wrapping_neg() % 64))
}
