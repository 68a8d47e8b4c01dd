//! The boards, and how their programs are built and started.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{built, card};
use crate::ci::report::Outcome;
use crate::ci::target::{Library, Target};
use crate::ci::tools::{is_installed, root, run, rustflags};

/// A board that is emulated.
pub struct Board {
    /// Of its folder.
    pub name: &'static str,
    pub has_card: bool,
    /// Instructions of a tick of its clock, when each takes a nanosecond.
    pub instructions_per_tick: u64,
    /// Bytes of code and constants that its program may have.
    pub flash_limit: u64,
    triple: &'static str,
    emulator: &'static str,
    /// Debian's package of the emulator.
    package: &'static str,
    /// What the emulator is to be.
    machine: &'static [&'static str],
    /// Where the model's header is in flash. The program has the same number.
    flash: u64,
}

/// A Cortex-M4 with its model in flash.
pub const CORTEX_M: Board = Board {
    name: "qemu-cortex-m",
    has_card: false,
    instructions_per_tick: 40,
    flash_limit: 160 << 10,
    triple: "thumbv7em-none-eabihf",
    emulator: "qemu-system-arm",
    package: "qemu-system-arm",
    machine: &["-machine", "mps2-an386"],
    flash: 0x0020_0000,
};

/// A RISC-V without floats, with a card.
pub const RISCV: Board = Board {
    name: "qemu-riscv",
    has_card: true,
    instructions_per_tick: 1,
    // With the card's file system, and with functions in place of instructions for floats.
    flash_limit: 240 << 10,
    triple: "riscv32imac-unknown-none-elf",
    emulator: "qemu-system-riscv32",
    package: "qemu-system-misc",
    // Without firmware of another's before the program.
    machine: &["-machine", "sifive_u", "-bios", "none"],
    flash: 0x8020_0000,
};

pub const ALL: [&Board; 2] = [&CORTEX_M, &RISCV];

/// Bytes of flash for a model and its header.
const FLASH_SIZE: usize = 2 << 20;
/// The model's distance from its header.
pub const FLASH_OFFSET: usize = 64;

/// Where the model is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Flash,
    Card,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flash => "in flash",
            Self::Card => "on the card",
        })
    }
}

/// What is put into a board before it starts.
pub enum Medium {
    Nothing,
    /// All of its flash for models.
    Flash(Vec<u8>),
    /// A card.
    Card(Vec<u8>),
    /// A card of which a block cannot be read, once or never.
    WornCard(Vec<u8>, u64, Worn),
}

/// How often a block cannot be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Worn {
    Once,
    Always,
}

impl Medium {
    /// A medium with a model.
    pub fn with(place: Place, model: &Path) -> Result<Self> {
        let path = root().join(model);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().context("a model has a name")?.to_string_lossy();
        Ok(match place {
            Place::Flash => Self::Flash(flash(&bytes)?),
            Place::Card => Self::Card(card::with_file(&name, &bytes)?),
        })
    }
}

/// How much memory a program is linked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// As the chip has.
    OfTheBoard,
    /// A megabyte, which the emulators have.
    Plenty,
}

/// What compiles for a board, and runs it.
pub struct Tools {
    board: &'static Board,
    target: Target,
}

impl Tools {
    /// Look for the tools, or say what is missing.
    pub fn find(board: &'static Board) -> Result<Result<Self, Outcome>> {
        if !is_installed(board.emulator) {
            let remedy = format!("install {} (Debian: {})", board.emulator, board.package);
            return Ok(Err(Outcome::Missing(remedy)));
        }
        let target = Target::find(board.triple, Library::Core)?;
        let missing = || Outcome::Missing(format!("rustup target add {}", board.triple));
        Ok(target.map(|target| Self { board, target }).ok_or_else(missing))
    }

    /// Compile the program; returns where it is.
    pub fn build(&self, room: Room) -> Result<PathBuf> {
        let folder = root().join("firmware").join(self.board.name);
        let built = built();
        let mut command = self.target.cargo("build");
        // The board's own settings for cargo are found from its folder only.
        command.current_dir(&folder).arg("--release").arg("--target-dir").arg(&built);
        if room == Room::Plenty {
            let script = built.join(format!("{}-plenty.x", self.board.name));
            fs::create_dir_all(&built)?;
            fs::write(&script, with_plenty(&fs::read_to_string(folder.join("link.x"))?)?)?;
            command.env("LLAMITA_LINKER_SCRIPT", script);
        }
        // Panics tell what happened, but neither where nor what `Debug` would print: that takes 8 KB and 6. The options are
        // not stable either.
        let smallest = "-Zlocation-detail=none -Zfmt-debug=none";
        let smaller = if self.target.is_from_source() { smallest } else { "" };
        run(command.env("RUSTFLAGS", rustflags(&format!("-D warnings {smaller}"))))?;
        Ok(built.join(self.board.triple).join("release").join(format!("llamita-{}", self.board.name)))
    }

    /// Whether the program is as small as it can be.
    pub fn builds_smallest(&self) -> bool {
        self.target.is_from_source()
    }

    /// A call of the emulator. What it is made of is put into a folder.
    pub fn emulate(&self, program: &Path, medium: &Medium, folder: &Path) -> Result<Command> {
        let mut command = Command::new(self.board.emulator);
        command.args(self.board.machine);
        // Every instruction takes a nanosecond, and every run as many of them.
        command.args(["-icount", "shift=0"]);
        // The program ends the emulator by a debugger's request.
        command.args(["-semihosting", "-display", "none"]);
        // Ctrl-C is the board's, to stop a story. The emulator's own console is behind Ctrl-A.
        command.args(["-chardev", "stdio,id=console,signal=off,mux=on", "-serial", "chardev:console"]);
        command.args(["-mon", "chardev=console"]);
        command.arg("-kernel").arg(program);
        match medium {
            Medium::Nothing => (),
            Medium::Flash(bytes) => {
                let image = folder.join("flash.bin");
                fs::write(&image, bytes)?;
                let address = format!(",addr={:#x},force-raw=on", self.board.flash);
                command.arg("-device").arg(option("loader,file=", &image, &address));
            }
            Medium::Card(bytes) => {
                let image = card_image(folder);
                fs::write(&image, bytes)?;
                command.arg("-drive").arg(option("file=", &image, ",if=sd,format=raw"));
            }
            Medium::WornCard(bytes, block, worn) => {
                let (image, errors) = (card_image(folder), folder.join("errors"));
                fs::write(&image, bytes)?;
                let once = if *worn == Worn::Once { "on" } else { "off" };
                fs::write(
                    &errors,
                    format!(
                        "[inject-error]\nevent = \"read_aio\"\nsector = \"{block}\"\nonce = \"{once}\"\n"
                    ),
                )?;
                let mut drive = option("if=sd,format=raw,file.driver=blkdebug,file.config=", &errors, "");
                drive.push(option(",file.image.filename=", &image, ""));
                command.arg("-drive").arg(drive);
            }
        }
        Ok(command)
    }
}

/// A board's linker script with a megabyte of RAM, most of it for the engine.
fn with_plenty(script: &str) -> Result<String> {
    let mut changed = 0;
    let lines: Vec<_> = script
        .lines()
        .map(|line| {
            let plenty = match line.split_once("LENGTH = ") {
                Some((ram, _)) if ram.trim_start().starts_with("RAM") => format!("{ram}LENGTH = 1M"),
                _ if line.starts_with("ARENA = ") => "ARENA = 700K;".to_owned(),
                _ => return line.to_owned(),
            };
            changed += 1;
            plenty
        })
        .collect();
    ensure!(changed == 2, "a linker script has one RAM and one ARENA");
    Ok(lines.join("\n"))
}

/// An option of the emulator with a path in it, whose commas are doubled.
fn option(before: &str, path: &Path, behind: &str) -> OsString {
    format!("{before}{}{behind}", path.to_string_lossy().replace(',', ",,")).into()
}

/// Where the card is that a board is started with.
pub fn card_image(folder: &Path) -> PathBuf {
    folder.join("card.img")
}

/// A model as it lies in flash: behind a header that tells its length.
pub fn flash(model: &[u8]) -> Result<Vec<u8>> {
    let len = FLASH_OFFSET + model.len();
    ensure!(
        len <= FLASH_SIZE,
        "the model with its header has {len} bytes, flash has {FLASH_SIZE}: take a smaller one"
    );
    let mut flash = vec![0; FLASH_OFFSET];
    flash[..4].copy_from_slice(b"LLMF");
    flash[8..16].copy_from_slice(&(model.len() as u64).to_le_bytes());
    flash.extend_from_slice(model);
    Ok(flash)
}
