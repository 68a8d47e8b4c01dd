//! A board with two places for a card.

use core::cell::Cell;
use core::fmt;

use llamita_storage::sd::{Block, BlockCount, BlockDevice, BlockIdx, Extents};
use llamita_storage::{Finished, MOST_READS, Sector, Source};

use crate::Card;

/// Two places for a card: what is read is the first one that starts. They are asked again, one after the other, after
/// each error: it may have been put from one into the other.
#[derive(Debug)]
pub struct EitherCard<A, B>(EitherDevice<A, B>);

impl<A: Card, B: Card> EitherCard<A, B> {
    /// The places, before a card was looked for.
    pub const fn new(first: A, second: B) -> Self {
        Self(EitherDevice { first, second, found: Cell::new(None) })
    }
}

impl<A: Card, B: Card> Card for EitherCard<A, B> {
    type Device = EitherDevice<A, B>;
    type Source<'s>
        = EitherSource<'s, A, B>
    where
        Self: 's;

    // Of the place that has more: memory is lent before it is known which place has the card.
    const BUFFERS: usize = if A::BUFFERS > B::BUFFERS { A::BUFFERS } else { B::BUFFERS };

    fn device(&self) -> &Self::Device {
        &self.0
    }

    fn source<'s>(&'s self, extents: Extents<'s>) -> Self::Source<'s> {
        let device = &self.0;
        let last = device.found.get().unwrap_or(Place::First);
        let (first, second) = (device.first.source(extents), device.second.source(extents));
        EitherSource { device, first, second, places: [last; MOST_READS], len: 0, last }
    }
}

/// The device of the place that has the card.
#[derive(Debug)]
pub struct EitherDevice<A, B> {
    first: A,
    second: B,
    found: Cell<Option<Place>>,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    First,
    Second,
}

/// What the cards of two places did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EitherError<A, B> {
    /// The first could be started, and not be read.
    First(A),
    /// The second could be started, and not be read.
    Second(B),
    /// None could be started.
    Neither(A, B),
}

impl<A: fmt::Display, B: fmt::Display> fmt::Display for EitherError<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(error) => error.fmt(f),
            Self::Second(error) => error.fmt(f),
            Self::Neither(first, second) => write!(f, "{first}; {second}"),
        }
    }
}

impl<A: core::error::Error, B: core::error::Error> core::error::Error for EitherError<A, B> {}

type DeviceError<C> = <<C as Card>::Device as BlockDevice>::Error;
type Outcome<T, A, B> = Result<T, EitherError<DeviceError<A>, DeviceError<B>>>;

impl<A: Card, B: Card> EitherDevice<A, B> {
    fn find(&self) -> Outcome<Place, A, B> {
        if let Some(place) = self.found.get() {
            return Ok(place);
        }
        let place = match self.first.device().num_blocks() {
            Ok(_) => Place::First,
            Err(first) => match self.second.device().num_blocks() {
                Ok(_) => Place::Second,
                Err(second) => return Err(EitherError::Neither(first, second)),
            },
        };
        self.found.set(Some(place));
        Ok(place)
    }

    /// After an error both are looked at again.
    fn watch<T, E>(&self, outcome: Result<T, E>) -> Result<T, E> {
        outcome.inspect_err(|_| self.found.set(None))
    }
}

impl<A: Card, B: Card> BlockDevice for EitherDevice<A, B> {
    type Error = EitherError<DeviceError<A>, DeviceError<B>>;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Self::Error> {
        self.watch(match self.find()? {
            Place::First => self.first.device().read(blocks, start).map_err(EitherError::First),
            Place::Second => self.second.device().read(blocks, start).map_err(EitherError::Second),
        })
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), Self::Error> {
        self.watch(match self.find()? {
            Place::First => self.first.device().write(blocks, start).map_err(EitherError::First),
            Place::Second => self.second.device().write(blocks, start).map_err(EitherError::Second),
        })
    }

    fn num_blocks(&self) -> Result<BlockCount, Self::Error> {
        self.watch(match self.find()? {
            Place::First => self.first.device().num_blocks().map_err(EitherError::First),
            Place::Second => self.second.device().num_blocks().map_err(EitherError::Second),
        })
    }
}

/// A file on the card that is in one of the places, each of which reads in its own way.
pub struct EitherSource<'s, A: Card + 's, B: Card + 's> {
    device: &'s EitherDevice<A, B>,
    first: A::Source<'s>,
    second: B::Source<'s>,
    /// Where the reads go that are under way, the oldest first.
    places: [Place; MOST_READS],
    len: usize,
    /// Where the last one went.
    last: Place,
}

impl<'s, A: Card + 's, B: Card + 's> Source for EitherSource<'s, A, B> {
    type Error = EitherError<<A::Source<'s> as Source>::Error, <B::Source<'s> as Source>::Error>;
    type Buffer = &'s mut [Sector];

    fn len(&self) -> u64 {
        self.first.len()
    }

    fn start(&mut self, first: u64, count: usize, buffer: Self::Buffer) {
        // Where there was a card and is none any more, the place tells why.
        self.last = self.device.find().unwrap_or(self.last);
        match self.last {
            Place::First => self.first.start(first, count, buffer),
            Place::Second => self.second.start(first, count, buffer),
        }
        self.places[self.len] = self.last;
        self.len += 1;
    }

    fn finish(&mut self) -> Option<Finished<Self::Buffer, Self::Error>> {
        let (buffer, outcome) = match self.places[0] {
            Place::First => {
                let Finished { buffer, outcome } = self.first.finish()?;
                (buffer, outcome.map_err(EitherError::First))
            }
            Place::Second => {
                let Finished { buffer, outcome } = self.second.finish()?;
                (buffer, outcome.map_err(EitherError::Second))
            }
        };
        self.places[..self.len].rotate_left(1);
        self.len -= 1;
        Some(Finished { buffer, outcome: self.device.watch(outcome) })
    }
}
