//! What goes to standard output, and what is kept from it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};

/// Writes text at once, without the control characters that would change the state of a terminal.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(harmless(text).as_bytes()).and_then(|()| out.flush()).map_err(Error::output)
}

/// Writes a value as a line of JSON.
pub fn json(value: &impl Serialize) -> Result<()> {
    // Serialising fails only for maps whose keys are no strings.
    let mut line = serde_json::to_string(value).map_err(Error::failure)?;
    line.push('\n');
    // JSON escapes control characters itself.
    io::stdout().lock().write_all(line.as_bytes()).map_err(Error::output)
}

/// Writes a file as a whole: what was there before stays until all of the new one is on the disk.
pub fn file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    let written = write();
    written.map_err(|error| {
        // It may not even be there.
        let _ = fs::remove_file(&temporary);
        Error::file(path, format_args!("cannot be written ({error}): check its folder, and the space there"))
    })
}

/// Says something beside the result, on standard error.
pub fn note(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(io::stderr(), "{}", one_line(text));
}

/// Text without control characters, but for those that are white space, which llama2.c prints too: a model,
/// or the author of its file, could write escape sequences with the others.
///
/// This does not depend on where standard output goes: what is piped or saved may end in a terminal as well.
fn harmless(text: &str) -> Cow<'_, str> {
    // Tab, newline, vertical tab, form feed and carriage return: the white space of C.
    let harmful = |c: char| c.is_control() && !matches!(c, '\t'..='\r');
    if text.contains(harmful) { text.replace(harmful, "").into() } else { text.into() }
}

/// Text with its control characters written as escapes, so that it fills one line whatever is in it.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line.into()
}

/// Rows of cells under each other: the first column to the left, the others to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table that begins with this row.
    pub fn new<const N: usize>(row: [&str; N]) -> Self {
        let mut table = Self { rows: Vec::new() };
        table.row(row);
        table
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, row: [&str; N]) {
        self.rows.push(row.map(|cell| one_line(cell).into_owned()).into());
    }

    /// The table as lines.
    pub fn lines(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut lines = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                line += &if column == 0 { format!("{cell:width$}") } else { format!("  {cell:>width$}") };
            }
            lines.push_str(line.trim_end());
            lines.push('\n');
        }
        lines
    }
}

/// Names and values under each other, both to the left.
pub fn list(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| format!("{name:width$}  {}\n", one_line(value));
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        let space = "a\t\n\x0b\x0c\rb é\u{2028}";
        assert_eq!(harmless(space), space);
        assert_eq!(harmless("\x1b[2Ja\x07\x08\r\x0e\u{85}\u{9b}31mb\0\x7f"), "[2Ja\r31mb");
    }

    #[test]
    fn a_line_stays_one() {
        assert_eq!(one_line("a b"), "a b");
        assert_eq!(one_line("a\nb\x1b[31m"), "a\\nb\\u{1b}[31m");
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["", "rate", "share"]);
        table.row(["matrix products", "12.5", "90 %"]);
        table.row(["é", "1"]);
        assert_eq!(
            table.lines(),
            "                 rate  share\n\
             matrix products  12.5   90 %\n\
             é                   1\n"
        );
        assert_eq!(list(&[("a", "x".into()), ("long", "y".into())]), "a     x\nlong  y\n");
    }
}
