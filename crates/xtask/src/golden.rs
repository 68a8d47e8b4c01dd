//! `cargo xtask golden`: the stories that the project's own models must tell everywhere.

use std::fs;

use anyhow::Result;

use crate::ci::tools::{cargo, output, root};

/// Write the stories that tests compare with, as the program tells them on this machine.
///
/// For a model that has changed; the difference is there to be read before it is committed.
#[derive(clap::Args)]
pub struct Options {}

/// The stories: the end of their files' names, and the arguments of `llamita run`.
const STORIES: [(&str, &[&str]); 3] = [
    ("greedy", &["-t", "0"]),
    // With keys and values of eight bits, as boards keep them.
    ("greedy-q8", &["-t", "0", "--kv", "q8"]),
    ("seed42", &["-t", "0.8", "-s", "42", "The llama was hungry."]),
];

/// Write them.
pub fn run(_: &Options) -> Result<()> {
    let folder = root().join("models/golden");
    fs::create_dir_all(&folder)?;
    for model in ["tiny", "nano"] {
        for (name, arguments) in STORIES {
            let mut command = cargo("run");
            command.args(["--quiet", "--package", "llamita-cli", "--", "run", "-q"]);
            let told = output(command.args(["--threads", "1", "-m", model]).args(arguments))?;
            fs::write(folder.join(format!("{model}-{name}.txt")), told + "\n")?;
        }
    }
    Ok(())
}
