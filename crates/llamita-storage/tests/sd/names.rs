//! Files and folders by their names.

use fatfs::FatType;
use llamita_storage::sd::{Error, Extent, Extents, list};

use crate::card::{Card, card, content, search, write};

fn listed(card: &Card, folder: &str, ending: &str) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    list(card, folder, ending, |name, len| files.push((name.to_owned(), len))).unwrap();
    files
}

fn find(card: &Card, path: &str) -> Result<(Vec<Extent>, u64), Error<crate::card::Broken>> {
    let mut memory = [Extent::EMPTY; 8];
    let found = Extents::find(card, path, &mut memory)?;
    Ok((found.as_slice().to_vec(), found.len()))
}

#[test]
fn files_are_found_by_any_name() {
    for kind in [FatType::Fat16, FatType::Fat32] {
        let all: [(&str, usize); 7] = [
            ("tiny stories, the second try.gguf", 3000),
            ("STORIES.BIN", 700),
            ("models/Ünïcode.GGUF", 1200),
            ("models/deep/er/tiny.gguf", 5000),
            ("models/tiny.gguf", 2000),
            ("._tiny.gguf", 4096),
            ("nothing.gguf", 0),
        ];
        let card = card(kind, 512, |files| {
            let root = files.root_dir();
            // The first has the name of the label.
            for folder in ["models", "models/deep", "models/deep/er"] {
                root.create_dir(folder).unwrap();
            }
            for (index, (name, len)) in all.into_iter().enumerate() {
                write(files, name, &content(10 + index as u8, len));
            }
        });
        for (index, (name, len)) in all.into_iter().enumerate() {
            if len == 0 {
                let error = find(&card, name).unwrap_err();
                assert_eq!(error, Error::Empty);
                continue;
            }
            let expected = Ok((search(&card, &content(10 + index as u8, len)), len as u64));
            assert_eq!(find(&card, name), expected, "{name}");
            assert_eq!(find(&card, &name.to_ascii_uppercase()), expected, "{name}");
            assert_eq!(find(&card, &format!("/{name}")), expected, "{name}");
        }
        // By its short name too.
        assert_eq!(find(&card, "TINYST~1.GGU"), find(&card, all[0].0));
        for name in
            ["missing.gguf", "tiny.gguf", "models", "", "/", "models/", "nowhere/tiny.gguf", "STORIES.BIN/x"]
        {
            let error = find(&card, name).unwrap_err();
            assert_eq!(error, Error::NotFound, "{name}");
            assert!(error.to_string().contains("copy it there"));
        }
        let of = |files: &[(&str, u64)]| -> Vec<_> {
            files.iter().map(|(name, len)| ((*name).to_owned(), *len)).collect()
        };
        assert_eq!(listed(&card, "", ".gguf"), of(&[(all[0].0, 3000)]));
        assert_eq!(listed(&card, "", ".bin"), of(&[("STORIES.BIN", 700)]));
        let models = of(&[("Ünïcode.GGUF", 1200), ("tiny.gguf", 2000)]);
        assert_eq!(listed(&card, "MODELS", ".gguf"), models);
        assert_eq!(listed(&card, "/models/deep/er/", ".GGUF"), of(&[("tiny.gguf", 5000)]));
        assert_eq!(listed(&card, "models/deep", "").len(), 0);
        assert_eq!(list(&card, "model", "", |_, _| ()), Err(Error::NotFound));
    }
}

#[test]
fn folders_of_many_files_are_read_to_their_end() {
    let names: Vec<String> =
        (0..300).map(|i| format!("a story that is told for the {i}th time.gguf")).collect();
    for kind in [FatType::Fat16, FatType::Fat32] {
        let card = card(kind, 512, |files| {
            files.root_dir().create_dir("many").unwrap();
            for (index, name) in names.iter().enumerate() {
                write(files, &format!("many/{name}"), &content(0, 100 + index));
            }
        });
        let expected: Vec<_> = names.iter().zip(100..).map(|(name, len)| (name.clone(), len)).collect();
        assert!(listed(&card, "many", ".gguf") == expected);
        assert_eq!(find(&card, &format!("many/{}", names[299])).unwrap().1, 399);
    }
}

#[test]
fn the_longest_names_are_told() {
    // 19 parts of a name are the most that the library puts together.
    for long in [format!("{}.gguf", "ö".repeat(120)), format!("{}.gguf", "long".repeat(60) + "er")] {
        let card = card(FatType::Fat16, 512, |files| write(files, &long, &content(0, 100)));
        assert_eq!(listed(&card, "", ".gguf"), [(long.clone(), 100)]);
        assert_eq!(find(&card, &long).unwrap().1, 100);
    }
}

fn checksum(name: &[u8; 11]) -> u8 {
    name.iter().fold(0, |sum: u8, &byte| sum.rotate_right(1).wrapping_add(byte))
}

/// The library would give a file the long name of the one before it where the checksums of their short names agree.
#[test]
fn a_long_name_is_told_once() {
    let mut card = card(FatType::Fat16, 512, |files| {
        write(files, "a long name.gguf", &content(1, 100));
        write(files, "OTHER.BIN", &content(2, 200));
    });
    let root = card.root();
    let entries = &mut card.bytes[root];
    let at = |name: &[u8]| entries.chunks_exact(32).position(|entry| entry.starts_with(name)).unwrap();
    let (first, second) = (at(b"ALONGN"), at(b"OTHER"));
    let name: [u8; 11] = entries[first * 32..][..11].try_into().unwrap();
    let other = (0..10_000_000)
        .map(|i| format!("F{i:07}BIN"))
        .map(|name| <[u8; 11]>::try_from(name.as_bytes()).unwrap());
    let twin = other.into_iter().find(|other| checksum(other) == checksum(&name)).unwrap();
    // The second has no long name of its own.
    entries[second * 32..][..11].copy_from_slice(&twin);
    for own in first + 1..second {
        entries[own * 32] = 0xe5;
    }
    let short = format!("{}.BIN", std::str::from_utf8(&twin[..8]).unwrap());
    assert_eq!(listed(&card, "", ""), [("a long name.gguf".to_owned(), 100), (short.clone(), 200)]);
    assert_eq!(find(&card, &short).unwrap().1, 200);
    assert_eq!(find(&card, "a long name.gguf").unwrap().1, 100);
}
