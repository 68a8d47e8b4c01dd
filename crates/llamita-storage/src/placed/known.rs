//! Portions that were found before: to find one takes longer than a product of a small model.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::portions::{Place, Portion, Position};

/// Portions of a model that are known, at most, and an end.
const MOST: usize = 64;
/// Numbers of memory for them.
pub(super) const LEN: usize = MOST * size_of::<Known>() / size_of::<f32>();
/// In place of a memory's number.
const HOME: u16 = u16::MAX;

/// Where a portion begins. It ends where the next one does; the last of the known is an end alone.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Known {
    row: u32,
    /// In the file.
    start: u32,
    /// In the memory.
    at: u32,
    tensor: u16,
    memory: u16,
}

impl Known {
    /// `None` where a number is too large, which it can only be on machines that need not save memory or time.
    fn new(first: Position, start: u64, place: Place) -> Option<Self> {
        let (memory, at) = match place {
            Place::Pinned(memory, at) => (u16::try_from(memory).ok()?, u32::try_from(at).ok()?),
            Place::Home => (HOME, 0),
        };
        let (tensor, row) = (u16::try_from(first.tensor).ok()?, u32::try_from(first.row).ok()?);
        Some(Self { row, start: u32::try_from(start).ok()?, at, tensor, memory })
    }

    fn position(&self) -> Position {
        Position { tensor: self.tensor.into(), row: self.row as usize }
    }
}

/// Writes down as many of the portions, which follow one another, as there is memory for.
pub(super) fn know(portions: impl Iterator<Item = (Portion, Place)>, memory: &mut [f32]) -> &[Known] {
    let len = LEN.min(memory.len());
    let Ok(known) = <[Known]>::mut_from_bytes(memory[..len].as_mut_bytes()) else { return &[] };
    let mut count = 0;
    for (portion, place) in portions {
        let both = [
            (portion.first, portion.start, place),
            (portion.end, portion.start + portion.len as u64, Place::Home),
        ];
        let [Some(this), Some(end)] = both.map(|(at, start, place)| Known::new(at, start, place)) else {
            break;
        };
        let Some(room) = known.get_mut(count..count + 2) else { break };
        room.copy_from_slice(&[this, end]);
        count += 1;
    }
    &known[..if count == 0 { 0 } else { count + 1 }]
}

/// The portion that has a row, if it is known. It is looked for at `next` first, which becomes the one behind it: they are
/// asked for one after another.
pub(super) fn find(known: &[Known], next: &mut usize, position: Position) -> Option<(Portion, Place)> {
    let pair = |at: usize| Some((known.get(at)?, known.get(at + 1)?));
    let has = |(this, end): &(&Known, &Known)| (this.position()..end.position()).contains(&position);
    if !pair(*next).is_some_and(|pair| has(&pair)) {
        *next = known.partition_point(|known| known.position() <= position).checked_sub(1)?;
    }
    let (this, end) = pair(*next)?;
    *next += 1;
    let place = match this.memory {
        HOME => Place::Home,
        memory => Place::Pinned(memory.into(), this.at as usize),
    };
    let len = end.start.saturating_sub(this.start) as usize;
    Some((Portion { first: this.position(), end: end.position(), start: this.start.into(), len }, place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn a_row_is_found_in_its_portion() {
        let at = |tensor, row| Position { tensor, row };
        let portion = |first, end, start| Portion { first, end, start, len: 100 };
        let places = [Place::Home, Place::Pinned(1, 64)];
        let walk = (0..100).map(|i| (portion(at(i, 8), at(i + 1, 8), 100 * i as u64), places[i % 2]));
        let mut memory = vec![0.0; LEN];
        let known = know(walk, &mut memory);
        assert_eq!(known.len(), MOST);
        let next = &mut 0;
        assert_eq!(find(known, next, at(0, 7)), None);
        assert_eq!(find(known, next, at(0, 8)), Some((portion(at(0, 8), at(1, 8), 0), Place::Home)));
        assert_eq!(
            find(known, next, at(6, 7)),
            Some((portion(at(5, 8), at(6, 8), 500), Place::Pinned(1, 64)))
        );
        assert_eq!(find(known, next, at(62, 9)).map(|(portion, _)| portion.end), Some(at(63, 8)));
        assert_eq!(find(known, next, at(63, 8)), None);
        // One after another, and from the start anew.
        for i in (0..63).chain(0..3) {
            assert_eq!(find(known, next, at(i, 9)).map(|(portion, _)| portion.first), Some(at(i, 8)));
            assert_eq!(*next, i + 1);
        }
        assert!(find(&[], next, at(1, 8)).is_none());
        // What does not fit is not known.
        let large = (portion(at(0, 0), at(1, 0), 1 << 40), Place::Home);
        assert!(know([large].into_iter(), &mut memory).is_empty());
    }
}
