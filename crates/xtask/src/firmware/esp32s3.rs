//! The program for the ESP32-S3: compiled, looked at, and made into what its flash is to hold.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use espflash::flasher::{FlashData, FlashFrequency, FlashMode, FlashSettings, FlashSize};
use espflash::image_format::idf::IdfBootloaderFormat;
use espflash::target::{Chip, XtalFrequency};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::{built, release, size};
use crate::ci::report::Outcome;
use crate::ci::tools::{output, root, run};

const FOLDER: &str = "firmware/esp32s3";
const TRIPLE: &str = "xtensa-esp32s3-none-elf";
const PROGRAM: &str = "llamita-esp32s3";
/// The partition for a model, as the program calls it.
const MODEL_PARTITION: &str = "model";

/// Code inside the chip, which no cache has to fetch.
const INTERNAL: std::ops::Range<u64> = 0x4037_8000..0x403E_0000;
/// What runs there, by the parts of names that `rwtext_hook.x` has as well: a product must be among it, and how the second
/// core waits, if it is started.
const HOT: [&str; 5] = [
    "15llamita_kernels4arch",
    "15llamita_kernels5words",
    "15llamita_kernels5cache",
    "15llamita_kernels4team5parts",
    WAIT,
];
const PRODUCT: &str = "6matmul";
const WAIT: &str = "7Meeting4help";
/// What esp-hal starts the second core with.
const SECOND_CORE: &str = "start_core1";
/// Before a loop of the core's own (`begin_loop` in the kernels for Xtensa): `nop.n`, `nop`, and how `loopnez` begins.
const LOOP: [u8; 6] = [0x3D, 0xF0, 0xF0, 0x20, 0x00, 0x76];
/// The least memory inside the chip that must be left for a model.
const LEAST_ARENA: u64 = 248 << 10;

/// A compiler for Xtensa.
pub struct Toolchain(Kind);

enum Kind {
    /// As espup installs it, for rustup.
    Espup,
    /// A folder with a program that is called as cargo is.
    Folder(PathBuf),
}

impl Toolchain {
    /// Look for a compiler: espup's, or else one that the folder of test data installs.
    pub fn find() -> Result<Result<Self, Outcome>> {
        let mut ask = Command::new("rustup");
        if output(ask.args(["run", "esp", "rustc", "--version"])).is_ok() {
            return Ok(Ok(Self(Kind::Espup)));
        }
        let shared = env::var_os("LLAMITA_TEST_DATA").map(PathBuf::from);
        let install = shared.map(|folder| root().join(folder).join("toolchain/install.sh"));
        let Some(install) = install.filter(|install| install.is_file()) else {
            let remedy =
                "install espup (https://github.com/esp-rs/espup), then: espup install --targets esp32s3";
            return Ok(Err(Outcome::Missing(remedy.into())));
        };
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
        let folder = cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("xtensa-rust");
        run(Command::new(&install).env("PREFIX", &folder))?;
        Ok(Ok(Self(Kind::Folder(folder))))
    }

    /// A call of cargo in the program's folder, where its settings are found.
    fn cargo(&self) -> Command {
        let mut command = match &self.0 {
            Kind::Espup => {
                let mut command = Command::new("rustup");
                command.args(["run", "esp", "cargo"]);
                command
            }
            Kind::Folder(folder) => Command::new(folder.join("bin/xcargo")),
        };
        command.current_dir(root().join(FOLDER)).arg("build").arg("--release");
        // This program's own toolchain is no other's.
        for name in ["RUSTUP_TOOLCHAIN", "RUSTC", "RUSTDOC", "CARGO"] {
            command.env_remove(name);
        }
        // Flags of the environment would take the place of those in the folder.
        command.env_remove("RUSTFLAGS");
        command
    }

    /// Compile the program; returns where it is.
    pub fn build(&self) -> Result<PathBuf> {
        let built = built();
        run(self.cargo().arg("--target-dir").arg(&built))?;
        Ok(built.join(TRIPLE).join("release").join(PROGRAM))
    }
}

/// Where the parts of the program are.
pub struct Layout {
    size: size::Size,
    /// Bytes of code inside the chip.
    internal: u64,
    /// Names of what has to be there and is not.
    misplaced: Vec<String>,
    /// Names of what is there of that.
    hot: Vec<String>,
    /// Whether the second core is started.
    both_cores: bool,
    /// Where the core's own loops begin.
    loops: Vec<u64>,
}

/// Look at where the parts of a program are.
pub fn measure(program: &Path) -> Result<Layout> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let file = object::File::parse(&*bytes)?;
    let mut layout = Layout {
        size: size::measure(program)?,
        internal: 0,
        misplaced: Vec::new(),
        hot: Vec::new(),
        both_cores: false,
        loops: Vec::new(),
    };
    for section in file.sections().filter(|section| INTERNAL.contains(&section.address())) {
        layout.internal += section.size();
        let found = section.data()?.windows(LOOP.len()).enumerate().filter(|(_, bytes)| *bytes == LOOP);
        layout.loops.extend(found.map(|(at, _)| section.address() + (at + LOOP.len() - 1) as u64));
    }
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let name = symbol.name()?;
        layout.both_cores |= name.contains(SECOND_CORE);
        if HOT.iter().any(|part| name.contains(part)) {
            let inside = INTERNAL.contains(&symbol.address());
            let names = if inside { &mut layout.hot } else { &mut layout.misplaced };
            names.push(name.to_owned());
        }
    }
    Ok(layout)
}

impl Layout {
    /// What is hot must be inside the chip, and memory for models be left there.
    pub fn check(&self) -> Result<()> {
        ensure!(self.misplaced.is_empty(), "not in internal memory: {}", self.misplaced.join(", "));
        for part in [PRODUCT].into_iter().chain(self.both_cores.then_some(WAIT)) {
            let found = self.hot.iter().any(|name| name.contains(part));
            ensure!(found, "nothing named {part} is in internal memory: see rwtext_hook.x");
        }
        ensure!(!self.loops.is_empty(), "no loop of the core's own is in internal memory: see begin_loop");
        for at in &self.loops {
            ensure!(
                at % 4 == 1,
                "the loop at {at:#x} begins across two words, which the core does not allow"
            );
        }
        let arena = self.size.arena();
        ensure!(
            arena >= LEAST_ARENA,
            "{arena} bytes are left for models in internal memory, expected {LEAST_ARENA}"
        );
        Ok(())
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of flash, {} of the code inside the chip", self.size.flash(), self.internal)
    }
}

/// Write what the flash is to hold, from its beginning: bootloader, partition table, program and model. Returns where.
pub fn image(program: &Path, model: &Path) -> Result<PathBuf> {
    let elf = fs::read(program)?;
    let table = root().join(FOLDER).join("partitions.csv");
    let settings =
        FlashSettings::new(Some(FlashMode::Qio), Some(FlashSize::_16Mb), Some(FlashFrequency::_80Mhz));
    let flash = FlashData::new(settings, 0, None, Chip::Esp32s3, XtalFrequency::_40Mhz);
    let format = IdfBootloaderFormat::new(&elf, &flash, Some(&table), None, None, None)
        .map_err(|error| anyhow::anyhow!("no image can be made of {}: {error}", program.display()))?;
    let table = format.partition_table();
    let mut parts: Vec<_> = format.flash_segments().map(|part| (part.addr, part.data().to_vec())).collect();
    let partition = table.find(MODEL_PARTITION).with_context(|| format!("no partition {MODEL_PARTITION}"))?;
    let path = root().join(model);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (len, room) = (bytes.len(), partition.size() as usize);
    ensure!(len <= room, "the model has {len} bytes, its partition {room}: take a smaller one");
    parts.push((partition.offset(), bytes));

    let mut image = Vec::new();
    for (address, bytes) in parts {
        ensure!(image.len() <= address as usize, "what begins at {address:#x} overlaps what is before it");
        // As erased flash is.
        image.resize(address as usize, 0xFF);
        image.extend(bytes);
    }
    let path = built().join(format!("{PROGRAM}.bin"));
    fs::write(&path, image)?;
    Ok(path)
}

/// The step of `cargo xtask ci`: what a release carries can be built, and the program's parts are where they have to be.
pub fn check() -> Result<Outcome> {
    let toolchain = match Toolchain::find()? {
        Ok(toolchain) => toolchain,
        Err(outcome) => return Ok(outcome),
    };
    release(&toolchain, super::story::MODEL.as_ref())?;
    Ok(Outcome::Passed)
}

/// Build what a release carries.
pub fn release(toolchain: &Toolchain, model: &Path) -> Result<()> {
    let image = build(toolchain, model)?;
    let folder = built().join("web");
    release::write(&fs::read(image)?, &folder)?;
    println!("{}, for a release of version {}", folder.display(), release::VERSION);
    Ok(())
}

/// Build the program, look at it, and write the image. Returns where that is.
pub fn build(toolchain: &Toolchain, model: &Path) -> Result<PathBuf> {
    let program = toolchain.build()?;
    let layout = measure(&program)?;
    println!("esp32s3: {layout}");
    layout.check()?;
    let image = image(&program, model)?;
    println!("{}, to be written to flash from 0 on", image.display());
    Ok(image)
}
