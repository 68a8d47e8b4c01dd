//! A card in memory, and volumes on it that another library has written.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{Cursor, Write};
use std::ops::Range;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use llamita_storage::sd::{Block, BlockCount, BlockDevice, BlockIdx, Extent};

/// Where the only partition begins: nowhere in particular.
pub const PARTITION: usize = 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer")
    }
}

impl std::error::Error for Broken {}

/// Counts what it is asked, and does not answer as it is told.
pub struct Card {
    pub bytes: Vec<u8>,
    /// First block and number of each read.
    pub reads: RefCell<Vec<(u32, usize)>>,
    /// Reads that fail, counted from 0: the first, and how many.
    pub fails: Cell<(usize, usize)>,
}

impl Card {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, reads: RefCell::default(), fails: Cell::default() }
    }

    /// What was read since this was last called.
    pub fn take_reads(&self) -> Vec<(u32, usize)> {
        self.reads.take()
    }

    fn word(&self, at: usize) -> usize {
        let word = &self.bytes[PARTITION * 512 + at..][..2];
        usize::from(u16::from_le_bytes([word[0], word[1]]))
    }

    /// Bytes of an entry of the table of clusters.
    pub fn width(&self) -> usize {
        if self.word(22) == 0 { 4 } else { 2 }
    }

    /// Where the table of clusters is.
    pub fn table(&self) -> Range<usize> {
        let blocks = if self.width() == 4 { self.word(36) } else { self.word(22) };
        let start = (PARTITION + self.word(14)) * 512;
        start..start + blocks * 512
    }

    /// Where the root folder begins, and ends on FAT16.
    pub fn root(&self) -> Range<usize> {
        let table = self.table();
        // There are two tables.
        let start = table.end + table.len();
        start..start + self.word(17) * 32
    }
}

impl BlockDevice for Card {
    type Error = Broken;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Broken> {
        let mut reads = self.reads.borrow_mut();
        reads.push((start.0, blocks.len()));
        let (first, count) = self.fails.get();
        if reads.len() > first && reads.len() <= first + count {
            // As it is with a card that is pulled while it sends.
            blocks[0].contents = [0xa5; 512];
            return Err(Broken);
        }
        for (index, block) in blocks.iter_mut().enumerate() {
            // Drivers may trust that there is no other.
            let bytes = &self.bytes[(start.0 as usize + index) * 512..][..512];
            block.contents = bytes.try_into().unwrap();
        }
        Ok(())
    }

    fn write(&self, _: &[Block], _: BlockIdx) -> Result<(), Broken> {
        panic!("cards are not written");
    }

    fn num_blocks(&self) -> Result<BlockCount, Broken> {
        let count = BlockCount((self.bytes.len() / 512) as u32);
        if count.0 == 0 { Err(Broken) } else { Ok(count) }
    }
}

pub type Files<'v> = FileSystem<Cursor<&'v mut [u8]>>;

/// A card with a volume that is labelled, so that it has an entry for its label.
pub fn card(kind: FatType, cluster: u32, fill: impl FnOnce(&Files<'_>)) -> Card {
    // The fewest clusters that there may be, and some.
    let (clusters, code) = if kind == FatType::Fat32 { (66_000, 0x0c) } else { (4_400, 0x0e) };
    let blocks = clusters * cluster / 512 + 1_300;
    let mut bytes = vec![0; (PARTITION + blocks as usize) * 512];
    let (table, volume) = bytes.split_at_mut(PARTITION * 512);
    table[446 + 4] = code;
    table[446 + 8..446 + 12].copy_from_slice(&(PARTITION as u32).to_le_bytes());
    table[446 + 12..446 + 16].copy_from_slice(&blocks.to_le_bytes());
    table[510..512].copy_from_slice(&[0x55, 0xaa]);
    let options =
        FormatVolumeOptions::new().fat_type(kind).bytes_per_cluster(cluster).volume_label(*b"MODELS     ");
    fatfs::format_volume(Cursor::new(&mut *volume), options).unwrap();
    let files = FileSystem::new(Cursor::new(volume), FsOptions::new()).unwrap();
    assert_eq!((files.fat_type(), files.cluster_size()), (kind, cluster));
    fill(&files);
    files.unmount().unwrap();
    Card::new(bytes)
}

pub fn write(files: &Files<'_>, path: &str, bytes: &[u8]) {
    let mut file = files.root_dir().create_file(path).unwrap();
    file.truncate().unwrap();
    file.write_all(bytes).unwrap();
    file.flush().unwrap();
}

/// Bytes of which every sector can be told from any other, of this file and of others.
pub fn content(seed: u8, len: usize) -> Vec<u8> {
    let mut random = u64::from(seed) << 32 | 0x5bd1;
    let next = |_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    };
    (0..len).map(next).collect()
}

/// Writes files in turns, each a piece of so many bytes, so that none is in one piece.
pub fn write_in_turns(files: &Files<'_>, all: &[(&str, &[u8])], piece: usize) {
    let root = files.root_dir();
    let mut open: Vec<_> = all.iter().map(|(name, _)| root.create_file(name).unwrap()).collect();
    let longest = all.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(0);
    for start in (0..longest).step_by(piece) {
        for (file, (_, bytes)) in open.iter_mut().zip(all) {
            if start < bytes.len() {
                file.write_all(&bytes[start..bytes.len().min(start + piece)]).unwrap();
            }
        }
    }
}

/// Where a file is, found by its bytes alone.
pub fn search(card: &Card, bytes: &[u8]) -> Vec<Extent> {
    let mut places = std::collections::HashMap::new();
    for (index, block) in card.bytes.chunks_exact(512).enumerate() {
        places.entry(&block[..16]).or_insert(index as u32);
    }
    let mut found: Vec<Extent> = Vec::new();
    for sector in bytes.chunks(512) {
        let first = places[&sector[..16]];
        match found.last_mut().filter(|last| last.first + last.count == first) {
            Some(last) => last.count += 1,
            None => found.push(Extent { first, count: 1 }),
        }
    }
    found
}
