//! Cards for emulated boards.

use std::io::{Cursor, Write};

use anyhow::Result;
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};

/// Bytes of a block.
const BLOCK: usize = 512;
/// The block at which the only partition begins, as on cards that can be bought.
const PARTITION: usize = 2048;
/// The least that a card has: enough clusters for FAT16.
const SMALLEST: usize = 16 << 20;
/// A partition with FAT16, in the partition table.
const FAT16: u8 = 0x0E;
/// One with exFAT.
const EXFAT: u8 = 0x07;
/// How a block ends that has a partition table or begins a volume.
const SIGNATURE: [u8; 2] = [0x55, 0xAA];

/// The bytes of a card with one file. Their number is a power of two, as the emulator wants it.
pub fn with_file(name: &str, contents: &[u8]) -> Result<Vec<u8>> {
    let len = (PARTITION * BLOCK + 2 * contents.len()).next_power_of_two().max(SMALLEST);
    let mut card = with_partition(len, FAT16);
    let volume = &mut card[PARTITION * BLOCK..];
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat16);
    fatfs::format_volume(Cursor::new(&mut *volume), options)?;
    let files = FileSystem::new(Cursor::new(volume), FsOptions::new())?;
    let mut file = files.root_dir().create_file(name)?;
    file.write_all(contents)?;
    file.flush()?;
    drop(file);
    files.unmount()?;
    Ok(card)
}

/// A card as those of more than 32 GB are sold: what can be told of exFAT by its first block.
pub fn with_exfat() -> Vec<u8> {
    let mut card = with_partition(SMALLEST, EXFAT);
    let boot = &mut card[PARTITION * BLOCK..][..BLOCK];
    boot[..11].copy_from_slice(b"\xEB\x76\x90EXFAT   ");
    boot[510..].copy_from_slice(&SIGNATURE);
    card
}

/// A card with a partition, which is empty.
fn with_partition(len: usize, kind: u8) -> Vec<u8> {
    let mut card = vec![0; len];
    let entry = &mut card[446..462];
    entry[4] = kind;
    entry[8..12].copy_from_slice(&(PARTITION as u32).to_le_bytes());
    entry[12..].copy_from_slice(&((len / BLOCK - PARTITION) as u32).to_le_bytes());
    card[510..512].copy_from_slice(&SIGNATURE);
    card
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_card_has_its_file() {
        let contents: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        let mut card = with_file("a model.gguf", &contents).unwrap();
        assert_eq!((card.len(), &card[510..512]), (SMALLEST, &[0x55, 0xAA][..]));
        let volume = Cursor::new(&mut card[PARTITION * BLOCK..]);
        let files = FileSystem::new(volume, FsOptions::new()).unwrap();
        let mut read = Vec::new();
        files.root_dir().open_file("a model.gguf").unwrap().read_to_end(&mut read).unwrap();
        assert!(read == contents);
    }
}
