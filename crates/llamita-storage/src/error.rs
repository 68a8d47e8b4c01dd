//! Why a file could not be opened.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file that could not be opened or read, and why.
#[derive(Debug)]
pub struct OpenError {
    /// The file, as it was named.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// There is no such file.
    NotFound,
    /// It is a directory.
    Directory,
    /// It is a device, a pipe or the like.
    NotAFile,
    /// It has no bytes.
    Empty,
    /// It has more bytes than this machine's addresses can tell apart.
    TooLarge(u64),
    /// The system does not let us read it.
    Permission,
    /// It became shorter while it was read.
    Shrunk,
    /// Another failure of the system.
    Io(io::Error),
}

impl OpenError {
    pub(crate) fn new(path: &Path, reason: Reason) -> Self {
        Self { path: path.to_owned(), reason }
    }
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied => Self::Permission,
            io::ErrorKind::UnexpectedEof => Self::Shrunk,
            _ => Self::Io(error),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such file: check the path"),
            Self::Directory => f.write_str("this is a directory, expected a file: name a file in it, or make one of a model from Hugging Face with \
                 `llamita convert`"),
            Self::NotAFile => {
                f.write_str("this is a device or a pipe, expected a file: save its content as a file first")
            }
            Self::Empty => f.write_str("the file is empty: copy or download it again"),
            Self::TooLarge(len) => write!(
                f,
                "the file has {len} bytes, expected at most {}: use a smaller one or a 64-bit machine",
                isize::MAX
            ),
            Self::Permission => f.write_str("no permission to read the file: make it readable for this user"),
            Self::Shrunk => {
                f.write_str("the file became shorter while it was read: try again once it is complete")
            }
            Self::Io(error) => write!(f, "the file cannot be read ({error}): check the disk, or copy it"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            Reason::Io(error) => Some(error),
            _ => None,
        }
    }
}
