//! Where the parts of a volume are, and what of them can be believed.

use embedded_sdmmc::Block;

/// Partitions in a table.
pub(super) const PARTITIONS: usize = 4;

const ENTRY: usize = 32;
const LONG_NAME: u8 = 0x0f;
const VOLUME_LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;
const DELETED: u8 = 0xe5;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The first blocks of the partitions. One that begins at its own table is none, and is taken out.
pub(super) fn partitions(table: &mut Block) -> [u32; PARTITIONS] {
    core::array::from_fn(|index| {
        let entry = &mut table[446 + 16 * index..][..16];
        let first = u32_at(entry, 8);
        if first == 0 {
            entry[4] = 0;
        }
        first
    })
}

/// A FAT16 or FAT32 volume, in blocks of the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// The first table of clusters.
    pub fat_start: u32,
    /// The block after it.
    pub fat_end: u32,
    /// Where folders may be: behind all tables.
    pub folders: u32,
    /// The first cluster.
    pub data: u32,
    /// The block after the last cluster, of those that the device has.
    pub end: u32,
    /// Blocks of a cluster.
    pub cluster: u32,
    clusters: u32,
    fat32: bool,
}

impl Geometry {
    /// Reads the boot block at `first`, on a device of `blocks`. `None` if it is none of these volumes, or contradicts
    /// itself.
    pub(super) fn read(boot: &Block, first: u32, blocks: u32) -> Option<Self> {
        let either = |short, long| match u16_at(&**boot, short) {
            0 => u64::from(u32_at(&**boot, long)),
            short => u64::from(short),
        };
        let (total, fat) = (either(19, 32), either(22, 36));
        let (cluster, fats) = (u32::from(boot[13]), u64::from(boot[16]));
        let (reserved, roots) = (u64::from(u16_at(&**boot, 14)), u64::from(u16_at(&**boot, 17)));
        if u16_at(&**boot, 11) != 512
            || !cluster.is_power_of_two()
            || !(1..=2).contains(&fats)
            || reserved == 0
        {
            return None;
        }
        let folders = reserved + fats * fat;
        let data = folders + (roots * ENTRY as u64).div_ceil(512);
        let clusters = total.checked_sub(data)? / u64::from(cluster);
        let fat32 = clusters >= 65_525;
        let entries = fat * 512 / if fat32 { 4 } else { 2 };
        let in_volume = |number: u32| (2..clusters + 2).contains(&u64::from(number));
        let right = (4085..0x0fff_fff5).contains(&clusters)
            && entries >= clusters + 2
            // The root folder of FAT32 is in clusters, as others are.
            && (!fat32 || roots == 0 && in_volume(u32_at(&**boot, 44)) && u64::from(u16_at(&**boot, 48)) < reserved);
        if !right {
            return None;
        }
        let at = |block: u64| u32::try_from(u64::from(first) + block).ok();
        Some(Self {
            fat_start: at(reserved)?,
            fat_end: at(reserved + fat)?,
            folders: at(folders)?,
            data: at(data)?,
            end: at(data + clusters * u64::from(cluster))?.min(blocks),
            cluster,
            clusters: clusters as u32,
            fat32,
        })
    }

    fn has(&self, cluster: u32) -> bool {
        (2..self.clusters + 2).contains(&cluster)
    }

    /// Makes every entry of a table that leads out of the volume a bad cluster.
    pub(super) fn trust_table(&self, table: &mut Block) {
        if self.fat32 {
            for entry in table.as_chunks_mut::<4>().0 {
                let next = u32::from_le_bytes(*entry) & 0x0fff_ffff;
                if next < 0x0fff_fff8 && !self.has(next) {
                    *entry = 0x0fff_fff7_u32.to_le_bytes();
                }
            }
        } else {
            for entry in table.as_chunks_mut::<2>().0 {
                let next = u16::from_le_bytes(*entry);
                if next < 0xfff8 && !self.has(next.into()) {
                    *entry = 0xfff7_u16.to_le_bytes();
                }
            }
        }
    }

    /// Takes out of a folder what would mislead: entries that lead out of the volume, and the volume's label, which
    /// would hide a folder of the same name.
    pub(super) fn trust_folder(&self, folder: &mut Block) {
        for entry in folder.as_chunks_mut::<ENTRY>().0 {
            let attributes = entry[11];
            if attributes & LONG_NAME == LONG_NAME {
                // Half of a pair at the start would be kept for the next part, which has no room for it.
                let first = u16_at(entry, 1);
                let pair = (0xd800..0xdc00).contains(&first) && (0xdc00..0xe000).contains(&u16_at(entry, 3));
                if (0xd800..0xe000).contains(&first) && !pair {
                    entry[1..3].copy_from_slice(&0xfffd_u16.to_le_bytes());
                }
                continue;
            }
            let high = if self.fat32 { u32::from(u16_at(entry, 20)) << 16 } else { 0 };
            let cluster = high | u32::from(u16_at(entry, 26));
            let empty = cluster == 0 && (attributes & FOLDER != 0 || u32_at(entry, 28) == 0);
            // A first byte of 0 is the end of the folder.
            if entry[0] != 0 && (attributes & VOLUME_LABEL != 0 || !(empty || self.has(cluster))) {
                entry[0] = DELETED;
            }
        }
    }
}
