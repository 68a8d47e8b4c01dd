//! A whole model from a card.

use fatfs::FatType;
use llamita_storage::sd::{BlockError, Extent, Extents, SdSource, Shared};
use llamita_storage::{Cause, Error, Home, Sector, Verify};

use crate::card::{Broken, Card, card, content, write, write_in_turns};
use crate::common::{File, Places, STREAMED, engine, expected, placed, reader, story};

type Source = SdSource<'static, Shared<'static, Card>, Vec<Sector>>;

/// A card with the model in one piece or in many, in memory that lives on.
fn card_of(file: &File, kind: FatType, whole: bool) -> &'static Card {
    let card = card(kind, 512, |files| {
        if whole {
            write(files, "a nano model.gguf", file.bytes());
        } else {
            let other = content(1, file.bytes().len());
            write_in_turns(files, &[("a nano model.gguf", file.bytes()), ("other.bin", &other)], 9 * 512);
        }
    });
    Box::leak(Box::new(card))
}

fn source(card: &'static Card) -> Source {
    let memory = Vec::leak(vec![Extent::EMPTY; 100]);
    let extents = Extents::find(card, "A NANO MODEL.GGUF", memory).unwrap();
    SdSource::new(Shared(card), extents)
}

const MIXED: Places =
    Places { pinned: [60_000, 40_000], buffer: 24 << 10, buffers: 2, verify: Verify::Always };

#[test]
fn a_model_on_a_card_is_as_resident() {
    let file: &'static File = Box::leak(Box::new(File::nano()));
    let told = expected(file, 4);
    for kind in [FatType::Fat16, FatType::Fat32] {
        for whole in [true, false] {
            let card = card_of(file, kind, whole);
            for places in [STREAMED, MIXED] {
                card.take_reads();
                let source = source(card);
                let (found, pieces) = (card.take_reads().len(), source.extents().as_slice().len());
                assert!(if whole { pieces == 1 } else { pieces > 50 });
                let home = Home::Streamed(reader(source, &file.tape(), places));
                let mut engine = engine(placed(file.tape(), home, places).unwrap());
                assert!(story(&mut engine, 4).unwrap() == told, "{kind:?} {whole} {places:?}");
                card.take_reads();
                let before = engine.weights().stats();
                for position in 20..30 {
                    engine.forward(&[5], position, 1).unwrap();
                }
                let (reads, after) = (card.take_reads(), engine.weights().stats());
                let asked = after.reads - before.reads;
                println!(
                    "{kind:?}, {pieces} pieces, {} bytes pinned: {found} reads to find, a token takes {} reads of the \
                     source, {} of the device, {} KiB",
                    engine.weights().pinned_bytes(),
                    asked as f64 / 10.0,
                    reads.len() as f64 / 10.0,
                    reads.iter().map(|read| read.1).sum::<usize>() as f64 / 20.0
                );
                // Where a file is in one piece, each read of the source is one of the device.
                assert!(if whole { reads.len() as u64 == asked } else { reads.len() as u64 > asked });
            }
        }
    }
}

#[test]
fn a_fault_at_any_read_ends_well_or_in_the_devices_error() {
    let file: &'static File = Box::leak(Box::new(File::nano()));
    let told = expected(file, 2);
    let card = card_of(file, FatType::Fat16, false);
    let extents = source(card).extents();
    let tell = |places: Places, fails: (usize, usize)| {
        card.take_reads();
        card.fails.set(fails);
        let source: Source = SdSource::new(Shared(card), extents);
        let home = Home::Streamed(reader(source, &file.tape(), places));
        let result = match placed(file.tape(), home, places) {
            Ok(weights) => story(&mut engine(weights), 2),
            Err(error) => Err(llamita::Error::Weights(error)),
        };
        (result, card.take_reads())
    };
    let (result, reads) = tell(MIXED, (0, 0));
    assert!(result.unwrap() == told);
    assert!(reads.len() > 100, "{}", reads.len());
    for first in 0..reads.len() {
        for count in [1, 2] {
            let (result, _) = tell(MIXED, (first, count));
            match result {
                Ok(result) => assert!(result == told, "a wrong story after {first}, {count}"),
                Err(error) => panic!("{first}, {count}: {error}"),
            }
        }
        let (result, _) = tell(MIXED, (first, usize::MAX - first));
        let error = match result {
            Err(llamita::Error::Weights(error)) => error,
            // What was read ahead for a token that nobody asked for.
            Ok(result) if first + 10 > reads.len() && result == told => continue,
            _ => panic!("a story without its weights"),
        };
        let Error::Read(_, read) = error else { panic!("{first}: {error}") };
        assert_eq!(read.tries, 3);
        assert!(matches!(read.cause, Cause::Source(BlockError { error: Broken, .. })), "{read:?}");
        assert!(error.to_string().contains("of the card: no answer"), "{error}");
    }
}
