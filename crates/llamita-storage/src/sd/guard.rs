//! What stands between `embedded-sdmmc` and a device that may hold anything.

use core::cell::{Cell, RefCell};
use core::fmt;

use embedded_sdmmc::{Block, BlockCount, BlockDevice, BlockIdx};

use super::geometry::{Geometry, PARTITIONS, partitions};
use super::{BlockError, Error, Shared};
use crate::reader::Patience;

/// Blocks of the longest folder that there may be: 65,536 entries.
const LONGEST_FOLDER: u32 = 65_536 * 32 / 512;

/// The library was stopped; [`Guard::fault`] knows why.
#[derive(Debug)]
pub(super) struct Halted;

impl fmt::Display for Halted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl core::error::Error for Halted {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Volumes are looked for.
    Opening,
    /// Folders are read.
    Folders,
    /// A file is followed from cluster to cluster.
    Following,
}

/// A device that is only read, and whose blocks are made harmless: the library trusts them, and would panic, go round
/// in circles, or take an error of the device for the end of a folder.
///
/// While a file is followed, its own blocks are noted, not read: their numbers are all that is wanted. So a device is
/// asked only for the table of clusters, and for a block of it anew only where the file has left it meanwhile.
pub(super) struct Guard<'d, D: BlockDevice> {
    device: &'d D,
    /// Blocks of the device, once it was asked.
    blocks: Cell<u32>,
    phase: Cell<Phase>,
    partitions: Cell<[u32; PARTITIONS]>,
    geometry: Cell<Option<Geometry>>,
    /// The block of the table that was read last, and which it is.
    table: RefCell<Block>,
    table_at: Cell<Option<u32>>,
    /// The block of a file that was asked for.
    followed: Cell<Option<u32>>,
    /// Blocks that the folder may still have.
    left: Cell<u32>,
    fault: Cell<Option<Error<D::Error>>>,
}

impl<'d, D: BlockDevice> Guard<'d, D> {
    pub(super) fn new(device: &'d D) -> Self {
        Self {
            device,
            blocks: Cell::default(),
            phase: Cell::new(Phase::Opening),
            partitions: Cell::default(),
            geometry: Cell::default(),
            table: RefCell::default(),
            table_at: Cell::default(),
            followed: Cell::default(),
            left: Cell::default(),
            fault: Cell::default(),
        }
    }

    /// Why the library was stopped, if it was.
    pub(super) fn fault(&self) -> Option<Error<D::Error>> {
        self.fault.take()
    }

    /// Asks how many blocks there are: drivers may trust that no other is asked for.
    pub(super) fn measure(&self) -> Result<(), Error<D::Error>> {
        let mut tries = Patience::default().tries;
        loop {
            match self.device.num_blocks() {
                Ok(count) => {
                    self.blocks.set(count.0);
                    return Ok(());
                }
                Err(_) if tries > 1 => tries -= 1,
                Err(error) => return Err(Error::Device(BlockError { block: 0, error })),
            }
        }
    }

    /// A volume is to be opened.
    pub(super) fn open(&self) {
        self.phase.set(Phase::Opening);
        self.geometry.set(None);
    }

    /// A folder is to be read.
    pub(super) fn begin_folder(&self) {
        self.phase.set(Phase::Folders);
        self.left.set(LONGEST_FOLDER);
    }

    /// A file is to be followed; says how many blocks its clusters have.
    pub(super) fn follow(&self) -> Option<u32> {
        self.phase.set(Phase::Following);
        self.geometry.get().map(|geometry| geometry.cluster)
    }

    /// The block of the file that was asked for since this was last called, if a whole
    /// cluster begins there.
    pub(super) fn take_followed(&self) -> Option<u32> {
        let geometry = self.geometry.get()?;
        let Geometry { data, end, cluster, .. } = geometry;
        let whole = |block: &u32| (block - data).is_multiple_of(cluster) && end - block >= cluster;
        self.followed.take().filter(whole)
    }

    fn halt<T>(&self, fault: Error<D::Error>) -> Result<T, Halted> {
        self.fault.set(Some(fault));
        Err(Halted)
    }

    fn read_block(&self, block: &mut Block, index: u32) -> Result<(), Halted> {
        let mut tries = Patience::default().tries;
        while let Err(error) = self.device.read(core::slice::from_mut(block), BlockIdx(index)) {
            tries -= 1;
            if tries == 0 {
                return self.halt(Error::Device(BlockError { block: index, error }));
            }
        }
        Ok(())
    }

    fn read_opening(&self, block: &mut Block, index: u32) -> Result<(), Halted> {
        self.read_block(block, index)?;
        if index == 0 {
            self.partitions.set(partitions(block));
        } else if self.geometry.get().is_none() && self.partitions.get().contains(&index) {
            self.geometry.set(Geometry::read(block, index, self.blocks.get()));
            return self.geometry.get().map(drop).ok_or(Halted);
        }
        Ok(())
    }

    fn read_table(&self, block: &mut Block, index: u32, geometry: &Geometry) -> Result<(), Halted> {
        let mut table = self.table.borrow_mut();
        if self.table_at.get() != Some(index) {
            self.table_at.set(None);
            self.read_block(&mut table, index)?;
            geometry.trust_table(&mut table);
            self.table_at.set(Some(index));
        }
        block.contents = table.contents;
        Ok(())
    }

    fn read_folder(&self, block: &mut Block, index: u32, geometry: &Geometry) -> Result<(), Halted> {
        let Some(left) = self.left.get().checked_sub(1) else { return self.halt(Error::Damaged) };
        self.left.set(left);
        self.read_block(block, index)?;
        geometry.trust_folder(block);
        Ok(())
    }
}

impl<D: BlockDevice> BlockDevice for Guard<'_, D> {
    type Error = Halted;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Halted> {
        for (offset, block) in blocks.iter_mut().enumerate() {
            let index = start.0.saturating_add(offset as u32);
            match (self.phase.get(), self.geometry.get()) {
                // There may be another partition.
                (Phase::Opening, _) if index >= self.blocks.get() => return Err(Halted),
                (_, _) if index >= self.blocks.get() => return self.halt(Error::Damaged),
                (Phase::Opening, _) => self.read_opening(block, index)?,
                (_, Some(known)) if (known.fat_start..known.fat_end).contains(&index) => {
                    self.read_table(block, index, &known)?;
                }
                (Phase::Folders, Some(known)) if (known.folders..known.end).contains(&index) => {
                    self.read_folder(block, index, &known)?;
                }
                (Phase::Following, Some(known)) if (known.data..known.end).contains(&index) => {
                    self.followed.set(Some(index));
                }
                _ => return self.halt(Error::Damaged),
            }
        }
        Ok(())
    }

    /// Nothing is ever written.
    fn write(&self, _: &[Block], _: BlockIdx) -> Result<(), Halted> {
        Err(Halted)
    }

    fn num_blocks(&self) -> Result<BlockCount, Halted> {
        Ok(BlockCount(self.blocks.get()))
    }
}

impl<D: BlockDevice> BlockDevice for Shared<'_, D> {
    type Error = D::Error;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), D::Error> {
        self.0.read(blocks, start)
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), D::Error> {
        self.0.write(blocks, start)
    }

    fn num_blocks(&self) -> Result<BlockCount, D::Error> {
        self.0.num_blocks()
    }
}
