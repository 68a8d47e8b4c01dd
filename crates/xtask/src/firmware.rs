//! `cargo xtask firmware` and `cargo xtask size`: llamita's programs for boards, built, run in emulators, and measured.

mod bench;
mod board;
mod card;
mod emulator;
pub mod esp32s3;
mod faults;
mod prompts;
mod release;
mod size;
mod story;

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::ci::report::Outcome;
use crate::ci::tools::{root, run as run_command};
use board::{Board, Medium, Place, Room, Tools};

/// Build the programs for boards, and run them in emulators.
#[derive(clap::Subcommand)]
pub enum Task {
    Build(BuildOptions),
    Release(ReleaseOptions),
    Run(RunOptions),
    Bench(bench::Options),
}

/// Have an emulated board tell a story.
///
/// Without a prompt the story must be the one in models/golden, to the byte.
#[derive(clap::Args)]
pub struct RunOptions {
    /// The board.
    board: Name,

    /// Have this text continued, by temperature 0, and compare with nothing.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,

    /// Put the model on the card, from which what has no room in memory is read for every token [default: in flash].
    #[arg(long)]
    streamed: bool,

    /// The model, up to 2 MB in flash; others than the default are compared with nothing.
    #[arg(long, value_name = "PATH", default_value = story::MODEL)]
    model: PathBuf,

    /// Connect this terminal to the board's serial port, and type nothing; /quit ends it.
    #[arg(long, conflicts_with = "prompt")]
    console: bool,
}

/// Build the program for a board that can be bought, and the image of its flash.
///
/// The image is target/firmware/llamita-esp32s3.bin: bootloader, partition table, program and model. It is written from
/// address 0 on: espflash write-bin 0x0 target/firmware/llamita-esp32s3.bin
#[derive(clap::Args)]
pub struct BuildOptions {
    /// The board.
    board: Chip,

    /// The model in the image.
    #[arg(long, value_name = "PATH", default_value = story::MODEL)]
    model: PathBuf,
}

/// Build what a release carries: the image of the flash, its checksum, and a page that writes it from a browser.
///
/// They are in target/firmware/web, for any server: python3 -m http.server --directory target/firmware/web
#[derive(clap::Args)]
pub struct ReleaseOptions {
    /// The model in the image.
    #[arg(long, value_name = "PATH", default_value = story::MODEL)]
    model: PathBuf,
}

/// Boards that can be bought, by the name of their folder.
#[derive(Clone, Copy, ValueEnum)]
enum Chip {
    Esp32s3,
}

/// Tell what every board's program takes: code, constants, and memory at rest and while it tells a story.
#[derive(clap::Args)]
pub struct SizeOptions {
    /// Tell it as JSON, an object with one for each board.
    #[arg(long)]
    json: bool,
}

/// Boards by the name of their folder.
#[derive(Clone, Copy, ValueEnum)]
enum Name {
    QemuCortexM,
    QemuRiscv,
}

impl Name {
    const fn board(self) -> &'static Board {
        match self {
            Self::QemuCortexM => &board::CORTEX_M,
            Self::QemuRiscv => &board::RISCV,
        }
    }
}

/// Do what was asked for.
pub fn run(task: &Task) -> Result<()> {
    match task {
        Task::Build(BuildOptions { board: Chip::Esp32s3, model }) => {
            esp32s3::build(&found(esp32s3::Toolchain::find()?)?, model).map(|_| ())
        }
        Task::Release(ReleaseOptions { model }) => {
            esp32s3::release(&found(esp32s3::Toolchain::find()?)?, model)
        }
        Task::Run(options) => tell(options),
        Task::Bench(options) => bench::bench(&board::ALL, options),
    }
}

/// Measure every board's program, and its memory while it tells the story that is known.
pub fn size(options: &SizeOptions) -> Result<()> {
    let mut sizes = Vec::new();
    for board in board::ALL {
        let tools = found(Tools::find(board)?)?;
        let program = tools.build(Room::OfTheBoard)?;
        let media = tempfile::tempdir()?;
        let command =
            tools.emulate(&program, &Medium::with(Place::Flash, story::MODEL.as_ref())?, media.path())?;
        let told = story::tell(command, "", !options.json)?;
        sizes.push((board, size::measure(&program)?, told.used));
    }
    if options.json {
        let boards: Vec<_> = sizes
            .iter()
            .map(|(board, size, used)| format!("\"{}\":{}", board.name, size.json(*used)))
            .collect();
        println!("{{{}}}", boards.join(","));
        return Ok(());
    }
    for (board, size, used) in sizes {
        println!("\n{}:\n{}", board.name, size.table(used));
    }
    Ok(())
}

fn tell(options: &RunOptions) -> Result<()> {
    let board = options.board.board();
    let place = if options.streamed { Place::Card } else { Place::Flash };
    ensure!(place == Place::Flash || board.has_card, "{} has no card: leave out --streamed", board.name);
    let tools = found(Tools::find(board)?)?;
    let program = tools.build(Room::OfTheBoard)?;
    let media = tempfile::tempdir()?;
    let mut command = tools.emulate(&program, &Medium::with(place, &options.model)?, media.path())?;
    if options.console {
        return run_command(&mut command);
    }
    let told = story::tell(command, options.prompt.as_deref().unwrap_or_default(), true)?;
    println!("\n{}: {told}, {}", board.name, told.instructions(board)?);
    if options.prompt.is_none() && options.model.as_os_str() == story::MODEL {
        told.compare()?;
        println!("the story is that of {}", story::GOLDEN);
    }
    Ok(())
}

/// The step of `cargo xtask ci`: every board's program has a size that it may have, computes as every machine does, tells
/// the story that it must, survives what may be wrong with its media, and is after a thousand prompts as it was.
pub fn check() -> Result<Outcome> {
    for board in board::ALL {
        let tools = match Tools::find(board)? {
            Ok(tools) => tools,
            Err(outcome) => return Ok(outcome),
        };
        let program = tools.build(Room::OfTheBoard)?;
        let size = size::measure(&program)?;
        if tools.builds_smallest() {
            size.check(board.flash_limit).with_context(|| format!("{} is too large", board.name))?;
        } else {
            println!(
                "{}: its size is checked where `core` is compiled with it, see CONTRIBUTING.md",
                board.name
            );
        }
        let emulate = |place| {
            let media = tempfile::tempdir()?;
            let command =
                tools.emulate(&program, &Medium::with(place, story::MODEL.as_ref())?, media.path())?;
            anyhow::Ok((command, media))
        };
        let (command, _media) = emulate(Place::Flash)?;
        println!("\n{}: {}", board.name, story::self_test(command)?);
        for place in [Place::Flash, Place::Card] {
            if place == Place::Card && !board.has_card {
                continue;
            }
            let (command, _media) = emulate(place)?;
            let told = story::tell(command, "", true)?;
            told.compare()?;
            told.used.check()?;
            ensure!(place == Place::Flash || told.read > 0, "{}: nothing was read from the card", board.name);
            println!("\n{}, model {place}: {told}, {}", board.name, told.instructions(board)?);
            println!("{}", size.table(told.used));
        }
        faults::check(board, |medium, folder| tools.emulate(&program, medium, folder))?;
        if !board.has_card {
            // The one whose prompts take no reading.
            let (command, _media) = emulate(Place::Flash)?;
            println!("\n{}: {}", board.name, prompts::check(command)?);
        }
    }
    Ok(Outcome::Passed)
}

/// Where programs are built: boards share what they can, beside what the workspace has built.
fn built() -> PathBuf {
    let built = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    root().join(built).join("firmware")
}

/// What there is; what is missing is an error here.
fn found<T>(tools: Result<T, Outcome>) -> Result<T> {
    match tools {
        Ok(tools) => Ok(tools),
        Err(Outcome::Missing(remedy) | Outcome::Skipped(remedy) | Outcome::Failed(remedy)) => bail!(remedy),
        Err(Outcome::Passed) => bail!("nothing is missing, and nothing was found"),
    }
}
