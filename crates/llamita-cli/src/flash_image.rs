//! What the flash of an ESP32-S3 holds: bootloader, partition table and program, as one image from its beginning, and a
//! model in a partition of its own.

use std::fmt;
use std::ops::Range;

/// What an image begins with, the bootloader's header: its magic number, and where it tells the chip that it is for.
const MAGIC: u8 = 0xE9;
const CHIP: Range<usize> = 12..14;
/// The ESP32-S3, there.
const ESP32S3: u16 = 9;

/// Where the partition table is, and how long.
pub const TABLE: Range<u32> = 0x8000..0x8C00;
/// Bytes of an entry of it, and how one begins.
const ENTRY: usize = 32;
const ENTRY_MAGIC: [u8; 2] = [0xAA, 0x50];
/// What the firmware looks for.
const MODEL: &str = "model";

/// Flash is mapped into memory in pages of this size.
const PAGE: u32 = 0x1_0000;
/// The most that is mapped into the chip's memory.
const MOST: u32 = 32 << 20;
/// What erased flash holds.
const ERASED: u8 = 0xFF;

/// What is wrong with an image, or with its partition table.
#[derive(Debug, PartialEq, Eq)]
pub enum ImageError {
    /// It is a program as the linker makes it.
    Elf,
    /// It does not begin as an image.
    Magic,
    /// It is for another chip.
    Chip(u16),
    /// There is no partition table where it should be.
    NoTable,
    /// No partition is for a model.
    NoModelPartition,
    /// The partition for a model cannot be where the table says.
    Partition(Partition),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf => write!(f, "a program, expected the image of a flash"),
            Self::Magic => write!(f, "not an image of an ESP32-S3's flash"),
            Self::Chip(found) => {
                write!(f, "for the chip of Espressif's number {found}, expected {ESP32S3}, the ESP32-S3")
            }
            Self::NoTable => write!(f, "there is no partition table at {:#x}", TABLE.start),
            Self::NoModelPartition => write!(f, "there is no partition {MODEL}"),
            Self::Partition(Partition { offset, size }) => {
                write!(f, "the partition {MODEL} has {size:#x} bytes at {offset:#x}, where it cannot be")
            }
        }
    }
}

/// A model that does not fit its partition.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge {
    model: usize,
    partition: u32,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the model has {} bytes, its partition {}: make it smaller with llamita convert --quant q4 or \
             --prune-vocab, or copy it to an SD card",
            self.model, self.partition
        )
    }
}

/// The partition for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Where it begins in flash.
    pub offset: u32,
    /// Its bytes.
    pub size: u32,
}

impl Partition {
    /// Finds it in a partition table.
    pub fn find(table: &[u8]) -> Result<Self, ImageError> {
        let mut entries =
            table.chunks_exact(ENTRY).take_while(|entry| entry.starts_with(&ENTRY_MAGIC)).peekable();
        if entries.peek().is_none() {
            return Err(ImageError::NoTable);
        }
        let word = |entry: &[u8], at: usize| {
            entry[at..][..4].iter().rev().fold(0, |word, &byte| (word << 8) | u32::from(byte))
        };
        let is_model =
            |entry: &&[u8]| entry[12..28].split(|&byte| byte == 0).next() == Some(MODEL.as_bytes());
        let entry = entries.find(is_model).ok_or(ImageError::NoModelPartition)?;
        let found = Self { offset: word(entry, 4), size: word(entry, 8) };
        let end = found.offset.checked_add(found.size);
        let fits = found.offset >= TABLE.end
            && found.offset.is_multiple_of(PAGE)
            && end.is_some_and(|end| end <= MOST);
        if fits { Ok(found) } else { Err(ImageError::Partition(found)) }
    }

    /// Refuses a model that is larger.
    pub const fn check(&self, model: &[u8]) -> Result<(), TooLarge> {
        let too_large = TooLarge { model: model.len(), partition: self.size };
        if model.len() as u64 <= self.size as u64 { Ok(()) } else { Err(too_large) }
    }
}

/// An image of a flash.
pub struct Image {
    bytes: Vec<u8>,
    /// Where its model is.
    pub partition: Partition,
}

impl Image {
    /// Looks at an image.
    pub fn read(bytes: Vec<u8>) -> Result<Self, ImageError> {
        if bytes.starts_with(b"\x7FELF") {
            return Err(ImageError::Elf);
        }
        let chip = bytes.get(CHIP).filter(|_| bytes[0] == MAGIC).ok_or(ImageError::Magic)?;
        let chip = u16::from_le_bytes([chip[0], chip[1]]);
        if chip != ESP32S3 {
            return Err(ImageError::Chip(chip));
        }
        let table = bytes.get(TABLE.start as usize..TABLE.end as usize).ok_or(ImageError::NoTable)?;
        let partition = Partition::find(table)?;
        Ok(Self { bytes, partition })
    }

    /// All before the model.
    pub fn program(&self) -> &[u8] {
        let end = self.bytes.len().min(self.partition.offset as usize);
        written(&self.bytes[..end])
    }

    /// The model in it, if there is one.
    pub fn model(&self) -> Option<&[u8]> {
        let Partition { offset, size } = self.partition;
        let behind = self.bytes.get(offset as usize..)?;
        let model = written(&behind[..behind.len().min(size as usize)]);
        model.starts_with(b"GGUF").then_some(model)
    }

    /// The whole of it, with another model.
    pub fn with(&self, model: &[u8]) -> Vec<u8> {
        let mut bytes = self.program().to_vec();
        bytes.resize(self.partition.offset as usize, ERASED);
        bytes.extend(model);
        bytes
    }
}

/// Bytes without those at their end that erased flash holds anyway.
fn written(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte != ERASED).map_or(0, |last| last + 1);
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(label: &str, offset: u32, size: u32) -> Vec<u8> {
        let mut entry =
            [&ENTRY_MAGIC[..], &[1, 6], &offset.to_le_bytes(), &size.to_le_bytes(), label.as_bytes()]
                .concat();
        entry.resize(ENTRY, 0);
        entry
    }

    /// An image with these partitions.
    fn image(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![MAGIC, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0];
        bytes.resize(TABLE.start as usize, ERASED);
        bytes.extend(entries.concat());
        bytes.resize(0x10000, ERASED);
        bytes.extend(b"program");
        bytes
    }

    fn found(entries: &[Vec<u8>]) -> Result<Partition, ImageError> {
        Image::read(image(entries)).map(|image| image.partition)
    }

    #[test]
    fn the_partition_is_that_of_the_table() {
        let factory = entry("factory", 0x10000, 0x1F0000);
        let model = entry("model", 0x20_0000, 0xE0_0000);
        let expected = Partition { offset: 0x20_0000, size: 0xE0_0000 };
        assert_eq!(found(&[factory.clone(), model.clone()]), Ok(expected));
        assert_eq!(found(&[]), Err(ImageError::NoTable));
        assert_eq!(
            found(&[factory.clone(), entry("models", 0x20_0000, 1)]),
            Err(ImageError::NoModelPartition)
        );
        // What stands behind the end of the table is no part of it.
        assert_eq!(found(&[factory, vec![ERASED; ENTRY], model]), Err(ImageError::NoModelPartition));
        for (offset, size) in
            [(0x8000, 0x1000), (0x20_1000, 0x1000), (0x20_0000, u32::MAX), (MOST, 1), (0, 0)]
        {
            assert_eq!(
                found(&[entry("model", offset, size)]),
                Err(ImageError::Partition(Partition { offset, size }))
            );
        }
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let refused = |bytes: &[u8]| Image::read(bytes.to_vec()).err().unwrap();
        assert_eq!(refused(b""), ImageError::Magic);
        assert_eq!(refused(b"GGUF and so on"), ImageError::Magic);
        assert_eq!(refused(b"\x7FELF and so on"), ImageError::Elf);
        let whole = image(&[entry("model", 0x20_0000, 0xE0_0000)]);
        assert_eq!(refused(&whole[..13]), ImageError::Magic);
        assert_eq!(refused(&whole[..0x8000]), ImageError::NoTable);
        assert_eq!(refused(&whole[..0x8BFF]), ImageError::NoTable);
        let mut other = whole;
        other[12] = 5;
        assert_eq!(refused(&other), ImageError::Chip(5));
    }

    #[test]
    fn a_model_takes_the_place_of_another() {
        let mut bytes = image(&[entry("model", 0x2_0000, 0x1000)]);
        let program = bytes.clone();
        assert_eq!(Image::read(bytes.clone()).unwrap().model(), None);
        bytes.resize(0x2_0000, ERASED);
        bytes.extend(b"GGUF one that is longer\xFF");
        let image = Image::read(bytes).unwrap();
        assert_eq!(image.program(), program);
        assert_eq!(image.model().unwrap(), b"GGUF one that is longer");
        let image = Image::read(image.with(b"GGUF two")).unwrap();
        assert_eq!((image.program(), image.model()), (&program[..], Some(&b"GGUF two"[..])));
        assert_eq!(image.partition.check(&[0; 0x1000]), Ok(()));
        assert_eq!(image.partition.check(&[0; 0x1001]), Err(TooLarge { model: 0x1001, partition: 0x1000 }));
    }
}
