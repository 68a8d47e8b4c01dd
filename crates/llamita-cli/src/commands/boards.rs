//! `llamita boards`: the boards that the program knows.

use serde::Serialize;

use crate::board::{self, NamedBoard};
use crate::error::{Error, Result};
use crate::output;
use crate::units::bytes;

/// List the boards that plan and run know, or print one as a file to start from
///
/// Each figure has its source beside it: R for what was read there, I for what follows from such figures. Of a board
/// that is not here, or that was measured, write such a file and name it with --board.
#[derive(clap::Args)]
pub struct Options {
    /// Print the description of this board, in TOML
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Print one JSON array
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    about: String,
    cores: String,
    memories: Vec<Part>,
    storages: Vec<Part>,
}

#[derive(Serialize)]
struct Part {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    bytes_per_second: f64,
}

/// List them, or print one.
pub fn run(options: &Options) -> Result<()> {
    if let Some(name) = &options.name {
        let Some((_, text)) = board::ALL.iter().find(|(known, _)| known == name) else {
            return Err(NamedBoard::find(name.as_ref()).err().unwrap_or_else(|| {
                Error::usage(format_args!("{name} is a file, expected a board that `llamita boards` lists"))
            }));
        };
        return output::print(text);
    }
    let entry = |(name, _): &(&str, _)| -> Result<Entry> {
        let found = NamedBoard::find(name.as_ref())?;
        let memory = |memory: &board::NamedMemory| Part {
            name: memory.name.clone(),
            bytes: Some(memory.memory.size),
            bytes_per_second: memory.memory.rate,
        };
        let storage = |storage: &board::NamedStorage| Part {
            name: storage.name.clone(),
            bytes: None,
            bytes_per_second: storage.medium.rate,
        };
        Ok(Entry {
            cores: found.cores(),
            memories: found.memories.iter().map(memory).collect(),
            storages: found.storages.iter().map(storage).collect(),
            name: found.name,
            about: found.about,
        })
    };
    let entries: Vec<_> = board::ALL.iter().map(entry).collect::<Result<_>>()?;
    if options.json {
        return output::json(&entries);
    }
    let part = |part: &Part| {
        let size = part.bytes.map_or_else(String::new, |size| format!(" {}", bytes(size)));
        format!("{}{size} at {}/s", part.name, bytes(part.bytes_per_second as u64))
    };
    let line = |entry: &Entry| {
        let parts: Vec<_> = entry.memories.iter().chain(&entry.storages).map(part).collect();
        format!("{}\n    {}; {}\n    {}\n", entry.name, entry.about, entry.cores, parts.join(", "))
    };
    output::print(&entries.iter().map(line).collect::<String>())
}
