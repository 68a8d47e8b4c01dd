//! The program espflash, which speaks to the loader in the chip.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::error::{Error, Result};

/// The program, for the chip at a port.
pub struct Espflash<'p> {
    port: &'p str,
    /// Bits of a second.
    speed: u32,
    /// What it reads and writes.
    folder: TempDir,
}

impl<'p> Espflash<'p> {
    /// Looks for the program.
    pub fn find(port: &'p str, speed: u32) -> Result<Self> {
        let found =
            Command::new("espflash").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        match found {
            Ok(_) => (),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::failure(
                    "the program espflash is not installed, which writes to the chip: cargo install espflash --locked, or \
                     --image-only FILE and any other program that writes a flash",
                ));
            }
            Err(error) => {
                return Err(Error::failure(format_args!(
                    "espflash cannot be started ({error}): install it anew"
                )));
            }
        }
        let folder = tempfile::tempdir().map_err(|error| {
            Error::failure(format_args!(
                "there can be no temporary folder ({error}): check TMPDIR, and the space there"
            ))
        })?;
        Ok(Self { port, speed, folder })
    }

    /// Reads bytes of the flash.
    pub fn read(&self, range: Range<u32>) -> Result<Vec<u8>> {
        let path = self.folder.path().join("read.bin");
        let (from, len) = (format!("{:#x}", range.start), format!("{:#x}", range.end - range.start));
        self.run("read-flash", &[from.as_ref(), len.as_ref(), path.as_ref()])?;
        fs::read(&path).map_err(|error| Error::file(&path, error))
    }

    /// Writes bytes to the flash, where they are not there already.
    pub fn write(&self, offset: u32, bytes: &[u8]) -> Result<()> {
        let path = self.folder.path().join("write.bin");
        fs::write(&path, bytes).map_err(|error| Error::file(&path, error))?;
        self.run("write-bin", &[format!("{offset:#x}").as_ref(), path.as_ref()])
    }

    fn run(&self, task: &str, arguments: &[&OsStr]) -> Result<()> {
        let mut command = Command::new("espflash");
        command.arg(task).args(["--chip", "esp32s3", "--non-interactive", "--skip-update-check"]);
        command.args(["--port", self.port, "--baud", &self.speed.to_string()]).args(arguments);
        let status = command.stdin(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Error::failure(format_args!(
                "espflash {task} has failed at {} ({status}), it says why above: hold BOOT while you press RESET, then try \
                 again, with a lower --flash-baud if that was not it",
                self.port
            ))),
            Err(error) => Err(Error::file(Path::new("espflash"), error)),
        }
    }
}
