//! Memory for a model, handed out piece by piece.

use core::fmt;
use core::mem;

use llamita_storage::{SECTOR, Sector};
use zerocopy::{FromBytes, IntoBytes};

/// The memories that were lent, the faster one first; the other may be empty.
pub(crate) type Memories<'m> = [&'m mut [Sector]; 2];

/// Hands out the memory that was lent, from its beginning on. What was handed out is free again when the next arena is
/// made of the same memory.
pub(crate) struct Arena<'m> {
    rest: &'m mut [Sector],
}

/// What may have nothing.
pub(crate) trait Room {
    fn has_room(&self) -> bool;
}

impl Room for &mut [Sector] {
    fn has_room(&self) -> bool {
        !self.is_empty()
    }
}

impl Room for Arena<'_> {
    fn has_room(&self) -> bool {
        self.rest.has_room()
    }
}

/// There is less memory than something needs: what for, bytes needed, bytes left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short(pub &'static str, pub u64, pub u64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(what, needed, left) = self;
        write!(
            f,
            "there is too little memory: {what} needs {needed} bytes, {left} are left; take a smaller model, or a \
             shorter /context"
        )
    }
}

impl<'m> Arena<'m> {
    pub fn new(memory: &'m mut [Sector]) -> Self {
        Self { rest: memory }
    }

    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        (self.rest.len() * SECTOR) as u64
    }

    /// Whole sectors.
    pub fn sectors(&mut self, count: usize, what: &'static str) -> Result<&'m mut [Sector], Short> {
        if count > self.rest.len() {
            return Err(Short(what, (count as u64).saturating_mul(SECTOR as u64), self.left()));
        }
        let (taken, rest) = mem::take(&mut self.rest).split_at_mut(count);
        self.rest = rest;
        Ok(taken)
    }

    /// Numbers of any type, with whatever was in their place. They begin with a sector.
    pub fn numbers<T: FromBytes + IntoBytes>(
        &mut self,
        len: usize,
        what: &'static str,
    ) -> Result<&'m mut [T], Short> {
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        // More than can be addressed is more than there is.
        let count = usize::try_from(bytes.div_ceil(SECTOR as u64)).unwrap_or(usize::MAX);
        let short = Short(what, bytes, self.left());
        let sectors = self.sectors(count, what).map_err(|_| short)?;
        let place = &mut sectors.as_mut_bytes()[..len * size_of::<T>()];
        // A sector is aligned as no number is.
        <[T]>::mut_from_bytes(place).map_err(|_| short)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;

    use super::*;

    #[test]
    fn pieces_follow_each_other_and_end_in_an_error() {
        let mut memory = vec![Sector([7; SECTOR]); 5];
        let mut arena = Arena::new(&mut memory);
        assert_eq!(arena.numbers::<u32>(129, "a").unwrap(), [0x0707_0707; 129]);
        assert_eq!(arena.left(), 3 * 512);
        arena.numbers::<f32>(128, "b").unwrap().fill(1.0);
        assert_eq!(arena.sectors(3, "c").unwrap_err(), Short("c", 1536, 1024));
        assert_eq!(arena.numbers::<f32>(257, "d").unwrap_err(), Short("d", 1028, 1024));
        assert_eq!(arena.numbers::<u64>(usize::MAX / 8, "e").unwrap_err().2, 1024);
        assert_eq!(arena.sectors(2, "f").unwrap().len(), 2);
        assert_eq!(arena.left(), 0);
        assert_eq!(arena.numbers::<u8>(0, "g").unwrap().len(), 0);
    }
}
