//! What a program takes of a board.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, SectionKind};

/// Bytes of stack that a story may take.
const STACK_LIMIT: u64 = 24 << 10;

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

/// Memory that a story has used, in bytes.
#[derive(Clone, Copy)]
pub struct Used {
    pub stack: u64,
    pub stack_size: u64,
    /// Of what was lent to the engine, what it had no use for.
    pub free: u64,
}

impl Used {
    /// A chip's stack is no longer than this needs.
    pub fn check(self) -> Result<()> {
        let Self { stack, .. } = self;
        ensure!(stack <= STACK_LIMIT, "a story has taken {stack} bytes of stack, more than {STACK_LIMIT}");
        Ok(())
    }
}

impl Size {
    /// Bytes of memory that are lent to the engine.
    pub const fn arena(&self) -> u64 {
        self.arena
    }

    /// Bytes of code and of all that has a value at first.
    pub const fn flash(&self) -> u64 {
        self.code + self.constants + self.data
    }

    /// Bytes of all memory that the program has.
    fn memory(&self) -> u64 {
        self.variables() + self.stacks + self.arena
    }

    fn variables(&self) -> u64 {
        self.data + self.zero
    }

    /// Bytes of memory at the peak of a story. Stacks are that of the program and that of faults, which stays.
    fn peak(&self, used: Used) -> u64 {
        self.memory() - (used.stack_size - used.stack) - used.free
    }

    /// It must leave room on small chips.
    pub fn check(&self, limit: u64) -> Result<()> {
        let flash = self.flash();
        ensure!(flash <= limit, "code and constants have {flash} bytes, more than {limit}");
        Ok(())
    }

    /// For people.
    pub fn table(&self, used: Used) -> String {
        let Self { code, constants, data, stacks, arena, .. } = self;
        let (flash, memory, variables, peak) =
            (self.flash(), self.memory(), self.variables(), self.peak(used));
        let Used { stack, stack_size, free } = used;
        format!(
            "  flash {flash:8} bytes: {code} code, {constants} constants, {data} data\n\
             \x20 RAM   {memory:8} bytes: {variables} variables, {stacks} stacks, {arena} lent to the engine\n\
             \x20 peak  {peak:8} bytes: {stack} of {stack_size} bytes of stack used, {} lent ones",
            arena - free
        )
    }

    /// For programs.
    pub fn json(&self, used: Used) -> String {
        let Self { code, constants, data, stacks, arena, .. } = self;
        let (flash, memory, variables, peak) =
            (self.flash(), self.memory(), self.variables(), self.peak(used));
        let Used { stack, free, .. } = used;
        format!(
            "{{\"flash\":{flash},\"code\":{code},\"constants\":{constants},\"data\":{data},\"ram\":{memory},\
             \"variables\":{variables},\"stacks\":{stacks},\"arena\":{arena},\"ram_peak\":{peak},\
             \"stack_used\":{stack},\"arena_used\":{}}}",
            arena - free
        )
    }
}
