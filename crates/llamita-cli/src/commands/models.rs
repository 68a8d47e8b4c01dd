//! `llamita models`: the models that are part of the program.

use serde::Serialize;

use crate::builtin::{self, BuiltIn};
use crate::error::Result;
use crate::load::{File, LoadedModel};
use crate::output;
use crate::units;

/// List the models that are part of the program
///
/// Every command takes their names in place of a file. `run`, `inspect`, `eval` and `bench` take the first where they
/// are given none.
#[derive(clap::Args)]
pub struct Options {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    about: &'static str,
    parameters: usize,
    bytes: usize,
    vocab_size: usize,
    context: usize,
}

/// List them.
pub fn run(options: &Options) -> Result<()> {
    let entry = |model: &'static BuiltIn| -> Result<Entry> {
        let file = File::of_program(model);
        let loaded = LoadedModel::read(&file)?;
        let config = loaded.config();
        Ok(Entry {
            name: model.name,
            about: model.about,
            parameters: loaded.parameters(),
            bytes: model.bytes().len(),
            vocab_size: config.vocab_size,
            context: config.seq_len,
        })
    };
    let entries: Vec<Entry> = builtin::ALL.iter().map(entry).collect::<Result<_>>()?;
    if options.json {
        return output::json(&entries);
    }
    let line = |entry: &Entry| {
        let Entry { name, about, parameters, bytes, vocab_size, context } = *entry;
        let size = units::bytes(bytes as u64);
        format!(
            "{name:<6} {about}\n       {parameters} weights, {size}, {vocab_size} tokens, context {context}\n"
        )
    };
    output::print(&entries.iter().map(line).collect::<String>())
}
