//! Files on FAT16 and FAT32 volumes of any block device, such as SD cards.
//!
//! A file is looked up once: [`Extents::find`] says in which runs of blocks it lies, and from then on [`SdSource`], or
//! [`SdAhead`] with a driver of the board's own, reads these without a look at the file system. The device is never written. Whatever it
//! holds, there is an error at worst.
//!
//! Looking up takes 5 KiB of stack at most (4.5 measured on x86-64, 2026); nothing stays of it but the extents.

mod ahead;
mod blocks;
mod geometry;
mod guard;
mod source;

use core::fmt::{self, Write};
use core::ops::ControlFlow;

use embedded_sdmmc::{
    DirEntry, LfnBuffer, Mode, RawDirectory, TimeSource, Timestamp, VolumeIdx, VolumeManager,
};

use llamita::format::Checksum;

pub use ahead::{Moved, Mover, SdAhead};
pub use embedded_sdmmc::{Block, BlockCount, BlockDevice, BlockIdx};
pub use source::SdSource;

use crate::sector::Sector;
use geometry::PARTITIONS;
use guard::{Guard, Halted};

/// A block that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockError<E> {
    /// The first block of the read.
    pub block: u32,
    /// What the device says.
    pub error: E,
}

impl<E: fmt::Display> fmt::Display for BlockError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} of the card: {}", self.block, self.error)
    }
}

impl<E: core::error::Error> core::error::Error for BlockError<E> {}

/// Why there is no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// The device does not answer, also when it is asked again.
    Device(BlockError<E>),
    /// There is no partition with FAT16 or FAT32.
    NotFat,
    /// There is no file of that name, or no folder.
    NotFound,
    /// The file has no bytes.
    Empty,
    /// The file is in more runs of blocks than there is memory for.
    Fragments {
        /// The runs.
        needed: usize,
        /// How many were lent memory.
        lent: usize,
    },
    /// The file system contradicts itself.
    Damaged,
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(BlockError { block: 0, error }) => {
                write!(f, "there is no card that answers ({error}): insert one, or check its contacts")
            }
            Self::Device(error) => write!(f, "the card cannot be read ({error}): check its contacts, or take another"),
            Self::NotFat => f.write_str(
                "the card has no partition with FAT16 or FAT32, perhaps one with exFAT: format it as FAT32 and copy the \
                 file anew",
            ),
            Self::NotFound => f.write_str("the card has no such file: check its name and its folder, or copy it there"),
            Self::Empty => f.write_str("the file is empty: copy it anew"),
            Self::Fragments { needed, lent } => write!(
                f,
                "the file is in {needed} pieces, there is memory for {lent}: copy it to a card that was just formatted, \
                 or lend more memory"
            ),
            Self::Damaged => f.write_str(
                "the file system of the card contradicts itself: have a computer check the card, or format it and copy \
                 the file anew",
            ),
        }
    }
}

impl<E: core::error::Error> core::error::Error for Error<E> {}

/// Blocks that follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The first block of the device.
    pub first: u32,
    /// Number of blocks.
    pub count: u32,
}

impl Extent {
    /// No blocks, to make memory of.
    pub const EMPTY: Self = Self { first: 0, count: 0 };
}

/// Where a file is on a device, and how long it is.
#[derive(Clone, Copy, Debug)]
pub struct Extents<'a> {
    extents: &'a [Extent],
    len: u64,
}

impl<'a> Extents<'a> {
    /// A file of `len` bytes in these blocks, in this order.
    pub const fn new(extents: &'a [Extent], len: u64) -> Self {
        Self { extents, len }
    }

    /// Finds a file in the first FAT volume of a device, by its path, such as `models/tiny.gguf`; long and short names
    /// will do, and upper and lower case of ASCII letters are the same. Each piece of the file takes one of `memory`.
    ///
    /// Besides the folders, it reads the table of the file's clusters, 128 of them with a read, 256 of FAT16.
    ///
    /// # Errors
    /// If the file cannot be found, is empty, or has more pieces than there is memory for.
    pub fn find<D: BlockDevice>(
        device: &D,
        path: &str,
        memory: &'a mut [Extent],
    ) -> Result<Self, Error<D::Error>> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let guard = Guard::new(device);
        let volume = Volume::open(&guard)?;
        let folder = volume.folder(folder)?;
        let entry = volume.entry(folder, name, false)?;
        if entry.size == 0 {
            return Err(Error::Empty);
        }
        let needed = volume.follow(folder, &entry, memory)?;
        let lent = memory.len();
        let extents = memory.get(..needed).ok_or(Error::Fragments { needed, lent })?;
        Ok(Self { extents, len: entry.size.into() })
    }

    /// The runs of blocks themselves.
    pub const fn as_slice(&self) -> &'a [Extent] {
        self.extents
    }

    /// Bytes of the file.
    #[expect(clippy::len_without_is_empty, reason = "an empty file is none that can be found")]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// The blocks of `count` sectors of the file from sector `first` on: where a run begins, and how many there are. At
    /// the end of the file there are fewer.
    pub fn runs(&self, first: u64, count: usize) -> impl Iterator<Item = (BlockIdx, usize)> + use<'a> {
        let (mut skipped, mut left) = (first, count as u64);
        self.extents.iter().filter_map(move |extent| {
            let start = skipped.min(extent.count.into());
            skipped -= start;
            let taken = left.min(u64::from(extent.count) - start);
            left -= taken;
            // Neither is more than the extent's count.
            (taken > 0).then(|| (BlockIdx(extent.first + start as u32), taken as usize))
        })
    }
}

/// Tells the names and lengths of all files in a folder whose names end so, in any case; `""` is the root. Files that
/// are empty or hidden are left out.
///
/// # Errors
/// If the folder cannot be found or read.
pub fn list<D: BlockDevice>(
    device: &D,
    folder: &str,
    ending: &str,
    mut each: impl FnMut(&str, u64),
) -> Result<(), Error<D::Error>> {
    let guard = Guard::new(device);
    let volume = Volume::open(&guard)?;
    let folder = volume.folder(folder)?;
    volume.entries(folder, |entry, short, long| {
        let name = long.unwrap_or(short);
        let attributes = entry.attributes;
        // Macs leave a file beside each that they copy, with this before its name.
        let visible = !attributes.is_directory() && !attributes.is_hidden() && !name.starts_with("._");
        if visible && entry.size > 0 && ends_with(name, ending) {
            each(name, entry.size.into());
        }
        ControlFlow::Continue(())
    })
}

fn ends_with(name: &str, ending: &str) -> bool {
    let (name, ending) = (name.as_bytes(), ending.as_bytes());
    name.len() >= ending.len() && name[name.len() - ending.len()..].eq_ignore_ascii_case(ending)
}

/// A device that is borrowed, where one is asked for that is owned: [`SdSource`] and
/// [`VolumeManager`] can have the same one.
#[derive(Debug)]
pub struct Shared<'d, D>(pub &'d D);

/// Nothing is written, so nobody asks for the time.
struct NoTime;

impl TimeSource for NoTime {
    fn get_timestamp(&self) -> Timestamp {
        Timestamp::from_fat(0, 0)
    }
}

/// An open volume. Nothing of it is ever closed: it is forgotten as a whole, and closing would write to it.
struct Volume<'g, 'd, D: BlockDevice> {
    guard: &'g Guard<'d, D>,
    /// Two folders, for the way from one to the next, and a file.
    manager: VolumeManager<Shared<'g, Guard<'d, D>>, NoTime, 2, 1, 1>,
    root: RawDirectory,
}

impl<'g, 'd, D: BlockDevice> Volume<'g, 'd, D> {
    fn open(guard: &'g Guard<'d, D>) -> Result<Self, Error<D::Error>> {
        guard.measure()?;
        let manager = VolumeManager::new_with_limits(Shared(guard), NoTime, 0);
        for index in 0..PARTITIONS {
            guard.open();
            let opened = manager.open_raw_volume(VolumeIdx(index));
            match (guard.fault(), opened) {
                (Some(fault), _) => return Err(fault),
                (None, Ok(volume)) => {
                    let root = manager.open_root_dir(volume).map_err(|_| Error::Damaged)?;
                    return Ok(Self { guard, manager, root });
                }
                (None, Err(_)) => (),
            }
        }
        Err(Error::NotFat)
    }

    /// What the library found, or why it was stopped, which it does not always tell.
    fn told<T>(&self, result: Result<T, embedded_sdmmc::Error<Halted>>) -> Result<T, Error<D::Error>> {
        match self.guard.fault() {
            Some(fault) => Err(fault),
            None => result.map_err(|_| Error::Damaged),
        }
    }

    /// Goes to a folder from the root.
    fn folder(&self, path: &str) -> Result<RawDirectory, Error<D::Error>> {
        let mut folder = self.root;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let entry = self.entry(folder, name, true)?;
            self.guard.begin_folder();
            let next = self.told(self.manager.open_dir(folder, entry.name))?;
            self.told(self.manager.close_dir(folder))?;
            folder = next;
        }
        Ok(folder)
    }

    /// Goes through a folder, with the short and the long name of everything in it.
    fn entries(
        &self,
        folder: RawDirectory,
        mut each: impl FnMut(&DirEntry, &str, Option<&str>) -> ControlFlow<()>,
    ) -> Result<(), Error<D::Error>> {
        // 20 parts of 13 characters, each of three bytes at most.
        let mut memory = [0; 3 * 13 * 20];
        let mut last = None;
        self.guard.begin_folder();
        let result = self.manager.iterate_dir_lfn(folder, &mut LfnBuffer::new(&mut memory), |entry, long| {
            // The library tells a long name once more where a later short name has the same checksum; but no two files of
            // a folder have the same name.
            let long = long.filter(|long| {
                let this = Some((long.len(), Checksum::of(long.as_bytes())));
                let known = core::mem::replace(&mut last, this) == this;
                !long.is_empty() && !known
            });
            let mut short = ShortName::default();
            // It has room for any.
            let _ = write!(short, "{}", entry.name);
            each(entry, short.as_str(), long)
        });
        self.told(result)
    }

    /// A file or a folder by one of its names.
    fn entry(&self, folder: RawDirectory, name: &str, is_folder: bool) -> Result<DirEntry, Error<D::Error>> {
        let mut found = None;
        self.entries(folder, |entry, short, long| {
            let named =
                [Some(short), long].into_iter().flatten().any(|known| known.eq_ignore_ascii_case(name));
            if !named || entry.attributes.is_directory() != is_folder {
                return ControlFlow::Continue(());
            }
            found = Some(entry.clone());
            ControlFlow::Break(())
        })?;
        found.ok_or(Error::NotFound)
    }

    /// Follows a file from cluster to cluster. Returns its number of pieces, of which as many are in `memory` as it has
    /// room for.
    fn follow(
        &self,
        folder: RawDirectory,
        entry: &DirEntry,
        memory: &mut [Extent],
    ) -> Result<usize, Error<D::Error>> {
        self.guard.begin_folder();
        let file = self.told(self.manager.open_file_in_dir(folder, entry.name, Mode::ReadOnly))?;
        let cluster = self.guard.follow().ok_or(Error::Damaged)?;
        let mut left = Sector::count(entry.size.into()) as u32;
        let (mut at, mut end, mut pieces) = (0, None, 0_usize);
        while left > 0 {
            // One byte of a cluster has the library look for it, and the guard notes where it is.
            self.told(self.manager.file_seek_from_start(file, at))?;
            self.told(self.manager.read(file, &mut [0]))?;
            let first = self.guard.take_followed().ok_or(Error::Damaged)?;
            let count = left.min(cluster);
            let piece = if end == Some(first) {
                pieces.checked_sub(1).and_then(|last| memory.get_mut(last))
            } else {
                pieces += 1;
                memory.get_mut(pieces - 1).map(|piece| {
                    *piece = Extent { first, count: 0 };
                    piece
                })
            };
            if let Some(piece) = piece {
                piece.count += count;
            }
            end = Some(first + count);
            left -= count;
            // The last step may lead beyond what a file can have.
            at = at.saturating_add(512 * cluster);
        }
        Ok(pieces)
    }
}

/// A name of eight characters and three, with a dot between.
#[derive(Default)]
struct ShortName {
    // Characters of Latin-1 take two bytes at most.
    bytes: [u8; 2 * 12],
    len: usize,
}

impl ShortName {
    fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl Write for ShortName {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}
