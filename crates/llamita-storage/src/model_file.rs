//! The bytes of a file, in the memory where they are fastest to use.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{OpenError, Reason};
use crate::mmap;

/// Where the bytes of a file are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Huge pages for files of 4 MB up to a quarter of the memory that is available, the map for others.
    Auto,
    /// The file, mapped: no time to load, and processes share the memory.
    Mapped,
    /// A copy in memory of huge pages, with the tensors at multiples of 64 bytes. Reading all of it for every
    /// token is faster than from a map, and the file may change once it is open. Where the system has no
    /// huge pages it is an aligned copy.
    HugePages,
}

/// From this length on, in bytes, a copy in huge pages saves more time than it takes.
///
/// With 61 MB of weights on a Zen 4 core the copy takes 10 ms, and decoding goes from 350 to 455 tokens per
/// second: it has paid after some 16 tokens (`llamita bench --weights mapped` and `huge-pages`, 2026-11-23).
const COPY_FROM: u64 = 4 << 20;

/// The bytes of a file.
///
/// The tensors of every kind of model file that llamita reads are aligned to their numbers in it.
///
/// # While a file is mapped
/// nobody may change it. No program can check this or prevent it; llamita assumes it, like every user of file
/// maps. The bytes are lent as a slice, and text among them as `str`: where these change although Rust takes
/// them not to, the behaviour is undefined. If someone makes the file shorter, the system ends the process
/// with SIGBUS at the next use of what is gone. To replace a model file that may be in use, write the new one
/// under another name and rename it. Where that cannot be relied on, use [`Placement::HugePages`], which only
/// reads the file while it is opened; [`Placement::Auto`] may map it.
#[derive(Debug)]
pub struct ModelFile {
    memory: Memory,
    placement: Placement,
}

/// Who has the bytes.
#[derive(Debug)]
enum Memory {
    /// A part of a map, or of memory of this process.
    Own(Mmap, Range<usize>),
    /// The program.
    Program(&'static [u8]),
}

impl ModelFile {
    /// Opens a file and holds it as [`Placement::Auto`] does.
    ///
    /// # Errors
    /// If it is no regular file with at least one byte, or cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_in(path, Placement::Auto)
    }

    /// Opens a file and holds it in a place of the caller's choice.
    ///
    /// # Errors
    /// If it is no regular file with at least one byte, or cannot be read.
    pub fn open_in(path: impl AsRef<Path>, placement: Placement) -> Result<Self, OpenError> {
        let path = path.as_ref();
        Self::open_file(path, placement).map_err(|reason| OpenError::new(path, reason))
    }

    fn open_file(path: &Path, placement: Placement) -> Result<Self, Reason> {
        let (mut file, bytes) = open_regular(path)?;
        let len = usize::try_from(bytes).ok().filter(|&len| len <= isize::MAX as usize);
        let len = len.ok_or(Reason::TooLarge(bytes))?;

        let pays = || {
            bytes >= COPY_FROM
                && huge_pages_exist()
                && available(Path::new("/")).is_some_and(|b| bytes <= b / 4)
        };
        match placement {
            Placement::Mapped => Self::mapped(&file, len),
            Placement::HugePages => Self::copied(&mut file, len),
            // Whatever goes wrong with the copy, the map may still do.
            Placement::Auto if pays() => Self::copied(&mut file, len).or_else(|_| Self::mapped(&file, len)),
            Placement::Auto => Self::mapped(&file, len),
        }
    }

    fn mapped(file: &File, len: usize) -> Result<Self, Reason> {
        Ok(Self { memory: Memory::Own(mmap::map(file, len)?, 0..len), placement: Placement::Mapped })
    }

    fn copied(file: &mut File, len: usize) -> Result<Self, Reason> {
        let mut mark = [0; 4];
        let read = file.read(&mut mark)?;
        let (mut memory, start) = mmap::huge_pages(len, first_tensor(&mark))?;
        let bytes = &mut memory[start..start + len];
        let read = read.min(len);
        bytes[..read].copy_from_slice(&mark[..read]);
        file.read_exact(&mut bytes[read..])?;
        // Nothing may write here any more, and nothing can.
        let memory = memory.make_read_only()?;
        Ok(Self { memory: Memory::Own(memory, start..start + len), placement: Placement::HugePages })
    }

    /// The beginning of a file, in memory of its own, and the length of the whole. `enough` is asked how long the
    /// beginning has to be, with some of it and the length of the whole; `None` as its error means that there was too
    /// little to say so.
    ///
    /// # Errors
    /// If it is no regular file with at least one byte, or cannot be read; the inner error is that of `enough`.
    pub fn open_start<E>(
        path: impl AsRef<Path>,
        enough: impl Fn(&[u8], u64) -> Result<u64, Option<E>>,
    ) -> Result<(Result<Self, E>, u64), OpenError> {
        let path = path.as_ref();
        let refuse = |reason| OpenError::new(path, reason);
        let (file, len) = open_regular(path).map_err(refuse)?;
        let mut bytes = Vec::new();
        loop {
            // Half as much again as there was, so that long headers take few rounds.
            let more = (bytes.len() as u64 / 2).max(1 << 16);
            let read = (&file).take(more).read_to_end(&mut bytes).map_err(|error| refuse(error.into()))?;
            match enough(&bytes, len) {
                Ok(wanted) if wanted <= bytes.len() as u64 => {
                    bytes.truncate(wanted as usize);
                    break;
                }
                Ok(_) | Err(None) if read > 0 => (),
                Ok(_) | Err(None) => return Err(refuse(Reason::Shrunk)),
                Err(Some(error)) => return Ok((Err(error), len)),
            }
        }
        let copy = |memory: &mut [u8]| {
            memory.copy_from_slice(&bytes);
            Ok(())
        };
        let file = Self::in_memory(bytes.len(), copy).map_err(|error| refuse(error.into()))?;
        Ok((file, len))
    }

    /// A file of `len` bytes that is only in memory: `write` makes its content, from zeros. The first byte is at
    /// a multiple of 64.
    ///
    /// # Errors
    /// If there is not as much memory; the inner error is that of `write`.
    pub fn in_memory<E>(
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> io::Result<Result<Self, E>> {
        let (mut memory, start) = mmap::huge_pages(len, 0)?;
        if let Err(error) = write(&mut memory[start..start + len]) {
            return Ok(Err(error));
        }
        // Nothing may write here any more, and nothing can.
        let memory = memory.make_read_only()?;
        Ok(Ok(Self { memory: Memory::Own(memory, start..start + len), placement: Placement::HugePages }))
    }

    /// A file that is part of the program, at a multiple of 64 bytes: mapped, as the whole program is.
    pub const fn of_program(bytes: &'static [u8]) -> Self {
        Self { memory: Memory::Program(bytes), placement: Placement::Mapped }
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Own(memory, range) => &memory[range.clone()],
            Memory::Program(bytes) => bytes,
        }
    }

    /// Where the bytes are held: [`Placement::Mapped`] or [`Placement::HugePages`].
    pub const fn placement(&self) -> Placement {
        self.placement
    }
}

/// Opens a regular file that has bytes, and says how many.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64), Reason> {
    // Looked at before it is opened: to open a pipe would wait for its writer.
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(Reason::Directory);
    }
    if !kind.is_file() {
        return Err(Reason::NotAFile);
    }
    let file = File::open(path)?;
    match file.metadata()?.len() {
        0 => Err(Reason::Empty),
        bytes => Ok((file, bytes)),
    }
}

/// A byte whose alignment is that of the tensors, by the first bytes of a file.
const fn first_tensor(mark: &[u8; 4]) -> usize {
    match mark {
        // These align their tensors from the start of the file.
        b"GGUF" | b"24ka" => 0,
        // A llama2.c checkpoint of version 0: seven numbers, then the tensors.
        _ => 28,
    }
}

/// Whether the system gives huge pages to who asks for them.
fn huge_pages_exist() -> bool {
    cfg!(target_os = "linux")
        && fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
            .is_ok_and(|setting| !setting.contains("[never]"))
}

/// Memory that could be had without taking it from others, in bytes, on the system whose files are under
/// `root`.
fn available(root: &Path) -> Option<u64> {
    let table = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let kibibytes = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let free = kibibytes.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)?;
    // That is the whole machine's. A container may have less, and what goes beyond its limit is killed:
    // control groups of version 2 and of version 1. One that is not limited says "max", or a huge number.
    let limits = ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits =
        limits.iter().filter_map(|file| fs::read_to_string(root.join(file)).ok()?.trim().parse().ok());
    limits.chain([free]).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A file in the folder for temporary ones, removed in the end.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str, bytes: &[u8]) -> Self {
            let name = format!("llamita-storage-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, bytes).unwrap();
            Self(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn every_placement_holds_the_same_bytes() {
        for len in [1, 3, 4, 5, 28, 4096, 100_001, 5 << 20] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let file = Temporary::new(&format!("same-{len}"), &bytes);
            for placement in [Placement::Auto, Placement::Mapped, Placement::HugePages] {
                let held = ModelFile::open_in(&file.0, placement).unwrap();
                assert!(held.bytes() == bytes, "{len} bytes, {placement:?}");
                assert_ne!(held.placement(), Placement::Auto);
            }
        }
    }

    #[test]
    fn tensors_of_a_copy_are_aligned() {
        for (start, first) in [(&b"GGUF"[..], 0), (b"24ka", 0), (b"\x40\0\0\0", 28), (b"x", 28)] {
            let mut bytes = vec![0; 1000];
            bytes[..start.len()].copy_from_slice(start);
            let file = Temporary::new(&format!("aligned-{}", start.escape_ascii()), &bytes);
            let held = ModelFile::open_in(&file.0, Placement::HugePages).unwrap();
            assert_eq!((held.bytes().as_ptr().addr() + first) % 64, 0, "{start:?}");
        }
    }

    #[test]
    fn a_file_can_be_made_in_memory() {
        for len in [1, 100_001, 5 << 20] {
            let write = |bytes: &mut [u8]| {
                assert!(bytes.iter().all(|&byte| byte == 0));
                bytes.fill(7);
                Ok::<(), ()>(())
            };
            let held = ModelFile::in_memory(len, write).unwrap().unwrap();
            assert!(held.bytes().len() == len && held.bytes().iter().all(|&byte| byte == 7));
            assert_eq!(held.bytes().as_ptr().addr() % 64, 0);
        }
        assert_eq!(ModelFile::in_memory(9, |_| Err(3)).unwrap().err(), Some(3));
    }

    #[test]
    fn small_files_are_mapped() {
        let file = Temporary::new("small", &[1; 1000]);
        assert_eq!(ModelFile::open(&file.0).unwrap().placement(), Placement::Mapped);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let reason = |path: &Path| ModelFile::open(path).unwrap_err();
        let empty = Temporary::new("empty", &[]);
        let error = reason(&empty.0);
        assert!(matches!(error.reason, Reason::Empty), "{error}");
        assert!(error.to_string().starts_with(&empty.0.display().to_string()), "{error}");
        let error = reason(&std::env::temp_dir());
        assert!(matches!(error.reason, Reason::Directory), "{error}");
        let error = reason(&std::env::temp_dir().join("llamita-storage/no/such/file"));
        assert!(matches!(error.reason, Reason::NotFound), "{error}");
        #[cfg(unix)]
        {
            let error = reason(Path::new("/dev/null"));
            assert!(matches!(error.reason, Reason::NotAFile), "{error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_available_memory_is_known() {
        assert!(available(Path::new("/")).is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn a_container_has_no_more_memory_than_its_limit() {
        let root = std::env::temp_dir().join(format!("llamita-storage-{}-root", std::process::id()));
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(available(&root), None);
        write("proc/meminfo", "MemTotal:       32000000 kB\nMemAvailable:   16000000 kB\n");
        assert_eq!(available(&root), Some(16_384_000_000));
        write("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(available(&root), Some(16_384_000_000));
        write("sys/fs/cgroup/memory.max", "1073741824\n");
        assert_eq!(available(&root), Some(1 << 30));
        write("sys/fs/cgroup/memory.max", "34359738368\n");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(available(&root), Some(16_384_000_000));
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
        assert_eq!(available(&root), Some(1 << 29));
        fs::remove_dir_all(&root).unwrap();
    }
}
