//! A board with two places for a card.

use core::cell::Cell;
use core::fmt;

use llamita_storage::sd::{Block, BlockCount, BlockDevice, BlockIdx};

/// Two places for a card: what is read is the first one that starts. They are asked again, one after the other, after
/// each error: it may have been put from one into the other.
#[derive(Debug)]
pub struct EitherCard<A, B> {
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

impl<A: BlockDevice, B: BlockDevice> EitherCard<A, B> {
    /// The places, before a card was looked for.
    pub const fn new(first: A, second: B) -> Self {
        Self { first, second, found: Cell::new(None) }
    }

    fn find(&self) -> Outcome<Place, A, B> {
        if let Some(place) = self.found.get() {
            return Ok(place);
        }
        let place = match self.first.num_blocks() {
            Ok(_) => Place::First,
            Err(first) => match self.second.num_blocks() {
                Ok(_) => Place::Second,
                Err(second) => return Err(EitherError::Neither(first, second)),
            },
        };
        self.found.set(Some(place));
        Ok(place)
    }

    /// After an error both are looked at again.
    fn watch<T>(&self, outcome: Outcome<T, A, B>) -> Outcome<T, A, B> {
        outcome.inspect_err(|_| self.found.set(None))
    }
}

type Outcome<T, A, B> = Result<T, EitherError<<A as BlockDevice>::Error, <B as BlockDevice>::Error>>;

impl<A: BlockDevice, B: BlockDevice> BlockDevice for EitherCard<A, B> {
    type Error = EitherError<A::Error, B::Error>;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Self::Error> {
        self.watch(match self.find()? {
            Place::First => self.first.read(blocks, start).map_err(EitherError::First),
            Place::Second => self.second.read(blocks, start).map_err(EitherError::Second),
        })
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), Self::Error> {
        self.watch(match self.find()? {
            Place::First => self.first.write(blocks, start).map_err(EitherError::First),
            Place::Second => self.second.write(blocks, start).map_err(EitherError::Second),
        })
    }

    fn num_blocks(&self) -> Result<BlockCount, Self::Error> {
        self.watch(match self.find()? {
            Place::First => self.first.num_blocks().map_err(EitherError::First),
            Place::Second => self.second.num_blocks().map_err(EitherError::Second),
        })
    }
}
