//! Cards that are none, that do not answer, and that hold anything.

use std::sync::OnceLock;

use fatfs::FatType;
use llamita_storage::sd::{BlockError, Error, Extent, Extents, list};
use proptest::prelude::*;

use crate::card::{Broken, Card, PARTITION, card, content, write, write_in_turns};

/// Cards on which everything is long and in pieces.
fn images() -> &'static [Vec<u8>; 2] {
    static IMAGES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    IMAGES.get_or_init(|| {
        [FatType::Fat16, FatType::Fat32].map(|kind| {
            let image = card(kind, 512, |files| {
                files.root_dir().create_dir("some models").unwrap();
                for index in 0..30 {
                    write(
                        files,
                        &format!("some models/the model of number {index}.gguf"),
                        &content(index, 600),
                    );
                }
                let (first, second) = (content(40, 20_000), content(41, 20_000));
                let all = [("some models/first.gguf", &first[..]), ("some models/second.gguf", &second[..])];
                write_in_turns(files, &all, 512);
            });
            image.bytes
        })
    })
}

type Found = Result<(Vec<Extent>, u64, usize), Error<Broken>>;

fn look(card: &Card) -> Found {
    let mut files = 0;
    list(card, "some models", ".gguf", |_, _| files += 1)?;
    let mut memory = [Extent::EMPTY; 64];
    let found = Extents::find(card, "some models/second.gguf", &mut memory)?;
    Ok((found.as_slice().to_vec(), found.len(), files))
}

#[test]
fn a_card_that_is_none_is_said_so() {
    let empty = || vec![0; 64 * 512];
    let boot = card(FatType::Fat16, 512, |_| ()).bytes[PARTITION * 512..].to_vec();
    let mut exfat = card(FatType::Fat32, 512, |_| ()).bytes;
    exfat[446 + 4] = 7;
    let mut blank = card(FatType::Fat32, 512, |_| ()).bytes;
    blank[PARTITION * 512..][..512].fill(0);
    let mut inside_itself = card(FatType::Fat16, 512, |_| ()).bytes;
    inside_itself[446 + 8..446 + 12].fill(0);
    for (what, image) in [
        ("nothing", empty()),
        ("a volume without a table", boot),
        ("exFAT", exfat),
        ("a partition without a volume", blank),
        ("a partition that begins at its table", inside_itself),
    ] {
        let error = look(&Card::new(image)).unwrap_err();
        assert_eq!(error, Error::NotFat, "{what}");
        assert!(error.to_string().contains("format it as FAT32"));
    }
    let error = look(&Card::new(Vec::new())).unwrap_err();
    assert_eq!(error, Error::Device(BlockError { block: 0, error: Broken }));
    assert!(error.to_string().contains("no card that answers (no answer)"), "{error}");
}

#[test]
fn the_second_partition_will_do() {
    let mut image = images()[1].clone();
    let expected = look(&Card::new(image.clone()));
    image.copy_within(446..462, 462);
    // The first holds something else, or what is no volume.
    for first in [0x83, 0x0c] {
        image[446 + 4] = first;
        image[446 + 8..446 + 12].copy_from_slice(&7_u32.to_le_bytes());
        assert_eq!(look(&Card::new(image.clone())), expected);
    }
}

/// An image that was written to a card that is too small for it.
#[test]
fn a_card_without_the_end_of_its_volume_is_damaged() {
    let (long, short) = (content(1, 900_000), content(2, 1000));
    let whole = card(FatType::Fat16, 2048, |files| {
        write(files, "short.gguf", &short);
        write(files, "long.gguf", &long);
    });
    let mut memory = [Extent::EMPTY; 4];
    let file = Extents::find(&whole, "long.gguf", &mut memory).unwrap().as_slice()[0];
    // The last cluster of the file has two blocks that are not of the file.
    let end = file.first + file.count.next_multiple_of(4);
    assert_eq!(end - file.first - file.count, 2);
    for blocks in end - 100..end + 8 {
        let card = Card::new(whole.bytes[..blocks as usize * 512].to_vec());
        assert!(Extents::find(&card, "short.gguf", &mut memory).is_ok());
        match Extents::find(&card, "long.gguf", &mut memory) {
            Ok(found) => assert!(blocks >= end && found.as_slice() == [file]),
            Err(error) => assert!(blocks < end && error == Error::Damaged, "{blocks} of {end}: {error}"),
        }
    }
}

#[test]
fn a_fault_at_any_read_ends_well_or_in_the_devices_error() {
    for image in images() {
        let card = Card::new(image.clone());
        let expected = look(&card).unwrap();
        assert!(expected.0.len() == 40 && expected.1 == 20_000 && expected.2 == 32, "{expected:?}");
        let reads = card.take_reads();
        println!("{} reads to list a folder of 32 files and to find one in 40 pieces", reads.len());
        for first in 0..reads.len() {
            for count in [1, 2] {
                card.fails.set((first, count));
                assert_eq!(look(&card).as_ref(), Ok(&expected));
                card.take_reads();
            }
            card.fails.set((first, usize::MAX - first));
            let error = look(&card).unwrap_err();
            assert_eq!(error, Error::Device(BlockError { block: reads[first].0, error: Broken }));
            card.take_reads();
        }
    }
}

#[test]
fn a_folder_without_an_end_is_damaged() {
    for image in images() {
        let mut card = Card::new(image.clone());
        let (table, width) = (card.table(), card.width());
        // FAT32 has its root before the folder.
        let folder = width / 2 + 1;
        // Every cluster but the folder's first is followed by itself, or by that.
        for itself in [true, false] {
            for (cluster, entry) in
                card.bytes[table.clone()].chunks_exact_mut(width).enumerate().skip(folder + 1)
            {
                if entry.iter().any(|&byte| byte != 0) {
                    let next = if itself { cluster } else { folder };
                    entry.copy_from_slice(&(next as u32).to_le_bytes()[..width]);
                }
            }
            let mut files = 0_u32;
            assert_eq!(list(&card, "some models", "", |_, _| files += 1), Err(Error::Damaged));
            assert!(files < 65_536);
            let mut memory = [Extent::EMPTY; 4];
            let error = Extents::find(&card, "some models/nothing", &mut memory).unwrap_err();
            assert_eq!(error, Error::Damaged);
        }
    }
}

/// Half a character at the start of the last part of a long name makes the library run out of room.
#[test]
fn halves_of_characters_do_no_harm() {
    let mut card =
        card(FatType::Fat16, 512, |files| write(files, "thirteen char and more.gguf", &content(0, 100)));
    for half in [0xd800_u16, 0xdc00] {
        let root = card.root();
        let part = card.bytes[root].chunks_exact_mut(32).find(|entry| entry[0] == 0x43).unwrap();
        part[1..3].copy_from_slice(&half.to_le_bytes());
        let mut names = Vec::new();
        list(&card, "", "", |name, len| names.push((name.to_owned(), len))).unwrap();
        assert_eq!(names, [("thirteen char and more.ggu\u{fffd}".to_owned(), 100)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Bytes that decide anything are replaced, and whatever comes of it is no panic and no endless loop.
    #[test]
    fn whatever_a_card_holds_there_is_an_error_at_worst(
        fat32: bool,
        changes in prop::collection::vec((0_usize..6, any::<prop::sample::Index>(), any::<u8>(), 0_usize..5), 1..12),
    ) {
        let mut card = Card::new(images()[usize::from(fat32)].clone());
        let boot = PARTITION * 512;
        let (table, root) = (card.table().start, card.root().start);
        for (place, index, byte, value) in changes {
            let range = match place {
                0 => 446..512,
                1 => boot + 11..boot + 64,
                2 => boot + 512..boot + 1024,
                // The table's first blocks, and the root and the folder.
                3 => table..table + 2048,
                _ => root..root + 40 * 512,
            };
            let at = range.start + index.index(range.len());
            card.bytes[at] = [byte, 0, 0xff, 1, 0x80][value];
        }
        let _ = look(&card);
    }

    #[test]
    fn random_boot_blocks_do_no_harm(fat32: bool, fields: [u32; 6], clusters in 0_u32..9) {
        let mut card = Card::new(images()[usize::from(fat32)].clone());
        let boot = PARTITION * 512;
        let mut put = |at: usize, bytes: &[u8]| card.bytes[boot + at..][..bytes.len()].copy_from_slice(bytes);
        put(13, &[(1_u32 << clusters) as u8]);
        put(14, &fields[0].to_le_bytes()[..2]);
        put(16, &[fields[1] as u8 % 4]);
        put(19, &fields[2].to_le_bytes()[..2 * (fields[2] as usize % 2)]);
        put(32, &fields[3].to_le_bytes());
        put(36, &fields[4].to_le_bytes());
        put(44, &(fields[5] >> (fields[5] % 32)).to_le_bytes());
        let _ = look(&card);
        for start in [fields[4] | 0xffff_0000, u32::MAX - 1, u32::MAX] {
            card.bytes[446 + 8..446 + 12].copy_from_slice(&start.to_le_bytes());
            prop_assert_eq!(look(&card), Err(Error::NotFat));
        }
    }
}
