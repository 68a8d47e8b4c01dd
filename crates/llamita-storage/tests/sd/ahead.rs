//! Files that are read while others compute.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use fatfs::FatType;
use llamita_storage::sd::{Block, BlockDevice, BlockError, BlockIdx, Extent, Extents, Moved, Mover, SdAhead};
use llamita_storage::{Cause, Error, Finished, Home, Sector, Source, Verify};

use crate::card::{Broken, Card, card, content, write, write_in_turns};
use crate::common::{File, Places, STREAMED, engine, expected, placed, reader, story};

/// What is known of a unit from outside.
#[derive(Default)]
struct Watch {
    /// Blocks that were begun to be read: the first, and how many.
    begun: RefCell<Vec<(u32, usize)>>,
    /// How often the unit is asked before it has done its work.
    late: Cell<usize>,
    /// Whether it has work now.
    works: Cell<bool>,
}

/// Brings blocks of a card while its caller does something else.
struct Unit {
    card: &'static Card,
    watch: Rc<Watch>,
    asked: usize,
    under_way: Option<(BlockIdx, Vec<Sector>, Range<usize>)>,
}

impl Unit {
    fn new(card: &'static Card, late: usize) -> (Self, Rc<Watch>) {
        let watch = Rc::new(Watch { late: Cell::new(late), ..Watch::default() });
        (Self { card, watch: watch.clone(), asked: 0, under_way: None }, watch)
    }
}

impl Mover for Unit {
    type Error = Broken;
    type Buffer = Vec<Sector>;

    fn begin(&mut self, first: BlockIdx, mut buffer: Vec<Sector>, sectors: Range<usize>) {
        // Nobody may look at it before it is there.
        buffer[sectors.clone()].fill(Sector([0xa5; 512]));
        self.watch.begun.borrow_mut().push((first.0, sectors.len()));
        assert!(!self.watch.works.replace(true), "two at once");
        self.under_way = Some((first, buffer, sectors));
        self.asked = 0;
    }

    fn poll(&mut self) -> Option<Moved<Self>> {
        self.asked += 1;
        if self.asked <= self.watch.late.get() {
            return None;
        }
        let (first, mut buffer, sectors) = self.under_way.take()?;
        self.watch.works.set(false);
        let mut blocks = vec![Block::new(); sectors.len()];
        let outcome = self.card.read(&mut blocks, first);
        for (sector, block) in buffer[sectors].iter_mut().zip(blocks) {
            sector.0 = block.contents;
        }
        Some((buffer, outcome))
    }

    /// Its patience is three looks.
    fn wait(&mut self) -> Option<Moved<Self>> {
        (0..3).find_map(|_| self.poll())
    }
}

/// A card of numbered blocks, and a file in three pieces of it, of eleven and a half sectors.
fn numbered() -> (&'static Card, Extents<'static>) {
    let bytes = (0..100_u8).flat_map(|block| [block; 512]).collect();
    let extents = [(10, 5), (30, 3), (50, 4)].map(|(first, count)| Extent { first, count });
    (Box::leak(Box::new(Card::new(bytes))), Extents::new(Vec::leak(extents.into()), 11 * 512 + 256))
}

/// The number of each block in memory.
fn numbers(buffer: &[Sector]) -> Vec<u8> {
    buffer.iter().map(|sector| sector.0[0]).collect()
}

fn memory(sectors: usize) -> Vec<Sector> {
    vec![Sector::ZERO; sectors]
}

#[test]
fn the_next_read_is_begun_before_the_last_one_is_used() {
    let (card, extents) = numbered();
    let (unit, watch) = Unit::new(card, 2);
    let mut source = SdAhead::new(unit, extents);
    let begun = |watch: &Watch| watch.begun.borrow().clone();
    source.start(0, 2, memory(2));
    assert_eq!(begun(&watch), [(10, 2)]);
    // Two are not begun at once.
    source.start(2, 3, memory(4));
    source.start(4, 8, memory(8));
    assert_eq!(begun(&watch), [(10, 2)]);
    let Finished { buffer, outcome } = source.finish().unwrap();
    assert_eq!((numbers(&buffer), outcome), (vec![10, 11], Ok(1024)));
    assert_eq!(begun(&watch), [(10, 2), (12, 3)]);
    let Finished { buffer, outcome } = source.finish().unwrap();
    assert_eq!((numbers(&buffer), outcome), (vec![12, 13, 14, 0], Ok(3 * 512)));
    // A read in pieces is begun with the first, and the file ends before the read does.
    assert_eq!(begun(&watch)[2..], [(14, 1)]);
    let Finished { buffer, outcome } = source.finish().unwrap();
    assert_eq!((numbers(&buffer), outcome), (vec![14, 30, 31, 32, 50, 51, 52, 53], Ok(7 * 512 + 256)));
    assert_eq!(begun(&watch)[3..], [(30, 3), (50, 4)]);
    assert!(source.finish().is_none());
    // What has ended meanwhile makes room for what follows, whoever looks.
    watch.late.set(0);
    source.start(0, 1, memory(1));
    source.start(5, 1, memory(1));
    assert_eq!(begun(&watch)[5..], [(10, 1), (30, 1)]);
}

#[test]
fn a_read_that_fails_leaves_the_others_alone() {
    let (card, extents) = numbered();
    for late in [0, 2] {
        // The second run of the second read.
        card.take_reads();
        card.fails.set((2, 1));
        let mut source = SdAhead::new(Unit::new(card, late).0, extents);
        source.start(0, 1, memory(1));
        source.start(3, 4, memory(4));
        source.start(8, 1, memory(1));
        assert_eq!(source.finish().unwrap().outcome, Ok(512));
        let Finished { buffer, outcome } = source.finish().unwrap();
        assert_eq!(outcome, Err(BlockError { block: 30, error: Broken }));
        // It is repeated behind what is under way.
        source.start(3, 4, buffer);
        assert_eq!(numbers(&source.finish().unwrap().buffer), [50]);
        let Finished { buffer, outcome } = source.finish().unwrap();
        assert_eq!((numbers(&buffer), outcome), (vec![13, 14, 30, 31], Ok(2048)));
    }
}

#[test]
fn what_takes_long_is_under_way_still() {
    let (card, extents) = numbered();
    let (unit, watch) = Unit::new(card, usize::MAX);
    let mut source = SdAhead::new(unit, extents);
    source.start(5, 2, memory(2));
    source.start(0, 1, memory(1));
    for _ in 0..3 {
        assert!(source.finish().is_none());
    }
    watch.late.set(0);
    assert_eq!(numbers(&source.finish().unwrap().buffer), [30, 31]);
    watch.late.set(usize::MAX);
    assert!(source.finish().is_none());
    // The unit has the memory, and goes with the source.
    assert!(watch.works.get());
    drop(source);
    assert_eq!(Rc::strong_count(&watch), 1);
}

const MIXED: Places =
    Places { pinned: [60_000, 40_000], buffer: 24 << 10, buffers: 2, verify: Verify::Always };

/// A card with the model in one piece or in many.
fn with_nano(file: &File, whole: bool) -> (&'static Card, Extents<'static>) {
    let card = card(FatType::Fat16, 512, |files| {
        if whole {
            write(files, "nano.gguf", file.bytes());
        } else {
            let other = content(1, file.bytes().len());
            write_in_turns(files, &[("nano.gguf", file.bytes()), ("other.bin", &other)], 9 * 512);
        }
    });
    let card: &'static Card = Box::leak(Box::new(card));
    let extents = Extents::find(card, "nano.gguf", Vec::leak(vec![Extent::EMPTY; 100])).unwrap();
    card.take_reads();
    (card, extents)
}

#[test]
fn a_model_that_is_read_ahead_is_as_resident() {
    let file = File::nano();
    let told = expected(&file, 4);
    for (whole, late) in [(true, 0), (true, 2), (false, 0), (false, 1)] {
        let (card, extents) = with_nano(&file, whole);
        for places in [STREAMED, MIXED] {
            let (unit, watch) = Unit::new(card, late);
            let home = Home::Streamed(reader(SdAhead::new(unit, extents), &file.tape(), places));
            let mut engine = engine(placed(file.tape(), home, places).unwrap());
            assert!(story(&mut engine, 4).unwrap() == told, "{whole} {late} {places:?}");
            // The next token's first weights are on their way.
            assert!(late == 0 || watch.works.get(), "{whole} {late} {places:?}");
        }
    }
}

#[test]
fn a_fault_at_any_read_ends_well_or_in_its_error() {
    let file = File::nano();
    let told = expected(&file, 2);
    let (card, extents) = with_nano(&file, true);
    let tell = |fails: (usize, usize)| {
        card.take_reads();
        card.fails.set(fails);
        let source = SdAhead::new(Unit::new(card, 1).0, extents);
        let home = Home::Streamed(reader(source, &file.tape(), MIXED));
        let result = match placed(file.tape(), home, MIXED) {
            Ok(weights) => story(&mut engine(weights), 2),
            Err(error) => Err(llamita::Error::Weights(error)),
        };
        (result, card.take_reads().len())
    };
    let (result, reads) = tell((0, 0));
    assert!(result.unwrap() == told && reads > 50, "{reads}");
    for first in 0..reads {
        assert!(tell((first, 2)).0.unwrap() == told, "{first}");
        match tell((first, usize::MAX - first)).0 {
            Err(llamita::Error::Weights(Error::Read(_, read))) => {
                assert_eq!(read.tries, 3);
                assert!(matches!(read.cause, Cause::Source(BlockError { error: Broken, .. })), "{read:?}");
            }
            // What was read ahead for a token that nobody asked for.
            Ok(result) => assert!(first + 10 > reads && result == told, "{first}"),
            Err(error) => panic!("{first}: {error}"),
        }
    }
}
