//! Where files are, and their bytes.

use std::sync::OnceLock;

use fatfs::FatType;
use llamita_storage::sd::{Error, Extent, Extents, SdSource, Shared};
use llamita_storage::{Sector, Source, read_len};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::card::{Card, card, content, search, write, write_in_turns};

const KINDS: [(FatType, u32); 4] =
    [(FatType::Fat16, 512), (FatType::Fat16, 2048), (FatType::Fat32, 512), (FatType::Fat32, 1024)];

#[test]
fn a_file_in_one_piece_is_one_extent() {
    for (kind, cluster) in KINDS {
        // Of all lengths that make a difference at the end.
        let cluster_len = cluster as usize;
        for len in [17, 511, 512, 528, cluster_len, cluster_len + 17, 600 * cluster_len + 700] {
            let bytes = content(1, len);
            let card = card(kind, cluster, |files| {
                write(files, "before.gguf", &content(2, 1000));
                write(files, "A model.gguf", &bytes);
            });
            let mut memory = [Extent::EMPTY; 1];
            let found = Extents::find(&card, "a MODEL.gguf", &mut memory).unwrap();
            assert_eq!(found.len(), len as u64);
            assert_eq!(found.as_slice(), search(&card, &bytes), "{kind:?} {cluster} {len}");
            let reads = card.take_reads();
            if len > 600 * cluster_len {
                // Two or three blocks of the volume, its root twice, and the blocks of the table where its clusters are.
                let per_block = if kind == FatType::Fat16 { 256 } else { 128 };
                let most = 3 + 2 + 601_usize.div_ceil(per_block) + 1;
                println!("{kind:?}, clusters of {cluster}: {} reads for 602 clusters", reads.len());
                assert!(reads.len() <= most, "{reads:?}");
            }
        }
    }
}

#[test]
fn a_file_in_pieces_is_found_piece_by_piece() {
    for (kind, cluster) in KINDS {
        for turns in [1, 3] {
            let cluster_len = cluster as usize;
            let (first, second) = (content(3, 150 * cluster_len + 100), content(4, 90 * cluster_len));
            let card = card(kind, cluster, |files| {
                let all = [("first one.gguf", &first[..]), ("second one.gguf", &second[..])];
                write_in_turns(files, &all, turns * cluster_len);
            });
            for (name, bytes) in [("first one.gguf", &first), ("second one.gguf", &second)] {
                let expected = search(&card, bytes);
                assert!(expected.len() >= 30, "{expected:?}");
                let mut memory = [Extent::EMPTY; 200];
                let found = Extents::find(&card, name, &mut memory).unwrap();
                assert_eq!(found.as_slice(), expected, "{kind:?} {cluster} {turns}");
                // Memory for exactly as many is enough, and one less is not.
                let mut memory = vec![Extent::EMPTY; expected.len()];
                assert_eq!(Extents::find(&card, name, &mut memory).unwrap().as_slice(), expected);
                let (needed, lent) = (expected.len(), expected.len() - 1);
                let error = Extents::find(&card, name, &mut memory[1..]).unwrap_err();
                assert_eq!(error, Error::Fragments { needed, lent });
                assert!(error.to_string().contains(&format!("in {needed} pieces")), "{error}");
                let error = Extents::find(&card, name, &mut []).unwrap_err();
                assert_eq!(error, Error::Fragments { needed, lent: 0 });
            }
        }
    }
}

/// A card with a file in many pieces, and the file.
fn pieces() -> &'static (Vec<u8>, Vec<u8>) {
    static PIECES: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    PIECES.get_or_init(|| {
        let (bytes, other) = (content(5, 100_123), content(6, 60_000));
        let card = card(FatType::Fat16, 512, |files| {
            write_in_turns(files, &[("a.gguf", &bytes), ("b.gguf", &other)], 2048);
        });
        (card.bytes, bytes)
    })
}

/// One read of a source.
fn read<S: Source<Buffer = Vec<Sector>>>(
    source: &mut S,
    first: u64,
    count: usize,
) -> Result<Vec<u8>, S::Error> {
    source.start(first, count, vec![Sector([0xee; 512]); count]);
    let finished = source.finish().unwrap();
    let len = finished.outcome?;
    Ok(finished.buffer.as_bytes()[..len].to_vec())
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_written(reads in prop::collection::vec((0_u64..250, 0_usize..250), 1..20)) {
        let (image, bytes) = pieces();
        let card = Card::new(image.clone());
        let mut memory = [Extent::EMPTY; 64];
        let extents = Extents::find(&card, "a.gguf", &mut memory).unwrap();
        prop_assert!(extents.as_slice().len() > 20);
        card.take_reads();
        let mut source = SdSource::new(Shared(&card), extents);
        prop_assert_eq!(source.len(), bytes.len() as u64);
        for (first, count) in reads {
            let found = read(&mut source, first, count).unwrap();
            let expected = read_len(bytes.len() as u64, first, count);
            let start = (first as usize * 512).min(bytes.len());
            prop_assert!(found == bytes[start..start + expected]);
            // One read for each run, and no run touches the next.
            let runs: Vec<_> = extents.runs(first, count).map(|(block, count)| (block.0, count)).collect();
            prop_assert_eq!(card.take_reads(), runs.clone());
            prop_assert!(runs.windows(2).all(|pair| pair[0].0 + pair[0].1 as u32 != pair[1].0));
            prop_assert_eq!(runs.iter().map(|run| run.1).sum::<usize>(), Sector::count(expected as u64));
        }
    }
}

#[test]
fn a_long_read_is_one_of_the_device() {
    let bytes = content(7, 1_000_000);
    let card = card(FatType::Fat32, 512, |files| write(files, "model.gguf", &bytes));
    let mut memory = [Extent::EMPTY; 4];
    let extents = Extents::find(&card, "model.gguf", &mut memory).unwrap();
    card.take_reads();
    let mut source = SdSource::new(card, extents);
    assert!(read(&mut source, 0, 1954).unwrap() == bytes);
    assert!(read(&mut source, 17, 1000).unwrap() == bytes[17 * 512..][..512_000]);
    // Several are under way at once, and end in their order.
    for first in 0..8 {
        source.start(first, 1, vec![Sector::ZERO]);
    }
    for first in 0..8 {
        let finished = source.finish().unwrap();
        assert_eq!(finished.outcome, Ok(512));
        assert!(finished.buffer[0].0 == bytes[first * 512..][..512]);
    }
    assert!(source.finish().is_none());
    let start = extents.as_slice()[0].first;
    let reads = source.free().take_reads();
    assert_eq!(reads[..3], [(start, 1954), (start + 17, 1000), (start, 1)]);
    assert_eq!(reads.len(), 10);
}

/// A file is nothing but blocks: a board may keep it without a file system.
#[test]
fn blocks_without_a_file_system_are_a_file() {
    let bytes = content(8, 5000);
    let mut image = vec![0; 20 * 512];
    image[3 * 512..][..2048].copy_from_slice(&bytes[..2048]);
    image[9 * 512..][..2952].copy_from_slice(&bytes[2048..]);
    let extents = [Extent { first: 3, count: 4 }, Extent { first: 9, count: 6 }];
    let mut source = SdSource::new(Card::new(image), Extents::new(&extents, 5000));
    assert!(read(&mut source, 0, 12).unwrap() == bytes);
    // Extents that are too short for the length are a short read, which a reader refuses.
    let mut source = SdSource::new(Card::new(vec![0; 20 * 512]), Extents::new(&extents[..1], 5000));
    assert_eq!(read(&mut source, 2, 8).unwrap().len(), 1024);
    assert_eq!(read(&mut source, 90, 8).unwrap().len(), 0);
}
