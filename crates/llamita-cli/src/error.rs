//! How a command ends when it does not end well.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use llamita::format::FormatError;
use llamita::state::StateError;
use llamita_storage::OpenError;

use crate::output;

/// What a step of a command returns.
pub type Result<T> = std::result::Result<T, Error>;

/// The end of a command.
#[derive(Debug)]
pub enum Error {
    /// The command line asks for what cannot be: exit code 2.
    Usage(String),
    /// What was asked for did not work: exit code 1.
    Failure(String),
    /// There is nothing to say: help has been shown, or nobody reads standard output any more.
    Quiet(ExitCode),
}

impl Error {
    /// A command line that asks for what cannot be.
    pub fn usage(message: impl Display) -> Self {
        Self::Usage(message.to_string())
    }

    /// Something that did not work.
    pub fn failure(message: impl Display) -> Self {
        Self::Failure(message.to_string())
    }

    /// A file that is not what it should be.
    pub fn file(path: &Path, error: impl Display) -> Self {
        Self::Failure(format!("{}: {error}", path.display()))
    }

    /// A failure to write to standard output. One that nobody reads any more is no failure: it is how
    /// `llamita run | head -1` ends.
    pub fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Quiet(ExitCode::SUCCESS),
            _ => Self::Failure(format!(
                "cannot write to standard output ({error}): check where it goes, and the space there"
            )),
        }
    }

    /// Says what happened, on one line of standard error, and how the process should end.
    pub fn report(self) -> ExitCode {
        let (message, code) = match self {
            Self::Usage(message) => (message, ExitCode::from(2)),
            Self::Failure(message) => (message, ExitCode::FAILURE),
            Self::Quiet(code) => return code,
        };
        // With standard error gone there is nobody left to tell.
        let _ = writeln!(io::stderr(), "error: {}", output::one_line(&message));
        code
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Failure(message) => f.write_str(message),
            Self::Quiet(_) => Ok(()),
        }
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        Self::failure(error)
    }
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Self {
        Self::failure(error)
    }
}

impl From<llamita::Error<FormatError>> for Error {
    fn from(error: llamita::Error<FormatError>) -> Self {
        Self::failure(error)
    }
}
