//! What a program takes of a board.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, SectionKind};

/// Bytes of code and constants that a program may have: a third of the flash of the smallest chips that are thought of.
const LIMIT: u64 = (1 << 20) / 3;

/// The parts of a program, in bytes.
#[derive(Default)]
pub struct Size {
    code: u64,
    constants: u64,
    /// Variables that have a value at first, which is in flash as well.
    data: u64,
    /// Variables that are zero at first.
    zero: u64,
    stacks: u64,
    arena: u64,
}

/// Measure a program.
pub fn measure(program: &Path) -> Result<Size> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let file = object::File::parse(&*bytes)?;
    let mut size = Size::default();
    for section in file.sections() {
        // Names that all linker scripts of boards share; all else is told by its kind.
        let part = match (section.name()?, section.kind()) {
            (".stack", _) => &mut size.stacks,
            (".arena", _) => &mut size.arena,
            (_, SectionKind::Text) => &mut size.code,
            (_, SectionKind::ReadOnlyData | SectionKind::ReadOnlyString) => &mut size.constants,
            (_, SectionKind::Data) => &mut size.data,
            (_, SectionKind::UninitializedData) => &mut size.zero,
            _ => continue,
        };
        *part += section.size();
    }
    Ok(size)
}

impl Size {
    fn flash(&self) -> u64 {
        self.code + self.constants + self.data
    }

    /// It must leave room on small chips.
    pub fn check(&self) -> Result<()> {
        let flash = self.flash();
        ensure!(flash <= LIMIT, "code and constants have {flash} bytes, more than {LIMIT}");
        Ok(())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, constants, data, zero, stacks, arena } = self;
        let (flash, memory) = (self.flash(), data + zero + stacks + arena);
        write!(
            f,
            "{flash} bytes of flash ({code} code, {constants} constants, {data} data), {memory} of RAM ({} variables, \
             {stacks} stacks, {arena} lent to the engine)",
            data + zero
        )
    }
}
