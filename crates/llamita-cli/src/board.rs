//! Boards: those that the program knows, and those that a file describes.

use std::fs;
use std::path::Path;

use llamita_storage::simulate::Faults;
use llamita_storage::{Board, Cycles, MEMORIES, Medium, Memory};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::units::size;

/// Names and descriptions, which have the sources of their figures as comments.
pub const ALL: &[(&str, &str)] = &[
    ("esp32s3-n16r8", include_str!("../../../boards/esp32s3-n16r8.toml")),
    ("esp32s3-n16r8-line32", include_str!("../../../boards/esp32s3-n16r8-line32.toml")),
    ("esp32s3-n16r8-line16", include_str!("../../../boards/esp32s3-n16r8-line16.toml")),
    ("esp32s3-n8r2", include_str!("../../../boards/esp32s3-n8r2.toml")),
    ("esp32c3", include_str!("../../../boards/esp32c3.toml")),
    ("esp32p4", include_str!("../../../boards/esp32p4.toml")),
    ("rp2350", include_str!("../../../boards/rp2350.toml")),
    ("rp2350-psram", include_str!("../../../boards/rp2350-psram.toml")),
    ("stm32f4", include_str!("../../../boards/stm32f4.toml")),
    ("stm32h7", include_str!("../../../boards/stm32h7.toml")),
    ("nrf52840", include_str!("../../../boards/nrf52840.toml")),
    ("raspberry-pi-zero", include_str!("../../../boards/raspberry-pi-zero.toml")),
    ("raspberry-pi-zero-2", include_str!("../../../boards/raspberry-pi-zero-2.toml")),
];

/// A board as it is described.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    name: String,
    about: String,
    clock_mhz: f64,
    cores: usize,
    /// Where the cycles below are instructions that were counted.
    #[serde(default = "one")]
    cycles_per_instruction: f64,
    cycles_per_mac: CyclesPerMac,
    cycles: OtherCycles,
    memory: Vec<MemoryDescription>,
    #[serde(default)]
    storage: Vec<StorageDescription>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CyclesPerMac {
    f32: f64,
    f16: f64,
    q8: f64,
    q4: f64,
    group: Option<f64>,
    row: Option<f64>,
}

/// What is not there follows from floats.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OtherCycles {
    float: f64,
    exp: f64,
    round: Option<f64>,
    angle: Option<f64>,
    logit: Option<f64>,
    step: Option<f64>,
    share: Option<f64>,
    cached: Option<f64>,
    position: Option<f64>,
    head: Option<f64>,
    keep: Option<f64>,
    norm: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryDescription {
    name: String,
    size: Size,
    mb_per_s: f64,
    #[serde(default)]
    read_only: bool,
    #[serde(default = "yes")]
    dma: bool,
}

const fn one() -> f64 {
    1.0
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StorageDescription {
    name: String,
    about: String,
    mb_per_s: f64,
    latency_us: f64,
    best_read: Size,
    overlap: bool,
    /// What an imitated storage does wrong: each from 0 to 1.
    #[serde(default)]
    jitter: f64,
    #[serde(default)]
    errors: f64,
    #[serde(default)]
    corrupt: f64,
}

/// Bytes, as a number or as a text such as "256k".
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Number(u64),
    Text(String),
}

impl Size {
    fn bytes(&self) -> std::result::Result<u64, String> {
        match self {
            Self::Number(bytes) => Ok(*bytes),
            Self::Text(text) => size(text),
        }
    }
}

/// A board with the names of its parts.
pub struct NamedBoard {
    /// What it is named by.
    pub name: String,
    /// What it is.
    pub about: String,
    clock: f64,
    cores: usize,
    cycles: Cycles,
    /// The fastest first.
    pub memories: Vec<NamedMemory>,
    /// That which is used without a name first.
    pub storages: Vec<NamedStorage>,
    /// The memories alone.
    plain: Vec<Memory>,
    /// All that it is described by.
    pub figures: Vec<Figure>,
}

/// A figure of a board as it is described, with where it comes from.
#[derive(Clone, Serialize)]
pub struct Figure {
    /// The part that it belongs to: a kind, and a name where there are several of them.
    pub part: String,
    /// What it is called.
    pub name: String,
    /// The figure itself.
    pub value: String,
    /// The comment beside it.
    pub source: String,
}

/// The figures of a description that has been understood, a line each.
fn figures(text: &str) -> Vec<Figure> {
    let mut figures: Vec<Figure> = Vec::new();
    let (mut kind, mut part) = ("", String::new());
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(heading) = line.strip_prefix('[') {
            kind = heading.trim_start_matches('[').split(']').next().unwrap_or_default();
            part = kind.replace('_', " ");
            continue;
        }
        let Some((name, rest)) = line.split_once('=') else { continue };
        let (name, rest) = (name.trim(), rest.trim());
        let quoted = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
        let (value, rest) = quoted.unwrap_or_else(|| rest.split_at(rest.find('#').unwrap_or(rest.len())));
        match name {
            "name" if !kind.is_empty() => part = format!("{kind} {value}"),
            "name" | "about" => (),
            _ => {
                let source = rest.trim().trim_start_matches('#').trim();
                let [name, value, source] = [name, value.trim(), source].map(str::to_owned);
                figures.push(Figure { part: part.clone(), name, value, source });
            }
        }
    }
    figures
}

/// A memory with its name.
#[derive(Clone)]
pub struct NamedMemory {
    /// What it is called.
    pub name: String,
    /// What is known of it.
    pub memory: Memory,
}

/// A storage with its name.
pub struct NamedStorage {
    /// What it is named by.
    pub name: String,
    /// What it is.
    pub about: String,
    /// What is known of it.
    pub medium: Medium,
    /// What it does wrong where it is imitated.
    pub faults: Faults,
}

impl NamedBoard {
    /// The board of a name, or of a file.
    pub fn find(name: &Path) -> Result<Self> {
        if let Some((_, text)) = ALL.iter().find(|(known, _)| name == Path::new(known)) {
            return Self::parse(text).map_err(|error| Error::file(name, error));
        }
        if !name.exists() {
            let names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
            return Err(Error::usage(format_args!(
                "there is no board or file {}, known boards are {} (llamita boards NAME prints one to start from)",
                name.display(),
                names.join(", ")
            )));
        }
        let text = fs::read_to_string(name).map_err(|error| {
            Error::file(name, format_args!("cannot be read as text ({error}): check the file"))
        })?;
        Self::parse(&text).map_err(|error| Error::file(name, error))
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        const START: &str = "start from what `llamita boards NAME` prints";
        let found: Description =
            toml::from_str(text).map_err(|error| format!("{}: {START}", error.to_string().trim()))?;
        let positive = |name: &str, number: f64| {
            let fits = (1e-3..1e9).contains(&number);
            fits.then_some(number).ok_or_else(|| {
                format!("{name} is {number}, expected a number from 0.001 to 1,000,000,000: {START}")
            })
        };
        let count = |name: &str, found: usize, most: usize| {
            let fits = (1..=most).contains(&found);
            if fits { Ok(()) } else { Err(format!("{found} of {name}, expected 1 to {most}: {START}")) }
        };
        count("cores", found.cores, 1024)?;
        count("[[memory]]", found.memory.len(), MEMORIES)?;
        let each = positive("cycles_per_instruction", found.cycles_per_instruction)?;
        let cycles =
            |name: &str, number| positive(&format!("cycles of {name}"), number).map(|cycles| each * cycles);
        let mut memories = Vec::new();
        for memory in found.memory {
            let of = |what: &str| format!("{what} of memory {}", memory.name);
            let size = memory.size.bytes().map_err(|error| format!("{}: {error}: {START}", of("size")))?;
            let rate = 1e6 * positive(&of("mb_per_s"), memory.mb_per_s)?;
            let (read_only, dma) = (memory.read_only, memory.dma);
            memories.push(NamedMemory { name: memory.name, memory: Memory { size, rate, read_only, dma } });
        }
        // The first one's own time is part of the cycles.
        let falling = memories.is_sorted_by(|a, b| a.memory.rate >= b.memory.rate);
        if !falling || memories.iter().take(1).any(|memory| memory.memory.read_only) {
            return Err(format!(
                "memories are not in the order of mb_per_s, expected the fastest first, and that it can be \
                 written: {START}"
            ));
        }
        let mut storages = Vec::new();
        for storage in found.storage {
            let of = |what: &str| format!("{what} of storage {}", storage.name);
            let best_read = storage
                .best_read
                .bytes()
                .map_err(|error| format!("{}: {error}: {START}", of("best_read")))?;
            let rate = 1e6 * positive(&of("mb_per_s"), storage.mb_per_s)?;
            if best_read == 0 || best_read > 1 << 30 {
                return Err(format!("{} is {best_read}, expected 1 to 1024M: {START}", of("best_read")));
            }
            if !(0.0..1e9).contains(&storage.latency_us) {
                return Err(format!(
                    "{} is {}, expected 0 or more: {START}",
                    of("latency_us"),
                    storage.latency_us
                ));
            }
            let medium =
                Medium { rate, latency: storage.latency_us / 1e6, best_read, overlap: storage.overlap };
            let faults = Faults { jitter: storage.jitter, errors: storage.errors, corrupt: storage.corrupt };
            for (what, share) in
                [("jitter", faults.jitter), ("errors", faults.errors), ("corrupt", faults.corrupt)]
            {
                if !(0.0..=1.0).contains(&share) {
                    return Err(format!("{} is {share}, expected 0 to 1: {START}", of(what)));
                }
            }
            storages.push(NamedStorage { name: storage.name, about: storage.about, medium, faults });
        }
        let cycles = {
            let CyclesPerMac { f32, f16, q8, q4, group, row } = found.cycles_per_mac;
            let OtherCycles {
                float,
                exp,
                round,
                angle,
                logit,
                step,
                share,
                cached,
                position,
                head,
                keep,
                norm,
            } = found.cycles;
            let of_weights = [cycles("f32", f32)?, cycles("f16", f16)?, cycles("q8", q8)?, cycles("q4", q4)?];
            let mut all = Cycles::new(of_weights, cycles("float", float)?, cycles("exp", exp)?);
            for (name, known, found) in [
                ("group", &mut all.group, group),
                ("row", &mut all.row, row),
                ("round", &mut all.round, round),
                ("angle", &mut all.angle, angle),
                ("logit", &mut all.logit, logit),
                ("step", &mut all.step, step),
                ("share", &mut all.share, share),
                ("cached", &mut all.cached, cached),
                ("position", &mut all.position, position),
                ("head", &mut all.head, head),
                ("keep", &mut all.keep, keep),
                ("norm", &mut all.norm, norm),
            ] {
                if let Some(found) = found {
                    *known = cycles(name, found)?;
                }
            }
            all
        };
        let plain = memories.iter().map(|memory| memory.memory).collect();
        let (name, about, cores) = (found.name, found.about, found.cores);
        let clock = 1e6 * positive("clock_mhz", found.clock_mhz)?;
        let figures = figures(text);
        Ok(Self { name, about, clock, cores, cycles, memories, storages, plain, figures })
    }

    /// Leaves no more memory to a model than this: what can be written of the fastest first.
    pub fn limit(&mut self, mut left: u64) {
        for memory in self.plain.iter_mut().filter(|memory| !memory.read_only) {
            memory.size = memory.size.min(left);
            left -= memory.size;
        }
        for (named, plain) in self.memories.iter_mut().zip(&self.plain) {
            named.memory = *plain;
        }
    }

    /// The storage of this name, or else the first, if there is any.
    pub fn storage(&self, name: Option<&str>) -> Result<Option<&NamedStorage>> {
        let Some(name) = name else { return Ok(self.storages.first()) };
        let found = self.storages.iter().find(|storage| storage.name == name);
        if found.is_none() {
            let names: Vec<_> = self.storages.iter().map(|storage| storage.name.as_str()).collect();
            return Err(Error::usage(format_args!(
                "--storage names {name}, which the board {} has not: expected {}",
                self.name,
                if names.is_empty() { "none".to_owned() } else { names.join(" or ") }
            )));
        }
        Ok(found)
    }

    /// The board, as plans need it.
    pub fn with(&self, storage: Option<&NamedStorage>) -> Board<'_> {
        let storage = storage.map(|storage| storage.medium);
        let &Self { clock, cores, cycles, .. } = self;
        Board { clock, cores, cycles, memories: &self.plain, storage }
    }

    /// Cores and clock, as a text.
    pub fn cores(&self) -> String {
        format!("{} at {} MHz", crate::units::counted(self.cores, "core"), self.clock / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_boards_are_what_they_are_called() {
        for (name, text) in ALL {
            let board = NamedBoard::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(board.name, *name);
            assert!(!board.about.is_empty());
            // Every figure says where it comes from.
            for line in text.lines().filter(|line| line.contains('=')) {
                let word = line.split('=').next().unwrap_or_default().trim();
                let plain = ["name", "about", "read_only"].contains(&word);
                assert!(plain || line.contains("# R:") || line.contains("# I:"), "{name}: {line}");
            }
            // Something can be written while the cores compute.
            assert!(
                board.memories.iter().any(|memory| memory.memory.dma && !memory.memory.read_only),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_no_board_is_refused() {
        let good = ALL[0].1;
        for (change, with, text) in [
            ("cores = 2 ", "cores = 0 ", "0 of cores, expected 1 to 1024"),
            ("clock_mhz = 240", "clock_mhz = -1", "clock_mhz is -1, expected a number from 0.001"),
            ("size = \"256k\"", "size = \"many\"", "size of memory SRAM: expected"),
            ("q8 = 0.068", "q8 = nan", "cycles of q8 is NaN"),
            ("step = 1220", "step = -1", "cycles of step is -1"),
            ("instruction = 1.25", "instruction = 0", "cycles_per_instruction is 0"),
            ("best_read = \"32k\"", "best_read = 0", "best_read of storage sdmmc4 is 0"),
            ("latency_us = 500", "latency_us = inf", "latency_us of storage sdmmc4 is inf"),
            ("cores = 2 ", "colour = 2 ", "unknown field `colour`"),
            ("[[memory]]", "[[memories]]", "unknown field `memories`"),
            ("mb_per_s = 1919", "mb_per_s = 19", "expected the fastest first"),
            ("size = \"256k\"", "size = \"256k\"\nread_only = true", "can be written"),
        ] {
            let bad = good.replacen(change, with, 1);
            assert_ne!(bad, good, "{change}");
            let error = NamedBoard::parse(&bad).err().unwrap();
            assert!(error.contains(text) && error.contains("llamita boards NAME"), "{error}");
        }
        assert!(NamedBoard::parse("").is_err() && NamedBoard::parse("\u{0}").is_err());
    }

    #[test]
    fn figures_are_told_with_their_sources() {
        let text = "name = \"a\" # R: x\ncores = 2# I: y = 3\n[cycles]\n# c = 1\nfloat = 5 \n\
                    [[memory]]\nname = \"RAM # 1\"\nsize = \"1 # k\"  # R: # z";
        let found: Vec<_> = figures(text)
            .into_iter()
            .map(|Figure { part, name, value, source }| [part, name, value, source])
            .collect();
        assert_eq!(
            found,
            [
                ["", "cores", "2", "I: y = 3"],
                ["cycles", "float", "5", ""],
                ["memory RAM # 1", "size", "1 # k", "R: # z"]
            ]
        );
        // Of all that there is: a line each.
        for (name, text) in ALL {
            let lines = text.lines().filter(|line| line.contains("# R: ") || line.contains("# I: ")).count();
            let figures = figures(text).into_iter().filter(|figure| !figure.source.is_empty());
            assert_eq!(figures.count(), lines, "{name}");
        }
    }

    #[test]
    fn less_memory_is_the_fastest() {
        let mut board = NamedBoard::parse(ALL[0].1).unwrap();
        board.limit(400 << 10);
        let sizes: Vec<_> = board.memories.iter().map(|memory| memory.memory.size >> 10).collect();
        assert_eq!(sizes, [256, 144, 14 << 10]);
    }
}
