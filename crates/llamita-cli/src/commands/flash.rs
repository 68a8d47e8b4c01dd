//! `llamita flash`: firmware and a model to the flash of an ESP32-S3, and its console.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use llamita::format::Kind;
use llamita::weights::{Format, Tape};
use llamita_storage::Placement;

use crate::builtin;
use crate::commands::monitor::PatienceArgument;
use crate::error::{Error, Result};
use crate::espflash::Espflash;
use crate::flash_image::{Image, Partition, TABLE};
use crate::load::{File, LoadedModel};
use crate::output;
use crate::serial::PortArgument;
use crate::units::bytes;

/// Write firmware and a model to an ESP32-S3, and open its console
///
/// The firmware is the image of a flash: of a release, or made by `cargo xtask firmware build esp32s3`. Without one, only
/// the model is written, to the partition that the board already has for it. It is `espflash` that writes, a program to be
/// installed with cargo install espflash --locked; what the chip already holds is not written again.
#[derive(clap::Args)]
pub struct Options {
    /// The firmware: an image of the flash with bootloader, partition table and program
    #[arg(value_name = "IMAGE", required_unless_present = "model")]
    firmware: Option<PathBuf>,

    /// The model, GGUF as `llamita convert` writes it, or one that `llamita models` lists [default: that in the image, or
    /// tiny]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,

    /// Write all of it to this file instead, from the beginning of the flash on, for emulators and for web flashers
    #[arg(long, value_name = "FILE", requires = "firmware")]
    image_only: Option<PathBuf>,

    /// Bits of a second while writing; USB of the chip itself does not care
    #[arg(long, value_name = "N", default_value_t = 460_800, value_parser = clap::value_parser!(u32).range(9600..))]
    flash_baud: u32,

    /// Leave the console closed
    #[arg(long)]
    no_monitor: bool,

    #[command(flatten)]
    port: PortArgument,

    #[command(flatten)]
    patience: PatienceArgument,
}

/// Write it.
pub fn run(options: &Options) -> Result<()> {
    // What is wrong with the files is found before anything is asked of a board.
    let image = options.firmware.as_deref().map(firmware).transpose()?;
    let inside = image.as_ref().and_then(|(_, image)| image.model());
    let model = match &options.model {
        Some(path) => model(path)?,
        None => inside.unwrap_or(builtin::ALL[0].bytes()).to_vec(),
    };
    if let Some((path, image)) = &image {
        image.partition.check(&model).map_err(|error| Error::file(path, error))?;
        if let Some(output) = &options.image_only {
            let whole = image.with(&model);
            output::file(output, &whole)?;
            return output::print(&format!("{}\n", summary(&image.partition, image.program(), &model)));
        }
    }

    let port = options.port.find()?;
    // A port that cannot be opened is told of in words that help.
    drop(options.port.open(&port)?);
    let chip = Espflash::find(&port, options.flash_baud)?;
    let partition = match &image {
        Some((_, image)) => {
            output::note(&summary(&image.partition, image.program(), &model));
            chip.write(0, image.program())?;
            image.partition
        }
        None => {
            let at = |error: &dyn Display| {
                Error::failure(format_args!("the flash of the board at {port}: {error}"))
            };
            let partition = Partition::find(&chip.read(TABLE)?).map_err(|error| {
                at(&format_args!("{error}: write the firmware too, with llamita flash IMAGE --model MODEL"))
            })?;
            partition.check(&model).map_err(|error| at(&error))?;
            partition
        }
    };
    chip.write(partition.offset, &model)?;
    if options.no_monitor {
        return Ok(());
    }
    options.patience.console(options.port.open_again(&port)?, &port)
}

fn firmware(path: &Path) -> Result<(&Path, Image)> {
    let bytes = fs::read(path).map_err(|error| {
        Error::file(path, format_args!("cannot be read ({error}): name the image of a release, or build one"))
    })?;
    let image = Image::read(bytes).map_err(|error| {
        Error::file(
            path,
            format_args!(
                "{error}: name the image of a release, or make one with cargo xtask firmware build esp32s3, or with \
                 espflash save-image --chip esp32s3 --flash-size 16mb --merge --skip-padding --partition-table \
                 firmware/esp32s3/partitions.csv PROGRAM IMAGE"
            ),
        )
    })?;
    Ok((path, image))
}

/// A model that chips use as it is.
fn model(path: &Path) -> Result<Vec<u8>> {
    let file = File::open_as_is(path, Placement::Mapped)?;
    let model = LoadedModel::read(&file)?;
    let tape = model.tape()?;
    let in_blocks =
        Tape::tensors(model.config()).any(|tensor| matches!(tape.entry(tensor).format, Format::Blocks(_)));
    let vocabulary = model.header.vocabulary().map_err(|error| Error::file(path, error))?;
    if model.kind() != Kind::Gguf || in_blocks || vocabulary.is_none() {
        return Err(Error::file(
            path,
            format_args!(
                "not a model that a chip can use as it is, expected GGUF for llamita: llamita convert {} model.gguf",
                path.display()
            ),
        ));
    }
    Ok(file.content.bytes().to_vec())
}

/// What goes where.
fn summary(partition: &Partition, program: &[u8], model: &[u8]) -> String {
    let Partition { offset, size } = *partition;
    format!(
        "firmware {} at 0x0, model {} at {offset:#x}, in a partition of {}",
        bytes(program.len() as u64),
        bytes(model.len() as u64),
        bytes(size.into())
    )
}
