//! Stories that boards tell, and what is known of them.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::board::Board;
use super::emulator::Emulator;
use super::size::Used;
use crate::ci::tools::root;

/// The model of which a story is known.
pub const MODEL: &str = "models/nano.gguf";
/// The story: boards keep keys and values in eight bits.
pub const GOLDEN: &str = "models/golden/nano-greedy-q8.txt";

/// What the board says when it waits for a line.
pub const PROMPT: &str = "\n> ";

/// What was told.
pub struct Told {
    story: String,
    /// Of the board's clock, for each token after the first.
    ticks_per_token: u64,
    /// Bytes that were read for it.
    pub read: u64,
    /// Memory that was used.
    pub used: Used,
}

/// The story that is known.
pub fn golden() -> Result<String> {
    let golden = fs::read_to_string(root().join(GOLDEN)).with_context(|| format!("cannot read {GOLDEN}"))?;
    Ok(golden.trim_end_matches('\n').to_owned())
}

/// A story and its statistics, of all that was heard since its prompt was typed.
pub fn split(heard: &str) -> Result<(String, String)> {
    // The line that was typed, the story, and a line of statistics in brackets.
    let heard = heard.replace('\r', "");
    let (_, told) = heard.split_once('\n').unwrap_or_default();
    let told = told.strip_suffix(&format!("]{PROMPT}")).and_then(|told| told.rsplit_once("\n["));
    match told {
        Some((story, statistics)) => Ok((story.to_owned(), statistics.to_owned())),
        None => bail!("this is no story with statistics behind it:\n{heard}"),
    }
}

/// Type what somebody would who wants a prompt continued by temperature 0; `aloud` shows what the board says.
pub fn tell(command: Command, prompt: &str, aloud: bool) -> Result<Told> {
    let mut emulator = Emulator::start(command, aloud)?;
    let plan = emulator.wait_for(PROMPT)?;
    let free = number_before(&plan, " free").context("nothing was said of free memory")?;
    emulator.line("/temp 0")?;
    emulator.wait_for(PROMPT)?;
    emulator.line(prompt)?;
    let (story, statistics) = split(&emulator.wait_for(PROMPT)?)?;
    let (stack, stack_size) = quit(emulator)?;
    let number = |unit: &str| {
        let part = statistics.split(", ").find_map(|part| part.strip_suffix(unit));
        let number = part.and_then(|number| number.trim().parse().ok());
        number.with_context(|| format!("no number of {unit} in {statistics}"))
    };
    Ok(Told {
        story,
        ticks_per_token: number("ticks a token")?,
        read: number("bytes read")?,
        used: Used { stack, stack_size, free },
    })
}

/// Have the board compare its arithmetic with what defines it; returns what it says.
pub fn self_test(command: Command) -> Result<String> {
    let mut emulator = Emulator::start(command, true)?;
    emulator.wait_for(PROMPT)?;
    emulator.line("/selftest")?;
    let heard = emulator.wait_for(PROMPT)?;
    let result = heard.lines().find(|line| line.ends_with(" agree"));
    let result = result.with_context(|| format!("this is no success:\n{heard}"))?;
    let (stack, size) = quit(emulator)?;
    Ok(format!("{result}, {stack} of {size} bytes of stack used"))
}

/// End the program; returns the bytes of its stack that it has used, and all.
pub fn quit(mut emulator: Emulator) -> Result<(u64, u64)> {
    emulator.line("/quit")?;
    let farewell = emulator.finish()?;
    let stack = number_before(&farewell, " of ").zip(number_before(&farewell, " bytes used"));
    stack.context("nothing was said of the stack")
}

/// The number behind a text.
pub fn number_after(text: &str, name: &str) -> Option<u64> {
    text.rsplit_once(name)?.1.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

/// The number before a text, of which it says what it is.
fn number_before(text: &str, unit: &str) -> Option<u64> {
    text.split(unit).next()?.rsplit(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

impl Told {
    /// The story must be the one that is known, to the byte.
    pub fn compare(&self) -> Result<()> {
        let golden = golden()?;
        ensure!(self.story == golden, "the board tells\n{}\ninstead of\n{golden}", self.story);
        Ok(())
    }

    /// How many instructions a token takes, in words.
    pub fn instructions(&self, board: &Board) -> Result<String> {
        let count = self.ticks_per_token * board.instructions_per_tick;
        ensure!(count > 0, "a token takes no instructions");
        Ok(format!("{:.2} million instructions a token", count as f64 / 1e6))
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a story of {} bytes, {} bytes read", self.story.len(), self.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_before_their_units() {
        let text = "nano: 12 for pinned weights, 512 free; more\r\nstack: 1024 of 4096 bytes used\r\n";
        assert_eq!(number_before(text, " free"), Some(512));
        assert_eq!(number_before(text, " of "), Some(1024));
        assert_eq!(number_before(text, " bytes used"), Some(4096));
        assert_eq!(number_before("free", " free"), None);
    }
}
