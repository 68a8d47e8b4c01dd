//! Why a model could not be converted.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use llamita::format::FormatError;
use llamita_storage::OpenError;

/// What a step of a conversion returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model could not be read or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened; the error names it.
    Open(OpenError),
    /// A llama2.c checkpoint or GGUF was refused by the engine's readers.
    Format(FormatError),
    /// A file could not be read to its end.
    Read(io::Error),
    /// The result could not be written.
    Write(io::Error),
    /// What was found, what is expected instead, and what to do about it.
    Refused(String),
    /// What is wrong with a file, where the error itself does not name it.
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: Box<Error>,
    },
}

impl Error {
    /// Something that is not as expected; the message says what is, and names the remedy.
    pub fn refused(message: impl fmt::Display) -> Self {
        Self::Refused(message.to_string())
    }

    /// The same error with the file that it is about, unless it names one already.
    pub fn at(self, path: &Path) -> Self {
        match self {
            Self::Open(_) | Self::In { .. } => self,
            error => Self::In { path: path.to_owned(), error: Box::new(error) },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Format(error) => error.fmt(f),
            Self::Read(error) => write!(f, "the file cannot be read ({error}): check the disk, or copy it"),
            Self::Write(error) => write!(
                f,
                "the result cannot be written ({error}): check the folder, its permissions and the space there"
            ),
            Self::Refused(message) => f.write_str(message),
            Self::In { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(error) => Some(error),
            Self::Format(error) => Some(error),
            Self::Read(error) | Self::Write(error) => Some(error),
            Self::Refused(_) => None,
            Self::In { error, .. } => Some(error),
        }
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}
