//! A card in memory, with a volume that another library has written.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{Cursor, Write};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use llamita_storage::sd::{Block, BlockCount, BlockDevice, BlockIdx};

use crate::board::FED;

/// Where the only partition begins.
const PARTITION: usize = 63;
/// Bytes of a cluster, and clusters: the fewest of FAT16, and some.
const CLUSTER: usize = 512;
const CLUSTERS: usize = 4_400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer")
    }
}

impl std::error::Error for Broken {}

/// Can be exchanged, and does not answer as it is told.
pub struct Card {
    bytes: RefCell<Vec<u8>>,
    /// Reads that are answered before none is any more.
    pub answers: Cell<usize>,
    /// How often the watchdog had been fed at the last read, reads since, and the most of these.
    fed: Cell<(usize, usize)>,
    pub unwatched: Cell<usize>,
}

impl Card {
    pub fn new(bytes: Vec<u8>) -> Self {
        let (answers, fed, unwatched) = (Cell::new(usize::MAX), Cell::default(), Cell::default());
        Self { bytes: RefCell::new(bytes), answers, fed, unwatched }
    }

    /// A volume with files, each written in pieces of so many bytes by turns.
    pub fn with(files: &[(&str, &[u8])]) -> Self {
        Self::new(volume(files, usize::MAX))
    }

    /// Another card takes its place.
    pub fn exchange(&self, bytes: Vec<u8>) {
        self.bytes.replace(bytes);
        self.answers.set(usize::MAX);
    }
}

/// The bytes of a card with a volume.
pub fn volume(all: &[(&str, &[u8])], piece: usize) -> Vec<u8> {
    let blocks = CLUSTERS * CLUSTER / 512 + 1_300;
    let mut bytes = vec![0; (PARTITION + blocks) * 512];
    let (table, volume) = bytes.split_at_mut(PARTITION * 512);
    table[446 + 4] = 0x0e;
    table[446 + 8..446 + 12].copy_from_slice(&(PARTITION as u32).to_le_bytes());
    table[446 + 12..446 + 16].copy_from_slice(&(blocks as u32).to_le_bytes());
    table[510..512].copy_from_slice(&[0x55, 0xaa]);
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat16).bytes_per_cluster(CLUSTER as u32);
    fatfs::format_volume(Cursor::new(&mut *volume), options).unwrap();
    let files = FileSystem::new(Cursor::new(volume), FsOptions::new()).unwrap();
    let root = files.root_dir();
    let mut open: Vec<_> = all.iter().map(|(name, _)| root.create_file(name).unwrap()).collect();
    let longest = all.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(0);
    for start in (0..longest).step_by(piece.min(longest.max(1))) {
        for (file, (_, bytes)) in open.iter_mut().zip(all) {
            if start < bytes.len() {
                file.write_all(&bytes[start..bytes.len().min(start.saturating_add(piece))]).unwrap();
            }
        }
    }
    drop((open, root));
    files.unmount().unwrap();
    bytes
}

impl BlockDevice for Card {
    type Error = Broken;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Broken> {
        let (before, reads) = self.fed.get();
        let reads = if before == FED.get() { reads + 1 } else { 1 };
        self.fed.set((FED.get(), reads));
        self.unwatched.set(self.unwatched.get().max(reads));
        let left = self.answers.get().checked_sub(1).ok_or(Broken)?;
        self.answers.set(left);
        for (index, block) in blocks.iter_mut().enumerate() {
            let bytes = self.bytes.borrow();
            let bytes = bytes.get((start.0 as usize + index) * 512..).and_then(|bytes| bytes.get(..512));
            block.contents = bytes.ok_or(Broken)?.try_into().unwrap();
        }
        Ok(())
    }

    fn write(&self, _: &[Block], _: BlockIdx) -> Result<(), Broken> {
        panic!("cards are not written");
    }

    fn num_blocks(&self) -> Result<BlockCount, Broken> {
        let count = BlockCount((self.bytes.borrow().len() / 512) as u32);
        if count.0 == 0 || self.answers.get() == 0 { Err(Broken) } else { Ok(count) }
    }
}
