//! Two places for a card.

use std::cell::Cell;
use std::fmt;

use llamita_firmware::{Card, EitherCard, EitherError};
use llamita_storage::sd::{Block, BlockCount, BlockDevice, BlockIdx, Extent, Extents};
use llamita_storage::{Finished, Sector, Source};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Empty(&'static str);

impl fmt::Display for Empty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing {}", self.0)
    }
}

impl std::error::Error for Empty {}

/// A place whose card is blank but for its first byte, or which has none.
struct Place {
    name: &'static str,
    card: Cell<Option<u8>>,
    /// How often it was looked at.
    asked: Cell<usize>,
}

impl Place {
    fn new(name: &'static str, card: Option<u8>) -> Self {
        Self { name, card: Cell::new(card), asked: Cell::new(0) }
    }

    fn ask(&self) -> Result<u8, Empty> {
        self.asked.set(self.asked.get() + 1);
        self.card.get().ok_or(Empty(self.name))
    }
}

impl BlockDevice for &Place {
    type Error = Empty;

    fn read(&self, blocks: &mut [Block], _: BlockIdx) -> Result<(), Empty> {
        blocks[0].contents[0] = self.ask()?;
        Ok(())
    }

    fn write(&self, _: &[Block], _: BlockIdx) -> Result<(), Empty> {
        self.ask().map(drop)
    }

    fn num_blocks(&self) -> Result<BlockCount, Empty> {
        self.ask().map(|byte| BlockCount(byte.into()))
    }
}

fn read(card: &impl BlockDevice<Error = EitherError<Empty, Empty>>) -> Result<u8, EitherError<Empty, Empty>> {
    let mut blocks = [Block::new()];
    card.read(&mut blocks, BlockIdx(0))?;
    Ok(blocks[0].contents[0])
}

#[test]
fn the_first_card_that_starts_is_read() {
    for (cards, expected) in [([Some(1), None], 1), ([None, Some(2)], 2), ([Some(1), Some(2)], 1)] {
        let places = [Place::new("here", cards[0]), Place::new("there", cards[1])];
        let card = EitherCard::new(&places[0], &places[1]);
        let card = card.device();
        assert_eq!(read(card), Ok(expected));
        assert_eq!(card.num_blocks(), Ok(BlockCount(expected.into())));
        // Once it was found, the other is left alone.
        let other = &places[usize::from(expected == 1)];
        let asked = other.asked.get();
        assert_eq!(read(card), Ok(expected));
        assert_eq!(other.asked.get(), asked);
    }
}

#[test]
fn a_card_may_move() {
    let (first, second) = (Place::new("here", Some(1)), Place::new("there", None));
    let card = EitherCard::new(&first, &second);
    let card = card.device();
    assert_eq!(read(card), Ok(1));
    second.card.set(first.card.take());
    assert_eq!(read(card), Err(EitherError::First(Empty("here"))));
    assert_eq!(read(card), Ok(1));
    first.card.set(second.card.take());
    assert_eq!(read(card), Err(EitherError::Second(Empty("there"))));
    assert_eq!(read(card), Ok(1));
}

#[test]
fn a_file_is_read_from_where_its_card_is() {
    let (first, second) = (Place::new("here", None), Place::new("there", Some(2)));
    let card = EitherCard::new(&first, &second);
    let extents = [Extent { first: 0, count: 4 }];
    let mut source = card.source(Extents::new(&extents, 2048));
    assert_eq!(source.len(), 2048);
    let mut memory = [Sector::ZERO];
    let mut buffer = Some(&mut memory[..]);
    let mut read = || {
        source.start(0, 1, buffer.take().unwrap());
        let Finished { buffer: back, outcome } = source.finish().unwrap();
        let byte = back[0].0[0];
        buffer = Some(back);
        outcome.map(|len| (len, byte)).map_err(|error| error.to_string())
    };
    assert_eq!(read(), Ok((512, 2)));
    first.card.set(Some(1));
    assert_eq!(read(), Ok((512, 2)), "once it was found, the other is left alone");
    second.card.set(None);
    assert_eq!(read(), Err("block 0 of the card: nothing there".into()));
    assert_eq!(read(), Ok((512, 1)));
    first.card.set(None);
    // Asked again, both have none, and the one that had it says so.
    for _ in 0..2 {
        assert_eq!(read(), Err("block 0 of the card: nothing here".into()));
    }
    second.card.set(Some(3));
    assert_eq!(read(), Ok((512, 3)));
}

#[test]
fn both_say_why_there_is_none() {
    let (first, second) = (Place::new("here", None), Place::new("there", None));
    let error = read(EitherCard::new(&first, &second).device()).unwrap_err();
    assert_eq!(error.to_string(), "nothing here; nothing there");
}
